"""Tensor: an array that remembers which Op made it, and the walk that brings gradients back."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy

from .backend import array_module, device_of, library, to_device, to_numpy
from .errors import DeviceError, DTypeError, GraphError, ShapeError
from .ops import (
    Add,
    AsType,
    Div,
    Exp,
    GetItem,
    Log,
    MatMul,
    Max,
    Mean,
    Mul,
    Neg,
    Op,
    Power,
    Reshape,
    Sub,
    Sum,
    Transpose,
)

_next_step = count()
_recording = True


class Tensor:
    """An array that remembers which Op made it, so that gradients can flow back.

    data           numbers: an array, another library's CPU array, a list or a number. float16, float32 and float64 arrays
                   keep their type and their memory; everything else (integers, booleans, lists, plain numbers) becomes float32
    dtype          a float type to convert to
    device         'cpu' or 'gpu' to move to
    requires_grad  collect the gradient of this leaf in ``.grad`` at backward()

    Raises DTypeError for what is not real numbers, DeviceError for a device that is not there.
    """

    __slots__ = ("__weakref__", "data", "grad", "requires_grad", "source")
    __array_ufunc__ = None  # array * tensor is the tensor's business, not NumPy's

    def __init__(self, data, *, dtype=None, device=None, requires_grad=False, source: Op | None = None):
        self.data = as_floats(data, dtype)
        if device is not None:
            self.data = to_device(self.data, device)
        self.grad: Any = None
        self.source = source  # the Op that made me, or None for a leaf
        self.requires_grad = requires_grad or source is not None

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    dtype = property(lambda self: self.data.dtype)
    device = property(lambda self: device_of(self.data))
    T = property(lambda self: self.transpose())

    def __repr__(self):
        where = "" if self.device == "cpu" else " on the gpu"
        return f"Tensor{self.shape} {self.dtype}{where}{f' from {self.source!r}' if self.source else ''}"

    def __len__(self):
        if self.ndim == 0:
            raise ShapeError("len() of a tensor without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self):
        return bool(self.item())

    def item(self) -> float:
        """The one number in here, as Python's own. Raises ShapeError when there are more."""
        if self.size != 1:
            raise ShapeError(f"item: a tensor of shape {self.shape} holds {self.size} numbers, not one")
        return to_numpy(self.data).item()

    def __float__(self):
        return float(self.item())

    def numpy(self) -> numpy.ndarray:
        """The numbers as a NumPy array (on the CPU the very memory, not a copy)."""
        return to_numpy(self.data)

    def __array__(self, dtype=None, copy=None):
        return numpy.array(self.numpy(), dtype, copy=copy)

    def detach(self) -> Tensor:
        """The same numbers without their history."""
        return Tensor(self.data)

    def to(self, device) -> Tensor:
        """The same numbers on another device, as a new leaf."""
        return Tensor(to_device(self.data, device), requires_grad=self.requires_grad)

    # -- operators ------------------------------------------------------------------------------------------------

    def __add__(self, other) -> Tensor:
        return apply(Add(), self, self.beside(other))

    def __sub__(self, other) -> Tensor:
        return apply(Sub(), self, self.beside(other))

    def __mul__(self, other) -> Tensor:
        return apply(Mul(), self, self.beside(other))

    def __truediv__(self, other) -> Tensor:
        return apply(Div(), self, self.beside(other))

    def __rsub__(self, other) -> Tensor:
        return apply(Sub(), self.beside(other), self)

    def __rtruediv__(self, other) -> Tensor:
        return apply(Div(), self.beside(other), self)

    def __matmul__(self, other) -> Tensor:
        return apply(MatMul(), self, self.beside(other))

    def __rmatmul__(self, other) -> Tensor:
        return apply(MatMul(), self.beside(other), self)

    def __neg__(self) -> Tensor:
        return apply(Neg(), self)

    def __pow__(self, exponent) -> Tensor:
        if isinstance(exponent, Tensor) or numpy.ndim(exponent) != 0:
            raise DTypeError(
                "power: the exponent must be one plain number; for x ** y with tensors write (x.log() * y).exp()"
            )
        return apply(Power(float(exponent)), self)

    def __getitem__(self, index) -> Tensor:
        return apply(GetItem(index), self)

    __radd__, __rmul__ = __add__, __mul__

    def exp(self) -> Tensor:
        return apply(Exp(), self)

    def log(self) -> Tensor:
        return apply(Log(), self)

    def sum(self, axis=None, *, keepdims=False) -> Tensor:
        return apply(Sum(axis, keepdims), self)

    def mean(self, axis=None, *, keepdims=False) -> Tensor:
        return apply(Mean(axis, keepdims), self)

    def max(self, axis=None, *, keepdims=False) -> Tensor:
        return apply(Max(axis, keepdims), self)

    def reshape(self, *shape) -> Tensor:
        return apply(Reshape(_unpacked(shape)), self)

    def transpose(self, *axes) -> Tensor:
        """Axes in another order; without arguments, reversed."""
        return apply(Transpose(_unpacked(axes) if axes else None), self)

    def astype(self, dtype) -> Tensor:
        """The same numbers as another float type; gradients are converted back."""
        check_float(numpy.dtype(dtype))
        return self if self.dtype == dtype else apply(AsType(dtype), self)

    def beside(self, other) -> Tensor:
        """other as a Tensor of my device and dtype: a bare 2.0 must not turn float32 work into float64."""
        if isinstance(other, Tensor):
            return other
        self._refuse_another_device("an array", other)
        return Tensor(library(self.device).asarray(as_floats(other, self.dtype)))

    def _refuse_another_device(self, what, other):
        """Numbers and lists go wherever they are wanted, arrays stay where they were put. Raises DeviceError."""
        array = other.data if isinstance(other, Tensor) else other
        if getattr(array, "ndim", 0) and device_of(array) != self.device:
            raise DeviceError(
                f"{what} {tuple(array.shape)} on the {device_of(array)} meets a tensor {self.shape} on the {self.device}. "
                "Move one side: md.Tensor(array, device=...) or .to('cpu') or .to('gpu')"
            )

    # -- gradients ------------------------------------------------------------------------------------------------

    def retain_grad(self) -> Tensor:
        """Keep the gradient of this inner result in ``.grad`` as well, to look at gradient flow; returns self.

        Call it between the forward pass and backward(). Leaves keep theirs anyway.
        Raises GraphError when nothing was recorded.
        """
        if self.source is None:
            if not self.requires_grad:
                raise GraphError(
                    "retain_grad() on a tensor without history: nothing was recorded. Did it come out of no_grad()?"
                )
        else:
            self.source.result = weakref.ref(self)  # weak: the Op must not keep its own result alive
        return self

    def backward(self, dy=None) -> None:
        """Add dL/dx to ``x.grad`` of every leaf x behind this tensor, where dy = dL/d(self).

        A scalar may leave dy out (it is 1). Walks the graph once, newest Op first, and forgets it on the way.
        Gradients reach ``.grad`` only when the whole walk has succeeded.

        Raises GraphError when nothing was recorded, when the graph was walked already, or when dy does not fit.
        """
        if self.source is None:
            raise GraphError(
                "backward() on a tensor without history: nothing was recorded. Did the forward pass run under no_grad()?"
            )
        order = history(self)
        # Gradients of inner results live in `pending`, for this walk only; those of leaves and watched results in `collected`.
        pending: dict[Op, Any] = {self.source: self._seed(dy)}
        collected: dict[Tensor, Any] = {}
        shared: set[Tensor] = set()  # those of them whose gradient may be somebody else's array as well
        for op in reversed(order):
            if op not in pending:  # every Op that used its result said that no gradient flows there
                op.forget()
                continue
            dy = pending.pop(op)
            watched = op.result and op.result()
            if watched is not None:
                collected[watched] = dy
                shared.add(watched)
            dxs = op.backward(dy)
            if len(dxs) != len(op.inputs):
                raise GraphError(f"{op!r}.backward made {len(dxs)} gradients for {len(op.inputs)} inputs")
            for i, (x, dx) in enumerate(zip(op.inputs, dxs, strict=True)):
                if dx is None or not x.requires_grad:
                    continue
                if dx.shape != x.shape:
                    raise GraphError(
                        f"{op!r}.backward made a gradient of shape {dx.shape} for input {i} of shape {x.shape}"
                    )
                place, key = (collected, x) if x.source is None else (pending, x.source)
                # Used twice, the paths add up; out of place, since an Op may hand the same dx to several inputs.
                if key in place:
                    place[key] = place[key] + dx
                    shared.discard(x)
                else:
                    place[key] = dx
                    # Only of what is collected: an inner Tensor in here would keep its array until the walk ends.
                    if place is collected and not op.fresh:
                        shared.add(x)
            op.forget()
        for x, dx in collected.items():
            if x.grad is not None:
                x.grad = x.grad + dx
            else:
                x.grad = dx.copy() if x in shared else dx

    def _seed(self, dy):
        xp = array_module(self.data)
        if dy is None:
            if self.size != 1:
                raise GraphError(
                    f"backward() from shape {self.shape} needs dy of that shape; only a single number may leave it out"
                )
            return xp.ones(self.shape, self.dtype)
        self._refuse_another_device("backward(): dy", dy)
        dy = xp.asarray(dy.data if isinstance(dy, Tensor) else dy, self.dtype)
        if dy.shape != self.shape:
            raise GraphError(f"backward(): dy has shape {dy.shape} but the tensor has shape {self.shape}")
        return dy


def apply(op: Op, *inputs: Tensor) -> Tensor:
    """Run op on tensors and, if anybody may ask for gradients, remember it as the source of the result.

    Raises DTypeError when an input is no Tensor or the float types differ, DeviceError when the devices do.
    """
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor):
            raise DTypeError(f"{op!r}: input {i} is a {type(x).__name__}, not a Tensor; wrap it: md.Tensor(...)")
    first = inputs[0].dtype if inputs else None
    if any(x.dtype != first for x in inputs):
        raise DTypeError(
            f"{op!r}: inputs of different types {[str(x.dtype) for x in inputs]}; bring them together with .astype(...)"
        )
    if len({x.device for x in inputs}) > 1:
        where = ", ".join(f"{x.shape} on the {x.device}" for x in inputs)
        raise DeviceError(
            f"{op!r}: inputs on two devices at once: {where}. Move one side with .to('cpu') or .to('gpu')"
        )
    y = op.forward(*(x.data for x in inputs))
    if not recording(*inputs):
        return Tensor(y)  # nobody keeps op: what it saved is freed here
    op.inputs, op.step = inputs, next(_next_step)
    return Tensor(y, source=op)


def recording(*inputs: Tensor) -> bool:
    """Would a step with these inputs be remembered? Not under no_grad, and not where nobody asks for a gradient."""
    return _recording and any(x.requires_grad for x in inputs)


def history(y: Tensor) -> list[Op]:
    """Every Op behind y, oldest first. An Op can only use results that exist, so age is already a topological order."""
    found: set[Op] = set()
    waiting = [y.source]
    while waiting:
        op = waiting.pop()
        if op is None or op in found:
            continue
        if not op.inputs:
            raise GraphError(f"{op!r} was already walked by backward(); run the forward pass again")
        found.add(op)
        waiting += [x.source for x in op.inputs]
    return sorted(found, key=lambda op: op.step)


@contextmanager
def no_grad():
    """Compute without recording: nothing is kept for a backward pass. Says nothing about train or eval mode."""
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before


def as_floats(data, dtype=None):
    """data as an array of floats on its own device: float arrays keep their type unless `dtype` says, all else becomes float32."""
    array = data.data if isinstance(data, Tensor) else data
    if not isinstance(array, array_module(array).ndarray):
        typed = hasattr(array, "dtype")  # a number from an array, or another library's array: its type was chosen
        try:
            array = numpy.asarray(array)
        except ValueError as error:
            raise DTypeError(f"Tensor: these are not numbers in a regular grid: {error}") from None
        if dtype is None and not typed and array.dtype.kind == "f":
            dtype = numpy.float32
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"Tensor: needs real numbers, got {type(data).__name__} of type {array.dtype}")
    if dtype is None:
        dtype = array.dtype if array.dtype.kind == "f" else numpy.dtype(numpy.float32)
    check_float(numpy.dtype(dtype))
    return array.astype(dtype, copy=False)


def check_float(dtype):
    if dtype.kind != "f":
        raise DTypeError(f"Tensor: computes with float types (float32, float64), not {dtype}")


def _unpacked(args):
    """reshape(2, 3) and reshape((2, 3)) mean the same."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], tuple | list) else args
