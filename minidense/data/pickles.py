"""Read the pickles of the CIFAR python archives without trusting them: nothing is imported, nothing is called.

Python's own unpickler runs what a file tells it to. Here the few opcodes that the official files use are carried
out by hand, and the only things they can make are bytes, integers, None, False, lists, tuples and dictionaries. A pickled
NumPy array of bytes, which the files hold as a call to NumPy's constructor, comes out as its raw bytes.
"""

import pickletools
from collections.abc import Iterable
from typing import Any

from ..errors import DataError

ARRAY, DTYPE = "numpy.core.multiarray _reconstruct", "numpy dtype"
KNOWN_GLOBALS = {ARRAY, "numpy ndarray", DTYPE}


class _Call:
    """A call the file asks for and does not get: what was to be called, and later the state it was to receive."""

    def __init__(self, name):
        self.name, self.state = name, None


_MARK = object()


def read_literals(raw: bytes, name: str = "the pickle") -> Any:
    """The object in `raw`: pickle protocol 2 as Python 2 wrote it, strings as bytes, byte arrays as bytes.

    Raises DataError for anything the official files do not contain, before it has any effect.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        instructions: Iterable[tuple[pickletools.OpcodeInfo, Any, Any]] = pickletools.genops(raw)
        for opcode, arg, _ in instructions:
            match opcode.name:
                case "PROTO" if arg <= 2:
                    pass
                case "MARK":
                    stack.append(_MARK)
                case "NONE":
                    stack.append(None)
                case "NEWFALSE":
                    stack.append(False)
                case "BININT" | "BININT1" | "BININT2":
                    stack.append(arg)
                case "SHORT_BINSTRING" | "BINSTRING":
                    stack.append(arg.encode("latin-1"))
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_DICT":
                    stack.append({})
                case "APPENDS":
                    items = _since_mark(stack)
                    _top(stack, list).extend(items)
                case "SETITEMS":
                    items = _since_mark(stack)
                    _top(stack, dict).update(zip(items[::2], items[1::2], strict=True))
                case "TUPLE":
                    stack.append(tuple(_since_mark(stack)))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(opcode.name[-1])
                    stack[-count:] = [tuple(stack[-count:])]
                case "BINPUT" | "LONG_BINPUT":
                    memo[arg] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[arg])
                case "GLOBAL" if arg in KNOWN_GLOBALS:
                    stack.append(_Call(arg))
                case "REDUCE":
                    stack.pop()  # the arguments: an array starts empty and gets its bytes from BUILD
                    stack.append(_Call(_top(stack, _Call, pop=True).name))
                case "BUILD":
                    state = stack.pop()
                    _top(stack, _Call).state = state
                case "STOP":
                    return _plain(stack.pop())
                case _:
                    what = f" {arg!r}" if opcode.name == "GLOBAL" else ""
                    raise DataError(
                        f"{name}: holds the pickle instruction {opcode.name}{what}, which no official file does; refused"
                    )
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
        MemoryError,
    ) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: damaged, or not a CIFAR pickle: {type(error).__name__}: {error}") from None
    raise DataError(f"{name}: damaged: it ends too early")


def _since_mark(stack):
    """What lies above the topmost mark; takes it and the mark away."""
    place = len(stack) - 1 - stack[::-1].index(_MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _top(stack, kind, pop=False):
    if not isinstance(stack[-1], kind):
        raise TypeError(f"expected a {kind.__name__.lstrip('_').lower()}, found a {type(stack[-1]).__name__}")
    return stack.pop() if pop else stack[-1]


def _plain(value):
    """A dictionary whose arrays are their raw bytes and in which no call is left."""
    if not isinstance(value, dict):
        raise TypeError(f"expected a dictionary, found a {type(value).__name__}")
    return {key: _bytes_of(item) if isinstance(item, _Call) else item for key, item in value.items()}


def _bytes_of(call):
    """The last entry of an array's state (version, shape, dtype, is_fortran, bytes), C order and one byte a number only."""
    _, shape, dtype, is_fortran, raw = call.state
    if call.name != ARRAY or dtype.name != DTYPE or is_fortran or not isinstance(raw, bytes):
        raise TypeError("an array that is not plain bytes in C order")
    size = 1
    for n in shape:
        size *= n
    if size != len(raw):
        raise TypeError(f"an array of shape {shape} with {len(raw)} bytes")
    return raw
