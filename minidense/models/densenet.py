"""DenseNet: Huang, Liu, van der Maaten & Weinberger, Densely Connected Convolutional Networks, CVPR 2017 (arXiv 1608.06993).

Where the paper's text and the authors' code (liuzhuang13/DenseNet, Lua Torch) differ, the code decides; the comments say where.
"""

import re
from collections.abc import Sequence

import numpy

from .. import functional as F
from ..errors import ConfigError
from ..nn import AvgPool2d, BatchNorm2d, Conv2d, Dropout, Linear, MaxPool2d, Module, ReLU, Sequential, norm_relu_conv
from ..speed import reference
from ..tensor import Tensor
from .classifier import Classifier
from .entry import IMAGENET, Entry, finished, parts_of_depth
from .initialise import like_fb_resnet


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
        # Dropout after both convolutions: the paper says "each", and so does the authors' densenet.lua. torchvision drops after the
        # second alone.
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


class DenseNet(Classifier):
    """Stem, dense blocks with transitions between them, then BN-ReLU-global average-linear (fig. 2).

    stem    modules by name, the first of them conv0, whose results are what the first block sees
    blocks  layers in each block
    The others as for ``densenet``.
    """

    def __init__(
        self,
        *,
        stem: dict[str, Module],
        stem_channels: int,
        blocks: Sequence[int],
        growth_rate: int,
        bottleneck: bool,
        compression: float,
        dropout: float,
        classes: int,
    ):
        layer = BottleneckLayer if bottleneck else DenseLayer
        channels = stem_channels
        features = dict(stem)
        for i, layers in enumerate(blocks, start=1):
            features[f"denseblock{i}"] = DenseBlock(layer, layers, channels, growth_rate, dropout)
            channels += layers * growth_rate
            if i < len(blocks):
                kept = int(compression * channels)  # ⌊θ·m⌋ (§3, "compression")
                features[f"transition{i}"] = Transition(channels, kept, dropout)
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
    if not isinstance(growth_rate, int | numpy.integer) or growth_rate < 1:
        raise ConfigError(f"densenet: growth rate must be a whole number of at least 1, got {growth_rate!r}")
    # One layer more in each of three blocks adds this many convolutions.
    layers = parts_of_depth("densenet", depth, "blocks", fixed=4, step=6 if bottleneck else 3)
    if not isinstance(compression, int | float) or not 0 < compression <= 1:
        raise ConfigError(
            f"densenet: compression is the share of channels a transition keeps, above 0 and at most 1; got {compression}"
        )
    if stem_channels is None:
        stem_channels = 2 * growth_rate if compression < 1 else 16

    def make():
        return DenseNet(
            # The stem has no BN and no ReLU: the first layer of the first block begins with them.
            stem={"conv0": Conv2d(in_channels, stem_channels, 3, padding=1, bias=False)},
            stem_channels=stem_channels,
            blocks=3 * [layers],
            growth_rate=growth_rate,
            bottleneck=bottleneck,
            compression=compression,
            dropout=dropout,
            classes=classes,
        )

    return finished(make, like_fb_resnet, seed=seed, dtype=dtype, device=device)


def densenet_imagenet(
    *,
    blocks: Sequence[int],
    growth_rate: int = 32,
    dropout: float = 0.0,
    classes: int = 1000,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> DenseNet:
    """A DenseNet-BC for large images, such as 224×224 (table 1): stem to a quarter of the size, four blocks, θ = 0.5.

    blocks       layers in each block, (6, 12, 24, 16) in DenseNet-121
    growth_rate  k; the stem makes 2k feature maps
    The others as for ``densenet``; no run of the paper on ImageNet has dropout.
    """
    channels = 2 * growth_rate

    def make():
        return DenseNet(
            # Table 1 leaves out this BN-ReLU; the authors' code has it.
            stem={
                "conv0": Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False),
                "norm0": BatchNorm2d(channels),
                "relu0": ReLU(),
                "pool0": MaxPool2d(3, stride=2, padding=1),
            },
            stem_channels=channels,
            blocks=blocks,
            growth_rate=growth_rate,
            bottleneck=True,
            compression=0.5,
            dropout=dropout,
            classes=classes,
        )

    return finished(make, like_fb_resnet, seed=seed, dtype=dtype, device=device)


# Table 1: growth rate and layers a block. The 161 is of the paper's first versions and the authors' code, the 264 with k = 48 of their
# technical report (Pleiss et al. 2017). DenseNet-264 has 265 layers by the count that gives the others their names.
FOR_IMAGENET = {
    "densenet121": (32, (6, 12, 24, 16)),
    "densenet169": (32, (6, 12, 32, 32)),
    "densenet201": (32, (6, 12, 48, 32)),
    "densenet264": (32, (6, 12, 64, 48)),
    "densenet161": (48, (6, 12, 36, 24)),
    "densenet264_k48": (48, (6, 12, 64, 48)),
}

# What the paper trains (its Table 2), the wide ones of the authors' README, and others for comparison, tests and first runs. Ports that
# compress in a "DenseNet-40" or "DenseNet-100" without bottlenecks build DenseNet-C, which is a smaller network than the paper's.
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
    "densenet_c_100_12",
    "densenet_c_100_24",
    "densenet_bc_40_24",
    "densenet_bc_40_12",
    "densenet_bc_22_12",
    "densenet_22_12",
    "densenet_13_8",
    *FOR_IMAGENET,
)


def entry(name: str) -> Entry | None:
    """What a name like densenet_bc_100_12 or densenet121 stands for, or None when it is no DenseNet's."""
    if name in FOR_IMAGENET:
        growth_rate, blocks = FOR_IMAGENET[name]
        settings = {"growth_rate": growth_rate, "blocks": blocks}
        return Entry(densenet_imagenet, "DenseNet", settings, image_shape=IMAGENET, classes=1000)
    match = re.fullmatch(r"(?:wide_)?densenet(_b|_c|_bc)?_(\d{1,6})_(\d{1,6})", name)
    if not match:
        return None
    kind = match[1] or ""
    settings = {
        "depth": int(match[2]),
        "growth_rate": int(match[3]),
        "bottleneck": "b" in kind,
        "compression": 0.5 if "c" in kind else 1.0,
    }
    return Entry(densenet, "DenseNet", settings)
