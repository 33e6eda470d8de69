"""The command: minidense bench MODEL [MODEL ...]."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..backend import DEVICES, library
from ..checkpoint import write_whole
from ..command import DONE, FAILED, WRONG_COMMAND_LINE, ended
from ..config import Parser, nearest, reader
from ..errors import ConfigError, ShapeError
from ..gpus import gpus
from ..precision import PRECISIONS
from ..threads import MOST as MOST_THREADS
from ..threads import thread_count
from . import on_gpu
from .contest import WorkerError, contest, prepared, worker
from .table import HEAD, heading, machine, rows
from .work import made_for

PROGRAM = "minidense bench"
MODES = {"train": ("train",), "eval": ("eval",), "both": ("train", "eval")}
FORMAT = 2  # 1 had one image size for all results, in the settings


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} MODEL [MODEL ...] [options]",
        description="Measure speed and memory of training and evaluation, on fixed random images.",
        epilog="MODEL is any name that models.create knows, resnet_20_stack or wrn_16_4_stack.\n\n"
        "examples:\n"
        "  minidense bench densenet_bc_100_12\n"
        "  minidense bench densenet_bc_100_12 --against torch --json speed.json\n"
        "  minidense bench densenet_bc_40_12 densenet_bc_100_12 --mode train --rounds 3\n"
        "  minidense bench densenet_bc_100_12 --device gpu --against torch",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=120),
        allow_abbrev=False,
    )
    whole = reader(int)
    made.add_argument("models", nargs="*", metavar="MODEL", help="what to measure, one after another")
    made.add_argument("--device", metavar="|".join(DEVICES), default="cpu", help="where to compute (default: cpu)")
    made.add_argument(
        "--precision",
        metavar="|".join(PRECISIONS),
        help="of the GPU's products, for everybody; mixed is autocast to bfloat16 in PyTorch (default: tf32)",
    )
    made.add_argument("--mode", metavar="|".join(MODES), default="both", help="what is timed (default: both)")
    made.add_argument("--batch-size", type=whole, metavar="IMAGES", default=64, help="images in a step (default: 64)")
    made.add_argument(
        "--image-size",
        type=whole,
        metavar="PIXELS",
        help="height and width of an image (default: what the model is for)",
    )
    made.add_argument(
        "--threads", type=whole, metavar="THREADS", help="for everybody (default: $MINIDENSE_THREADS, or one a core)"
    )
    made.add_argument(
        "--rounds",
        type=whole,
        metavar="ROUNDS",
        default=7,
        help="of about 0.3 s for each contender, in turn (default: 7)",
    )
    made.add_argument(
        "--against", metavar="torch", help="let PyTorch do the same work in alternation (default: nobody)"
    )
    made.add_argument("--json", metavar="FILE", help="write every round to this file (default: none)")
    return made


def checked(given: argparse.Namespace) -> argparse.Namespace:
    """What was typed, if it makes sense. Raises ConfigError."""
    if not given.models:
        raise ConfigError(f"which model? For example: {PROGRAM} densenet_bc_100_12; see --help")
    if given.mode not in MODES:
        raise ConfigError(f"--mode: unknown {given.mode!r}{nearest(given.mode, MODES)}")
    library(given.device)  # DeviceError, better now than from a worker
    if given.device == "cpu" and given.precision is not None:
        raise ConfigError("--precision is for the GPU; the CPU computes in float32: add --device gpu")
    given.precision = given.precision or "tf32"
    if given.precision not in PRECISIONS:
        raise ConfigError(f"--precision: unknown {given.precision!r}{nearest(given.precision, PRECISIONS)}")
    given.threads = thread_count() if given.threads is None else given.threads
    for option, value, most in (
        ("--batch-size", given.batch_size, 100_000),
        ("--image-size", 1 if given.image_size is None else given.image_size, 10_000),
        ("--threads", given.threads, MOST_THREADS),
        ("--rounds", given.rounds, 100_000),
    ):
        if not 1 <= value <= most:
            raise ConfigError(f"{option} must be at least 1 and at most {most:,}, got {value}")
    if given.against not in (None, "torch"):
        raise ConfigError(f"--against: unknown {given.against!r}{nearest(given.against, ['torch'])}")
    if given.against and importlib.util.find_spec("torch") is None:
        raise ConfigError("--against torch: PyTorch is not installed; pip install torch==2.13.0")
    if given.json is not None:
        check_writable(given.json)
    return given


def check_writable(path: str) -> None:
    """Better now than after an hour of measuring."""
    if not path or os.path.isdir(path):
        raise ConfigError(f"--json needs the name of a file, got {path!r}{' (a folder)' if path else ''}")
    try:
        beside = Path(path).with_name(f".{Path(path).name}.tmp")  # where write_whole begins
        beside.touch()
        beside.unlink()
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"--json {path!r}: cannot write there: {why}; name a file in a folder that exists") from None


def with_sizes(given: argparse.Namespace) -> list[tuple[str, int]]:
    """Every model with the size of its images: what was asked for, or what it was made for."""
    return [(model, given.image_size or made_for(model)[0]) for model in given.models]


def measure_on_gpu(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, printed as it comes. Returns what the JSON file holds."""
    models, against_torch = with_sizes(given), given.against == "torch"
    cards = [asdict(card) for card in gpus()]
    report: dict[str, Any] = {
        "format": FORMAT,
        "machine": {**machine(with_torch=against_torch), "gpus": cards, "cupy": library("gpu").__version__},
        "settings": {"batch_size": given.batch_size, "rounds": given.rounds},
        "results": [],
    }
    with tempfile.TemporaryDirectory(prefix="minidense-bench-") as folder:
        works = prepared(models, Path(folder), against_torch=against_torch)
        print(f"{cards[0]['name']}, {given.rounds} rounds in turn; medians", on_gpu.HEAD, sep="\n\n", flush=True)
        for (_, size), work in zip(models, works, strict=True):
            for mode in MODES[given.mode]:
                how = {**report["settings"], "image_size": size, "precision": given.precision}
                result = on_gpu.contest_on_gpu(work, mode, **how, against_torch=against_torch)
                print(on_gpu.rows(result), flush=True)
                report["results"].append(result)
    return report


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for, printed as it comes. Returns what the JSON file holds."""
    if given.device == "gpu":
        return measure_on_gpu(given)
    settings = {
        "batch_size": given.batch_size,
        "threads": given.threads,
        "rounds": given.rounds,
    }
    models, against_torch = with_sizes(given), given.against == "torch"
    report: dict[str, Any] = {
        "format": FORMAT,
        "machine": machine(with_torch=against_torch),
        "settings": settings,
        "results": [],
    }
    first: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="minidense-bench-") as folder, worker("matrix products") as matrices:
        works = prepared(models, Path(folder), against_torch=against_torch)
        matrices.ask("prepare", contender="matrices", threads=given.threads)
        matrices.ask("warm_up")
        print(heading(report["machine"], settings), HEAD, sep="\n\n", flush=True)
        for (_, size), work in zip(models, works, strict=True):
            for mode in MODES[given.mode]:
                how = {**settings, "image_size": size}
                result = contest(work, mode, **how, against_torch=against_torch, matrices=matrices)
                print(rows(result, first.setdefault(mode, result)), flush=True)
                report["results"].append(result)
    for result in report["results"]:
        for name, one in result["contenders"].items():
            reference = first[result["mode"]]["contenders"][name]["nanoseconds_per_multiply_add"]
            one["time_per_multiply_add_relative_to_first"] = one["nanoseconds_per_multiply_add"] / reference
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """minidense bench. Exit codes: 0 done, 1 a worker died, 2 wrong command line, 4 cannot write, 5 no memory, 130 interrupted."""

    def work() -> int:
        given = checked(parser().parse_args(argv))
        report = measure(given)
        if given.json is not None:
            write_whole(Path(given.json), json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n")
        return DONE

    return ended(PROGRAM, work, codes={WorkerError: FAILED, ShapeError: WRONG_COMMAND_LINE})
