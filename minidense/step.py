"""One step of training. On a GPU its twin (fast/gpu/graph.py) hands the whole of it to the driver at once, as a CUDA graph."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import functional as F
from .models import Classifier
from .nn import Module
from .optim import SGD
from .speed import reference
from .tensor import Tensor

_as_graph = True


@reference
def training_step(model: Module, optimizer: SGD, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Forward, loss, backward, step: images (N, C, H, W) and labels (N,), arrays on the model's device.

    Returns (logits, loss), both from before the parameters moved. On a GPU the next step may write over them: read what you need.
    """
    if isinstance(model, Classifier):
        logits, loss = model.loss(Tensor(images), labels)
    else:
        logits = model(Tensor(images))
        loss = F.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return logits, loss


def graph_is_wanted() -> bool:
    """May a step on the GPU be noted down once and replayed from then on?"""
    return _as_graph


@contextmanager
def steps_as_graph(wanted: bool) -> Iterator[None]:
    """Whether steps inside may be replayed as CUDA graphs; they may by default."""
    global _as_graph
    before, _as_graph = _as_graph, wanted
    try:
        yield
    finally:
        _as_graph = before
