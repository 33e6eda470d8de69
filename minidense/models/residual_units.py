"""The five residual units of He, Zhang, Ren & Sun, Identity Mappings in Deep Residual Networks, ECCV 2016 (arXiv 1603.05027), Table 2.

Each is a branch of convolutions beside a shortcut. They differ in where batch norm and ReLU stand: before or after a convolution,
before or after the addition.
"""

from typing import Any

from .. import functional as F
from ..nn import BatchNorm2d, Conv2d, Module, Sequential, norm_relu, norm_relu_conv
from ..tensor import Tensor


class PadShortcut(Module):
    """Option A of He et al. 2015, §4.2: every stride-th pixel of x, with channels of zeros behind. Nothing to learn.

    average  the mean of stride×stride pixels instead of one of them, as the stochastic depth authors have it
    """

    def __init__(self, channels: int, out_channels: int, stride: int, *, average: bool = False):
        self.added, self.stride, self.average = out_channels - channels, stride, average

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1 and self.average:
            x = F.avg_pool2d(x, self.stride)
        elif self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, ((0, 0), (0, self.added), (0, 0), (0, 0))) if self.added else x


class Unit(Module):
    """The parts of a residual unit: conv1, bn1, conv2, bn2 and so on, and a shortcut where the shape changes.

    channels, out_channels  of x and of the result
    stride                  of the first convolution: the result has 1/stride of the height and width
    bottleneck              1×1, 3×3, 1×1 with out_channels/4 between them, instead of two 3×3
    shortcut                "pad" or "pad_average" (PadShortcut), "projection" (a 1×1 convolution, with BN unless a unit says otherwise)
    first                   is this the network's first unit?
    conv_bias               convolutions of the branch have biases
    """

    pre_activation = False  # do batch norms see what goes into a convolution, or what comes out?
    projection_norm = True  # the first paper does not say whether a projection has BN; later ports give it one

    def __init__(
        self,
        channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        bottleneck: bool = False,
        shortcut: str = "pad",
        first: bool = False,
        conv_bias: bool = False,
    ):
        width = out_channels // 4 if bottleneck else out_channels
        # A bottleneck halves the size in its first 1×1, as KaimingHe/resnet-1k-layers does; ports that halve it in the 3×3 count
        # 255 million multiply-adds for 164 layers instead of 244.5.
        sizes = [(width, 1, stride), (width, 3, 1), (out_channels, 1, 1)]
        if not bottleneck:
            sizes = [(width, 3, stride), (width, 3, 1)]
        c = channels
        for i, (outputs, kernel, step) in enumerate(sizes, start=1):
            convolution = Conv2d(c, outputs, kernel, stride=step, padding=kernel // 2, bias=conv_bias)
            setattr(self, f"conv{i}", convolution)
            setattr(self, f"bn{i}", BatchNorm2d(c if self.pre_activation else outputs))
            c = outputs
        self.count = len(sizes)
        changes = channels != out_channels or stride != 1
        # Pre-activation stands before the split into branch and shortcut in the first unit, as the paper's appendix has it, and
        # where the shape changes, as in the authors' code (KaimingHe/resnet-1k-layers).
        self.shared = first or changes
        if changes and shortcut == "projection":
            projection = Conv2d(channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut: Module | None = (
                Sequential(conv=projection, bn=BatchNorm2d(out_channels)) if self.projection_norm else projection
            )
        else:
            self.shortcut = (
                PadShortcut(channels, out_channels, stride, average=shortcut == "pad_average") if changes else None
            )

    def pair(self, i: int) -> tuple[Any, Any]:
        """The i-th convolution and batch norm, from 1."""
        return getattr(self, f"conv{i}"), getattr(self, f"bn{i}")

    def across(self, x: Tensor) -> Tensor:
        """x on the shortcut."""
        return x if self.shortcut is None else self.shortcut(x)


class Original(Unit):
    """(a) conv-BN-ReLU-conv-BN, addition, ReLU: the unit of He et al. 2015."""

    def branch(self, x: Tensor) -> Tensor:
        for i in range(1, self.count):
            conv, bn = self.pair(i)
            x = norm_relu(bn, conv(x))
        conv, bn = self.pair(self.count)
        return bn(conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.across(x))


class BNAfterAddition(Unit):
    """(b) conv-BN-ReLU-conv, addition, BN-ReLU: nothing goes straight through any more."""

    projection_norm = False

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count):
            conv, bn = self.pair(i)
            y = norm_relu(bn, conv(y))
        conv, bn = self.pair(self.count)
        return norm_relu(bn, conv(y) + self.across(x))


class ReLUBeforeAddition(Unit):
    """(c) conv-BN-ReLU-conv-BN-ReLU, addition: a branch that can only add."""

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count + 1):
            conv, bn = self.pair(i)
            y = norm_relu(bn, conv(y))
        return y + self.across(x)


class ReLUOnlyPreActivation(Unit):
    """(d) ReLU-conv-BN-ReLU-conv-BN, addition."""

    def forward(self, x: Tensor) -> Tensor:
        if self.shared:
            x = F.relu(x)
        y = x
        for i in range(1, self.count + 1):
            conv, bn = self.pair(i)
            y = bn(conv(y if i == 1 and self.shared else F.relu(y)))
        return y + self.across(x)


class FullPreActivation(Unit):
    """(e) BN-ReLU-conv-BN-ReLU-conv, addition: the shortcut is the identity from one end of the network to the other."""

    pre_activation = True
    projection_norm = False

    def forward(self, x: Tensor) -> Tensor:
        conv, bn = self.pair(1)
        if self.shared:
            x = norm_relu(bn, x)
            y = conv(x)
        else:
            y = norm_relu_conv(bn, conv, x)
        for i in range(2, self.count + 1):
            conv, bn = self.pair(i)
            y = norm_relu_conv(bn, conv, y)
        return y + self.across(x)


UNITS: dict[str, type[Unit]] = {
    "original": Original,
    "bn_after_add": BNAfterAddition,
    "relu_before_add": ReLUBeforeAddition,
    "relu_only_preact": ReLUOnlyPreActivation,
    "full_preact": FullPreActivation,
}
