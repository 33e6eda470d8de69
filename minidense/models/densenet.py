"""DenseNet for small images: Huang, Liu, van der Maaten & Weinberger, Densely Connected Convolutional Networks, CVPR 2017.

Where the paper's text and the authors' code (liuzhuang13/DenseNet, Lua Torch) differ, the code decides; the comments say where.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy

from .. import functional as F
from ..errors import ConfigError
from ..nn import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Linear,
    Module,
    Sequential,
    init,
    norm_relu_conv,
    seed_dropout,
)
from ..speed import reference
from ..tensor import Tensor


@reference
def dense_block(x: Tensor, layers: Sequence[Module]) -> Tensor:
    """x_l = H_l([x₀, x₁, …, x_{l−1}]), and all of them side by side as the result (eq. 2).

    x (N, c₀, H, W) and L layers that each make k feature maps give (N, c₀ + L·k, H, W); x stays in front, untouched.
    """
    features = [x]
    for layer in layers:
        features.append(layer(F.concat(features)))
    return F.concat(features)


class DenseLayer(Module):
    """H_l = BN-ReLU-Conv3×3 (§3, "composite function"): c channels in, k = growth rate out."""

    def __init__(self, channels: int, growth_rate: int, dropout: float):
        self.norm1 = BatchNorm2d(channels)
        self.conv1 = Conv2d(channels, growth_rate, 3, padding=1, bias=False)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(norm_relu_conv(self.norm1, self.conv1, x))


class BottleneckLayer(Module):
    """H_l = BN-ReLU-Conv1×1-BN-ReLU-Conv3×3 (§3, DenseNet-B): the 1×1 convolution brings c channels to 4k."""

    def __init__(self, channels: int, growth_rate: int, dropout: float):
        self.norm1 = BatchNorm2d(channels)
        self.conv1 = Conv2d(channels, 4 * growth_rate, 1, bias=False)
        self.norm2 = BatchNorm2d(4 * growth_rate)
        self.conv2 = Conv2d(4 * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(norm_relu_conv(self.norm1, self.conv1, x))
        return self.drop(norm_relu_conv(self.norm2, self.conv2, x))


class DenseBlock(Module):
    """Layers that each see everything before them. They are denselayer1, denselayer2, …, as torchvision names them."""

    def __init__(
        self, layer: type[DenseLayer | BottleneckLayer], layers: int, channels: int, growth_rate: int, dropout: float
    ):
        for i in range(layers):
            setattr(self, f"denselayer{i + 1}", layer(channels + i * growth_rate, growth_rate, dropout))

    def forward(self, x: Tensor) -> Tensor:
        return dense_block(x, [layer for _, layer in self.named_children()])


class Transition(Module):
    """BN-ReLU-Conv1×1-AvgPool2×2 between two blocks: c channels to c_out, half the height and width.

    The paper's text leaves out the ReLU; the authors' code has it.
    """

    def __init__(self, channels: int, out_channels: int, dropout: float):
        self.norm = BatchNorm2d(channels)
        self.conv = Conv2d(channels, out_channels, 1, bias=False)
        self.drop = Dropout(dropout)
        self.pool = AvgPool2d(2)

    @reference
    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.drop(norm_relu_conv(self.norm, self.conv, x)))


@reference
def block_and_transition(block: DenseBlock, transition: Transition, x: Tensor) -> Tensor:
    """One stage of the network (fig. 2): x (N, c₀, H, W) gives (N, c_out, H/2, W/2)."""
    return transition(block(x))


class Features(Sequential):
    """Modules one after another; a dense block and the transition behind it are one stage."""

    def forward(self, x: Tensor) -> Tensor:
        modules = [module for _, module in self.named_children()]
        while modules:
            module = modules.pop(0)
            if isinstance(module, DenseBlock) and modules and isinstance(modules[0], Transition):
                x = block_and_transition(module, modules.pop(0), x)
            else:
                x = module(x)
        return x


class DenseNet(Module):
    """Stem, three dense blocks with transitions between them, then BN-ReLU-global average-linear. See ``densenet`` for the arguments."""

    def __init__(
        self,
        *,
        layers_per_block: int,
        growth_rate: int,
        bottleneck: bool,
        compression: float,
        dropout: float,
        classes: int,
        in_channels: int,
        stem_channels: int,
    ):
        layer = BottleneckLayer if bottleneck else DenseLayer
        channels = stem_channels
        # The stem has no BN and no ReLU: the first layer of the first block begins with them.
        features: dict[str, Module] = {"conv0": Conv2d(in_channels, channels, 3, padding=1, bias=False)}
        for block in (1, 2, 3):
            features[f"denseblock{block}"] = DenseBlock(layer, layers_per_block, channels, growth_rate, dropout)
            channels += layers_per_block * growth_rate
            if block < 3:
                kept = int(compression * channels)  # ⌊θ·m⌋ (§3, "compression")
                features[f"transition{block}"] = Transition(channels, kept, dropout)
                channels = kept
        features["norm5"] = BatchNorm2d(channels)  # torchvision's name, also with three blocks
        self.features = Features(**features)
        self.classifier = Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes). Images of another float type are converted to the weights'."""
        features = F.relu(self.features(x.astype(self.dtype)))
        return self.classifier(F.global_avg_pool2d(features))


def densenet(
    *,
    depth: int,
    growth_rate: int = 12,
    bottleneck: bool = True,
    compression: float = 0.5,
    dropout: float = 0.0,
    classes: int = 10,
    in_channels: int = 3,
    stem_channels: int | None = None,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> DenseNet:
    """A DenseNet for small images (§3 and §4.2 of the paper): three blocks of equal length.

    depth          L, counting convolutions and the linear layer: 3·n + 4 without bottleneck, 6·n + 4 with it, n layers a block
    growth_rate    k, feature maps each layer adds
    bottleneck     the B in DenseNet-BC: a 1×1 convolution to 4k channels before each 3×3
    compression    θ, the C: share of the channels that a transition keeps; 1 keeps all
    dropout        probability of dropping a value after each convolution but the first; the paper uses 0.2 without augmentation
    stem_channels  k₀ of the first convolution; by default 2k with compression and 16 without, as in the paper
                   (the authors' published code has 2k for all)
    seed           of the initial weights and of dropout
    dtype, device  float type and place of the weights

    Raises ConfigError for a depth that does not make three equal blocks (and names the nearest that do) and other nonsense.
    """
    for name, value in (("depth", depth), ("growth rate", growth_rate), ("seed", seed)):
        if not isinstance(value, int | numpy.integer) or value < (name != "seed"):
            raise ConfigError(
                f"densenet: {name} must be a whole number of at least {int(name != 'seed')}, got {value!r}"
            )
    convolutions = 6 if bottleneck else 3  # one layer more in each of three blocks adds this many
    if depth < convolutions + 4 or (depth - 4) % convolutions:
        below = max((depth - 4) // convolutions, 1) * convolutions + 4
        nearest = sorted({below, below + convolutions} if depth > below else {below})
        raise ConfigError(
            f"densenet: depth {depth} does not make three equal blocks: (depth − 4) must divide by {convolutions}. "
            f"Nearest: {', '.join(map(str, nearest))}"
        )
    if not isinstance(compression, int | float) or not 0 < compression <= 1:
        raise ConfigError(
            f"densenet: compression is the share of channels a transition keeps, above 0 and at most 1; got {compression}"
        )
    if stem_channels is None:
        stem_channels = 2 * growth_rate if compression < 1 else 16
    model = DenseNet(
        layers_per_block=(depth - 4) // convolutions,
        growth_rate=growth_rate,
        bottleneck=bottleneck,
        compression=compression,
        dropout=dropout,
        classes=classes,
        in_channels=in_channels,
        stem_channels=stem_channels,
    )
    initialise(model, numpy.random.default_rng(seed))
    seed_dropout(model, (3, seed))  # another stream than the weights'
    return model.to(device, dtype=dtype)


def initialise(model: Module, rng: numpy.random.Generator) -> None:
    """The authors' initial weights (fb.resnet.torch): convolutions N(0, √(2/fan_out)), γ = 1, β = 0, linear bias 0.

    The paper cites He et al. 2015 without saying which fan; the code counts outputs. The linear weight is Torch's default.
    """
    for module in model.modules():
        if isinstance(module, Conv2d):
            module.weight.data[...] = init.he_normal(rng, module.weight.shape, fan="out")
        elif isinstance(module, Linear):
            module.weight.data[...] = init.torch_default(rng, module.weight.shape)
            if module.bias is not None:
                module.bias.data[...] = 0


def settings_of(name: str) -> dict[str, Any] | None:
    """The arguments of ``densenet`` that a name like densenet_bc_100_12 stands for, or None when it is no such name."""
    match = re.fullmatch(r"(?:wide_)?densenet(_b|_c|_bc)?_(\d{1,6})_(\d{1,6})", name)
    if not match:
        return None
    kind = match[1] or ""
    return {
        "depth": int(match[2]),
        "growth_rate": int(match[3]),
        "bottleneck": "b" in kind,
        "compression": 0.5 if "c" in kind else 1.0,
    }


# What the paper trains (its Table 2), the wide ones of the authors' README, and small ones for tests and first runs.
NAMES = (
    "densenet_40_12",
    "densenet_100_12",
    "densenet_100_24",
    "densenet_bc_100_12",
    "densenet_bc_250_24",
    "densenet_bc_190_40",
    "wide_densenet_bc_40_36",
    "wide_densenet_bc_40_48",
    "wide_densenet_bc_40_60",
    "densenet_c_40_12",
    "densenet_bc_40_12",
    "densenet_bc_22_12",
    "densenet_22_12",
    "densenet_13_8",
)
