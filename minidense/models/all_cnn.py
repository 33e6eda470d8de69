"""All Convolutional Net, model C: Springenberg, Dosovitskiy, Brox & Riedmiller, ICLR 2015 workshop (arXiv 1412.6806).

Nothing but convolutions: stride 2 where others pool, and a 1×1 convolution with a global average where others have linear layers.
"""

from collections.abc import Sequence

import numpy

from .. import functional as F
from ..nn import Conv2d, Dropout
from ..tensor import Tensor
from .classifier import Classifier
from .entry import Entry, finished, several
from .initialise import he


class AllConvolutionalNet(Classifier):
    """conv1 … conv9 of Table 1 and 2, model All-CNN-C. See ``all_cnn_c`` for the arguments."""

    def __init__(self, *, widths: Sequence[int], input_dropout: float, dropout: float, classes: int, in_channels: int):
        narrow, wide = widths
        self.conv1 = Conv2d(in_channels, narrow, 3, padding=1)
        self.conv2 = Conv2d(narrow, narrow, 3, padding=1)
        self.conv3 = Conv2d(narrow, narrow, 3, stride=2, padding=1)
        self.conv4 = Conv2d(narrow, wide, 3, padding=1)
        self.conv5 = Conv2d(wide, wide, 3, padding=1)
        self.conv6 = Conv2d(wide, wide, 3, stride=2, padding=1)
        self.conv7 = Conv2d(wide, wide, 3)  # without padding: 8×8 become 6×6 (Table 5)
        self.conv8 = Conv2d(wide, wide, 1)
        self.conv9 = Conv2d(wide, classes, 1)
        self.input_drop, self.drop = Dropout(input_dropout), Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, classes)."""
        x = self.input_drop(x.astype(self.dtype))
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(conv(x))
        x = self.drop(x)
        for conv in (self.conv4, self.conv5, self.conv6):
            x = F.relu(conv(x))
        x = self.drop(x)
        # A ReLU after the last one too (Table 5). Ports with batch norm, such as neon's, are other networks.
        for conv in (self.conv7, self.conv8, self.conv9):
            x = F.relu(conv(x))
        return F.global_avg_pool2d(x)


def all_cnn_c(
    *,
    widths: Sequence[int] = (96, 192),
    input_dropout: float = 0.2,
    dropout: float = 0.5,
    classes: int = 10,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> AllConvolutionalNet:
    """All-CNN-C for small images.

    widths         channels of the first three convolutions, and of those after them
    input_dropout  probability of dropping a value of the image
    dropout        the same, after each convolution with stride 2

    The paper does not say how the weights start; here they start as in He et al. 2015.
    Raises ConfigError for widths that make no sense.
    """
    several("all_cnn_c", "widths", widths, 2)

    def make():
        return AllConvolutionalNet(
            widths=widths, input_dropout=input_dropout, dropout=dropout, classes=classes, in_channels=in_channels
        )

    return finished(make, he, seed=seed, dtype=dtype, device=device)


NAMES = ("allcnn_c",)


def entry(name: str) -> Entry | None:
    """The one network of this family, allcnn_c; None for any other name."""
    return Entry(all_cnn_c, "All Convolutional Net") if name == "allcnn_c" else None
