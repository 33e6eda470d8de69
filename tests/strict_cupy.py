"""A stand-in for CuPy that computes with NumPy but is as strict as CuPy: it proves that no code reaches for NumPy behind xp's back.

Its arrays refuse NumPy's functions, refuse to become NumPy arrays except through ``get()``, and refuse to meet them in an
operation or an index. Functions of the module take its own arrays, numbers and shapes, and return its own arrays; reductions
return arrays without axes, not numbers. Anything that CuPy lacks should be missing here too, see ``LACKING``.

Kernels run as well, on the CPU (cuda_on_cpu.py). While a stream notes down a graph, a launch is kept for later, room may be made, and
everything else is refused: what is not a kernel of ours would be lost in the replay.

Inside ``memory_of(total)`` the bytes of its arrays are counted, pool by pool, and there are no more than `total`.
"""

import operator
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import cuda_on_cpu
import numpy

LACKING = {"vecdot", "errstate", "fromiter"}
METHODS = [
    "sum",
    "mean",
    "max",
    "min",
    "argmax",
    "all",
    "any",
    "reshape",
    "transpose",
    "copy",
    "swapaxes",
    "item",
]
UNARY = ["neg", "pos", "abs", "invert"]
BINARY = [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and_",
    "or_",
    "xor",
    "lt",
    "le",
    "eq",
    "ne",
    "gt",
    "ge",
]
IN_PLACE = ["iadd", "isub", "imul", "itruediv"]

_noted = None  # launches, while a stream notes them down


class Graph:
    """What was noted down, to be run any number of times."""

    def __init__(self, launches):
        self.launches = launches

    def launch(self, stream=None):
        for run in self.launches:
            run()

    def upload(self, stream=None):
        pass


class Stream:
    """One queue; work is done at once but for what is noted down."""

    def __init__(self, non_blocking=False):
        self.non_blocking = non_blocking

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def synchronize(self):
        _refuse_while_noting("synchronize")

    def begin_capture(self):
        global _noted
        assert self.non_blocking, "the default stream cannot be captured"
        _noted = []

    def is_capturing(self):
        return _noted is not None

    def end_capture(self):
        global _noted
        graph, _noted = Graph(_noted), None
        return graph


class MemoryPool:
    """Counts bytes as CuPy's: what is freed stays for later, so the total only falls by free_all_blocks. Blocks are never cut."""

    def __init__(self):
        self.used = self.total = 0
        _pools.add(self)

    def malloc(self, size):
        """Counts, no more: the room itself is NumPy's."""
        if self.used + size > self.total:
            self._grow(self.used + size, size)
        self.used += size

    def _grow(self, needed, size):
        if (
            _held() - self.total + needed > _memory
        ):  # CuPy would give back its free blocks first, which changes nothing here
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes (allocated so far: {self.total:,} bytes).")
        self.total = needed

    def free(self, size):
        self.used -= size

    def free_all_blocks(self):
        _refuse_while_noting("free_all_blocks")
        self.total = self.used

    def used_bytes(self):
        return self.used

    def total_bytes(self):
        return self.total

    def get_limit(self):
        return 0  # none


class OutOfMemoryError(MemoryError):
    """As CuPy's, in its words."""


_pools = weakref.WeakSet()
_default = _pool = MemoryPool()
_memory = None  # bytes that there are, where they are counted
_blocks = weakref.WeakValueDictionary()  # id of the array of NumPy that has the memory -> Block


def get_default_memory_pool():
    return _default


@contextmanager
def memory_of(total):
    """A GPU of so many bytes."""
    global _memory, _default, _pool
    before = _memory, _default, _pool
    _pools.clear()
    _memory = total
    _default = _pool = MemoryPool()
    try:
        yield _default
    finally:
        _memory, _default, _pool = before


def _held():
    return sum(pool.total for pool in _pools)


def _mem_get_info():
    return (3 << 30, 4 << 30) if _memory is None else (_memory - _held(), _memory)


class Block:
    """Memory of the pool in use, for as long as this lives."""

    def __init__(self, size):
        _pool.malloc(size)
        weakref.finalize(self, _pool.free, size).atexit = False


def _block_of(array):
    """The Block in which an array lies, shared with its views; None where nothing is counted."""
    while isinstance(array.base, numpy.ndarray):
        array = array.base
    if _memory is None:
        return None
    block = _blocks.get(id(array))
    if block is None:
        block = _blocks[id(array)] = Block(array.nbytes)
    return block


@contextmanager
def _using_allocator(malloc):
    global _pool
    before, _pool = _pool, malloc.__self__
    try:
        yield
    finally:
        _pool = before


def _refuse_while_noting(name):
    if _noted is not None:
        raise RuntimeError(
            f"{name} while a graph is noted down: not a kernel of ours, so the replay would do without it"
        )


class RawModule(cuda_on_cpu.RawModule):
    @staticmethod
    def launch(name, function, grid, block, args, *, shared_mem=0):
        for a in args:
            if isinstance(a, numpy.ndarray) and a.ndim:
                raise TypeError(f"{name}: a NumPy array of shape {a.shape} as a kernel's argument")
        args = [a._array if isinstance(a, ndarray) else a for a in args]  # a graph knows addresses and keeps no block

        def run():
            cuda_on_cpu.RawModule.launch(name, function, grid, block, args, shared_mem=shared_mem)

        run() if _noted is None else _noted.append(run)


cuda = SimpleNamespace(
    is_available=lambda: True,
    get_current_stream=Stream,
    Stream=Stream,
    MemoryPool=MemoryPool,
    using_allocator=_using_allocator,
    runtime=SimpleNamespace(memGetInfo=_mem_get_info),
)


class ndarray:
    """An array that lives elsewhere."""

    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, array):
        self._array = numpy.asarray(array)
        self._block = _block_of(self._array)

    shape = property(lambda self: self._array.shape)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    dtype = property(lambda self: self._array.dtype)
    T = property(lambda self: ndarray(self._array.T))
    flags = property(lambda self: self._array.flags)
    strides = property(lambda self: self._array.strides)
    nbytes = property(lambda self: self._array.nbytes)
    data = property(lambda self: SimpleNamespace(ptr=self._array.ctypes.data))

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion to a NumPy array is not allowed; use .get()")

    def get(self):
        _refuse_while_noting("get")
        return self._array.copy()

    def set(self, array):
        """From NumPy, in place."""
        _refuse_while_noting("set")
        self._array[...] = array

    def astype(self, dtype, copy=True):
        """Itself where nothing is to do and no copy is asked for, as CuPy."""
        if not copy and self.dtype == dtype:
            return self
        _refuse_while_noting("astype")
        return ndarray(self._array.astype(dtype))

    def fill(self, value):
        _refuse_while_noting("fill")
        self._array.fill(value)

    def __len__(self):
        return len(self._array)

    def __iter__(self):
        return map(ndarray, self._array)

    def __bool__(self):
        return bool(self._array)

    def __int__(self):
        return int(self._array)

    def __float__(self):
        return float(self._array)

    def __getitem__(self, index):
        return ndarray(self._array[_inside(index)])

    def __setitem__(self, index, value):
        _refuse_while_noting("item assignment")
        self._array[_inside(index)] = _inside(value)


def _inside(value):
    """What NumPy shall compute with; NumPy arrays that have slipped in are refused."""
    if isinstance(value, ndarray):
        return value._array
    if isinstance(value, numpy.ndarray):
        raise TypeError(f"a NumPy array of shape {value.shape} met an array of the GPU")
    if isinstance(value, tuple | list):
        return type(value)(map(_inside, value))
    return value


def _outside(value):
    if isinstance(value, numpy.ndarray | numpy.generic):
        return ndarray(value)
    return value


# Nothing is computed by these: views, and room that is not filled.
HARMLESS = {"reshape", "transpose", "swapaxes", "empty", "empty_like", "broadcast_to"}


def _wrapped(function):
    name = getattr(function, "__name__", str(function))

    def call(*args, **kwargs):
        if name not in HARMLESS:
            _refuse_while_noting(name)
        out = kwargs.get("out")
        result = function(*map(_inside, args), **{key: _inside(value) for key, value in kwargs.items()})
        return out if out is not None else _outside(result)

    return call


def _in_place(function):
    def call(self, other):
        _refuse_while_noting(function.__name__)
        self._array = function(self._array, _inside(other))
        return self

    return call


for _name in METHODS:
    setattr(ndarray, _name, _wrapped(getattr(numpy.ndarray, _name)))
for _name in UNARY:
    setattr(ndarray, f"__{_name}__", _wrapped(getattr(operator, _name)))
for _name in BINARY:
    _function = getattr(operator, _name)
    setattr(ndarray, f"__{_name.strip('_')}__", _wrapped(_function))
    if _name not in ("lt", "le", "eq", "ne", "gt", "ge"):
        setattr(ndarray, f"__r{_name.strip('_')}__", _wrapped(lambda a, b, f=_function: f(b, a)))
for _name in IN_PLACE:
    setattr(ndarray, f"__{_name}__", _in_place(getattr(operator, _name)))


def asarray(value, dtype=None):
    """From anywhere, NumPy too: the one explicit way in."""
    if not isinstance(value, ndarray):
        _refuse_while_noting("asarray")
    return ndarray(numpy.array(value._array if isinstance(value, ndarray) else value, dtype))


def ascontiguousarray(value):
    """Itself where it lies in order already."""
    if value.flags.c_contiguous:
        return value
    _refuse_while_noting("ascontiguousarray of what is not")
    return ndarray(numpy.ascontiguousarray(value._array))


def _filled_later(function):
    """Room that the replay fills anew, as CuPy does by a kernel or cudaMemset."""

    def call(*args, **kwargs):
        result = function(*args, **{key: _inside(value) for key, value in kwargs.items()})
        if _noted is not None:
            whole = result.copy()
            _noted.append(lambda: numpy.copyto(result, whole))
        return ndarray(result)

    return call


ones, zeros = _filled_later(numpy.ones), _filled_later(numpy.zeros)
add = _wrapped(numpy.add)
add.at = _wrapped(numpy.add.at)


def __getattr__(name):
    if name in LACKING or not hasattr(numpy, name):
        raise AttributeError(f"the stand-in for CuPy has no {name}")
    value = getattr(numpy, name)
    return _wrapped(value) if callable(value) and not isinstance(value, type) else value
