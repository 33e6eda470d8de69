"""CUDA kernels compiled with g++ and run on the CPU, in the call shape of cupy.RawModule; cuda/on_cpu.h says how."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

HEADER = Path(__file__).parent / "cuda" / "on_cpu.h"
COMPILER = shutil.which("g++")
# -ffp-contract: where the GPU's compiler joins a product and a sum into one rounding is its own affair, but neither may surprise.
FLAGS = ("-std=c++17", "-O2", "-shared", "-fPIC", "-w", "-mfma", "-fno-strict-aliasing")
ORDERS = (0, -1, 1, 2)  # forward, backward, and two seeds of a shuffle
SANITIZED = "MINIDENSE_TEST_SANITIZER" in os.environ  # every access to memory is checked; see test_kernel_sources.py
_order = 0
_folder = None


@contextmanager
def thread_order(order):
    """Run the threads of a block (and the blocks) forward (0), backward (-1) or shuffled (a seed)."""
    global _order
    before, _order = _order, order
    try:
        yield
    finally:
        _order = before


@functools.cache
def compiled(source, options):
    """The shared library of some CUDA source."""
    global _folder
    if _folder is None:
        _folder = tempfile.TemporaryDirectory(prefix="minidense-kernels-")
    names = re.findall(r"^KERNEL\(\d+, (\w+)\)", source, re.MULTILINE)
    code = source + "\n" + "\n".join(f"EXPORT({name})" for name in names)
    stem = hashlib.sha256(repr((source, options)).encode()).hexdigest()[:20]
    path = Path(_folder.name) / stem
    path.with_suffix(".cpp").write_text(code)
    command = [
        COMPILER,
        *FLAGS,
        *(("-fsanitize=address", "-g", "-O1") if SANITIZED else ()),
        "-include",
        str(HEADER),
        *options,
        str(path.with_suffix(".cpp")),
        "-o",
        str(path),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"g++ refused the kernels:\n{result.stderr}")
    return ctypes.CDLL(str(path))


class RawModule:
    """Kernels of one source. Launches are checked as CuPy and CUDA would not: number and sizes of arguments must fit."""

    def __init__(self, *, code, options=(), **ignored):
        options = tuple(o for o in options if not o.startswith("-std"))
        self.library = compiled(code, options)

    def get_function(self, name):
        try:
            function = getattr(self.library, f"launch_{name}")
        except AttributeError:
            raise RuntimeError(f"no kernel {name} in this module") from None
        return functools.partial(self.launch, name, function)

    @staticmethod
    def launch(name, function, grid, block, args, *, shared_mem=0):
        """What CuPy does with arguments: arrays by address, NumPy scalars as they are, int as long long, float as double."""
        values = [_by_value(a) for a in args]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        sizes = (ctypes.c_size_t * len(values))(*(ctypes.sizeof(v) for v in values))
        three = lambda t: (ctypes.c_uint * 3)(*(*map(int, t), 1, 1)[:3])  # noqa: E731
        if shared_mem > 48 << 10:
            raise RuntimeError(f"{name}: {shared_mem} bytes of shared memory; without asking, a block gets 48 KiB")
        if np.prod(block) > 1024:
            raise RuntimeError(f"{name}: {block} is more than 1024 threads")
        wrong = function(three(grid), three(block), ctypes.c_size_t(shared_mem), pointers, sizes, len(values), _order)
        if wrong == -2:
            raise TypeError(f"{name}: takes another number of arguments than {len(values)}")
        if wrong >= 0:
            raise TypeError(
                f"{name}: argument {wrong} ({args[wrong]!r:.60}) has {sizes[wrong]} bytes, which is not what the kernel takes"
            )


def _by_value(value):
    if value is None:
        return ctypes.c_void_p(0)
    if hasattr(value, "data") and hasattr(value.data, "ptr"):  # an array of the stand-in, as CuPy's
        return ctypes.c_void_p(value.data.ptr)
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, np.generic):
        return np.ctypeslib.as_ctypes_type(value.dtype)(value.item())
    if isinstance(value, int):
        return ctypes.c_int64(value)
    return ctypes.c_double(value)
