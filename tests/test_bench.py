"""minidense bench: the work is counted exactly, PyTorch does the same work, and wrong command lines say so in one line."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minidense import cli, nn
from minidense import functional as F
from minidense.bench import command, contest, table
from minidense.bench.peer import Peer
from minidense.bench.trace import BATCH, Trace, trace
from minidense.bench.work import build, images_and_labels, made_for
from minidense.bench.worker import Ours
from minidense.errors import ConfigError
from minidense.optim import SGD
from minidense.tensor import Tensor

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="compares with PyTorch, which is not here: pip install torch==2.13.0",
)

# Counted by other means, from the papers' tables: parameters, and multiply-adds of one 32×32 image forward.
COUNTED = {
    "densenet_13_8": (39_370, 12_088_176),
    "densenet_22_12": (270_706, 72_906_000),
    "densenet_bc_22_12": (71_686, 31_238_322),
    "densenet_bc_40_12": (176_122, 72_365_352),
    "densenet_bc_100_12": (769_162, 287_929_692),
}


class Everything(nn.Module):
    """A small network with every step that has a counterpart in PyTorch."""

    def __init__(self):
        self.conv = nn.Conv2d(3, 6, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(6, momentum=0.3, eps=1e-3)
        self.drop = nn.Dropout(0.25, rng=np.random.default_rng(1))
        self.wide = nn.Linear(6 * 4 * 4, 6, bias=False)
        self.out = nn.Linear(12, 10)

    def forward(self, x):
        x = self.conv(F.pad(x, ((0, 0), (0, 0), (1, 1), (2, 0)))[:, :, 1:, 2:] - 0.5)
        y = self.drop(F.relu(self.norm(x)))
        y = F.relu(y + 0.5 * F.relu(x)).transpose(0, 1, 3, 2).astype(np.float32)
        y = F.concat([F.max_pool2d(y, 3, stride=2, ceil_mode=True), F.avg_pool2d(y, 2)])[:, ::2]
        flat = y.reshape(y.shape[0] * 2, -1).reshape(y.shape[0], -1)
        return self.out(F.concat([self.wide(flat), F.global_avg_pool2d(y)]))


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of PyTorch that wait for a busy core cost more than they bring."""
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)


def bench(*argv, **environment):
    """A run of the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "minidense", "bench", *argv],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        env={**os.environ, **environment},
    )


def complaint(capsys, main, argv):
    """The one line that a wrong command line gets."""
    try:
        code = main(argv)
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    assert (code, said.out, said.err.count("\n")) == (2, "", 1), said
    return said.err


# -- what is counted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COUNTED)
def test_multiply_adds_are_those_counted_elsewhere(name):
    found = trace(build(name), 32)
    assert (found.parameter_count, found.multiply_adds("eval")) == COUNTED[name]


def test_training_is_three_times_forward_but_for_the_gradient_of_the_images():
    found = trace(build("densenet_13_8"), 32)
    stem = 16 * 3 * 3 * 3 * 32 * 32
    assert found.multiply_adds("train") == 3 * found.multiply_adds("eval") - stem


def test_the_stacks_are_the_convolutions_of_the_papers_networks():
    """By hand: each stage at half the size of the one before, and the linear layer."""
    resnet = 9 * 32**2 * (3 * 16 + 6 * 16**2) + 9 * 16**2 * (16 * 32 + 5 * 32**2) + 9 * 8**2 * (32 * 64 + 5 * 64**2)
    wide = 9 * 32**2 * (3 * 16 + 16 * 64 + 3 * 64**2) + 9 * 16**2 * (64 * 128 + 3 * 128**2)
    wide += 9 * 8**2 * (128 * 256 + 3 * 256**2)
    assert trace(build("resnet_20_stack"), 32).multiply_adds("eval") == resnet + 64 * 10
    assert trace(build("wrn_16_4_stack"), 32).multiply_adds("eval") == wide + 256 * 10


def test_a_network_gets_the_images_and_classes_that_it_was_made_for():
    sizes = {name: made_for(name) for name in ("densenet121", "DenseNet-BC-100-12", "resnet-20-stack")}
    assert sizes == {"densenet121": (224, 1000), "DenseNet-BC-100-12": (32, 10), "resnet-20-stack": (32, 10)}
    assert command.with_sizes(command.parser().parse_args(["densenet121", "wrn_16_4_stack"])) == [
        ("densenet121", 224),
        ("wrn_16_4_stack", 32),
    ]
    given = command.parser().parse_args(["densenet121", "--image-size", "64"])
    assert command.with_sizes(given) == [("densenet121", 64)]
    assert build("densenet121").classifier.weight.shape[0] == 1000
    labels = Ours("densenet121", 40, 32, "eval").labels
    assert 500 < labels.max() < 1000


def test_a_trace_survives_its_file(tmp_path):
    found = trace(Everything(), 15)
    found.save(tmp_path / "trace.npz")
    read = Trace.load(tmp_path / "trace.npz")
    assert read.steps == found.steps
    assert read.multiply_adds("train") == found.multiply_adds("train")
    assert all(np.array_equal(read.arrays[name], array) for name, array in found.arrays.items())


def test_kept_bytes_grow_with_the_batch():
    def kept(batch_size):
        """From the first forward pass in this process on: the working memory that it sets up is not kept for backward."""
        return Ours("densenet_13_8", batch_size, 16, "train").kept_bytes()

    few, many = kept(4), kept(12)
    assert few > 4 * 16 * 16 * 16 * 4  # what the first convolution makes, for one
    assert many == pytest.approx(3 * few, rel=0.1)  # statistics and the like do not grow


# -- PyTorch does the same work --------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("make", [lambda: build("densenet_bc_22_12"), lambda: build("resnet_20_stack"), Everything])
def test_the_peer_computes_the_same_logits(make, channels_last):
    Peer(trace(make(), 15), channels_last=channels_last).check()


@needs_torch
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["densenet_bc_22_12", "resnet_20_stack"])
def test_the_peer_learns_the_same_in_two_steps(name, channels_last):
    """Parameters, running statistics and logits in evaluation, on another batch size than the traced one; in float64,
    since float32's rounding grows too fast in 20 layers without shortcuts to show a small difference."""
    import torch

    model = build(name).to(dtype=np.float64)
    traced = trace(model, 16)
    for i, norm in enumerate(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.data[...], norm.running_var.data[...] = traced.arrays[f"mean {i}"], traced.arrays[f"var {i}"]
    peer = Peer(traced, channels_last=channels_last)
    images, labels = images_and_labels(BATCH + 3, 16)
    images = images.astype(np.float64)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    model.train()
    for _ in range(2):
        loss = F.cross_entropy(model(Tensor(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert peer.train_step(peer.tensor(images), torch.from_numpy(labels)) == pytest.approx(loss.item(), rel=1e-9)
    for ours, theirs in zip(model.parameters(), peer.parameters, strict=True):
        np.testing.assert_allclose(theirs.detach().numpy(), ours.data, atol=1e-9)
    theirs = peer.eval_step(peer.tensor(images)).numpy()
    np.testing.assert_allclose(theirs, model.eval()(Tensor(images)).data, rtol=1e-6)


@needs_torch
def test_a_relu_writes_over_only_what_nobody_else_needs():
    peer = Peer(trace(Everything(), 15))
    relus = [run for run, _, _, _ in peer.steps if getattr(run, "__name__", "").startswith("relu")]
    assert [run.__name__ for run in relus] == ["relu_", "relu", "relu_"]


@needs_torch
def test_a_step_without_counterpart_is_refused_by_name():
    class Odd(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(3, 10)

        def forward(self, x):
            return F.tanh(self.linear(F.global_avg_pool2d(x)))

    with pytest.raises(ConfigError, match="Tanh has no counterpart"):
        Peer(trace(Odd(), 8))


@needs_torch
def test_other_work_is_refused():
    other = trace(build("densenet_13_8"), 16)
    other.arrays["parameter 0"] = other.arrays["parameter 0"][:, ::-1].copy()
    with pytest.raises(ConfigError, match="not the same work"):
        Peer(other).check()
    more = trace(build("densenet_13_8"), 16)
    more.parameter_count += 1
    with pytest.raises(ConfigError, match="39,370 parameters, the model has 39,371"):
        Peer(more).check()


@needs_torch
def test_other_work_is_refused_before_anything_is_measured(capsys, monkeypatch):
    def asked(self, do, **arguments):
        done.append(do)
        if done.count("check") == 2:
            raise ConfigError("not the same work")
        return {} if do == "check" else ask(self, do, **arguments)

    done, ask = [], contest.Worker.ask
    monkeypatch.setattr(contest.Worker, "ask", asked)
    assert "not the same work" in complaint(
        capsys, command.main, ["densenet_13_8", "densenet_bc_10_4", "--against", "torch"]
    )
    assert done == ["trace", "check", "trace", "check"]


@needs_torch
def test_what_only_the_check_needs_is_not_loaded_for_the_work(tmp_path):
    """Its memory would be counted as PyTorch's."""
    trace(Everything(), 15).save(tmp_path / "trace.npz")
    loaded = Trace.load(tmp_path / "trace.npz", example=False)
    assert {name.split()[0] for name in loaded.arrays} == {"parameter", "constant", "mean", "var"}
    peer = Peer(loaded)
    assert not loaded.arrays
    images, _ = images_and_labels(3, 15)
    assert peer.eval_step(peer.tensor(images)).shape == (3, 10)


def test_a_reshape_across_images_is_refused():
    class Mixing(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(2, 10)

        def forward(self, x):
            return self.linear(F.reshape(F.global_avg_pool2d(x), (3, 2)))

    with pytest.raises(ConfigError, match="would not survive a batch other than 2"):
        trace(Mixing(), 8)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_measures_and_writes_every_round(tmp_path):
    path = tmp_path / "speed.json"
    done = bench("densenet_13_8", "--batch-size", "2", "--rounds", "1", "--threads", "1", "--json", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert "1 thread, batch 2, float32, 1 round" in done.stdout
    assert "12.1 M multiply-adds an image of 32²" in done.stdout
    report = json.loads(path.read_text(encoding="utf-8"))
    assert [(r["model"], r["mode"]) for r in report["results"]] == [("densenet_13_8", m) for m in ("train", "eval")]
    for result in report["results"]:
        assert result["image_size"] == 32
        ours = result["contenders"]["minidense"]
        (raw,) = ours["rounds"]
        assert raw["seconds"] >= contest.ROUND_SECONDS
        assert ours["images_per_second"] == pytest.approx(2 * raw["steps"] / raw["seconds"])
        assert ours["peak_bytes"] is None or 10e6 < ours["peak_bytes"] < 1e9
        assert 0 < ours["share_of_matrix_product"] < 1
        assert ours["time_per_multiply_add_relative_to_first"] == 1
    assert report["results"][0]["contenders"]["minidense"]["kept_bytes"] > 0


@needs_torch
def test_pytorch_takes_part_in_both_layouts(tmp_path):
    path = tmp_path / "speed.json"
    done = bench(
        *("densenet_13_8", "--batch-size", "2", "--rounds", "1", "--mode", "eval", "--threads", "1"),
        *("--against", "torch", "--json", str(path)),
    )
    assert (done.returncode, done.stderr) == (0, "")
    (result,) = json.loads(path.read_text(encoding="utf-8"))["results"]
    assert list(result["contenders"]) == ["minidense", "torch", "torch channels_last"]
    assert f"minidense / {result['against_torch']['layout']}: speed ×" in done.stdout


def test_ratios_are_those_of_the_better_layout():
    def one(rate, *seconds):
        rounds = [{"steps": 1, "seconds": s} for s in seconds]
        return {"images_per_second": rate, "peak_bytes": 10 * rate, "rounds": rounds}

    found = contest.compared({"minidense": one(6, 2, 4), "torch": one(4, 1, 8), "torch channels_last": one(3, 1, 1)})
    assert (found["layout"], found["speed_ratio"], found["memory_ratio"]) == ("torch", 1.5, 1.5)
    assert (found["speed_ratios"], found["speed_ratio_range"]) == ([0.5, 2.0], [0.5, 2.0])
    assert found["speed_ratio_median_of_rounds"] == 1.25


def test_the_processor_time_of_other_programs_is_counted():
    rounds = [
        {"others_cpu_seconds": 0.4, "seconds_until_answer": 0.5},
        {"others_cpu_seconds": -0.01, "seconds_until_answer": 0.5},
    ]
    assert contest.other_cores(rounds) == pytest.approx(0.39)
    assert contest.other_cores(rounds[1:]) == 0
    assert contest.other_cores([{"others_cpu_seconds": None, "seconds_until_answer": 0.5}]) is None


def test_a_row_fits_the_screen_and_a_busy_machine_is_named():
    one = {
        "images_per_second": 12345.6,
        "images_per_second_range": [11111.1, 22222.2],
        "gflop_per_second": 12345.6,
        "share_of_matrix_product": 1.0,
        "nanoseconds_per_multiply_add": 99.12345,
        "peak_bytes": 99_999_000_000,
        "kept_bytes": 99_999_000_000,
    }
    result = {
        "model": "wide_densenet_bc_40_60",
        "mode": "train",
        "image_size": 224,
        "parameters": 27_249_082,
        "multiply_adds_per_image": 27_249_082_000,
        "matrix_gflop_per_second": 12345.6,
        "contenders": {"minidense": one, "torch": one, "torch channels_last": one},
        "cores_of_other_programs": 1.0,
        "against_torch": {
            "layout": "torch channels_last",
            "speed_ratio": 1.0,
            "speed_ratio_median_of_rounds": 1.0,
            "speed_ratio_range": [1.0, 1.0],
            "memory_ratio": 1.0,
        },
    }
    lines = [table.HEAD, *table.rows(result, result).splitlines()]
    assert max(map(len, lines)) <= 120
    assert any("Other programs kept 1.0 cores busy" in line for line in lines)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "which model?"),
        (["densenet_13_8", "--rouns", "3"], "unknown option --rouns; did you mean --rounds?"),
        (["densenet_13_8", "--rounds", "many"], "needs a whole number, got 'many'"),
        (["densenet_13_8", "--rounds", "0"], "--rounds must be at least 1 and at most 100,000, got 0"),
        (["densenet_13_8", "--batch-size", "-1"], "--batch-size must be at least 1"),
        (["densenet_13_8", "--threads", "0"], "--threads must be at least 1"),
        (["densenet_13_8", "--mode", "trian"], "unknown 'trian'; did you mean train?"),
        (["densenet_13_8", "--against", "pytorch"], "unknown 'pytorch'; did you mean torch?"),
        (["densenet_13_8", "--json", "no/such/folder/x.json"], "name a file in a folder that exists"),
        (["densenet_13_8", "--json", "."], "needs the name of a file"),
        (["densenet_13_8", "--json", ""], "needs the name of a file"),
        (["densenet_13_8", "--json", "a\0b"], "cannot write there"),
        (["densenet_13_8", "--json", "x" * 300], "cannot write there"),
        (["densenet_101_12"], "Nearest: 100, 103"),
    ],
)
def test_a_wrong_command_line_gets_one_line_and_the_way_out(capsys, argv, says):
    assert says in complaint(capsys, command.main, argv)


def test_a_misspelt_stack_is_suggested():
    with pytest.raises(ConfigError, match="did you mean resnet_20_stack"):
        build("resnet_20_stak")
    with pytest.raises(ConfigError, match="densenet_bc_100_12"):
        build("densenet_bc_10012")


def test_without_pytorch_the_way_out_is_named(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = complaint(capsys, command.main, ["densenet_13_8", "--against", "torch"])
    assert "pip install torch==2.13.0" in said


def test_a_worker_that_dies_gives_one_line(capsys, monkeypatch):
    def dying(self, do, **arguments):
        if do == "measure":
            self.process.kill()
        return ask(self, do, **arguments)

    ask = contest.Worker.ask
    monkeypatch.setattr(contest.Worker, "ask", dying)
    assert command.main(["densenet_13_8", "--batch-size", "2", "--threads", "1", "--mode", "eval"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "minidense at densenet_13_8 died during 'measure': killed by signal 9" in said


def test_a_worker_runs_the_code_that_runs_here(tmp_path, monkeypatch):
    """Not what happens to lie in the current folder: with two checkouts, the wrong one would be measured."""
    (tmp_path / "minidense" / "bench").mkdir(parents=True)
    for file in ("__init__.py", "bench/__init__.py", "bench/worker.py"):
        (tmp_path / "minidense" / file).write_text("raise SystemExit('the wrong minidense')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    with contest.worker("anybody") as anybody:
        assert "bytes" in anybody.ask("peak")


def test_the_peak_of_a_worker_is_its_own():
    """Linux counts the starting process into ru_maxrss of what it starts."""
    with contest.worker("small") as small:
        alone = small.ask("peak")["bytes"]
    ballast = np.ones(40_000_000)  # 320 MB
    with contest.worker("small") as small:
        assert small.ask("peak")["bytes"] == pytest.approx(alone, rel=0.2)
    assert ballast.size


def test_what_libraries_print_does_not_come_between_the_answers():
    """Python's print and C's printf both go elsewhere; only the answers reach standard output."""
    code = "import os, minidense.bench.worker as w; w.peak_bytes = lambda: print('p') or os.write(1, b'c\\n'); w.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], input='{"do": "peak"}\n', capture_output=True, text=True, timeout=60
    )
    assert (json.loads(done.stdout), sorted(done.stderr.split())) == ({"bytes": 2}, ["c", "p"])


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="looks for processes in /proc, which is not here")
def test_ctrl_c_leaves_nothing_running():
    process = subprocess.Popen(
        [sys.executable, "-m", "minidense", "bench", "densenet_13_8", "--batch-size", "2", "--rounds", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        while process.poll() is None and len(children(process.pid)) < 2:
            time.sleep(0.02)
        workers = children(process.pid)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=20)
    assert (process.returncode, complaints) == (130, b"")
    assert len(workers) == 2
    # One that was just being started when Ctrl-C came is not killed: it ends when it finds its input closed.
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


# -- the command above ---------------------------------------------------------------------------------------------


def test_help_and_version(capsys):
    for argv in (["--help"], ["bench", "--help"], ["train", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as end:
            cli.main(argv)
        said = capsys.readouterr()
        assert (end.value.code, said.err) == (0, "")
        assert max(map(len, said.out.splitlines())) <= 120
    assert said.out.startswith("minidense ")


def test_an_unknown_command_gets_the_nearest(capsys):
    assert "unknown command 'trian'; did you mean train?" in complaint(capsys, cli.main, ["trian"])
    assert "choose one of train, predict, models" in complaint(capsys, cli.main, ["xyz"])
    assert "unknown option --verison; did you mean --version?" in complaint(capsys, cli.main, ["--verison"])


def test_train_gets_its_arguments(capsys):
    assert "--epochs must be at least 1" in complaint(capsys, cli.main, ["train", "--epochs", "0"])
