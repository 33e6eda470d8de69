"""Batch norm: accuracy by learning rate with it and without, and what becomes of a network that is left in training mode."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from functools import partial

from ..config import nearest
from ..data import Dataset, load, test_batches
from ..errors import ConfigError
from ..nn import Module
from ..optim import SGD
from ..plots import Picture, heat_map, several
from ..plots.picture import write_in
from ..tensor import Tensor, no_grad
from ..threads import threads
from .experiment import Experiment, Notebook, Numbers
from .perceptrons import ACTIVATIONS, WRITTEN, trained_perceptron
from .seeds import chosen, once, over_seeds, written
from .seeds import options as seeds_and_epochs
from .stacks import stack
from .training import CHANCE, loss_and_accuracy, train

SEEDS, EPOCHS, DEPTH = 3, 15, 10
RATES = (0.001, 0.01, 0.1, 1.0)
BATCH_SIZES = (1, 2, 5, 10, 50)


# -- learning rates ---------------------------------------------------------------------------------------------------


def learning_at(
    dataset: Dataset,
    *,
    activation: str,
    batch_norm: bool,
    learning_rate: float,
    depth: int = DEPTH,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> Numbers:
    """Train one stack: test_accuracy at the end (a fraction; guessing where the loss is no number any more), diverged, seconds."""
    began = time.perf_counter()
    model, history = trained_perceptron(
        dataset,
        learning_rate=learning_rate,
        epochs=epochs,
        seed=seed,
        tested=False,
        depth=depth,
        activation=activation,
        batch_norm=batch_norm,
    )
    diverged = history[-1]["diverged"]
    accuracy = CHANCE if diverged else loss_and_accuracy(model, dataset)[1]
    return {"test_accuracy": accuracy, "diverged": diverged, "seconds": time.perf_counter() - began}


def batch_norm_rates(
    *,
    activations: Sequence[str] = ("sigmoid", "relu"),
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    depth: int = DEPTH,
    notebook: Notebook | None = None,
) -> Numbers:
    """Train perceptrons of `depth` hidden layers of width 64 on digits at each learning rate, with batch norm and without.

    returns  depth, epochs, rates, seeds, test_images, and in "cells" for each activation, with and without, and each rate
             activation, batch_norm, learning_rate    as asked
             test_accuracy    {"values": a fraction for each seed, "mean", "spread"}; what diverged counts as guessing
             diverged         seeds whose loss was no number any more
             seconds          mean of a run

    Raises ConfigError for an unknown activation.
    """
    for name in activations:
        if name not in ACTIVATIONS:
            raise ConfigError(f"batch_norm_rates: unknown activation {name!r}{nearest(name, ACTIVATIONS)}")
    dataset = load("digits")
    runs: dict[tuple[str, bool, float], list[Numbers]] = {}
    for seed in seeds:  # seed after seed, so that what is interrupted has something of everything
        for cell in ((name, with_it, rate) for name in activations for with_it in (False, True) for rate in rates):
            asked: Numbers = dict(zip(("activation", "batch_norm", "learning_rate"), cell, strict=True))
            asked |= {"depth": depth, "epochs": epochs, "seed": seed}
            runs.setdefault(cell, []).append(once(notebook, asked, partial(learning_at, dataset, **asked)))
    return {
        "depth": depth,
        "epochs": epochs,
        "rates": list(rates),
        "seeds": list(seeds),
        "test_images": len(dataset.test_labels),
        "cells": [
            {
                "activation": name,
                "batch_norm": with_it,
                "learning_rate": rate,
                "test_accuracy": over_seeds([run["test_accuracy"] for run in each]),
                "diverged": sum(run["diverged"] for run in each),
                "seconds": statistics.fmean(run["seconds"] for run in each),
            }
            for (name, with_it, rate), each in runs.items()
        ],
    }


# -- a batch of one ---------------------------------------------------------------------------------------------------


def batch_of_one(
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = 10,
    depth: int = 2,
    width: int = 16,
    notebook: Notebook | None = None,
) -> Numbers:
    """A convolutional network with batch norm, trained on digits, then tested in training mode, as if eval() had been forgotten.

    Convolutions, because a fully connected layer has one value a feature in a batch of one, and no variance: batch norm refuses it.
    An image of a convolutional layer has 8·8, and is then normalised by itself.

    depth, width    of ``stacks.stack("plain", ...)``: Conv-BN-ReLU, over and over, then global average and linear

    returns  depth, width, epochs, seeds, batch_sizes, test_images, and accuracies {"values": a fraction for each seed, "mean", "spread"}
             eval        in evaluation mode, by the running statistics
             training    in training mode, by the batch's own: one for each of batch_sizes
    """
    dataset = load("digits")
    settings: Numbers = {"depth": depth, "width": width, "epochs": epochs, "batch_sizes": list(batch_sizes)}
    runs = []
    for seed in seeds:
        asked = {"batch_of_one": True, **settings, "seed": seed}
        runs.append(once(notebook, asked, partial(left_in_training_mode, dataset, **settings, seed=seed)))
    return {
        **settings,
        "seeds": list(seeds),
        "test_images": len(dataset.test_labels),
        "eval": over_seeds([run["eval"] for run in runs]),
        "training": [over_seeds([run["training"][i] for run in runs]) for i in range(len(batch_sizes))],
    }


@threads(1)
def left_in_training_mode(
    dataset: Dataset, *, depth: int, width: int, epochs: int, batch_sizes: Sequence[int], seed: int = 0
) -> Numbers:
    """Train one network and test it both ways: eval, training (one for each batch size), seconds."""
    began = time.perf_counter()
    model = stack("plain", depth=depth, width=width, seed=seed)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    train(
        model,
        optimizer,
        dataset,
        epochs=epochs,
        learning_rate=0.05,
        seed=seed,
        batch_size=50,
        augment=False,
        tested=False,
    )
    accuracies = [accuracy_in_training_mode(model, dataset, batch_size=size) for size in batch_sizes]
    return {
        "eval": loss_and_accuracy(model, dataset)[1],
        "training": accuracies,
        "seconds": time.perf_counter() - began,
    }


def accuracy_in_training_mode(model: Module, dataset: Dataset, *, batch_size: int) -> float:
    """The fraction of test images that a network in training mode gets right, each judged by the statistics of its own batch.

    The running statistics are as before afterwards. A last batch that is smaller is judged by itself, too.
    """
    before, training = model.state_dict(), model.training
    model.train()
    hits = 0
    with no_grad():
        for images, labels in test_batches(dataset, size=batch_size):
            hits += int((model(Tensor(images)).data.argmax(axis=1) == labels).sum())
    model.load_state_dict(before)
    model.train(training)
    return hits / len(dataset.test_labels)


# -- the table and the picture ----------------------------------------------------------------------------------------


def cells_of(numbers: Numbers) -> dict[str, list[Numbers]]:
    """{"sigmoid": its cells, one a rate, "sigmoid, batch norm": ...}, in order."""
    rows: dict[str, list[Numbers]] = {}
    for each in numbers["cells"]:
        name = WRITTEN[each["activation"]] + (", batch norm" if each["batch_norm"] else "")
        rows.setdefault(name, []).append(each)
    return rows


def table(numbers: Numbers) -> str:
    """A row an activation with or without, a column a rate; then the batches of one and more."""
    n = len(numbers["seeds"])
    lines = [
        f"Test accuracy in percent, {numbers['depth']} hidden layers of width 64, {numbers['epochs']} epochs on digits; mean ± standard "
        f"deviation of {n} {'seed' if n == 1 else 'seeds'}. What diverged counts as guessing, 10 %. One test image of "
        f"{numbers['test_images']} is {100 / numbers['test_images']:.2f} %.",
        "",
        f"| learning rate | {' | '.join(f'{rate:g}' for rate in numbers['rates'])} |",
        f"|---|{len(numbers['rates']) * '--:|'}",
    ]
    for name, cells in cells_of(numbers).items():
        texts = [
            written(each["test_accuracy"], unit=100) + (f" ({each['diverged']} diverged)" if each["diverged"] else "")
            for each in cells
        ]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    if "batch_of_one" in numbers:
        one = numbers["batch_of_one"]
        lines += [
            "",
            f"A convolutional network with batch norm ({one['depth']} Conv-BN-ReLU layers after the first, {one['width']} channels), "
            "trained in batches of 50 and tested in evaluation mode, and in training mode with batches of:",
            "",
            f"| eval | {' | '.join(map(str, one['batch_sizes']))} |",
            f"|--:|{len(one['batch_sizes']) * '--:|'}",
            f"| {' | '.join(written(each, unit=100) for each in (one['eval'], *one['training']))} |",
        ]
    return "\n".join(lines) + "\n"


def picture(numbers: Numbers) -> Picture:
    """A heat map of accuracies, and accuracy in training mode by batch size where it was measured."""
    rows, one = cells_of(numbers), numbers.get("batch_of_one")
    height = 1.9 + 0.45 * len(rows)
    if one is None:
        figure, ((heat,),) = several(1, width=7.5, height=height)
    else:
        how: Numbers = {"gridspec_kw": {"width_ratios": [2.2, 1]}}
        figure, ((heat, bars),) = several(2, width=11.0, height=max(height, 3.4), **how)
    accuracies = [[100 * each["test_accuracy"]["mean"] for each in cells] for cells in rows.values()]
    alt = f"Test accuracy in percent by learning rate, {numbers['depth']} hidden layers: " + "; ".join(
        f"{name} "
        + ", ".join(f"{accuracy:.1f} at {rate:g}" for accuracy, rate in zip(line, numbers["rates"], strict=True))
        for name, line in zip(rows, accuracies, strict=True)
    )
    heat_map(
        accuracies,
        rows=list(rows),
        columns=[f"{rate:g}" for rate in numbers["rates"]],
        alt="",
        form="",
        axes=heat,
        low=0,
        high=100,
        bar="test accuracy, %",
        title=f"{numbers['depth']} hidden layers, {numbers['epochs']} epochs",
        xlabel="learning rate",
    )
    (image,) = heat.images
    for i, cells in enumerate(rows.values()):
        for j, each in enumerate(cells):
            accuracy = 100 * each["test_accuracy"]["mean"]
            text = f"{accuracy:.1f}" + ("\ndiverged" if each["diverged"] == len(numbers["seeds"]) else "")
            write_in(heat, i, j, text, on=image.cmap(image.norm(accuracy)))
    if one is not None:
        names = ["eval", *map(str, one["batch_sizes"])]
        found = [100 * each["mean"] for each in (one["eval"], *one["training"])]
        heat_map(
            [[accuracy] for accuracy in found],
            rows=names,
            columns=[""],
            alt="",
            form="{:.1f}",
            axes=bars,
            low=0,
            high=100,
            title="eval() forgotten",
            ylabel="training mode, batches of",
        )
        said = ", ".join(
            f"{accuracy:.1f} % in batches of {name}" for name, accuracy in zip(names[1:], found[1:], strict=True)
        )
        alt += f". A convolutional network with batch norm has {found[0]:.1f} % in evaluation mode; in training mode {said}"
    return Picture(figure, alt + ".")


READING = """How to read this: rows are stacks, columns learning rates; dark is good. Without batch norm, ten layers
of sigmoid stay at chance at every rate, and ReLU diverges at rates that are fine with it. With batch norm both learn
over a wide range of rates: what it buys above all is that the rate hardly has to be chosen.

The second part is what it costs. A network with batch norm depends on the other images in the batch as long as it is
in training mode: with batches of the size it was trained with nothing is to be seen, with a batch of one it is near
guessing. model.eval() makes it use the running statistics instead. In a fully connected network a batch of one has
no variance at all, and minidense refuses it.

A network that always names the same digit is right in 7 to 13 % of the test images. Rates are a factor of ten apart,
and runs are short; differences of a percent or two between good cells are chance."""


def line(run: Numbers) -> str:
    """A run that is done, for whoever waits."""
    if "batch_of_one" in run:
        return f"convolutions, seed {run['seed']}: accuracy {100 * run['eval']:.1f} %, {run['seconds']:.1f} s"
    name = f"{WRITTEN[run['activation']]} {'with' if run['batch_norm'] else 'without'} batch norm"
    return (
        f"{name:26} rate {run['learning_rate']:<5g} seed {run['seed']}: accuracy {100 * run['test_accuracy']:5.1f} %, "
        f"{run['seconds']:.1f} s"
    )


BATCH_NORM_RATES = Experiment(
    name="batch-norm-rates",
    about="accuracy by learning rate with batch norm and without, and a batch of one in training mode",
    measure=lambda given, notebook: {
        **batch_norm_rates(**chosen(given), notebook=notebook),
        "batch_of_one": batch_of_one(**{k: v for k, v in chosen(given).items() if k == "seeds"}, notebook=notebook),
    },
    table=table,
    picture=picture,
    reading=READING,
    line=line,
    options=seeds_and_epochs(SEEDS, EPOCHS),
)
