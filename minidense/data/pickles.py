"""Read the pickles of the CIFAR python archives without trusting them: nothing is imported, nothing is called.

A NumPy array, which the files write as a call of NumPy's constructor, comes out as its raw bytes.
"""

from typing import Any

from ..errors import DataError
from ..pickle_machine import Machine, kind_of

ARRAY, ARRAY_TYPE, DTYPE = "numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"


def read_literals(raw: bytes, name: str = "the pickle") -> dict[bytes, Any]:
    """The dictionary in `raw`: pickle protocol 2 as Python 2 wrote it, strings as bytes, byte arrays as bytes.

    Raises DataError for anything the official files do not contain, before it has any effect.
    """
    try:
        value = _Reader(raw).run()
        if not isinstance(value, dict):
            raise ValueError(f"holds {kind_of(value)} where a dictionary should be")
        return {key: _bytes_of(item) if isinstance(item, _Made) else item for key, item in value.items()}
    except ValueError as error:
        raise DataError(f"{name}: damaged, or not an official CIFAR file: {error}") from None


class _Made:
    """What a call would have made: its name, and the state it was to receive."""

    __slots__ = ("name", "state")

    def __init__(self, name):
        self.name, self.state = name, None


class _Reader(Machine):
    """The dialect of Python 2's cPickle and NumPy 1."""

    protocols = (2,)
    instructions = frozenset(bytes([code]) for code in b"(N\x89JKMUT]}eut\x85\x86\x87qrhjcRb")
    known = frozenset((ARRAY, ARRAY_TYPE, DTYPE))
    keys = (bytes,)
    whose = "no official file"

    def call(self, name, arguments):
        return _Made(name)  # whatever the arguments: an array starts empty and gets its bytes from BUILD

    def build(self, made, state):
        if not isinstance(made, _Made):
            raise ValueError(f"a state for {kind_of(made)}")
        made.state = state


def _bytes_of(made):
    """The last entry of an array's state (version, shape, dtype, is_fortran, bytes): one byte a number, C order only."""
    if made.name != ARRAY or not isinstance(made.state, tuple) or len(made.state) != 5:
        raise ValueError("a call that does not make an array")
    _, shape, dtype, is_fortran, raw = made.state
    if not isinstance(dtype, _Made) or dtype.name != DTYPE or is_fortran or not isinstance(raw, bytes):
        raise ValueError("an array that is not plain bytes in C order")
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array that is not a table")
    if shape[0] * shape[1] != len(raw):
        raise ValueError(f"an array of shape {shape} with {len(raw)} bytes")
    return raw
