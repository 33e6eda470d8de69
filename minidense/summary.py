"""What a network consists of and costs, counted in a run of it: layers, shapes, parameters, multiply-adds, bytes kept."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
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
from .summary_table import Row, Summary, sums
from .tensor import Tensor, history
from .threads import single_threaded_blas

__all__ = ["Row", "Summary", "summarise"]


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
        logits, y = model.loss(x, labels) if isinstance(model, Classifier) else 2 * (model(x),)
        if shapes is not None:  # not every loss calls the network as a whole
            shapes[model] = tuple(logits.shape[1:]) if isinstance(logits, Tensor) else None
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
