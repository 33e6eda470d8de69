"""Highway Networks: Srivastava, Greff & Schmidhuber, 2015 (arXiv 1505.00387, 1507.06228), as in the authors' Caffe files.

A layer learns how much of its input to let through unchanged. The gates start nearly closed for the transformation, so a deep
network starts as an easy way for the gradient.
"""

from collections.abc import Sequence
from itertools import count

import numpy

from .. import functional as F
from ..errors import ConfigError
from ..nn import Conv2d, Dropout, Linear, MaxPool2d, Module, init
from ..tensor import Tensor
from .classifier import Classifier
from .entry import Entry, finished, odd, several
from .initialise import like_caffe_xavier

GATE_BIAS = -2.0  # of every transform gate: T starts at about 0.12


class HighwayLayer(Module):
    """y = H(x)·T(x) + x·(1 − T(x)),  H = ReLU(conv(x)),  T = σ(conv(x))   (eq. 3): channels and size stay."""

    def __init__(self, channels: int, kernel: int):
        self.H = Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.T = Conv2d(channels, channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        h, t = F.relu(self.H(x)), F.sigmoid(self.T(x))
        return h * t + x * (1 - t)


class HighwayNetwork(Classifier):
    """Stages of one plain convolution and highway layers, named conv1, conv2, … throughout. See ``highway`` for the arguments."""

    ip2: Linear

    def __init__(
        self,
        *,
        widths: Sequence[int],
        kernels: Sequence[Sequence[int]],
        head: int,
        dropout: float,
        classes: int,
        in_channels: int,
    ):
        channels, number = in_channels, count(1)
        self.stages: tuple[tuple[str, ...], ...] = ()
        for width, sizes in zip(widths, kernels, strict=True):
            layers = [Conv2d(channels, width, 3, padding=1), *(HighwayLayer(width, kernel) for kernel in sizes)]
            names = tuple(f"conv{next(number)}" for _ in layers)
            for name, layer in zip(names, layers, strict=True):
                setattr(self, name, layer)
            self.stages += (names,)
            channels = width
        self.head = f"conv{next(number)}"
        setattr(self, self.head, Conv2d(channels, head, 1))
        self.pool, self.drop = MaxPool2d(2), Dropout(dropout)
        self.ip2 = Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        x = x.astype(self.dtype)
        for i, (plain, *gated) in enumerate(self.stages):
            x = self.drop(self.pool(x) if i else x)
            x = F.relu(getattr(self, plain)(x))
            for name in gated:
                x = getattr(self, name)(x)
        x = F.relu(getattr(self, self.head)(x))
        return self.ip2(self.drop(F.global_avg_pool2d(x)))


def highway(
    *,
    widths: Sequence[int] = (32, 80, 128),
    kernels: Sequence[Sequence[int]] = (4 * (3,), 5 * (3,), 5 * (3,)),
    head: int = 100,
    dropout: float = 0.2,
    classes: int = 10,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> HighwayNetwork:
    """A highway network for small images; by default the 19 layers of the released file with the convolutional head.

    widths   channels of each stage
    kernels  sizes of the filters of the highway layers in each stage
    head     channels of the 1×1 convolution before the global average
    dropout  probability of dropping a value of the image, of a pooled map and of a mean

    Raises ConfigError for sizes that make no sense.
    """
    stages = len(several("highway", "widths", widths))
    if not isinstance(kernels, Sequence) or len(kernels) != stages:
        raise ConfigError(f"highway: kernels must be those of {stages} stages, as many as widths, got {kernels!r}")
    for stage, sizes in enumerate(kernels):
        odd("highway", f"kernels[{stage}]", sizes)

    def make():
        return HighwayNetwork(
            widths=widths, kernels=kernels, head=head, dropout=dropout, classes=classes, in_channels=in_channels
        )

    return finished(make, initialise, seed=seed, dtype=dtype, device=device)


def initialise(model: HighwayNetwork, rng: numpy.random.Generator) -> None:
    """Caffe's xavier; gates open by a bias of −2; the first convolution N(0, 0.05), the linear layer too unless for 100 classes.

    The released file asks for the first with "gaussian, value: 0.05", and Caffe, which calls that "std", draws N(0, 1).
    """
    like_caffe_xavier(model, rng)
    first = next(module for module in model.modules() if isinstance(module, Conv2d))
    for layer in (first, model.ip2) if len(model.ip2.weight) != 100 else (first,):
        layer.weight.data[...] = init.normal(rng, layer.weight.shape, std=0.05)
    for module in model.modules():
        if isinstance(module, HighwayLayer) and module.T.bias is not None:
            module.T.bias.data[...] = GATE_BIAS


# Highway C of the paper: 32 layers, 3×3 and 1×1 in turn, 1.25 M parameters. Its widths were never published; these are ours.
ALTERNATING = {"widths": (32, 64, 82), "kernels": 3 * ((3, 1, 3, 1, 3, 1, 3, 1, 3),)}

NAMES = ("highway_19", "highway_32")


def entry(name: str) -> Entry | None:
    """highway_19, or highway_32, a reconstruction of ours."""
    if name == "highway_19":
        return Entry(highway, "Highway Network")
    if name == "highway_32":
        return Entry(highway, "Highway Network", ALTERNATING)
    return None
