"""Are the checks of the exercises able to fail? Each is run on the solution, on the stub, on nothing, and on wrong answers.

python tests/lesson_mutants.py prints the table. Wrong answers lie in tests/mutants/NN_name.toml: for each exercise ``why`` it is
wrong, and a piece of the solution (``old``) with what stands in its place (``new``).
"""

import contextlib
import io
import signal
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import matplotlib

from minidense.lessons import exercises
from minidense.lessons.build import exercises_of, read_source
from minidense.lessons.course import Lesson, course, folder

MUTANTS = Path(__file__).parent / "mutants"
FEWEST = 5  # mutants of each exercise
PATIENCE = 60  # seconds for a verdict


@dataclass(frozen=True)
class Tried:
    """An answer to an exercise, and the verdict on it."""

    lesson: str
    exercise: str
    answer: str  # "solution", "stub", "nothing", or why it is wrong
    state: str
    says: str

    @property
    def as_it_should_be(self) -> bool:
        return self.state == {"solution": "solved", "stub": "open"}.get(self.answer, "wrong")


def answers(solution: str, stub: str, mutants: list[dict[str, str]]):
    """(name, code) of every answer that is tried."""
    yield "solution", solution
    yield "stub", stub
    yield "nothing", ""
    for mutant in mutants:
        assert solution.count(mutant["old"]) == 1, f"{mutant['why']}: {mutant['old']!r} must stand in the solution once"
        assert mutant["old"] != mutant["new"], mutant["why"]
        yield mutant["why"], solution.replace(mutant["old"], mutant["new"])


def tried(lesson: Lesson) -> list[Tried]:
    """Every answer to every exercise of a lesson. Exercises have the cells marked ``setup`` before them and nothing else."""
    matplotlib.use("Agg")
    cells = read_source(folder() / "en" / f"{lesson.name}.py")
    wrong = tomllib.loads((MUTANTS / f"{lesson.name}.toml").read_text(encoding="utf-8"))
    assert sorted(wrong) == sorted(exercises_of(cells)), f"{lesson.name}: mutants for other exercises than it has"
    code = {cell.id: cell.source for cell in cells}
    setup = ""
    found = []
    for cell in cells:
        if cell.setup:
            setup += cell.source + "\n"
        if cell.part == "-check" and cell.exercise:
            x = cell.exercise
            for name, answer in answers(code[f"{x}-solution"], code[f"{x}-stub"], wrong[x]):
                verdict = verdict_on(setup, answer, cell.source)
                found.append(Tried(lesson.name, x, name, verdict.state, verdict.says))
    return found


class TooLong(BaseException):
    """Not an Exception: ``check`` would take it for the learner's."""


def too_long(signum, frame):
    raise TooLong


def verdict_on(setup: str, answer: str, check: str) -> exercises.Verdict:
    """Of the check, in a namespace of its own."""
    exercises.VERDICTS.clear()
    namespace = {"__name__": "lesson"}
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(PATIENCE)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            for name, source in (("setup", setup), ("answer", answer), ("check", check)):
                exec(compile(source, f"<{name}>", "exec"), namespace)
    except TooLong:
        raise AssertionError(f"no verdict within {PATIENCE} s on this answer:\n{answer}") from None
    finally:
        signal.alarm(0)
    (verdict,) = exercises.VERDICTS.values()
    return verdict


def table(all_tried: list[Tried]) -> str:
    """A line an exercise: how many wrong answers there are, and how many were noticed."""
    lines = [f"{'lesson':24} exercise  solution  stub  nothing  mutants  noticed"]
    for lesson, x in dict.fromkeys((one.lesson, one.exercise) for one in all_tried):
        mine = {one.answer: one for one in all_tried if (one.lesson, one.exercise) == (lesson, x)}
        mutants = [one for name, one in mine.items() if name not in ("solution", "stub", "nothing")]
        noticed = sum(one.as_it_should_be for one in mutants)
        states = "  ".join(f"{mine[name].state:>{w}}" for name, w in (("solution", 8), ("stub", 4), ("nothing", 7)))
        lines.append(f"{lesson:24} {x:8}  {states}  {len(mutants):7}  {noticed:7}")
    mutants = [one for one in all_tried if one.answer not in ("solution", "stub", "nothing")]
    noticed = sum(one.as_it_should_be for one in mutants)
    asked = len({(one.lesson, one.exercise) for one in all_tried})
    lines.append(f"{asked} exercises, {len(mutants)} mutants, {noticed} noticed: {100 * noticed / len(mutants):.4g} %")
    return "\n".join(lines)


if __name__ == "__main__":
    wanted = set(sys.argv[1:])
    everything = [one for lesson in course() if not wanted or lesson.name in wanted for one in tried(lesson)]
    print(table(everything))
    for one in everything:
        if not one.as_it_should_be:
            print(f"NOT AS IT SHOULD BE: {one}")
    sys.exit(not all(one.as_it_should_be for one in everything))
