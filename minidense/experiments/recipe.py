"""The paper's recipe with one part removed at a time: what each does for a small DenseNet-BC on digits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy

from .. import models
from ..config import nearest
from ..data import Dataset, load
from ..errors import ConfigError
from ..models import DenseNet
from ..models.initialise import draw, gaussian
from ..nn import Module, init
from ..plots import Picture, several
from .experiment import Experiment, Notebook, Numbers
from .paper_recipe import PaperRecipe, trained_and_tested
from .seeds import ERRORS, apart, chosen, dots, once, options, over_seeds, written

SEEDS, EPOCHS = 5, 12
WHOLE = "whole recipe"


@dataclass(frozen=True)
class Part:
    """A part of the recipe taken away or changed.

    what        is done instead
    recipe      settings of PaperRecipe
    network     settings of ``models.densenet``
    initialise  draws the weights instead of He et al.'s N(0, √(2/n)): (model, generator)
    """

    what: str
    recipe: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    initialise: Callable[[Module, numpy.random.Generator], None] | None = None


PARTS: dict[str, Part] = {
    WHOLE: Part("as in the paper"),
    "no momentum": Part("momentum 0", {"momentum": 0.0, "nesterov": False}),
    # With momentum 0.9 a gradient moves the weights ten times as far in the end: 1 + 0.9 + 0.9² + … = 10.
    "no momentum, rate × 10": Part("rate 1", {"momentum": 0.0, "nesterov": False, "learning_rate": 1.0}),
    "no Nesterov": Part("plain momentum 0.9", {"nesterov": False}),
    "no weight decay": Part("weight decay 0", {"weight_decay": 0.0}),
    "rate does not fall": Part("0.1 to the end", {"falling": False}),
    "no augmentation": Part("images never moved", {"augment": False}),
    "start: Torch's default": Part(
        "U(±1/√m)", initialise=partial(draw, conv=init.torch_default, linear=init.torch_default)
    ),
    "start: N(0, 0.05)": Part("the same for every layer", initialise=gaussian),
    "dropout added": Part("0.2 after each convolution but the first", network={"dropout": 0.2}),
    "batches of 32": Part("twice the steps", {"batch_size": 32}),
    "batches of 256": Part("a quarter of the steps", {"batch_size": 256}),
}


def network_of(part: Part, *, depth: int, growth_rate: int, seed: int) -> DenseNet:
    """The DenseNet-BC for digits that a part asks for, with fresh weights."""
    model = models.densenet(depth=depth, growth_rate=growth_rate, in_channels=1, seed=seed, **part.network)
    if part.initialise is not None:
        part.initialise(model, numpy.random.default_rng(seed))
    return model


def trained_without(
    name: str, dataset: Dataset, *, epochs: int = EPOCHS, depth: int = 22, growth_rate: int = 4, seed: int = 0
) -> Numbers:
    """Train once by the recipe without one of the PARTS: what ``trained_and_tested`` has, and seconds."""
    began = time.perf_counter()
    part = PARTS[name]
    model = network_of(part, depth=depth, growth_rate=growth_rate, seed=seed)
    recipe = replace(PaperRecipe(epochs=epochs), **part.recipe)
    return {**trained_and_tested(recipe, model, dataset, seed=seed), "seconds": time.perf_counter() - began}


def recipe_ablation(
    *,
    parts: Sequence[str] = tuple(PARTS),
    seeds: Sequence[int] = range(SEEDS),
    epochs: int = EPOCHS,
    depth: int = 22,
    growth_rate: int = 4,
    notebook: Notebook | None = None,
) -> Numbers:
    """Train a DenseNet-BC on digits by the paper's recipe (§4.2), and again with each part of it taken away.

    parts  names in PARTS; the whole recipe is always measured too

    returns  depth, growth_rate, epochs, seeds, parameters, test_images, and in "parts" for each of them
             part, what        name, and what is done instead
             test_accuracy, test_loss, train_loss    each {"values": one a seed, "mean", "spread"}; accuracies are fractions
             diverged          runs whose loss was no number any more; their accuracy counts as guessing
             difference        of mean test accuracies: this less the whole recipe
             beyond_chance     are the accuracies apart by more than 3 standard errors? None with one seed, and of the whole recipe
             loss_beyond_chance    the same of the test losses, which a few images do not decide
             seconds           mean of a run

    Raises ConfigError for an unknown part.
    """
    for name in parts:
        if name not in PARTS:
            raise ConfigError(f"recipe_ablation: unknown part {name!r}{nearest(name, PARTS)}")
    dataset = load("digits")
    names = tuple(dict.fromkeys((WHOLE, *parts)))
    settings = {"epochs": epochs, "depth": depth, "growth_rate": growth_rate}
    runs: dict[str, list[Numbers]] = {name: [] for name in names}
    for seed in seeds:  # seed after seed, so that what is interrupted has something of everything
        for name in names:
            asked = {"part": name, "seed": seed, **settings}
            measure = partial(trained_without, name, dataset, seed=seed, **settings)
            runs[name].append(once(notebook, asked, measure))
    rows = [row(name, runs[name], runs[WHOLE]) for name in names]
    model = network_of(PARTS[WHOLE], depth=depth, growth_rate=growth_rate, seed=0)
    return {
        **settings,
        "seeds": list(seeds),
        "parameters": model.parameter_count(),
        "test_images": len(dataset.test_labels),
        "parts": rows,
    }


def row(name: str, runs: Sequence[Numbers], whole: Sequence[Numbers]) -> Numbers:
    """What the runs without a part come to, beside those of the whole recipe."""
    measured = ("test_accuracy", "test_loss", "train_loss")
    mine, theirs = ({key: over_seeds([run[key] for run in each]) for key in measured} for each in (runs, whole))
    itself = name == WHOLE
    return {
        "part": name,
        "what": PARTS[name].what,
        **mine,
        "diverged": sum(run["diverged"] for run in runs),
        "difference": mine["test_accuracy"]["mean"] - theirs["test_accuracy"]["mean"],
        "beyond_chance": None if itself else apart(mine["test_accuracy"], theirs["test_accuracy"]),
        "loss_beyond_chance": None if itself else apart(mine["test_loss"], theirs["test_loss"]),
        "seconds": sum(run["seconds"] for run in runs) / len(runs),
    }


def table(numbers: Numbers) -> str:
    """A row a part."""
    n = len(numbers["seeds"])
    lines = [
        f"DenseNet-BC (L = {numbers['depth']}, k = {numbers['growth_rate']}, {numbers['parameters']:,} parameters) on digits, "
        f"{numbers['epochs']} epochs; mean ± standard deviation of {n} {'seed' if n == 1 else 'seeds'}. "
        f"One test image of {numbers['test_images']} is {100 / numbers['test_images']:.2f} %.",
        "",
        "| recipe | instead | test accuracy, % | difference | beyond chance | test loss | beyond chance | training loss |",
        "|---|---|--:|--:|---|--:|---|--:|",
    ]
    for each in numbers["parts"]:
        itself = each["part"] == WHOLE
        diverged = f" ({each['diverged']} diverged)" if each["diverged"] else ""
        lines.append(
            f"| {each['part']} | {each['what']} | {written(each['test_accuracy'], form='.2f', unit=100)}{diverged} | "
            f"{'' if itself else format(100 * each['difference'], '+.2f')} | {YES_NO[each['beyond_chance']]} | "
            f"{written(each['test_loss'], form='.3f')} | {YES_NO[each['loss_beyond_chance']]} | "
            f"{written(each['train_loss'], form='.3f')} |"
        )
    return "\n".join(lines) + "\n"


YES_NO = {True: "yes", False: "no", None: ""}


def picture(numbers: Numbers) -> Picture:
    """Accuracy and test loss of every seed, a row a part; what differs by more than chance is in the other colour."""
    rows = numbers["parts"]
    figure, ((accuracy, loss),) = several(2, width=11, height=1.5 + 0.33 * len(rows), sharey=True)
    dots(
        accuracy,
        {each["part"]: each["test_accuracy"] for each in rows},
        unit=100,
        marked=[each["part"] for each in rows if each["beyond_chance"]],
        xlabel="test accuracy, %",
    )
    dots(
        loss,
        {each["part"]: each["test_loss"] for each in rows},
        form=".3f",
        marked=[each["part"] for each in rows if each["loss_beyond_chance"]],
        xlabel="test loss, nats",
        xscale="log",
    )
    figure.suptitle(
        "One part of the recipe changed: circles are seeds, bars means, orange is beyond chance", fontsize="medium"
    )
    worst = min(rows, key=lambda each: each["difference"])
    differs = [each["part"] for each in rows if each["beyond_chance"]]
    alt = (
        f"Test accuracy and test loss of {len(rows)} recipes, a circle a seed. Whole recipe: "
        f"{written(rows[0]['test_accuracy'], unit=100)} %; the lowest is {worst['part']} with "
        f"{written(worst['test_accuracy'], unit=100)} %. Accuracies apart from the whole recipe by more than chance: "
        f"{'; '.join(differs) or 'none'}."
    )
    return Picture(figure, alt)


READING = f"""How to read this: everything but the named part is as in the paper, except for the length: it trained 300 epochs.
"Beyond chance" means that the means are apart by more than {ERRORS:g} standard errors of their difference; of eleven such
comparisons one may still be chance, and with few seeds the measure itself is rough. Where it says no, nothing was shown: neither that
the part helps nor that it does not. Without momentum a gradient moves the weights a tenth as far in the end, so two rows belong together:
the first has shorter steps too, the second, with ten times the rate, has not.

It does not show what the parts are worth for a large network and long training. Weight decay, dropout and augmentation act
against overfitting, which takes longer than this, and until then only make learning harder; the paper's own figures with and without
augmentation are 4.51 and 5.92 % of errors (DenseNet-BC, L = 100, k = 12). After few epochs everything that learns faster looks better,
small batches too, because they take more steps."""

RECIPE_ABLATION = Experiment(
    name="recipe-ablation",
    about="the paper's recipe with one part removed at a time, on digits",
    measure=lambda given, notebook: recipe_ablation(**chosen(given), notebook=notebook),
    table=table,
    picture=picture,
    reading=READING,
    line=lambda run: (
        f"{run['part']:24} seed {run['seed']}: {100 * run['test_accuracy']:5.1f} %, {run['seconds']:.1f} s"
    ),
    options=options(SEEDS, EPOCHS),
)
