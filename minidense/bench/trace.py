"""A model as a plain list of steps: to count its work exactly, and to replay it in another library."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy

from ..errors import ConfigError
from ..nn import BatchNorm2d, Module
from ..ops import AsType, AvgPool2d, BatchNorm, Conv2d, Dropout, GetItem, Linear, MaxPool2d, Op, Pad, Reshape, Transpose
from ..speed import reference_only
from ..summary import multiply_adds
from ..tensor import Tensor, history, no_grad
from .work import images_and_labels

BATCH = 2  # images in the traced batch
WORKING = (
    "parameter",
    "constant",
    "mean",
    "var",
)  # arrays that the model works with; the others belong to the traced batch


@dataclass
class Step:
    """One Op: its class, the names of its inputs and of its result, and its options as plain values.

    Names are "images", "parameter 3", "constant 0" and, for results, "value 17".
    """

    op: str
    inputs: list[str]
    output: str
    options: dict[str, Any]


@dataclass
class Trace:
    """What a model does with a batch in training mode, oldest step first, and what came out.

    arrays                 every parameter and constant by its name; running statistics as they were before: "mean 0", "var 0"
    images, logits         the traced batch and its result in training mode
    eval_logits            the result in evaluation mode, after that one batch
    parameter_count        learned numbers in the model
    forward_multiply_adds  of convolutions and linear layers, for one image
    free_multiply_adds     the part of it that looks at the images themselves, whose gradient nobody needs
    """

    steps: list[Step] = field(default_factory=list)
    arrays: dict[str, numpy.ndarray] = field(default_factory=dict)
    parameter_count: int = 0
    forward_multiply_adds: int = 0
    free_multiply_adds: int = 0

    images = property(lambda self: self.arrays["images"])
    logits = property(lambda self: self.arrays["logits"])
    eval_logits = property(lambda self: self.arrays["eval_logits"])

    def multiply_adds(self, mode: str) -> int:
        """For one image: forward in evaluation; in training three times that, less the gradient of the images."""
        forward = self.forward_multiply_adds
        return forward if mode == "eval" else 3 * forward - self.free_multiply_adds

    def save(self, path: Path) -> None:
        header: dict[str, Any] = {
            "steps": [asdict(step) for step in self.steps],
            "counts": [self.parameter_count, self.forward_multiply_adds, self.free_multiply_adds],
        }
        everything: dict[str, Any] = {"header": numpy.array(json.dumps(header)), **self.arrays}
        numpy.savez(path, **everything)

    @classmethod
    def load(cls, path: Path, *, example: bool = True) -> Trace:
        """What ``save`` wrote; without the traced batch, its masks and its results where no example is wanted."""
        with numpy.load(path) as file:
            header = json.loads(str(file["header"]))
            names = [name for name in file.files if name != "header" and (example or name.split()[0] in WORKING)]
            arrays = {name: file[name] for name in names}
        return cls([Step(**step) for step in header["steps"]], arrays, *header["counts"])


def trace(model: Module, image_size: int) -> Trace:
    """Run the model once on a tiny batch, by its definitions, and write down every Op. Its running statistics move.

    Raises ConfigError when a step would not survive another batch size.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
    found = Trace(parameter_count=model.parameter_count())
    for i, norm in enumerate(norms):
        found.arrays[f"mean {i}"] = norm.running_mean.data.copy()
        found.arrays[f"var {i}"] = norm.running_var.data.copy()

    images = images_and_labels(BATCH, image_size)[0]
    x = Tensor(images, dtype=model.dtype, requires_grad=True)  # a gradient, so that steps before any parameter show
    with reference_only():
        logits = model.train()(x)
        with no_grad():
            eval_logits = model.eval()(Tensor(x.data))
    found.arrays |= {"images": x.data, "logits": logits.data, "eval_logits": eval_logits.data}

    order = history(logits)
    results = {y.source: y for op in order for y in (*op.inputs, logits) if y.source is not None}
    values = {op: f"value {number}" for number, op in enumerate(order)}
    leaves = {x: "images"} | {p: f"parameter {i}" for i, p in enumerate(model.parameters())}
    learned, batched = {name for name in leaves.values() if name != "images"}, {"images"}
    for op in order:
        for t in op.inputs:
            if t.source is None:
                leaves.setdefault(t, f"constant {len(leaves)}")
        y, inputs = results[op], [values[t.source] if t.source else leaves[t] for t in op.inputs]
        if isinstance(op, Conv2d | Linear):
            work = multiply_adds(op) // BATCH
            found.forward_multiply_adds += work
            found.free_multiply_adds += 0 if inputs[0] in learned else work
        for kind in (learned, batched):
            if kind.intersection(inputs):
                kind.add(values[op])
        step = Step(type(op).__name__, inputs, values[op], {})
        step.options = options(op, y, values[op] in batched, norms)
        found.steps.append(step)
        if isinstance(op, Dropout):
            found.arrays[f"mask of {step.output}"] = op.mask
    found.arrays |= {name: leaf.data.copy() for leaf, name in leaves.items()}
    take_up_earlier_concatenations(found.steps)
    return found


def take_up_earlier_concatenations(steps: list[Step]) -> None:
    """[a, b, c] becomes [[a, b], c] where [a, b] is there already, as in ``x = torch.cat([x, new], 1)``.

    It is how many DenseNets in PyTorch are written, and the quicker way there: the peer shall not lose by ours.
    """
    results: dict[tuple[str, ...], str] = {}
    for step in steps:
        if step.op == "Concat":
            parts = tuple(step.inputs)
            if parts[:-1] in results:
                step.inputs = [results[parts[:-1]], parts[-1]]
            results[parts] = step.output


def options(op: Op, y: Tensor, batched: bool, norms: list[BatchNorm2d]) -> dict[str, Any]:
    """What the op was told besides its inputs, in values that JSON can hold; nothing for an Op this file does not know."""
    match op:
        case Conv2d():
            return {"stride": op.stride, "padding": op.padding}
        case BatchNorm():
            number = next((i for i, norm in enumerate(norms) if norm.weight is op.inputs[1]), None)
            momentum = None if number is None else norms[number].momentum
            return {"eps": op.eps, "number": number, "momentum": momentum}
        case MaxPool2d():
            return {"kernel": op.kernel, "stride": op.stride, "padding": op.padding, "ceil_mode": op.ceil_mode}
        case AvgPool2d():
            return {"kernel": op.kernel, "stride": op.stride, "padding": op.padding}
        case Reshape():
            return {"shape": list(y.shape), "images": reshaped_images(op, y) if batched else None}
        case Transpose():
            return {"axes": [int(axis) % y.ndim for axis in op.axes or reversed(range(y.ndim))]}
        case GetItem():
            return {"index": [plain_index(i) for i in (op.index if isinstance(op.index, tuple) else (op.index,))]}
        case Pad():
            return {"widths": [[int(width) for width in pair] for pair in op.widths]}
        case Dropout():
            return {"p": 1 - 1 / float(op.mask.max())}
        case AsType():
            return {"dtype": numpy.dtype(op.dtype).name}
    return {}


def reshaped_images(op: Reshape, y: Tensor) -> int:
    """How many rows of the result each image gives."""
    if y.ndim == 0 or y.shape[0] % BATCH:
        raise ConfigError(
            f"bench: a reshape from {op.x_shape} to {y.shape} does not keep images apart along the first axis, "
            f"so it would not survive a batch other than {BATCH}"
        )
    return y.shape[0] // BATCH


def plain_index(index):
    """One axis of an index in JSON's terms. Raises ConfigError for arrays, which may depend on the batch."""
    if isinstance(index, slice):
        return {"slice": [index.start, index.stop, index.step]}
    if index is None or isinstance(index, int):
        return index
    if index is ...:
        return "..."
    raise ConfigError(f"bench: cannot write down an index of type {type(index).__name__}; use slices and integers")
