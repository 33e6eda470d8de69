"""Training that does not fit on the GPU ends in one line, which names a batch that does; and CuPy's other troubles end in one as well."""

import re
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import strict_cupy
from test_gpu_steps import Run

import minidense as md
from minidense import fitting, gpus, plots, train
from minidense.backend import to_device
from minidense.command import CANNOT_WRITE, DONE, NO_MEMORY, WRONG_COMMAND_LINE
from minidense.cupy_trouble import in_our_words
from minidense.fast.gpu import graph
from minidense.gpus import available_bytes, out_of_memory_message, peak_bytes
from minidense.step import steps_as_graph

needs_kernels = pytest.mark.usefixtures("kernels")


@pytest.fixture
def command(strict_gpu, tmp_path, monkeypatch, capsys):
    """command("--batch-size", 8): a run of 96 digits on the stand-in; its exit code and what it complains of."""
    monkeypatch.setattr(plots, "learning_curves", lambda history, title: SimpleNamespace(png=lambda title: b""))
    line = "--model densenet_bc_10_4 --data digits --limit-train 96 --limit-test 40 --epochs 2 --device gpu --precision float32"

    def run(*more):
        code = train.main([*line.split(), "--out", str(tmp_path / "run"), *map(str, more)])
        return code, capsys.readouterr().err

    return run


@needs_kernels
@pytest.mark.parametrize(
    ("options", "memory"),
    [
        ((), 500_000),
        ((), 1_000_000),
        (("--limit-train", 100), 1_000_000),  # the last batch is smaller and gets a graph of its own
        (("--no-graph",), 500_000),
        (("--dropout", 0.2), 500_000),
    ],
    ids=str,
)
def test_a_batch_that_is_too_large_ends_with_5_and_one_that_fits(options, memory, command, tmp_path):
    with strict_cupy.memory_of(memory):
        code, said = command("--batch-size", 96, *options)
        assert code == NO_MEMORY == 5
        assert said.count("\n") == 1
        assert re.search(
            r"not enough GPU memory: asked for \d\S* kB more with \S+ [kM]B of \S+ [kM]B in use; a batch", said
        )
        assert "not by us" not in said
        fits = int(re.search(r"a batch of (\d+) would fit: --batch-size \1$", said)[1])
        assert fits <= 16 or fits % 8 == 0
    with strict_cupy.memory_of(memory):
        assert command("--batch-size", fits, *options, "--out", tmp_path / "fits")[0] == DONE
    with strict_cupy.memory_of(memory):  # and it was not merely small
        assert command("--batch-size", 2 * fits, *options, "--out", tmp_path / "too large")[0] == NO_MEMORY


@needs_kernels
def test_where_not_even_one_image_fits_the_model_must_be_smaller(command):
    with strict_cupy.memory_of(50_000):
        code, said = command("--batch-size", 96)
    assert code == NO_MEMORY
    assert said.endswith("; not even one image fits: try a smaller --model\n")


@needs_kernels
@pytest.mark.parametrize("trouble", [RuntimeError("CUDA is out of sorts"), KeyboardInterrupt()], ids=repr)
def test_measuring_that_fails_costs_only_its_answer(trouble, command, monkeypatch):
    def fail(*args):
        raise trouble

    monkeypatch.setattr(fitting, "bytes_of_a_step", fail)
    with strict_cupy.memory_of(500_000):
        code, said = command("--batch-size", 96)
    assert code == NO_MEMORY
    assert said.endswith("in use; try a smaller --batch-size than 96, or a smaller --model\n")


def test_memory_that_the_cpu_lacks_is_not_measured_on_the_gpu(command, monkeypatch):
    def full(*args, **kwargs):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(train, "fit", full)
    monkeypatch.setattr(train, "fitting_batch", lambda *args: pytest.fail("it measured"))
    code, said = command()
    assert code == NO_MEMORY
    assert "not enough memory (Unable to allocate 9 TiB); try a smaller --batch-size than 64" in said


def test_what_is_in_use_is_told_before_it_is_freed(strict_gpu):
    error = MemoryError("Out of memory allocating 800 bytes (allocated so far: 600 bytes).")
    with strict_cupy.memory_of(1000):
        held = [to_device(np.zeros(600, np.uint8), "gpu")]

        def measured():
            held.clear()
            return 4

        said = out_of_memory_message(error, batch_size=8, fitting=measured)
    assert said == (
        "not enough GPU memory: asked for 800 bytes more with 600 bytes of 1.0 kB in use; a batch of 4 would fit: --batch-size 4"
    )
    assert not held


def test_need_counts_what_graphs_keep():
    """100 images in batches of 40: graphs for 40 and for 20, beside an evaluation of 40."""
    sizes = {"fixed": 7.0, "training": 3.0, "testing": 1.0, "images": 100}
    assert fitting.Need(**sizes, graphs=True).of(40) == 7 + 3 * 40 + 3 * 20 + 1 * 40
    assert fitting.Need(**sizes, graphs=True).of(50) == 7 + 3 * 50 + 1 * 50
    assert fitting.Need(**sizes, graphs=False).of(40) == 7 + 3 * 40


def test_what_an_error_held_is_let_go():
    class Held:
        pass

    seen = []

    def inner():
        held = Held()
        seen.append(weakref.ref(held))
        raise ValueError

    def outer():
        held = Held()
        seen.append(weakref.ref(held))
        try:
            inner()
        finally:
            raise MemoryError

    try:
        outer()
    except MemoryError as error:
        assert all(ref() is not None for ref in seen)
        fitting.let_go(error)
        assert [ref() for ref in seen] == [None, None]


def test_the_peak_is_what_the_pool_held_at_most(strict_gpu):
    def step():
        first = to_device(np.zeros(500, np.uint8), "gpu")
        del first
        return to_device(np.zeros(300, np.uint8), "gpu")

    with strict_cupy.memory_of(10_000) as pool:
        kept = to_device(np.zeros(100, np.uint8), "gpu")
        step(), to_device(np.zeros(2000, np.uint8), "gpu")
        assert peak_bytes(step) == 600
        assert available_bytes() == 10_000
        assert pool.total_bytes() == kept.nbytes


def test_a_limit_of_ones_own_is_all_there_is(strict_gpu, monkeypatch):
    monkeypatch.setattr(strict_cupy.MemoryPool, "get_limit", lambda pool: 700)
    with strict_cupy.memory_of(10_000):
        assert available_bytes() == 700


@needs_kernels
def test_before_a_step_is_noted_down_the_steps_before_give_back_their_blocks(strict_gpu):
    """The graph has a pool of its own: both at once would halve the batch that fits."""
    with strict_cupy.memory_of(100_000_000) as pool:
        run = Run(strict_gpu)
        with steps_as_graph(False):
            run.step(32)
            run.step(32)
        eager = pool.total_bytes()
        assert eager > 3 * pool.used_bytes(), "blocks lie idle"
        run.step(32)
        run.step(32)
        (recording,) = run.recordings()
        assert recording.pool.total_bytes() > eager / 2
        assert pool.total_bytes() < eager / 2


@needs_kernels
def test_what_graphs_hold_is_ours(strict_gpu):
    """CuPy names only the bytes of the pool that it was asked of."""
    with strict_cupy.memory_of(2_000_000) as pool:
        run = Run(strict_gpu)
        for _ in range(3):
            run.step(32)
        allocated = pool.total_bytes()
        assert allocated < strict_cupy._held() / 2
        text = f"Out of memory allocating 9,000 bytes (allocated so far: {allocated:,} bytes)."
        assert "not by us" not in out_of_memory_message(MemoryError(text))
        run.optimizer = None
        assert not any(isinstance(owner, graph.Recording) for owner in gpus._pools)


# -- what CuPy says only later ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RuntimeError('Failure finding "libnvrtc.so.13": No such file'), WRONG_COMMAND_LINE, "NVRTC, which compiles kernels"),
        (OSError("libcurand.so.10: cannot open shared object file"), WRONG_COMMAND_LINE, "a library of CUDA is missing"),
        (RuntimeError("cudaErrorMemoryAllocation: out of memory"), NO_MEMORY, "not enough GPU memory (cudaErrorMemoryAllocation"),
        (OSError("No space left on device"), CANNOT_WRITE, "make room"),
    ],
    ids=["nvrtc", "library", "memory", "disk"],
)  # fmt: skip
def test_what_cupy_says_at_the_first_step_ends_in_one_line(error, code, words, command, monkeypatch):
    def fail(*args):
        raise error

    monkeypatch.setattr(train, "training_step", fail)
    found, said = command()
    assert (found, said.count("\n")) == (code, 1)
    assert words in said


def test_what_nobody_knows_keeps_its_traceback(command, monkeypatch):
    monkeypatch.setattr(train, "training_step", lambda *args: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        command()


def test_what_is_in_our_words_already_stays_as_it_is():
    ours = md.DeviceError("cannot be imported: libcudart.so.13: cannot open shared object file")
    with pytest.raises(md.DeviceError) as raised, in_our_words():
        raise ours
    assert raised.value is ours
