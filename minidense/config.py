"""TrainConfig: every knob of a training run, once. The command line, the presets and config.toml are made from its fields."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from . import schedule
from .backend import DEVICES
from .data import DATASETS
from .errors import ConfigError
from .precision import PRECISIONS

MOST = 10**9  # epochs, images, threads: beyond this a number is a slip
SCHEDULES = ("step", "cosine", "one_cycle")


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
        "densenet_DEPTH_K, or densenet_bc_DEPTH_K with bottleneck and compression",
        unit="NAME",
    )
    data: str = knob("what", "cifar10", "data set", choices=tuple(DATASETS))
    data_dir: str | None = knob(
        "what", None, "where its files lie", unit="FOLDER", kind=str, none="$MINIDENSE_DATA, datasets/, the cache"
    )
    limit_train: int | None = knob(
        "what", None, "use only the first so many training images", unit="IMAGES", kind=int, none="all"
    )
    limit_test: int | None = knob(
        "what", None, "use only the first so many test images", unit="IMAGES", kind=int, none="all"
    )

    epochs: int = knob("recipe", 300, "passes over the training images", unit="EPOCHS")
    batch_size: int = knob("recipe", 64, "images in one step", unit="IMAGES")
    learning_rate: float = knob("recipe", 0.1, "highest learning rate", unit="RATE")
    schedule: str = knob(
        "recipe",
        "step",
        "step: a tenth at 50 %% and at 75 %% (the paper); cosine; one_cycle: up, then down",
        choices=SCHEDULES,
    )
    momentum: float = knob("recipe", 0.9, "Nesterov momentum, 0 to 1; 0 turns it off", unit="SHARE")
    weight_decay: float = knob("recipe", 1e-4, "L2 penalty on all parameters", unit="RATE")
    dropout: float = knob(
        "recipe", 0.0, "probability of dropping a value; the paper takes 0.2 without augmentation", unit="SHARE"
    )
    augment: bool = knob("recipe", True, "crop at random and mirror the training images (digits: only crop)")

    device: str = knob("machine", "cpu", "where to compute", choices=DEVICES)
    precision: str | None = knob(
        "machine",
        None,
        "of the GPU's products: float32; tf32 on tensor cores; mixed, with feature maps in bfloat16",
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
        for name in ("epochs", "batch_size", "limit_train", "limit_test", "threads"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST:
                raise ConfigError(f"{flag(name)} must be at least 1 and at most {MOST:,}, got {value}")
        if self.precision not in (None, "float32") and self.device == "cpu":
            raise ConfigError(
                f"--precision {self.precision} is for the GPU; the CPU computes in float32: add --device gpu"
            )
        self._check("learning_rate", self.learning_rate > 0, "above 0")
        self._check("momentum", 0 <= self.momentum < 1, "at least 0 and below 1")
        self._check("weight_decay", self.weight_decay >= 0, "at least 0")
        self._check("dropout", 0 <= self.dropout < 1, "at least 0 and below 1")
        self._check("seed", 0 <= self.seed < 2**63, "at least 0 and below 2**63")

    def _check(self, name, holds, wanted):
        value = getattr(self, name)
        if not holds or not math.isfinite(value):
            raise ConfigError(f"{flag(name)} must be {wanted}, got {value}")

    def learning_rate_at(self, epoch: float) -> float:
        """The learning rate at an epoch, 0-based and fractional within it."""
        if self.schedule == "cosine":
            return schedule.cosine(epoch, start=self.learning_rate, epochs=self.epochs)
        if self.schedule == "one_cycle":
            return schedule.one_cycle(epoch, peak=self.learning_rate, epochs=self.epochs)
        return schedule.step_decay(
            math.floor(epoch), start=self.learning_rate, drop_at=schedule.paper_drops(self.epochs)
        )

    def to_toml(self) -> str:
        """The settings as a TOML file; what is None is left out.

        JSON writes numbers, booleans and strings as TOML does, but for the delete character, which TOML wants escaped.
        """
        settings = ((key, value) for key, value in asdict(self).items() if value is not None)
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in settings]
        return "".join(lines).replace("\x7f", "\\u007f")


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "quickstart": {
        "model": "densenet_bc_22_12",
        "data": "digits",
        "epochs": 15,
        "schedule": "one_cycle",
    },
}

# What may differ between a run and its resumption: where and how exactly it computes, not what.
MAY_CHANGE = frozenset({"data_dir", "device", "graph", "precision", "threads", "out"})


def flag(name: str) -> str:
    """The command-line spelling of a field."""
    return "--" + name.replace("_", "-")


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
    """What somebody typed: settings, already in order of precedence (preset, then file, then flags), and what to resume."""

    settings: dict[str, Any]
    resume: str | None


def parse(argv: Sequence[str] | None = None) -> CommandLine:
    """Read a command line.

    A wrong one exits with code 2 and one line on standard error, or raises ConfigError when an option is known but not its
    value; --help exits with code 0.
    """
    given = vars(_parser().parse_args(argv))
    resume, preset, file = given.pop("resume", None), given.pop("preset", None), given.pop("config", None)
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"--preset: unknown {preset!r}{nearest(preset, PRESETS)}")
    settings = {**(PRESETS[preset] if preset else {}), **(read_toml(file) if file else {}), **given}
    return CommandLine(settings, resume)


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
        description="Train a DenseNet, by default as in the paper: DenseNet-BC (L = 100, k = 12) on CIFAR-10, 300 epochs.",
        epilog="examples:\n"
        "  python -m minidense.train --preset quickstart\n"
        "  python -m minidense.train --model densenet_bc_22_12 --epochs 10 --schedule one_cycle\n"
        "  python -m minidense.train --device gpu\n"
        "  python -m minidense.train --resume runs/densenet_bc_100_12-cifar10",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=120),
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups = {
        "start": parser.add_argument_group("where to start from"),
        "what": parser.add_argument_group("what is trained"),
        "recipe": parser.add_argument_group("the recipe"),
        "machine": parser.add_argument_group("the machine and the run"),
    }
    groups["start"].add_argument(
        "--preset", metavar="NAME", help=f"named settings: {', '.join(PRESETS)} (default: paper)"
    )
    groups["start"].add_argument(
        "--config", metavar="FILE", help="settings from a config.toml, over the preset's (default: none)"
    )
    groups["start"].add_argument(
        "--resume",
        metavar="PATH|auto",
        help="go on with a run folder or checkpoint; auto: with the run folder, if it holds one (default: no)",
    )
    for f in fields(TrainConfig):
        meta = f.metadata
        group, text = groups[meta["group"]], meta["help"]
        shown = f" (default: {meta['none'] if f.default is None else _shown(f.default)})"
        if meta["kind"] is bool:
            group.add_argument(flag(f.name), action=argparse.BooleanOptionalAction, help=text + shown)
        else:
            metavar = meta["unit"] or "|".join(meta["choices"])
            group.add_argument(flag(f.name), type=reader(meta["kind"]), metavar=metavar, help=text + shown)
    return parser


def reader(kind):
    """int and float that say what they wanted."""

    def read(text):
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"needs {'a whole number' if kind is int else 'a number'}, got {text!r}"
            ) from None

    return read


def _shown(value):
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def nearest(value, known) -> str:
    near = difflib.get_close_matches(str(value), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else f"; choose one of {', '.join(known)}"


def resumed_settings(saved: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run that goes on: its own, with what was typed now where that may change.

    Raises ConfigError that names what differs and may not.
    """
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
