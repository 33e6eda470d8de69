"""Deep stacks of 3×3 convolutions for very small images: plain, and with each kind of short path the lecture names.

All of them keep the size of the image from the first convolution to the last and end with global average and linear, so that nothing
differs between them but the way a layer is connected. They are built from the pieces of the full-size networks in minidense/models.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy

from .. import functional as F
from ..errors import ConfigError
from ..models import Classifier
from ..models.densenet import DenseBlock, DenseNet
from ..models.entry import finished
from ..models.fractalnet import FractalBlock, FractalNet
from ..models.highway import HighwayLayer, HighwayNetwork
from ..models.initialise import draw
from ..models.residual_units import UNITS, Original, Unit
from ..models.resnet import ResNet
from ..models.stochastic_depth import GatedUnit
from ..nn import BatchNorm2d, Conv2d, Linear, Module, Sequential, init, norm_relu
from ..tensor import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "sigmoid": F.sigmoid, "tanh": F.tanh}
COLUMNS = 2  # of each fractal block: its longest path has 2 convolutions, its shortest 1
# Of highway gates: T starts at σ(−4) = 0.018. With the −2 of the released 19-layer file, 30 layers without batch norm let 2 % through.
STACK_GATE_BIAS = -4.0
SURVIVAL = 0.5  # of the last residual unit in stochastic depth


class PlainStack(Classifier):
    """conv0, conv1, …, each followed by batch norm and activation: the network of the textbooks, and nothing goes around a layer.

    norm        with batch norm, or with biases instead
    activation  "relu", "sigmoid" or "tanh"
    """

    def __init__(
        self, *, depth: int, width: int, norm: bool = True, activation: str = "relu", classes: int, in_channels: int
    ):
        self.depth, self.activation = depth, ACTIVATIONS[activation]
        for i in range(depth + 1):
            setattr(self, f"conv{i}", Conv2d(width if i else in_channels, width, 3, padding=1, bias=not norm))
            setattr(self, f"bn{i}", BatchNorm2d(width) if norm else None)
        self.fc = Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        x = x.astype(self.dtype)
        for i in range(self.depth + 1):
            x = self.activated(getattr(self, f"bn{i}"), getattr(self, f"conv{i}")(x))
        return self.fc(F.global_avg_pool2d(x))

    def activated(self, norm: BatchNorm2d | None, x: Tensor) -> Tensor:
        """Batch norm, if there is any, and activation."""
        if norm is None:
            return self.activation(x)
        return norm_relu(norm, x) if self.activation is F.relu else self.activation(norm(x))


def plain(
    *, depth: int, width: int, classes: int, in_channels: int, norm: bool = True, activation: str = "relu"
) -> PlainStack:
    """Conv-BN-ReLU, over and over."""
    if activation not in ACTIVATIONS:
        raise ConfigError(f"stack: unknown activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}")
    return PlainStack(
        depth=depth, width=width, norm=norm, activation=activation, classes=classes, in_channels=in_channels
    )


def residual(*, depth: int, width: int, classes: int, in_channels: int, unit: str = "original") -> ResNet:
    """Residual units of two convolutions each; ``unit`` is one of the five of He et al. 2016, Table 2."""
    if unit not in UNITS:
        raise ConfigError(f"stack: unknown unit {unit!r}; choose one of {', '.join(UNITS)}")
    kind = UNITS[unit]

    def member(number: int, channels: int, out_channels: int, stride: int) -> Unit:
        return kind(channels, out_channels, stride, first=number == 0)

    return units_in_a_row(member, kind, depth=depth, width=width, classes=classes, in_channels=in_channels)


def stochastic_depth(*, depth: int, width: int, classes: int, in_channels: int, survival: float = SURVIVAL) -> ResNet:
    """The same units; the l-th of L takes part in a mini-batch with p_l = 1 − l/L·(1 − p_L) (Huang et al. 2016, eq. 4)."""
    total = depth // 2

    def member(number: int, channels: int, out_channels: int, stride: int) -> Unit:
        return GatedUnit(channels, out_channels, stride, death_rate=(number + 1) / total * (1 - survival))

    return units_in_a_row(member, Original, depth=depth, width=width, classes=classes, in_channels=in_channels)


def units_in_a_row(
    unit: Callable[[int, int, int, int], Unit],
    kind: type[Unit],
    *,
    depth: int,
    width: int,
    classes: int,
    in_channels: int,
) -> ResNet:
    """A residual network of one stage. Raises ConfigError for a depth that is odd."""
    even(depth, "a residual unit has two convolutions")
    return ResNet(
        unit=unit, kind=kind, units=depth // 2, stem=width, widths=(width,), classes=classes, in_channels=in_channels
    )


def highway(*, depth: int, width: int, classes: int, in_channels: int) -> HighwayNetwork:
    """Highway layers, each with a second convolution for its gate, and without batch norm, as in the paper."""
    return HighwayNetwork(
        widths=(width,), kernels=(depth * (3,),), head=width, dropout=0.0, classes=classes, in_channels=in_channels
    )


def fractal(*, depth: int, width: int, classes: int, in_channels: int, columns: int = COLUMNS) -> FractalNet:
    """Fractal blocks that do not pool. Raises ConfigError unless the 2^{C−1} convolutions of a block divide the depth."""
    longest = 2 ** (columns - 1)
    if depth % longest:
        raise ConfigError(f"stack: fractal blocks of {columns} columns are {longest} deep, which must divide {depth}")
    blocks = depth // longest
    net = FractalNet(
        columns=columns,
        widths=blocks * (width,),
        project=True,  # the first block's 1×1 convolution is the stem
        dropout=blocks * (0.0,),
        drop_path=0.0,
        released=False,
        classes=classes,
        in_channels=in_channels,
    )
    for module in list(net.modules()):
        if isinstance(module, FractalBlock):
            module.pool = Sequential()  # type: ignore[assignment]  # nothing: the size stays
    return net


class ConvNormReLU(Module):
    """H_l = Conv3×3-BN-ReLU, in the lecture's order: c channels in, k out, and batch norm over the k instead of the c."""

    def __init__(self, channels: int, growth_rate: int):
        self.conv1 = Conv2d(channels, growth_rate, 3, padding=1, bias=False)
        self.norm1 = BatchNorm2d(growth_rate)

    def forward(self, x: Tensor) -> Tensor:
        return norm_relu(self.norm1, self.conv1(x))


ORDERS = ("BN-ReLU-Conv", "Conv-BN-ReLU")


def dense(*, depth: int, width: int, classes: int, in_channels: int, order: str = ORDERS[0]) -> DenseNet:
    """One dense block; ``width`` is the growth rate k, and the stem makes k feature maps too. ``order`` is one of ORDERS."""
    if order not in ORDERS:
        raise ConfigError(f"stack: unknown order {order!r}; choose one of {', '.join(ORDERS)}")
    net = DenseNet(
        stem={"conv0": Conv2d(in_channels, width, 3, padding=1, bias=False)},
        stem_channels=width,
        blocks=(depth,),
        growth_rate=width,
        bottleneck=False,
        compression=1.0,
        dropout=0.0,
        classes=classes,
    )
    if order != ORDERS[0]:
        block = next(module for module in net.modules() if isinstance(module, DenseBlock))
        for i, (name, _) in enumerate(list(block.named_children())):
            setattr(block, name, ConvNormReLU((i + 1) * width, width))
    return net


STACKS: dict[str, Callable[..., Classifier]] = {
    "plain": plain,
    "residual": residual,
    "highway": highway,
    "stochastic depth": stochastic_depth,
    "fractal": fractal,
    "dense": dense,
}


def stack(
    kind: str, *, depth: int = 30, width: int = 12, classes: int = 10, in_channels: int = 1, seed: int = 0, **how
) -> Classifier:
    """A stack with fresh weights: the same seed, the same bits. Plain and residual of the same size start with the same weights.

    Convolutions start from N(0, √(2/fan-in)) (He et al. 2015), before sigmoid and tanh as Glorot & Bengio 2010 have it.

    kind   plain, residual, highway, stochastic depth, fractal or dense
    depth  3×3 convolutions on the longest way through, the stem not counted
    width  channels of each; the growth rate of a dense stack
    how    plain: ``norm``, ``activation``; residual: ``unit``; stochastic depth: ``survival``; fractal: ``columns``;
           dense: ``order``

    Raises ConfigError for an unknown kind and a depth or width that does not fit.
    """
    if kind not in STACKS:
        raise ConfigError(f"stack: unknown kind {kind!r}; choose one of {', '.join(STACKS)}")
    for name, value in (("depth", depth), ("width", width)):
        if not isinstance(value, int | numpy.integer) or value < 1:
            raise ConfigError(f"stack: {name} must be a whole number of at least 1, got {value!r}")

    def make():
        return STACKS[kind](depth=depth, width=width, classes=classes, in_channels=in_channels, **how)

    def start(model: Classifier, rng: numpy.random.Generator) -> None:
        relu = how.get("activation", "relu") == "relu"
        draw(model, rng, conv=init.he_normal if relu else init.xavier_normal, linear=init.torch_default)
        for module in model.modules():
            if isinstance(module, HighwayLayer) and module.T.bias is not None:
                module.T.bias.data[...] = STACK_GATE_BIAS

    return finished(make, start, seed=seed, dtype=numpy.float32, device="cpu")


def width_for(kind: str, parameters: int, *, depth: int = 30, most: int = 64, **how) -> int:
    """The width with which a stack comes nearest to so many parameters."""
    with init.undrawn():
        counts = {}
        for width in range(1, most + 1):
            counts[width] = stack(kind, depth=depth, width=width, **how).parameter_count()
            if counts[width] > parameters:
                break
    return min(counts, key=lambda width: abs(counts[width] - parameters))


def longest_path(model: Module) -> dict[str, Conv2d]:
    """{name: convolution} on the longest way through a stack, from front to back, without the stem: as many as it is deep."""
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, Conv2d)}
    if isinstance(model, HighwayNetwork):
        return {name: module for name, module in convolutions.items() if name.endswith(".H")}
    if isinstance(model, FractalNet):
        deepest = f".col{model.columns - 1}."
        return {name: module for name, module in convolutions.items() if deepest in name}
    stem = next(iter(convolutions))
    return {name: module for name, module in convolutions.items() if name != stem}


def even(depth: int, why: str) -> None:
    """Raises ConfigError for an odd depth."""
    if depth % 2:
        raise ConfigError(f"stack: depth must be even ({why}), got {depth}; nearest: {depth - 1}, {depth + 1}")
