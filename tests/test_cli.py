"""The command line: what is wrong is said in one line, what is right means the same everywhere."""

import errno
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import asdict, fields
from io import StringIO
from pathlib import Path

import platformdirs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minidense import train
from minidense.checkpoint import Checkpoint
from minidense.command import CANNOT_WRITE, DONE, NO_MEMORY
from minidense.config import PRESETS, SCHEDULES, TrainConfig, flag, parse, read_toml
from minidense.data import NORMALISATIONS
from minidense.errors import ConfigError

TINY = (
    *("--data", "digits", "--model", "densenet_bc_10_4", "--limit-train", "16", "--limit-test", "8"),
    *("--batch-size", "8", "--epochs", "1", "--threads", "1"),
)
cupy_is_here = importlib.util.find_spec("cupy") is not None


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of one epoch."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with redirect_stdout(StringIO()):
        assert train.main([*TINY, "--out", str(folder)]) == DONE
    return folder


@pytest.fixture
def nowhere(tmp_path, monkeypatch, finished):
    """An empty current folder, no data set in sight; "run" holds a finished run, "file" is a file, "empty" an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIDENSE_DATA", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda app: str(tmp_path / "cache" / app))
    shutil.copytree(finished, "run")
    Path("file").write_text("hello")
    Path("empty").mkdir()
    return tmp_path


def exit_code(argv) -> int:
    """What the process would end with."""
    try:
        return train.main(argv)
    except SystemExit as end:
        return end.code


# Each line with words that the message must hold: what is wrong, and where there is one, the way out.
WRONG = [
    # options and values
    ("--preset quikstart", ["--preset", "'quikstart'", "did you mean quickstart"]),
    ("--preset xyz", ["'xyz'", "--presets lists them"]),
    ("--preset densnet_bc_100_12-c10", ["--preset", "did you mean densenet_bc_100_12-c10?"]),
    ("--preset wrn28_10-c10", ["did you mean wrn28_10-c10+?"]),
    ("--lerning-rate 0.1", ["--lerning-rate", "did you mean --learning-rate"]),
    ("--batch 64", ["unknown option --batch", "--batch-size"]),
    ("--epoch=3", ["--epoch", "did you mean --epochs"]),
    ("-x", ["-x"]),
    ("hello", ["hello"]),
    ("train --epochs 3", ["train"]),
    ("--epochs", ["--epochs", "expected one argument"]),
    ("--out --epochs 3", ["--out", "expected one argument"]),
    ("--no-augment=3", ["--no-augment", "'3'"]),
    ("--batch-size 0", ["--batch-size", "at least 1", "got 0"]),
    ("--batch-size -1", ["--batch-size", "at least 1", "got -1"]),
    ("--batch-size 1.5", ["--batch-size", "whole number", "'1.5'"]),
    ("--batch-size abc", ["--batch-size", "whole number", "'abc'"]),
    ("--batch-size=", ["--batch-size", "whole number", "''"]),
    ("--epochs 0", ["--epochs", "at least 1", "got 0"]),
    ("--epochs 1e2", ["--epochs", "whole number", "'1e2'"]),
    ("--learning-rate 0", ["--learning-rate", "above 0", "got 0.0"]),
    ("--learning-rate -1", ["--learning-rate", "above 0", "got -1.0"]),
    ("--learning-rate nan", ["--learning-rate", "above 0", "got nan"]),
    ("--learning-rate inf", ["--learning-rate", "got inf"]),
    ("--learning-rate fast", ["--learning-rate", "a number", "'fast'"]),
    ("--momentum 1", ["--momentum", "below 1", "got 1.0"]),
    ("--momentum -0.1", ["--momentum", "at least 0", "got -0.1"]),
    ("--dropout 1", ["--dropout", "below 1", "got 1.0"]),
    ("--dropout nan", ["--dropout", "got nan"]),
    ("--drop-at", ["--drop-at", "expected at least one argument"]),
    ("--drop-at soon", ["--drop-at", "a number", "'soon'"]),
    ("--drop-at 60,,120", ["--drop-at", "a number", "'60,,120'"]),
    ("--drop-at 0", ["--drop-at", "above 0"]),
    ("--drop-at nan", ["--drop-at", "above 0"]),
    ("--drop-at 1e99", ["--drop-at", "above 0"]),
    ("--drop-at 120 60", ["--drop-at", "must not decrease", "120 60"]),
    ("--drop-at 0.5 60", ["--drop-at", "must not decrease", "0.5 60", "of 300 epochs, 149 60"]),
    ("--drop-factor 0", ["--drop-factor", "above 0 and at most 1", "got 0.0"]),
    ("--drop-factor 2", ["--drop-factor", "at most 1", "got 2.0"]),
    ("--warmup-epochs -1", ["--warmup-epochs", "at least 0", "got -1.0"]),
    ("--warmup-rate 0", ["--warmup-rate", "above 0", "got 0.0"]),
    ("--bias-rate -2", ["--bias-rate", "at least 0", "got -2.0"]),
    ("--last-layer-rate inf", ["--last-layer-rate", "got inf"]),
    ("--normalise zac", ["--normalise", "did you mean zca"]),
    ("--padding mirror", ["--padding", "'mirror'", "zeros, reflect"]),
    ("--crop-padding -1", ["--crop-padding", "at least 0", "got -1"]),
    ("--validation -1", ["--validation", "at least 0", "got -1"]),
    ("--weight-decay -1", ["--weight-decay", "at least 0", "got -1.0"]),
    ("--schedule linear", ["--schedule", "'linear'", *SCHEDULES]),
    ("--schedule cosin", ["--schedule", "did you mean cosine"]),
    ("--device cuda", ["--device", "'cuda'", "cpu, gpu"]),
    ("--threads 0", ["--threads", "at least 1", "got 0"]),
    ("--seed -1", ["--seed", "at least 0", "got -1"]),
    ("--threads 99999999999999999999999", ["--threads", "at most 1,000,000,000"]),
    ("--epochs 99999999999999999999999", ["--epochs", "at most 1,000,000,000"]),
    ("--lr 0.1", ["unknown option --lr", "--help"]),
    (f"--resume {'n' * 300}", ["--resume", "nnn"]),
    (f"--data-dir {'n' * 300}", ["--data-dir", "no such folder"]),
    ("--seed 9223372036854775808", ["--seed", "9223372036854775808"]),
    ("--limit-train 0", ["--limit-train", "at least 1", "got 0"]),
    ("--limit-test -5", ["--limit-test", "at least 1", "got -5"]),
    # models
    ("--data digits --model densnet_bc_100_12", ["'densnet_bc_100_12'", "Did you mean densenet_bc_100_12"]),
    ("--data digits --model lenet", ["unknown model", "'lenet'", "Did you mean", "resnet"]),
    ("--data digits --model preresnet164 --dropout 0.5", ["preresnet164", "--dropout 0.5", "leave it out"]),
    ("--data digits --model densenet_bc_101_12", ["depth 101", "Nearest: 100, 106"]),
    ("--data digits --model densenet_41_12", ["depth 41", "Nearest: 40, 43"]),
    ("--data digits --model densenet_bc_4_12", ["depth 4", "Nearest: 10"]),
    ("--data digits --model densenet_bc_22_0", ["growth rate", "0"]),
    ("--data digits --model densenet_22_0", ["growth rate", "0"]),
    # data
    ("--data mnist", ["--data", "'mnist'", "digits, cifar10"]),
    ("--data cifar", ["--data", "did you mean cifar10"]),
    ("--data cifar10", ["cifar10 was not found in datasets", "curl", "--data-dir"]),
    ("", ["cifar10 was not found in datasets", "curl", "--data-dir"]),
    ("--data-dir nothing-here", ["--data-dir nothing-here", "no such folder"]),
    ("--data-dir empty", ["cifar10 was not found in empty", "cifar-10-binary.tar.gz"]),
    ("--data-dir file", ["cifar10 was not found in file"]),
    ("--data-dir web-page", ["cifar-10-binary.tar.gz", "not a .tar.gz archive"]),
    ("--data cifar100", ["cifar100 was not found in datasets", "cifar-100-binary.tar.gz", "--data-dir"]),
    ("--data svhn", ["svhn was not found in datasets", "extra", "_32x32.mat", "--data-dir"]),
    ("--preset densenet121-imagenet", ["imagenet: reading folders of photographs is not part of minidense yet", "minidense predict"]),
    ("--data digits --validation 1437", ["1,437 training images", "some must stay"]),
    ("--data digits --crop-padding 8", ["8 pixels", "at most 7"]),
    ("--data digits --limit-train 1438", ["1,437 training images", "1,438"]),
    ("--data digits --limit-test 361", ["360 test images", "361"]),
    # run folders and going on
    ("--data digits --out run", ["--out run", "already holds a run", "--resume run"]),
    ("--data digits --model densenet_bc_10_4 --out file", ["--out file", "cannot be written to"]),
    ("--data digits --model densenet_bc_10_4 --out file/run", ["--out file/run", "cannot be written to"]),
    (f"--data digits --model densenet_bc_10_4 --out {'x' * 300}", ["--out xxx", "name too long"]),
    ("--resume nothing-here", ["--resume nothing-here", "no such file or folder"]),
    ("--resume empty", ["--resume empty", "last.safetensors"]),
    ("--resume file", ["file", "cannot be read as safetensors"]),
    ("--resume run/config.toml", ["run/config.toml", "cannot be read as safetensors"]),
    ("--resume run/weights.safetensors", ["run/weights.safetensors", "weights only", "last.safetensors"]),
    ("--resume run --learning-rate 0.2", ["--learning-rate 0.1 in the checkpoint, 0.2 now"]),
    ("--resume run --seed 1 --epochs 5", ["--seed 0 in the checkpoint, 1 now", "--epochs 1 in the checkpoint, 5 now"]),
    ("--resume run --dropout 1", ["--dropout"]),
    ("--resume run --drop-at 2 3", ["--drop-at (0.5, 0.75) in the checkpoint, (2.0, 3.0) now"]),
    ("--resume run --normalise scale", ["--normalise channel in the checkpoint, scale now"]),
    # lines that contradict themselves
    ("--resume run --preset quickstart", ["--model", "densenet_bc_10_4 in the checkpoint", "densenet_bc_22_12 now"]),
    ("--resume run --data cifar10", ["--data digits in the checkpoint, cifar10 now"]),
    ("--resume run --out other", ["--out other", "already holds a run"]),
    ("--resume auto --out other --no-augment", ["--augment True in the checkpoint, False now"]),
    ("--preset paper --data-dir empty", ["cifar10 was not found in empty"]),
    # configuration files
    ("--config nothing-here.toml", ["--config nothing-here.toml", "No such file"]),
    ("--config empty", ["--config empty", "directory"]),
    ("--config file", ["--config file", "Expected"]),
    ("--config run/last.safetensors", ["--config run/last.safetensors"]),
    ("--config unknown.toml", ["--config unknown.toml", "'lerning_rate'", "did you mean learning_rate"]),
    ("--config flag.toml", ["--config flag.toml", "'batch-size'", "did you mean batch_size"]),
    ("--config table.toml", ["--config table.toml", "'train'"]),
    ("--config word.toml", ["--epochs", "type int", "'ten'"]),
    ("--config fraction.toml", ["--batch-size", "type int", "1.5"]),
    ("--config yes.toml", ["--batch-size", "type int", "True"]),
    ("--config list.toml", ["--model", "type str", "['a']"]),
    ("--config drop.toml", ["--drop-at", "numbers above 0", "0.5"]),
    ("--config drops.toml", ["--drop-at", "numbers above 0", "'60'"]),
    ("--config huge.toml", ["learning"]),
    ("--config digits.toml", ["digits.toml"]),
    ("--config nul.toml", ["--out", "zero bytes"]),
    ("--config line.toml", ["--data-dir", "no such folder"]),
]  # fmt: skip

CONFIG_FILES = {
    "unknown.toml": "lerning_rate = 0.1",
    "flag.toml": "batch-size = 64",
    "table.toml": "[train]\nepochs = 3",
    "word.toml": 'epochs = "ten"',
    "fraction.toml": "batch_size = 1.5",
    "yes.toml": "batch_size = true",
    "list.toml": "model = ['a']",
    "drop.toml": "drop_at = 0.5",
    "drops.toml": "drop_at = [0.5, '60']",
    "huge.toml": f"learning_rate = 1{'0' * 400}",
    "digits.toml": f"seed = 1{'0' * 5000}",
    "nul.toml": 'data = "digits"\nmodel = "densenet_bc_10_4"\nout = "a\\u0000b"',
    "line.toml": 'data_dir = "two\\nlines"',
}


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[line[:60] for line, _ in WRONG])
def test_a_wrong_command_line_is_refused_in_one_line_that_says_what_is_wrong(line, words, nowhere, monkeypatch, capsys):
    monkeypatch.setattr(train, "seconds_per_epoch", lambda *args: pytest.fail("it was accepted"))
    for name, content in CONFIG_FILES.items():
        Path(name).write_text(content, encoding="utf-8")
    if "other" in line:
        shutil.copytree("run", "other")
    if "web-page" in line:
        Path("web-page").mkdir()
        Path("web-page/cifar-10-binary.tar.gz").write_text("<html>log in to the network first</html>" * 20)
    before = {path: path.stat().st_mtime_ns for path in nowhere.rglob("*")}
    assert exit_code(line.split()) == 2
    out, err = capsys.readouterr()
    for word in words:
        assert word in err
    assert err.startswith("python -m minidense.train: ")
    assert (err.count("\n"), err[-1]) == (1, "\n"), err
    assert out == ""
    after = {path: path.stat().st_mtime_ns for path in nowhere.rglob("*")}
    assert after == before  # nothing was made, nothing was changed


@pytest.mark.skipif(cupy_is_here, reason="CuPy is installed here")
def test_the_gpu_without_cupy_is_refused_with_the_command_that_installs_it(nowhere, capsys):
    assert exit_code([*TINY, "--device", "gpu"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for word in ("'gpu'", "CuPy", "not installed", "pip install", "cupy-cuda12x[ctk]", "'cpu'"):
        assert word in err


def in_a_process(*args, cwd) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "MINIDENSE_DATA"}
    environment["XDG_CACHE_HOME"] = str(cwd / "cache")
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("--batch-size 0", "at least 1"),
        ("--lerning-rate 3", "--learning-rate"),
        ("--data cifar10", "cifar10 was not found"),
        ("--data digits --model densenet_bc_23_12", "Nearest: 22, 28"),
    ],
)
def test_a_wrong_command_line_ends_the_process_with_2_and_one_line(line, word, tmp_path):
    done = in_a_process("-m", "minidense.train", *line.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert word in done.stderr


# -- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), CANNOT_WRITE, "What was saved before is intact"),
        (MemoryError("Unable to allocate 9 TiB"), NO_MEMORY, "9 TiB"),
    ],
    ids=["disk", "memory"],
)
def test_a_full_disk_or_memory_ends_in_one_line(error, code, word, nowhere, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(Checkpoint, "save", fail)
    assert exit_code(TINY) == code
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert word in message


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_a_reader_that_goes_away_causes_no_traceback(tmp_path):
    line = f"{shlex.quote(sys.executable)} -m minidense.train {' '.join(TINY)} | head -n 1"
    result = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "densenet_bc_10_4" in result.stdout
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


@pytest.fixture
def help_text(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_fits_on_a_screen(help_text):
    lines = help_text.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120


def entry_of(option: str, help_text: str) -> str:
    """The help of one option in one line."""
    match = re.search(rf"^  {option}[ ,].*(?:\n {{10,}}.*)*", help_text, re.MULTILINE)
    assert match, f"{option} is not in the help"
    return " ".join(match[0].split())


@pytest.mark.parametrize("field", fields(TrainConfig), ids=lambda field: field.name)
def test_help_shows_every_setting_with_its_default_and_its_unit(field, help_text):
    entry = entry_of(flag(field.name), help_text)
    shown = {bool: {True: "yes", False: "no"}.get, tuple: lambda default: "0.5 0.75", float: "{:g}".format}
    default = field.metadata["none"] if field.default is None else shown.get(type(field.default), str)(field.default)
    assert f"(default: {default})" in entry
    if field.metadata["kind"] is bool:
        assert flag(field.name).replace("--", "--no-", 1) in entry
    elif field.metadata["choices"] and not field.metadata["unit"]:
        assert "|".join(field.metadata["choices"]) in entry
    else:
        assert re.match(rf"{flag(field.name)} [A-Z]+ ", entry)
    for choice in field.metadata["choices"] or ():
        assert choice in entry


def test_help_shows_how_to_start(help_text):
    for option in ("--preset", "--config", "--resume"):
        assert "default" in entry_of(option, help_text)
    for word in ("--presets", "quickstart"):
        assert word in help_text
    assert help_text.count("python -m minidense.train --") >= 3
    assert "%%" not in help_text


def test_the_examples_in_the_help_are_right(help_text):
    """They are parsed and make a configuration."""
    examples = re.findall(r"^  python -m minidense\.train (.*)$", help_text, re.MULTILINE)
    assert examples
    for line in examples:
        assert isinstance(TrainConfig(**parse(line.split()).settings), TrainConfig)


# -- what settings mean -----------------------------------------------------------------------------------------------


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('epochs = 7\nbatch_size = 32\nmodel = "densenet_bc_16_8"\n')
    config = TrainConfig(**parse(["--preset", "quickstart", "--config", str(file), "--epochs", "3"]).settings)
    assert config.epochs == 3  # flag over file over preset
    assert config.model == "densenet_bc_16_8"  # file over preset
    assert config.batch_size == 32  # file over default
    assert config.schedule == "one_cycle"  # preset over default
    assert config.momentum == 0.9  # default
    assert PRESETS["quickstart"]["epochs"] != 7  # or this would show nothing


def test_the_order_on_the_line_does_not_matter(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text("epochs = 7\n")
    parts = (["--epochs", "3"], ["--config", str(file)], ["--preset", "quickstart"])
    forward, backward = ([word for part in order for word in part] for order in (parts, parts[::-1]))
    assert parse(forward).settings == parse(backward).settings


def test_without_anything_the_settings_are_the_papers():
    config = TrainConfig(**parse([]).settings)
    assert config == TrainConfig() == TrainConfig(**PRESETS["paper"])
    assert (config.model, config.data, config.epochs, config.batch_size) == ("densenet_bc_100_12", "cifar10", 300, 64)
    assert (config.learning_rate, config.momentum, config.weight_decay) == (0.1, 0.9, 1e-4)
    assert (config.dropout, config.augment, config.schedule) == (None, True, "step")
    assert (config.drop_at, config.drop_factor, config.nesterov, config.warmup_epochs) == ((0.5, 0.75), 0.1, True, 0)
    assert (config.bias_rate, config.bias_decay, config.last_layer_rate) == (1, True, 1)
    assert (config.normalise, config.crop_padding, config.padding, config.validation) == ("channel", None, "zeros", 0)


@pytest.mark.parametrize("field", fields(TrainConfig), ids=lambda field: field.name)
def test_every_setting_can_be_typed(field):
    kind = field.metadata["kind"]
    if kind is bool:
        assert parse([flag(field.name)]).settings == {field.name: True}
        assert parse([flag(field.name).replace("--", "--no-", 1)]).settings == {field.name: False}
    else:
        typed = {int: "7", float: "0.25", str: (field.metadata["choices"] or ["x"])[-1], tuple: "7"}[kind]
        expected = (7.0,) if kind is tuple else kind(typed)
        assert parse([flag(field.name), typed]).settings == {field.name: expected}


@pytest.mark.parametrize("typed", ["60 120 160", "60,120,160", "60,120 160"])
def test_several_drops_are_typed_with_spaces_or_commas(typed):
    line = ["--drop-at", *typed.split(), "--epochs", "200"]
    assert parse(line).settings == {"drop_at": (60.0, 120.0, 160.0), "epochs": 200}


def test_there_are_no_more_options_than_a_person_will_read():
    options = len(fields(TrainConfig)) + len(("--preset", "--presets", "--config", "--resume"))
    assert options <= 35


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_configuration(preset):
    assert asdict(TrainConfig(**parse(["--preset", preset]).settings)) == {**asdict(TrainConfig()), **PRESETS[preset]}


def test_presets_are_listed_a_line_each_with_what_they_set(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["--presets"])
    assert end.value.code == 0
    legend, *lines = capsys.readouterr().out.splitlines()
    assert "c100" in legend
    assert [line.split()[0] for line in lines] == list(PRESETS)
    for line in lines:
        name, *flags = line.split()
        said = {} if "-" not in name else {key: PRESETS[name][key] for key in ("model", "data")}
        listed = asdict(TrainConfig(**{**said, **parse(flags).settings}))
        for setting, value in asdict(TrainConfig(**PRESETS[name])).items():
            if setting in ("drop_at", "warmup_epochs"):  # in six digits there
                value = pytest.approx(value, rel=1e-5)
            assert listed[setting] == value, (name, setting)


def test_a_preset_with_a_note_says_it_first(nowhere, capsys):
    assert exit_code(["--preset", "wrn28_10-c10+", *TINY, "--model", "densenet_bc_10_4", "--out", "mine"]) == 0
    assert capsys.readouterr().out.startswith(
        "wrn28_10-c10+: The numbers in the table are of the paper's first version"
    )


def test_whole_numbers_are_taken_for_fractions_but_not_the_other_way():
    assert isinstance(TrainConfig(learning_rate=1).learning_rate, float)
    with pytest.raises(ConfigError, match="--epochs must be of type int"):
        TrainConfig(epochs=1.0)
    with pytest.raises(ConfigError, match="--learning-rate must be of type float"):
        TrainConfig(learning_rate=True)


POSITIVE = st.integers(1, 10**6)
SHARE = st.floats(0, 1, exclude_max=True)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
CONFIGS = st.builds(
    TrainConfig,
    model=WORDS,
    data=st.sampled_from(["digits", "cifar10"]),
    data_dir=st.none() | WORDS,
    limit_train=st.none() | POSITIVE,
    limit_test=st.none() | POSITIVE,
    epochs=POSITIVE,
    batch_size=POSITIVE,
    learning_rate=st.floats(0, exclude_min=True, allow_infinity=False),
    schedule=st.sampled_from(SCHEDULES),
    momentum=SHARE,
    weight_decay=st.floats(0, allow_infinity=False),
    dropout=st.none() | SHARE,
    augment=st.booleans(),
    validation=st.integers(0, 10**6),
    normalise=st.sampled_from(NORMALISATIONS),
    crop_padding=st.none() | st.integers(0, 10**6),
    padding=st.sampled_from(["zeros", "reflect"]),
    drop_at=st.lists(st.floats(1, 1e9), max_size=4).map(sorted),
    drop_factor=st.floats(0, 1, exclude_min=True),
    nesterov=st.booleans(),
    bias_rate=st.floats(0, allow_infinity=False),
    bias_decay=st.booleans(),
    device=st.sampled_from(["cpu", "gpu"]),
    threads=st.none() | POSITIVE,
    seed=st.integers(0, 2**63 - 1),
    out=st.none() | WORDS,
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(CONFIGS)
@example(TrainConfig(out='a "quoted"\\name\r\n\twith # odd = [things] \u00e9 \u0430 \u4e2d \u2028'))
@example(TrainConfig(out="runs/\U0001f642"))
@example(TrainConfig(out="delete \x7f"))
@example(TrainConfig(drop_at=[0.5, 0.75, 299.5], crop_padding=0))
@example(TrainConfig(drop_at=[]))
@example(TrainConfig(learning_rate=1e-320, weight_decay=1e22))
def test_settings_written_as_toml_and_read_again_are_the_same(config):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.toml"
        file.write_bytes(config.to_toml().encode())
        assert TrainConfig(**read_toml(file)) == config


def test_the_config_of_a_run_starts_the_same_run_again(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = TrainConfig(**parse(["--config", str(finished / "config.toml"), "--out", "again"]).settings)
    assert {**asdict(again), "out": str(finished)} == asdict(TrainConfig(**read_toml(finished / "config.toml")))
    with redirect_stdout(StringIO()):
        assert train.main(["--config", str(finished / "config.toml"), "--out", "again"]) == DONE
    assert Path("again/weights.safetensors").read_bytes() == (finished / "weights.safetensors").read_bytes()


# -- run folders ------------------------------------------------------------------------------------------------------


def test_a_taken_default_folder_gets_a_number(nowhere, capsys):
    for name in ("densenet_bc_10_4-digits", "densenet_bc_10_4-digits-2"):
        assert train.main(TINY) == DONE
        assert f"run folder {Path('runs') / name}\n" in capsys.readouterr().out
        assert (Path("runs") / name / "last.safetensors").exists()


def test_a_finished_run_ends_with_what_came_out_and_what_comes_next(nowhere, capsys):
    assert train.main([*TINY, "--out", "mine"]) == DONE
    out, err = capsys.readouterr()
    record = json.loads(Path("mine/log.jsonl").read_text())
    assert f"Test accuracy {100 * record['test_accuracy']:.2f} % after 1 epochs" in out
    for word in ("mine/plots/curves.png", "mine/weights.safetensors", "Next:"):
        assert word in out
    assert err == ""  # no progress bar where nobody looks


# -- importing --------------------------------------------------------------------------------------------------------


def test_importing_minidense_imports_nothing_heavy(tmp_path):
    heavy = ["matplotlib", "cupy", "torch", "tqdm", "PIL", "scipy", "pandas", "multiprocessing"]
    code = f"import sys, minidense; print([name for name in {heavy} if name in sys.modules])"
    done = in_a_process("-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_help_does_not_wait_for_matplotlib(tmp_path):
    code = (
        "import sys\nfrom minidense import train\n"
        "try: train.main(['--help'])\nexcept SystemExit: print([n for n in ('matplotlib', 'cupy') if n in sys.modules])"
    )
    done = in_a_process("-c", code, cwd=tmp_path)
    assert done.stdout.endswith("[]\n")
