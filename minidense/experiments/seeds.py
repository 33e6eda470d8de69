"""Runs from several seeds: each done once, their mean and spread, whether two differ by more than chance, and all of them drawn."""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..config import reader
from ..errors import ConfigError
from ..plots import BLUE, GREY, ORANGE, plain
from .experiment import Notebook, Numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ERRORS = 3.0  # so many standard errors are called more than chance


def once(notebook: Notebook | None, asked: Numbers, measure: Callable[[], Numbers]) -> Numbers:
    """What was asked and what came of it: from the notebook where it stands there, otherwise measured, and noted down."""
    notebook = notebook or Notebook()
    found = notebook.found(asked)
    if found is None:
        found = {**asked, **measure()}
        notebook.add(found)
    return found


def over_seeds(values: Sequence[float | None]) -> Numbers:
    """{"values": all of them, "mean": x̄, "spread": √(Σ(x − x̄)²/(n − 1))} of those that are not None.

    The mean is None when there are none, the spread when there are fewer than two.
    """
    known = [value for value in values if value is not None]
    return {
        "values": list(values),
        "mean": statistics.fmean(known) if known else None,
        "spread": statistics.stdev(known) if len(known) > 1 else None,
    }


def apart(a: Numbers, b: Numbers, *, errors: float = ERRORS) -> bool | None:
    """Do two of ``over_seeds`` differ by more than chance: |ā − b̄| > errors·√(s_a²/n_a + s_b²/n_b)? None where a spread is missing."""
    if a["spread"] is None or b["spread"] is None:
        return None
    n_a, n_b = (sum(value is not None for value in each["values"]) for each in (a, b))
    return abs(a["mean"] - b["mean"]) > errors * math.sqrt(a["spread"] ** 2 / n_a + b["spread"] ** 2 / n_b)


def written(each: Numbers, *, form: str = ".1f", unit: float = 1) -> str:
    """Mean ± spread of ``over_seeds``, each times `unit`: "97.3 ± 0.4". A dash where there is nothing."""
    if each["mean"] is None:
        return "–"
    spread = "" if each["spread"] is None else f" ± {format(unit * each['spread'], form)}"
    return format(unit * each["mean"], form) + spread


def dots(
    axes: Axes,
    rows: Mapping[str, Numbers],
    *,
    unit: float = 1,
    form: str = ".1f",
    marked: Sequence[str] = (),
    beside: bool = True,
    **words: Any,
) -> None:
    """A row a name: each seed a circle, their mean a bar, mean ± spread written at the right.

    rows    {name: over_seeds(...)}, from top to bottom
    unit    what values are multiplied by, such as 100 for percent
    marked  names in the other colour
    beside  write mean ± spread
    """
    for place, (name, each) in enumerate(rows.items()):
        colour = ORANGE if name in marked else BLUE
        values = [unit * value for value in each["values"] if value is not None]
        axes.axhline(place, color=GREY, alpha=0.15, linewidth=0.8, zorder=0)
        axes.plot(values, [place] * len(values), "o", markersize=6, markerfacecolor="none", color=colour)
        if values:
            axes.plot([unit * each["mean"]], [place], "|", markersize=15, markeredgewidth=2.5, color=colour)
        if beside:
            text = written(each, form=form, unit=unit)
            axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    plain(axes, **words)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def options(seeds: int, epochs: int) -> Callable[[argparse.ArgumentParser], None]:
    """Adds ``--seeds`` and ``--epochs`` with these defaults to a command."""

    def add(parser: argparse.ArgumentParser) -> None:
        whole = reader(int)
        parser.add_argument(
            "--seeds", type=whole, metavar="N", help=f"runs of each, seeds 0 to N − 1 (default: {seeds})"
        )
        parser.add_argument("--epochs", type=whole, metavar="EPOCHS", help=f"of each run (default: {epochs})")

    return add


def chosen(given: argparse.Namespace) -> dict[str, Any]:
    """Those of the two that were given, as arguments of a measurement. Raises ConfigError for what makes no sense."""
    for option, value in (("--seeds", given.seeds), ("--epochs", given.epochs)):
        if value is not None and not 1 <= value <= 10_000:
            raise ConfigError(f"{option} must be at least 1 and at most 10,000, got {value}")
    arguments: dict[str, Any] = {}
    if given.seeds is not None:
        arguments["seeds"] = range(given.seeds)
    if given.epochs is not None:
        arguments["epochs"] = given.epochs
    return arguments
