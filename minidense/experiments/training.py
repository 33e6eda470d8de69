"""One small training run, for whatever model and optimizer, and a test of what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from .. import functional as F
from ..data import Dataset, test_batches, training_batches
from ..models import Classifier
from ..nn import Module
from ..optim import SGD
from ..step import training_step
from ..tensor import Tensor, no_grad

CHANCE = 0.1  # accuracy of guessing among ten classes


def train(
    model: Module,
    optimizer: SGD,
    dataset: Dataset,
    *,
    epochs: int,
    learning_rate: float | Callable[[float], float],
    seed: int,
    batch_size: int = 50,
    augment: bool = True,
    tested: bool = True,
    after_step: Callable[[Module, SGD], Any] | None = None,
) -> list[dict[str, Any]]:
    """Train a small network; returns one record an epoch, with the names of log.jsonl, so that the same plots draw it.

    learning_rate  or a function of the epoch, 0-based and fractional
    seed           of the order of the images and of augmentation; weights are drawn already
    tested         test after each epoch; otherwise the records hold no test_loss and test_accuracy
    after_step     called after each step, to watch weights and gradients

    Ends early where the loss is no number any more: its last record has None for train_loss, and "diverged" is true in it.
    """
    steps = math.ceil(len(dataset.train_images) / batch_size)
    history: list[dict[str, Any]] = []
    with numpy.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what diverges is found out below
        for epoch in range(epochs):
            losses, hits = [], 0
            batches = training_batches(dataset, size=batch_size, seed=(seed, epoch), augment=augment)
            for step, (images, labels) in enumerate(batches):
                now = epoch + step / steps
                if isinstance(model, Classifier):
                    model.at_epoch(now)
                optimizer.set_lr(learning_rate(now) if callable(learning_rate) else learning_rate)
                logits, loss = training_step(model, optimizer, images, labels)
                losses.append(loss.data)
                hits += int((logits.data.argmax(axis=1) == labels).sum())
                if after_step is not None:
                    after_step(model, optimizer)
            loss = float(numpy.mean(losses))
            diverged = not math.isfinite(loss)
            record = {
                "epoch": epoch + 1,
                "learning_rate": learning_rate(epoch) if callable(learning_rate) else learning_rate,
                "train_loss": None if diverged else loss,
                "train_accuracy": hits / len(dataset.train_labels),
                "diverged": diverged,
            }
            if tested and not diverged:
                record["test_loss"], record["test_accuracy"] = loss_and_accuracy(model, dataset)
            history.append(record)
            if diverged:
                break
    return history


def loss_and_accuracy(model: Module, dataset: Dataset, *, batch_size: int = 100) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (a fraction) on the test images, in evaluation mode; training mode afterwards."""
    model.eval()
    loss, hits = 0.0, 0
    with no_grad(), numpy.errstate(over="ignore", invalid="ignore"):
        for images, labels in test_batches(dataset, size=batch_size):
            logits = model(Tensor(images))
            loss += F.cross_entropy(logits, labels).item() * len(labels)
            hits += int((logits.data.argmax(axis=1) == labels).sum())
    model.train()
    return loss / len(dataset.test_labels), hits / len(dataset.test_labels)
