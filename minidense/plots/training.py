"""A training run in pictures: loss and error by epoch, the staircase of rates, how far weights move, which classes are confused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from ..errors import DataError, ShapeError
from .picture import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Picture,
    Values,
    curves,
    floats,
    heat_map,
    legend,
    many,
    plain,
    several,
    short,
    whole_ticks,
    write_in,
)

PARTS = {"train": (BLUE, "o", "-"), "validation": (GREEN, "^", ":"), "test": (ORANGE, "s", "--")}
RULE_OF_THUMB = 1e-3  # of update to weight


def learning_curves(history: Sequence[Mapping[str, Any]], *, title: str = "") -> Picture:
    """Loss, error and learning rate by epoch, from the records of log.jsonl or of ``experiments.training.train``.

    How to read it: while both lines of a panel fall together the network learns; where the test line turns up or stays while that
    of training falls on, it learns its training images by heart.

    history  one record an epoch; where a record has no test (or validation) results, that line has a gap
    returns  the picture; its words say where loss and error began and where they ended

    Raises ShapeError for an empty history, DataError for records that lack what was asked for.
    """
    epochs = column("learning_curves", history, "epoch")
    figure, ((loss, error, rate),) = several(3, width=9.5, height=3.3)
    marked = len(epochs) <= 40
    said = []
    for part, (colour, marker, style) in PARTS.items():
        if not any(f"{part}_accuracy" in record for record in history):
            continue
        losses = column("learning_curves", history, f"{part}_loss", optional=True)
        errors = 100 * (1 - column("learning_curves", history, f"{part}_accuracy", optional=True))
        how = {
            "color": colour,
            "marker": marker if marked else None,
            "markersize": 3.5,
            "linestyle": style,
            "label": part,
        }
        loss.plot(epochs, losses, **how)
        error.plot(epochs, errors, **how)
        said.append(f"{part} loss from {ends(losses, '.3g')}, error from {ends(errors, '.2f', ' %')}")
    if not said:
        raise DataError("learning_curves: no record has a train_accuracy or test_accuracy")
    plain(loss, xlabel="epoch", ylabel="nats", ylim=(0, None))
    plain(error, xlabel="epoch", ylabel="% of images", ylim=(0, None))
    at_the_end = f" (test: {error_of(history[-1]):.2f} % at the end)" if "test_accuracy" in history[-1] else ""
    loss.set_title("cross-entropy loss", fontsize="medium")
    error.set_title(f"error{at_the_end}", fontsize="medium")
    rates = draw_rates(rate, epochs, column("learning_curves", history, "learning_rate"))
    rate.set_title("learning rate", fontsize="medium")
    rate.set_xlabel("epoch")
    for axes in (loss, error, rate):
        axes.set_xlim(rate.get_xlim())
        whole_ticks(axes)
    loss.legend(frameon=False)
    figure.suptitle(title)
    diverged = " The run diverged in its last epoch." if history[-1].get("diverged") else ""
    alt = (
        f"Learning curves over {many(len(epochs), 'epoch')}{f' of {title}' if title else ''}: {'; '.join(said)}. "
        f"The learning rate {rates}.{diverged}"
    )
    return Picture(figure, alt)


def rate_staircase(history: Sequence[Mapping[str, Any]], *, title: str = "") -> Picture:
    """The learning rate by epoch as steps, and below it the loss, with each drop of the rate marked through both.

    How to read it: follow a dashed line down; where the loss falls right behind it, the rate before was too high to come
    lower, not too low to learn.

    history  as for ``learning_curves``. A drop is where the rate falls to half or less from a level, or to one: a curve has none
    returns  the picture; its words give the rate and the training loss before and after each drop

    Raises ShapeError for an empty history, DataError for records without rate or loss.
    """
    epochs = column("rate_staircase", history, "epoch")
    rates = column("rate_staircase", history, "learning_rate")
    losses = {"train": column("rate_staircase", history, "train_loss", optional=True)}
    if any("test_loss" in record for record in history):
        losses["test"] = column("rate_staircase", history, "test_loss", optional=True)
    figure, panels = several(1, 2, width=8.0, height=5.0, sharex=True, height_ratios=(2, 3))
    above, below = panels[:, 0]
    shape = draw_rates(above, epochs, rates)
    plain(above, ylabel="learning rate", title=title)
    for part, values in losses.items():
        colour, marker, style = PARTS[part]
        below.plot(
            epochs, values, style, color=colour, marker=marker if len(epochs) <= 40 else None, markersize=4, label=part
        )
    plain(below, xlabel="epoch", ylabel="cross-entropy loss, nats", yscale="log")
    readable_log(below, 200)
    whole_ticks(below)
    drops = drops_of(rates)
    said = []
    for i in drops:
        place = (epochs[i - 1] + epochs[i]) / 2
        for axes in (above, below):
            axes.axvline(place, color=GREY, linestyle="--", linewidth=1)
        above.annotate(
            f"{short(rates[i - 1])} → {short(rates[i])}",
            (place, 1.0),
            (-4, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
        train = losses["train"]
        said.append(
            f"after epoch {epochs[i - 1]:g} from {short(rates[i - 1])} to {short(rates[i])}, and the training loss from "
            f"{train[i - 1]:.3g} to {train[i]:.3g} in the next"
        )
    above.margins(y=0.25)
    below.legend(frameon=False)
    alt = f"Learning rate above the loss, over {many(len(epochs), 'epoch')}. "
    alt += f"The rate drops {'; '.join(said)}. " if said else f"The rate {shape}, without steps. "
    return Picture(figure, alt + f"The training loss goes from {ends(losses['train'], '.3g')}.")


def drops_of(rates: numpy.ndarray) -> list[int]:
    """The epochs, as indices, in which a staircase is a step lower than in the one before."""
    level = [False, *numpy.isclose(rates[1:], rates[:-1], rtol=1e-6, atol=0), False]  # as in the epoch before
    return [
        i for i in range(1, len(rates)) if rates[i] <= rates[i - 1] / 2 and (i == 1 or level[i - 1] or level[i + 1])
    ]


def update_ratios(ratios: Mapping[str, Values], *, steps: Values | None = None, title: str = "") -> Picture:
    """How far each step moves the weights, in parts of their size: |update| / |weight| by step, a line for each parameter.

    How to read it: lines near 1e-3 (dashed) are well; far above, the rate is too high and weights are thrown about, far below, it
    is too low and they hardly move. It is a rule of thumb, not a law: Karpathy's, in the CS231n notes ("Ratio of
    weights:updates", of norms) and in his makemore lecture 3 (of standard deviations, as log10).

    ratios   {parameter name: one value a step}. A ratio of 0, of what did not move, leaves a gap
    steps    where they were measured; 1, 2, 3, ... otherwise
    returns  the picture; its words give each parameter's median, or the lowest and the highest where there are many

    Raises ShapeError for no ratios or lengths that differ, DataError for a negative ratio.
    """
    if not ratios or not all(map(len, ratios.values())):
        raise ShapeError("update_ratios: no ratios; give {parameter name: one value a step}")
    values = {name: floats(line) for name, line in ratios.items()}
    for name, line in values.items():
        if (line < 0).any():
            raise DataError(
                f"update_ratios: {name!r} has a negative ratio ({line.min():g}); take norms, not signed values"
            )
    x: dict[str, Values] = {
        name: floats(steps) if steps is not None else numpy.arange(1.0, len(line) + 1) for name, line in values.items()
    }
    for name, line in values.items():
        if len(x[name]) != len(line):
            raise ShapeError(f"update_ratios: {name!r} has {len(line)} ratios for {len(x[name])} steps")
    axes = several(1, width=9.0, height=4.0)[1][0, 0]
    positive: dict[str, Values] = {name: numpy.where(line > 0, line, numpy.nan) for name, line in values.items()}
    axes.axhline(RULE_OF_THUMB, color=GREY, linestyle="--", linewidth=1.5, label="rule of thumb: 1e-3", zorder=1)
    picture = curves(x, positive, alt="", axes=axes, log="y", xlabel="step", ylabel="|update| / |weight|", title=title)
    legend(axes, beside=True)
    medians = {name: float(numpy.median(line[line > 0])) for name, line in values.items() if (line > 0).any()}
    still = [name for name in values if name not in medians]
    alt = f"Size of the update over size of the weight, by step, for {many(len(values), 'parameter')}, on a logarithmic axis. "
    if 0 < len(medians) <= 6:
        alt += f"Medians: {', '.join(f'{name} {short(middle)}' for name, middle in medians.items())}; "
    elif medians:
        low, high = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
        alt += f"Medians lie between {short(medians[low])} ({low}) and {short(medians[high])} ({high}); "
    alt += "the rule of thumb is 1e-3."
    if still:
        alt += f" Not moved at all: {', '.join(still)}."
    return Picture(picture.figure, alt)


def confusion_matrix(matrix: Any, class_names: Sequence[str], *, title: str = "") -> Picture:
    """How many images of each class (row) were taken for which (column). Colours are those of mistakes; what is right is grey.

    How to read it: go along a row to see what a class was taken for; a dark field off the diagonal is a pair that is confused.
    A field with nothing in it is a mistake that was never made.

    matrix       (classes, classes) counts: true class by predicted class
    class_names  of rows and columns
    returns      the picture; its words give the share that is right, and the pairs confused most often

    Raises ShapeError when it is not square or has another number of names, DataError for what are no counts.
    """
    counts, n = floats(matrix), len(class_names)
    if counts.shape != (n, n) or not n:
        raise ShapeError(f"confusion_matrix: counts of shape {counts.shape} for {n} class names; expected ({n}, {n})")
    if not (
        numpy.isfinite(counts).all() and (counts >= 0).all() and (counts == counts.round()).all() and counts.sum() > 0
    ):
        raise DataError("confusion_matrix: counts must be whole numbers, 0 or more, and not all 0")
    right = numpy.diagonal(counts)
    mistakes = counts.copy()
    numpy.fill_diagonal(mistakes, 0)
    side = min(max(2.2 + 0.5 * n, 4.0), 9.0)
    axes = several(1, width=side + 0.4, height=side)[1][0, 0]
    written = n <= 20
    picture = heat_map(
        numpy.where(mistakes > 0, mistakes, numpy.nan),
        rows=class_names,
        columns=class_names,
        alt="",
        form="{:.0f}" if written else "",
        axes=axes,
        low=0,
        high=max(mistakes.max(), 1),
        xlabel="taken for",
        ylabel="true class",
        title=title,
    )
    axes.tick_params(labelsize="small" if n <= 12 else 7)
    if n > 20 or max(map(len, class_names)) > 4:
        axes.tick_params(axis="x", rotation=90 if n > 20 else 40)
    if not written:
        from matplotlib.ticker import MaxNLocator

        axes.figure.colorbar(axes.images[0], ax=axes, label="mistakes", shrink=0.7, ticks=MaxNLocator(integer=True))
        shown = range(0, n, -(-n // 50))  # names of all would lie upon each other
        axes.set_xticks(shown, [class_names[i] for i in shown])
        axes.set_yticks(shown, [class_names[i] for i in shown])
    grey = (0.88, 0.88, 0.88) if written else (0.7, 0.7, 0.7)
    for i in range(n):
        axes.add_patch(rectangle(i, facecolor=grey))
        if written:
            write_in(axes, i, i, f"{right[i]:.0f}", on=grey, fontweight="bold")
    if written:
        axes.set_xticks(numpy.arange(n + 1) - 0.5, minor=True)
        axes.set_yticks(numpy.arange(n + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="#CCCCCC", linewidth=0.5)
        axes.tick_params(which="minor", length=0)
    worst = sorted(zip(*numpy.nonzero(mistakes), strict=True), key=lambda place: -mistakes[place])[:3]
    total = int(counts.sum())
    alt = f"Confusion matrix of {many(n, 'class', 'classes')}, rows the true class: {int(right.sum()):,} of {total:,} right "
    alt += f"({100 * right.sum() / total:.2f} %). "
    if worst:
        pairs = (
            f"{class_names[i]} taken for {class_names[j]} ({mistakes[i, j]:,.0f} of {counts[i].sum():,.0f})"
            for i, j in worst
        )
        alt += f"The most frequent mistakes: {', '.join(pairs)}."
    else:
        alt += "There are no mistakes."
    return Picture(picture.figure, alt)


def rectangle(i: int, **how: Any) -> Any:
    """The field of the diagonal in row i."""
    from matplotlib.patches import Rectangle

    return Rectangle((i - 0.5, i - 0.5), 1, 1, edgecolor="none", **how)


# -- what they have in common -----------------------------------------------------------------------------------------


def column(call: str, history: Sequence[Mapping[str, Any]], key: str, *, optional: bool = False) -> numpy.ndarray:
    """One value a record, not-a-number for none where it is optional. Raises ShapeError for an empty history, DataError for a gap."""
    if not history:
        raise ShapeError(f"{call}: the history is empty; train for at least one epoch")
    values = [record.get(key) for record in history]
    if all(value is None for value in values) or (not optional and None in values):
        raise DataError(f"{call}: record {values.index(None) + 1} of {len(values)} has no {key}")
    return floats([numpy.nan if value is None else value for value in values])


def draw_rates(axes: Any, epochs: numpy.ndarray, rates: numpy.ndarray) -> str:
    """The rate as steps, one an epoch wide, on a logarithmic axis; returns what it does in words."""
    middles = (epochs[1:] + epochs[:-1]) / 2
    axes.stairs(rates, [epochs[0] - 0.5, *middles, epochs[-1] + 0.5], color=GREY, linewidth=1.8, baseline=None)
    plain(axes, yscale="log" if (rates > 0).any() else "linear")
    readable_log(axes, 20)
    if (rates == rates[0]).all():
        return f"is {short(rates[0])} throughout"
    return f"goes from {short(rates[0])} to {short(rates[-1])}, at most {short(rates.max())}"


def readable_log(axes: Any, most: float) -> None:
    """Where a logarithmic axis spans less than a factor of ``most``, numbers at some places in between: 2, 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.dataLim.intervaly
    if low > 0 and high / low < most:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def ends(values: numpy.ndarray, form: str, unit: str = "") -> str:
    """The first and the last of the values that are numbers: "2.3 to 0.1"."""
    known = values[numpy.isfinite(values)]
    if not len(known):
        return "nothing known"
    return f"{known[0]:{form}} to {known[-1]:{form}}{unit}"


def error_of(record: Mapping[str, Any]) -> float:
    """Test error in percent."""
    return 100 * (1 - record["test_accuracy"])
