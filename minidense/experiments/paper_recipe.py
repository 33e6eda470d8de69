"""The DenseNet paper's recipe (§4.2), small enough for digits: how a network is trained by it, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..data import Dataset
from ..nn import Module
from ..optim import SGD
from ..schedule import paper_drops, step_decay
from .experiment import Numbers
from .training import CHANCE, loss_and_accuracy, train


@dataclass(frozen=True)
class PaperRecipe:
    """Batches of 64, SGD with Nesterov momentum 0.9 and weight decay 1e-4, rate 0.1 divided by 10 at 50 % and 75 % (§4.2).

    Only the number of epochs is not the paper's, which has 300. Moved images, ``augment``, are the paper's "+"; digits are moved by at
    most a pixel and never mirrored.
    """

    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 0.1
    falling: bool = True
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    augment: bool = True

    def rate(self, epoch: float) -> float:
        """The learning rate at an epoch, 0-based and fractional."""
        drops = paper_drops(self.epochs) if self.falling else ()
        return step_decay(epoch, start=self.learning_rate, drop_at=drops)

    def optimizer(self, model: Module) -> SGD:
        """For all parameters alike, batch norm's γ and β included."""
        return SGD(
            model.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )

    def train(self, model: Module, dataset: Dataset, *, seed: int, tested: bool = True) -> list[dict[str, Any]]:
        """Train the model; returns the history of ``training.train``. ``seed`` decides order and augmentation, not weights.

        tested  test after each epoch
        """
        return train(
            model,
            self.optimizer(model),
            dataset,
            epochs=self.epochs,
            learning_rate=self.rate,
            seed=seed,
            batch_size=self.batch_size,
            augment=self.augment,
            tested=tested,
        )


def trained_and_tested(recipe: PaperRecipe, model: Module, dataset: Dataset, *, seed: int) -> Numbers:
    """Train the model and test it once, at the end.

    returns  test_accuracy, train_accuracy  fractions; the second is the mean of the last epoch, in training mode, of moved images
             test_loss, train_loss          nats; likewise. None for a network that diverged, which counts as guessing
             diverged
    """
    last = recipe.train(model, dataset, seed=seed, tested=False)[-1]
    loss, accuracy = (None, CHANCE) if last["diverged"] else loss_and_accuracy(model, dataset)
    return {
        "test_accuracy": accuracy,
        "test_loss": loss,
        "train_accuracy": last["train_accuracy"],
        "train_loss": last["train_loss"],
        "diverged": last["diverged"],
    }
