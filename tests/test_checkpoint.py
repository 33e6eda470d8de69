"""Weights and training state survive the way to the disk and back bit for bit, and nothing half-written ever bears their name."""

import builtins
import errno
import json
import os
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from minidense import Tensor, models, no_grad, train
from minidense import functional as F
from minidense.checkpoint import FORMAT, Checkpoint, Progress, read_weights, save_weights, write_whole
from minidense.command import WRONG_COMMAND_LINE
from minidense.errors import CheckpointError
from minidense.optim import SGD

STATE = {
    "config": {"model": "densenet_bc_10_4", "learning_rate": 0.1, "out": 'odd "name" \U0001f642', "limit_train": None},
    "history": [{"epoch": 1, "train_loss": 0.1 + 0.2, "seconds": 1e-300}],
    "progress": Progress(epoch=1, step=3, images=96, loss=2 / 3, hits=7, seconds=0.25),
}
fuzz = settings(max_examples=200, deadline=None, derandomize=True, database=None)  # the same examples every time


def trained(*, seed=0, growth_rate=4, steps=3, classes=10):
    """A small network and its optimiser after a few steps: everything has moved."""
    model = models.create(f"densenet_bc_10_{growth_rate}", in_channels=1, seed=seed, classes=classes)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        images, labels = rng.standard_normal((8, 1, 8, 8), np.float32), rng.integers(0, classes, 8)
        optimizer.zero_grad()
        F.cross_entropy(model(Tensor(images)), labels).backward()
        optimizer.step()
    return model, optimizer


def same_arrays(a, b) -> bool:
    return a.keys() == b.keys() and all(
        (a[name].shape, a[name].dtype, a[name].tobytes()) == (b[name].shape, b[name].dtype, b[name].tobytes())
        for name in a
    )


def state_of(model, optimizer):
    return model.state_dict(), {p: (id(v), v.tobytes()) for p, v in optimizer.velocity.items()}


@pytest.fixture
def saved(tmp_path):
    """The file of a checkpoint, and what is in it."""
    checkpoint = Checkpoint.of(*trained(), **STATE)
    checkpoint.save(tmp_path / "last.safetensors")
    return tmp_path / "last.safetensors", checkpoint


# -- there and back ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_bit_for_bit(saved):
    file, checkpoint = saved
    again = Checkpoint.load(file)
    assert same_arrays(again.arrays, checkpoint.arrays)
    assert (again.config, again.history, again.progress) == (STATE["config"], STATE["history"], STATE["progress"])


def test_a_checkpoint_holds_the_model_its_statistics_and_every_velocity(saved):
    _, checkpoint = saved
    model, optimizer = trained()
    parameters = dict(model.named_parameters())
    assert checkpoint.arrays.keys() == {f"model.{name}" for name in model.state_dict()} | {
        f"velocity.{name}" for name in parameters
    }
    assert same_arrays(checkpoint.weights(), model.state_dict())
    for name, parameter in parameters.items():
        assert checkpoint.arrays[f"velocity.{name}"].tobytes() == optimizer.velocity[parameter].tobytes()
        assert checkpoint.arrays[f"velocity.{name}"].any()
    assert checkpoint.arrays["model.features.norm5.num_batches_tracked"] == 3


def test_a_restored_run_makes_the_same_next_step(saved):
    file, _ = saved
    original, restored = trained(), trained(seed=5, steps=1)
    Checkpoint.load(file).restore(*restored)
    assert same_arrays(restored[0].state_dict(), original[0].state_dict())
    images, labels = np.random.default_rng(8).standard_normal((8, 1, 8, 8), np.float32), np.arange(8)
    for model, optimizer in (original, restored):
        optimizer.zero_grad()
        F.cross_entropy(model(Tensor(images)), labels).backward()
        optimizer.step()
    assert same_arrays(restored[0].state_dict(), original[0].state_dict())


def test_a_checkpoint_is_a_copy_that_further_training_does_not_change():
    model, optimizer = trained()
    checkpoint = Checkpoint.of(model, optimizer, **STATE)
    before = {name: array.copy() for name, array in checkpoint.arrays.items()}
    for parameter in model.parameters():
        parameter.data += 1
        optimizer.velocity[parameter] += 1
    assert same_arrays(checkpoint.arrays, before)


def test_restoring_does_not_tie_the_model_to_the_checkpoint(saved):
    file, _ = saved
    checkpoint = Checkpoint.load(file)
    before = {name: array.copy() for name, array in checkpoint.arrays.items()}
    model, optimizer = trained(seed=5)
    checkpoint.restore(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = np.ones_like(parameter.data)
    optimizer.step()
    optimizer.step()
    assert same_arrays(checkpoint.arrays, before)


def test_a_run_without_momentum_is_saved_without_velocities(tmp_path):
    model = models.create("densenet_bc_10_4", in_channels=1)
    optimizer = SGD(model.parameters(), lr=0.1)
    Checkpoint.of(model, optimizer, **STATE).save(tmp_path / "a")
    again = Checkpoint.load(tmp_path / "a")
    assert same_arrays(again.arrays, {f"model.{name}": array for name, array in model.state_dict().items()})
    again.restore(*trained(seed=3))


def test_a_checkpoint_of_the_gpu_is_read_on_the_cpu_and_the_other_way(strict_gpu, tmp_path):
    model, optimizer = trained()
    on_gpu = models.create("densenet_bc_10_4", in_channels=1, seed=4, device=strict_gpu)
    gpu_optimizer = SGD(on_gpu.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    Checkpoint.of(model, optimizer, **STATE).restore(on_gpu, gpu_optimizer)
    assert on_gpu.device == "gpu"
    assert {type(v) for v in gpu_optimizer.velocity.values()} == {type(on_gpu.parameters()[0].data)}
    back = Checkpoint.of(on_gpu, gpu_optimizer, **STATE)
    assert same_arrays(back.arrays, Checkpoint.of(model, optimizer, **STATE).arrays)
    back.save(tmp_path / "gpu")
    assert same_arrays(Checkpoint.load(tmp_path / "gpu").arrays, back.arrays)


# -- weights alone ----------------------------------------------------------------------------------------------------


def test_weights_load_into_a_fresh_model_that_then_computes_the_same(tmp_path):
    model, _ = trained()
    save_weights(model.state_dict(), tmp_path / "weights.safetensors")
    fresh = models.create("densenet_bc_10_4", in_channels=1, seed=77)
    fresh.load_state_dict(read_weights(tmp_path / "weights.safetensors"))
    images = Tensor(np.random.default_rng(1).standard_normal((4, 1, 8, 8), np.float32))
    with no_grad():
        expected, computed = (m.eval()(images).numpy() for m in (model, fresh))
    assert computed.tobytes() == expected.tobytes()


def test_the_weights_of_a_checkpoint_are_a_state_dict(saved):
    file, _ = saved
    fresh = models.create("densenet_bc_10_4", in_channels=1, seed=77)
    fresh.load_state_dict(Checkpoint.load(file).weights())
    assert same_arrays(fresh.state_dict(), trained()[0].state_dict())


def test_other_programs_can_read_the_weights(tmp_path):
    model, _ = trained()
    save_weights(model.state_dict(), str(tmp_path / "weights.safetensors"))  # a plain string is a path too
    assert same_arrays(safetensors.numpy.load_file(tmp_path / "weights.safetensors"), model.state_dict())


def test_weights_alone_are_not_enough_to_resume_and_the_message_says_what_is(tmp_path):
    save_weights(trained()[0].state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: weights only.*last\.safetensors"):
        Checkpoint.load(tmp_path / "weights.safetensors")


@given(
    st.lists(st.tuples(st.text(min_size=1), st.lists(st.integers(0, 4), max_size=4)), max_size=6), st.integers(0, 99)
)
@fuzz
def test_any_arrays_under_any_names_come_back(tmp_path_factory, entries, seed):
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.standard_normal(shape).astype(rng.choice(["f2", "f4", "f8", "i8", "u1"])) for name, shape in entries
    }
    weights.pop("__metadata__", None)  # the format's own
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    save_weights(weights, file)
    assert same_arrays(read_weights(file), weights)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.0, 1e-45])
def test_odd_numbers_come_back_as_they_are(value, tmp_path):
    weights = {"x": np.full(3, value, np.float32), "scalar": np.array(7), "none": np.zeros((0, 3), np.float32)}
    save_weights(weights, tmp_path / "odd")
    assert same_arrays(read_weights(tmp_path / "odd"), weights)


# -- written whole or not at all --------------------------------------------------------------------------------------


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


class HalfWritten:
    """A file on a disk that is full after ten bytes."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        self.file.write(content[:10])
        full_disk()


def break_the_disk(where: str, monkeypatch) -> None:
    """From now on writing fails: when the file is opened, after ten bytes, when it is to reach the disk, or to get its name."""
    original = builtins.open
    if where == "open":
        monkeypatch.setattr(builtins, "open", full_disk)
    elif where == "write":
        monkeypatch.setattr(builtins, "open", lambda *args, **kwargs: HalfWritten(original(*args, **kwargs)))
    else:
        monkeypatch.setattr(os, where, full_disk)


@pytest.mark.parametrize("where", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("old", [b"the old content", None], ids=["over a file", "a new file"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(where, old, tmp_path, monkeypatch):
    file = tmp_path / "precious"
    if old is not None:
        file.write_bytes(old)
    with monkeypatch.context() as broken:
        break_the_disk(where, broken)
        with pytest.raises(OSError, match="No space left"):
            write_whole(file, b"the new content, which is longer")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({"precious": old} if old else {})
    write_whole(file, b"the new content")  # when there is room again
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"precious": b"the new content"}


@pytest.mark.parametrize("where", ["open", "write", "fsync", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one_usable(where, saved, monkeypatch):
    file, checkpoint = saved
    with monkeypatch.context() as broken:
        break_the_disk(where, broken)
        with pytest.raises(OSError, match="No space left"):
            Checkpoint.of(*trained(seed=2), **STATE).save(file)
        with pytest.raises(OSError, match="No space left"):
            save_weights({"x": np.ones(3)}, file)
    assert same_arrays(Checkpoint.load(file).arrays, checkpoint.arrays)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_ctrl_c_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "precious"
    file.write_bytes(b"old")

    def ctrl_c(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            write_whole(file, b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"precious": b"old"}


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """In this order a power cut leaves the old file or the new one: write, fsync, rename, fsync of the folder."""
    done = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(number):
        size = os.fstat(number).st_size
        done.append("fsync of 11 bytes" if size == 11 else "fsync of the folder")
        fsync(number)

    def noted_replace(source, target):
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_whole(tmp_path / "file", b"eleven byte")
    assert done == ["fsync of 11 bytes", "rename", *(["fsync of the folder"] if os.name == "posix" else [])]


def test_what_a_crash_left_is_overwritten_by_the_next_write(tmp_path):
    (tmp_path / ".file.tmp").write_bytes(b"half of what there was to wri")
    write_whole(tmp_path / "file", b"all")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"all"}


def test_a_process_killed_while_it_writes_leaves_a_whole_checkpoint(tmp_path):
    """Five kills in the middle of a loop that writes 200 kB files as fast as it can. Written in place, most would be lost."""
    code = (
        "import numpy, pathlib, itertools\nfrom minidense.checkpoint import Checkpoint, Progress\n"
        "print('ready', flush=True)\n"
        "for i in itertools.count():\n"
        "    Checkpoint({'model.x': numpy.full(50_000, i, 'f4')}, {'seed': i}, [], Progress()).save(pathlib.Path('last.safetensors'))\n"
    )
    for attempt in range(5):
        writer = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
        try:
            writer.stdout.readline()
            deadline = time.monotonic() + 30
            while not (tmp_path / "last.safetensors").exists() and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(0.003 + 0.011 * attempt)
        finally:
            writer.kill()
            writer.wait()
            writer.stdout.close()
        checkpoint = Checkpoint.load(tmp_path / "last.safetensors")
        assert (checkpoint.arrays["model.x"] == checkpoint.config["seed"]).all()
    assert {path.name for path in tmp_path.iterdir()} <= {"last.safetensors", ".last.safetensors.tmp"}


# -- files that are no checkpoints ------------------------------------------------------------------------------------


def file_of(header, data: bytes = b"") -> bytes:
    """A safetensors file by hand: the length of the header, the header, the arrays."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def with_notes(**notes) -> bytes:
    return file_of({"__metadata__": {key: json.dumps(value) for key, value in notes.items()}})


UNREADABLE = {
    "empty": b"",
    "one byte": b"x",
    "text": b"this is not a checkpoint\n" * 40,
    "zeros": bytes(1000),
    "a pickle": b"\x80\x04cos\nsystem\n\x8c\x0cmkdir canary\x85R." * 10,
    "a header of 2^62 bytes": struct.pack("<Q", 2**62) + b"{}",
    "a header that is no JSON": file_of(b"{{{{"),
    "a header that is a list": file_of([1, 2]),
    "arrays outside the file": file_of({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"1234"),
    "arrays of the wrong size": file_of({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, b"1234"),
    "a type NumPy lacks": file_of({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
    "another type NumPy lacks": file_of({"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"1234"),
}

NO_CHECKPOINTS = {
    "no notes": file_of({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    "another program's notes": file_of({"__metadata__": {"format": "pt"}}),
    "another format": with_notes(format="minidense-training-0", config={}, history=[], progress={}),
    "no history": with_notes(format=FORMAT, config={}, progress={}),
    "notes that are no JSON": file_of(
        {"__metadata__": {"format": json.dumps(FORMAT), "config": "{", "history": "[]", "progress": "{}"}}
    ),
    "notes nested without end": file_of(
        {"__metadata__": {"format": json.dumps(FORMAT), "config": "[" * 100_000, "history": "[]", "progress": "{}"}}
    ),
    "a config that is a list": with_notes(format=FORMAT, config=[], history=[], progress={}),
    "a history that is a number": with_notes(format=FORMAT, config={}, history=5, progress={}),
    "progress that is a word": with_notes(format=FORMAT, config={}, history=[], progress="far"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_cannot_be_read_is_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(UNREADABLE[name])
    for read in (Checkpoint.load, read_weights):
        with pytest.raises(CheckpointError, match="file: ") as refusal:
            read(Path("file"))
        assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_a_safetensors_file_that_is_no_checkpoint_is_refused_by_name(name, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(NO_CHECKPOINTS[name])
    read_weights(file)  # it is a proper safetensors file
    with pytest.raises(CheckpointError, match="file: "):
        Checkpoint.load(file)


@pytest.mark.parametrize("part", ["config", "progress"])
def test_a_checkpoint_of_another_version_is_refused_in_one_line(part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    notes = {"config": {"model": "densenet_bc_10_4"}, "history": [], "progress": {"epoch": 1}}
    notes[part]["from_the_future"] = 1
    Path("last.safetensors").write_bytes(with_notes(format=FORMAT, **notes))
    assert train.main(["--resume", "last.safetensors"]) == WRONG_COMMAND_LINE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "another version" in error
    assert "from_the_future" in error


@pytest.mark.parametrize("read", [Checkpoint.load, read_weights])
def test_a_file_that_is_not_there_is_refused_by_name(read, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such file"):
        read(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(share, saved):
    file, _ = saved
    raw = file.read_bytes()
    file.write_bytes(raw[: int(share * len(raw))])
    for read in (Checkpoint.load, read_weights):
        with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
            read(file)


VALID = safetensors.numpy.save(
    {"model.a": np.arange(6, dtype=np.float32).reshape(2, 3), "velocity.a": np.ones(3)},
    {"format": json.dumps(FORMAT), "config": "{}", "history": "[]", "progress": "{}"},
)


@fuzz
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 60)
)
def test_a_damaged_checkpoint_is_refused_or_read(tmp_path_factory, changes, cut):
    raw = bytearray(VALID)
    for place, value in changes:
        raw[place] = value
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(raw[: len(raw) - max(cut - 40, 0)])
    with suppress(CheckpointError):
        Checkpoint.load(file)


# -- checkpoints of other models --------------------------------------------------------------------------------------


def test_the_state_of_another_model_is_refused_with_names_and_shapes_and_changes_nothing():
    other = Checkpoint.of(*trained(growth_rate=6), **STATE)
    model, optimizer = trained(seed=1)
    before = state_of(model, optimizer)
    with pytest.raises(CheckpointError) as refusal:
        other.restore(model, optimizer)
    assert "features.conv0.weight" in str(refusal.value)
    assert "(12, 1, 3, 3)" in str(refusal.value)
    assert same_arrays(model.state_dict(), before[0])
    assert state_of(model, optimizer)[1] == before[1]


def test_weights_of_another_model_are_refused_with_every_name_and_both_shapes():
    model, _ = trained(seed=1)
    before = model.state_dict()
    weights = trained(classes=7)[0].state_dict()
    weights["features.extra.weight"] = weights.pop("features.norm5.bias")
    with pytest.raises(CheckpointError) as refusal:
        model.load_state_dict(weights)
    message = str(refusal.value)
    for words in (
        "missing     features.norm5.bias",
        "unexpected  features.extra.weight",
        "shape       classifier.weight: the model has (10, 9), the file (7, 9)",
        "shape       classifier.bias: the model has (10,), the file (7,)",
    ):
        assert words in message
    assert same_arrays(model.state_dict(), before)


def changed(checkpoint: Checkpoint, change: str) -> Checkpoint:
    """The checkpoint with one array missing, added, or of another shape; what comes before it in the file would fit."""
    arrays = dict(checkpoint.arrays)
    part, what = change.split(" ", 1)
    last = [name for name in arrays if name.startswith(part + ".")][-1]
    if what == "missing":
        del arrays[last]
    elif what == "added":
        arrays[f"{part}.features.extra"] = np.ones(3, np.float32)
    elif what == "of another shape":
        arrays[last] = np.ones((3, *arrays[last].shape), arrays[last].dtype)
    else:
        arrays[last] = np.full(arrays[last].shape, "words")
    return Checkpoint(arrays, **STATE)


@pytest.mark.parametrize(
    "change",
    [
        "model missing",
        "model added",
        "model of another shape",
        "model of words",
        "velocity added",
        "velocity of another shape",
    ],
)
def test_one_array_that_does_not_fit_is_enough_to_change_nothing(change):
    model, optimizer = trained(seed=1)
    before = state_of(model, optimizer)
    with pytest.raises(CheckpointError, match=r"features\.extra" if "added" in change else r"classifier\.bias"):
        changed(Checkpoint.of(*trained(), **STATE), change).restore(model, optimizer)
    assert same_arrays(model.state_dict(), before[0])
    assert state_of(model, optimizer)[1] == before[1]
