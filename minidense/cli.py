"""The command minidense: everything that can be typed, under one name."""

import argparse
import sys
from collections.abc import Sequence

from . import bench, doctor, experiments, models_command, predict, summary_command, train
from .command import DONE, WRONG_COMMAND_LINE
from .config import Parser, nearest
from .lessons import command as lessons
from .version import __version__

COMMANDS = {
    "train": (train.main, "train a network; what python -m minidense.train does"),
    "predict": (predict.main, "say what a network sees in pictures"),
    "models": (models_command.main, "list the networks, with their sizes and what their papers reached"),
    "summary": (summary_command.main, "layers, shapes, parameters, multiply-adds and memory of one network"),
    "experiment": (experiments.main, "measure what the lecture claims: a table, a picture and numbers"),
    "lessons": (lessons.main, "the course in Jupyter notebooks: list them, start one, check what you solved"),
    "bench": (bench.main, "measure speed and memory, alone or beside PyTorch"),
    "doctor": (doctor.main, "say what is here, what is missing, and whether it computes right"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Hand what follows the command to it; returns its exit code. 2 for a wrong command line."""
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in COMMANDS:
        return COMMANDS[command][0](rest)
    parser = Parser(
        prog="minidense",
        usage="minidense COMMAND [options]",
        description="Deep learning from first principles: the whole DenseNet story in one small package.",
        epilog="\n".join(["commands:", *(f"  {name:12}{text}" for name, (_, text) in COMMANDS.items())])
        + "\n\nminidense COMMAND --help says more about one of them.",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=120),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"minidense {__version__}")
    if command.startswith("-"):
        parser.parse_args([command])
        return DONE
    print(f"minidense: unknown command {command!r}{nearest(command, COMMANDS)}", file=sys.stderr)
    return WRONG_COMMAND_LINE
