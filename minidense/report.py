"""What a run tells a person: how long it will take, a row for each epoch, what came out, and what to try next."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy

from .backend import synchronise
from .config import TrainConfig
from .run_folder import RunFolder, counting


def table_head(config: TrainConfig) -> str:
    """The head of a run's table; images held out have two columns more."""
    validation = "  valid loss   acc %" if config.validation else ""
    return f"  epoch      rate   train loss   acc %{validation}   test loss   acc %   images/s       time"


def table_row(record: dict[str, Any], epochs: int) -> str:
    """A record as one line under the head."""
    measured = "".join(
        f"{record[f'{part}_loss']:12.4f} {100 * record[f'{part}_accuracy']:7.2f}"
        for part in ("train", "validation", "test")
        if f"{part}_loss" in record
    )
    return (
        f"{record['epoch']:3d}/{epochs:<3d} {record['learning_rate']:9.3g} {measured} "
        f"{record['images_per_second']:10.0f} {short_duration(record['seconds']):>10s}"
    )


def typical_seconds(action: Callable[[], None], device: str) -> float:
    """Median over up to five calls, after one to warm up; fewer when they are long."""
    seconds: list[float] = []
    while len(seconds) < 6 and sum(seconds) < 5:
        synchronise(device)
        start = time.perf_counter()
        action()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return float(numpy.median(seconds[1:] or seconds))


def forecast(epochs: int, seconds: float, config: TrainConfig) -> str:
    """A sentence on how long the run will take, and what would be quicker where that is long."""
    total = timedelta(seconds=epochs * seconds)
    text = f"An epoch takes about {duration(seconds)} here; {epochs} of them about {duration(total.total_seconds())}"
    if timedelta(minutes=10) < total < timedelta(days=365):
        text += f", until {datetime.now() + total:%A %d %B, %H:%M}"
    if total > timedelta(hours=3) and config.device == "cpu":
        text += ".\nQuicker: --device gpu, or less work: --model densenet_bc_22_12 --epochs 10 --schedule one_cycle"
    return text


def duration(seconds: float) -> str:
    """Seconds in the unit a person would choose."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds" if seconds >= 2 else f"{seconds:.1f} seconds"


def short_duration(seconds: float) -> str:
    """Seconds for a narrow column."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def summary(history: list[dict[str, Any]], config: TrainConfig, folder: RunFolder) -> str:
    """The last lines of a run: what came out, where it lies, and what to try next."""
    seconds = sum(record["seconds"] for record in history)
    whole = f"{history[-1]['epoch']} epochs and {duration(seconds)} of training"
    counts, when = counting(history), f"after {whole}"
    if config.validation:
        when = f"after epoch {counts['epoch']}, the best on the validation images, of {whole}"
    if config.data == "digits":
        hint = "photographs (README: Train on photographs): --model densenet_bc_22_12 --epochs 4 --schedule one_cycle"
    else:
        hint = "the paper's network: --model densenet_bc_100_12"
    return (
        f"Test accuracy {100 * counts['test_accuracy']:.2f} % {when}.\n"
        f"Learning curves: {folder.curves}; weights: {folder.path / 'weights.safetensors'}\n"
        f"Next: {hint}; a GPU (README: Use a GPU): --device gpu; the lessons (README: What comes next)"
    )
