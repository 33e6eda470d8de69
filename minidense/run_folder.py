"""The folder of a run: config.toml, env.json, log.jsonl, metrics.csv, last.safetensors, weights.safetensors, plots/curves.png."""

import csv
import io
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy
import threadpoolctl

from . import plots
from .checkpoint import Checkpoint, save_weights, write_whole
from .config import TrainConfig
from .errors import CheckpointError, ConfigError
from .version import __version__

LAST = "last.safetensors"


class RunFolder:
    """Where a run keeps what it makes. Every file is written whole or not at all."""

    def __init__(self, path: Path):
        self.path = path

    def __str__(self):
        return str(self.path)

    @property
    def checkpoint(self) -> Path:
        return self.path / LAST

    @property
    def curves(self) -> Path:
        return self.path / "plots" / "curves.png"

    def begin(self, config: TrainConfig) -> None:
        """Make the folder and write down the settings and the machine. Raises ConfigError when it cannot be written to."""
        try:
            self.curves.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path / "config.toml", config.to_toml().encode())
            write_whole(self.path / "env.json", json.dumps(environment(), indent=2).encode() + b"\n")
        except OSError as error:
            raise ConfigError(f"--out {self.path}: cannot be written to: {error.strerror or error}") from None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint, then the log from the same history; after an epoch the table too, and the weights if they count.

        A crash in between leaves the log behind the checkpoint, never ahead of it, and the resumed run brings it up again.
        """
        checkpoint.save(self.checkpoint)
        history = checkpoint.history
        write_whole(self.path / "log.jsonl", "".join(json.dumps(record) + "\n" for record in history).encode())
        if history and checkpoint.progress.step == 0:
            table = io.StringIO()
            writer = csv.DictWriter(table, fieldnames=list(history[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)
            write_whole(self.path / "metrics.csv", table.getvalue().encode())
            if counting(history) is history[-1]:
                save_weights(checkpoint.weights(), self.path / "weights.safetensors")

    def draw(self, history: list[dict[str, Any]], title: str) -> None:
        """Draw the learning curves."""
        write_whole(self.curves, plots.learning_curves(history, title=title).png(title))


def counting(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The record whose test result counts: the first that is best on the validation images, or the last where none are held out."""
    if "validation_accuracy" not in history[-1]:
        return history[-1]
    return max(history, key=lambda record: record["validation_accuracy"])


def folder_for(config: TrainConfig, resume: bool = False) -> RunFolder:
    """The folder that --out names, or runs/MODEL-DATA. A taken name is refused, a default name gets a number instead.

    resume  with "auto": the folder that exists is the one that is meant
    """
    if config.out is not None:
        path = Path(config.out)
        if not resume and holds_a_run(path):
            raise ConfigError(
                f"--out {path}: already holds a run; choose another folder, or go on with it: --resume {path}"
            )
        return RunFolder(path)
    base = f"{config.model}-{config.data}"
    number = 1
    while (Path("runs") / _numbered(base, number)).exists():
        number += 1
    return RunFolder(Path("runs") / _numbered(base, number - 1 if resume and number > 1 else number))


def holds_a_run(path: Path) -> bool:
    """Whether a folder has anything in it that a new run would write over. Raises ConfigError when it cannot be looked at."""
    try:
        return any((path / name).exists() for name in (LAST, "log.jsonl", "config.toml"))
    except OSError as error:
        raise ConfigError(f"--out {path}: {error.strerror}") from None


def checkpoint_at(path: str | Path) -> Path:
    """The checkpoint that --resume PATH means: a file, or the last one in a run folder. Raises CheckpointError when there is none."""
    path = Path(path)
    try:
        if path.is_dir() and not (path / LAST).is_file():
            raise CheckpointError(f"--resume {path}: no {LAST} in this folder")
        if not path.exists():
            raise CheckpointError(f"--resume {path}: no such file or folder")
    except OSError as error:
        raise CheckpointError(f"--resume {path}: {error.strerror}") from None
    return path / LAST if path.is_dir() else path


def environment() -> dict[str, Any]:
    """What the numbers of a run may depend on besides its settings."""
    return {
        "minidense": __version__,
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "blas": [
            {key: library[key] for key in ("internal_api", "version", "architecture", "num_threads") if key in library}
            for library in threadpoolctl.threadpool_info()
            if library["user_api"] == "blas"
        ],
    }


def _numbered(base, number):
    return base if number == 1 else f"{base}-{number}"
