"""Experiments: the command and its files, small networks at equal work, and the paper's figures from published numbers."""

import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minidense import experiments
from minidense.bench.trace import trace
from minidense.data import Dataset
from minidense.experiments import (
    EXPERIMENTS,
    Experiment,
    Notebook,
    command,
    figures,
    main,
    side_by_side,
    table2,
    training,
)
from minidense.experiments.side_by_side import GUESSING, Job, Recipe, all_trained, trained
from minidense.experiments.small_networks import FAMILIES, MULTIPLY_ADDS, TOLERANCE
from minidense.models.published import PUBLISHED, TABLE2
from minidense.nn import without_chance
from minidense.plots import Picture, several

DOCS = Path(__file__).parent.parent / "docs" / "results"
FEW = Recipe(train_images=40, test_images=20, epochs=1, batch_size=20)
TWO = ("All-CNN-C", "DenseNet-BC")
RATES = table2.TABLE2_SMALL_RATES
PUBLISHED_NUMBERS = [
    file
    for folder in ("experiments", "paper", "table2-small")
    for file in sorted((DOCS / folder).glob("*.json"))
    if not file.name.endswith(".unfinished.json")  # is there while an experiment runs
]


# -- the frame --------------------------------------------------------------------------------------------------------


def squares(given, notebook):
    """A toy: three runs, each kept."""
    for x in (1, 2, 3):
        if notebook.found({"x": x}) is None:
            notebook.add({"x": x, "y": x * x})
    return {"runs": notebook.runs}


def drawn(numbers):
    figure, ((axes,),) = several(1, width=2, height=2)
    axes.plot([run["x"] for run in numbers["runs"]], [run["y"] for run in numbers["runs"]])
    return Picture(figure, f"Squares [of numbers] up to\n{numbers['runs'][-1]['y']}.")


TOY = Experiment(
    name="toy",
    about="squares of three numbers",
    measure=squares,
    table=lambda numbers: "".join(f"| {run['x']} | {run['y']} |\n" for run in numbers["runs"]),
    picture=drawn,
    reading="They grow.",
)


def test_the_package_says_which_file_holds_which_experiment():
    rows = [line.split()[:2] for line in experiments.__doc__.splitlines() if line.startswith("  ")]
    rows = [row for row in rows if row[0] in EXPERIMENTS]
    assert rows == [
        [name, experiment.measure.__module__.rpartition(".")[2] + ".py"] for name, experiment in EXPERIMENTS.items()
    ]


@pytest.fixture
def toy(monkeypatch):
    """Puts an experiment like TOY into the register: toy(measure=...)."""

    def put(**changes):
        monkeypatch.setitem(EXPERIMENTS, "toy", replace(TOY, **changes))

    put()
    return put


def test_without_a_name_all_are_listed(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    for name, experiment in EXPERIMENTS.items():
        assert f"{name}  " in said
        assert experiment.about in said
        assert name == experiment.name


def test_an_unknown_name_suggests_the_nearest(capsys):
    assert main(["tabel2-small"]) == 2
    assert (
        capsys.readouterr().err
        == "minidense experiment: unknown experiment 'tabel2-small'; did you mean table2-small?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--threads", "0"], "--threads must be at least 1"),
        (["--threads", "two"], "needs a whole number, got 'two'"),
        (["--ouT", "x"], "unknown option --ouT; did you mean --out?"),
        (["--out", ""], "--out needs the name of a folder"),
        (["--out", "zero\0byte"], "cannot be written to"),
        (["--redraw"], "toy.json: No such file"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(toy, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["toy", *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.json"))


def test_help_says_how_to_read_it(toy, capsys):
    with pytest.raises(SystemExit) as end:
        main(["toy", "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "They grow." in said
    assert "Squares of three numbers." in said


def test_a_folder_that_cannot_be_written_to_is_found_out_before_measuring(toy, tmp_path, capsys):
    toy(measure=lambda given, notebook: pytest.fail("measured for nothing"))
    (tmp_path / "file").touch()
    assert main(["toy", "--out", str(tmp_path / "file")]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_numbers_table_and_picture_are_written(toy, tmp_path, capsys):
    assert main(["toy", "--out", str(tmp_path)]) == 0
    numbers = json.loads((tmp_path / "toy.json").read_text())
    assert [run["y"] for run in numbers["runs"]] == [1, 4, 9]
    assert numbers["experiment"] == "toy"
    assert numbers["machine"]["cores"] >= 1
    assert numbers["seconds"] > 0
    report = (tmp_path / "toy.md").read_text()
    assert "| 3 | 9 |" in report
    assert "They grow." in report
    assert "\n\n![Squares \\[of numbers\\] up to 9.](toy.png)\n\n" in report
    with Image.open(tmp_path / "toy.png") as image:
        assert image.format == "PNG"
        assert image.text["Title"] == "toy: squares of three numbers"
        assert image.text["Description"] == "Squares [of numbers] up to\n9."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy.json", "toy.md", "toy.png"]
    said = capsys.readouterr().out
    assert report in said
    assert str(tmp_path / "toy.png") in said


def test_the_folder_is_named_after_the_experiment_by_default(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["toy"]) == 0
    assert (tmp_path / "experiments" / "toy" / "toy.md").exists()


def test_what_was_done_before_an_interruption_is_not_done_again(toy, tmp_path, capsys):
    done = []

    def interrupted(given, notebook):
        for x in (1, 2, 3):
            if notebook.found({"x": x}) is None:
                if x == 3 and len(done) == 2:
                    raise KeyboardInterrupt
                done.append(x)
                notebook.add({"x": x, "y": x * x})
        return {"runs": notebook.runs}

    toy(measure=interrupted)
    assert main(["toy", "--out", str(tmp_path)]) == 130
    assert "run the same again to go on" in capsys.readouterr().err
    kept = json.loads((tmp_path / "toy.unfinished.json").read_text())
    assert [run["x"] for run in kept["runs"]] == [1, 2]
    assert not (tmp_path / "toy.json").exists()

    done.append("again")
    assert main(["toy", "--out", str(tmp_path)]) == 0
    assert done == [1, 2, "again", 3]
    numbers = json.loads((tmp_path / "toy.json").read_text())
    assert [run["x"] for run in numbers["runs"]] == [1, 2, 3]
    assert numbers["seconds"] > kept["seconds"]
    assert not (tmp_path / "toy.unfinished.json").exists()


def test_something_else_in_the_place_of_the_unfinished_is_refused(toy, tmp_path, capsys):
    (tmp_path / "toy.unfinished.json").write_text('{"runs": 3}')
    assert main(["toy", "--out", str(tmp_path)]) == 2
    assert "delete it to begin again" in capsys.readouterr().err


def test_what_cannot_be_drawn_leaves_no_table(toy, tmp_path):
    toy(picture=lambda numbers: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["toy", "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["toy.unfinished.json"]


@pytest.mark.parametrize(("error", "code"), [(BrokenProcessPool(), 1), (OSError(28, "No space left on device"), 4)])
def test_exit_codes(toy, tmp_path, capsys, error, code):
    def fails(given, notebook):
        raise error

    toy(measure=fails)
    assert main(["toy", "--out", str(tmp_path)]) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_redrawing_measures_nothing_and_keeps_the_numbers(toy, tmp_path):
    main(["toy", "--out", str(tmp_path)])
    before = (tmp_path / "toy.json").read_bytes()
    (tmp_path / "toy.md").unlink()
    toy(measure=lambda given, notebook: pytest.fail("measured"), reading="They grow fast.")
    assert main(["toy", "--out", str(tmp_path), "--redraw"]) == 0
    assert "They grow fast." in (tmp_path / "toy.md").read_text()
    assert (tmp_path / "toy.json").read_bytes() == before


def test_redrawing_refuses_another_experiments_numbers(toy, tmp_path, capsys):
    (tmp_path / "toy.json").write_text('{"experiment": "another"}')
    assert main(["toy", "--out", str(tmp_path), "--redraw"]) == 2
    assert "not written by" in capsys.readouterr().err


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        command.as_json({"x": float("nan")})


# -- table 2 in small -------------------------------------------------------------------------------------------------


def random_images(train=60, test=20, seed=0):
    rng = np.random.default_rng(seed)
    return Dataset(
        name="cifar10",
        train_images=rng.integers(0, 256, (train, 3, 32, 32), np.uint8),
        train_labels=rng.integers(0, 10, train),
        test_images=rng.integers(0, 256, (test, 3, 32, 32), np.uint8),
        test_labels=rng.integers(0, 10, test),
        class_names=tuple("abcdefghij"),
        mean=(125.0,) * 3,
        std=(63.0,) * 3,
        crop_padding=4,
        flip=True,
    )


@pytest.fixture
def few_images(monkeypatch):
    monkeypatch.setattr(table2, "load", lambda name, data_dir: random_images())
    monkeypatch.setattr(table2, "thread_count", lambda: 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_networks_do_the_same_work(family):
    costs = FAMILIES[family].costs()
    assert abs(costs["multiply_adds"] / MULTIPLY_ADDS - 1) <= TOLERANCE
    model = FAMILIES[family].build(0)
    with without_chance(model):
        counted = trace(model, 32)
    assert costs["multiply_adds"] == counted.forward_multiply_adds  # where no companion runs along
    assert costs["parameters"] <= counted.parameter_count
    assert (costs["parameters"] < counted.parameter_count) == (family == "Deeply Supervised Net")


def test_the_families_are_those_of_table_2_and_vgg():
    assert list(FAMILIES) == [
        "Network in Network", "All-CNN-C", "Deeply Supervised Net", "Highway Network", "FractalNet", "ResNet", "Stochastic depth",
        "Pre-activation ResNet", "Wide ResNet", "VGG", "DenseNet", "DenseNet-BC",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "slow", "times"),
    [
        ("Network in Network", {"cccp6.weight", "cccp6.bias"}, 0.1),
        ("All-CNN-C", {"conv9.weight", "conv9.bias"}, 0.1),
        ("Deeply Supervised Net", {f"companion{i}.{w}" for i in (1, 2, 3) for w in ("weight", "bias")}, 0.001),
    ],
)
def test_some_layers_learn_slower(family, slow, times):
    model = FAMILIES[family].build(0)
    optimizer = FAMILIES[family].optimizer(model, momentum=0.9)
    rates = {w: group["lr_scale"] for group in optimizer.groups for w in group["params"]}
    assert {name: rates[w] for name, w in model.named_parameters()} == {
        name: times if name in slow else 1 for name, _ in model.named_parameters()
    }
    assert all(group["coast"] for group in optimizer.groups)


def test_narrow_networks_start_as_in_he_et_al_but_gates_stay_closed():
    parameters = dict(FAMILIES["Highway Network"].build(1).named_parameters())
    gates = [w for name, w in parameters.items() if name.endswith("T.bias")]
    assert gates
    assert all((w.data == -2).all() for w in gates)
    weight = parameters["conv2.H.weight"].data
    # The deviation of 324 normal numbers is itself uncertain by 1/√648 = 4 %; nearly four times that is allowed.
    assert weight.std() == pytest.approx((2 / weight[0].size) ** 0.5, rel=0.15)


def test_companions_start_as_their_authors_have_it():
    companion = dict(FAMILIES["Deeply Supervised Net"].build(0).named_parameters())["companion1.weight"].data
    assert abs(companion).max() <= (3 / companion.shape[1]) ** 0.5


def test_seeds_differ_and_the_same_seed_repeats():
    data, job = random_images().first(40, 20), Job("All-CNN-C", 0.01, 0, FEW)
    first, again, other = trained(job, data), trained(job, data), trained(replace(job, seed=1), data)
    assert first["train_loss"] == again["train_loss"] != other["train_loss"]


def test_the_seed_decides_weights_and_order(monkeypatch):
    seeds = []

    def build(seed):
        seeds.append(("weights", seed))
        return family.build(seed)

    def batches(dataset, *, size, seed, augment):
        seeds.append(("order", *seed))
        return training_batches(dataset, size=size, seed=seed, augment=augment)

    family, training_batches = FAMILIES["All-CNN-C"], training.training_batches
    monkeypatch.setitem(FAMILIES, "All-CNN-C", replace(family, build=build))
    monkeypatch.setattr(training, "training_batches", batches)
    trained(Job("All-CNN-C", 0.01, 7, replace(FEW, epochs=2)), random_images())
    assert seeds == [("weights", 7), ("order", 7, 0), ("order", 7, 1)]


def test_each_group_follows_the_cycle_at_its_own_rate(monkeypatch):
    seen = []

    def noted(model, optimizer, images, labels):
        seen.append([group["lr"] for group in optimizer.groups])
        return training_step(model, optimizer, images, labels)

    training_step = training.training_step
    monkeypatch.setattr(training, "training_step", noted)
    trained(Job("Network in Network", 0.5, 0, replace(FEW, epochs=5, warmup=0.4)), random_images().first(40, 20))
    assert len(seen) == 10
    fast = [rates[0] for rates in seen]
    # Equal but for rounding, here and below: approx's own 1e-6.
    assert fast[0] == pytest.approx(0.05)
    assert max(fast) == fast[4] == pytest.approx(0.5)
    assert fast[-1] == pytest.approx(0.5 / 6)
    assert [rates[1] for rates in seen] == pytest.approx([rate / 10 for rate in fast])


def test_a_run_that_diverges_counts_as_guessing():
    run = trained(Job("All-CNN-C", 1e25, 0, replace(FEW, epochs=3)), random_images())
    assert run["diverged"]
    assert (run["test_error"], run["train_loss"]) == (GUESSING, None) == (90, None)
    table2.row("All-CNN-C", [run, run])


def test_the_table_has_mean_and_spread_of_its_runs(few_images, tmp_path):
    notebook = Notebook(tmp_path / "kept.json")
    numbers = table2.table2_small(recipe=FEW, seeds=2, families=TWO, notebook=notebook)
    assert [(run["family"], run["seed"]) for run in notebook.runs] == [(name, seed) for seed in (0, 1) for name in TWO]
    for each in numbers["families"]:
        errors = [run["test_error"] for run in notebook.runs if run["family"] == each["family"]]
        assert each["test_errors"] == errors
        assert all(error % 5 == 0 for error in errors)  # of 20 images
        # Equal but for rounding.
        assert each["mean"] == pytest.approx(statistics.fmean(errors))
        assert each["spread"] == pytest.approx(statistics.stdev(errors))
        assert each["rate"] == FAMILIES[each["family"]].rate
    json.dumps(numbers, allow_nan=False)

    lines = table2.table(numbers).splitlines()
    for each in numbers["families"]:
        line = next(line for line in lines if line.startswith(f"| {each['family']} |"))
        assert f"{each['mean']:.1f} ± {each['spread']:.1f}" in line
        assert ", ".join(f"{error:.1f}" for error in each["test_errors"]) in line
        assert f"{each['parameters']:,}" in line


def test_finished_runs_are_kept_and_other_settings_are_other_runs(few_images, tmp_path, monkeypatch):
    path = tmp_path / "kept.json"
    table2.table2_small(recipe=FEW, seeds=1, families=TWO, notebook=Notebook(path))
    done = []
    monkeypatch.setattr(side_by_side, "trained", lambda job, dataset: done.append(job) or trained(job, dataset))
    table2.table2_small(recipe=FEW, seeds=2, families=TWO, notebook=Notebook(path))
    assert [(job.family, job.seed) for job in done] == [(name, 1) for name in TWO]
    table2.table2_small(recipe=replace(FEW, epochs=2), seeds=1, families=TWO[:1], notebook=Notebook(path))
    assert len(done) == 3


def test_the_picture_shows_every_seed_beside_its_mean(few_images):
    numbers = table2.table2_small(recipe=FEW, seeds=2, families=TWO)
    picture = table2.picture(numbers)
    (axes,) = picture.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(TWO)
    lines = [line for line in axes.lines if line.get_marker() not in ("None", None, "")]
    for place, each in enumerate(numbers["families"]):
        seeds, mean = (line for line in lines if line.get_ydata()[0] == place)
        assert list(seeds.get_xdata()) == each["test_errors"]
        assert set(seeds.get_ydata()) == {place}
        assert list(mean.get_xdata()) == [each["mean"]]
    best, worst = sorted(numbers["families"], key=lambda each: each["mean"])
    assert f"{best['family']} {best['mean']:.1f} %, {worst['family']} {worst['mean']:.1f} %." in picture.alt
    assert "2 seeds each" in picture.alt


def test_two_processes_find_what_one_finds():
    jobs = [Job(name, 0.01, 0, FEW) for name in TWO]
    data = random_images().first(40, 20)
    alone = {run["family"]: run for run in all_trained(jobs, data, processes=1)}
    beside = {run["family"]: run for run in all_trained(jobs, data, processes=2)}
    for name in TWO:
        for key in ("train_loss", "test_error", "family", "rate", "seed", "recipe"):
            assert alone[name][key] == beside[name][key]


def test_who_wants_no_more_does_not_wait_for_runs_that_go_on():
    short, endless = Job("All-CNN-C", 0.01, 0, FEW), Job("All-CNN-C", 0.01, 1, replace(FEW, epochs=100_000))
    runs = all_trained([short, endless], random_images().first(40, 20), processes=2)
    assert next(runs)["seed"] == 0
    runs.close()  # as after Ctrl-C
    assert not multiprocessing.active_children()


def test_other_processes_of_who_asked_go_on():
    """A notebook may have some of its own, from before and begun while the runs went on."""
    before, meanwhile = (multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,)) for _ in range(2))
    jobs = [Job("All-CNN-C", 0.01, seed, replace(FEW, epochs=epochs)) for seed, epochs in ((0, 1), (1, 100_000))]
    try:
        before.start()
        runs = all_trained(jobs, random_images().first(40, 20), processes=2)
        next(runs)
        meanwhile.start()
        runs.close()
        assert set(multiprocessing.active_children()) == {before, meanwhile}
    finally:
        for process in (before, meanwhile):
            if process.pid is not None:
                process.terminate()
                process.join()


FORSAKEN = """
import multiprocessing, sys, threading, time
sys.path.insert(0, {tests!r})
from test_experiments import FEW, Job, all_trained, random_images, replace

def tell():
    while len(found := multiprocessing.active_children()) < 2:
        time.sleep(0.1)
    time.sleep(5)
    print(*(process.pid for process in found), flush=True)

if __name__ == "__main__":
    threading.Thread(target=tell, daemon=True).start()
    jobs = [Job("All-CNN-C", 0.01, seed, replace(FEW, epochs=100_000)) for seed in (0, 1)]
    list(all_trained(jobs, random_images().first(40, 20), processes=2))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes where Linux lists them")
def test_workers_end_with_the_one_that_asked(tmp_path):
    script = tmp_path / "forsaken.py"
    script.write_text(FORSAKEN.format(tests=str(Path(__file__).parent)))
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as asking:
        workers = asking.stdout.readline().split()
        asking.kill()
    assert len(workers) == 2
    for _ in range(100):
        if not any(running(pid) for pid in workers):
            break
        time.sleep(0.1)
    assert not any(running(pid) for pid in workers)


def running(pid):
    """Is there such a process that is more than a name waiting to be struck off?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_rates_are_chosen_without_a_test_image(few_images, monkeypatch):
    how = {"recipe": FEW, "families": TWO}
    numbers = table2.table2_small_rates(**how)
    for each in numbers["families"]:
        assert [one["rate"] for one in each["tried"]] == list(FAMILIES[each["family"]].tried)
        best = min(one["error"] for one in each["tried"])
        assert best == next(one["error"] for one in each["tried"] if one["rate"] == each["chosen"])
    other = replace(random_images(), test_images=np.zeros((5, 3, 32, 32), np.uint8), test_labels=np.zeros(5, np.int64))
    monkeypatch.setattr(table2, "load", lambda name, data_dir: other)
    assert table2.table2_small_rates(**how)["families"] == numbers["families"]


def test_table_and_picture_of_the_rates_mark_the_chosen_one():
    tried = {"All-CNN-C": (71.5, 70.25, 72.0), "DenseNet-BC": (60.0, 59.0, 58.0)}
    rows = [
        {
            "family": name,
            "tried": [{"rate": rate, "error": error} for rate, error in zip(FAMILIES[name].tried, errors, strict=True)],
        }
        for name, errors in tried.items()
    ]
    rows[0]["chosen"], rows[1]["chosen"] = 0.03, 1.0
    numbers = {"recipe": asdict(FEW), "held_out": 20, "families": rows}
    picture = table2.rates_picture(numbers)
    panels = [axes for axes in picture.figure.axes if axes.get_visible()]
    for axes, name in zip(panels, tried, strict=True):
        all_of_them, chosen = axes.lines
        assert axes.get_title() == name
        assert tuple(all_of_them.get_xdata()) == FAMILIES[name].tried
        assert tuple(all_of_them.get_ydata()) == tried[name]
        assert (*chosen.get_xdata(), *chosen.get_ydata()) == {"All-CNN-C": (0.03, 70.25), "DenseNet-BC": (1.0, 58.0)}[
            name
        ]
    assert "All-CNN-C 0.03 (70.2 %), DenseNet-BC 1 (58.0 %)." in picture.alt
    table = table2.rates_table(numbers)
    assert "| All-CNN-C | 71.5 | 70.2 | 72.0 |  |  | 0.03 |" in table
    assert "| DenseNet-BC |  |  | 60.0 | 59.0 | 58.0 | 1 |" in table


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seeds", "0"], "--seeds must be at least 1"),
        (
            ["--tune", "--seeds", "5"],
            "--tune trains each network once at each rate, always from seed 0; leave out --seeds 5",
        ),
        (["--epochs", "-1"], "--epochs must be at least 1"),
        (["--family", "DenseNetBC"], "did you mean DenseNet-BC?"),
    ],
)
def test_wrong_options_of_its_own(few_images, tmp_path, capsys, arguments, says):
    assert main(["table2-small", "--out", str(tmp_path), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_the_command_trains_what_was_asked_for_and_tune_writes_beside_it(few_images, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(table2, "RECIPE", FEW)
    monkeypatch.setattr(table2, "TUNING", FEW)
    asked = ["table2-small", "--out", str(tmp_path), "--threads", "1", "--family", "All-CNN-C"]
    assert main([*asked, "--seeds", "1"]) == 0
    numbers = json.loads((tmp_path / "table2-small.json").read_text())
    assert [each["family"] for each in numbers["families"]] == ["All-CNN-C"]
    assert numbers["seeds"] == [0]
    assert "All-CNN-C" in capsys.readouterr().out
    assert main([*asked, "--tune"]) == 0
    rates = json.loads((tmp_path / "table2-small-rates.json").read_text())
    assert rates["families"][0]["family"] == "All-CNN-C"
    assert json.loads((tmp_path / "table2-small.json").read_text()) == numbers


@pytest.mark.skipif(not DOCS.exists(), reason="the results are not part of a source distribution")
def test_the_rates_in_use_are_those_that_were_chosen():
    rates = json.loads((DOCS / "table2-small" / "table2-small-rates.json").read_text())
    assert {each["family"]: each["chosen"] for each in rates["families"]} == {
        name: f.rate for name, f in FAMILIES.items()
    }
    assert {each["family"]: tuple(one["rate"] for one in each["tried"]) for each in rates["families"]} == {
        name: f.tried for name, f in FAMILIES.items()
    }


@pytest.mark.skipif(not DOCS.exists(), reason="the results are not part of a source distribution")
def test_numbers_of_all_folders_are_compared_with_their_reports():
    found = {file.stem for file in PUBLISHED_NUMBERS}
    assert found >= {"vanishing-gradient", "path-lengths", "paper-figures", "table2-small", "table2-small-rates"}


@pytest.mark.skipif(not DOCS.exists(), reason="the results are not part of a source distribution")
@pytest.mark.parametrize("file", PUBLISHED_NUMBERS, ids=lambda file: file.stem)
def test_the_published_reports_are_those_of_the_published_numbers(file):
    folder, experiment = file.parent, {**EXPERIMENTS, RATES.name: RATES}[file.stem]
    numbers = json.loads(file.read_text())
    alt = experiment.picture(numbers).alt
    assert (folder / f"{experiment.name}.md").read_text() == experiment.report(numbers, alt)
    with Image.open(folder / f"{experiment.name}.png") as image:
        assert image.text["Description"] == alt


# -- the paper's figures ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper():
    return figures.paper_figures()


def test_every_point_is_a_published_one(paper):
    for each in paper["figure3"] + paper["figure4"]:
        column, classes = ("top-1", 1000) if each in paper["figure3"] else ("C10+", 10)
        known = next(p for p in PUBLISHED if p.name == each["name"])
        tested = known if known.name != "dsn" else next(p for p in PUBLISHED if p.name == "nin")
        assert each["error"] == known.errors[column]
        assert (each["parameters"], each["flops"]) == (tested.counts[classes][0], 2 * tested.counts[classes][1])
        assert each["source"] == known.source != ""


def test_figure_3_says_what_the_paper_says_of_it(paper):
    by = {each["label"]: each for each in paper["figure3"]}
    assert by["DenseNet-201"]["parameters"] < by["ResNet-101"]["parameters"] / 2
    # What the paper calls the same error and the same work: 22.58 and 22.44 %, 8.58 and 8.18 GFLOPs, which is 4.9 % more.
    assert by["DenseNet-201"]["error"] == pytest.approx(by["ResNet-101"]["error"], abs=0.2)
    assert by["DenseNet-201"]["flops"] == pytest.approx(by["ResNet-50"]["flops"], rel=0.06)


@pytest.mark.parametrize(
    ("family", "parameters"),
    {
        "DenseNet": [270_706, 467_098, 716_770, 1_019_722, 1_785_466, 2_764_330],
        "DenseNet-C": [150_290, 261_978, 404_578, 578_090, 1_017_850, 1_581_258],
        "DenseNet-B": [95_290, 140_002, 191_554, 249_946, 387_250, 551_914],
        "DenseNet-BC": [71_686, 102_730, 137_542, 176_122, 264_586, 368_122],
        "pre-activation ResNet, basic": [269_722, 464_154, 658_586, 853_018, 1_727_962],
        "pre-activation ResNet, bottlenecks": [312_218, 497_690, 683_162, 868_634, 1_703_258],
    }.items(),
)
def test_the_sizes_of_figure_4_are_exact(paper, family, parameters):
    assert [each["parameters"] for each in paper["sizes"] if each["family"] == family] == parameters


def test_table_2_is_whole_with_its_counts(paper):
    assert [(each["method"], each["errors"], each["millions"]) for each in paper["table2"]] == [
        (row.method, dict(row.errors), row.millions) for row in TABLE2
    ]
    by = {each["name"]: each for each in paper["table2"]}
    assert by["densenet_bc_100_12"]["parameters"] == {"10": 769_162, "100": 800_032}
    assert by["wrn16_4"]["parameters"] == {"10": 2_748_890}  # a row with nothing but SVHN
    table = figures.table(paper)
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(TABLE2) + 1 + len(paper["figure3"])
    assert (
        "| DenseNet-BC (k = 12) | 100 | 0.8 M | 769,162 | 800,032 | 288 M | 5.92 | 4.51 | 24.15 | 22.27 | 1.76 |  |"
        in table
    )
    assert "| 11.26* | 5.46 | 35.58* | 24.33 |" in table


def test_what_is_printed_agrees_with_what_is_built_but_for_the_slips_that_have_a_note(paper):
    for each in paper["table2"]:
        if each["millions"] is not None and round(each["parameters"]["10"] / 1e6, 1) != each["millions"]:
            assert each["notes"], each["method"]


def test_every_note_is_about_a_row(paper):
    numbers = [number for each in paper["table2"] for number in each["notes"]]
    assert set(numbers) == set(range(1, len(paper["notes"]) + 1))
    plain, reported = (each for each in paper["table2"] if each["name"] == "resnet110")
    assert not plain["notes"]
    assert reported["notes"]  # 152 layers behind its SVHN
    for number in range(1, len(paper["notes"]) + 1):
        assert f"\n{number}. " in figures.table(paper)


def test_the_picture_has_every_point_in_it(paper):
    picture = figures.picture(paper)
    by_parameters, by_flops, printed, sizes = picture.figure.axes

    def drawn(axes):
        return sorted((float(x), float(y)) for line in axes.lines for x, y in zip(*line.get_data(), strict=True))

    assert drawn(by_parameters) == sorted((each["parameters"] / 1e6, each["error"]) for each in paper["figure3"])
    assert drawn(by_flops) == sorted((each["flops"] / 1e9, each["error"]) for each in paper["figure3"])
    assert drawn(printed) == sorted((each["parameters"], each["error"]) for each in paper["figure4"])
    assert drawn(sizes) == sorted((each["depth"], each["parameters"]) for each in paper["sizes"])
    labels = [text.get_text() for text in printed.texts]
    assert labels == [each["label"] for each in paper["figure4"]]
    by = {(each["family"], each["label"]): each for each in paper["figure4"]}
    best = by["DenseNet-BC", "190, 40"]
    assert f"on CIFAR-10: DenseNet-BC {best['error']:.2f} % with {best['parameters'] / 1e6:.1f} M" in picture.alt
    assert "on ImageNet: DenseNet-BC 22.15 % with 33.3 M parameters" in picture.alt


def test_the_command_makes_them(tmp_path):
    assert main(["paper-figures", "--out", str(tmp_path)]) == 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md", ".png"]
