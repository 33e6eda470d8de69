"""VGG: Simonyan & Zisserman, ICLR 2015 (arXiv 1409.1556), and the small ones that Zagoruyko made of it for CIFAR.

Groups of 3×3 convolutions with pooling between them; channels grow 64, 128, 256, 512, 512.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy

from .. import functional as F
from ..nn import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential, init, norm_relu
from ..tensor import Tensor
from .classifier import Classifier
from .entry import IMAGENET, Entry, dropout_rates, finished, several
from .initialise import draw, like_cifar_torch, like_fb_resnet, like_wide_resnet

WIDTHS = (64, 128, 256, 512, 512)
VGG16, VGG19 = (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)


class CifarVGG(Classifier):
    """conv1, bn1, conv2, bn2, … and fc. See ``vgg_cifar`` for the arguments."""

    def __init__(
        self,
        *,
        groups: Sequence[int],
        widths: Sequence[int],
        conv_bias: bool,
        eps: float,
        average: bool,
        hidden: int | None,
        dropout: Sequence[float],
        classes: int,
        in_channels: int,
    ):
        channels, number = in_channels, 0
        self.groups: tuple[tuple[int, ...], ...] = ()  # the numbers of each group's convolutions
        for width, convolutions in zip(widths, groups, strict=True):
            members = tuple(range(number + 1, number + 1 + convolutions))
            for number in members:
                setattr(self, f"conv{number}", Conv2d(channels, width, 3, padding=1, bias=conv_bias))
                setattr(self, f"bn{number}", BatchNorm2d(width, eps=eps))
                channels = width
            self.groups += (members,)
        self.pool, self.average = MaxPool2d(2), average
        self.first_drop, self.drop, self.head_drop = map(Dropout, dropout)
        self.hidden = hidden is not None
        if hidden is not None:
            self.fc1 = Linear(channels, hidden)
            self.bn_fc1 = BatchNorm2d(hidden)  # with ε = 1e-5 in the code, unlike the others
            channels = hidden
        self.fc = Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        x = x.astype(self.dtype)
        for members in self.groups:
            x = self.pool(x) if members[0] > 1 else x
            for number in members:
                x = norm_relu(getattr(self, f"bn{number}"), getattr(self, f"conv{number}")(x))
                if number < members[-1]:
                    x = (self.first_drop if number == 1 else self.drop)(x)
        x = F.global_avg_pool2d(x if self.average else self.pool(x))  # of 32×32 pixels the last pooling leaves one
        if self.hidden:
            n, c = (x := self.fc1(self.head_drop(x))).shape
            x = norm_relu(self.bn_fc1, x.reshape((n, c, 1, 1))).reshape((n, c))
            x = self.head_drop(x)
        return self.fc(x)


def vgg_cifar(
    *,
    groups: Sequence[int] = VGG16,
    widths: Sequence[int] = WIDTHS,
    conv_bias: bool = True,
    eps: float = 1e-5,
    average: bool = False,
    hidden: int | None = None,
    dropout: Sequence[float] | float = 0.0,
    initialise: Callable[[Module, numpy.random.Generator], None] = like_fb_resnet,
    classes: int = 10,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> CifarVGG:
    """A VGG with batch norm for small images.

    groups      convolutions in each group
    widths      channels of each group
    conv_bias   convolutions have biases, although batch norm follows
    eps         ε of batch norm behind convolutions
    average     end with a global average instead of a last max pooling
    hidden      units of a linear layer with BN-ReLU before the last one; None: there is none
    dropout     one probability for all, or three: after the first convolution; after the others but the last of each group; before
                each linear layer when there is a hidden one
    initialise  draws the weights: (model, generator)

    Raises ConfigError for groups, widths or dropout rates that do not fit.
    """
    several("vgg_cifar", "groups", groups, len(several("vgg_cifar", "widths", widths)))
    dropout = dropout_rates("vgg_cifar", dropout, 3)

    def make():
        return CifarVGG(
            groups=groups,
            widths=widths,
            conv_bias=conv_bias,
            eps=eps,
            average=average,
            hidden=hidden,
            dropout=dropout,
            classes=classes,
            in_channels=in_channels,
        )

    return finished(make, initialise, seed=seed, dtype=dtype, device=device)


class VGG(Classifier):
    """features and classifier, numbered as torchvision numbers them. See ``vgg_imagenet`` for the arguments."""

    def __init__(self, *, groups: Sequence[int], batch_norm: bool, dropout: float, classes: int, in_channels: int):
        channels, layers = in_channels, list[Module]()
        for width, convolutions in zip(WIDTHS, groups, strict=True):
            for _ in range(convolutions):
                layers.append(Conv2d(channels, width, 3, padding=1))
                layers += [BatchNorm2d(width), ReLU()] if batch_norm else [ReLU()]
                channels = width
            layers.append(MaxPool2d(2))
        self.features = Sequential(*layers)
        self.flatten = Flatten()
        self.classifier = Sequential(
            Linear(channels * 7 * 7, 4096),
            ReLU(),
            Dropout(dropout),
            Linear(4096, 4096),
            ReLU(),
            Dropout(dropout),
            Linear(4096, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, 224, 224) to logits (N, classes)."""
        return self.classifier(self.flatten(self.features(x.astype(self.dtype))))


def vgg_imagenet(
    *,
    groups: Sequence[int] = VGG16,
    batch_norm: bool = False,
    dropout: float = 0.5,
    classes: int = 1000,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> VGG:
    """VGG for images of 224×224, configuration D (16 layers) unless groups say otherwise; weights start as torchvision's do.

    groups      convolutions in each of the five groups
    batch_norm  after each convolution
    dropout     probability of dropping a value of either hidden layer

    Raises ConfigError for groups that do not fit.
    """
    several("vgg_imagenet", "groups", groups, 5)

    def make():
        return VGG(groups=groups, batch_norm=batch_norm, dropout=dropout, classes=classes, in_channels=in_channels)

    start = partial(draw, conv=partial(init.he_normal, fan="out"), linear=partial(init.normal, std=0.01))
    return finished(make, start, seed=seed, dtype=dtype, device=device)


# vgg16_bn_drop_cifar: szagoruyko/cifar.torch. vgg19_bn_gap_cifar: models/vgg.lua of szagoruyko/wide-residual-networks.
ENTRIES = {
    "vgg16_bn_cifar": Entry(vgg_cifar, "VGG"),
    "vgg16_bn_drop_cifar": Entry(
        vgg_cifar,
        "VGG",
        {"hidden": 512, "eps": 1e-3, "dropout": (0.3, 0.4, 0.5), "initialise": like_cifar_torch},
    ),
    "vgg19_bn_gap_cifar": Entry(
        vgg_cifar,
        "VGG",
        {"groups": VGG19, "conv_bias": False, "eps": 1e-3, "average": True, "initialise": like_wide_resnet},
    ),
    "vgg16_imagenet": Entry(vgg_imagenet, "VGG", image_shape=IMAGENET, classes=1000),
    "vgg16_bn_imagenet": Entry(vgg_imagenet, "VGG", {"batch_norm": True}, IMAGENET, 1000),
}
NAMES = tuple(ENTRIES)


def entry(name: str) -> Entry | None:
    """The networks of ENTRIES, by name."""
    return ENTRIES.get(name)
