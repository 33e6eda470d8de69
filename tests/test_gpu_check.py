"""scripts/gpu_check, as far as it goes without a GPU, on a tiny network; and the GPU bench with pretended workers."""

import importlib.util
import json
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path

import numpy as np
import pytest
import strict_cupy

from minidense.bench import on_gpu
from minidense.bench.contest import Work
from minidense.fast.gpu import launch

loader = SourceFileLoader("gpu_check", str(Path(__file__).parent.parent / "scripts" / "gpu_check"))
gpu_check = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_check", loader))
loader.exec_module(gpu_check)

needs_compiler = pytest.mark.usefixtures("kernels")
TINY = {"name": "densenet_bc_10_4", "size": 8}


class Event:
    """A GPU's clock that ticks at every look."""

    ticks = 0

    def record(self):
        Event.ticks += 1
        self.tick = Event.ticks

    def synchronize(self):
        pass


@pytest.fixture
def clocked_gpu(strict_gpu, monkeypatch):
    monkeypatch.setattr(strict_cupy.cuda, "Event", Event, raising=False)
    monkeypatch.setattr(
        strict_cupy.cuda, "get_elapsed_time", lambda start, stop: float(stop.tick - start.tick), raising=False
    )
    return strict_gpu


@needs_compiler
def test_equality_with_the_cpu_is_seen_and_so_is_its_absence(strict_gpu, tmp_path, monkeypatch):
    found = gpu_check.equality(tmp_path, 100, images=4, **TINY)
    assert found["ok"]
    assert found["errors"]["float32"]["worst"] <= 1e-4
    right = gpu_check.one_step

    def wrong(device, *args, **options):
        one = right(device, *args, **options)
        if device == "gpu":
            one["velocity classifier.bias"] = one["velocity classifier.bias"] * 1.01
        return one

    monkeypatch.setattr(gpu_check, "one_step", wrong)
    assert not gpu_check.equality(tmp_path, 100, images=4, **TINY)["ok"]


@needs_compiler
def test_determinism_is_seen_and_so_is_its_absence(strict_gpu, tmp_path, monkeypatch):
    found = gpu_check.determinism(tmp_path, 100, batch=4, steps=3, **TINY)
    assert found["ok"]
    assert found["sha256"]["float32"] != found["sha256"]["tf32"]
    right, calls = gpu_check.bits_after, []
    monkeypatch.setattr(gpu_check, "bits_after", lambda *args: calls.append(0) or f"{right(*args)}{len(calls)}")
    assert not gpu_check.determinism(tmp_path, 100, batch=4, steps=1, **TINY)["ok"]


@needs_compiler
def test_a_step_is_accounted_for(clocked_gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "copy_bandwidth", lambda cupy: 1e9)
    found = gpu_check.step(tmp_path, 100, batch=4, repeats=1, **TINY)
    kernels = found["precisions"]["tf32"]["kernels"]
    assert kernels["spatial_forward_low"]["launches"] == 1 + 3  # the stem and a layer in each of three blocks
    assert kernels["sgd"]["launches"] == 1
    assert sum(k["launches"] for k in kernels.values()) == found["precisions"]["tf32"]["launches"]
    assert kernels["normalise_and_pool"]["launches"] == 2
    assert found["precisions"]["mixed"]["bytes"] < found["precisions"]["tf32"]["bytes"]
    assert launch.kernel.__name__ == "kernel", "the watch has ended"


def test_bytes_are_counted_twice_where_a_kernel_adds():
    maps, weight, nothing = np.zeros((3, 8), np.float32), np.zeros((2, 3), np.float32), np.uint64(0)
    assert gpu_check.bytes_of("relu", (maps, maps, np.int32(24))) == 2 * 96
    assert gpu_check.bytes_of("settle", (maps, weight)) == 2 * 96 + 24
    pointwise = [weight, nothing, nothing, nothing, weight, maps, nothing, maps, nothing, 1]
    assert gpu_check.bytes_of("pointwise_input_gradient", (*pointwise, 0)) == 2 * 24 + 2 * 96
    assert gpu_check.bytes_of("pointwise_input_gradient_narrow", (*pointwise, 1)) == 2 * 24 + 3 * 96
    assert (
        gpu_check.bytes_of("spatial_input_gradient_low", (weight, weight, maps, nothing, maps, nothing, 1, 1))
        == 48 + 3 * 96
    )


def test_a_part_that_fails_does_not_keep_the_others_from_running(tmp_path, monkeypatch, capsys):
    def part(name, out, seconds):
        if name == "doctor":
            return {"ok": False, "why": "RuntimeError: no such GPU", "seconds": 1.0}
        return {
            "ok": True,
            "summary": "quick",
            "seconds": 2.0,
            "targets": {"as fast as light": False, "faster than a snail": True},
        }

    monkeypatch.setattr(gpu_check, "in_a_process", part)
    given = gpu_check.arguments(["--only", "doctor,step", "--out", str(tmp_path)])
    assert gpu_check.check(given, tmp_path) == 1
    report = json.loads((tmp_path / "gpu-check.json").read_text())
    assert report["parts"]["doctor"]["why"] == "RuntimeError: no such GPU"
    assert report["parts"]["step"]["ok"]
    table = (tmp_path / "gpu-check.txt").read_text().splitlines()
    assert table[0].startswith("FAILED doctor")
    assert table[1].startswith("ok     step")
    assert table[2].split() == ["target:", "as", "fast", "as", "light:", "NOT", "met"]
    assert table[3].endswith("faster than a snail: met")


def test_a_part_has_a_process_of_its_own(tmp_path):
    """Here without a GPU or without CuPy: it fails, and says so."""
    found = gpu_check.in_a_process("doctor", tmp_path, 60)
    assert not found["ok"]
    assert found.get("why") == "ended with 2" or "problem" in " ".join(found["lines"])
    found = gpu_check.in_a_process("doctor", tmp_path, 0.01)
    assert found["why"] == "not done after 0 s"


def test_an_error_in_a_part_is_its_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "step", lambda out, seconds: 1 / 0)
    assert gpu_check.one_part(gpu_check.arguments(["--part", "step"]), tmp_path) == 0
    assert json.loads((tmp_path / "part-step.json").read_text())["why"] == "ZeroDivisionError: division by zero"


def test_skipped_tests_are_no_proof():
    assert gpu_check.verdict(0, ["301 passed, 200 deselected in 90.00s"])["ok"]
    assert not gpu_check.verdict(1, ["301 passed, 1 failed in 90.00s"])["ok"]
    assert not gpu_check.verdict(0, ["90 skipped, 500 deselected in 1.00s"])["ok"]
    assert not gpu_check.verdict(0, ["2 passed, 300 skipped in 1.00s"])["ok"]
    assert not gpu_check.verdict(4, [])["ok"]


def test_targets_that_were_not_measured_are_not_met():
    ratios = {
        "torch eager": {"speed_ratio": 3.5, "memory_ratio": 0.3},
        "torch.compile": {"speed_ratio": 1.2, "memory_ratio": 0.6},
    }
    found = gpu_check.judged({"tf32": {"against": ratios}})
    assert not found["ok"]
    assert found["targets"]["tf32: 3 times the images of torch eager"]
    assert not found["targets"]["tf32: 1.5 times the images of torch.compile"]
    assert not found["targets"]["tf32: half the memory of torch.compile"]
    assert not found["targets"]["mixed: 3 times the images of torch eager"]
    assert "tf32 ×3.50 torch eager (memory ×0.30)" in found["summary"]


def test_folders_are_meant_from_where_the_command_was_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = gpu_check.arguments(["--out", "results", "--data-dir", "data", "--wheels", "wheels"])
    assert (given.out, given.data_dir, given.wheels) == tuple(str(tmp_path / n) for n in ("results", "data", "wheels"))


def test_training_is_interrupted_and_says_how_far_it_came(tmp_path, monkeypatch, capsys):
    """A child that takes no notice of the time is told to stop."""
    stub = tmp_path / "minidense"
    (stub).mkdir()
    (stub / "__init__.py").write_text("")
    (stub / "train.py").write_text(
        "import json, sys, time, pathlib\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--out') + 1]); folder.mkdir(parents=True)\n"
        "(folder / 'log.jsonl').write_text(json.dumps({'epoch': 7}) + '\\n')\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    given = gpu_check.arguments(["--train", "0.03", "--out", str(tmp_path / "out")])
    assert gpu_check.train(given, tmp_path / "out") == 0
    assert "7 epochs done" in capsys.readouterr().out


def test_minutes_are_a_positive_number(capsys):
    with pytest.raises(SystemExit):
        gpu_check.arguments(["--train", "0"])
    assert "above 0" in capsys.readouterr().err


def test_what_is_missing_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu_check, "NEEDED", ("numpy", "no_such_package"))
    monkeypatch.setattr(gpu_check.sys, "path", list(gpu_check.sys.path))
    monkeypatch.setenv("PYTHONPATH", "somebodys")
    assert gpu_check.main(["--out", str(tmp_path)]) == 2
    assert "somebodys" in gpu_check.os.environ["PYTHONPATH"].split(gpu_check.os.pathsep)
    assert "missing here: no_such_package" in capsys.readouterr().out


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        gpu_check.arguments(["--only", "speeed"])
    assert "unknown part 'speeed': choose among doctor, tests" in capsys.readouterr().err


# -- bench ----------------------------------------------------------------------------------------------------------------


class Pretended:
    """A worker whose every step takes as long as it says, on a card that remembers."""

    card = 0

    def __init__(self, name):
        self.name, self.asked = name, []
        self.rate = {"minidense": 30, "torch eager": 10, "torch.compile": 15}[name.split(" at ")[0]]

    def ask(self, do, **arguments):
        self.asked.append((do, arguments))
        if do == "prepare":
            Pretended.card += {30: 100, 10: 400, 15: 300}[self.rate]
            return {"bytes_before": 0, "version": "2.13"}
        if do == "card":
            return {"bytes": Pretended.card}
        if do == "measure":
            return {"steps": self.rate, "seconds": 1.0, "cpu_seconds": 0.5, "loss": 1.0}
        return {}


def test_contenders_on_a_gpu_meet_in_turn(monkeypatch):
    workers = []

    @contextmanager
    def pretended(name):
        workers.append(Pretended(name))
        yield workers[-1]

    monkeypatch.setattr(on_gpu, "worker", pretended)
    work = Work("some_model", "file", 1000, {"train": 2_000_000})
    result = on_gpu.contest_on_gpu(
        work, "train", batch_size=64, image_size=32, rounds=5, precision="mixed", against_torch=True
    )
    assert result["against"]["torch eager"]["speed_ratio"] == 3
    assert result["against"]["torch.compile"]["speed_ratios"] == [2] * 5
    assert result["against"]["torch eager"]["memory_ratio"] == 0.25
    assert result["contenders"]["minidense"]["images_per_second"] == 30 * 64
    prepared = {w.name: dict(w.asked)["prepare"] for w in workers}
    assert all(how["precision"] == "mixed" for how in prepared.values())
    assert prepared["torch.compile at some_model"]["compiled"]
    assert prepared["torch eager at some_model"]["channels_last"]
    text = on_gpu.rows(result)
    assert "×3.00 as quick (×3.00 – ×3.00), memory ×0.25" in text
    assert max(map(len, text.splitlines())) <= 140
