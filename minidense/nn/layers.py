"""The layers: each holds its parameters and says in one line what it does with them.

Sizes come first and positional, options after are keyword-only. ``rng`` draws the initial weights (a fresh
generator where it is not given); weights start as Torch's do, and models put their paper's initialisation over them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy

from .. import functional as F
from ..backend import array_module
from ..errors import ConfigError
from ..ops.norm import track
from ..speed import reference
from ..tensor import Tensor
from . import init
from .module import Buffer, Module, Parameter


class Linear(Module):
    """y = x·weightᵀ + bias: (N, in) gives (N, out); weight (out, in), bias (out,)."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, rng: numpy.random.Generator | None = None
    ):
        check_counts(self, in_features=in_features, out_features=out_features)
        rng, shape = rng or numpy.random.default_rng(), (out_features, in_features)
        self.weight = Parameter(init.torch_default(rng, shape), dtype=numpy.float32)
        self.bias = (
            Parameter(init.torch_default(rng, shape[:1], fan_in_of=shape), dtype=numpy.float32) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Conv2d(Module):
    """Correlation with K×K filters: (N, C, H, W) gives (N, F, H', W'), H' = ⌊(H + 2·padding − K)/stride⌋ + 1.

    weight (F, C, K, K), bias (F,) or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        rng: numpy.random.Generator | None = None,
    ):
        check_counts(self, in_channels=in_channels, out_channels=out_channels, kernel=kernel, stride=stride)
        self.stride, self.padding = stride, padding
        rng, shape = rng or numpy.random.default_rng(), (out_channels, in_channels, kernel, kernel)
        self.weight = Parameter(init.torch_default(rng, shape), dtype=numpy.float32)
        self.bias = (
            Parameter(init.torch_default(rng, shape[:1], fan_in_of=shape), dtype=numpy.float32) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


class BatchNorm2d(Module):
    """Normalise each channel of (N, C, H, W), then scale and shift (Ioffe & Szegedy 2015).

    weight (γ) and bias (β) are (C,). Training uses the batch's own moments and moves running_mean and running_var
    towards them by `momentum`; evaluation uses the running ones.
    """

    def __init__(self, channels: int, *, momentum: float = 0.1, eps: float = 1e-5):
        check_counts(self, channels=channels)
        self.momentum, self.eps = momentum, eps
        self.weight = Parameter(numpy.ones(channels, numpy.float32))
        self.bias = Parameter(numpy.zeros(channels, numpy.float32))
        self._begin_tracking(channels)

    def _begin_tracking(self, channels):
        self.running_mean = Buffer(numpy.zeros(channels, numpy.float32))
        self.running_var = Buffer(numpy.ones(channels, numpy.float32))
        self.num_batches_tracked = Buffer(numpy.zeros((), numpy.int64))

    @reference
    def forward(self, x: Tensor) -> Tensor:
        y = F.batch_norm(
            x,
            self.weight,
            self.bias,
            self.running_mean.data,
            self.running_var.data,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )
        if self.training:
            self.num_batches_tracked.data += 1
        return y

    def track(self, mean, var, m: int) -> None:
        """What training does besides normalising: count a batch of m values a channel with this mean and biased variance."""
        track(self.running_mean.data, self.running_var.data, mean, var, m=m, momentum=self.momentum)
        self.num_batches_tracked.data += 1


class PlainBatchNorm2d(BatchNorm2d):
    """Batch norm without γ and β to learn: Caffe's BatchNorm layer when no Scale layer follows it."""

    def __init__(self, channels: int, *, momentum: float = 0.1, eps: float = 1e-5):
        check_counts(self, channels=channels)
        self.momentum, self.eps = momentum, eps
        self._begin_tracking(channels)

    weight = property(lambda self: Tensor(array_module(self.running_mean.data).ones_like(self.running_mean.data)))
    bias = property(lambda self: Tensor(array_module(self.running_mean.data).zeros_like(self.running_mean.data)))


@reference
def norm_relu(norm: BatchNorm2d, x: Tensor) -> Tensor:
    """BN-ReLU."""
    return F.relu(norm(x))


@reference
def norm_relu_conv(norm: BatchNorm2d, conv: Conv2d, x: Tensor) -> Tensor:
    """BN-ReLU-Conv, the order of He et al. 2016 (Identity Mappings, Fig. 4e) and of the DenseNet paper's H."""
    return conv(F.relu(norm(x)))


class ReLU(Module):
    """max(x, 0)"""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Sigmoid(Module):
    """1/(1 + e⁻ˣ)"""

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class Tanh(Module):
    """tanh x"""

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class MaxPool2d(Module):
    """Largest value of each K×K window; windows `stride` apart (default: K)."""

    def __init__(self, kernel: int, *, stride: int | None = None, padding: int = 0, ceil_mode: bool = False):
        check_counts(self, kernel=kernel)
        self.kernel, self.stride, self.padding, self.ceil_mode = kernel, stride, padding, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, stride=self.stride, padding=self.padding, ceil_mode=self.ceil_mode)


class AvgPool2d(Module):
    """Mean of each K×K window; windows `stride` apart (default: K)."""

    def __init__(self, kernel: int, *, stride: int | None = None, padding: int = 0):
        check_counts(self, kernel=kernel)
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel, stride=self.stride, padding=self.padding)


class GlobalAvgPool2d(Module):
    """Mean of each feature map: (N, C, H, W) gives (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.global_avg_pool2d(x)


class Flatten(Module):
    """Each image's values in one row: (N, ...) gives (N, size)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.reshape(x, (len(x), -1))


class Chance(Module):
    """What draws at random in training and not in evaluation: dropout, closed blocks, dropped paths.

    p    probability of dropping; at 0 nothing is drawn
    rng  draws; ``seed_chance(model, ...)`` gives all that draw in a model one common generator
    """

    takes_chances = True  # False inside without_chance

    def __init__(self, p: float, *, rng: numpy.random.Generator | None = None):
        if not 0 <= p < 1:
            raise ConfigError(
                f"{type(self).__name__}: p is the probability of dropping and must lie in [0, 1), got {p}"
            )
        self.p, self.rng = p, rng or numpy.random.default_rng()

    @property
    def drawing(self) -> bool:
        """Does the next forward pass depend on chance?"""
        return self.training and self.takes_chances and self.p > 0


class Dropout(Chance):
    """In training, each value is 0 with probability p and scaled by 1/(1 − p) otherwise (Srivastava et al. 2014)."""

    def __init__(self, p: float = 0.5, *, rng: numpy.random.Generator | None = None):
        super().__init__(p, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, rng=self.rng, training=self.drawing)


def chances(model: Module) -> list[Chance]:
    """The modules in a model that draw at random in training."""
    return [module for module in model.modules() if isinstance(module, Chance) and module.p > 0]


def seed_chance(model: Module, seed) -> None:
    """Give everything in the model that draws one fresh common generator: the same seed, the same masks and closed blocks.

    seed  whatever numpy.random.default_rng takes: an int or several
    """
    rng = numpy.random.default_rng(seed)
    for module in chances(model):
        module.rng = rng


def has_chance(model: Module) -> bool:
    """Does training this model depend on chance, besides the order of its images?"""
    return bool(chances(model))


@contextmanager
def without_chance(model: Module) -> Iterator[None]:
    """Inside, nothing in the model is dropped, in training mode either: to count, to compare, and to check gradients."""
    before = [(module, module.takes_chances) for module in chances(model)]
    for module, _ in before:
        module.takes_chances = False
    try:
        yield
    finally:
        for module, taken in before:
            module.takes_chances = taken


def check_counts(layer, **counts):
    """Sizes are whole numbers from 1 up."""
    for name, value in counts.items():
        if not isinstance(value, int | numpy.integer) or value < 1:
            raise ConfigError(f"{type(layer).__name__}: {name} must be a whole number of at least 1, got {value!r}")
