"""Weights and the state of training, in and out of safetensors files, written whole or not at all."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import safetensors
import safetensors.numpy

from .backend import to_device, to_numpy
from .config import TrainConfig
from .errors import CheckpointError, ConfigError
from .nn import Module
from .optim import SGD
from .tensor import Tensor

FORMAT = "minidense-training-1"
MODEL, VELOCITY = "model.", "velocity."


@dataclass
class Progress:
    """Where an epoch stands. loss and hits are sums over the images seen so far."""

    epoch: int = 0  # 0-based
    step: int = 0  # steps done in this epoch
    images: int = 0
    loss: float = 0.0
    hits: int = 0
    seconds: float = 0.0

    def is_sound(self) -> bool:
        """Whether these can be the numbers of a run: counts are whole, and steps have shown images."""
        counts = (self.epoch, self.step, self.images, self.hits)
        whole = all(type(count) is int and count >= 0 for count in counts)
        return (
            whole and (self.step > 0) == (self.images > 0) and all(type(x) is float for x in (self.loss, self.seconds))
        )


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on with the same bits.

    arrays    the model's state_dict under "model.…" and the optimiser's velocities under "velocity.…"
    config    the run's settings
    history   one record for each finished epoch
    progress  where the unfinished epoch stands
    """

    arrays: dict[str, numpy.ndarray]
    config: dict[str, Any]
    history: list[dict[str, Any]]
    progress: Progress

    @classmethod
    def of(cls, model: Module, optimizer: SGD, **state) -> "Checkpoint":
        """A copy of what training has reached; `state` holds config, history and progress."""
        arrays = {MODEL + name: array for name, array in model.state_dict().items()}
        for name, parameter in model.named_parameters():
            if parameter in optimizer.velocity:
                arrays[VELOCITY + name] = numpy.array(to_numpy(optimizer.velocity[parameter]))
        return cls(arrays, **state)

    def restore(self, model: Module, optimizer: SGD) -> None:
        """Put model and optimiser back where they were. Raises CheckpointError when they do not fit, and then changes nothing."""
        parameters = dict(model.named_parameters())
        velocity: dict[Tensor, Any] = {}
        for name, array in self._part(VELOCITY).items():
            if name not in parameters or parameters[name].shape != array.shape:
                raise CheckpointError(f"the checkpoint's velocity of {name} {array.shape} does not fit the model")
            velocity[parameters[name]] = to_device(array.astype(parameters[name].dtype), parameters[name].device)
        model.load_state_dict(self._part(MODEL))
        optimizer.velocity = velocity

    def weights(self) -> dict[str, numpy.ndarray]:
        """The model's state_dict alone."""
        return self._part(MODEL)

    def _part(self, prefix):
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}

    def save(self, path: Path) -> None:
        """Write the checkpoint; after a crash at any moment there is the old file or the new one."""
        notes = {"format": FORMAT, "config": self.config, "history": self.history, "progress": asdict(self.progress)}
        write_whole(path, safetensors.numpy.save(self.arrays, {key: json.dumps(value) for key, value in notes.items()}))

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint. Raises CheckpointError when it is not one or is damaged."""
        arrays, notes = _read(path)
        try:
            config, history, progress, form = (
                json.loads(notes[key]) for key in ("config", "history", "progress", "format")
            )
        except (KeyError, ValueError, RecursionError):
            form = None
        if form != FORMAT:
            raise CheckpointError(
                f"{path}: weights only, or another program's file; training can resume from a last.safetensors"
            )
        try:
            TrainConfig(**config)
            where = Progress(**progress)
        except (TypeError, ConfigError) as error:
            raise CheckpointError(f"{path}: written by another version of minidense: {error}") from None
        sound = isinstance(history, list) and all(isinstance(record, dict) for record in history)
        if not sound or not where.is_sound() or where.epoch != len(history):
            raise CheckpointError(f"{path}: damaged: {where} does not go with a history of {history!r:.100}")
        return cls(arrays, config, history, where)


def save_weights(weights: dict[str, numpy.ndarray], path: str | Path) -> None:
    """Write a state_dict {name: array} as a safetensors file."""
    write_whole(Path(path), safetensors.numpy.save(weights))


def read_weights(path: str | Path) -> dict[str, numpy.ndarray]:
    """Read a state_dict from a safetensors file, for model.load_state_dict(...). Raises CheckpointError when it cannot be read."""
    return _read(Path(path))[0]


def _read(path):
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dictionary
            for name, array in arrays.items():
                if array.dtype.isbuiltin != 1:  # the package ml_dtypes, where it is installed, lends NumPy some more
                    raise TypeError(f"{name} is of type {array.dtype}, which NumPy alone does not have")
            return arrays, file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    # TypeError and AttributeError: a float type that NumPy lacks.
    except (OSError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors: {error}") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that its name never stands for half of it: beside it, onto the disk, then under its name."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name, too, is only safe once its folder is on the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
