"""What is measured: the networks by name, and fixed random images for them."""

import difflib
from itertools import pairwise

import numpy

from .. import functional as F
from .. import models
from ..errors import ConfigError
from ..nn import BatchNorm2d, Conv2d, Linear, Module, norm_relu, norm_relu_conv
from ..tensor import Tensor

PIXELS, CLASSES = 32, 10  # of the stacks


class Stack(Module):
    """3×3 convolutions one after another, each followed by BN-ReLU; then global average and linear. No shortcuts.

    channels  of each convolution's result
    strides   of each convolution
    """

    conv0: Conv2d

    def __init__(self, channels: list[int], strides: list[int]):
        rng = numpy.random.default_rng(0)
        for i, ((c, f), stride) in enumerate(zip(pairwise([3, *channels]), strides, strict=True)):
            setattr(self, f"conv{i}", Conv2d(c, f, 3, stride=stride, padding=1, bias=False, rng=rng))
            setattr(self, f"norm{i}", BatchNorm2d(f))
        self.classifier = Linear(channels[-1], CLASSES, rng=rng)
        self.count = len(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv0(x)
        for i in range(1, self.count):
            x = norm_relu_conv(getattr(self, f"norm{i - 1}"), getattr(self, f"conv{i}"), x)
        x = norm_relu(getattr(self, f"norm{self.count - 1}"), x)
        return self.classifier(F.global_avg_pool2d(x))


def stack(stem: int, stages: tuple[int, ...], convolutions: int) -> Stack:
    """A stem and stages of equally many convolutions; all stages but the first begin with stride 2."""
    channels, strides = [stem], [1]
    for number, width in enumerate(stages):
        channels += [width] * convolutions
        strides += [1 if number == 0 else 2] + [1] * (convolutions - 1)
    return Stack(channels, strides)


# The convolutions of ResNet-20 (He et al. 2016, §4.2) and of WRN-16-4 (Zagoruyko & Komodakis 2016, Table 1), without shortcuts.
STACKS = {
    "resnet_20_stack": (16, (16, 32, 64), 6),
    "wrn_16_4_stack": (16, (64, 128, 256), 4),
}


def build(name: str) -> Module:
    """A network by its name: all that ``models.create`` takes, and the stacks. Raises ConfigError for an unknown name."""
    plain = is_stack(name)
    return models.create(name) if plain is None else stack(*STACKS[plain])


def made_for(name: str) -> tuple[int, int]:
    """(pixels a side, classes) of the images that a network was made for. Raises ConfigError for an unknown name."""
    if is_stack(name) is not None:
        return PIXELS, CLASSES
    about = models.about(name)
    return about.image_shape[1], about.classes


def is_stack(name: str) -> str | None:
    """Which of the stacks a name means, if any. Raises ConfigError where a stack is the nearest to a name that nobody knows."""
    plain = name.replace("-", "_").lower()
    if plain in STACKS:
        return plain
    near = difflib.get_close_matches(plain, [*STACKS, *models.names()], n=1, cutoff=0.4)
    if near and near[0] in STACKS:
        raise ConfigError(f"unknown model {name!r}; did you mean {near[0]}?")
    return None


def images_and_labels(count: int, size: int, classes: int = CLASSES) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Images (count, 3, size, size) of normal noise and labels (count,), the same in every call."""
    rng = numpy.random.default_rng(0)
    return rng.standard_normal((count, 3, size, size), numpy.float32), rng.integers(classes, size=count)
