"""Read the pickles of the CIFAR python archives without trusting them: nothing is imported, nothing is called.

Python's own unpickler does what a file tells it to. Here the few instructions that the official files use are carried out by
hand, and the only things they can make are bytes, integers, None, False, lists, tuples and dictionaries. A NumPy array, which
the files write as a call of NumPy's constructor, comes out as its raw bytes.
"""

import struct
from typing import Any

from ..errors import DataError

ARRAY, ARRAY_TYPE, DTYPE = b"numpy.core.multiarray _reconstruct", b"numpy ndarray", b"numpy dtype"


class _Call:
    """A call the file asks for and does not get: what was to be called, and the state the result was to receive."""

    def __init__(self, name):
        self.name, self.state = name, None


def read_literals(raw: bytes, name: str = "the pickle") -> dict[bytes, Any]:
    """The dictionary in `raw`: pickle protocol 2 as Python 2 wrote it, strings as bytes, byte arrays as bytes.

    Raises DataError for anything the official files do not contain, before it has any effect.
    """
    try:
        return _Reader(raw).dictionary()
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise DataError(f"{name}: damaged, or not an official CIFAR file: {error}") from None


class _Reader:
    """A stack machine for 25 instructions of protocol 2 (their names and bytes: Python's pickletools)."""

    def __init__(self, raw):
        self.raw, self.at = raw, 0
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each MARK
        self.memo: dict[int, Any] = {}

    def dictionary(self):
        while (instruction := self.take(1)) != b".":  # STOP
            self.carry_out(instruction)
        value = self.stack.pop()
        if not isinstance(value, dict):
            raise TypeError(f"holds a {type(value).__name__.strip('_')} where a dictionary should be")
        return {key: _bytes_of(item) if isinstance(item, _Call) else item for key, item in value.items()}

    def carry_out(self, instruction):
        stack = self.stack
        match instruction:
            case b"\x80":  # PROTO
                if self.number("<B") != 2:
                    raise ValueError("not protocol 2")
            case b"(":  # MARK
                self.outer.append(stack)
                self.stack = []
            case b"N":  # NONE
                stack.append(None)
            case b"\x89":  # NEWFALSE
                stack.append(False)
            case b"J":  # BININT
                stack.append(self.number("<i"))
            case b"K":  # BININT1
                stack.append(self.number("<B"))
            case b"M":  # BININT2
                stack.append(self.number("<H"))
            case b"U":  # SHORT_BINSTRING
                stack.append(self.take(self.number("<B")))
            case b"T":  # BINSTRING
                stack.append(self.take(self.number("<I")))
            case b"]":  # EMPTY_LIST
                stack.append([])
            case b"}":  # EMPTY_DICT
                stack.append({})
            case b"e":  # APPENDS
                items = self.since_mark()
                self.top(list).extend(items)
            case b"u":  # SETITEMS
                items = self.since_mark()
                if not all(isinstance(key, bytes) for key in items[::2]):
                    raise TypeError("a key that is not a string")
                self.top(dict).update(zip(items[::2], items[1::2], strict=True))
            case b"t":  # TUPLE
                items = self.since_mark()
                self.stack.append(tuple(items))
            case b"\x85" | b"\x86" | b"\x87":  # TUPLE1, TUPLE2, TUPLE3
                count = instruction[0] - 0x84
                if len(stack) < count:
                    raise IndexError("a tuple of more than there is")
                stack[-count:] = [tuple(stack[-count:])]
            case b"q":  # BINPUT
                self.memo[self.number("<B")] = stack[-1]
            case b"r":  # LONG_BINPUT
                self.memo[self.number("<I")] = stack[-1]
            case b"h":  # BINGET
                stack.append(self.memo[self.number("<B")])
            case b"j":  # LONG_BINGET
                stack.append(self.memo[self.number("<I")])
            case b"c":  # GLOBAL
                called = self.line() + b" " + self.line()
                if called not in (ARRAY, ARRAY_TYPE, DTYPE):
                    raise ValueError(
                        f"asks for {called.decode('ascii', 'replace')!r}, which no official file does; refused"
                    )
                stack.append(_Call(called))
            case b"R":  # REDUCE: the arguments do not matter, an array starts empty and gets its bytes from BUILD
                stack.pop()
                called = self.top(_Call).name
                stack[-1] = _Call(called)
            case b"b":  # BUILD
                state = stack.pop()
                self.top(_Call).state = state
            case _:
                raise ValueError(
                    f"instruction {instruction!r} at byte {self.at - 1}, which no official file has; refused"
                )

    def take(self, count):
        piece = self.raw[self.at : self.at + count]
        if len(piece) < count:
            raise ValueError("ends too early")
        self.at += count
        return piece

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self):
        end = self.raw.index(b"\n", self.at, self.at + 64)  # ValueError: no end
        piece = self.take(end - self.at)
        self.at += 1
        return piece

    def since_mark(self):
        """What was pushed since the last MARK; the stack below it is the stack again."""
        items, self.stack = self.stack, self.outer.pop()
        return items

    def top(self, kind):
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"a {type(self.stack[-1]).__name__} where a {kind.__name__} should be".replace("_C", "c"))
        return self.stack[-1]


def _bytes_of(call):
    """The last entry of an array's state (version, shape, dtype, is_fortran, bytes): one byte a number, C order only."""
    if call.name != ARRAY or not isinstance(call.state, tuple):
        raise TypeError("a call that does not make an array")
    _, shape, dtype, is_fortran, raw = call.state
    if not isinstance(dtype, _Call) or dtype.name != DTYPE or is_fortran or not isinstance(raw, bytes):
        raise TypeError("an array that is not plain bytes in C order")
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(type(n) is int and n >= 0 for n in shape):
        raise TypeError("an array that is not a table")
    if shape[0] * shape[1] != len(raw):
        raise TypeError(f"an array of shape {shape} with {len(raw)} bytes")
    return raw
