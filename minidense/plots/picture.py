"""A picture and its words, and the two kinds that most are made of: curves, and a map of numbers.

Colours are those of Okabe & Ito, which colour-blind readers can tell apart; curves differ in their markers too. Pictures are made to be
read at the width of a notebook, 8 to 11 inches.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from ..backend import to_numpy
from ..errors import ConfigError, ShapeError
from ..tensor import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PINK, SKY, BLACK, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#000000",
    "#606060",
)
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, BLACK)
MARKERS = "osD^vP"
Values = Sequence[float] | numpy.ndarray

PIXELS = 96  # of a screen in an inch, as CSS counts them: letters of 10 points are as large in a notebook as its own


@dataclass(frozen=True)
class Picture:
    """A figure, and the sentences that say what is on it to whoever cannot see it.

    A notebook shows it with those words as its alt text. ``figure`` is matplotlib's: change what you like before it is shown.
    """

    figure: Figure
    alt: str

    def png(self, title: str = "") -> bytes:
        """The bytes of a PNG file, in which the words lie too."""
        png = io.BytesIO()
        self.figure.savefig(png, format="png", dpi=120, metadata={"Title": title, "Description": self.alt})
        return png.getvalue()

    def _repr_html_(self) -> str:
        picture = base64.b64encode(self.png()).decode()
        width = round(self.figure.get_figwidth() * PIXELS)
        return (
            f'<img alt="{html.escape(self.alt)}" style="width: {width}px; max-width: 100%; background: white" '
            f'src="data:image/png;base64,{picture}">'
        )

    def __repr__(self) -> str:
        return f"Picture: {self.alt}"


def plain(axes: Axes, **words: Any) -> Axes:
    """Axes as all pictures here have them: a light grid, no box. ``words`` go to ``Axes.set``: title, xlabel, ylabel, xscale, ..."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(**words)
    return axes


def several(columns: int, rows: int = 1, *, width: float = 9.0, height: float = 3.6, **how: Any) -> tuple[Figure, Any]:
    """A figure of that many inches and its axes, (rows, columns) of them as an array; ``how`` goes to ``Figure.subplots``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **how)


def floats(values: Any) -> numpy.ndarray:
    """The numbers of a list, an array on either device or a Tensor, as float64."""
    if isinstance(values, Tensor):
        values = values.data
    return numpy.asarray(to_numpy(values) if hasattr(values, "dtype") else values, float)


def short(value: float) -> str:
    """A number in two digits, such as 0.33 or 4e-6, as words beside a picture have it."""
    mantissa, _, exponent = f"{value:.2g}".partition("e")
    if not exponent:
        return mantissa
    return f"{value:,.0f}" if 0 < int(exponent) < 5 else f"{mantissa}e{int(exponent)}"


def many(n: int, one: str, more: str = "") -> str:
    """ "1 epoch", "2 epochs"."""
    return f"{n} {one}" if n == 1 else f"{n} {more or one + 's'}"


def whole_ticks(axes: Axes) -> None:
    """Ticks at whole numbers only, for epochs and layers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def curves(
    x: Values | Mapping[str, Values],
    lines: Mapping[str, Values],
    *,
    alt: str,
    between: Mapping[str, tuple[Values, Values]] | None = None,
    axes: Axes | None = None,
    log: str = "",
    **words: Any,
) -> Picture:
    """Several lines over the same axis. How to read it: each line is one of the legend's names, told apart by colour and marker.

    x        of all lines, or of each by its name
    lines    {name: values}; the names are the legend. NaN and, on a logarithmic axis, 0 leave a gap
    alt      what is to be seen
    between  {name: (lowest, highest)}: a shaded band, such as the spread over seeds
    axes     to draw on; a new figure's otherwise
    log      "", "x", "y" or "xy": which axes are logarithmic
    words    title, xlabel, ylabel, xlim, ylim, ...

    From the seventh line on, colours come again, dashed. Raises ShapeError when a line has more or fewer values than x, has no
    name, and when there is none; ConfigError for a band without its line, and for another ``log``.
    """
    if not isinstance(lines, Mapping):
        raise ShapeError(f"curves: lines must have names, got a {type(lines).__name__}; give {{name: values}}")
    if not lines:
        raise ShapeError("curves: no lines to draw; give at least one, {name: values}")
    if log not in ("", "x", "y", "xy"):
        raise ConfigError(f'curves: log must be "", "x", "y" or "xy", got {log!r}')
    for name in between or ():
        if name not in lines:
            raise ConfigError(f"curves: a band for {name!r}, but no such line; there are {', '.join(map(repr, lines))}")
    places = {name: floats(x[name] if isinstance(x, Mapping) else x) for name in lines}
    for name, values in lines.items():
        bounds = between[name] if between and name in between else ()
        for each, what in ((values, "values"), *((bound, "values of its band") for bound in bounds)):
            if len(each) != len(places[name]):
                raise ShapeError(
                    f"curves: {name!r} has {len(each)} {what} for {len(places[name])} places on the x axis"
                )
    if axes is None:
        axes = several(1, width=8.0, height=4.0)[1][0, 0]
    for i, (name, values) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        style = "-" if i < len(COLOURS) else "--"
        how = {"marker": MARKERS[i % len(MARKERS)], "markersize": 4.5} if len(values) <= 40 else {"linewidth": 1.2}
        axes.plot(places[name], floats(values), style, color=colour, label=name, **how)
        if between and name in between:
            low, high = between[name]
            axes.fill_between(places[name], floats(low), floats(high), color=colour, alpha=0.15, linewidth=0)
    scales = {f"{axis}scale": "log" for axis in log}
    plain(axes, **scales, **words)
    mark_places(axes, numpy.unique(numpy.concatenate(list(places.values()))))
    if len(lines) > 1 or "" not in lines:
        legend(axes, beside=len(lines) > len(COLOURS))
    return Picture(axes.figure, alt)  # type: ignore[arg-type]


def legend(axes: Axes, *, beside: bool) -> None:
    """The names of the lines: where there is room, or beside the axes, where many lines leave none."""
    if beside:
        axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
    else:
        axes.legend(frameon=False)


def mark_places(axes: Axes, places: numpy.ndarray) -> None:
    """Ticks of the x axis: whole numbers where all places are; on a logarithmic axis the places themselves, if they are few."""
    if axes.get_xscale() != "log":
        if (places == places.round()).all():
            whole_ticks(axes)
    elif 1 < len(places) <= 8 and places[0] > 0 and (places[1:] / places[:-1]).min() > (places[-1] / places[0]) ** 0.08:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.xaxis.minorticks_off()


def heat_map(
    values: Any,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    alt: str,
    form: str = "{:.2g}",
    axes: Axes | None = None,
    low: float | None = None,
    high: float | None = None,
    bar: str = "",
    **words: Any,
) -> Picture:
    """A table as colours, with each number written into its field: from light (low) to dark (high), also when printed in grey.

    How to read it: the darker a field, the larger its number; a field without colour has none.

    values     (rows, columns); NaN leaves a field empty
    form       how a number is written; "" writes none
    low, high  ends of the colours; those of the values otherwise
    bar        what the colours mean: adds a colour bar

    Raises ShapeError when there are more or fewer values than names, or none.
    """
    table = floats(values)
    if table.shape != (len(rows), len(columns)) or not table.size:
        raise ShapeError(f"heat_map: values of shape {table.shape} for {len(rows)} rows and {len(columns)} columns")
    if axes is None:
        axes = several(1, width=min(2.5 + 0.75 * len(columns), 11), height=min(1.2 + 0.42 * len(rows), 11))[1][0, 0]
    image = axes.imshow(numpy.ma.masked_invalid(table), cmap="cividis_r", vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(**words)
    if form:
        for (row, column), value in numpy.ndenumerate(table):
            if numpy.isfinite(value):
                write_in(axes, row, column, form.format(value), on=image.cmap(image.norm(value)))
    if bar:
        axes.figure.colorbar(image, ax=axes, label=bar)
    return Picture(axes.figure, alt)  # type: ignore[arg-type]


def write_in(axes: Axes, row: int, column: int, text: str, *, on: Any, **how: Any) -> None:
    """A field's number, in black or white, whichever stands out more from the colour that it stands ``on``."""
    light = relative_luminance(on) > 0.18  # where black and white have the same contrast
    how = {"fontsize": "small", "color": "black" if light else "white", **how}
    axes.text(column, row, text, ha="center", va="center", **how)


def relative_luminance(colour: Any) -> float:
    """How bright a colour (red, green, blue from 0 to 1, in sRGB) is to the eye, from 0 to 1 (WCAG 2.1)."""
    srgb = numpy.asarray(colour[:3])
    linear = numpy.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
