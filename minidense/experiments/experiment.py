"""What an experiment is: a measurement that returns numbers, and what is made of them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import write_whole
from ..errors import ConfigError
from ..plots import Picture

Numbers = dict[str, Any]  # what JSON can hold


@dataclass(frozen=True)
class Experiment:
    """One claim, measured.

    name     on the command line, and of its files
    about    a line for the list
    measure  (options, notebook) -> numbers; prints nothing and draws nothing
    table    (numbers) -> Markdown
    picture  (numbers) -> a picture and its words
    reading  how to read them, and what they do not show
    line     (run) -> a line for whoever waits, where the notebook is used
    options  adds options of its own to the command's; their names are those that ``measure`` finds
    """

    name: str
    about: str
    measure: Callable[[argparse.Namespace, Notebook], Numbers]
    table: Callable[[Numbers], str]
    picture: Callable[[Numbers], Picture]
    reading: str
    line: Callable[[Numbers], str] = str
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None

    def report(self, numbers: Numbers, alt: str) -> str:
        """Picture, table and reading, as Markdown.

        alt  the picture's words; the picture is NAME.png beside the report
        """
        words = " ".join(alt.split()).replace("[", "\\[").replace("]", "\\]")
        return f"# {self.name}: {self.about}\n\n![{words}]({self.name}.png)\n\n{self.table(numbers)}\n{self.reading}\n"


class Notebook:
    """What a long experiment has found so far, kept on the disk run by run, so that an interruption costs one run at most.

    path  of the JSON file; None keeps nothing
    tell  is told each run when it is done

    A run is a dictionary; those that were asked the same have the same outcome, so one is enough.
    """

    def __init__(self, path: Path | None = None, tell: Callable[[Numbers], None] = lambda run: None):
        self.path, self.tell = path, tell
        self.runs: list[Numbers] = []
        self.seconds_before, self.began = 0.0, time.perf_counter()
        if path is not None and path.exists():
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
                self.runs, self.seconds_before = list(kept["runs"]), float(kept["seconds"])
            except (OSError, ValueError, KeyError, TypeError):
                raise ConfigError(
                    f"{path}: not what an interrupted experiment leaves; delete it to begin again"
                ) from None

    @property
    def seconds(self) -> float:
        """How long the experiment has taken until now, interrupted calls included."""
        return self.seconds_before + time.perf_counter() - self.began

    def found(self, asked: Numbers) -> Numbers | None:
        """The run that was asked this before, if there is one."""
        return next((run for run in self.runs if all(run.get(key) == value for key, value in asked.items())), None)

    def add(self, run: Numbers) -> None:
        """Keep a run that is done."""
        self.runs.append(run)
        if self.path is not None:
            write_whole(self.path, as_json({"runs": self.runs, "seconds": self.seconds}))
        self.tell(run)


def as_json(numbers: Numbers) -> bytes:
    """The bytes of a JSON file. Not-a-number is no JSON, so it is refused."""
    return json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
