"""Wide Residual Networks: Zagoruyko & Komodakis, BMVC 2016 (arXiv 1605.07146), as in the authors' code.

Few pre-activation units, k times as wide, optionally with dropout between their two convolutions.
"""

import re
from collections.abc import Sequence

import numpy

from .. import functional as F
from ..errors import ConfigError
from ..nn import BatchNorm2d, Conv2d, Dropout, Linear, Module, Sequential, norm_relu, norm_relu_conv
from ..tensor import Tensor
from .classifier import Classifier
from .entry import Entry, finished, parts_of_depth
from .initialise import like_wide_resnet


class WideUnit(Module):
    """BN-ReLU-Conv3×3-BN-ReLU-dropout-Conv3×3, plus x; where the width changes, plus a 1×1 convolution of the activated x."""

    def __init__(self, channels: int, out_channels: int, stride: int, dropout: float):
        self.bn0 = BatchNorm2d(channels)
        self.conv0 = Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(out_channels)
        self.drop = Dropout(dropout)
        self.conv1 = Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.convdim = (
            Conv2d(channels, out_channels, 1, stride=stride, bias=False) if channels != out_channels else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.convdim is None:
            across = x
            y = norm_relu_conv(self.bn0, self.conv0, x)
        else:
            x = norm_relu(self.bn0, x)  # shared by both ways
            across = self.convdim(x)
            y = self.conv0(x)
        if self.drop.p:
            return self.conv1(self.drop(norm_relu(self.bn1, y))) + across
        return norm_relu_conv(self.bn1, self.conv1, y) + across


class WideResNet(Classifier):
    """conv0, group0 to group2 of units, BN-ReLU-global average-linear. See ``wide_resnet`` for the arguments."""

    group0: Sequential
    group1: Sequential
    group2: Sequential

    def __init__(self, *, units: int, stem: int, widths: Sequence[int], dropout: float, classes: int, in_channels: int):
        self.conv0 = Conv2d(in_channels, stem, 3, padding=1, bias=False)
        channels = stem
        for g, width in enumerate(widths):
            members = dict[str, Module]()
            for i in range(units):
                members[f"block{i}"] = WideUnit(channels, width, 2 if g and i == 0 else 1, dropout)
                channels = width
            setattr(self, f"group{g}", Sequential(**members))
        self.bn = BatchNorm2d(channels)
        self.fc = Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        x = self.group2(self.group1(self.group0(self.conv0(x.astype(self.dtype)))))
        return self.fc(F.global_avg_pool2d(norm_relu(self.bn, x)))


def wide_resnet(
    *,
    depth: int,
    width: int,
    dropout: float = 0.0,
    classes: int = 10,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> WideResNet:
    """WRN-depth-width for small images (Table 1 of the paper).

    depth    6n + 4, n units in each of three groups
    width    k: the groups have 16k, 32k and 64k channels
    dropout  probability of dropping a value between the convolutions of a unit; the paper has 0.3 on CIFAR, 0.4 on SVHN, or none

    Raises ConfigError for a depth that does not fit.
    """
    if not isinstance(width, int | numpy.integer) or width < 1:
        raise ConfigError(f"wide_resnet: width must be a whole number of at least 1, got {width!r}")
    units = parts_of_depth("wide_resnet", depth, "groups", fixed=4, step=6)

    def make():
        return WideResNet(
            units=units,
            stem=16,
            widths=[16 * width, 32 * width, 64 * width],
            dropout=dropout,
            classes=classes,
            in_channels=in_channels,
        )

    return finished(make, like_wide_resnet, seed=seed, dtype=dtype, device=device)


NAMES = ("wrn16_8", "wrn28_10", "wrn16_4")


def entry(name: str) -> Entry | None:
    """wrnDEPTH_WIDTH"""
    if match := re.fullmatch(r"wrn_?(\d{1,5})_(\d{1,5})", name):
        return Entry(wide_resnet, "Wide ResNet", {"depth": int(match[1]), "width": int(match[2])})
    return None
