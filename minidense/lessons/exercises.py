"""check: does a learner's function do what the exercise asks?"""

import json
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..command import show

SOLVED, OPEN, WRONG = "solved", "open", "wrong"
SIGNS = {SOLVED: "✓", OPEN: "…", WRONG: "✗"}


@dataclass(frozen=True)
class Verdict:
    """On one exercise: its name, "solved", "open" or "wrong", and what to look at."""

    name: str
    state: str
    says: str

    def __str__(self) -> str:
        return f"{SIGNS[self.state]} {self.name}: {self.says}"


VERDICTS: dict[str, Verdict] = {}  # the latest of each exercise


def check(expectations: Callable[[], Any]) -> Callable[[], Any]:
    """Decorate a function whose assertions say what an exercise asks: it runs at once, and the verdict is printed.

        @check
        def slope():
            assert slope_of(0.0) == 0.25, "at 0 the slope is a quarter"

    Nothing is raised, so that a notebook with open exercises can be run to its end: NotImplementedError means that the exercise
    is open, any other exception that the answer is wrong, and its message is what to look at.
    """
    name = expectations.__name__
    try:
        expectations()
    except NotImplementedError:
        verdict = Verdict(
            name, OPEN, "not solved yet. Replace the line that raises NotImplementedError, and run both cells again"
        )
    except AssertionError as error:
        verdict = Verdict(name, WRONG, str(error) or "not yet right")
    except Exception as error:  # noqa: BLE001  whatever a learner's function does, it is told and nothing else stops
        place = theirs(traceback.extract_tb(error.__traceback__))
        verdict = Verdict(
            name, WRONG, f"stopped with {type(error).__name__}: {error} (line {place.lineno} of {place.name})"
        )
    else:
        verdict = Verdict(name, SOLVED, "solved")
    VERDICTS[name] = verdict
    show(verdict)
    return expectations


def theirs(frames: traceback.StackSummary) -> traceback.FrameSummary:
    """The innermost place that is not in a library: there a learner has to look."""
    package, libraries = (
        str(Path(__file__).parents[1]),
        ("site-packages", "dist-packages", str(Path(traceback.__file__).parent)),
    )
    outside = [f for f in frames if package not in f.filename and not any(name in f.filename for name in libraries)]
    return (outside or list(frames))[-1]


def as_lines() -> str:
    """The verdicts until now as JSON, one a line: how the kernel of a notebook tells them to who runs it."""
    return "\n".join(json.dumps(asdict(verdict)) for verdict in VERDICTS.values())
