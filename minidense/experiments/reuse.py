"""Feature reuse, figure 5 of the DenseNet paper, by ablation: which layer needs what, beside the map of weights that the paper has."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import numpy

from .. import functional as F
from .. import models
from ..data import Dataset, load
from ..errors import ConfigError
from ..models import DenseNet
from ..models.densenet import DenseBlock, Transition
from ..nn import Module
from ..plots import Picture, heat_map, several
from ..speed import reference_only
from ..tensor import Tensor
from .experiment import Experiment, Notebook, Numbers
from .paper_recipe import PaperRecipe
from .seeds import chosen, once, options, over_seeds, written
from .training import loss_and_accuracy

SEEDS, EPOCHS = 3, 12


class Blinded(Module):
    """A module that does not see some of its input's channels: it gets their mean over the images in their place.

        x[n, c, i, j] ← 1/N·Σ_m x[m, c, i, j]    for c in `channels`

    What is left in them is the same for all images, so it says nothing of any one, and it lies where the module's batch norm expects it:
    zeros would take away the average too, which the module could have done without.
    """

    def __init__(self, module: Module, channels: slice):
        self.module, self.channels = module, channels

    def forward(self, x: Tensor) -> Tensor:
        start, stop, _ = self.channels.indices(x.shape[1])
        mean = x[:, start:stop].mean(axis=0, keepdims=True)
        unseen = mean + Tensor(numpy.zeros((len(x), 1, 1, 1), x.dtype))  # as many times as there are images
        return self.module(F.concat([x[:, :start], unseen, x[:, stop:]]))


@contextmanager
def blinded(parent: Module, name: str, channels: slice) -> Iterator[None]:
    """Inside, the module of that name in `parent` does not see these channels."""
    module = getattr(parent, name)
    setattr(parent, name, Blinded(module, channels))
    try:
        yield
    finally:
        setattr(parent, name, module)


def readers(model: DenseNet) -> list[list[tuple[str, Module, str, Any]]]:
    """For each block who reads from it: (what it is called, its parent, its name there, its weight (…, c, K, K) or (…, c)).

    Every layer of the block, and what follows: the transition, or the last norm with the classifier behind it.
    """
    stages, modules = [], list(model.features.named_children())
    for (_, block), (behind, follower) in pairwise(modules):
        if isinstance(block, DenseBlock):
            layers: list[tuple[str, Module, str, Any]] = [
                (str(i), block, name, layer.conv1.weight)  # type: ignore[attr-defined]
                for i, (name, layer) in enumerate(block.named_children(), start=1)
            ]
            end = isinstance(follower, Transition)
            weight = follower.conv.weight if isinstance(follower, Transition) else model.classifier.weight
            stages.append([*layers, ("transition" if end else "classifier", model.features, behind, weight)])
    return stages


def sources(stage: Sequence[tuple[str, Module, str, Any]]) -> list[slice]:
    """The channels of each source in a block: its input first, then those that each layer adds."""
    ends = [weight.shape[1] for *_, weight in stage]  # what layer l reads ends where layer l − 1 has added its own
    return [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]


def ablation_maps(model: DenseNet, dataset: Dataset) -> list[list[list[float | None]]]:
    """How much the test loss rises when one reader does not see one source, nats: a matrix [source][reader] a block.

    None where there is no connection: a layer reads only what comes before it. All test images are one batch, so that the mean in
    ``Blinded`` is that of the test set.
    """

    def loss():
        return loss_and_accuracy(model, dataset, batch_size=len(dataset.test_labels))[0]

    maps = []
    with reference_only():  # the twins of whole blocks know layers as they were built
        whole = loss()
        for stage in readers(model):
            rises: list[list[float | None]] = []
            for s, channels in enumerate(sources(stage)):
                rises.append([None] * s)
                for _, parent, name, _ in stage[s:]:
                    with blinded(parent, name, channels):
                        rises[-1].append(loss() - whole)
            maps.append(rises)
    return maps


def weight_maps(model: DenseNet) -> list[list[list[float | None]]]:
    """Mean |w| of the weights by which a reader sees a source (figure 5): a matrix [source][reader] a block, None as above."""
    return [
        [
            [None] * s + [float(abs(weight.numpy()[:, channels]).mean()) for *_, weight in stage[s:]]
            for s, channels in enumerate(sources(stage))
        ]
        for stage in readers(model)
    ]


def flatness(maps: Sequence[Sequence[Sequence[float | None]]]) -> float:
    """How far from flat a map of weights is: largest over smallest source of each reader, and of these the geometric mean.

    1 is flat. Readers are compared within themselves, since each starts with weights of a size of its own; those of one source are
    left out.
    """
    ratios = []
    for block in maps:
        for column in zip(*block, strict=True):
            seen = [value for value in column if value is not None]
            if len(seen) > 1:
                ratios.append(math.log(max(seen) / min(seen)))
    return math.exp(sum(ratios) / len(ratios))


def agreement(a: Sequence[Any], b: Sequence[Any]) -> float | None:
    """Do two maps put a reader's sources in the same order? Spearman's rank correlation within each reader, mean over readers.

    1: the same order, 0: unrelated, −1: the opposite. Readers of fewer than three sources are left out; None when there are no others.
    """
    found = []
    for one, other in zip(a, b, strict=True):
        for left, right in zip(zip(*one, strict=True), zip(*other, strict=True), strict=True):
            pairs = [(x, y) for x, y in zip(left, right, strict=True) if x is not None and y is not None]
            if len(pairs) > 2:
                order, other_order = numpy.array(pairs).T.argsort().argsort()
                found.append(float(numpy.corrcoef(order, other_order)[0, 1]))
    return sum(found) / len(found) if found else None


def reused(dataset: Dataset, *, depth: int, growth_rate: int, bottleneck: bool, epochs: int, seed: int) -> Numbers:
    """Train one network and make its maps, and the map of weights it started with."""
    began = time.perf_counter()
    model = models.densenet(
        depth=depth,
        growth_rate=growth_rate,
        bottleneck=bottleneck,
        compression=0.5 if bottleneck else 1.0,
        in_channels=1,
        stem_channels=2 * growth_rate,
        seed=seed,
    )
    untrained = weight_maps(model)
    PaperRecipe(epochs=epochs).train(model, dataset, seed=seed, tested=False)
    loss, accuracy = loss_and_accuracy(model, dataset)
    return {
        "test_loss": loss,
        "test_accuracy": accuracy,
        "rise": ablation_maps(model, dataset),
        "weights": weight_maps(model),
        "untrained": untrained,
        "seconds": time.perf_counter() - began,
    }


def feature_reuse(
    *,
    depth: int = 22,
    growth_rate: int = 6,
    bottleneck: bool = False,
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    notebook: Notebook | None = None,
) -> Numbers:
    """Train a small DenseNet on digits and cut its connections one at a time: by how much does the test loss rise?

    depth, bottleneck    L = 3n + 4 without bottlenecks, 6n + 4 with them, for n layers in each of three blocks

    returns  depth, growth_rate, bottleneck, epochs, seeds, seconds (mean of a run, its maps included)
             test_accuracy, test_loss    {"values", "mean", "spread"} of the whole networks
             blocks     for each of the three
                        sources    names of the rows: "input", "1", "2", …
                        readers    names of the columns: "1", "2", …, and "transition" or "classifier", which reads all
                        rise       [source][reader]: nats that the test loss rises when this reader sees the mean over the test set in
                                   place of this source, mean of the seeds; None where there is no connection
                        weights    [source][reader]: mean |w|, the map of figure 5
                        untrained  the same before training
             flatness   of the weights' maps: largest over smallest source, see ``flatness``; {"trained", "untrained"}, each
                        {"values", "mean", "spread"}
             agreement  rank correlation of rise and weights, see ``agreement``; {"values", "mean", "spread"}
             early      share of the rise that belongs to sources at least two layers back, block by block and in all, each
                        {"values", "mean", "spread"}: what a network without dense connections could not use. Rises below 0 count as 0
    """
    dataset = load("digits")
    settings = {"depth": depth, "growth_rate": growth_rate, "bottleneck": bottleneck, "epochs": epochs}
    runs = [
        once(notebook, {"seed": seed, **settings}, partial(reused, dataset, seed=seed, **settings))  # type: ignore[arg-type]
        for seed in seeds
    ]
    if not runs:
        raise ConfigError("feature_reuse: needs at least one seed")
    layers = (depth - 4) // (6 if bottleneck else 3)
    blocks = [
        {
            "sources": ["input", *map(str, range(1, layers + 1))],
            "readers": [*map(str, range(1, layers + 1)), "transition" if number < 2 else "classifier"],
            **{key: mean_of([run[key][number] for run in runs]) for key in ("rise", "weights", "untrained")},
        }
        for number in range(3)
    ]
    return {
        **settings,
        "seeds": list(seeds),
        "test_accuracy": over_seeds([run["test_accuracy"] for run in runs]),
        "test_loss": over_seeds([run["test_loss"] for run in runs]),
        "blocks": blocks,
        "flatness": {
            "trained": over_seeds([flatness(run["weights"]) for run in runs]),
            "untrained": over_seeds([flatness(run["untrained"]) for run in runs]),
        },
        "agreement": over_seeds([agreement(run["rise"], run["weights"]) for run in runs]),
        "early": {
            "blocks": [over_seeds([early([run["rise"][number]]) for run in runs]) for number in range(3)],
            "all": over_seeds([early(run["rise"]) for run in runs]),
        },
        "seconds": sum(run["seconds"] for run in runs) / len(runs),
    }


def mean_of(maps: Sequence[Any]) -> list[list[float | None]]:
    """Mean over seeds of maps with None in the same places."""
    return [
        [None if values[0] is None else sum(values) / len(values) for values in zip(*rows, strict=True)]
        for rows in zip(*maps, strict=True)
    ]


def early(maps: Sequence[Any]) -> float | None:
    """Share of all rises that belongs to sources which another layer lies behind: source s and reader l > s + 1."""
    far = near = 0.0
    for block in maps:
        for s, row in enumerate(block):
            for reader, rise in enumerate(row):
                if rise is not None and rise > 0:
                    far, near = (far + rise, near) if reader > s else (far, near + rise)
    return far / (far + near) if far + near else None


def table(numbers: Numbers) -> str:
    """Both maps of each block, and what they come to."""
    flat, n = numbers["flatness"], len(numbers["seeds"])
    shape = "DenseNet-BC" if numbers["bottleneck"] else "DenseNet"
    lines = [
        f"{shape} (L = {numbers['depth']}, k = {numbers['growth_rate']}) on digits, {numbers['epochs']} epochs, "
        f"{n} {'seed' if n == 1 else 'seeds'}: test accuracy {written(numbers['test_accuracy'], unit=100)} %, "
        f"test loss {written(numbers['test_loss'], form='.3f')}.",
        "",
    ]
    for number, block in enumerate(numbers["blocks"], start=1):
        for key, what in (
            ("rise", "rise of the test loss, nats, when a reader does not see a source"),
            ("weights", "mean |w|"),
        ):
            lines += [
                f"Block {number}: {what}",
                "",
                f"| source | {' | '.join(block['readers'])} |",
                f"|---|{len(block['readers']) * '--:|'}",
            ]
            for name, row in zip(block["sources"], block[key], strict=True):
                lines.append(f"| {name} | {' | '.join('' if value is None else f'{value:z.3f}' for value in row)} |")
            lines.append("")
    lines += [
        f"- Of the rise, {written(numbers['early']['all'], form='.0f', unit=100)} % belongs to sources at least two layers back.",
        f"- Weights, largest source over smallest: {written(flat['trained'], form='.2f')} after training, "
        f"{written(flat['untrained'], form='.2f')} before.",
        f"- Rank correlation of the two maps: {written(numbers['agreement'], form='.2f')}.",
    ]
    return "\n".join(lines) + "\n"


def picture(numbers: Numbers) -> Picture:
    """Above, what cutting a connection costs; below, the paper's map of weights. A column a block."""
    blocks = numbers["blocks"]
    figure, panels = several(len(blocks), 2, width=12, height=7)
    for key, row, what, form in (
        ("rise", 0, "rise of the test loss, nats", "{:z.2f}"),
        ("weights", 1, "mean |w|", "{:.2f}"),
    ):
        values = [value for block in blocks for line in block[key] for value in line if value is not None]
        # One connection may matter so much that nothing else would have a colour.
        high = float(numpy.quantile(values, 0.96))
        for number, block in enumerate(blocks):
            names = [*block["readers"][:-1], block["readers"][-1][:5] + "."]
            heat_map(
                [[math.nan if value is None else value for value in line] for line in block[key]],
                rows=block["sources"],
                columns=names,
                alt="",
                form=form if len(names) <= 8 else "",
                axes=panels[row, number],
                low=0.0,
                high=high,
                bar=what if number == len(blocks) - 1 else "",
                title=f"block {number + 1}: {what}",
                xlabel="who reads",
                ylabel="source" if number == 0 else "",
            )
    strongest = max(
        (value, number, source, reader)
        for number, block in enumerate(blocks, start=1)
        for source, line in zip(block["sources"], block["rise"], strict=True)
        for reader, value in zip(block["readers"], line, strict=True)
        if value is not None
    )
    flat = numbers["flatness"]
    alt = (
        f"Above, how much the test loss rises when a reader does not see a source, in three blocks. The strongest connection is from "
        f"{strongest[2]} to {strongest[3]} in block {strongest[1]}, {strongest[0]:.2f} nats; "
        f"{written(numbers['early']['all'], form='.0f', unit=100)} % of all rises belong to sources at least two layers back. Below, "
        f"mean weights: largest source over smallest {written(flat['trained'], form='.2f')}, before training "
        f"{written(flat['untrained'], form='.2f')}."
    )
    return Picture(figure, alt)


READING = """How to read this: a column is a layer that reads, a row what it reads. Above, the field says what the network loses
when that one reader gets the source's mean over all test images instead; everybody else still sees the source. Colour away from the
diagonal is reuse: features read again, layers after they were made. The darkest colour also stands for anything above it.

What can be had from two places is missed in neither, so small numbers do not mean that a source is unused, and the numbers do not add up.
The input of a block has more channels than a layer adds, so it has more to lose. Digits are easy: the last block, which sees 2×2 pixels,
has little left to do.

The map of weights is figure 5's. After so short a training its numbers lie as close together in each column as before, because the
weights still are about where they started: compare the ratio before and after. The paper's map was made after 300 epochs, in which
weight decay takes back what is not used; and even there it shows what a layer could read, not what the network would miss."""

FEATURE_REUSE = Experiment(
    name="feature-reuse",
    about="which layer needs whose features: connections cut one at a time, beside figure 5's map of weights",
    measure=lambda given, notebook: feature_reuse(**chosen(given), notebook=notebook),
    table=table,
    picture=picture,
    reading=READING,
    line=lambda run: f"seed {run['seed']}: {100 * run['test_accuracy']:.1f} %, {run['seconds']:.0f} s",
    options=options(SEEDS, EPOCHS),
)
