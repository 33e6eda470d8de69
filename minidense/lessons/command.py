"""The command: minidense lessons list | start N | check N."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..command import DONE, FAILED, ended, show
from ..config import Parser, reader
from ..errors import ConfigError
from . import checker
from .course import Lesson, course, languages, lesson, notebook

PROGRAM = "minidense lessons"
EXTRA = 'pip install "minidense[lessons]"'


def minutes(lesson: Lesson) -> int:
    """How many minutes a lesson takes, as its notebook says."""
    return int(json.loads(notebook(lesson).read_text(encoding="utf-8"))["metadata"]["minidense"]["minutes"])


def listing(given: argparse.Namespace) -> int:
    """Every lesson with a line, and whether a notebook of it lies here."""
    width = max(len(each.title) for each in course())
    lines = [f" N  {'lesson':{width}}  minutes  difficulty  needs"]
    for each in course():
        needs = ", ".join(map(str, each.needs)) or "–"
        here = "   started here" if Path(f"{each.name}.ipynb").exists() else ""
        lines.append(
            f"{each.number:2}  {each.title:{width}}  {minutes(each):7}  {each.difficulty * '●':10}  {needs}{here}".rstrip()
        )
    lines += [
        "",
        f"{PROGRAM} start N copies a lesson's notebook into this folder, {PROGRAM} check N looks at what you have solved",
    ]
    show("\n".join(lines))
    return DONE


def start(given: argparse.Namespace) -> int:
    """Copy a lesson's notebook to where the learner works; never over a file that is not the same."""
    chosen = lesson(given.lesson)
    source = notebook(chosen, given.language)
    target = Path(given.to) / source.name
    if not target.parent.is_dir():
        raise ConfigError(f"--to {given.to!r}: no such folder")
    content = source.read_bytes()
    try:
        with target.open("xb") as file:  # fails when it is there, also when it came a moment ago
            file.write(content)
    except FileExistsError:
        if target.is_dir() or target.read_bytes() != content:
            raise ConfigError(
                f"{target} is there already, perhaps with your work in it; nothing was written. "
                f"Go on with it (jupyter lab {shlex.quote(str(target))}), or start afresh elsewhere: "
                f"{PROGRAM} start {given.lesson} --to FOLDER"
            ) from None
        show(f"{target} is there already, as it was given out")
    else:
        show(f"Lesson {chosen.number}, {chosen.title}: {target}")
    there = "" if target.parent == Path() else f" {shlex.quote(str(target))}"
    show(
        f"Open it with: jupyter lab {shlex.quote(str(target))}\nAnd when you are done: {PROGRAM} check {chosen.number}{there}"
    )
    return DONE


def check(given: argparse.Namespace) -> int:
    """Run the learner's notebook and say which exercises are solved; 0 when all are, else 1."""
    chosen = lesson(given.lesson)
    path = Path(given.file) if given.file is not None else Path(f"{chosen.name}.ipynb")
    if not path.exists():
        raise ConfigError(
            f"{path} is not here; {PROGRAM} start {chosen.number} copies it, and check takes another place as its second word"
        )

    if not 1 <= given.patience <= 86_400:
        raise ConfigError(f"--patience must be at least 1 and at most 86,400 seconds, got {given.patience}")

    def tell(number: int, count: int) -> None:
        if sys.stdout.isatty():
            print(f"\r{path}: cell {number} of {count}", end="\n" if number == count else "", flush=True)

    try:
        report = checker.examine(path, chosen, patience=given.patience, tell=tell)
    except ModuleNotFoundError as error:
        raise ConfigError(f"running a notebook needs {error.name}: {EXTRA}") from None
    show("\n".join(told(report)))
    return DONE if report.solved else FAILED


def told(report: checker.Report) -> list[str]:
    """The lines that say what came of a notebook."""
    left = [verdict.name for verdict in report.verdicts if verdict.state != "solved"]
    solved = f"{len(report.verdicts) - len(left)} of {len(report.verdicts)} exercises solved"
    return [
        *map(str, report.verdicts),
        *(f"! {line}" for line in report.stopped),
        f"{solved}. Look at: {', '.join(left)}" if left else f"{solved}: well done",
    ]


def parser() -> argparse.ArgumentParser:
    """The command line of list, start and check."""
    made = Parser(
        prog=PROGRAM,
        description="The course: from the vanishing gradient to a trained DenseNet, in notebooks.",
        epilog=f"the notebooks are opened with JupyterLab: {EXTRA}, then jupyter lab",
        allow_abbrev=False,
    )
    commands = made.add_subparsers(metavar="list | start N | check N", required=True, parser_class=Parser)
    one = commands.add_parser("list", help="show the lessons", allow_abbrev=False)
    one.set_defaults(do=listing)
    one = commands.add_parser(
        "start", help="copy a lesson's notebook here; edited work is never written over", allow_abbrev=False
    )
    one.add_argument("lesson", metavar="N", help="number of the lesson")
    one.add_argument("--to", metavar="FOLDER", default=".", help="where to (default: this folder)")
    one.add_argument(
        "--language",
        default="en",
        metavar="CODE",
        help=f"language of the prose (default: en; there are notebooks in {', '.join(languages())})",
    )
    one.set_defaults(do=start)
    one = commands.add_parser(
        "check",
        help="run your notebook and say which exercises are solved; the exit code is 0 when all are, else 1",
        allow_abbrev=False,
    )
    one.add_argument("lesson", metavar="N", help="number of the lesson")
    one.add_argument(
        "file", metavar="NOTEBOOK", nargs="?", help="your file (default: the lesson's name, in this folder)"
    )
    one.add_argument(
        "--patience",
        type=reader(int),
        default=checker.PATIENCE,
        metavar="SECONDS",
        help=f"that a cell may take (default: {checker.PATIENCE})",
    )
    one.set_defaults(do=check)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """minidense lessons. Exit codes: 0 done, 1 exercises are open or wrong, 2 wrong command line, 4 cannot write, 130 interrupted."""

    def work() -> int:
        given = parser().parse_args(list(sys.argv[1:] if argv is None else argv) or ["--help"])
        return given.do(given)

    return ended(PROGRAM, work)
