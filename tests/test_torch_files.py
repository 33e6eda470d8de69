"""Files of torch.save: what torch writes is read bit for bit, and what hostile files ask for never happens."""

import io
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from minidense import pickle_machine, torch_files
from minidense.errors import CheckpointError
from minidense.torch_files import is_torch_file, read_torch_file

try:
    import torch
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="reads files that PyTorch writes: pip install torch==2.13.0")

# -- files by hand ----------------------------------------------------------------------------------------------------

P2 = b"\x80\x02"
MAGIC = P2 + b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
VERSION = P2 + b"M\xe9\x03."
LITTLE = P2 + b"}X\x0d\0\0\0little_endian\x88s."
V2 = b"ctorch._utils\n_rebuild_tensor_v2\n"
NEW_DICT = b"ccollections\nOrderedDict\n)R"


def text(words) -> bytes:
    """BINUNICODE."""
    return b"X" + struct.pack("<I", len(words.encode())) + words.encode()


def whole(n: int) -> bytes:
    """LONG1."""
    raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def storage(key="0", *, kind="torch\nFloatStorage", count=6, more=b"") -> bytes:
    return b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu") + whole(count) + more + b"tQ"


def numbers(*values) -> bytes:
    return b"(" + b"".join(map(whole, values)) + b"t"


def tensor(place=None, *, offset=0, shape=(2, 3), stride=(3, 1), rebuild=V2, after=b"\x89" + NEW_DICT) -> bytes:
    place = storage() if place is None else place
    return rebuild + b"(" + place + whole(offset) + numbers(*shape) + numbers(*stride) + after + b"tR"


def saved(entries=None, *, end=b".") -> bytes:
    """A pickle of {"x": a tensor} or of other entries."""
    entries = {"x": tensor()} if entries is None else entries
    return P2 + b"}(" + b"".join(text(name) + code for name, code in entries.items()) + b"u" + end


SIX = np.arange(6, dtype="<f4").tobytes()


def zipped(code=None, storages=None, *, folder="archive", others=None, **how) -> bytes:
    """A zip file as torch writes it."""
    file = io.BytesIO()
    members = {"data.pkl": saved() if code is None else code, "byteorder": b"little", "version": b"3\n"} | (
        others or {}
    )
    members |= {f"data/{key}": raw for key, raw in ({"0": SIX} if storages is None else storages).items()}
    with zipfile.ZipFile(file, "w", **how) as archive:
        for name, raw in members.items():
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}"), raw, compress_type=how.get("compression", 0))
    return file.getvalue()


def in_a_row(code=None, storages=None, *, machine=LITTLE, keys=None, end=b"") -> bytes:
    """The older format."""
    storages = {"0": (6, SIX)} if storages is None else storages
    keys = list(storages) if keys is None else keys
    listed = P2 + b"](" + b"".join(map(text, keys)) + b"e."
    rows = b"".join(struct.pack("<q", count) + raw for count, raw in storages.values())
    return MAGIC + VERSION + machine + (saved() if code is None else code) + listed + rows + end


def read(raw: bytes):
    """What is read from these bytes; the file lies in the current folder."""
    Path("weights.pth").write_bytes(raw)
    return read_torch_file("weights.pth")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@contextmanager
def memory_below(limit: int):
    """Fails when Python holds more than `limit` bytes at once inside."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit


BOTH = pytest.mark.parametrize("write", [zipped, in_a_row])


@BOTH
def test_the_files_made_by_hand_are_read(write):
    (name, x), *others = read(write()).items()
    assert (name, others) == ("x", [])
    assert x.dtype == np.float32
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]


@needs_torch
@BOTH
def test_the_files_made_by_hand_are_such_as_torch_reads(write):
    code = saved({"x": tensor(storage(more=b"N" if write is in_a_row else b""))})
    assert torch.load(io.BytesIO(write(code)), weights_only=True)["x"].tolist() == [[0, 1, 2], [3, 4, 5]]


# -- files that torch writes ------------------------------------------------------------------------------------------


def everything():
    """A state_dict with all types, and with windows of every kind on storages."""
    base = torch.arange(24.0)
    state = {
        "contiguous": base.reshape(4, 6),
        "a part of the same": base.reshape(4, 6)[1:3, 1::2],
        "transposed": base.reshape(4, 6).T,
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "scalar": torch.tensor(7),
        "nothing": torch.zeros(0, 3),
        "truth": torch.tensor([True, False, True]),
        "odd numbers": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        **{str(t): torch.arange(5).to(getattr(torch, t)) for t in TYPES},
    }
    # an OrderedDict with _metadata
    module = torch.nn.BatchNorm1d(2).state_dict()
    module.update(state)
    return module


TYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")
FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "in a row"])


def written_by_torch(value, new, **how) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=new, **how)
    return file.getvalue()


@needs_torch
@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_writes_is_read_bit_for_bit(new, protocol):
    state = everything()
    arrays = read(written_by_torch(state, new, pickle_protocol=protocol))
    assert list(arrays) == list(state)
    for name, expected in state.items():
        expected = expected.detach()
        expected = (expected.float() if expected.dtype == torch.bfloat16 else expected).numpy()
        assert (arrays[name].dtype, arrays[name].shape) == (expected.dtype, expected.shape), name
        assert arrays[name].tobytes() == expected.tobytes(), name
        assert not arrays[name].flags.writeable


@needs_torch
@FORMATS
def test_what_shares_a_storage_shares_it_here_and_it_is_read_once(new):
    big = torch.zeros(500_000)
    raw = written_by_torch({f"layer{i}": big[i:] for i in range(50)}, new)
    Path("weights.pth").write_bytes(raw)
    with memory_below(8_000_000):  # 2 MB are in the file, and are read in pieces; fifty copies would have 100
        arrays = read_torch_file("weights.pth")
    assert np.shares_memory(arrays["layer0"], arrays["layer49"])


@needs_torch
@FORMATS
@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_weights_are_found_among_the_other_things_of_a_training_program(new, wrapper):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    among = {"epoch": 90, "arch": "densenet121", "best": 75.5, "optimizer": optimizer.state_dict(), "nothing": None}
    arrays = read(written_by_torch({**among, wrapper: model.state_dict()}, new))
    assert arrays.keys() == {"weight", "bias"}
    assert arrays["weight"].tolist() == model.weight.tolist()


@needs_torch
@FORMATS
@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (lambda: torch.nn.Linear(2, 2), "torch.nn.modules.linear Linear"),
        (lambda: {"x": torch.zeros(2, dtype=torch.complex64)}, "torch ComplexFloatStorage"),
        (lambda: {"x": torch.zeros(2), "options": Path("a")}, "pathlib"),
        (lambda: {"x": torch.zeros(2, dtype=torch.float8_e5m2)}, "torch._utils _rebuild_tensor_v3"),
        (lambda: {"x": np.float64(3)}, "numpy"),
        (lambda: {"x": torch.eye(2).to_sparse()}, "torch._utils _rebuild_sparse_tensor"),
    ],
    ids=["module", "complex", "path", "float8", "numpy", "sparse"],
)
def test_anything_else_than_plain_weights_is_refused_by_its_name_with_the_way_out(thing, name, new):
    with pytest.raises(CheckpointError) as refusal:
        read(written_by_torch(thing(), new))
    assert name in str(refusal.value)
    assert str(refusal.value).endswith("save the weights alone: torch.save(model.state_dict(), FILE)")


@needs_torch
def test_two_kinds_of_numbers_without_an_array_type_here_are_told_apart_from_damage():
    for value, words in (
        ({"epoch": 3, "steps": [1, 2]}, "no tensors by name in it, but epoch, steps"),
        ([torch.zeros(2)], "it holds a list where a state_dict, tensors by name, should be"),
        (3, "it holds an int where"),
        (None, "it holds a NoneType where"),
        ({"x": torch.zeros(2), "note": "hello"}, "its entry 'note' is a str and not a tensor with a name"),
        ({"x": torch.zeros(2), "n": 3}, "its entry 'n' is an int and not a tensor with a name"),
        ({"x": torch.zeros(2), 3: torch.zeros(2)}, "its entry 3 is a tensor without a name"),
    ):
        with pytest.raises(CheckpointError) as refusal:
            read(written_by_torch(value, True))
        assert words in str(refusal.value)
        assert str(refusal.value).endswith("; save the weights alone: torch.save(model.state_dict(), FILE)")


@needs_torch
@FORMATS
def test_a_stretched_tensor_is_refused_with_the_way_out(new):
    """Six numbers may stand for 10^12 in this way, and whoever copies them needs as much memory."""
    with pytest.raises(CheckpointError) as refusal:
        read(written_by_torch({"x": torch.arange(4.0).expand(3, 4)}, new))
    assert str(refusal.value) == (
        "weights.pth: cannot be read as a file of torch.save: a tensor of shape (3, 4) that uses its 4 numbers several times "
        "(expand); save it as tensor.contiguous()"
    )
    # One that has room enough in its storage needs no more memory than that.
    x = read(written_by_torch({"x": torch.arange(12.0)[:4].expand(3, 4)}, new))["x"]
    assert x.tolist() == [[0, 1, 2, 3]] * 3


@needs_torch
@FORMATS
def test_the_name_of_a_file_does_not_matter(new):
    raw = written_by_torch({"x": torch.zeros(2)}, new)
    assert is_torch_file(raw[:64])
    Path("weights.safetensors").write_bytes(raw)
    assert read_torch_file("weights.safetensors")["x"].tolist() == [0, 0]


# -- what older versions wrote ----------------------------------------------------------------------------------------


def short(words: str) -> bytes:
    """SHORT_BINSTRING, a str of Python 2."""
    return b"U" + bytes([len(words)]) + words.encode()


def of_python_2() -> bytes:
    """An OrderedDict as Python 2 wrote it, a list of lists for its argument, with a tensor of torch 0.1."""
    place = b"(" + short("storage") + b"ctorch\nFloatStorage\n" + short("94") + short("cpu") + whole(6) + b"NtQ"
    old = tensor(place, rebuild=b"ctorch._utils\n_rebuild_tensor\n", after=b"")
    pairs = b"](](" + short("features.conv0.weight") + old + b"ee"
    return P2 + b"ccollections\nOrderedDict\n" + pairs + b"\x85R}" + short("_metadata") + NEW_DICT + b"sb."


def test_a_file_of_python_2_is_read():
    arrays = read(in_a_row(of_python_2(), {"94": (6, SIX)}))
    assert arrays["features.conv0.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_zip_file_from_before_byteorder_was_written_down_is_little_endian():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", saved())
        archive.writestr("a/data/0", SIX)
    assert read(file.getvalue())["x"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "raw", [zipped(others={"byteorder": b"big"}), in_a_row(machine=LITTLE.replace(b"\x88s", b"\x89s"))]
)
def test_big_endian_files_are_refused(raw):
    with pytest.raises(CheckpointError, match="big-endian"):
        read(raw)


# -- hostile files ----------------------------------------------------------------------------------------------------

CALL = b"cos\nmkdir\n" + text("canary") + b"\x85R"

# Python's own unpickler makes the folder "canary" when it is given one of these.
POISON = {
    "os.mkdir among the tensors": saved({"x": tensor(), "y": CALL}),
    "os.mkdir whose result is thrown away": P2 + CALL + b"0" + saved()[2:],
    "os.mkdir by STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x06canary\x85R.",
    "os.mkdir by INST": b"(S'canary'\nios\nmkdir\n.",
    "os.mkdir by OBJ": b"(cos\nmkdir\n" + text("canary") + b"o.",
    "os.mkdir by NEWOBJ of a lazy map": P2 + b"cbuiltins\nbytes\ncbuiltins\nmap\ncos\nmkdir\n](X\6\0\0\0canarye\x86\x81\x85\x81.",
    "os.mkdir as a key": P2 + b"}(" + CALL + b"K\x01u.",
    "eval": P2 + b"cbuiltins\neval\n" + text("__import__('os').mkdir('canary')") + b"\x85R.",
    "exec": P2 + b"cbuiltins\nexec\n" + text("import os; os.mkdir('canary')") + b"\x85R.",
    "getattr of an imported module": P2
    + b"cbuiltins\ngetattr\ncimportlib\nimport_module\n" + text("os") + b"\x85R" + text("mkdir") + b"\x86R" + text("canary") + b"\x85R.",
    "__setstate__ by BUILD": P2 + b"cargparse\nNamespace\n)\x81}" + text("__setstate__") + b"cos\nmkdir\nsb" + text("canary") + b"b.",
    "os.mkdir as an OrderedDict's argument": P2 + b"ccollections\nOrderedDict\n" + CALL + b"\x85R.",
    "os.mkdir as metadata": P2 + NEW_DICT + CALL + b"b.",
}  # fmt: skip

FOUR_GB = struct.pack("<I", 2**32 - 1)
HOSTILE_PICKLES = {
    **POISON,
    "torch.load": saved({"x": b"ctorch\nload\n" + text("canary") + b"\x85R"}),
    "torch.hub.load": saved({"x": b"ctorch.hub\nload\n" + text("canary") + b"\x85R"}),
    "a relative of a known name": saved({"x": tensor(rebuild=b"ctorch._utils\n_rebuild_tensor_v3\n")}),
    "something behind a known name": saved({"x": b"ccollections\nOrderedDict.fromkeys\n"}),
    "a known name in another module": saved({"x": b"cevil\nOrderedDict\n)R"}),
    "a name in two lines": b"\x80\x04\x8c\x0btorch\ncollec\x8c\x0bOrderedDict\x93)R.",
    "a module that is a number": b"\x80\x04K\x01K\x02\x93.",
    "a name of 60,000 letters": b"\x80\x04" + text("x" * 60_000) + text("y") + b"\x93.",
    "a call of a storage type": saved({"x": b"ctorch\nFloatStorage\n(K\x05tR"}),
    "a call of a tensor": saved({"x": tensor() + b")R"}),
    "a state for a tensor": saved({"x": tensor() + b"}b"}),
    "a state that is a list": P2 + NEW_DICT + b"]b.",
    "a tensor on a number": saved({"x": V2 + b"(K\x01K\x00K\x01\x85K\x01\x85\x89)tR"}),
    "a tensor on nothing": saved({"x": V2 + b")R"}),
    "a parameter of a number": saved({"x": b"ctorch._utils\n_rebuild_parameter\nK\x01\x88)\x87R"}),
    "an OrderedDict of numbers": P2 + b"ccollections\nOrderedDict\n](K\x01K\x02e\x85R.",
    "an OrderedDict with a tensor for its key": P2 + b"ccollections\nOrderedDict\n](" + tensor() + b"K\x01\x86e\x85R.",
    "an OrderedDict of 2,000 pairs, 2,000 times": P2
    + b"ccollections\nOrderedDict\nq\x00](" + b"K\x01K\x01\x86" * 2_000 + b"e\x85q\x01" + b"h\x00h\x01R" * 2_000 + b".",
    "a key that is a tuple in tuples": P2 + b"}(K\x01" + b"\x85" * 50_000 + b"K\x01u.",
    "30,000 lists in each other": saved({"x": b"](" * 30_000 + b"e" * 30_000}),
    "a list that holds itself": saved({"x": b"]q\x00(h\x00e"}),
    "a billion laughs": saved({"x": b"](NNNNNNNNNNe" + b"".join(b"q%c](" % i + (b"h%c" % i) * 10 + b"e" for i in range(60))}),
    "200,000 empty lists": P2 + b"(" + b"]" * 200_000 + b"t.",
    "a string of 4 GB": P2 + b"X" + FOUR_GB + b"x.",
    "a string of Python 2 of 4 GB": P2 + b"T" + FOUR_GB + b"x.",
    "a frame of 2^62 bytes around nothing": b"\x80\x04\x95" + struct.pack("<Q", 2**62),
    "bytes of 2^62": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "a number of 2 GB": P2 + b"\x8b\xff\xff\xff\x7f.",
    "memo entry 2^32 - 1 that nobody wrote": P2 + b"j" + FOUR_GB + b".",
    "memo of nothing": P2 + b"q\x00.",
    "text that is no UTF-8": P2 + b"}X\x02\0\0\0\xff\xfeK\x01s.",
    "a persistent id in words": b"Pcanary\n.",
    "a persistent id that is a path": saved({"x": text("/etc/passwd") + b"Q"}),
    "a view of a storage": saved({"x": tensor(storage(more=b"(" + text("1") + whole(0) + whole(1) + b"t"))}),
    "a storage of nothing known": saved({"x": tensor(storage(kind="collections\nOrderedDict"))}),
    "a storage of a negative count": saved({"x": tensor(storage(count=-6))}),
    "a storage of true": saved({"x": tensor(storage().replace(whole(6), b"\x88"))}),
    "a storage of 2^47 numbers": saved({"x": tensor(storage(count=2**47))}),
    "a storage of 2^200 numbers": saved({"x": tensor(storage(count=2**200))}),
    "a storage in two sizes": saved({"x": tensor(), "y": tensor(storage(count=3), shape=(3,), stride=(1,))}),
    "a storage of two types": saved({"x": tensor(), "y": tensor(storage(kind="torch\nIntStorage"))}),
    "a storage that is not there": saved({"x": tensor(storage("1"))}),
    "a storage outside of the file": saved({"x": tensor(storage("../../../../etc/passwd"))}),
    "a storage with too few numbers": saved({"x": tensor(storage(count=7))}),
    "a storage with too many": saved({"x": tensor(storage(count=5), shape=(5,), stride=(1,))}),
    "an offset beyond the end": saved({"x": tensor(offset=1)}),
    "an offset of 2^47": saved({"x": tensor(offset=2**47)}),
    "an offset beyond the end, and no elements": saved({"x": tensor(offset=7, shape=(0, 3))}),
    "an offset before the beginning": saved({"x": tensor(offset=-1)}),
    "a stride beyond the end": saved({"x": tensor(stride=(4, 1))}),
    "a stride of 2^46": saved({"x": tensor(stride=(2**46, 1))}),
    "a stride backwards": saved({"x": tensor(offset=5, stride=(-3, -1))}),
    "a stride of nothing: 6 numbers for 10^12": saved({"x": tensor(shape=(10**6, 10**6), stride=(0, 0))}),
    "a shape of 2^47": saved({"x": tensor(shape=(2**47,), stride=(1,))}),
    "a shape whose product is 2^64": saved({"x": tensor(shape=(2**32, 2**32), stride=(0, 0))}),
    "a shape in 70 dimensions": saved({"x": tensor(shape=(1,) * 70, stride=(1,) * 70)}),
    "a shape without strides": saved({"x": tensor(stride=())}),
    "a shape of words": saved({"x": V2 + b"(" + storage() + whole(0) + text("ab") + text("cd") + b"\x89)tR"}),
    "a shape of floats": saved({"x": V2 + b"(" + storage() + whole(0) + (b"G" + struct.pack(">d", 6) + b"\x85") * 2 + b"\x89)tR"}),
    "no tensors": saved({"x": b"K\x01"}),
    "nothing by name": P2 + tensor() + b".",
    "a tensor under a number": P2 + b"}K\x01" + tensor() + b"s.",
    "nothing": b"",
    "protocol 0": b"(dp0\n.",
    "protocol 1": saved()[2:],
    "protocol 6": b"\x80\x06" + saved()[2:],
    "an instruction of protocol 4 in protocol 2": P2 + b"}\x8c\x01x" + tensor() + b"s.",
    "no end": saved(end=b""),
    "an end too early": P2 + b"(.",
    "the end of what never began": P2 + b"}u.",
    "a key without a value": P2 + b"}(" + text("x") + b"u.",
}  # fmt: skip


@pytest.mark.parametrize("name", POISON)
def test_the_poison_is_real(name):
    """Otherwise it would prove nothing that our reader does not make the folder."""

    class Anything(pickle.Unpickler):
        def persistent_load(self, label):
            return label

        def find_class(self, module, found):
            return (
                (lambda *_: None)
                if module == "torch._utils"
                else type
                if module == "torch"
                else super().find_class(module, found)
            )

    with suppress(Exception):
        Anything(io.BytesIO(POISON[name])).load()
    assert Path("canary").exists()


@BOTH
@pytest.mark.parametrize("name", HOSTILE_PICKLES)
def test_a_hostile_pickle_is_refused_in_one_line_and_not_executed(name, write, monkeypatch):
    # a tenth, as this is slow under tracemalloc
    monkeypatch.setattr(pickle_machine, "BUDGET", 100_000)
    raw = write(HOSTILE_PICKLES[name])
    Path("weights.pth").write_bytes(raw)
    # 10 MB: as many things as instructions are allowed, at 64 bytes and a place in a list each; 1 MB: the file
    with memory_below(11_000_000), pytest.raises(CheckpointError, match=r"weights\.pth: ") as refusal:
        read_torch_file("weights.pth")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    assert os.listdir() == ["weights.pth"]


def test_a_refused_name_is_said_before_anything_after_it_is_looked_at():
    with pytest.raises(CheckpointError, match="asks for 'os mkdir', which no file of plain weights does; refused"):
        read(zipped(POISON["os.mkdir among the tensors"]))


def changed(raw: bytes, *changes: tuple[bytes, bytes]) -> bytes:
    for old, new in changes:
        assert len(old) == len(new)
        assert old in raw
        raw = raw.replace(old, new)
    return raw


def twice() -> bytes:
    """Two members of one name."""
    file = io.BytesIO(zipped())
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("archive/data/0", SIX[::-1])
    return file.getvalue()


def quine(entries: int) -> bytes:
    """One member of 1 MB that the directory lists many times over."""
    raw = bytes(1_000_000)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, zlib.crc32(raw), len(raw), len(raw), 5, 0) + b"a/000"
    directory = b"".join(
        struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, zlib.crc32(raw), len(raw), len(raw), 5, 0, 0, 0, 0, 0, 0
        )
        + b"a/%03d" % i
        for i in range(entries)
    )
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, entries, entries, len(directory), len(local) + len(raw), 0)
    return local + raw + directory + end


def directory_of_64_bits(size: int) -> bytes:
    """The end of a zip file that claims a directory of a size that only its 64-bit record can say."""
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, 4_000_000, 1)
    return (
        b"PK\3\4"
        + bytes(4_000_000 - 4)
        + record
        + locator
        + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 2**32 - 1, 2**32 - 1, 0)
    )


BOMB = {"compression": zipfile.ZIP_DEFLATED}
HOSTILE_FILES = {
    "empty": b"",
    "text": b"hello\n" * 100,
    "the beginning of a zip file": b"PK\3\4",
    "a zip file of something else": changed(zipped(), (b"data.pkl", b"data.txt")),
    "a zip file of nothing": b"PK\5\6" + bytes(18),
    "two pickles": zipped(others={"data/data.pkl": saved()}),
    "a compressed bomb as storage": zipped(saved({"x": tensor(storage(count=5 * 10**7))}), {"0": bytes(2 * 10**8)}, **BOMB),
    "a compressed bomb as pickle": zipped(P2 + b"]" * 10**8 + b".", **BOMB),
    "a member in LZMA": zipped(compression=zipfile.ZIP_LZMA),
    "a member compressed by a method that nobody knows": changed(
        zipped(), (b"PK\1\2\x14\3\x14\0\0\0\0\0", b"PK\1\2\x14\3\x14\0\0\0\x63\0")
    ),
    "an encrypted member": changed(zipped(), (b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0")),
    "a member twice": twice(),
    "1 MB listed 400 times": quine(400),
    "a directory of 3 MB": directory_of_64_bits(3_000_000),
    "a directory of 2^60 bytes": directory_of_64_bits(2**60),
    "a wrong checksum": zipped().replace(SIX, SIX[::-1]),
    "a pickle of 17 MB": zipped(P2 + b"N" * 17 * 2**20 + b"."),
    "a byteorder of 1 MB": zipped(others={"byteorder": b"l" * 2**20}),
    "a storage longer than it says": zipped(storages={"0": SIX + b"1234"}),
    "a storage shorter than it says": zipped(storages={"0": SIX[:-1]}),
    "the magic number alone": MAGIC,
    "another magic number": P2 + b"K\x01." + MAGIC[2:],
    "another version": MAGIC + P2 + b"M\xe8\x03.",
    "a machine that is a list": in_a_row(machine=P2 + b"]."),
    "a machine that does not say": in_a_row(machine=P2 + b"}."),
    "keys that are no list": in_a_row().replace(P2 + b"](" + text("0") + b"e.", P2 + text("0") + b"."),
    "a key twice": in_a_row(keys=["0", "0"]),
    "a key that no tensor has": in_a_row(keys=["0", "1"]),
    "no key": in_a_row(keys=[]),
    "a row of another length": in_a_row(storages={"0": (5, SIX)}),
    "a row of negative length": in_a_row(storages={"0": (-6, SIX)}),
    "a row of 2^62 numbers": in_a_row(storages={"0": (2**62, SIX)}),
    "a row that ends early": in_a_row(storages={"0": (6, SIX[:-1])}),
    "something behind the end": in_a_row(end=b"x"),
    "a file of torch's first format": b"PK".replace(b"PK", b"sys_info") + bytes(600),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_a_hostile_file_is_refused_in_one_line(name):
    Path("weights.pth").write_bytes(HOSTILE_FILES[name])
    # As many things as instructions are allowed, at 64 bytes and a place in a list each, make 80 MB. The file is held once, and
    # what is cut out of it, and what that becomes.
    limit = 3 * len(HOSTILE_FILES[name]) + 80_000_000
    with memory_below(limit), pytest.raises(CheckpointError, match=r"weights\.pth: ") as refusal:
        read_torch_file("weights.pth")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    assert os.listdir() == ["weights.pth"]


def test_the_words_for_a_few_of_them():
    for name, words in {
        "a compressed bomb as storage": "its part 'archive/data.pkl' is compressed, which torch.save does not do",
        "a member twice": "its part 'archive/data/0' is there twice",
        "1 MB listed 400 times": "its part 'a/001' lies over another",
        "a directory of 3 MB": "a directory of 3,000,000 bytes",
        "a wrong checksum": "Bad CRC-32 for file 'archive/data/0'",
        "a zip file of something else": "a zip file, but not of torch.save: it has no data.pkl",
        "a row of 2^62 numbers": "storage 0 is cut short, or has not the 6 numbers it should have",
    }.items():
        with pytest.raises(CheckpointError) as refusal:
            read(HOSTILE_FILES[name])
        assert words in str(refusal.value)


@pytest.mark.parametrize("place", ["nowhere", ".", "a\0b"])
def test_what_is_no_file_is_refused_by_name(place):
    with pytest.raises(CheckpointError, match=place.replace(".", r"\.")):
        read_torch_file(place)


def test_a_pipe_is_refused_and_not_waited_for():
    os.mkfifo("pipe")
    with pytest.raises(CheckpointError, match="pipe: not a file"):
        read_torch_file("pipe")


# -- damaged files ----------------------------------------------------------------------------------------------------


def like_torch() -> dict[str, bytes]:
    """A small file in both formats with everything in it, as torch would write it, and one of torch's own where it is here."""
    metadata = b"}" + text("_metadata") + NEW_DICT + b"sb."
    window = tensor(offset=1, shape=(2, 2), stride=(3, 1))
    code = P2 + NEW_DICT + b"(" + text("a.weight") + tensor() + text("a.bias") + window + b"u" + metadata
    files = {
        "zip by hand": zipped(code),
        "row by hand": in_a_row(code),
        "row of Python 2": in_a_row(of_python_2(), {"94": (6, SIX)}),
    }
    if torch is not None:
        state = torch.nn.BatchNorm1d(3).state_dict()
        files |= {"zip by torch": written_by_torch(state, True), "row by torch": written_by_torch(state, False)}
    return files


VALID = like_torch()


def content(arrays):
    return {name: (array.shape, array.dtype, array.tobytes()) for name, array in arrays.items()}


@pytest.mark.parametrize("name", VALID)
def test_every_truncation_is_refused(name):
    raw = VALID[name]
    for keep in range(0, len(raw), 1 if len(raw) < 1000 else 5):
        with pytest.raises(CheckpointError):
            read(raw[:keep])


@pytest.mark.parametrize("name", VALID)
def test_a_mutant_reads_the_same_or_is_refused(name):
    """A zip file has checksums. The older format has none, so that a wrong byte may be a wrong number there, but nothing else."""
    rng, raw = random.Random(name), VALID[name]
    expected = content(read(raw))
    refused = 0
    for _ in range(500):
        mutant = bytearray(raw)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            place = rng.randrange(len(raw))
            how = rng.choice(("flip", "set", "delete", "repeat"))
            if how == "flip":
                mutant[min(place, len(mutant) - 1)] ^= 1 << rng.randrange(8)
            elif how == "set":
                mutant[min(place, len(mutant) - 1)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            elif how == "delete":
                del mutant[place : place + rng.randrange(1, 5)]
            else:
                mutant[place:place] = mutant[place : place + rng.randrange(1, 20)]
        try:
            found = content(read(bytes(mutant)))
        except CheckpointError:
            refused += 1
        else:
            assert found == expected or name.startswith("row"), bytes(mutant)
    assert refused > 100
    assert os.listdir() == ["weights.pth"]


def test_random_bytes_behind_a_good_beginning_are_refused():
    rng = random.Random(0)
    for beginning in (
        b"PK\3\4",
        MAGIC,
        MAGIC + VERSION,
        MAGIC + VERSION + LITTLE,
        MAGIC + VERSION + LITTLE + P2 + b"}(",
    ):
        for _ in range(100):
            with pytest.raises(CheckpointError):
                read(beginning + rng.randbytes(200))


def test_reading_takes_time_in_proportion_to_the_file():
    """A million instructions is where it ends, whatever they are."""
    assert pickle_machine.BUDGET == 1_000_000
    with pytest.raises(CheckpointError, match="more than 1,000,000 instructions"):
        read(zipped(P2 + b"N(t" * 500_000 + b"."))
    assert torch_files.PICKLE_BYTES >= 10 * 200_000
