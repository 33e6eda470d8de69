"""A training run does what it says: it learns, repeats itself bit for bit, stops and goes on, and fails without damage."""

import csv
import dataclasses
import gc
import json
import re
import shlex
import signal
import struct
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minidense import functional as F
from minidense import ops, optim, plots, report, run_folder, speed, train
from minidense.checkpoint import Checkpoint, read_weights
from minidense.command import DIVERGED, DONE, INTERRUPTED, WRONG_COMMAND_LINE
from minidense.config import TrainConfig, read_toml
from minidense.data import Dataset, load
from minidense.errors import DivergenceError
from minidense.fast.cpu import unit
from minidense.nn import Dropout
from minidense.optim import SGD
from minidense.threads import threads

# 3 epochs of 4 steps, with everything random switched on.
SETTINGS = {
    "model": "densenet_bc_10_4",
    "data": "digits",
    "limit_train": 128,
    "limit_test": 60,
    "batch_size": 32,
    "epochs": 3,
    "dropout": 0.2,
    "threads": 1,
}
STEPS, EPOCHS = 4, 3
TIMES = ("seconds", "images_per_second")


def config_of(**changes) -> TrainConfig:
    return TrainConfig(**{**SETTINGS, **changes})


def command(folder, **changes) -> list[str]:
    """The command line of config_of(out=folder, **changes)."""
    settings = {**SETTINGS, **changes, "out": folder}
    return [word for key, value in settings.items() for word in ("--" + key.replace("_", "-"), str(value))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run, with its forecast and its pictures: folder, history, and the lines it said."""
    folder, lines = tmp_path_factory.mktemp("finished") / "run", []
    history = train.fit(config_of(out=str(folder)), say=lines.append)
    return SimpleNamespace(folder=folder, history=history, lines=lines)


@pytest.fixture
def quick(monkeypatch):
    """Leave out what takes most of the time of a tiny run: the forecast and the picture."""
    monkeypatch.setattr(train, "seconds_per_epoch", lambda config, dataset: 1.0)
    monkeypatch.setattr(plots, "learning_curves", lambda history, title: SimpleNamespace(png=lambda title: b""))


@pytest.fixture
def at_step(monkeypatch):
    """at_step(n, action) calls `action` at the end of the n-th optimiser step of this test, counted from 1. Needs `quick`."""
    actions, original, count = {}, SGD.step, 0

    def step(self):
        nonlocal count
        original(self)
        count += 1
        actions.get(count, lambda: None)()

    monkeypatch.setattr(SGD, "step", step)
    return actions.__setitem__


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def without_times(history: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key not in TIMES} for record in history]


def assert_same_run(folder: Path, other: Path) -> None:
    """Weights, running statistics, velocities and the log are equal, bit for bit."""
    a, b = (Checkpoint.load(f / "last.safetensors") for f in (folder, other))
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        assert a.arrays[name].tobytes() == b.arrays[name].tobytes(), name
    assert (folder / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()
    assert a.progress == b.progress
    assert without_times(log_of(folder)) == without_times(log_of(other)) == without_times(a.history)


def parts(**changes):
    """Config, data set, model and optimiser of a run, to train by hand."""
    config = config_of(**changes)
    dataset = load(config.data).first(config.limit_train, config.limit_test)
    return config, dataset, *train.build(config, dataset)


def silent_bar(update=lambda: None):
    return SimpleNamespace(update=update, set_postfix_str=lambda text: None)


# -- what a run leaves behind -----------------------------------------------------------------------------------------


def test_the_run_folder_holds_what_its_docstring_lists(finished):
    listed = re.findall(r"[\w/]+\.\w+", run_folder.__doc__)
    made = [path.relative_to(finished.folder).as_posix() for path in finished.folder.rglob("*") if path.is_file()]
    assert sorted(made) == sorted(listed)
    assert len(made) == 7


def test_the_log_has_one_record_an_epoch(finished):
    log = log_of(finished.folder)
    assert log == finished.history
    assert [record["epoch"] for record in log] == [1, 2, 3]
    for record in log:
        assert list(record) == [
            *("epoch", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy"),
            *("images_per_second", "seconds"),
        ]
        assert record["learning_rate"] == config_of().learning_rate_at(record["epoch"] - 1)
        assert 1 < record["train_loss"] < 4  # ln 10 = 2.3 is chance
        assert 1 < record["test_loss"] < 4
        assert record["train_accuracy"] * 128 == pytest.approx(round(record["train_accuracy"] * 128), abs=1e-9)
        assert record["test_accuracy"] * 60 == pytest.approx(round(record["test_accuracy"] * 60), abs=1e-9)
        assert record["images_per_second"] == pytest.approx(128 / record["seconds"])
        assert 0 < record["seconds"] < 600


def test_the_table_of_numbers_is_the_log(finished):
    with open(finished.folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{key: float(value) for key, value in row.items()} for row in rows] == finished.history


def test_the_curves_are_a_png(finished):
    png = (finished.folder / "plots" / "curves.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    assert width > 2 * height > 400
    assert png[-8:-4] == b"IEND"
    assert b"densenet_bc_10_4 on digits" in png  # its title, also for those who cannot see it
    assert (
        f"Learning curves over {len(finished.history)} epochs of densenet_bc_10_4 on digits: train loss from".encode()
        in png
    )


def test_the_settings_and_the_machine_are_written_down(finished):
    assert TrainConfig(**read_toml(finished.folder / "config.toml")) == config_of(out=str(finished.folder))
    environment = json.loads((finished.folder / "env.json").read_text())
    assert environment["numpy"] == np.__version__
    assert environment["python"] == sys.version.split()[0]
    assert {"minidense", "platform", "blas"} <= environment.keys()


def test_the_saved_weights_have_the_accuracy_of_the_log(finished):
    config, dataset, model, _ = parts(seed=9)
    model.load_state_dict(read_weights(finished.folder / "weights.safetensors"))
    loss, accuracy = train.evaluate(model, dataset, config)
    assert (loss, accuracy) == (finished.history[-1]["test_loss"], finished.history[-1]["test_accuracy"])


def test_the_report_has_a_head_and_a_row_for_each_epoch(finished):
    opening, _, head, *rows = finished.lines
    assert opening == (
        f"densenet_bc_10_4: 2,522 parameters, on 128 digits images, tested on 60; run folder {finished.folder}"
    )
    assert head == report.table_head(config_of())
    assert len(rows) == 3
    for row, record in zip(rows, finished.history, strict=True):
        assert row.split()[0] == f"{record['epoch']}/3"
        assert float(row.split()[2]) == pytest.approx(record["train_loss"], abs=5e-5)  # four decimals
        assert float(row.split()[5]) == pytest.approx(100 * record["test_accuracy"], abs=5e-3)
        assert len(row) == len(head)


# -- the forecast -----------------------------------------------------------------------------------------------------


def test_the_forecast_is_said_before_training(finished):
    forecasts = [i for i, line in enumerate(finished.lines) if "epoch takes about" in line]
    assert len(forecasts) == 1
    assert forecasts[0] < finished.lines.index(report.table_head(config_of()))
    assert re.match(r"An epoch takes about [\d.]+ seconds here; 3 of them about [\d.]+ seconds", finished.lines[1])


def test_the_forecast_is_near_the_truth():
    """A few steps stand for all: on an idle machine they are right within a third, on a shared one by less than a factor of 5."""
    config, dataset, model, optimizer = parts(limit_train=640, batch_size=64)
    expected = train.seconds_per_epoch(config, dataset)
    progress = train.Progress()
    train.train_epoch(model, optimizer, dataset, config, progress, train.Stopping(), silent_bar())
    assert expected / 5 < progress.seconds < expected * 5


def test_a_resumed_run_forecasts_what_is_left(tmp_path, quick, at_step, capsys):
    at_step(6, ctrl_c)  # in the second of three epochs
    assert train.main(command(tmp_path / "run")) == INTERRUPTED
    assert "3 of them" in capsys.readouterr().out
    train.main(["--resume", str(tmp_path / "run")])
    assert "2 of them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.2 seconds"),
        (1.96, "2.0 seconds"),
        (2, "2 seconds"),
        (119, "119 seconds"),
        (120, "2.0 minutes"),
        (7199, "120.0 minutes"),
        (9000, "2.5 hours"),
        (86400 * 3.5, "3.5 days"),
    ],
)
def test_durations_come_in_the_unit_a_person_would_choose(seconds, text):
    assert report.duration(seconds) == text


def test_only_a_long_forecast_names_the_hour_and_only_a_very_long_one_advises():
    assert "until" not in report.forecast(10, 59, TrainConfig())
    assert "until" in report.forecast(11, 60, TrainConfig())
    assert "Quicker" not in report.forecast(3, 3600, TrainConfig())
    assert "--device gpu" in report.forecast(4, 3600, TrainConfig())
    assert "Quicker" not in report.forecast(4, 3600, TrainConfig(device="gpu"))


def test_a_forecast_beyond_the_calendar_is_still_a_forecast():
    """A few zeros too many in --epochs: 114,000 years."""
    assert "days" in report.forecast(10**9, 3600, TrainConfig(epochs=10**9))


# -- the learning rate ------------------------------------------------------------------------------------------------


def test_the_learning_rate_follows_the_papers_300_epochs():
    config = TrainConfig()
    rates = [config.learning_rate_at(epoch) for epoch in range(300)]
    assert Counter(round(rate, 9) for rate in rates) == {0.1: 149, 0.01: 75, 0.001: 76}
    assert rates == sorted(rates, reverse=True)
    assert config.learning_rate_at(148.99) == 0.1  # the same for a whole epoch
    assert config.learning_rate_at(149) == pytest.approx(0.01)
    assert config.learning_rate_at(224) == pytest.approx(0.001)


def test_cosine_and_one_cycle_end_at_zero():
    cosine, cycle = (TrainConfig(schedule=name, epochs=10, learning_rate=0.4) for name in ("cosine", "one_cycle"))
    assert [cosine.learning_rate_at(epoch) for epoch in (0, 5, 10)] == pytest.approx([0.4, 0.2, 0])
    assert [cycle.learning_rate_at(epoch) for epoch in (0, 3, 6.5, 10)] == pytest.approx([0.04, 0.4, 0.2, 0])


@pytest.mark.parametrize("schedule", ["step", "cosine", "one_cycle"])
def test_every_step_is_made_with_the_rate_of_its_moment(schedule, tmp_path, quick, monkeypatch):
    rates, original = [], SGD.step

    def step(self):
        rates.extend({group["lr"] for group in self.groups})
        original(self)

    monkeypatch.setattr(SGD, "step", step)
    config = config_of(out=str(tmp_path / "run"), schedule=schedule, epochs=4)
    train.fit(config, say=lambda line: None)
    assert rates == [config.learning_rate_at(i / STEPS) for i in range(4 * STEPS)]
    if schedule == "step":
        assert rates == pytest.approx([0.1] * 4 + [0.01] * 4 + [0.001] * 8)


def test_drops_are_shares_of_the_run_or_epochs():
    shares, epochs = (
        TrainConfig(drop_at=(0.5, 0.9), epochs=40),
        TrainConfig(drop_at=(10, 12.5), drop_factor=0.2, epochs=40),
    )
    # As the DenseNet authors round: counted from 1, epoch 20 is the first with half of 40.
    assert [shares.learning_rate_at(epoch) for epoch in (18.9, 19, 34.9, 35)] == pytest.approx([0.1, 0.01, 0.01, 0.001])
    assert [epochs.learning_rate_at(epoch) for epoch in (9.9, 10, 12.4, 12.5)] == pytest.approx(
        [0.1, 0.02, 0.02, 0.004]
    )
    assert TrainConfig(drop_at=()).learning_rate_at(299) == 0.1


@pytest.mark.parametrize("schedule", ["step", "cosine", "one_cycle"])
def test_a_warm_up_holds_its_rate_and_then_lets_go(schedule):
    plain = TrainConfig(schedule=schedule, epochs=20)
    warm = dataclasses.replace(plain, warmup_epochs=1.5, warmup_rate=0.003)
    assert [warm.learning_rate_at(epoch) for epoch in (0, 1, 1.49)] == [0.003] * 3
    for epoch in (1.5, 2, 10, 15, 19):
        assert warm.learning_rate_at(epoch) == plain.learning_rate_at(epoch)


# -- parameters with rates of their own -------------------------------------------------------------------------------

CAFFE = {"bias_rate": 2.0, "bias_decay": False, "last_layer_rate": 0.1, "nesterov": False, "weight_decay": 0.01}


def test_by_default_all_parameters_are_one_group():
    _, _, model, optimizer = parts()
    (group,) = optimizer.groups
    assert group["params"] == model.parameters()
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.1, 0.9, True, 1e-4)


def test_biases_and_the_last_layer_learn_as_caffes_rule_says():
    """Two steps in float64: v ← 0.9·v + (dw + decay·w), w ← w − times·lr·v, and no decay for biases, β of batch norm among them."""
    _, dataset, model, optimizer = parts(**CAFFE, augment=False)
    model.eval()  # running statistics and no dropout: a step's gradients are those that are looked at
    images, labels = next(train.training_batches(dataset, size=32, seed=(0,), augment=False))
    expected = {name: w.data.astype(np.float64) for name, w in model.named_parameters()}
    velocity = dict.fromkeys(expected, 0.0)
    for _ in range(2):
        train.training_step(model, optimizer, images, labels)
        for name, w in model.named_parameters():
            is_bias = name.endswith("bias")
            times = (2 if is_bias else 1) * (0.1 if name.startswith("classifier.") else 1)
            g = w.grad.astype(np.float64) + (0 if is_bias else 0.01) * expected[name]
            velocity[name] = 0.9 * velocity[name] + g
            expected[name] = expected[name] - times * 0.1 * velocity[name]
    assert {"classifier.bias", "features.norm5.bias", "features.conv0.weight"} <= expected.keys()
    for name, w in model.named_parameters():
        np.testing.assert_allclose(w.data, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)  # float32


def test_groups_keep_their_share_of_the_rate_through_a_run(tmp_path, quick, monkeypatch):
    seen, original = [], SGD.step

    def step(self):
        seen.append({group["lr_scale"]: group["lr"] for group in self.groups})
        original(self)

    monkeypatch.setattr(SGD, "step", step)
    config = config_of(out=str(tmp_path / "run"), **CAFFE)
    train.fit(config, say=lambda line: None)
    assert len(seen) == EPOCHS * STEPS
    for i, rates in enumerate(seen):
        rate = config.learning_rate_at(i / STEPS)
        assert rates == {1.0: rate, 2.0: 2 * rate, 0.1: rate * 0.1, 0.2: rate * 0.2}


def test_momentum_is_nesterovs_unless_it_is_switched_off():
    for changes, nesterov in (({}, True), ({"nesterov": False}, False), ({"momentum": 0.0}, False)):
        assert {group["nesterov"] for group in parts(**changes)[3].groups} == {nesterov}


def test_a_network_keeps_its_own_dropout_unless_another_is_asked_for(monkeypatch):
    asked, create = [], train.models.create
    monkeypatch.setattr(
        train.models, "create", lambda name, **options: asked.append(options) or create(name, **options)
    )
    for dropout in (None, 0.0, 0.3):
        parts(dropout=dropout)
    assert [options.get("dropout", "its own") for options in asked] == ["its own", 0.0, 0.3]


def test_before_each_step_the_network_hears_how_far_training_is(monkeypatch):
    heard = []
    config, dataset, model, optimizer = parts()
    monkeypatch.setattr(type(model), "at_epoch", lambda self, epoch: heard.append(epoch))
    train.train_epoch(model, optimizer, dataset, config, train.Progress(epoch=2), train.Stopping(), silent_bar())
    assert heard == [2, 2.25, 2.5, 2.75]


def test_evaluation_uses_the_networks_own_criterion(monkeypatch):
    config, dataset, model, _ = parts()
    monkeypatch.setattr(type(model), "criterion", lambda self, logits, labels: F.squared_hinge(logits, labels))
    loss, _ = train.evaluate(model, dataset, config)
    ((images, labels),) = train.test_batches(dataset, size=60)
    assert loss == pytest.approx(F.squared_hinge(model(train.Tensor(images)), labels).item(), rel=1e-6)


# -- the same again ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run_bit_for_bit(finished, tmp_path, quick):
    """Also: the forecast, which this second run leaves out, changes nothing."""
    train.fit(config_of(out=str(tmp_path / "again")), say=lambda line: None)
    assert_same_run(tmp_path / "again", finished.folder)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"dropout": 0.1}, {"learning_rate": 0.11}, {"weight_decay": 0.01}, {"momentum": 0.8}]
)
def test_another_seed_or_setting_gives_other_weights(change, finished, tmp_path, quick):
    train.fit(config_of(out=str(tmp_path / "other"), **change), say=lambda line: None)
    a, b = (read_weights(folder / "weights.safetensors") for folder in (finished.folder, tmp_path / "other"))
    assert (a["features.conv0.weight"] != b["features.conv0.weight"]).any()


def test_without_augmentation_the_weights_are_others(finished, tmp_path, quick):
    train.fit(config_of(out=str(tmp_path / "plain"), augment=False), say=lambda line: None)
    assert (tmp_path / "plain/weights.safetensors").read_bytes() != (
        finished.folder / "weights.safetensors"
    ).read_bytes()


def test_every_epoch_has_its_own_order_and_every_step_its_own_dropout(tmp_path, quick, monkeypatch):
    orders, masks = [], []
    batches, seed_chance = train.training_batches, train.seed_chance

    def noted_batches(*args, **kwargs):
        orders.append([])
        for images, labels in batches(*args, **kwargs):
            orders[-1] += labels.tolist()
            yield images, labels

    monkeypatch.setattr(train, "training_batches", noted_batches)
    monkeypatch.setattr(train, "seed_chance", lambda model, seed: masks.append(seed) or seed_chance(model, seed))
    train.fit(config_of(out=str(tmp_path / "run")), say=lambda line: None)
    assert len(orders) == EPOCHS
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert len(masks) == len(set(masks)) == EPOCHS * STEPS


def test_training_in_another_thread_gives_the_same_run(finished, tmp_path, quick):
    """Only the main thread may listen to Ctrl-C; elsewhere training does without."""
    config = config_of(out=str(tmp_path / "thread"))
    thread = threading.Thread(target=train.fit, args=(config,), kwargs={"say": lambda line: None})
    thread.start()
    thread.join(120)
    assert_same_run(tmp_path / "thread", finished.folder)


# -- stopping and going on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3, STEPS, STEPS + 1, 2 * STEPS + 2, EPOCHS * STEPS])
def test_a_stopped_run_goes_on_to_the_same_bits(step, finished, tmp_path, quick, at_step, capsys):
    folder = tmp_path / "run"
    at_step(step, ctrl_c)
    assert train.main(command(folder)) == INTERRUPTED == 130
    out, err = capsys.readouterr()
    epoch, done = (step - 1) // STEPS, (step - 1) % STEPS + 1
    assert f"Stopped in epoch {epoch + 1} after step {done}" in out
    assert f"python -m minidense.train --resume {folder}" in out
    assert "Ctrl-C again stops at once" in err
    saved = Checkpoint.load(folder / "last.safetensors")
    assert (saved.progress.epoch, saved.progress.step, saved.progress.images) == (epoch, done, 32 * done)
    assert len(saved.history) == len(log_of(folder)) == epoch

    assert train.main(["--resume", str(folder)]) == DONE
    assert_same_run(folder, finished.folder)


def test_a_run_may_be_stopped_again_and_again(finished, tmp_path, quick, at_step, capsys):
    folder = tmp_path / "run"
    for step in (2, 3, 8, 9):
        at_step(step, ctrl_c)
    assert train.main(command(folder)) == INTERRUPTED
    for _ in range(3):
        assert train.main(["--resume", str(folder)]) == INTERRUPTED
    assert train.main(["--resume", str(folder)]) == DONE
    assert_same_run(folder, finished.folder)


def test_a_run_that_is_stopped_while_it_is_tested_goes_on_to_the_same_bits(
    finished, tmp_path, quick, monkeypatch, capsys
):
    original, calls = train.evaluate, []

    def evaluate(*args):
        calls.append(args)
        if len(calls) == 2:
            ctrl_c()
        return original(*args)

    monkeypatch.setattr(train, "evaluate", evaluate)
    assert train.main(command(tmp_path / "run")) == INTERRUPTED
    assert len(log_of(tmp_path / "run")) == 1
    assert train.main(["--resume", str(tmp_path / "run")]) == DONE
    assert_same_run(tmp_path / "run", finished.folder)


def test_a_run_that_ended_between_two_epochs_goes_on_to_the_same_bits(finished, tmp_path, quick):
    """As after a crash: what is there is the checkpoint of the first epoch."""
    folder = tmp_path / "run"

    def crash_after_an_epoch(line):
        if line.startswith("  1/3"):
            raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"):
        train.fit(config_of(out=str(folder)), say=crash_after_an_epoch)
    assert Checkpoint.load(folder / "last.safetensors").progress.epoch == 1
    assert train.main(["--resume", str(folder / "last.safetensors")]) == DONE
    assert_same_run(folder, finished.folder)


def test_a_finished_run_can_be_resumed_and_stays_what_it_is(finished, tmp_path, quick, capsys):
    folder = tmp_path / "run"
    train.main(command(folder))
    before = (folder / "last.safetensors").read_bytes()
    assert train.main(["--resume", str(folder)]) == DONE
    assert "Test accuracy" in capsys.readouterr().out
    assert (folder / "last.safetensors").read_bytes() == before
    assert_same_run(folder, finished.folder)


def test_a_run_resumed_into_another_folder_leaves_the_old_one_alone(finished, tmp_path, quick, at_step, capsys):
    old, new = tmp_path / "old", tmp_path / "new"
    at_step(6, ctrl_c)
    train.main(command(old))
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    assert train.main(["--resume", str(old), "--out", str(new)]) == DONE
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    assert_same_run(new, finished.folder)


def test_resume_auto_starts_fresh_where_nothing_is_and_goes_on_where_something_is(
    finished, tmp_path, quick, at_step, capsys
):
    folder = tmp_path / "run"
    at_step(7, ctrl_c)
    assert train.main([*command(folder), "--resume", "auto"]) == INTERRUPTED
    assert Checkpoint.load(folder / "last.safetensors").progress.epoch == 1
    assert train.main([*command(folder), "--resume", "auto"]) == DONE
    assert_same_run(folder, finished.folder)


def test_resume_auto_finds_the_default_folder(finished, tmp_path, quick, at_step, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = command("unused")[:-2]
    at_step(7, ctrl_c)
    assert train.main([*line, "--resume", "auto"]) == INTERRUPTED
    assert train.main([*line, "--resume", "auto"]) == DONE
    assert [path.name for path in Path("runs").iterdir()] == ["densenet_bc_10_4-digits"]
    assert_same_run(Path("runs/densenet_bc_10_4-digits"), finished.folder)


def test_the_way_to_go_on_can_be_pasted_when_the_folder_has_a_space(tmp_path, quick, at_step, capsys):
    at_step(1, ctrl_c)
    train.main(command(tmp_path / "my run"))
    (line,) = re.findall(r"python -m minidense\.train (--resume .*)", capsys.readouterr().out)
    assert train.main(shlex.split(line)) == DONE


def test_a_second_ctrl_c_stops_at_once_and_the_last_checkpoint_stays(tmp_path, quick, at_step, capsys):
    folder, kept = tmp_path / "run", []

    def twice():
        kept.append((folder / "last.safetensors").read_bytes())
        ctrl_c()
        ctrl_c()
        pytest.fail("the second Ctrl-C did nothing")

    at_step(STEPS + 2, twice)
    assert train.main(command(folder)) == INTERRUPTED
    assert "Stopped in epoch" not in capsys.readouterr().out
    assert (folder / "last.safetensors").read_bytes() == kept[0]


def test_after_training_ctrl_c_is_what_it_was_before(tmp_path, quick, at_step):
    before = signal.getsignal(signal.SIGINT)
    train.fit(config_of(out=str(tmp_path / "run"), epochs=1), say=lambda line: None)
    assert signal.getsignal(signal.SIGINT) is before
    at_step(STEPS + 1, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train.fit(config_of(out=str(tmp_path / "stopped"), epochs=2), say=lambda line: None)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_started_to_ignore_ctrl_c_ignores_it(finished, tmp_path, quick, at_step):
    """Under nohup and in the background of a shell the terminal's Ctrl-C is meant for others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    at_step(2, ctrl_c)
    train.fit(config_of(out=str(tmp_path / "run")), say=lambda line: None)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert_same_run(tmp_path / "run", finished.folder)


def test_no_thread_is_left_after_a_stopped_run(tmp_path, quick, at_step):
    at_step(1, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train.fit(config_of(out=str(tmp_path / "run")), say=lambda line: None)
    assert "minidense-prefetch" not in [thread.name for thread in threading.enumerate()]


# -- recipes with everything ------------------------------------------------------------------------------------------

EVERYTHING = {
    **CAFFE,
    "validation": 30,
    "normalise": "zca",
    "crop_padding": 2,
    "padding": "reflect",
    "drop_at": [1.5, 2],
    "drop_factor": 0.5,
    "warmup_epochs": 0.5,
    "warmup_rate": 0.05,
}


def as_typed(settings: dict) -> list[str]:
    """The command line of settings."""
    line = []
    for name, value in settings.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            line.append(option if value else option.replace("--", "--no-", 1))
        else:
            line += [option, *map(str, value if isinstance(value, list) else [value])]
    return line


@pytest.mark.parametrize("step", [1, STEPS - 1, STEPS + 2, EPOCHS * STEPS])
def test_a_run_with_a_recipe_of_its_own_goes_on_to_the_same_bits(step, tmp_path, quick, at_step, capsys):
    """98 images to train on are four steps as well."""
    line = [*command(tmp_path / "whole"), *as_typed(EVERYTHING)]
    assert train.main(line) == DONE
    at_step(EPOCHS * STEPS + step, ctrl_c)
    line[line.index(str(tmp_path / "whole"))] = str(tmp_path / "parts")
    assert train.main(line) == INTERRUPTED
    assert train.main([*line, "--resume", "auto"]) == DONE  # what was typed again is what the checkpoint says
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_settings_come_back_from_a_checkpoint_as_they_were(tmp_path, quick):
    config = config_of(out=str(tmp_path / "run"), epochs=1, **{**EVERYTHING, "drop_at": (0.5, 0.75)})
    train.fit(config, say=lambda line: None)
    assert TrainConfig(**Checkpoint.load(tmp_path / "run" / "last.safetensors").config) == config
    assert TrainConfig(**read_toml(tmp_path / "run" / "config.toml")) == config


def test_a_checkpoint_from_before_these_settings_still_resumes(finished, tmp_path, quick, at_step, capsys):
    """Settings that it lacks have the values that a run had then."""
    folder = tmp_path / "run"
    at_step(6, ctrl_c)
    train.main(command(folder))
    saved = Checkpoint.load(folder / "last.safetensors")
    known = {*SETTINGS, "learning_rate", "schedule", "momentum", "weight_decay", "augment", "seed", "device", "out"}
    config = {key: value for key, value in saved.config.items() if key in known}
    dataclasses.replace(saved, config=config).save(folder / "last.safetensors")
    assert train.main(["--resume", str(folder)]) == DONE
    assert_same_run(folder, finished.folder)


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """A run with 28 of its 128 images held out: its folder, history, lines and settings."""
    folder, lines = tmp_path_factory.mktemp("validated") / "run", []
    config = config_of(out=str(folder), validation=28, epochs=2)
    history = train.fit(config, say=lines.append)
    return SimpleNamespace(folder=folder, history=history, lines=lines, config=config)


def test_validation_images_are_reported_beside_the_test(validated):
    assert list(validated.history[0]) == [
        *("epoch", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy"),
        *("validation_loss", "validation_accuracy", "images_per_second", "seconds"),
    ]
    with open(validated.folder / "metrics.csv", newline="") as file:
        assert [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)] == validated.history
    opening, _, head, *rows = validated.lines
    assert "on 100 digits images, validated on 28, tested on 60; run folder" in opening
    for row, record in zip(rows, validated.history, strict=True):
        assert len(row) == len(head)
        columns = [float(word) for word in row.split()[2:8]]
        for part, loss, percent in zip(("train", "validation", "test"), columns[::2], columns[1::2], strict=True):
            assert loss == pytest.approx(record[f"{part}_loss"], abs=5e-5)
            assert percent == pytest.approx(100 * record[f"{part}_accuracy"], abs=5e-3)
        assert record["validation_accuracy"] * 28 == pytest.approx(round(record["validation_accuracy"] * 28), abs=1e-9)
        assert record["images_per_second"] == pytest.approx(100 / record["seconds"])


def test_what_is_reported_of_validation_images_is_theirs(validated):
    dataset = load("digits").first(128, 60).hold_out(28)
    model, _ = train.build(validated.config, dataset)
    model.load_state_dict(Checkpoint.load(validated.folder / "last.safetensors").weights())
    last = validated.history[-1]
    assert train.evaluate(model, dataset.validating(), validated.config) == (
        last["validation_loss"],
        last["validation_accuracy"],
    )
    assert train.evaluate(model, dataset, validated.config) == (last["test_loss"], last["test_accuracy"])


def test_the_test_that_counts_is_where_validation_images_are_recognised_best(validated):
    def ends(accuracies, config):
        history = [
            {"epoch": i + 1, "seconds": 60.0, "test_accuracy": test, "validation_accuracy": validation}
            for i, (validation, test) in enumerate(accuracies)
        ]
        if not config.validation:
            history = [{key: record[key] for key in ("epoch", "seconds", "test_accuracy")} for record in history]
        return report.summary(history, config, run_folder.RunFolder(validated.folder)).splitlines()[0]

    # The best test accuracy of all is not what counts, nor the last; of two equal ones the first does.
    accuracies = [(0.5, 0.99), (0.9, 0.87), (0.9, 0.88), (0.8, 0.89)]
    assert ends(accuracies, validated.config) == (
        "Test accuracy 87.00 % after epoch 2, the best on the validation images, of 4 epochs and 4.0 minutes of training."
    )
    assert ends(accuracies, config_of()) == "Test accuracy 89.00 % after 4 epochs and 4.0 minutes of training."


def test_weights_are_kept_of_the_epoch_that_counts(tmp_path, quick, monkeypatch):
    """Of three epochs the second is best on the validation images: weights.safetensors is its, last.safetensors the third's."""
    folder, kept = tmp_path / "run", []
    accuracies = iter([0.1, 0.2, 0.5, 0.9, 0.5, 0.3])  # test and validation of each epoch

    def save_weights(*args):
        kept.append(len((folder / "log.jsonl").read_text().splitlines()))
        original(*args)

    monkeypatch.setattr(train, "evaluate", lambda *args: (1.0, next(accuracies)))
    original = run_folder.save_weights
    monkeypatch.setattr(run_folder, "save_weights", save_weights)
    train.fit(config_of(out=str(folder), validation=28, epochs=3), say=lambda line: None)
    assert kept == [1, 2]
    last = Checkpoint.load(folder / "last.safetensors").weights()
    best = read_weights(folder / "weights.safetensors")
    assert any(not np.array_equal(best[name], last[name]) for name in best)


@pytest.mark.parametrize("model", ["allcnn_c", "vgg16_imagenet", "fractalnet_c3_b5"])
def test_a_network_for_other_sizes_is_refused_before_there_is_a_folder(model, tmp_path, capsys):
    assert train.main(["--model", model, "--data", "digits", "--out", str(tmp_path / "run")]) == WRONG_COMMAND_LINE
    said = capsys.readouterr().err
    assert f"--model {model} cannot work on digits, whose images have 8×8 pixels" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_companions_are_built_for_the_images_there_are(tmp_path, quick):
    """Of a Deeply-Supervised Net they see the whole image; so do its layers for the digits' one channel."""
    _, _, model, _ = parts(model="dsn", data="digits")
    assert model.companion1.weight.shape == (10, 192 * 8 * 8)


@pytest.mark.parametrize(("model", "rates"), [("vgg16_bn_cifar", {0.2}), ("fractalnet_c3_b5", {0.2}), ("nin", {0.2})])
def test_one_dropout_rate_is_that_of_all(model, rates):
    made = train.build(TrainConfig(model=model, dropout=0.2), load("digits"))[0]
    assert {module.p for module in made.modules() if isinstance(module, Dropout)} == rates


def test_dropout_of_a_network_without_is_refused(capsys):
    assert train.main(["--model", "resnet20", "--dropout", "0.2", "--data", "digits"]) == WRONG_COMMAND_LINE
    assert "--dropout 0.2: resnet20 has none; leave it out" in capsys.readouterr().err


def test_without_validation_the_report_is_as_before(finished):
    assert report.table_head(config_of()) == (
        "  epoch      rate   train loss   acc %   test loss   acc %   images/s       time"
    )
    assert not any("valid" in line for line in finished.lines)


@pytest.mark.parametrize(
    "name", ["nin", "dsn", "fractalnet_c3_b5_drop", "resnet20_stochdepth", "wrn10_1", "highway_19"]
)
def test_the_groups_of_other_families_hold_each_parameter_once(name):
    """Photographs of 32×32 pixels, since these networks are made for them: groups cover each parameter once."""
    config = TrainConfig(model=name, **CAFFE)
    images, labels = np.zeros((4, 3, 32, 32), np.uint8), np.arange(4)
    dataset = Dataset("grey", images, labels, images, labels, tuple("0123456789"), (0.0,) * 3, (1.0,) * 3, 4, True)
    model, optimizer = train.build(config, dataset)
    grouped = [w for group in optimizer.groups for w in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(model.parameters())
    slow = [
        name
        for name, w in model.named_parameters()
        for g in optimizer.groups
        if w in g["params"] and g["lr_scale"] in (0.1, 0.2)
    ]
    assert len(slow) == 2  # weight and bias of the layer that makes the logits


def test_a_network_may_have_a_share_of_the_rate_for_some_of_its_layers():
    """Companions of a Deeply-Supervised Net learn at a thousandth, on top of what the recipe says of biases."""
    images, labels = np.zeros((4, 3, 32, 32), np.uint8), np.arange(4)
    dataset = Dataset("grey", images, labels, images, labels, tuple("0123456789"), (0.0,) * 3, (1.0,) * 3, 4, True)
    model, optimizer = train.build(TrainConfig(model="dsn", bias_rate=2.0), dataset)
    times = {w: group["lr_scale"] for group in optimizer.groups for w in group["params"]}
    assert {name: times[w] for name, w in model.named_parameters() if name.startswith("companion")} == {
        f"companion{i}.{part}": share for i in (1, 2, 3) for part, share in (("weight", 0.001), ("bias", 0.002))
    }
    assert {times[w] for name, w in model.named_parameters() if not name.startswith("companion")} == {1.0, 2.0}


# -- divergence -------------------------------------------------------------------------------------------------------


def diverge_from(epoch: float, monkeypatch) -> None:
    """A learning rate at which nothing finite is left, from some moment on."""
    original = TrainConfig.learning_rate_at
    monkeypatch.setattr(TrainConfig, "learning_rate_at", lambda self, at: 1e30 if at >= epoch else original(self, at))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's own words on overflow: see the test of the one line
def test_a_run_that_diverges_ends_with_3_and_keeps_its_last_checkpoint(tmp_path, quick, at_step, monkeypatch, capsys):
    folder, kept = tmp_path / "run", {}
    diverge_from(1, monkeypatch)
    at_step(STEPS + 1, lambda: kept.update({path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}))
    assert train.main(command(folder)) == DIVERGED == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for word in ("loss became", "epoch 2", "diverged", "--learning-rate"):
        assert word in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept
    assert len(log_of(folder)) == 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_that_shows_only_in_testing_names_its_epoch(tmp_path, quick, monkeypatch):
    diverge_from(2 - 1 / STEPS, monkeypatch)  # the last step of the second epoch
    with pytest.raises(DivergenceError, match="epoch 2"):
        train.fit(config_of(out=str(tmp_path / "run")), say=lambda line: None)
    assert len(log_of(tmp_path / "run")) == 1


def test_a_process_whose_run_diverges_says_one_line(tmp_path):
    line = command(tmp_path / "run", learning_rate=1e30)
    done = subprocess.run(
        [sys.executable, "-m", "minidense.train", *line], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


# -- learning ---------------------------------------------------------------------------------------------------------


def test_a_small_network_learns_a_few_digits(tmp_path, quick):
    """Three seeds reached 93 to 97 % and a loss of 0.13 to 0.26 (its bits depend on the BLAS); chance is 10 % and ln 10 = 2.3."""
    changes = {"model": "densenet_bc_10_8", "limit_train": 256, "batch_size": 16, "epochs": 12, "dropout": 0.0}
    config = config_of(out=str(tmp_path / "run"), schedule="one_cycle", learning_rate=0.2, **changes)
    history = train.fit(config, say=lambda line: None)
    assert history[-1]["train_loss"] < 0.6
    assert history[-1]["test_accuracy"] > 0.8


@pytest.mark.slow
def test_the_quickstart_reaches_97_percent(tmp_path, capsys):
    assert train.main(["--preset", "quickstart", "--out", str(tmp_path / "run")]) == DONE
    assert log_of(tmp_path / "run")[-1]["test_accuracy"] >= 0.97


def test_evaluation_weighs_every_image_equally_whatever_the_batches():
    losses = []
    for size in (7, 32, 60):
        config, dataset, model, _ = parts(batch_size=size)
        losses.append(train.evaluate(model, dataset, config))
    assert losses[0][1] == losses[1][1] == losses[2][1]
    np.testing.assert_allclose([loss for loss, _ in losses], losses[2][0], rtol=1e-6)  # float32 means of 7 to 60 terms


def test_evaluation_changes_nothing():
    config, dataset, model, _ = parts()
    before = model.state_dict()
    first, second = (train.evaluate(model, dataset, config) for _ in range(2))
    assert first == second
    for name, array in model.state_dict().items():
        assert array.tobytes() == before[name].tobytes()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_counts_loss_and_hits_of_every_image_once():
    """With a learning rate of almost 0 the mean over the epoch is the mean over its batches, computed one by one."""
    config, dataset, model, optimizer = parts(learning_rate=1e-30, batch_size=50, dropout=0.0, augment=False)
    progress = train.Progress()
    train.train_epoch(model, optimizer, dataset, config, progress, train.Stopping(), silent_bar())
    _, _, twin, _ = parts(learning_rate=1e-30, dropout=0.0)
    loss = hits = 0.0
    for images, labels in train.training_batches(dataset, size=50, seed=(0, 0), augment=False):
        logits = twin(train.Tensor(images))
        loss += F.cross_entropy(logits, labels).item() * len(labels)
        hits += (logits.data.argmax(1) == labels).sum()
    assert (progress.images, progress.step) == (128, 3)
    assert progress.hits == hits
    assert progress.loss == pytest.approx(loss, rel=1e-6)  # float32 forward passes


# -- steps that fail --------------------------------------------------------------------------------------------------


def bytes_of(tensors) -> list[bytes]:
    return [tensor.data.tobytes() for tensor in tensors]


def failing_call(n: int, original, error):
    """`original`, except that its n-th call raises."""
    calls = 0

    def call(*args, **options):
        nonlocal calls
        calls += 1
        if calls == n:
            raise error
        return original(*args, **options)

    return call


def train_until_it_fails(error):
    """Train until `error`; the parameters and velocities after the last whole step, and after the failure."""
    config, dataset, model, optimizer = parts()
    after_step = []

    def remember():
        after_step.append((bytes_of(model.parameters()), [v.tobytes() for v in optimizer.velocity.values()]))

    with pytest.raises(type(error), match=str(error)):
        train.train_epoch(model, optimizer, dataset, config, train.Progress(), train.Stopping(), silent_bar(remember))
    assert len(after_step) == 2  # it was the third step that failed
    now = bytes_of(model.parameters()), [v.tobytes() for v in optimizer.velocity.values()]
    return after_step[-1], now, model


@pytest.mark.parametrize("into_the_walk", [1, 4, 8])
def test_a_backward_pass_that_fails_in_the_middle_changes_no_parameter(into_the_walk, monkeypatch):
    # A step of this network has 9 batch norms: 2 in each of 3 blocks, 1 in each of 2 transitions, and the last.
    error = RuntimeError("backward broke")
    monkeypatch.setattr(ops.BatchNorm, "backward", failing_call(2 * 9 + into_the_walk, ops.BatchNorm.backward, error))
    with speed.reference_only():
        before, after, model = train_until_it_fails(error)
    assert after == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_dense_block_that_fails_in_the_middle_of_its_backward_pass_changes_no_parameter(monkeypatch):
    error = RuntimeError("a thread broke")
    calls = 2 * 8 + 3  # a step has 8 pairs of norm and convolution: 2 in each of 3 blocks, 1 in each of 2 transitions
    monkeypatch.setattr(unit.Unit, "gradients", failing_call(calls, unit.Unit.gradients, error))
    before, after, model = train_until_it_fails(error)
    assert after == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_memory_that_runs_out_in_the_middle_of_an_update_changes_no_parameter(monkeypatch):
    count = len(parts()[2].parameters())
    error = MemoryError("no room for the 20th update")
    monkeypatch.setattr(optim, "_update", failing_call(2 * count + 20, optim._update, error))
    before, after, _ = train_until_it_fails(error)
    assert after == before


def test_a_forward_pass_that_fails_changes_no_parameter(monkeypatch):
    error = MemoryError("no room for the activations")
    monkeypatch.setattr(
        ops.Conv2d, "forward", failing_call(2 * 9 + 5, ops.Conv2d.forward, error)
    )  # 9 convolutions a step
    with speed.reference_only():
        before, after, _ = train_until_it_fails(error)
    assert after == before


def test_after_a_failed_step_the_run_goes_on_from_its_last_checkpoint(finished, tmp_path, quick, at_step):
    def fail():
        raise MemoryError("somebody else took it all")

    at_step(STEPS + 3, fail)
    with pytest.raises(MemoryError):
        train.fit(config_of(out=str(tmp_path / "run")), say=lambda line: None)
    assert train.main(["--resume", str(tmp_path / "run")]) == DONE
    assert_same_run(tmp_path / "run", finished.folder)


# -- memory -----------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_over_200_steps():
    """Reference counting alone frees every graph: with the cycle collector off there is nothing for it to find.

    The collector is called twice, only to see that it finds nothing and to empty Python's own stores of used tuples.
    """
    config, dataset, model, optimizer = parts(batch_size=4, limit_train=800)
    readings, found, step = np.zeros((201, 2), int), [], 0  # made beforehand: notes must not look like a leak

    def read():
        nonlocal step
        step += 1
        readings[step] = tracemalloc.get_traced_memory()
        if step in (20, 150):
            found.append(gc.collect())
        tracemalloc.reset_peak()

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        with threads(1):  # each thread keeps working memory, and when a second one first needs some is chance
            train.train_epoch(model, optimizer, dataset, config, train.Progress(), train.Stopping(), silent_bar(read))
    finally:
        tracemalloc.stop()
        gc.enable()
    assert step == 200
    assert found == [0, 0]
    (early, early_peak), (late, late_peak) = (readings[a:b].max(0) for a, b in ((21, 71), (151, 201)))
    # Between steps 200 kB are held, within one 600 kB. The smallest array takes 112 bytes: one a step that stays would be
    # 130·112 = 15 kB. Measured: 7.5 kB less in the late window; 4 kB more are allowed for what Python keeps for later.
    assert late_peak - early_peak < 4_000
    assert late - early < 4_000
