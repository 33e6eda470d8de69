"""Read the weights in a file of torch.save without torch and without trusting it: nothing is imported, called or extracted.

Such a file is a pickle and, beside it, storages: rows of numbers on which tensors are windows. Since torch 1.6 these are members
of a zip file (data.pkl, data/0, data/1, …); before, they followed one another. The pickle may name fourteen things of Python's.
"""

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy

from .errors import CheckpointError
from .pickle_machine import Machine, UnknownName, kind_of

ZIP = b"PK\x03\x04"
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what the older format begins with
START = 64  # bytes that tell what a file is

CHUNK = 2**21  # bytes read at a time; the directory of a zip file must fit in one, that of DenseNet-264 has 150 kB
LOCAL_HEADER = 30  # bytes before the name in front of each member of a zip file
PICKLE_BYTES = 2**24  # the most that a pickle may have; that of DenseNet-264 has 200 kB

ORDERED_DICT = "collections OrderedDict"
TENSOR, OLD_TENSOR = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor"
PARAMETER = "torch._utils _rebuild_parameter"
STORAGES = {
    "torch FloatStorage": "<f4",
    "torch DoubleStorage": "<f8",
    "torch HalfStorage": "<f2",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "|i1",
    "torch ByteStorage": "|u1",
    "torch BoolStorage": "|b1",
}
# where training programs keep the weights among other things
WRAPPERS = ("state_dict", "model_state_dict", "model")
SAVE_ALONE = "save the weights alone: torch.save(model.state_dict(), FILE)"


def is_torch_file(start: bytes) -> bool:
    """Whether a file that begins with these bytes (``START`` of them) is one of torch.save's. Its name does not matter."""
    return start.startswith(ZIP) or (start.startswith(b"\x80") and MAGIC.to_bytes(10, "little") in start)


def read_torch_file(path: str | Path) -> dict[str, numpy.ndarray]:
    """The state_dict in a file of torch.save, new or old format, as arrays that cannot be written to.

    It may be wrapped, as in {"epoch": 90, "state_dict": …}. Tensors that share a storage share it here; bfloat16 becomes
    float32. Memory stays in proportion to the size of the file, whatever it says about itself.
    Raises CheckpointError for a damaged file, one that asks for anything else of Python's, and one without tensors.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise CheckpointError(f"{path}: not a file")
    try:
        with open(path, "rb") as file:
            start = file.read(START)
            if not is_torch_file(start):
                raise ValueError("it begins like something else")
            size = os.fstat(file.fileno()).st_size
            return from_zip(file, size) if start.startswith(ZIP) else from_one_row(file, size)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnknownName as error:
        raise CheckpointError(
            f"{path}: {error}. If you trust its author, open it with torch and {SAVE_ALONE}"
        ) from None
    # All that zipfile raises for damaged files; RuntimeError: encrypted, or packed in a way it does not know.
    except (ValueError, KeyError, EOFError, OverflowError, RuntimeError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: cannot be read as a file of torch.save: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def numbers_in(raw: Any, dtype: str) -> numpy.ndarray:
    """What bytes stand for. bfloat16 is the upper half of a float32; booleans may be any byte, as in C."""
    if dtype == "bfloat16":
        return (numpy.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    if dtype == "|b1":
        return numpy.frombuffer(raw, "|u1") != 0
    return numpy.frombuffer(raw, dtype)


# -- the pickle -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Storage:
    """`count` numbers of one type in a row, kept elsewhere in the file."""

    key: str
    dtype: str
    count: int

    @property
    def item_bytes(self) -> int:
        return 2 if self.dtype == "bfloat16" else numpy.dtype(self.dtype).itemsize

    @property
    def bytes(self) -> int:
        return self.count * self.item_bytes


@dataclass(frozen=True, slots=True)
class Window:
    """A tensor: its element i, j, … is number offset + i·stride₀ + j·stride₁ + … of a storage.

    It has no more elements than its storage has numbers. With a stride of 0 a few numbers could stand for any shape, and
    whoever copies them would need memory for all of it.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self):
        count, last = 1, self.offset
        for n, step in zip(self.shape, self.stride, strict=True):
            count, last = count * n, last + (n - 1) * step
        if count > self.storage.count:
            stretched = any(n > 1 and step == 0 for n, step in zip(self.shape, self.stride, strict=True))
            raise ValueError(
                f"a tensor of shape {self.shape!s:.200} that uses its {self.storage.count} numbers several times "
                f"({'expand' if stretched else 'as_strided'}); save it as tensor.contiguous()"
            )
        if self.offset > self.storage.count or (count and last >= self.storage.count):
            raise ValueError(f"a tensor that reaches beyond its {self.storage.count} numbers")

    def on(self, numbers: numpy.ndarray) -> numpy.ndarray:
        item = numbers.itemsize
        strides = tuple(item * step for step in self.stride)
        return numpy.ndarray(self.shape, numbers.dtype, numbers.data.toreadonly(), item * self.offset, strides)


class Reader(Machine):
    """The dialect of torch.save, from Python 2 and from Python 3."""

    protocols = (2, 3, 4, 5)
    instructions = frozenset(
        bytes([code]) for code in b"(N\x88\x89JKM\x8aGUT\x8cX)]}aesut\x85\x86\x87qr\x94hjc\x93RbQ\x95"
    )
    known = frozenset((ORDERED_DICT, TENSOR, OLD_TENSOR, PARAMETER, *STORAGES))
    keys = (str, int)
    whose = "no file of plain weights"

    def __init__(self, raw: bytes, at: int = 0):
        super().__init__(raw, at)
        self.storages: dict[str, Storage] = {}

    def text(self, raw):
        return raw.decode()

    def call(self, name, arguments):
        match arguments:
            case () if name == ORDERED_DICT:
                return {}
            case (list(pairs),) if name == ORDERED_DICT:  # as Python 2 wrote it
                self.spend(len(pairs))
                if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
                    raise ValueError("an OrderedDict of something else than pairs")
                made: dict[Any, Any] = {}
                self.put(made, pairs)
                return made
            case (Storage() as storage, offset, shape, stride) if name == OLD_TENSOR:
                return window(storage, offset, shape, stride)
            case (Storage() as storage, offset, shape, stride, _requires_grad, _hooks) if name == TENSOR:
                return window(storage, offset, shape, stride)
            case (Window() as tensor, _requires_grad, _hooks) if name == PARAMETER:
                return tensor
        raise ValueError(f"a call of {name!r} with arguments that torch does not write")

    def build(self, made, state):
        # The _metadata of a state_dict, version numbers of its layers: nothing here depends on them.
        if not isinstance(made, dict) or not isinstance(state, dict):
            raise ValueError(f"{kind_of(state)} as the state of {kind_of(made)}")

    def persistent(self, label):
        match label:
            case ("storage", kind, str(key), str(), count) | ("storage", kind, str(key), str(), count, None):
                dtype = STORAGES.get(getattr(kind, "name", ""))
                if dtype is None or not is_size(count):
                    raise ValueError("a storage of something else than numbers")
                storage = Storage(key, dtype, count)
                if self.storages.setdefault(key, storage) != storage:
                    raise ValueError(f"storage {key:.40} is described in two ways")
                return storage
        raise ValueError("something outside of the pickle that is no storage")


def window(storage: Storage, offset: Any, shape: Any, stride: Any) -> Window:
    """A tensor that lies in its storage; raises ValueError when it does not."""
    sizes = isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride) <= 64
    if not sizes or not all(is_size(n) for n in (offset, *shape, *stride)):
        raise ValueError("a tensor whose shape, offset or stride are not whole numbers that go together")
    return Window(storage, offset, shape, stride)


def is_size(n: Any) -> bool:
    return type(n) is int and 0 <= n < 2**48


def state_dict_in(value: Any) -> dict[str, Window]:
    """The tensors by name, from what was saved. Raises ValueError when there are none, or something else among them."""
    if not isinstance(value, dict):
        what = "a tensor" if isinstance(value, Window) else kind_of(value)
        raise ValueError(f"it holds {what} where a state_dict, tensors by name, should be; {SAVE_ALONE}")
    parts = [value, *(value[name] for name in WRAPPERS if isinstance(value.get(name), dict))]
    found = next((part for part in parts if any(isinstance(item, Window) for item in part.values())), None)
    if found is None:
        some = ", ".join(f"{key!s:.40}" for key in list(value)[:5])
        raise ValueError(f"no tensors by name in it, but {some or 'nothing'}; {SAVE_ALONE}")
    for name, item in found.items():
        if not isinstance(item, Window):
            raise ValueError(f"its entry {name!r:.100} is {kind_of(item)} and not a tensor with a name; {SAVE_ALONE}")
        if not isinstance(name, str):
            raise ValueError(f"its entry {name!r:.100} is a tensor without a name; {SAVE_ALONE}")
    return cast(dict[str, Window], found)


def arrays_of(windows: dict[str, Window], read: Callable[[Storage], Any]) -> dict[str, numpy.ndarray]:
    """The tensors as arrays; each storage is read once."""
    numbers: dict[str, numpy.ndarray] = {}
    arrays = {}
    for name, tensor in windows.items():
        key = tensor.storage.key
        if key not in numbers:
            numbers[key] = numbers_in(read(tensor.storage), tensor.storage.dtype)
        arrays[name] = tensor.on(numbers[key])
    return arrays


# -- zip files: NAME/data.pkl, NAME/data/0, NAME/data/1, … ------------------------------------------------------------


def from_zip(file: IO[bytes], size: int) -> dict[str, numpy.ndarray]:
    """Read a file of torch 1.6 or later. zipfile compares the checksum of every member that is read."""
    with zipfile.ZipFile(cast(IO[bytes], InPieces(file))) as archive:
        members = members_of(archive, size)
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("a zip file, but not of torch.save: it has no data.pkl" if not pickles else "two data.pkl")
        folder = pickles[0].removesuffix("data.pkl")

        def content(name: str, most: int) -> bytearray:
            if folder + name not in members:
                raise ValueError(f"its part {name!r:.100} is missing")
            member = members[folder + name]
            if member.file_size > most:
                raise ValueError(f"its part {name!r:.100} has {member.file_size:,} bytes, which is too many")
            raw = bytearray(member.file_size)
            with archive.open(member) as opened:
                at = 0
                while piece := opened.read(CHUNK):  # at its end the checksum is compared
                    raw[at : at + len(piece)] = piece
                    at += len(piece)
            if at != len(raw):
                raise ValueError(f"its part {name!r:.100} ends too early")
            return raw

        if folder + "byteorder" in members and content("byteorder", 16) != b"little":
            raise ValueError("its numbers are big-endian; save it again on another machine")

        def read(storage: Storage) -> bytearray:
            raw = content(f"data/{storage.key}", storage.bytes)
            if len(raw) != storage.bytes:
                raise ValueError(f"storage {storage.key:.40} has {len(raw):,} bytes, not {storage.bytes:,}")
            return raw

        return arrays_of(state_dict_in(Reader(bytes(content("data.pkl", PICKLE_BYTES))).run()), read)


def members_of(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members by name. Together they fit into the file: none is packed, twice there, or over another."""
    members: dict[str, zipfile.ZipInfo] = {}
    behind = 0
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        name = member.filename
        if name in members:
            raise ValueError(f"its part {name!r:.100} is there twice")
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError(f"its part {name!r:.100} is compressed, which torch.save does not do")
        if member.header_offset < behind:
            raise ValueError(f"its part {name!r:.100} lies over another")
        behind = member.header_offset + LOCAL_HEADER + len(name) + member.file_size
        if behind > size:
            raise ValueError(f"its part {name!r:.100} reaches beyond the end of the file; it is damaged or cut short")
        members[name] = member
    return members


class InPieces:
    """A file that refuses to be read in big pieces: the end of a zip file may claim a directory of any size."""

    def __init__(self, file: IO[bytes]):
        self.seek, self.tell, self.seekable, self._read = file.seek, file.tell, file.seekable, file.read

    def read(self, size: int = -1) -> bytes:
        if size > CHUNK:
            raise ValueError(f"a directory of {size:,} bytes")
        return self._read(size)


# -- the older format: five pickles, then the storages ----------------------------------------------------------------


def from_one_row(file: IO[bytes], size: int) -> dict[str, numpy.ndarray]:
    """Magic number, version, machine, what was saved, keys of storages, and the storages: their length and their numbers.

    It has no checksums: a wrong byte among the numbers is a wrong number.
    """
    file.seek(0)
    raw = file.read(size)
    if (magic := Reader(raw)).run() != MAGIC or (version := Reader(raw, magic.at)).run() != PROTOCOL:
        raise ValueError("neither its magic number nor its version are those of torch.save")
    machine = (about := Reader(raw, version.at)).run()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("its numbers are big-endian; save it again on another machine")
    windows = state_dict_in((saved := Reader(raw, about.at)).run())
    keys = (listed := Reader(raw, saved.at)).run()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise ValueError("its list of storages is none")
    if set(keys) != saved.storages.keys():
        raise ValueError("it lists other storages than its tensors lie in")
    places, at = {}, listed.at
    for key in keys:
        storage = saved.storages[key]
        if raw[at : at + 8] != storage.count.to_bytes(8, "little"):
            raise ValueError(f"storage {key:.40} is cut short, or has not the {storage.count:,} numbers it should have")
        places[key] = at + 8
        at += 8 + storage.bytes
    if at != size:
        raise ValueError(f"it has {size:,} bytes where its storages end at {at:,}")

    def read(storage: Storage) -> memoryview:
        place = places[storage.key]
        return memoryview(raw)[place : place + storage.bytes]

    return arrays_of(windows, read)
