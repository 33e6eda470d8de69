"""Residual networks for small images: He, Zhang, Ren & Sun, Deep Residual Learning, CVPR 2016 (arXiv 1512.03385), §4.2.

Three stages of equally many units. With the units of the authors' second paper (arXiv 1603.05027) they are its pre-activation
networks, ResNet-164 and ResNet-1001 among them.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .. import functional as F
from ..errors import ConfigError
from ..nn import BatchNorm2d, Conv2d, Linear, Module, Sequential, norm_relu
from ..tensor import Tensor
from .classifier import Classifier
from .entry import Entry, finished, parts_of_depth, several
from .initialise import like_fb_resnet
from .residual_units import UNITS, FullPreActivation, ReLUOnlyPreActivation, Unit

WIDTHS = (16, 32, 64)
SHORTCUTS = ("pad", "projection")


class ResNet(Classifier):
    """A convolution, layer1 to layer3 of units, global average and linear.

    unit    (number from 0, channels, out_channels, stride) -> a residual unit
    kind    its class, which decides what stands before the first and after the last
    units   how many in each stage
    widths  channels of the stem; channels of each stage's results
    """

    def __init__(
        self,
        *,
        unit: Callable[[int, int, int, int], Unit],
        kind: type[Unit],
        units: int,
        stem: int,
        widths: Sequence[int],
        classes: int,
        in_channels: int,
        conv_bias: bool = False,
    ):
        self.conv = Conv2d(in_channels, stem, 3, padding=1, bias=conv_bias)
        # In full pre-activation the first unit begins with BN-ReLU, so the convolution goes without; with ReLU only, it has its BN.
        self.bn = None if kind is FullPreActivation else BatchNorm2d(stem)
        self.relu_at_start = kind not in (FullPreActivation, ReLUOnlyPreActivation)
        self.relu_at_end = kind is ReLUOnlyPreActivation  # after the last addition, as the paper adds it
        channels, number = stem, 0
        for stage, width in enumerate(widths, start=1):
            members = dict[str, Module]()
            for i in range(units):
                members[str(i)] = unit(number, channels, width, 2 if stage > 1 and i == 0 else 1)
                channels, number = width, number + 1
            setattr(self, f"layer{stage}", Sequential(**members))
        self.stages = len(widths)
        self.last_bn = BatchNorm2d(channels) if kind is FullPreActivation else None
        self.fc = Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        x = self.conv(x.astype(self.dtype))
        if self.bn is not None:
            x = norm_relu(self.bn, x) if self.relu_at_start else self.bn(x)
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        if self.last_bn is not None:
            x = norm_relu(self.last_bn, x)
        elif self.relu_at_end:
            x = F.relu(x)
        return self.fc(F.global_avg_pool2d(x))


def resnet(
    *,
    depth: int,
    unit: str = "original",
    bottleneck: bool = False,
    shortcut: str | None = None,
    widths: Sequence[int] = WIDTHS,
    classes: int = 10,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> ResNet:
    """A residual network for small images.

    depth       convolutions on the way through, and the linear layer: 6n + 2, or 9n + 2 with bottlenecks, n units a stage
    unit        one of Table 2 of the second paper: original, bn_after_add, relu_before_add, relu_only_preact, full_preact
    bottleneck  units of 1×1, 3×3 and 1×1 convolutions, whose results are four times as wide
    shortcut    where the shape changes: "pad" (option A: pixels left out, zeros for new channels) or "projection" (1×1 convolution);
                by default "pad", and "projection" with bottlenecks
    widths      channels of the 3×3 convolutions in each stage; the stem makes the first of them

    Raises ConfigError for a depth or widths that do not fit, and unknown names.
    """
    shortcut = shortcut or ("projection" if bottleneck else "pad")
    for name, value, known in (("unit", unit, UNITS), ("shortcut", shortcut, SHORTCUTS)):
        if value not in known:
            raise ConfigError(f"resnet: unknown {name} {value!r}; choose one of {', '.join(known)}")
    several("resnet", "widths", widths, 3)
    kind = UNITS[unit]
    units = parts_of_depth("resnet", depth, "stages", fixed=2, step=9 if bottleneck else 6)

    def residual(number, channels, out_channels, stride):
        return kind(channels, out_channels, stride, bottleneck=bottleneck, shortcut=shortcut, first=number == 0)

    def make():
        return ResNet(
            unit=residual,
            kind=kind,
            units=units,
            stem=widths[0],
            widths=[4 * width for width in widths] if bottleneck else widths,
            classes=classes,
            in_channels=in_channels,
        )

    return finished(make, like_fb_resnet, seed=seed, dtype=dtype, device=device)


NAMES = (
    "resnet20",
    "resnet56",
    "resnet110",
    "resnet1202",
    *(f"resnet{depth}_unit_{unit}" for depth in (110, 164) for unit in UNITS),
    "preresnet29",
    "preresnet164",
    "preresnet1001",
)
BOTTLENECKS = (164, 1001)  # 164 is 6n + 2 as well as 9n + 2; the papers build it from bottlenecks


def entry(name: str) -> Entry | None:
    """resnetDEPTH, resnetDEPTH_unit_UNIT, resnetDEPTH_bottleneck_unit_UNIT, and preresnetDEPTH (bottlenecks, full pre-activation)."""
    if match := re.fullmatch(r"preresnet(\d{1,5})", name):
        return Entry(resnet, "Pre-activation ResNet", settings(int(match[1]), "full_preact", bottleneck=True))
    if match := re.fullmatch(rf"resnet(\d{{1,5}})(_bottleneck)?(?:_unit_({'|'.join(UNITS)}))?", name):
        depth = int(match[1])
        bottleneck = match[2] is not None or depth in BOTTLENECKS
        family = "ResNet" if match[3] is None else "Residual units"
        return Entry(resnet, family, settings(depth, match[3] or "original", bottleneck=bottleneck))
    return None


def settings(depth: int, unit: str, *, bottleneck: bool) -> dict[str, Any]:
    """What a name stands for: the arguments of ``resnet``."""
    return {"depth": depth, "unit": unit, "bottleneck": bottleneck}
