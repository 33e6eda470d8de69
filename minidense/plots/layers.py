"""A network in pictures, layer by layer: how much gradient arrives, what activations look like, which features are used again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from ..errors import ConfigError, DataError, ShapeError
from .picture import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    Picture,
    Values,
    curves,
    floats,
    heat_map,
    many,
    plain,
    several,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Where an activation hardly passes a gradient on: the slope of sigmoid and tanh is below 4 % of its largest there, that of ReLU is 0.
SATURATED: dict[str, tuple[str, Callable[[numpy.ndarray], numpy.ndarray]]] = {
    "sigmoid": ("|y − 0.5| > 0.49", lambda y: abs(y - 0.5) > 0.49),
    "tanh": ("|y| > 0.98", lambda y: abs(y) > 0.98),
    "relu": ("y = 0", lambda y: y == 0),
}


def gradient_flow(
    flows: Mapping[str, Values],
    *,
    layers: Sequence[str] | None = None,
    what: str = "gradient norm",
    between: Mapping[str, tuple[Values, Values]] | None = None,
    title: str = "",
) -> Picture:
    """How much gradient arrives at each layer, on a logarithmic axis: a line for each network.

    How to read it: the loss is at the right, behind the last layer, and the gradient walks to the left. A straight line that falls to
    the left loses the same factor at every layer and vanishes; one that rises to the left explodes; a level one is well. A triangle at
    the bottom edge is exactly 0: nothing arrived that the number format can hold.

    flows    {label: a value 0 or more for each layer, the first layer first}; lines may differ in length
    layers   names for the axis, instead of numbers from 1
    what     the values are
    between  {label: (lowest, highest)}: a shaded band, such as the spread over seeds
    returns  the picture; its words give first and last value and their ratio

    NaN and infinity leave a gap, and the words say so. Raises ShapeError for no values, values without a name or a wrong number of
    names, DataError for a negative one.
    """
    if not isinstance(flows, Mapping):
        raise ShapeError(f"gradient_flow: flows must have names, got a {type(flows).__name__}; give {{name: values}}")
    values = {label: floats(line) for label, line in flows.items()}
    if not values or not all(line.ndim == 1 and len(line) for line in values.values()):
        raise ShapeError("gradient_flow: no values; give {label: one value a layer, the first layer first}")
    for label, line in values.items():
        if (line < 0).any():
            raise DataError(
                f"gradient_flow: {label!r} has a negative value ({line[line < 0][0]:g}); take norms or abs()"
            )
    deepest = max(map(len, values.values()))
    if layers is not None and len(layers) != deepest:
        raise ShapeError(f"gradient_flow: {len(layers)} names of layers for {deepest} layers")

    axes = several(1, width=9.0, height=4.2)[1][0, 0]
    x: dict[str, Values] = {label: numpy.arange(1.0, len(line) + 1) for label, line in values.items()}
    drawn: dict[str, Values] = {
        label: numpy.where(numpy.isfinite(line) & (line > 0), line, numpy.nan) for label, line in values.items()
    }
    picture = curves(
        x,
        drawn,
        alt="",
        axes=axes,
        between=between,
        log="y",
        xlabel="layer (1 is next to the input)",
        ylabel=what,
        title=title,
    )
    if layers is not None:
        shown = range(0, deepest, -(-deepest // 25))  # names of all would lie upon each other
        turned = {"rotation": 40, "ha": "right"} if max(map(len, layers)) > 3 else {}
        axes.set_xticks([i + 1 for i in shown], [layers[i] for i in shown], fontsize="small", **turned)
        axes.set_xlabel("layer, from the input")
    axes.set_xlim(0.5, deepest + 0.5)
    if all(numpy.isnan(line).all() for line in drawn.values()):
        axes.set(ylim=(1e-10, 1), yticks=[])  # nothing to scale the axis by
    mark_zeros(axes, values)
    return Picture(picture.figure, flow_in_words(values, what))


def mark_zeros(axes: Axes, values: Mapping[str, numpy.ndarray]) -> None:
    """A grey band at the bottom edge, off the logarithmic axis, and a triangle in it wherever a value is exactly 0."""
    labels = [label for label, line in values.items() if (line == 0).any()]
    if not labels:
        return
    band = 0.03 + 0.045 * len(labels)  # of the height of the axes
    low, high = numpy.log10(axes.get_ylim())
    bottom = max(low - (high - low) * band / (1 - band), -307)  # a float64 ends there
    ticks = [tick for tick in axes.get_yticks() if 10**low <= tick <= 10**high]
    axes.set_ylim(10**bottom, 10**high)
    axes.set_yticks(ticks)
    axes.yaxis.minorticks_off()
    axes.axhspan(10**bottom, 10**low, color="#EEEEEE", zorder=0)
    axes.text(0.99, band / 2, "exactly 0", transform=axes.transAxes, ha="right", va="center", fontsize="small")
    for i, label in enumerate(labels):
        places = numpy.flatnonzero(values[label] == 0) + 1.0
        axes.plot(
            places,
            numpy.full(len(places), band - 0.04 - 0.045 * i),
            "v",
            color=COLOURS[list(values).index(label) % len(COLOURS)],
            markersize=6,
            transform=axes.get_xaxis_transform(),
        )


def flow_in_words(values: Mapping[str, numpy.ndarray], what: str) -> str:
    """First, last, ratio: of each line while they are few, of the extremes where they are many."""
    lines = {label: line for label, line in values.items() if numpy.isfinite(line[[0, -1]]).all()}
    zeros = {label: int((line == 0).sum()) for label, line in values.items() if (line == 0).any()}
    gaps = sum(int((~numpy.isfinite(line)).sum()) for line in values.values())
    chosen = list(lines)
    if len(lines) > 6:
        ratio = {label: line[0] / line[-1] if line[-1] else numpy.inf for label, line in lines.items()}
        chosen = [min(ratio, key=ratio.__getitem__), max(ratio, key=ratio.__getitem__)]
    said = []
    for label in chosen:
        first, last = lines[label][0], lines[label][-1]
        ratio_said = f" (ratio {short(first / last)})" if last and len(values[label]) > 1 else ""
        said.append(
            f"{label}: {short(first)} at the first of {many(len(values[label]), 'layer')}, {short(last)} at the last{ratio_said}"
        )
    alt = f"{what[:1].upper()}{what[1:]} by layer on a logarithmic axis, {many(len(values), 'line')}"
    if said:
        alt += f"{', from the smallest to the largest ratio' if len(chosen) < len(lines) else ''}. {'; '.join(said)}"
    alt += "."
    if zeros:
        said = [f"{label} at {many(n, 'layer')}" for label, n in zeros.items()]
        alt += f" Exactly 0, by underflow or because nothing arrives: {', '.join(said)}."
    if gaps:
        alt += f" {many(gaps, 'value')} without a finite number left out."
    return alt


def activation_histograms(
    layers: Mapping[str, Any],
    *,
    saturated: str | Callable[[numpy.ndarray], numpy.ndarray] | None = None,
    bins: int = 40,
    title: str = "",
) -> Picture:
    """What comes out of each layer: a small histogram a layer, with the share of saturated values in orange and in its corner.

    How to read it: orange values are where the activation is flat, and through which hardly any gradient comes back. Look how the
    share changes with depth, and whether values pile up at one place, where layers say the same of every image.

    layers     {name: activations of any shape}, the first layer first
    saturated  "sigmoid" (|y − 0.5| > 0.49), "tanh" (|y| > 0.98), both where the slope is below 4 % of its largest; "relu" (y exactly
               0: no slope; a unit is dead only where that is so for every image); a function of the values that says which are; or
               None, for no such share
    bins       of each histogram; all panels have the same
    returns    the picture; its words give the share in each layer, or in the first, the worst and the last where there are many

    Raises ShapeError for layers without values, DataError for values that are not finite, ConfigError for an unknown ``saturated``.
    """
    if not layers:
        raise ShapeError("activation_histograms: no layers; give {name: activations}")
    if isinstance(saturated, str) and saturated not in SATURATED:
        raise ConfigError(
            f"activation_histograms: saturated must be one of {', '.join(SATURATED)}, a function or None, got {saturated!r}"
        )
    values = {name: floats(y).ravel() for name, y in layers.items()}
    for name, y in values.items():
        if not y.size:
            raise ShapeError(f"activation_histograms: layer {name!r} has no values")
        if not numpy.isfinite(y).all():
            raise DataError(
                f"activation_histograms: layer {name!r} has values that are not finite; has training diverged?"
            )
    word = "exactly 0" if saturated == "relu" else "saturated"
    meaning, is_saturated = SATURATED[saturated] if isinstance(saturated, str) else ("saturated", saturated)
    low, high = min(y.min() for y in values.values()), max(y.max() for y in values.values())
    edges = numpy.linspace(low, high if high > low else low + 1, bins + 1)

    columns = min(len(values), 5)
    rows = -(-len(values) // columns)
    width = 9.0 if columns > 2 else 4.0 * columns
    figure, panels = several(columns, rows, width=width, height=0.7 + 1.75 * rows, sharex=True)
    shares = {}
    for axes, (name, y) in zip(panels.flat, values.items(), strict=False):
        flat = numpy.zeros(y.shape, bool) if is_saturated is None else numpy.asarray(is_saturated(y), bool)
        parts = [100 / y.size * numpy.histogram(part, edges)[0] for part in (y[~flat], y[flat])]
        middles, width_of_bin = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
        axes.bar(middles, parts[0], width_of_bin, color=BLUE)
        axes.bar(middles, parts[1], width_of_bin, bottom=parts[0], color=ORANGE)
        plain(axes)
        axes.set_title(name, fontsize="medium")
        axes.set_ylim(0, 1.3 * numpy.add(*parts).max())  # room for the share
        axes.tick_params(labelsize="small")
        if is_saturated is not None:
            shares[name] = float(flat.mean())
            axes.text(
                0.5, 0.98, f"{percent(shares[name])} {word}",
                transform=axes.transAxes, ha="center", va="top", fontsize="small",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )  # fmt: skip
    for axes in panels.flat[len(values) :]:
        axes.set_visible(False)
    figure.supxlabel("activation" + (f" (orange: {meaning})" if is_saturated is not None else ""), fontsize="medium")
    figure.supylabel("% of values", fontsize="medium")
    figure.suptitle(title)
    return Picture(figure, histograms_in_words(values, shares, word))


def percent(share: float) -> str:
    """A share that is not quite 0 or 1 does not look as if it were."""
    if share == 0:
        return "0 %"
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.1 or 0.995 <= share < 1 else f"{100 * share:.0f} %"


def histograms_in_words(values: Mapping[str, numpy.ndarray], shares: Mapping[str, float], what: str) -> str:
    first, last = next(iter(values)), list(values)[-1]
    alt = f"Histograms of activations in {many(len(values), 'layer')}. "
    if shares:
        chosen = (
            list(dict.fromkeys((first, max(shares, key=shares.__getitem__), last))) if len(shares) > 6 else list(shares)
        )
        alt += f"Share {what}: {', '.join(f'{name} {percent(shares[name])}' for name in chosen)}. "
    if len(values) == 1:
        return alt + f"The standard deviation is {short(values[first].std())}."
    return (
        alt
        + f"The standard deviation goes from {short(values[first].std())} in {first} to {short(values[last].std())} in {last}."
    )


def feature_reuse(
    matrix: Any,
    *,
    sources: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    what: str = "use",
    form: str = "{:.2g}",
    title: str = "",
) -> Picture:
    """How much each layer of a dense block uses what came before it: the form of figure 5 in Huang et al. 2017.

    How to read it: a column is a layer that reads, a row what it reads, from the block's input down to the layer before; darker is
    more. Colour far above the lower edge of the coloured half is what dense connections are for: old features, used again. The other
    half is empty, since nobody reads what comes later.

    matrix   (sources, layers): how much layer j uses source i, such as accuracy lost when that connection is cut, or mean |weight|;
             source i is read by layer j if i ≤ j, and must be 0 or NaN elsewhere
    sources  names of the rows; "input", "1", "2", ... otherwise
    layers   names of the columns; "1", "2", ... otherwise, and "out" for the last of a square matrix: what follows the block
    what     the values are
    form     how a number is written; "" writes none, as does a map of more than 15 rows or columns
    returns  the picture; its words give the strongest connection, and the mean for the newest and for all older sources

    Raises ShapeError when names do not fit, DataError for a value where there is no connection.
    """
    table = floats(matrix)
    if table.ndim != 2 or not table.size:
        raise ShapeError(f"feature_reuse: the matrix must be (sources, layers), got shape {table.shape}")
    n, m = table.shape
    if sources is None:
        sources = ["input", *map(str, range(1, n))]
    if layers is None:
        layers = [*map(str, range(1, m)), "out" if n == m and m > 1 else str(m)]
    if (len(sources), len(layers)) != (n, m):
        raise ShapeError(
            f"feature_reuse: {len(sources)} sources and {len(layers)} layers for a matrix of shape {table.shape}"
        )
    connected = numpy.arange(n)[:, None] <= numpy.arange(m)
    for i, j in zip(*numpy.nonzero(~connected & numpy.isfinite(table) & (table != 0)), strict=True):
        raise DataError(
            f"feature_reuse: layer {layers[j]} cannot read source {sources[i]}, which comes later, but the matrix has "
            f"{table[i, j]:g} there; rows are sources, columns the layers that read them"
        )
    table = numpy.where(connected & numpy.isfinite(table), table, numpy.nan)
    if numpy.isnan(table).all():
        raise DataError("feature_reuse: the matrix has no number where there are connections")
    written = form if max(n, m) <= 15 else ""
    axes = several(1, width=min(2.8 + 0.5 * m, 9.0), height=min(1.4 + 0.38 * n, 7.5))[1][0, 0]
    heat_map(
        table,
        rows=sources,
        columns=layers,
        alt="",
        form=written,
        axes=axes,
        bar=what,
        xlabel="layer that reads",
        ylabel="what it reads",
        title=title,
    )
    axes.plot(*staircase(n, m), color=GREY, linewidth=1)
    i, j = map(int, numpy.unravel_index(numpy.nanargmax(table), table.shape))
    alt = (
        f"Feature reuse ({what}) of {n} sources by {m} layers, a map whose half below the diagonal is empty: "
        f"from {short(numpy.nanmin(table))} to {short(table[i, j])}, the most where “{layers[j]}” reads “{sources[i]}”."
    )
    newest = numpy.eye(n, m, dtype=bool)
    new, old = (part[numpy.isfinite(part)] for part in (table[newest], table[connected & ~newest]))
    if len(new) and len(old):
        alt += (
            f" The mean is {short(new.mean())} for the newest source of each layer, {short(old.mean())} for older ones."
        )
    return Picture(axes.figure, alt)


def staircase(n: int, m: int) -> tuple[list[float], list[float]]:
    """The edge between what is connected and what is not."""
    x, y = [-0.5], [-0.5]
    for j in range(min(n, m)):
        x += [j - 0.5, j + 0.5]
        y += [j + 0.5, j + 0.5]
    return x, y
