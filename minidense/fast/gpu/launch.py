"""The kernels: compiled when they are first wanted, launched with arguments of the types that they take."""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from ...backend import array_module, device_of
from ...precision import current_precision
from ...tensor import Tensor

KERNELS = Path(__file__).parent / "kernels"
SHARED_BYTES = 48 << 10  # shared memory that a block gets without asking for more
NULL = numpy.uint64(0)  # an array that is not given, as a kernel's argument


def options(precision: str) -> tuple[str, ...]:
    """What the compiler is told, see kernels/tile.cuh."""
    tensor_cores, brain_float = precision != "float32", precision == "mixed"
    return ("-std=c++17", f"-DTENSOR_CORES={tensor_cores:d}", f"-DBRAIN_FLOAT={brain_float:d}")


@functools.cache
def source(file: str) -> str:
    """A file of kernels with what it includes, in one text: CuPy keeps compiled kernels by the text it was given, not by its includes.

    Letters that are not ASCII, which only comments have, become question marks: CuPy writes the text down in the locale's encoding.
    """

    def read(name):
        return (KERNELS / name).read_text(encoding="utf-8").encode("ascii", "replace").decode()

    def included(match):
        return f'#line 1 "{match[1]}"\n{read(match[1])}\n#line {line_of(match) + 1} "{file}"'

    def line_of(match):
        return text.count("\n", 0, match.start()) + 1

    text = read(file)
    return re.sub(r'^#include "(.*)"$', included, text, flags=re.MULTILINE)


def names(file: str) -> list[str]:
    """The kernels in a file."""
    return re.findall(r"^KERNEL\(\d+, (\w+)\)", source(file), re.MULTILINE)


@functools.cache
def kernel(xp: Any, file: str, name: str, precision: str) -> Any:
    """A kernel, to be called with (grid, block, arguments, shared_mem=bytes)."""
    return module(xp, file, precision).get_function(name)


@functools.cache
def module(xp: Any, file: str, precision: str) -> Any:
    return xp.RawModule(code=source(file), options=options(precision))


def launch(file: str, name: str, grid: tuple, block: int, *args: Any, shared: int = 0) -> None:
    """Run a kernel of a file on a grid of blocks of so many threads.

    args    arrays (contiguous, on the GPU), None where an array is not given, numbers: int for the kernel's int, float for its float
    shared  bytes of shared memory for each block
    """
    arrays = [a for a in args if hasattr(a, "dtype") and hasattr(a, "flags") and a.ndim]
    xp = array_module(*arrays)
    assert all(a.flags.c_contiguous for a in arrays), name
    assert shared <= SHARED_BYTES, (name, shared)
    run = kernel(xp, file, name, precision_for(arrays))
    run(grid, (block,), tuple(map(_argument, args)), shared_mem=shared)


def precision_for(arrays: list) -> str:
    """Feature maps say by their type how they are stored; only inside dense blocks is that not float32."""
    if any(a.dtype == numpy.uint16 for a in arrays):
        return "mixed"
    return "tf32" if current_precision() == "mixed" else current_precision()


def _argument(value: Any) -> Any:
    """CuPy passes Python's numbers as 64 bits, which no kernel here takes."""
    if value is None:
        return NULL
    if isinstance(value, bool | int):
        return numpy.int32(value)
    return numpy.float32(value) if isinstance(value, float) else value


def on_gpu(*tensors: Tensor | None) -> bool:
    """Are they all on the GPU and in float32? The kernels know no other type; None counts for nothing."""
    return all(t is None or (t.device == "gpu" and t.dtype == numpy.float32) for t in tensors)


def is_plain(*arrays: Any) -> bool:
    """Arrays on the GPU, in float32 and one number after another: what a kernel may be given by address."""
    return all(device_of(a) == "gpu" and a.dtype == numpy.float32 and a.flags.c_contiguous for a in arrays)


# -- feature maps as the kernels have them ----------------------------------------------------------------------------


def by_fours(x: Tensor, *, pooled: bool = False) -> bool:
    """Images whose pixels divide by four, all together, also when there are a quarter of them: four travel at once."""
    if x.ndim != 4 or x.size == 0:
        return False
    n, _, h, w = x.shape
    return n * h * w % (16 if pooled else 4) == 0


def rows(x: Any) -> Any:
    """Images (N, C, H, W) channel by channel, (C, N·H·W): the same memory where they lie so already.

    A view that begins in the middle of somebody's array may not be where four numbers can be read at once, and is copied.
    """
    here = array_module(x).ascontiguousarray(x.transpose(1, 0, 2, 3)).reshape(x.shape[1], -1)
    return here if here.data.ptr % 16 == 0 else here.copy()


def images(x: Any, shape: tuple[int, ...]) -> Any:
    """The way back: (C, N·H·W) as a view (N, C, H, W); `shape` gives N, H and W."""
    n, _, h, w = shape
    return x.reshape(len(x), n, h, w).transpose(1, 0, 2, 3)


def stored_type() -> Any:
    """What feature maps inside a dense block are stored as: float32, or the bits of bfloat16."""
    return numpy.uint16 if current_precision() == "mixed" else numpy.float32


def divided(count: int, by: int) -> int:
    """How many pieces of a size cover `count`."""
    return -(-count // by)


# -- arrays by address ------------------------------------------------------------------------------------------------

_later: list[tuple[Any, numpy.ndarray]] | None = None


def addresses(table: list[tuple]) -> Any:
    """A table on the GPU, int64 (rows, columns): arrays by their addresses, whole numbers, and floats as the bits of a double."""

    def bits(value):
        if isinstance(value, float):
            return numpy.float64(value).view(numpy.int64)
        if value is None:
            return 0
        if isinstance(value, int):
            return value
        assert value.flags.c_contiguous, "a kernel reads one number after another"
        return value.data.ptr

    values = numpy.array([[bits(value) for value in row] for row in table], numpy.int64)
    xp = array_module(*(value for value in table[0] if hasattr(value, "dtype")))
    if _later is None:
        return xp.asarray(values)
    result = xp.empty(values.shape, "int64")
    _later.append((result, values))
    return result


@contextmanager
def tables_later() -> Iterator[None]:
    """Nothing may come from the CPU while launches are only noted down; tables that are made inside are filled at its end."""
    global _later
    before, _later = _later, []
    try:
        yield
        for table, values in _later:
            table.set(values)
    finally:
        _later = before
