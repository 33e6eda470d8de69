"""The checker: run a learner's own notebook, then the course's checks on what it has defined."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .course import Lesson, notebook
from .exercises import WRONG, Verdict

PATIENCE = 300  # seconds that one cell may take
# What the learner's own cells have found is forgotten: the course's checks are run, whatever has become of theirs.
FORGET = """
from minidense.lessons import exercises
exercises.VERDICTS.clear()
"""
TELL = "print(exercises.as_lines())"

QUIET = logging.getLogger("minidense.lessons")  # what nbclient would say of a cell, the report says
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


@dataclass(frozen=True)
class Report:
    """What came of a learner's notebook: a verdict on each exercise, and the cells that stopped with an error."""

    verdicts: list[Verdict]
    stopped: list[str]

    @property
    def solved(self) -> bool:
        """Is every exercise of the lesson?"""
        return all(verdict.state == "solved" for verdict in self.verdicts)


def read_notebook(path: Path) -> Any:
    """A notebook file. Raises ConfigError when it cannot be read or is not a notebook."""
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001  nbformat raises what its parsers raise: JSON's, the schema's, KeyError, ...
        raise ConfigError(f"{path}: not a notebook ({type(error).__name__})") from None


def checks_of(lesson: Lesson) -> dict[str, str]:
    """{exercise: the course's own check, as code}, from the notebook that was built."""
    cells = read_notebook(notebook(lesson)).cells
    return {cell.id.removesuffix("-check"): cell.source for cell in cells if cell.id.endswith("-check")}


def examine(
    path: Path, lesson: Lesson, *, patience: int = PATIENCE, tell: Callable[[int, int], Any] = lambda i, n: None
) -> Report:
    """Run a notebook from top to bottom in a kernel of its own, as "Run All" does, then check every exercise of the lesson.

    path      the learner's file; it is read and not changed
    patience  seconds that a cell may take
    tell      is told before each cell: (its number, how many there are)

    A cell that stops with an error does not end it: what can be checked is.
    Raises ConfigError when the file is no notebook.
    """
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import DeadKernelError

    if importlib.util.find_spec("ipykernel") is None:
        raise ModuleNotFoundError("no kernel to run it in", name="ipykernel")
    theirs = read_notebook(path)
    mine = [cell for cell in theirs.cells if cell.cell_type == "code" and cell.source.strip()]
    checks = checks_of(lesson)
    cells = [*(cell.source for cell in mine), FORGET, *(import_of_check(code) for code in checks.values()), TELL]
    run = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    client = NotebookClient(
        run,
        # In this Python, whatever kernels the user has registered: without their folders only its own is left.
        km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])),
        timeout=patience,
        allow_errors=True,
        interrupt_on_timeout=True,  # so that what comes after it is looked at all the same
        log=QUIET,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    stopped: list[str] = []
    i = 0
    try:
        with client.setup_kernel(cleanup_kc=True, env={**os.environ, "MPLBACKEND": "Agg"}, stderr=subprocess.DEVNULL):
            for i, cell in enumerate(run.cells):
                tell(i + 1, len(run.cells))
                client.execute_cell(cell, i)
                if i < len(mine):
                    stopped += [f"cell {i + 1} {words}" for words in errors_of(cell, patience)]
    except (DeadKernelError, RuntimeError):  # RuntimeError: it died before it was ready; DeadKernelError is one today
        stopped.append(f"cell {i + 1} killed its kernel, perhaps for want of memory")
    found = verdicts_in(run.cells[-1])
    names = {exercise: name_of(code) for exercise, code in checks.items()}
    verdicts = [found.get(name, Verdict(name, WRONG, "was not reached")) for name in names.values()]
    return Report(verdicts, stopped)


def import_of_check(code: str) -> str:
    """A check that does not depend on what the learner has imported or called ``check``."""
    return f"from minidense.lessons import check\n{code}"


def name_of(code: str) -> str:
    """The name of the function in a check."""
    return code.split("@check", 1)[1].split("def ", 1)[1].split("(", 1)[0].strip()


def errors_of(cell: Any, patience: int) -> list[str]:
    """What a cell that was run has stopped with, in words."""
    errors = [out for out in cell.outputs if out.output_type == "error"]
    return [
        f"was stopped after {patience} s"
        if error.ename == "KeyboardInterrupt"
        else f"stopped with {error.ename}: {''.join(str(error.evalue).splitlines()[:1])}"
        for error in errors
    ]


def verdicts_in(cell: Any) -> dict[str, Verdict]:
    """Those that the last cell has printed."""
    lines = [line for out in cell.outputs if out.output_type == "stream" for line in out.text.splitlines()]
    verdicts = (Verdict(**json.loads(line)) for line in lines if line.startswith('{"name"'))
    return {verdict.name: verdict for verdict in verdicts}
