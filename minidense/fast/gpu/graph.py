"""A training step as one CUDA graph: noted down once, then handed to the driver as a whole. The definition is step.training_step.

The first step with a shape of batch runs as it is written: kernels get compiled, velocities come into being. The second is noted down and
replayed, and so are all that follow. What the replay reads and writes it knows by address: parameters, velocities and running statistics
stay where they are, a batch is copied to where the first one lay, and the learning rate is a number on the GPU.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ...backend import device_of, library
from ...gpus import free_idle_blocks, pool_for
from ...nn import Module, chances
from ...optim import SGD
from ...precision import current_precision
from ...speed import fast_path
from ...step import graph_is_wanted, training_step
from ...tensor import Tensor
from . import examples
from .launch import on_gpu, tables_later

# Settings of a parameter group that a kernel has from when it was noted down.
SETTINGS = ("momentum", "dampening", "weight_decay", "nesterov")


class Recording:
    """A step of one model and optimiser with one shape of batch, ready to be replayed."""

    def __init__(self, model: Module, optimizer: SGD, images: Any, labels: Any):
        xp = library("gpu")
        n, c, h, w = images.shape
        self.images = xp.empty((c, n, h, w), images.dtype).transpose(1, 0, 2, 3)  # as the first convolution reads it
        self.labels = xp.empty(labels.shape, labels.dtype)
        self.rates = [xp.full((1,), group["lr"], "float32") for group in optimizer.groups]
        self.rate_values = [group["lr"] for group in optimizer.groups]
        # What is made on the way belongs to the graph: nobody else may get this memory while it can be replayed.
        self.pool = pool_for(self)
        stream = xp.cuda.Stream(non_blocking=True)
        xp.cuda.get_current_stream().synchronize()
        with xp.cuda.using_allocator(self.pool.malloc), stream, tables_later(), rates_on_gpu(optimizer, self.rates):
            stream.begin_capture()
            try:
                self.logits, self.loss = in_place_step(model, optimizer, self.images, self.labels)
            except BaseException:
                # What ended it may have spoilt the graph, too; the first reason is the one to tell.
                with suppress(Exception):
                    stream.end_capture()
                raise
            self.graph = stream.end_capture()
        stream.synchronize()
        self.parameters = parameters_of(optimizer)
        self.gradients = [w.grad for w in self.parameters]
        self.known, self.held = state_of(model, optimizer)

    def replay(self, optimizer: SGD, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
        """The step on this batch, with the learning rates of now."""
        self.images[...] = images
        self.labels[...] = labels
        for i, group in enumerate(optimizer.groups):
            if group["lr"] != self.rate_values[i]:
                self.rate_values[i] = group["lr"]
                self.rates[i].fill(group["lr"])
        self.graph.launch()
        for w, dw in zip(self.parameters, self.gradients, strict=True):
            w.grad = dw
        return self.logits, self.loss


def parameters_of(optimizer: SGD) -> list[Tensor]:
    return [w for group in optimizer.groups for w in group["params"]]


def state_of(model: Module, optimizer: SGD) -> tuple[list, list]:
    """Everything that a replay takes for granted, to be compared; and what must be held so that no identity is given anew."""
    modules, arrays = list(model.modules()), [item.data for _, item in model.named_arrays()]
    parameters = parameters_of(optimizer)
    held = [*modules, *arrays, *parameters, *(w.data for w in parameters), *map(optimizer.velocity.get, parameters)]
    settings = [
        *(w.requires_grad for w in parameters),
        *(module.on_output for module in modules),
        *(value for module in modules for value in vars(module).values() if isinstance(value, bool | int | float)),
        *(group[name] for group in optimizer.groups for name in SETTINGS),
        current_precision(),
    ]
    return [*map(id, held), *settings], held


@contextmanager
def rates_on_gpu(optimizer: SGD, rates: list) -> Iterator[None]:
    """Learning rates as arrays, which a kernel reads when it runs and not when it is noted down."""
    before = [group["lr"] for group in optimizer.groups]
    for group, rate in zip(optimizer.groups, rates, strict=True):
        group["lr"] = rate
    try:
        yield
    finally:
        for group, rate in zip(optimizer.groups, before, strict=True):
            group["lr"] = rate


def in_place_step(model: Module, optimizer: SGD, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """step.training_step, leaving every array where it is. Gradients of leaves end up in ``grad``; the graph behind them is gone."""
    inner = InPlace(optimizer)
    return training_step.definition(model, inner, images, labels)


class InPlace:
    """An optimiser that steps in place."""

    def __init__(self, optimizer: SGD):
        self.optimizer = optimizer

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def step(self) -> None:
        self.optimizer.step(in_place=True)


class Refused:
    """A step that cannot be noted down, as long as nothing about it changes."""

    def __init__(self, model: Module, optimizer: SGD, reason: str):
        self.known, self.held = state_of(model, optimizer)
        print(f"minidense: no CUDA graph for this step ({reason:.200}); it runs launch by launch", file=sys.stderr)


# For each optimiser: (model, shape of the batch) -> its Recording, why there is none, or None when it was seen once.
_known: weakref.WeakKeyDictionary[SGD, dict[Any, Recording | Refused | None]] = weakref.WeakKeyDictionary()
MOST = 2  # recordings that an optimiser keeps, each with memory of its own: full batches, and the last of an epoch


def fits(model, optimizer, images, labels):
    """On the GPU, in float32, a label an image."""
    return (
        graph_is_wanted()
        and isinstance(optimizer, SGD)
        and on_gpu(Tensor(images), *parameters_of(optimizer)[:1])
        and device_of(labels) == "gpu"
        and labels.dtype == "int64"
        and labels.shape == images.shape[:1]
    )


@fast_path(training_step, fits=fits, examples=examples.steps)
def training_step_as_graph(model, optimizer, images, labels):
    """step.training_step, from its second time on as one launch."""
    known, key = _known.setdefault(optimizer, {}), (model, images.shape)
    first = key not in known
    found: Recording | Refused | None = known.setdefault(key, None)
    if found is not None and found.known != state_of(model, optimizer)[0]:
        found = known[key] = None  # something else stands where it read, or what was in the way is gone
    if not has_stepped(optimizer):
        return training_step.definition(model, optimizer, images, labels)
    if found is None and not first:
        found = known[key] = noted_down(model, optimizer, images, labels)
        forget_all_but(MOST, known)
    if isinstance(found, Recording):
        return found.replay(optimizer, images, labels)
    # In place: another shape may have a graph already, which knows where things are.
    return in_place_step(model, optimizer, images, labels)


def has_stepped(optimizer: SGD) -> bool:
    """Are there velocities, where momentum needs them? The first step makes them, in a way of its own."""
    return bool(optimizer.velocity) or not any(group["momentum"] for group in optimizer.groups)


def forget_all_but(most: int, known: dict) -> None:
    """Drop the oldest recordings."""
    recordings = [key for key, value in known.items() if isinstance(value, Recording)]
    for key in recordings[: len(recordings) - most]:
        del known[key]


def noted_down(model: Module, optimizer: SGD, images: Any, labels: Any) -> Recording | Refused | None:
    """The Recording of a step. Refused where dropout and its kin, CUDA or CuPy stand in the way, which is said in one line.

    None where a parameter moved for the first time, unfrozen a moment ago: its velocity has to come into being first.
    """
    if any(module.drawing for module in chances(model)):
        return Refused(
            model, optimizer, "what is dropped is drawn on the CPU, and a replay would drop the same for ever"
        )
    # The steps before left their blocks in CuPy's pool, about as much as the graph will now take for itself.
    free_idle_blocks()
    velocities = dict(optimizer.velocity)
    try:
        recording = Recording(model, optimizer, images, labels)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  whatever it is, the step itself still works, launch by launch
        optimizer.velocity = velocities
        return Refused(model, optimizer, " ".join(f"{type(error).__name__}: {error}".split()))
    if optimizer.velocity.keys() != velocities.keys():
        optimizer.velocity = velocities
        return None
    return recording
