"""Residual networks for ImageNet: He, Zhang, Ren & Sun, CVPR 2016 (arXiv 1512.03385), Table 1, with torchvision's names.

Bottlenecks have their stride on the 3×3 convolution, as in fb.resnet.torch and torchvision; the paper's own have it on the first 1×1.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy

from .. import functional as F
from ..nn import BatchNorm2d, Conv2d, Linear, MaxPool2d, Module, Sequential, norm_relu
from ..tensor import Tensor
from .classifier import Classifier
from .entry import IMAGENET, Entry, finished
from .initialise import like_fb_resnet

WIDTHS = (64, 128, 256, 512)


class ResidualBlock(Module):
    """conv1, bn1, conv2, bn2 (conv3, bn3), the addition of the shortcut, and ReLU.

    sizes  (channels out, kernel, stride) of each convolution
    """

    def __init__(self, channels: int, sizes: Sequence[tuple[int, int, int]]):
        (out_channels, _, _), stride = sizes[-1], max(step for _, _, step in sizes)
        for i, ((c, _, _), (f, kernel, step)) in enumerate(pairwise([(channels, 0, 0), *sizes]), start=1):
            setattr(self, f"conv{i}", Conv2d(c, f, kernel, stride=step, padding=kernel // 2, bias=False))
            setattr(self, f"bn{i}", BatchNorm2d(f))
        self.count = len(sizes)
        self.downsample = (
            Sequential(Conv2d(channels, out_channels, 1, stride=stride, bias=False), BatchNorm2d(out_channels))
            if stride != 1 or channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count):
            y = norm_relu(getattr(self, f"bn{i}"), getattr(self, f"conv{i}")(y))
        y = getattr(self, f"bn{self.count}")(getattr(self, f"conv{self.count}")(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ImageNetResNet(Classifier):
    """conv1-bn1-ReLU-pool, layer1 to layer4, global average, fc. See ``resnet_imagenet`` for the arguments."""

    layer1: Sequential
    layer2: Sequential
    layer3: Sequential
    layer4: Sequential

    def __init__(self, *, units: Sequence[int], bottleneck: bool, classes: int, in_channels: int):
        self.conv1 = Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.maxpool = MaxPool2d(3, stride=2, padding=1)
        channels = 64
        for stage, (width, count) in enumerate(zip(WIDTHS, units, strict=True), start=1):
            members = []
            for i in range(count):
                stride = 2 if stage > 1 and i == 0 else 1
                sizes = [(width, 3, stride), (width, 3, 1)]
                if bottleneck:
                    sizes = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
                members.append(ResidualBlock(channels, sizes))
                channels = sizes[-1][0]
            setattr(self, f"layer{stage}", Sequential(*members))
        self.fc = Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        x = self.maxpool(norm_relu(self.bn1, self.conv1(x.astype(self.dtype))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.global_avg_pool2d(x))


def resnet_imagenet(
    *,
    units: Sequence[int],
    bottleneck: bool,
    classes: int = 1000,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> ImageNetResNet:
    """A residual network for large images, such as 224×224.

    units       in each of the four stages
    bottleneck  units of 1×1, 3×3 and 1×1 convolutions, four times as wide at their ends, instead of two 3×3
    """

    def make():
        return ImageNetResNet(units=units, bottleneck=bottleneck, classes=classes, in_channels=in_channels)

    return finished(make, like_fb_resnet, seed=seed, dtype=dtype, device=device)


UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
ENTRIES = {
    f"resnet{depth}_imagenet": Entry(
        resnet_imagenet, "ResNet for ImageNet", {"units": units, "bottleneck": depth >= 50}, IMAGENET, 1000
    )
    for depth, units in UNITS.items()
}
NAMES = tuple(ENTRIES)


def entry(name: str) -> Entry | None:
    """resnet18_imagenet to resnet152_imagenet."""
    return ENTRIES.get(name)
