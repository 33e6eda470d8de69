"""Deeply-Supervised Nets: Lee, Xie, Gallagher, Zhang & Tu, AISTATS 2015 (arXiv 1409.5185), as in the authors' Caffe files.

A Network in Network whose three convolutions each have a companion, a linear classifier of their own, so that early layers get a
gradient from close by. The companions are for training only; what is tested is the Network in Network.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy

from .. import functional as F
from ..errors import ConfigError, ShapeError
from ..nn import Flatten, Linear, init
from ..tensor import Tensor
from .entry import Entry, finished
from .initialise import gaussian
from .nin import CIFAR_WIDTHS, NetworkInNetwork, check


class DeeplySupervisedNet(NetworkInNetwork):
    """The trunk and companion1 … companion3. See ``dsn`` for the arguments."""

    # The companions hand their gradient on in full and hardly learn themselves (blobs_lr in the released files).
    rates = MappingProxyType({"companion": 0.001})

    def __init__(self, *, image_size: int, hinge: bool, companion_epochs: float, classes: int, **trunk: Any):
        # No ReLU after the last cccp layer here, unlike in nin: half of the scores have to be negative. The released files have
        # none, and their companions see the convolutions before the ReLU.
        super().__init__(classes=classes, relu_at_end=False, **trunk)
        self.flatten = Flatten()
        side = self.image_size = image_size
        for stage, (outputs, *_) in enumerate(trunk["widths"], start=1):
            setattr(self, f"companion{stage}", Linear(outputs * side * side, classes))
            side = -(-(side - 1) // 2)  # the pooling: ⌈(side − 3)/2⌉ + 1
        self.hinge, self.companion_epochs = hinge, companion_epochs
        self.with_companions = True

    def loss(self, images: Tensor, labels: Any) -> tuple[Tensor, Tensor]:
        """(scores, loss of the output plus that of each companion, all with weight 1). Raises ShapeError for images of another size."""
        side = self.image_size
        if self.with_companions and images.shape[2:] != (side, side):
            raise ShapeError(
                f"dsn: its companions were built for images of {side}×{side}, got {images.shape[2]}×{images.shape[3]}; "
                "give image_size when it is created"
            )
        scores, convolutions = self.logits_and_convolutions(images)
        loss = self.criterion(scores, labels)
        if self.with_companions:
            for stage, x in enumerate(convolutions, start=1):
                loss = loss + self.criterion(getattr(self, f"companion{stage}")(self.flatten(x)), labels)
        return scores, loss

    def criterion(self, logits: Tensor, labels: Any) -> Tensor:
        """Squared hinge, a support vector machine for each class against the others, or cross-entropy."""
        return F.squared_hinge(logits, labels) if self.hinge else F.cross_entropy(logits, labels)

    def at_epoch(self, epoch: float) -> None:
        """The companions leave after ``companion_epochs``.

        The paper lets their weight decay to 0. The released files instead lower the rate at which they learn and take them out
        for the second and third phase of training; here they only leave.
        """
        self.with_companions = epoch < self.companion_epochs


def dsn(
    *,
    widths: Sequence[Sequence[int]] = CIFAR_WIDTHS,
    kernels: Sequence[int] = (5, 5, 3),
    image_size: int = 32,
    hinge: bool | None = None,
    companion_epochs: float = 100,
    dropout: float = 0.5,
    classes: int = 10,
    in_channels: int = 3,
    seed: int = 0,
    dtype=numpy.float32,
    device: str = "cpu",
) -> DeeplySupervisedNet:
    """A Deeply-Supervised Net on the trunk of ``nin``.

    image_size        height and width of the images, which the companions see whole
    hinge             squared hinge loss instead of cross-entropy; by default unless there are 100 classes, as in the released files
    companion_epochs  how long the companions take part: 50,000 iterations of 100 images are 100 epochs of CIFAR
    The others as for ``nin``.

    Raises ConfigError for sizes that make no sense.
    """
    check("dsn", widths, kernels)
    if not isinstance(image_size, int | numpy.integer) or image_size < 1:
        raise ConfigError(f"dsn: image_size must be a whole number of at least 1, got {image_size!r}")
    if not companion_epochs >= 0:
        raise ConfigError(f"dsn: companion_epochs must be at least 0, got {companion_epochs!r}")

    def make():
        return DeeplySupervisedNet(
            widths=widths,
            kernels=kernels,
            image_size=image_size,
            hinge=classes != 100 if hinge is None else hinge,
            companion_epochs=companion_epochs,
            dropout=dropout,
            classes=classes,
            in_channels=in_channels,
        )

    return finished(make, initialise, seed=seed, dtype=dtype, device=device)


def initialise(model: DeeplySupervisedNet, rng: numpy.random.Generator) -> None:
    """N(0, 0.05), the companions Caffe's xavier."""
    gaussian(model, rng)
    for _, module in model.named_children():
        if isinstance(module, Linear):
            module.weight.data[...] = init.caffe_xavier(rng, module.weight.shape)


NAMES = ("dsn", "dsn_svhn")


def entry(name: str) -> Entry | None:
    """dsn, or dsn_svhn with cross-entropy as the authors have it there (the trunk is CIFAR's: theirs we could not see)."""
    if name == "dsn":
        return Entry(dsn, "Deeply-Supervised Net")
    if name == "dsn_svhn":
        return Entry(dsn, "Deeply-Supervised Net", {"hinge": False})
    return None
