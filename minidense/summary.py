"""What a network consists of and what it costs: layers, shapes, parameters, multiply-adds, and the bytes that training keeps."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import numpy

from .backend import array_module, to_device
from .errors import ConfigError, ShapeError
from .models import Classifier
from .nn import (
    AvgPool2d,
    BatchNorm2d,
    Buffer,
    Chance,
    Conv2d,
    Linear,
    MaxPool2d,
    Module,
    Parameter,
    without_chance,
)
from .ops import Conv2d as Conv2dOp
from .ops import Linear as LinearOp
from .ops import Op
from .speed import reference_only
from .tensor import Tensor, history
from .threads import single_threaded_blas

FOLDED = 3  # so many neighbours that are alike become one row
NUMBER = r"\d+(?:\.\d+)?"

MULTIPLY_ADDS = (
    "multiply-adds: of convolutions (C_out·H_out·W_out·C_in·K·K) and linear layers (in·out) for one image, nothing else;\n"
    "               FLOPs = 2 × multiply-adds"
)
KEPT = (
    "kept: bytes an image of all arrays that the recorded graph holds for backward, by the definitions, each memory once,\n"
    "      without parameters and the images themselves"
)


@dataclass(frozen=True)
class Row:
    """A module, or several alike under one name, with all that is below it.

    name           its last part: "conv1"; empty for what a module with children does besides calling them
    layer          what it is, with its settings in short: "Conv2d 3×3, 24→48, stride 2"
    shape          of its result for one image; None where that is no single Tensor, or it was not called.
                   "24…204" is a size that grows from the first to the last of several alike
    parameters     learned numbers
    multiply_adds  for one image
    kept           bytes an image that training keeps for backward, counted where they are made
    rows           the modules below
    """

    name: str
    layer: str
    shape: tuple[int | str, ...] | None
    parameters: int
    multiply_adds: int
    kept: int
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What ``summarise`` found; ``str`` makes the table of it.

    model            the row of the whole network; what training does besides it, such as the loss, is in there
    image_shape      (C, H, W)
    batch_size       images in a training step, for the last line of the table
    kept_once        bytes that the definitions keep besides, whatever the number of images: channel means, rearranged weights
    kept_by_twins    bytes an image that the quick twins keep where they stand in for definitions
    measured         was what is kept counted at all? Where not it is 0, and the table leaves it out
    """

    name: str
    model: Row
    image_shape: tuple[int, ...]
    batch_size: int
    kept_once: int
    kept_by_twins: int
    measured: bool = True

    parameters = property(lambda self: self.model.parameters)
    multiply_adds = property(lambda self: self.model.multiply_adds)
    flops = property(lambda self: 2 * self.model.multiply_adds)
    kept = property(lambda self: self.model.kept)
    classes = property(lambda self: None if self.model.shape is None else self.model.shape[-1])

    def __str__(self) -> str:
        return self.table()

    def table(self, *, depth: int | None = None, fold: bool = True) -> str:
        """Everything in lines.

        depth  levels of modules to show, 1 for those of the network itself; all where it is not given
        fold   show rows that are alike, such as the layers of a dense block, as one
        """
        lines = [
            ("", "", "result", "parameters", "multiply-adds", "kept"),
            *cells(self.model.rows, depth=depth, fold=fold),
            ("total", "", "", *numbers(self.model)),
        ]
        lines = lines if self.measured else [line[:-1] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(
                f"{cell:{'<' if i < 3 else '>'}{width}}"
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        table.insert(-1, "-" * len(table[0]))
        heading = f"{self.name}: {self.model.layer} from images of {times(self.image_shape)} to {self.classes} classes"
        return "\n".join([heading, "", *table, "", *self.footer()])

    def footer(self) -> Iterator[str]:
        """What the numbers mean, and the totals in units a person thinks in."""
        yield MULTIPLY_ADDS
        if not self.measured:
            yield f"FLOPs: {self.flops:,} an image"
            return
        yield KEPT
        step = self.kept * self.batch_size + self.kept_once
        yield f"FLOPs: {self.flops:,} an image"
        yield f"a training step with {self.batch_size} images keeps {in_units(step)}" + (
            f" by the definitions, and about {in_units(self.kept_by_twins * self.batch_size)}\n"
            f"with the quick twins that stand in for them on this device ({self.kept_by_twins:,} bytes an image)"
            if self.kept_by_twins != self.kept
            else ""
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "classes": self.classes,
            "image": list(self.image_shape),
            "batch_size": self.batch_size,
            "parameters": self.parameters,
            "macs": self.multiply_adds,
            "flops": self.flops,
            "bytes_kept": self.kept,
            "bytes_kept_once": self.kept_once,
            "bytes_kept_by_twins": self.kept_by_twins,
            "layers": [layer(row) for row in self.model.rows],
        }


def layer(row: Row) -> dict[str, Any]:
    """A row and those below it for JSON, with the names of ``as_dict``."""
    found = asdict(replace(row, rows=()))
    found["macs"], found["bytes_kept"] = found.pop("multiply_adds"), found.pop("kept")
    found["layers"] = [layer(below) for below in row.rows]
    del found["rows"]
    return found


def summarise(model: Module, image_shape: Sequence[int], *, batch_size: int = 64, kept: bool = True) -> Summary:
    """Run what training runs on very few images, and count every Op of it. The model is afterwards as it was.

    image_shape  (C, H, W)
    batch_size   images in a training step, to say how much that keeps
    kept         count what training keeps, too; without it one run is enough, with it there are four

    Dropout, closed blocks and dropped paths drop nothing here. A model that is no Classifier runs without a loss.
    """
    image_shape = tuple(image_shape)
    if len(image_shape) != 3 or not all(isinstance(n, int | numpy.integer) and n >= 1 for n in image_shape):
        raise ConfigError(f"summarise: image_shape is (channels, height, width) of at least 1, got {image_shape}")
    if batch_size < 1:
        raise ConfigError(f"summarise: batch_size must be at least 1, got {batch_size}")
    try:
        return _summarise(model, image_shape, batch_size, kept, images=1)
    except ShapeError:  # a batch norm that sees one value of a channel in each image
        return _summarise(model, image_shape, batch_size, kept, images=2)


def _summarise(model, image_shape, batch_size, kept, *, images):
    """What grows by one image more is an image's; the rest is there once."""
    shapes: dict[Module, tuple[int, ...] | None] = {}
    fewer = run(model, image_shape, images, shapes=shapes)
    steps = [replace(step, multiply_adds=step.multiply_adds // images, kept=0) for step in fewer]
    once = by_twins = 0
    if kept:
        more = run(model, image_shape, images + 1)
        if [(step.op, step.module) for step in fewer] != [(step.op, step.module) for step in more]:
            raise ConfigError(
                "summarise: the model takes other steps for other numbers of images, so no image has its own"
            )
        growth = [after.kept - before.kept for before, after in zip(fewer, more, strict=True)]
        steps = [replace(step, kept=grown) for step, grown in zip(steps, growth, strict=True)]
        once = sum(step.kept for step in fewer) - images * sum(growth)
        twins = [sum(step.kept for step in run(model, image_shape, n, twins=True)) for n in (images, images + 1)]
        by_twins = twins[1] - twins[0]
    row = row_of("", model, steps, shapes)
    return Summary(type(model).__name__, row, image_shape, batch_size, once, by_twins, measured=kept)


# -- one run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """An Op of the run: its class, the module that applied it, and for all images its multiply-adds and what is kept."""

    op: str
    module: Module
    multiply_adds: int
    kept: int


def run(model: Module, image_shape, images: int, *, twins: bool = False, shapes=None) -> list[Step]:
    """Every Op that a forward pass in training records, oldest first.

    twins   let the quick twins stand in for the definitions; all is then the model's own doing
    shapes  a dictionary to be filled with what each module makes of one image
    """
    x = Tensor(to_device(numpy.zeros((images, *image_shape), model.dtype), model.device))
    labels = to_device(numpy.zeros(images, numpy.int64), model.device)
    # The products of one image are small: threads would cost more than they bring, on a busy machine ten times as much.
    with unchanged(model), without_chance(model), single_threaded_blas(), nullcontext() if twins else reference_only():
        given = {id(owner(item.data)) for _, item in model.named_arrays()} | {id(x.data), id(labels)}
        clock = [(now(), model)] if twins else watched(model, {} if shapes is None else shapes)
        y = model.loss(x, labels)[1] if isinstance(model, Classifier) else model(x)
        order = history(y)
        kept = kept_bytes(order, given)
    times = [time for time, _ in clock]
    return [
        Step(type(op).__name__, clock[bisect_right(times, op.step) - 1][1], multiply_adds(op), kept[op]) for op in order
    ]


@contextmanager
def unchanged(model: Module) -> Iterator[None]:
    """Inside, the model trains, learns all its parameters and has no watchers; then it is as it was."""
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    learning = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = [(item, item.data) for _, item in model.named_arrays() if isinstance(item, Buffer)]
    try:
        for buffer, data in buffers:
            buffer.data = data.copy()
        for parameter, _ in learning:
            parameter.requires_grad = True
        for module in model.train().modules():
            module.on_output = None
        yield
    finally:
        for module, before in attributes:
            vars(module).clear()
            vars(module).update(before)
        for parameter, learns in learning:
            parameter.requires_grad = learns
        for buffer, data in buffers:
            buffer.data = data


def watched(model: Module, shapes: dict) -> list[tuple[int, Module]]:
    """Let every module note when it is called and when it returns. Returns the list of (time, who is at work from then on).

    Within ``unchanged``, which takes the notes' writers out again.
    """
    at_work = [model]
    clock = [(now(), model)]

    def noting(module, forward):
        def call(*args, **kwargs):
            at_work.append(module)
            clock.append((now(), module))
            y = forward(*args, **kwargs)
            at_work.pop()
            clock.append((now(), at_work[-1]))
            shapes[module] = tuple(y.shape[1:]) if isinstance(y, Tensor) else None
            return y

        return call

    for module in model.modules():
        vars(module)["forward"] = noting(module, module.forward)
    return clock


def now() -> int:
    """The time on the clock by which Ops are numbered, told by a new one."""
    return Tensor(0.0, requires_grad=True).exp().source.step  # type: ignore[union-attr]


def multiply_adds(op: Op) -> int:
    """Of a convolution or a linear layer, for all images: how many products it adds up. Other Ops have none."""
    if isinstance(op, Conv2dOp):
        x, weight = op.inputs[:2]
        return x.shape[0] * op.out_h * op.out_w * weight.size
    if isinstance(op, LinearOp):
        x, weight = op.inputs[:2]
        return x.shape[0] * weight.size
    return 0


def kept_bytes(order: Sequence[Op], given: set[int]) -> dict[Op, int]:
    """How many bytes the graph holds because of each Op: what it keeps, and its result where a later Op holds it.

    order  every Op of the graph, oldest first; memory that several share is counted with the oldest
    given  ids of the arrays that would be there anyway
    """
    results = {x.source: x for op in order for x in op.inputs if x.source is not None}
    counted = set(given)
    kept = {}
    for op in order:
        kept[op] = 0
        held = {name: value for name, value in vars(op).items() if name != "inputs"}
        leaves = [x for x in op.inputs if x.source is None]
        for array in arrays_in([held, leaves, results.get(op)]):
            whole = owner(array)
            if id(whole) not in counted:
                counted.add(id(whole))
                kept[op] += whole.nbytes
    return kept


def arrays_in(thing: Any) -> Iterator[Any]:
    """Every array that an Op's attributes lead to; modules and other Ops have their own."""
    seen, waiting = set(), [thing]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, Module | Op | type) or callable(thing):
            continue
        seen.add(id(thing))
        if isinstance(thing, array_module(thing).ndarray):
            yield thing
        elif isinstance(thing, Tensor):
            waiting.append(thing.data)
        elif isinstance(thing, dict):
            waiting += thing.values()
        elif isinstance(thing, list | tuple | set):
            waiting += thing
        elif hasattr(thing, "__dict__"):
            waiting += vars(thing).values()


def owner(array: Any) -> Any:
    """The array whose memory this one looks at: a view, however small, keeps all of it."""
    while isinstance(array.base, array_module(array).ndarray):
        array = array.base
    return array


# -- rows -------------------------------------------------------------------------------------------------------------


def row_of(name: str, module: Module, steps: Sequence[Step], shapes: dict) -> Row:
    """A module's row, with those below it."""
    taken: dict[Module, list[Step]] = {}
    for step in steps:
        taken.setdefault(step.module, []).append(step)

    def row(name, module):
        own = taken.get(module, [])
        parameters = sum(value.size for value in vars(module).values() if isinstance(value, Parameter))
        work, kept = sum(step.multiply_adds for step in own), sum(step.kept for step in own)
        children = [(name, child) for name, child in module.named_children() if not idle(child)]
        if not children:
            return Row(name, describe(module), shapes.get(module), parameters, work, kept)
        rows = [row(*child) for child in children]
        if parameters or work or kept:
            rows.append(Row("", listed(step.op for step in own), None, parameters, work, kept))
        return Row(name, describe(module), shapes.get(module), *sums(rows), tuple(rows))

    return row(name, module)


def idle(module: Module) -> bool:
    """Does this module never do anything? Dropout that drops nothing stands in many networks, for those that want it."""
    return isinstance(module, Chance) and module.p == 0 and not any(module.named_children())


def sums(rows: Sequence[Row]) -> tuple[int, int, int]:
    return sum(r.parameters for r in rows), sum(r.multiply_adds for r in rows), sum(r.kept for r in rows)


def describe(module: Module) -> str:
    """What a layer is, with its settings in short; what a reader would take for granted is left out."""
    kind = type(module).__name__
    match module:
        case Conv2d():
            f, c, k, _ = module.weight.shape
            text = f"{kind} {k}×{k}, {c}→{f}"
            text += f", stride {module.stride}" if module.stride != 1 else ""
            return text + (f", padding {module.padding}" if module.padding != k // 2 else "")
        case Linear():
            f, c = module.weight.shape
            return f"{kind} {c}→{f}"
        case BatchNorm2d():
            return f"{kind} {len(module.running_mean.data)}"
        case MaxPool2d() | AvgPool2d():
            k, stride = module.kernel, module.stride or module.kernel
            text = f"{kind} {k}×{k}" + (f", stride {stride}" if stride != k else "")
            text += f", padding {module.padding}" if module.padding else ""
            return text + (", ceil" if getattr(module, "ceil_mode", False) else "")
        case Chance():
            return f"{kind} {module.p:g}"
    return kind


def listed(names) -> str:
    """Names in order of first appearance, with how often each appears: "Concat ×4, ReLU"."""
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in Counter(names).items())


# -- the table --------------------------------------------------------------------------------------------------------


def cells(rows: Sequence[Row], *, depth: int | None, fold: bool, level: int = 0) -> Iterator[tuple[str, ...]]:
    """The rows and those below them as text, indented by level."""
    for row in folded(rows) if fold else rows:
        shape = "" if row.shape is None else times(row.shape)
        yield "  " * level + (row.name or "and"), row.layer, shape, *numbers(row)
        if depth is None or level + 1 < depth:
            yield from cells(row.rows, depth=depth, fold=fold, level=level + 1)


def numbers(row: Row) -> tuple[str, str, str]:
    return f"{row.parameters:,}", f"{row.multiply_adds:,}", f"{row.kept:,}"


def folded(rows: Sequence[Row]) -> Iterator[Row]:
    """The rows with neighbours of one build and equally large results as one."""
    for _, group in groupby(rows, lambda row: (build(row), row.shape)):
        alike = list(group)
        if len(alike) < FOLDED or not alike[0].rows:
            yield from alike
        else:
            yield replace(merged(alike), layer=f"{len(alike)} × {alike[0].layer}")


def build(row: Row) -> tuple:
    """What two rows have in common when only sizes differ."""
    name, layer = (re.sub(NUMBER, "#", text) for text in (row.name, row.layer))
    return name, layer, row.shape and len(row.shape), tuple(map(build, row.rows))


def merged(rows: Sequence[Row]) -> Row:
    """Rows of one build as one: the sums, and sizes from the first to the last."""
    first, last = rows[0], rows[-1]
    shape = first.shape
    if shape is not None and last.shape is not None:
        shape = tuple(a if a == b else f"{a}…{b}" for a, b in zip(shape, last.shape, strict=True))
    below = tuple(merged(alike) for alike in zip(*(row.rows for row in rows), strict=True))
    return Row(from_to(first.name, last.name), from_to(first.layer, last.layer), shape, *sums(rows), below)


def from_to(first: str, last: str) -> str:
    """Two texts of one build as one: "Conv2d 1×1, 24→48" and "Conv2d 1×1, 204→48" become "Conv2d 1×1, 24…204→48"."""
    ends = iter(re.findall(NUMBER, last))
    return re.sub(NUMBER, lambda start: start[0] if (end := next(ends)) == start[0] else f"{start[0]}…{end}", first)


def times(sizes: Sequence[int | str]) -> str:
    return "×".join(map(str, sizes))


def in_units(size: int) -> str:
    """Bytes in the unit a person would choose; a kB is 1000."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} bytes"
