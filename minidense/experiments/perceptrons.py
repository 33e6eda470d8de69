"""Stacks of fully connected layers: built, asked for their gradients, and trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from .. import functional as F
from ..config import nearest
from ..data import Dataset
from ..errors import ConfigError
from ..models.initialise import Draw, draw
from ..nn import BatchNorm2d, Flatten, Linear, Module, ReLU, Sequential, Sigmoid, Tanh, init
from ..optim import SGD
from ..speed import reference_only
from ..tensor import Tensor
from ..threads import threads
from .training import train

CLASSES = 10
MOMENTUM = 0.9


def lecun_normal(rng: numpy.random.Generator, shape) -> numpy.ndarray:
    """N(0, √(1/fan_in)): keeps the variance through linear layers (LeCun et al. 1998, §4.6)."""
    return init.normal(rng, shape, std=1 / math.sqrt(init.fan_in(shape)))


ACTIVATIONS: dict[str, Callable[[], Module]] = {"sigmoid": Sigmoid, "tanh": Tanh, "relu": ReLU}
WRITTEN = {"sigmoid": "sigmoid", "tanh": "tanh", "relu": "ReLU"}  # in tables and pictures
INITIALISERS: dict[str, Draw] = {
    "xavier_uniform": init.xavier_uniform,
    "xavier_normal": init.xavier_normal,
    "he_uniform": init.he_uniform,
    "he_normal": init.he_normal,
    "lecun_normal": lecun_normal,
    "caffe_xavier": init.caffe_xavier,
    "torch_default": init.torch_default,
}
# Glorot & Bengio 2010 are about sigmoid and tanh, He et al. 2015 about ReLU.
USUAL = {"sigmoid": "xavier_uniform", "tanh": "xavier_uniform", "relu": "he_normal"}


class BatchNorm1d(BatchNorm2d):
    """Batch norm of (N, C): each of C features over the N examples, as if they were images of one pixel (Ioffe & Szegedy 2015, Alg. 1)."""

    def forward(self, x: Tensor) -> Tensor:
        # The definition: its twins are made for images, and four times slower on 50 examples of 64 features.
        with reference_only():
            return F.reshape(super().forward(F.reshape(x, (*x.shape, 1, 1))), x.shape)


def perceptron(
    *,
    depth: int,
    width: int = 64,
    activation: str = "sigmoid",
    initialiser: str | None = None,
    batch_norm: bool = False,
    inputs: int = 64,
    seed: int = 0,
) -> Sequential:
    """A multi-layer perceptron: `depth` hidden layers, each linear (– batch norm) – activation, and a linear classifier of ten classes.

    activation   sigmoid, tanh or relu
    initialiser  of all weights, a name in INITIALISERS; None: Xavier for sigmoid and tanh, He for ReLU. Biases start at 0
    batch_norm   between each hidden linear layer and its activation, as Ioffe & Szegedy 2015 have it in §3.2
    inputs       values of an example; images of so many pixels are taken as they are
    seed         the same seed, the same weights

    The layers are called linear1, norm1, sigmoid1, linear2, …, classifier.
    Raises ConfigError for an unknown name and a size below 1.
    """
    for what, name, known in (("activation", activation, ACTIVATIONS), ("initialiser", initialiser, INITIALISERS)):
        if name is not None and name not in known:
            raise ConfigError(
                f"perceptron: unknown {what} {name!r}{nearest(name, known)}; choose one of {', '.join(known)}"
            )
    if not isinstance(depth, int | numpy.integer) or depth < 1:
        raise ConfigError(f"perceptron: depth must be a whole number of hidden layers from 1 up, got {depth!r}")
    layers: dict[str, Module] = {"flatten": Flatten()}
    with init.undrawn():
        for i in range(1, depth + 1):
            layers[f"linear{i}"] = Linear(inputs if i == 1 else width, width)
            if batch_norm:
                layers[f"norm{i}"] = BatchNorm1d(width)
            layers[f"{activation}{i}"] = ACTIVATIONS[activation]()
        layers["classifier"] = Linear(width, CLASSES)
    model = Sequential(**layers)
    start = INITIALISERS[initialiser or USUAL[activation]]
    draw(model, numpy.random.default_rng(seed), conv=start, linear=start)
    return model


# -- gradients --------------------------------------------------------------------------------------------------------


def random_examples(batch_size: int, *, inputs: int = 64, seed: int = 0) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Inputs (N, inputs) drawn from N(0, 1), and labels (N,) that have nothing to do with them."""
    rng = numpy.random.default_rng((seed, 1))  # not the stream that draws the weights of the same seed
    return rng.normal(size=(batch_size, inputs)), rng.integers(0, CLASSES, batch_size)


@threads(1)  # a second one costs more than these small matrices bring, and far more when the cores are busy
def weight_gradients(model: Module, inputs: Any, labels: Any) -> dict[str, numpy.ndarray]:
    """{layer: dL/dW} of every linear layer in order, the classifier last, for one batch in training mode. No weight moves.

    L is the mean cross-entropy of the batch, computed in the model's float type.
    """
    for w in model.parameters():
        w.grad = None
    F.cross_entropy(model(Tensor(inputs, dtype=model.dtype)), labels).backward()
    return {
        name: module.weight.grad
        for name, module in model.named_modules()
        if isinstance(module, Linear) and module.weight.grad is not None
    }


def gradient_norms(model: Module, inputs: Any, labels: Any) -> dict[str, float]:
    """{layer: ‖dL/dW‖}, the Frobenius norm √(Σ g²) of each of ``weight_gradients``."""
    return {name: norm(gradient) for name, gradient in weight_gradients(model, inputs, labels).items()}


def norm(array: numpy.ndarray) -> float:
    """√(Σ x²), in float64: the square of a float32 of 1e-23 is 0 in float32."""
    return float(numpy.linalg.norm(array.astype(numpy.float64)))


def first_to_last(norms: dict[str, float]) -> float:
    """‖dL/dW₁‖/‖dL/dW_d‖ of the first and the last hidden layer; the classifier is another kind of layer, and stays out."""
    *hidden, _ = norms.values()
    return hidden[0] / hidden[-1]


# -- training ---------------------------------------------------------------------------------------------------------


@threads(1)
def trained_perceptron(
    dataset: Dataset,
    *,
    learning_rate: float,
    epochs: int,
    seed: int = 0,
    batch_size: int = 50,
    tested: bool = True,
    after_step: Callable[[Module, SGD], Any] | None = None,
    **stack: Any,
) -> tuple[Sequential, list[dict[str, Any]]]:
    """A ``perceptron(**stack)`` trained by SGD with momentum 0.9 at a constant rate, on images that are not moved.

    Returns the model and the history of ``training.train``.
    """
    inputs = math.prod(dataset.train_images.shape[1:])
    model = perceptron(inputs=inputs, seed=seed, **stack)
    optimizer = SGD(model.parameters(), lr=learning_rate, momentum=MOMENTUM)
    history = train(
        model,
        optimizer,
        dataset,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        batch_size=batch_size,
        augment=False,
        tested=tested,
        after_step=after_step,
    )
    return model, history
