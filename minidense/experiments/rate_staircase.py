"""The staircase of learning rates: what the training loss does at each step down, beside a run whose rate stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy

from .. import models
from ..data import load
from ..errors import DivergenceError
from ..models import Classifier
from ..plots import BLACK, BLUE, Picture, curves, several
from ..schedule import paper_drops
from ..tensor import Tensor
from .experiment import Experiment, Numbers
from .paper_recipe import PaperRecipe
from .seeds import chosen, options

EPOCHS = 16


class LossKept(Classifier):
    """A network that keeps the loss of every training step in ``losses``, in nats."""

    def __init__(self, model: Classifier):
        self.model = model
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def loss(self, images: Tensor, labels: Any) -> tuple[Tensor, Tensor]:
        logits, loss = self.model.loss(images, labels)
        self.losses.append(loss.item())
        return logits, loss

    def at_epoch(self, epoch: float) -> None:
        self.model.at_epoch(epoch)


def staircase(
    *,
    epochs: int = EPOCHS,
    seeds: Sequence[int] = (0,),
    depth: int = 10,
    growth_rate: int = 4,
    learning_rate: float = 0.1,
    batch_size: int = 16,
    augment: bool = True,
) -> Numbers:
    """Train a small DenseNet-BC on digits by the paper's recipe, and once more from the same start with a rate that never falls.

    Batches are smaller than the paper's 64, so that gradients are as noisy as they are where a rate of 0.1 is too high to come lower.

    returns  epochs, depth, growth_rate, seeds, steps_per_epoch
             runs   one a seed, each with "falling" and "constant", and for both of them
                    loss       of every step, nats
                    smoothed   mean of the steps of the last epoch up to this one, fewer at the beginning
                    rate       learning rate of every step
                    history    one record an epoch, see ``training.train``
             drops  one a step of the staircase
                    epoch                     0-based, from which the lower rate holds
                    rate_before, rate_after
                    before, after             mean training loss of the whole epoch before the drop and of the one after, nats; a list
                                              with one of each seed
                    ratio                     after / before, one of each seed
                    constant_ratio            the same between these epochs in the run whose rate stays
             end    mean training loss of the last epoch: {"falling": one of each seed, "constant": ...}

    Raises DivergenceError when the loss of a run becomes no number.
    """
    dataset = load("digits")
    recipe = PaperRecipe(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, augment=augment)
    runs = []
    for seed in seeds:
        run: Numbers = {"seed": seed}
        for name, how in (("falling", recipe), ("constant", replace(recipe, falling=False))):
            model = LossKept(models.densenet(depth=depth, growth_rate=growth_rate, in_channels=1, seed=seed))
            history = how.train(model, dataset, seed=seed)
            if history[-1]["diverged"]:
                raise DivergenceError(
                    f"staircase: with learning_rate={learning_rate:g} the loss became no number in epoch {len(history)} "
                    f"(seed {seed}); try a lower one"
                )
            n = len(model.losses) // len(history)
            run[name] = {
                "loss": model.losses,
                "smoothed": running_mean(model.losses, n),
                "rate": [how.rate(i // n) for i in range(len(model.losses))],  # it falls between epochs
                "history": history,
            }
        runs.append(run)
    steps = -(-len(dataset.train_labels) // batch_size)
    return {
        "epochs": epochs,
        "depth": depth,
        "growth_rate": growth_rate,
        "seeds": list(seeds),
        "steps_per_epoch": steps,
        "runs": runs,
        "drops": [drop(runs, recipe, epoch) for epoch in paper_drops(epochs) if 0 < epoch < epochs],
        "end": {name: [run[name]["history"][-1]["train_loss"] for run in runs] for name in ("falling", "constant")},
    }


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and those before it, `window` in all, fewer at the beginning."""
    total = numpy.concatenate([[0.0], numpy.cumsum(values)])
    end = numpy.arange(1, len(values) + 1)
    begin = numpy.maximum(end - window, 0)
    return ((total[end] - total[begin]) / (end - begin)).tolist()


def drop(runs: Sequence[Numbers], recipe: PaperRecipe, epoch: int) -> Numbers:
    """What the loss does where the rate falls at an epoch: its mean over the epoch before and over the one after."""

    def around(name):
        losses = [[record["train_loss"] for record in run[name]["history"]] for run in runs]
        return [each[epoch - 1] for each in losses], [each[epoch] for each in losses]

    before, after = around("falling")
    return {
        "epoch": epoch,
        "rate_before": recipe.rate(epoch - 1),
        "rate_after": recipe.rate(epoch),
        "before": before,
        "after": after,
        "ratio": [b / a for a, b in zip(before, after, strict=True)],
        "constant_ratio": [b / a for a, b in zip(*around("constant"), strict=True)],
    }


def table(numbers: Numbers) -> str:
    """A row a step of the staircase and seed."""
    lines = [
        f"DenseNet-BC (L = {numbers['depth']}, k = {numbers['growth_rate']}) on digits, {numbers['epochs']} epochs. Mean training loss of "
        "the epoch before the rate falls and of the one after.",
        "",
        "| seed | from epoch | rate | loss before | after | after/before | the same where the rate stays |",
        "|--:|--:|---|--:|--:|--:|--:|",
    ]
    for i, seed in enumerate(numbers["seeds"]):
        lines += [
            f"| {seed} | {each['epoch'] + 1} | {each['rate_before']:g} → {each['rate_after']:g} | {each['before'][i]:.4f} | "
            f"{each['after'][i]:.4f} | {each['ratio'][i]:.2f} | {each['constant_ratio'][i]:.2f} |"
            for each in numbers["drops"]
        ]
    ends = [", ".join(f"{loss:.3f}" for loss in numbers["end"][name]) for name in ("falling", "constant")]
    lines += ["", f"Loss of the last epoch: {ends[0]}; where the rate stays: {ends[1]}."]
    return "\n".join(lines) + "\n"


def picture(numbers: Numbers) -> Picture:
    """The first seed's loss by step, smoothed, with and without steps in the rate; below, the rate."""
    run, steps = numbers["runs"][0], numbers["steps_per_epoch"]
    figure, panels = several(1, 2, width=9, height=5, sharex=True, height_ratios=(3, 1))
    loss, rate = panels[:, 0]
    epochs = [(i + 1) / steps for i in range(len(run["falling"]["loss"]))]
    loss.plot(epochs, run["falling"]["loss"], color=BLUE, alpha=0.25, linewidth=0.8)
    kinds = {"rate falls": "falling", "rate stays": "constant"}
    curves(
        epochs,
        {name: run[kind]["smoothed"] for name, kind in kinds.items()},
        alt="",
        axes=loss,
        log="y",
        ylabel="training loss, nats",
        title="Training loss of each step (pale) and its mean over an epoch",
    )
    curves(
        epochs,
        {name: run[kind]["rate"] for name, kind in kinds.items()},
        alt="",
        axes=rate,
        log="y",
        xlabel="epoch",
        ylabel="learning rate",
    )
    rate.get_legend().remove()
    for each in numbers["drops"]:
        for axes in (loss, rate):
            axes.axvline(each["epoch"], color=BLACK, linewidth=0.8, linestyle=":")
    said = "; ".join(
        f"at epoch {each['epoch']} it goes from {each['before'][0]:.3f} to {each['after'][0]:.3f}, and where the rate stays to "
        f"{each['constant_ratio'][0]:.2f} of what it was"
        for each in numbers["drops"]
    )
    alt = f"Training loss on a logarithmic axis against epochs, with dotted lines where the learning rate is divided by ten: {said}."
    return Picture(figure, alt)


READING = """How to read this: while the rate is high, steps overshoot and the loss hovers; when it is divided by ten the noise of the
steps becomes smaller and the loss falls within an epoch. The run whose rate stays begins alike and says how much would have come without.
Where the loss would have fallen anyway, a drop shows little: compare the last two columns. The second step of the staircase does
hardly anything that could be told from chance, because the first has taken away most of the noise.

The smoothed line is the mean over the epoch before each step, so it falls gradually where the loss itself jumps. The last epochs say more
than a single drop. A lower training loss is not a better test result: compare the histories, and recipe-ablation."""

STAIRCASE = Experiment(
    name="staircase",
    about="the drop of the training loss at each step of the learning rate's staircase",
    measure=lambda given, notebook: staircase(**chosen(given)),
    table=table,
    picture=picture,
    reading=READING,
    options=options(1, EPOCHS),
)
