"""What every network here has in common: images in, logits out, and a loss to train it with."""

from collections.abc import Mapping
from typing import Any

from .. import functional as F
from ..nn import Conv2d, Linear, Module
from ..tensor import Tensor


class Classifier(Module):
    """Images (N, C, H, W) to logits (N, classes). Subclasses write ``forward``; few have a loss of their own.

    rates  learning rates of single layers as shares of the recipe's, by how the names of their parameters begin
    """

    rates: Mapping[str, float] = {}

    def rate_of(self, name: str) -> float:
        """The share of the learning rate that a parameter has by its name."""
        return next((share for start, share in self.rates.items() if name.startswith(start)), 1.0)

    def loss(self, images: Tensor, labels: Any) -> tuple[Tensor, Tensor]:
        """(logits, what training minimises). With everything that only training needs, such as companion classifiers."""
        logits = self(images)
        return logits, self.criterion(logits, labels)

    def criterion(self, logits: Tensor, labels: Any) -> Tensor:
        """How wrong logits are: cross-entropy in nats, unless the paper has something else."""
        return F.cross_entropy(logits, labels)

    def at_epoch(self, epoch: float) -> None:
        """Told before each step how far training has come, 0-based and fractional; most networks do not mind."""

    @property
    def last_layer(self) -> Module:
        """The layer that makes the logits; some recipes give it a learning rate of its own."""
        return [module for module in self.modules() if isinstance(module, Conv2d | Linear)][-1]
