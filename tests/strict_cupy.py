"""A stand-in for CuPy that computes with NumPy but is as strict as CuPy: it proves that no code reaches for NumPy behind xp's back.

Its arrays refuse NumPy's functions, refuse to become NumPy arrays except through ``get()``, and refuse to meet them in an
operation or an index. Functions of the module take its own arrays, numbers and shapes, and return its own arrays; reductions
return arrays without axes, not numbers. Anything that CuPy lacks should be missing here too, see ``LACKING``.
"""

import operator
from types import SimpleNamespace

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
    "astype",
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

cuda = SimpleNamespace(
    is_available=lambda: True,
    get_current_stream=lambda: SimpleNamespace(synchronize=lambda: None),
)


class ndarray:
    """An array that lives elsewhere."""

    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, array):
        self._array = numpy.asarray(array)

    shape = property(lambda self: self._array.shape)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    dtype = property(lambda self: self._array.dtype)
    T = property(lambda self: ndarray(self._array.T))

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion to a NumPy array is not allowed; use .get()")

    def get(self):
        return self._array.copy()

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


def _wrapped(function):
    def call(*args, **kwargs):
        out = kwargs.get("out")
        result = function(*map(_inside, args), **{key: _inside(value) for key, value in kwargs.items()})
        return out if out is not None else _outside(result)

    return call


def _in_place(function):
    def call(self, other):
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
    return ndarray(numpy.array(value._array if isinstance(value, ndarray) else value, dtype))


add = _wrapped(numpy.add)
add.at = _wrapped(numpy.add.at)


def __getattr__(name):
    if name in LACKING or not hasattr(numpy, name):
        raise AttributeError(f"the stand-in for CuPy has no {name}")
    value = getattr(numpy, name)
    return _wrapped(value) if callable(value) and not isinstance(value, type) else value
