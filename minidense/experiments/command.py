"""The command: minidense experiment NAME. Measures, prints the table, and leaves NAME.json, NAME.md and NAME.png."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from ..bench.table import machine
from ..checkpoint import write_whole
from ..command import DONE, FAILED, ended, show
from ..config import Parser, nearest, reader
from ..errors import ConfigError
from ..report import duration
from ..threads import MOST as MOST_THREADS
from ..threads import threads
from .experiment import Experiment, Notebook, Numbers, as_json
from .register import EXPERIMENTS

PROGRAM = "minidense experiment"


def listing() -> str:
    """Every experiment with a line."""
    width = max(map(len, EXPERIMENTS))
    lines = [f"  {name:{width}}  {experiment.about}" for name, experiment in EXPERIMENTS.items()]
    return "\n".join(["experiments:", *lines, "", f"{PROGRAM} NAME runs one, {PROGRAM} NAME --help says more about it"])


def parser(experiment: Experiment) -> argparse.ArgumentParser:
    """Of one experiment: what all have, and its own options."""
    made = Parser(
        prog=f"{PROGRAM} {experiment.name}",
        usage=f"{PROGRAM} {experiment.name} [options]",
        description=f"{experiment.about[0].upper()}{experiment.about[1:]}.",
        epilog=experiment.reading,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=120),
        allow_abbrev=False,
    )
    made.set_defaults(experiment=experiment)
    made.add_argument("--out", metavar="FOLDER", help=f"where the files go (default: experiments/{experiment.name})")
    made.add_argument(
        "--data-dir", metavar="FOLDER", help="where the images lie (default: $MINIDENSE_DATA, datasets/, the cache)"
    )
    made.add_argument(
        "--threads",
        type=reader(int),
        metavar="N",
        help="threads that compute (default: $MINIDENSE_THREADS, one a core)",
    )
    made.add_argument(
        "--redraw", action="store_true", help="measure nothing: table and picture of the numbers that lie there"
    )
    experiment.options(made)
    return made


def folder_of(given: argparse.Namespace) -> Path:
    """The folder that --out names, there and writable: better now than after an hour. Raises ConfigError."""
    folder = Path("experiments") / given.experiment.name if given.out is None else Path(given.out)
    if given.out == "":
        raise ConfigError("--out needs the name of a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{given.experiment.name}.tmp"
        beside.touch()
        beside.unlink()
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"--out {str(folder)!r}: cannot be written to: {why}") from None
    return folder


def run(given: argparse.Namespace) -> None:
    """Measure, print and write what was asked for."""
    experiment, folder = given.experiment, folder_of(given)
    if given.threads is not None and not 1 <= given.threads <= MOST_THREADS:
        raise ConfigError(f"--threads must be at least 1 and at most {MOST_THREADS:,}, got {given.threads}")
    files = {ending: folder / f"{experiment.name}.{ending}" for ending in ("json", "md", "png")}
    unfinished = folder / f"{experiment.name}.unfinished.json"
    numbers = read(files["json"]) if given.redraw else measured(given, unfinished)
    picture = experiment.picture(numbers)
    report = experiment.report(numbers, picture.alt)
    # All three are made before the first is written: what cannot be drawn leaves no table without its picture.
    contents = {
        "json": as_json(numbers),
        "md": report.encode(),
        "png": picture.png(f"{experiment.name}: {experiment.about}"),
    }
    for ending, content in contents.items():
        write_whole(files[ending], content)
    if not given.redraw:
        unfinished.unlink(missing_ok=True)
    show(f"{report}\nMeasured in {duration(numbers['seconds'])}. Written: {', '.join(map(str, files.values()))}")


def measured(given: argparse.Namespace, unfinished: Path) -> Numbers:
    """The numbers, with where and how long; what an interrupted call has left is not measured again."""
    experiment = given.experiment
    notebook = Notebook(unfinished, tell=lambda found: show(experiment.line(found)))
    if notebook.runs:
        show(f"Going on: {len(notebook.runs)} runs are done already, in {unfinished}")
    with threads(given.threads):
        numbers = experiment.measure(given, notebook)
    where = {"experiment": experiment.name, "machine": machine(with_torch=False), "seconds": notebook.seconds}
    return {**where, **numbers}


def read(path: Path) -> Numbers:
    """What this experiment has written. Raises ConfigError."""
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--redraw: {path}: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(numbers, dict) or numbers.get("experiment") != path.stem:
        raise ConfigError(f"--redraw: {path}: not written by {PROGRAM} {path.stem}")
    return numbers


def main(argv: Sequence[str] | None = None) -> int:
    """minidense experiment. Exit codes: 0 done, 1 a worker died, 2 wrong command line, 4 cannot write, 5 no memory, 130 interrupted."""

    def work() -> int:
        name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
        if name in ("-h", "--help"):
            show(listing())
            return DONE
        if name not in EXPERIMENTS:
            raise ConfigError(f"unknown experiment {name!r}{nearest(name, EXPERIMENTS)}")
        run(parser(EXPERIMENTS[name]).parse_args(rest))
        return DONE

    def words(error: BaseException) -> str | None:
        if isinstance(error, KeyboardInterrupt):
            return "interrupted; what was done is kept: run the same again to go on"
        if isinstance(error, BrokenProcessPool):
            return "a process that computed died, perhaps for want of memory; run the same again to go on"
        return None

    return ended(PROGRAM, work, codes={BrokenProcessPool: FAILED}, words=words)
