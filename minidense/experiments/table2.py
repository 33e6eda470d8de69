"""Table 2 of the DenseNet paper in small: every family at about the same work, on a tenth of CIFAR-10, tested thrice."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from ..config import nearest, reader
from ..data import load
from ..errors import ConfigError
from ..plots import BLUE, GREY, ORANGE, Picture, several
from ..threads import thread_count
from .experiment import Experiment, Notebook, Numbers
from .side_by_side import GUESSING, Job, Recipe, all_trained
from .small_networks import FAMILIES, MULTIPLY_ADDS, TOLERANCE

RECIPE = Recipe(train_images=5000, test_images=5000, epochs=10)
SEEDS = 3
OURS = ("DenseNet", "DenseNet-BC")  # set off by colour

# The rates in small_networks.py were chosen with less of the same: 4,000 of the 5,000 training images, for five epochs, by the error
# on the other 1,000.
TUNING = replace(RECIPE, train_images=4000, test_images=1000, epochs=5)


# -- the table --------------------------------------------------------------------------------------------------------


def table2_small(
    *,
    data_dir: str | None = None,
    recipe: Recipe = RECIPE,
    seeds: int = SEEDS,
    families: Sequence[str] = tuple(FAMILIES),
    notebook: Notebook | None = None,
) -> Numbers:
    """Train each family from several seeds on the first CIFAR-10 images, and test it: error in percent, mean and spread.

    As many runs at a time as there are threads, each with one.
    """
    notebook = notebook or Notebook()
    dataset = load("cifar10", data_dir).first(recipe.train_images, recipe.test_images)
    # Seed after seed, so that what is interrupted has something of everything.
    jobs = [Job(name, FAMILIES[name].rate, seed, recipe) for seed in range(seeds) for name in families]
    runs = carried_out(jobs, dataset, notebook)
    return {
        "recipe": asdict(recipe),
        "seeds": list(range(seeds)),
        "processes": thread_count(),
        "cpu_seconds": sum(run["cpu_seconds"] for run in runs),
        "families": [row(name, [run for run in runs if run["family"] == name]) for name in families],
    }


def carried_out(jobs: Sequence[Job], dataset: Any, notebook: Notebook) -> list[Numbers]:
    """The outcomes of all jobs, in their order; those that the notebook knows are not done again."""
    left = [job for job in jobs if notebook.found(job.asked()) is None]
    if left:
        for run in all_trained(left, dataset, processes=thread_count()):
            notebook.add(run)
    return [found for job in jobs if (found := notebook.found(job.asked())) is not None]


def row(name: str, runs: Sequence[Numbers]) -> Numbers:
    """What the runs of a family come to. The spread is the standard deviation of a sample, n − 1 below."""
    errors = [run["test_error"] for run in runs]
    return {
        "family": name,
        "size": FAMILIES[name].size,
        **FAMILIES[name].costs(),
        "rate": FAMILIES[name].rate,
        "test_errors": errors,
        "mean": statistics.fmean(errors),
        "spread": statistics.stdev(errors) if len(errors) > 1 else None,
        "train_losses": [run["train_loss"] for run in runs],
        "diverged": sum(run["diverged"] for run in runs),
        "cpu_seconds": statistics.fmean(run["cpu_seconds"] for run in runs),
    }


def table(numbers: Numbers) -> str:
    """Everything in Markdown."""
    recipe, n = numbers["recipe"], len(numbers["seeds"])
    lines = [
        f"Test error in percent on {recipe['test_images']:,} CIFAR-10 images after {recipe['epochs']} epochs on "
        f"{recipe['train_images']:,}; mean ± standard deviation of {n} {'seed' if n == 1 else 'seeds'}. "
        f"Guessing is {GUESSING:.0f} %.",
        "",
        "| network | size | parameters | multiply-adds an image | rate | error, % | each seed | CPU seconds a run |",
        "|---|---|--:|--:|--:|--:|---|--:|",
    ]
    for each in numbers["families"]:
        spread = "" if each["spread"] is None else f" ± {each['spread']:.1f}"
        seeds = ", ".join(f"{error:.1f}" for error in each["test_errors"])
        diverged = f" ({each['diverged']} diverged)" if each["diverged"] else ""
        lines.append(
            f"| {each['family']} | {each['size']} | {each['parameters']:,} | {each['multiply_adds'] / 1e6:.2f} M | {each['rate']:g} | "
            f"{each['mean']:.1f}{spread} | {seeds}{diverged} | {each['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def picture(numbers: Numbers) -> Picture:
    """Each seed a dot, their mean a bar, families in the order of the paper's table."""
    families = numbers["families"]
    figure, ((axes,),) = several(1, width=8.5, height=1.6 + 0.36 * len(families))
    for place, each in enumerate(families):
        colour = ORANGE if each["family"] in OURS else BLUE
        errors = each["test_errors"]
        axes.plot(errors, [place] * len(errors), "o", markersize=6, markerfacecolor="none", color=colour)
        axes.plot([each["mean"]], [place], "|", markersize=17, markeredgewidth=2.5, color=colour)
    axes.set_yticks(range(len(families)), [each["family"] for each in families])
    axes.set_ylim(len(families) - 0.4, -0.6)
    for place, each in enumerate(families):  # the numbers in a column of their own, where no dot can lie
        spread = "" if each["spread"] is None else f" ± {each['spread']:.1f}"
        axes.text(1.02, place, f"{each['mean']:.1f}{spread}", transform=axes.get_yaxis_transform(), va="center")
    recipe, n = numbers["recipe"], len(numbers["seeds"])
    axes.set_xlabel(f"test error, % of {recipe['test_images']:,} images (circles: {n} seeds; bar: mean)")
    axes.set_title(
        f"Small networks of every family, {recipe['train_images']:,} training images, {recipe['epochs']} epochs,\n"
        f"about {MULTIPLY_ADDS / 1e6:g} million multiply-adds an image each",
        fontsize="medium",
    )
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    for place in range(len(families)):
        axes.axhline(place, color=GREY, alpha=0.15, linewidth=0.8, zorder=0)
    by_error = sorted(families, key=lambda each: each["mean"])
    alt = (
        f"Test error of small networks after {recipe['epochs']} epochs on {recipe['train_images']:,} CIFAR-10 images, "
        f"{n} {'seed' if n == 1 else 'seeds'} each, from the lowest mean to the highest: "
        + ", ".join(f"{each['family']} {each['mean']:.1f} %" for each in by_error)
        + "."
    )
    return Picture(figure, alt)


def line(run: Numbers) -> str:
    """A run that is done, for whoever waits."""
    return f"{run['family']:22} rate {run['rate']:<5g} seed {run['seed']}: error {run['test_error']:5.1f} %, {run['seconds']:.0f} s"


READING = f"""How to read this: every network does about the same work for an image ({MULTIPLY_ADDS / 1e6:g} million
multiply-adds, within {TOLERANCE:.0%}), sees the same images equally often, in batches of the same size, with the paper's crops and
mirror images, and its rate goes up and down in one cycle. Only the highest rate is each family's own, chosen by
`--tune` on training images that were held out. There is no dropout. Differences smaller than a few times the spread
say nothing.

It shows which families learn quickly when they are small. It does not repeat the paper's ranking: its networks do 55 to 2,600
times the work for an image, and see ten times as many images 30 times as often. There, depth, width and regularisation decide; here,
the start. Stochastic depth, drop-path and companions are made for long training of large networks, and can only lose here."""


# -- the rates --------------------------------------------------------------------------------------------------------


def table2_small_rates(
    *,
    data_dir: str | None = None,
    recipe: Recipe = TUNING,
    families: Sequence[str] = tuple(FAMILIES),
    notebook: Notebook | None = None,
) -> Numbers:
    """Train each family once at each rate of a small grid, and choose by the error on training images held out. No test image is seen.

    What the recipe calls test images are those held out.
    """
    notebook = notebook or Notebook()
    held_out = recipe.test_images
    dataset = load("cifar10", data_dir).first(recipe.train_images + held_out).hold_out(held_out).validating()
    # The middle of each grid first.
    jobs = [Job(name, FAMILIES[name].tried[i], 0, recipe) for i in (1, 0, 2) for name in families]
    runs = carried_out(jobs, dataset, notebook)
    rows = []
    for name in families:
        errors = {run["rate"]: run["test_error"] for run in runs if run["family"] == name}
        chosen = min(sorted(errors), key=lambda rate: errors[rate])
        tried = [{"rate": rate, "error": errors[rate]} for rate in sorted(errors)]
        rows.append({"family": name, "tried": tried, "chosen": chosen, "in_use": FAMILIES[name].rate})
    return {
        "recipe": asdict(recipe),
        "held_out": held_out,
        "cpu_seconds": sum(run["cpu_seconds"] for run in runs),
        "families": rows,
    }


def rates_table(numbers: Numbers) -> str:
    """A row a family, a column a rate."""
    rates = sorted({one["rate"] for each in numbers["families"] for one in each["tried"]})
    recipe = numbers["recipe"]
    lines = [
        f"Error in percent on {numbers['held_out']:,} training images held out, after {recipe['epochs']} epochs on "
        f"{recipe['train_images']:,} others; one seed. The lowest is chosen.",
        "",
        f"| network | {' | '.join(f'{rate:g}' for rate in rates)} | chosen |",
        f"|---|{len(rates) * '--:|'}--:|",
    ]
    for each in numbers["families"]:
        errors = {one["rate"]: f"{one['error']:.1f}" for one in each["tried"]}
        cells = " | ".join(errors.get(rate, "") for rate in rates)
        lines.append(f"| {each['family']} | {cells} | {each['chosen']:g} |")
    return "\n".join(lines) + "\n"


def rates_picture(numbers: Numbers) -> Picture:
    """A small panel for each family: error by rate, the chosen one filled."""
    families = numbers["families"]
    rows = -(-len(families) // 4)
    figure, panels = several(4, rows, width=10, height=0.6 + 2.1 * rows, sharey=True)
    panels = panels.ravel()
    for axes in panels[len(families) :]:
        axes.set_visible(False)
    for axes, each in zip(panels, families, strict=False):
        rates, errors = [one["rate"] for one in each["tried"]], [one["error"] for one in each["tried"]]
        axes.plot(rates, errors, "o-", color=BLUE, markerfacecolor="white", markersize=6)
        axes.plot([each["chosen"]], [errors[rates.index(each["chosen"])]], "o", color=ORANGE, markersize=7)
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.set_title(each["family"], fontsize="medium")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("highest learning rate (orange: chosen)", fontsize="medium")
    figure.supylabel("error on images held out, %", fontsize="medium")
    chosen = []
    for each in families:
        error = next(one["error"] for one in each["tried"] if one["rate"] == each["chosen"])
        chosen.append(f"{each['family']} {each['chosen']:g} ({error:.1f} %)")
    return Picture(
        figure,
        f"Error on images held out by highest learning rate, a panel for each of {len(families)} families. "
        f"The rates chosen, with their errors: {', '.join(chosen)}.",
    )


RATES_READING = """How to read this: it settles one number a family, from a coarse grid and a single seed, with less of everything than the
table has. Two rates whose errors differ by less than 2 points are as good as each other: of 1,000 images at 60 % that is chance.
A choice at the edge of its grid may not be the best there is."""


# -- the command ------------------------------------------------------------------------------------------------------


def options(parser: argparse.ArgumentParser) -> None:
    whole = reader(int)
    parser.add_argument(
        "--tune",
        dest="experiment",
        action="store_const",
        const=TABLE2_SMALL_RATES,
        help="choose the learning rates instead, which are in use already",
    )
    parser.add_argument("--seeds", type=whole, metavar="N", help=f"runs of each (default: {SEEDS})")
    parser.add_argument("--epochs", type=whole, metavar="EPOCHS", help=f"of each run (default: {RECIPE.epochs})")
    parser.add_argument(
        "--family",
        dest="families",
        action="append",
        metavar="NAME",
        help='only this one, such as "DenseNet-BC"; may be given several times (default: all)',
    )


def asked_of(given: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """What both measurements are told. Raises ConfigError for what makes no sense."""
    for option, value in (("--seeds", given.seeds), ("--epochs", given.epochs)):
        if value is not None and not 1 <= value <= 10_000:
            raise ConfigError(f"{option} must be at least 1 and at most 10,000, got {value}")
    for name in given.families or ():
        if name not in FAMILIES:
            raise ConfigError(f"--family: unknown {name!r}{nearest(name, FAMILIES)}")
    return {
        "data_dir": given.data_dir,
        "recipe": recipe if given.epochs is None else replace(recipe, epochs=given.epochs),
        "families": tuple(given.families or FAMILIES),
    }


def tuning_asked_of(given: argparse.Namespace) -> dict[str, Any]:
    """The same for ``--tune``, which has no use for seeds."""
    if given.seeds is not None:
        raise ConfigError(
            f"--tune trains each network once at each rate, always from seed 0; leave out --seeds {given.seeds}, "
            "or measure with the rates in use by leaving out --tune"
        )
    return asked_of(given, TUNING)


TABLE2_SMALL_RATES = Experiment(
    name="table2-small-rates",
    about="the learning rates of table2-small, chosen on training images held out",
    measure=lambda given, notebook: table2_small_rates(**tuning_asked_of(given), notebook=notebook),
    table=rates_table,
    picture=rates_picture,
    reading=RATES_READING,
    line=line,
)

TABLE2_SMALL = Experiment(
    name="table2-small",
    about="every network of the paper's Table 2 in small, at equal work, on a tenth of CIFAR-10",
    measure=lambda given, notebook: table2_small(
        **asked_of(given, RECIPE), seeds=SEEDS if given.seeds is None else given.seeds, notebook=notebook
    ),
    table=table,
    picture=picture,
    reading=READING,
    line=line,
    options=options,
)
