"""A stack machine for pickles that imports nothing and calls nothing. CIFAR's files and torch's are two dialects of it.

Python's own unpickler does what a file tells it to. Here a few instructions are carried out by hand, and the only things they can
make are None, booleans, numbers, strings, bytes, lists, tuples and dictionaries. Where a file names something of Python's, the
name is all that it gets; what a call of that name stands for is made by the dialect, from plain values.
"""

import struct
from typing import Any

BUDGET = 1_000_000  # instructions, and entries copied; CIFAR-100's files take 250,000, the weights of a DenseNet-264 take 60,000
NAME_BYTES = 64  # of a module or of something in it


class UnknownName(ValueError):
    """A file names something of Python's that no file of its kind needs."""


class Global:
    """Something of Python's that a file names."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name  # module and name, with a space between


class Machine:
    """The instructions of protocols 2 to 5 that plain values need (their names and bytes: Python's pickletools).

    A dialect says which of them its files have, and what their strings and calls become. Raises ValueError for everything else,
    before it has any effect.
    """

    protocols: tuple[int, ...] = ()
    instructions: frozenset[bytes] = frozenset()
    # the names that may follow GLOBAL
    known: frozenset[str] = frozenset()
    # types of the keys of dictionaries; hashing a tuple could go down a million levels and crash
    keys: tuple[type, ...] = ()
    whose = "no file of this kind"  # for "asks for 'os system', which … does"

    def __init__(self, raw: bytes, at: int = 0):
        self.raw, self.at = raw, at
        self.budget = BUDGET
        self.stack: list[Any] = []
        # the stacks below each MARK
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def text(self, raw: bytes) -> Any:
        """What a string of Python 2 becomes."""
        return raw

    def call(self, name: str, arguments: Any) -> Any:
        """What stands for the result of a call of a known name. Raises ValueError unless the dialect knows one."""
        raise ValueError(f"a call of {name}")

    def build(self, made: Any, state: Any) -> None:
        """Give something its state, as BUILD does. Raises ValueError unless the dialect has a use for it."""
        raise ValueError(f"a state for {kind_of(made)}")

    def persistent(self, label: Any) -> Any:
        """What stands for something that is kept outside of the pickle. Raises ValueError unless the dialect has such things."""
        raise ValueError("something outside of the pickle")

    def run(self) -> Any:
        """What the pickle holds that begins here; afterwards `at` is behind it."""
        if self.take(1) != b"\x80" or (protocol := self.number("<B")) not in self.protocols:  # PROTO
            raise ValueError(f"not a pickle of protocol {' or '.join(map(str, self.protocols))}")
        instructions = self.instructions if protocol >= 4 else self.instructions - NEW_IN_4
        while (instruction := self.take(1)) != b".":  # STOP
            if instruction not in instructions:
                raise ValueError(f"instruction {instruction!r} at byte {self.at - 1}, which {self.whose} has; refused")
            self.spend(1)
            self.carry_out(instruction)
        if self.outer:
            raise ValueError("ends between a mark and what belongs to it")
        return self.pop()

    def carry_out(self, instruction: bytes) -> None:
        stack = self.stack
        match instruction:
            case b"(":  # MARK
                self.outer.append(stack)
                self.stack = []
            case b"N":  # NONE
                stack.append(None)
            case b"\x88":  # NEWTRUE
                stack.append(True)
            case b"\x89":  # NEWFALSE
                stack.append(False)
            case b"J":  # BININT
                stack.append(self.number("<i"))
            case b"K":  # BININT1
                stack.append(self.number("<B"))
            case b"M":  # BININT2
                stack.append(self.number("<H"))
            case b"\x8a":  # LONG1
                stack.append(int.from_bytes(self.take(self.number("<B")), "little", signed=True))
            case b"G":  # BINFLOAT
                stack.append(self.number(">d"))
            case b"U":  # SHORT_BINSTRING
                stack.append(self.text(self.take(self.number("<B"))))
            case b"T":  # BINSTRING
                stack.append(self.text(self.take(self.number("<I"))))
            case b"\x8c":  # SHORT_BINUNICODE
                stack.append(self.take(self.number("<B")).decode())
            case b"X":  # BINUNICODE
                stack.append(self.take(self.number("<I")).decode())
            case b")":  # EMPTY_TUPLE
                stack.append(())
            case b"]":  # EMPTY_LIST
                stack.append([])
            case b"}":  # EMPTY_DICT
                stack.append({})
            case b"a":  # APPEND
                item = self.pop()
                self.top(list).append(item)
            case b"e":  # APPENDS
                items = self.since_mark()
                self.top(list).extend(items)
            case b"s":  # SETITEM
                value, key = self.pop(), self.pop()
                self.put(self.top(dict), [(key, value)])
            case b"u":  # SETITEMS
                items = self.since_mark()
                if len(items) % 2:
                    raise ValueError("a key without a value")
                self.put(self.top(dict), zip(items[::2], items[1::2], strict=True))
            case b"t":  # TUPLE
                items = self.since_mark()
                self.stack.append(tuple(items))
            case b"\x85" | b"\x86" | b"\x87":  # TUPLE1, TUPLE2, TUPLE3
                count = instruction[0] - 0x84
                if len(stack) < count:
                    raise ValueError("a tuple of more than there is")
                stack[-count:] = [tuple(stack[-count:])]
            case b"q":  # BINPUT
                self.memo[self.number("<B")] = self.top()
            case b"r":  # LONG_BINPUT
                self.memo[self.number("<I")] = self.top()
            case b"\x94":  # MEMOIZE
                self.memo[len(self.memo)] = self.top()
            case b"h":  # BINGET
                stack.append(self.remembered(self.number("<B")))
            case b"j":  # LONG_BINGET
                stack.append(self.remembered(self.number("<I")))
            case b"c":  # GLOBAL
                self.name_global(self.line(), self.line())
            case b"\x93":  # STACK_GLOBAL
                name, module = self.pop(), self.pop()
                self.name_global(module, name)
            case b"R":  # REDUCE
                arguments = self.pop()
                called = self.pop()
                if not isinstance(called, Global):
                    raise ValueError(f"a call of {kind_of(called)}")
                stack.append(self.call(called.name, arguments))
            case b"b":  # BUILD
                state = self.pop()
                self.build(self.top(), state)
            case b"Q":  # BINPERSID
                stack.append(self.persistent(self.pop()))
            case b"\x95":  # FRAME: how many bytes may be read ahead; nothing here does
                self.number("<Q")
            case _:
                raise AssertionError(f"{type(self).__name__} knows {instruction!r} and the machine does not")

    # -- what instructions are made of --------------------------------------------------------------------------------

    def spend(self, count: int) -> None:
        """Each step costs something, so that a file cannot ask for more work or memory than its kind ever needs."""
        self.budget -= count
        if self.budget < 0:
            raise ValueError(f"more than {BUDGET:,} instructions; refused")

    def take(self, count: int) -> bytes:
        piece = self.raw[self.at : self.at + count]
        if len(piece) < count:
            raise ValueError("ends too early")
        self.at += count
        return piece

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.raw.find(b"\n", self.at, self.at + NAME_BYTES)
        if end < 0:
            raise ValueError("a name without an end")
        piece = self.take(end - self.at)
        self.at += 1
        return piece.decode("ascii", "replace")

    def name_global(self, module: Any, name: Any) -> None:
        if not all(isinstance(part, str) and len(part) <= NAME_BYTES for part in (module, name)):
            raise ValueError("something of Python's whose name is no name")
        if (full := f"{module} {name}") not in self.known:
            raise UnknownName(f"asks for {full!r}, which {self.whose} does; refused")
        self.stack.append(Global(full))

    def since_mark(self) -> list[Any]:
        """What was pushed since the last MARK; the stack below it is the stack again."""
        if not self.outer:
            raise ValueError("the end of something that never began")
        items, self.stack = self.stack, self.outer.pop()
        return items

    def pop(self) -> Any:
        if not self.stack:
            raise ValueError("takes something from where nothing is")
        return self.stack.pop()

    def top(self, kind: type = object) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            found = kind_of(self.stack[-1]) if self.stack else "nothing"
            raise ValueError(f"{found} where {'something' if kind is object else f'a {kind.__name__}'} should be")
        return self.stack[-1]

    def put(self, target: dict[Any, Any], pairs: Any) -> None:
        for key, value in pairs:
            if type(key) not in self.keys:
                raise ValueError(f"{kind_of(key)} as the key of a dictionary")
            target[key] = value

    def remembered(self, number: int) -> Any:
        if number not in self.memo:
            raise ValueError(f"refers to number {number}, which nothing has")
        return self.memo[number]


# SHORT_BINUNICODE, STACK_GLOBAL, MEMOIZE, FRAME
NEW_IN_4 = frozenset((b"\x8c", b"\x93", b"\x94", b"\x95"))


def kind_of(value: Any) -> str:
    """A value's type in words, for messages."""
    if isinstance(value, Global):
        return value.name
    name = type(value).__name__.strip("_")
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
