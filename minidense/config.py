"""TrainConfig: every knob of a training run, once. The command line, the presets and config.toml are made from its fields."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from . import schedule
from .backend import DEVICES
from .data import DATASETS, NORMALISATIONS, NOT_YET, Dataset, load
from .errors import ConfigError
from .precision import PRECISIONS
from .recipes import COLUMNS, NOTES, PRESETS

MOST = 10**9  # epochs, images, threads: beyond this a number is a slip
SCHEDULES = ("step", "cosine", "one_cycle")
PADDINGS = ("zeros", "reflect")


def knob(
    group: str,
    default: Any,
    text: str,
    *,
    unit: str = "",
    kind: type | None = None,
    choices: Sequence[str] | None = None,
    none: str = "",
) -> Any:
    """A field with all that the command line says about it; `none` is what a default of None means."""
    kind = kind or type(default)
    return field(
        default=default,
        metadata={"group": group, "help": text, "unit": unit, "kind": kind, "choices": choices, "none": none},
    )


@dataclass(frozen=True)
class TrainConfig:
    """A training run. The defaults are the DenseNet paper's: DenseNet-BC (L = 100, k = 12) on CIFAR-10 with augmentation (§4.2).

    Raises ConfigError, in one line that says what would do, for values that make no sense.
    """

    model: str = knob(
        "what",
        "densenet_bc_100_12",
        "a network's name, such as densenet_bc_22_12 or wrn28_10",
        unit="NAME",
    )
    data: str = knob(
        "what",
        "cifar10",
        f"data set: {', '.join((*DATASETS, *NOT_YET))}",
        unit="NAME",
        choices=(*DATASETS, *NOT_YET),
    )
    data_dir: str | None = knob(
        "what", None, "where its files lie", unit="FOLDER", kind=str, none="$MINIDENSE_DATA, datasets/, the cache"
    )
    limit_train: int | None = knob(
        "what", None, "use only the first so many training images", unit="IMAGES", kind=int, none="all"
    )
    limit_test: int | None = knob(
        "what", None, "use only the first so many test images", unit="IMAGES", kind=int, none="all"
    )

    validation: int = knob("what", 0, "training images held out; they say which epoch's test counts", unit="IMAGES")

    normalise: str = knob(
        "images",
        "channel",
        "channel: mean and deviation; scale: to 0 … 1; pixel_mean, pixel_mean_std: less the mean image; "
        "gcn: each image's contrast; zca: gcn, whitened",
        unit="HOW",
        choices=NORMALISATIONS,
    )
    augment: bool = knob("images", True, "crop at random and mirror the training images (digits: only crop)")
    crop_padding: int | None = knob(
        "images", None, "how far a crop may move", unit="PIXELS", kind=int, none="4; digits 1; svhn 0"
    )
    padding: str = knob("images", "zeros", "what a crop sees beyond the border", choices=PADDINGS)

    epochs: int = knob("recipe", 300, "passes over the training images", unit="EPOCHS")
    batch_size: int = knob("recipe", 64, "images in one step", unit="IMAGES")
    learning_rate: float = knob("recipe", 0.1, "highest learning rate", unit="RATE")
    schedule: str = knob(
        "recipe",
        "step",
        "step: lower at each of --drop-at; cosine; one_cycle: up, then down",
        unit="HOW",
        choices=SCHEDULES,
    )
    drop_at: tuple[float, ...] = knob(
        "recipe",
        (0.5, 0.75),
        "when the rate drops, as shares of the run or as epochs",
        unit="EPOCH",
    )
    drop_factor: float = knob("recipe", 0.1, "what the rate is multiplied by at each drop", unit="FACTOR")
    warmup_epochs: float = knob("recipe", 0.0, "how long the first rate is --warmup-rate", unit="EPOCHS")
    warmup_rate: float = knob("recipe", 0.01, "learning rate of the warm-up", unit="RATE")
    momentum: float = knob("recipe", 0.9, "share of the velocity that stays, 0 to 1; 0: none", unit="SHARE")
    nesterov: bool = knob("recipe", True, "Nesterov's momentum")
    weight_decay: float = knob("recipe", 1e-4, "L2 penalty on all parameters", unit="RATE")
    bias_rate: float = knob("recipe", 1.0, "learning rate of biases, batch norm's too", unit="TIMES")
    bias_decay: bool = knob("recipe", True, "weight decay on biases, too")
    last_layer_rate: float = knob("recipe", 1.0, "learning rate of the layer that makes the logits", unit="TIMES")
    dropout: float | None = knob(
        "recipe",
        None,
        "probability of dropping a value; DenseNets without --augment: 0.2",
        unit="SHARE",
        kind=float,
        none="the network's",
    )

    device: str = knob("machine", "cpu", "where to compute", choices=DEVICES)
    precision: str | None = knob(
        "machine",
        None,
        "of the GPU's products: float32; tf32; mixed, with maps in bfloat16",
        kind=str,
        choices=tuple(PRECISIONS),
        none="tf32",
    )
    graph: bool = knob("machine", True, "replay a training step on the GPU as one CUDA graph")
    threads: int | None = knob(
        "machine",
        None,
        "threads that compute on the CPU",
        unit="THREADS",
        kind=int,
        none="$MINIDENSE_THREADS, one a core",
    )
    seed: int = knob("machine", 0, "same seed, machine and threads: the same bits", unit="NUMBER")
    out: str | None = knob(
        "machine", None, "run folder", unit="FOLDER", kind=str, none="runs/MODEL-DATA, numbered where that is taken"
    )

    def __post_init__(self):
        for f in fields(self):
            value, kind = getattr(self, f.name), f.metadata["kind"]
            if value is None and f.default is None:
                continue
            if kind is tuple:
                object.__setattr__(self, f.name, numbers(f.name, value))
                continue
            if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
                object.__setattr__(self, f.name, float(value))
            elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise ConfigError(f"{flag(f.name)} must be of type {kind.__name__}, got {value!r}")
            if kind is str and (not value or "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)):
                raise ConfigError(
                    f"{flag(f.name)} must be text, not empty, without zero bytes and writable as UTF-8, got {value!r}"
                )
            if f.metadata["choices"] and value not in f.metadata["choices"]:
                raise ConfigError(f"{flag(f.name)}: unknown {value!r}{nearest(value, f.metadata['choices'])}")
        whole = {
            "epochs": 1,
            "batch_size": 1,
            "limit_train": 1,
            "limit_test": 1,
            "threads": 1,
            "validation": 0,
            "crop_padding": 0,
        }
        for name, least in whole.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= MOST:
                raise ConfigError(f"{flag(name)} must be at least {least} and at most {MOST:,}, got {value}")
        if self.precision not in (None, "float32") and self.device == "cpu":
            raise ConfigError(
                f"--precision {self.precision} is for the GPU; the CPU computes in float32: add --device gpu"
            )
        self._check("learning_rate", self.learning_rate > 0, "above 0")
        self._check("momentum", 0 <= self.momentum < 1, "at least 0 and below 1")
        self._check("weight_decay", self.weight_decay >= 0, "at least 0")
        self._check("drop_factor", 0 < self.drop_factor <= 1, "above 0 and at most 1")
        for name in ("warmup_epochs", "bias_rate", "last_layer_rate"):
            self._check(name, getattr(self, name) >= 0, "at least 0")
        self._check("warmup_rate", self.warmup_rate > 0, "above 0")
        if self.dropout is not None:
            self._check("dropout", 0 <= self.dropout < 1, "at least 0 and below 1")
        drops = schedule.drops(self.drop_at, self.epochs)
        if any(later < earlier for earlier, later in pairwise(drops)):
            raise ConfigError(
                f"--drop-at must not decrease, got {_shown(self.drop_at)}: of {self.epochs} epochs, {_shown(drops)}"
            )
        self._check("seed", 0 <= self.seed < 2**63, "at least 0 and below 2**63")

    def _check(self, name, holds, wanted):
        value = getattr(self, name)
        if not holds or not math.isfinite(value):
            raise ConfigError(f"{flag(name)} must be {wanted}, got {value}")

    def learning_rate_at(self, epoch: float) -> float:
        """The learning rate at an epoch, 0-based and fractional within it."""
        if epoch < self.warmup_epochs:
            return self.warmup_rate
        if self.schedule == "cosine":
            return schedule.cosine(epoch, start=self.learning_rate, epochs=self.epochs)
        if self.schedule == "one_cycle":
            return schedule.one_cycle(epoch, peak=self.learning_rate, epochs=self.epochs)
        drop_at = schedule.drops(self.drop_at, self.epochs)
        return schedule.step_decay(epoch, start=self.learning_rate, drop_at=drop_at, factor=self.drop_factor)

    def dataset(self) -> Dataset:
        """The images of the run, on its device: some held out, normalised, and cropped as the settings say.

        Raises DataError and ConfigError as ``data.load`` and the methods of ``data.Dataset`` do.
        """
        loaded = load(self.data, self.data_dir).first(self.limit_train, self.limit_test).hold_out(self.validation)
        treated = loaded.cropped(self.crop_padding, reflect=self.padding == "reflect").normalised(self.normalise)
        return treated.to(self.device)

    def to_toml(self) -> str:
        """The settings as a TOML file; what is None is left out.

        JSON writes numbers, booleans and strings as TOML does, but for the delete character, which TOML wants escaped.
        """
        settings = ((key, value) for key, value in asdict(self).items() if value is not None)
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in settings]
        return "".join(lines).replace("\x7f", "\\u007f")


# What may differ between a run and its resumption: where and how exactly it computes, not what.
MAY_CHANGE = frozenset({"data_dir", "device", "graph", "precision", "threads", "out"})


def flag(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


def numbers(name: str, value: Any) -> tuple[float, ...]:
    """A list of epochs or shares of a run, as a tuple. Raises ConfigError for anything else."""
    good = isinstance(value, list | tuple) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and 0 < x <= MOST for x in value
    )
    if not good:
        raise ConfigError(f"{flag(name)} must be numbers above 0, such as 0.5 0.75 or 60 120, got {value!r}")
    return tuple(float(x) for x in value)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Settings from a config.toml, such as a run folder holds. Raises ConfigError when it cannot be read or names unknown settings."""
    try:
        settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, a number of 5,000 digits
        raise ConfigError(f"--config {path}: {error}") from None
    known = [f.name for f in fields(TrainConfig)]
    for key in settings:
        if key not in known:
            raise ConfigError(f"--config {path}: unknown setting {key!r}{nearest(key, known)}")
    return settings


@dataclass(frozen=True)
class CommandLine:
    """What somebody typed: settings, already in order of precedence (preset, then file, then flags), and what to resume.

    note  what is to be known of the preset
    """

    settings: dict[str, Any]
    resume: str | None
    note: str = ""


def parse(argv: Sequence[str] | None = None) -> CommandLine:
    """Read a command line.

    A wrong one exits with code 2 and one line on standard error, or raises ConfigError when an option is known but not its
    value; --help exits with code 0.
    """
    given = vars(_parser().parse_args(argv))
    resume, preset, file = given.pop("resume", None), given.pop("preset", None), given.pop("config", None)
    if preset is not None and preset not in PRESETS:
        near = difflib.get_close_matches(preset, PRESETS, n=1)
        raise ConfigError(
            f"--preset: unknown {preset!r}; {f'did you mean {near[0]}?' if near else '--presets lists them'}"
        )
    settings = {**(PRESETS[preset] if preset else {}), **(read_toml(file) if file else {}), **given}
    note = f"{preset}: {NOTES[preset]}" if preset in NOTES else ""
    return CommandLine(settings, resume, note)


def list_of_presets() -> str:
    """A line for each preset: its name, and the settings that are not the defaults, as flags."""
    lines = [
        "c10 and c100 are CIFAR; + means crops and mirror images. --model and --data are left out where the name says them.",
        *(f"{name:29} {flags_of(name)}".rstrip() for name in PRESETS),
    ]
    return "\n".join(lines)


def flags_of(preset: str) -> str:
    """What a preset sets, in short."""
    model, _, column = preset.rpartition("-")
    said = {f.name: f.default for f in fields(TrainConfig)} | {
        "model": model,
        "data": COLUMNS.get(column, {}).get("data"),
    }
    flags = []
    for name, value in PRESETS[preset].items():
        if said[name] == value:
            continue
        if isinstance(value, bool):
            flags.append(flag(name) if value else flag(name).replace("--", "--no-", 1))
        else:
            flags.append(f"{flag(name)} {_shown(value)}")
    return " ".join(flags)


class ListPresets(argparse.Action):
    """--presets, which like --help prints and ends."""

    def __init__(self, option_strings, dest, **kwargs):
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser, *args):
        print(list_of_presets())
        parser.exit()


class Parser(argparse.ArgumentParser):
    """argparse that says what is wrong in one line and leaves the usage to --help."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: --"):
            typed = message.split()[2].split("=")[0]
            known = {option.lstrip("-"): option for action in self._actions for option in action.option_strings}
            near = difflib.get_close_matches(typed.lstrip("-"), known, n=1)
            message = f"unknown option {typed}; {f'did you mean {known[near[0]]}?' if near else 'see --help'}"
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m minidense.train",
        usage="python -m minidense.train [options]",
        description="Train a network, by default as in the DenseNet paper: DenseNet-BC (L = 100, k = 12) on CIFAR-10, 300 epochs.",
        epilog="examples:\n"
        "  python -m minidense.train --preset quickstart\n"
        "  python -m minidense.train --preset wrn28_10-c10+ --device gpu\n"
        "  python -m minidense.train --model densenet_bc_22_12 --epochs 10 --schedule one_cycle\n"
        "  python -m minidense.train --device gpu\n"
        "  python -m minidense.train --resume runs/densenet_bc_100_12-cifar10",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=34, width=120),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups = {
        "start": parser.add_argument_group("where to start from"),
        "what": parser.add_argument_group("what is trained"),
        "images": parser.add_argument_group("what is done to the images"),
        "recipe": parser.add_argument_group("the recipe"),
        "machine": parser.add_argument_group("the machine and the run"),
    }
    groups["start"].add_argument(
        "--preset", metavar="NAME", help="named settings, such as quickstart or densenet_40_12-c10+ (default: paper)"
    )
    groups["start"].add_argument("--presets", action=ListPresets, help="list the presets with what they set, and end")
    groups["start"].add_argument(
        "--config", metavar="FILE", help="settings from a config.toml, over the preset's (default: none)"
    )
    groups["start"].add_argument(
        "--resume",
        metavar="PATH|auto",
        help="go on with a run folder or checkpoint; auto: with --out if that is a run (default: no)",
    )
    for f in fields(TrainConfig):
        meta = f.metadata
        group, text = groups[meta["group"]], meta["help"]
        shown = f" (default: {meta['none'] if f.default is None else _shown(f.default)})"
        if meta["kind"] is bool:
            group.add_argument(flag(f.name), action=argparse.BooleanOptionalAction, help=text + shown)
        elif meta["kind"] is tuple:
            group.add_argument(
                flag(f.name), type=reader(tuple), action=Joined, nargs="+", metavar=meta["unit"], help=text + shown
            )
        else:
            metavar = meta["unit"] or "|".join(meta["choices"])
            group.add_argument(flag(f.name), type=reader(meta["kind"]), metavar=metavar, help=text + shown)
    return parser


class Joined(argparse.Action):
    """60 120 or 60,120: one tuple of all numbers."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, tuple(number for some in values for number in some))


def reader(kind):
    """int, float, and for tuple several floats between commas, that say what they wanted."""

    def read(text):
        try:
            return tuple(float(number) for number in text.split(",")) if kind is tuple else kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"needs {'a whole number' if kind is int else 'a number'}, got {text!r}"
            ) from None

    return read


def _shown(value):
    if isinstance(value, tuple):
        return " ".join(f"{number:g}" for number in value)
    if isinstance(value, bool):
        return {True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else value


def nearest(value, known) -> str:
    near = difflib.get_close_matches(str(value), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else f"; choose one of {', '.join(known)}"


def resumed_settings(saved: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run that goes on: its own, with what was typed now where that may change.

    Raises ConfigError that names what differs and may not.
    """
    saved = asdict(TrainConfig(**saved))
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    differing = [key for key in given if key not in MAY_CHANGE and given[key] != saved.get(key)]
    if differing:
        what = ", ".join(f"{flag(key)} {saved.get(key)} in the checkpoint, {given[key]} now" for key in differing)
        raise ConfigError(
            f"--resume goes on with the settings of the saved run, but {what}. Leave these out, or start a new run"
        )
    settings = {**saved, **{key: value for key, value in given.items() if key in MAY_CHANGE}}
    if settings["device"] == "cpu" and "precision" not in given:
        settings["precision"] = None  # the GPU's, where the run began
    return settings
