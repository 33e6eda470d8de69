"""Where the course lies, and what course.toml says about it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ConfigError

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Topic:
    """A part of the lecture."""

    key: str
    title: str


@dataclass(frozen=True)
class Difference:
    """A place where the lecture says one thing and the paper, or its authors' code, another."""

    number: int
    lecture: str
    paper: str


@dataclass(frozen=True)
class Lesson:
    """A lesson, as course.toml describes it.

    name        of its files: "04_vanishing_gradient"
    seconds     of computing on two cores, measured
    difficulty  1 to 3
    needs       numbers of the lessons it builds on
    able        what one can do afterwards
    topics      keys of the parts of the lecture that it carries
    """

    name: str
    title: str
    seconds: float
    difficulty: int
    needs: tuple[int, ...]
    able: tuple[str, ...]
    topics: tuple[str, ...]

    @property
    def number(self) -> int:
        return int(self.name[:2])


def folder() -> Path:
    """The course: lessons/ of a checkout, or what an installed package carries."""
    for place in (HERE / "course", HERE.parent.parent / "lessons"):
        if (place / "course.toml").exists():
            return place
    raise ConfigError("the lessons are not installed; in a clone of minidense: pip install .")


@cache
def course() -> tuple[Lesson, ...]:
    """All lessons in their order."""
    return tuple(
        Lesson(**entry | {key: tuple(entry[key]) for key in ("needs", "able", "topics")})
        for entry in contents()["lesson"]
    )


@cache
def topics() -> tuple[Topic, ...]:
    """The parts of the lecture in its order."""
    return tuple(Topic(**entry) for entry in contents()["topic"])


@cache
def differences() -> tuple[Difference, ...]:
    """All of them, in the order of the lecture."""
    return tuple(Difference(**entry) for entry in contents()["difference"])


def contents() -> dict[str, Any]:
    return tomllib.loads((folder() / "course.toml").read_text(encoding="utf-8"))


def lesson(asked: str) -> Lesson:
    """A lesson by its number ("4", "04") or name. Raises ConfigError, which says what there is."""
    for each in course():
        if asked == each.name or (asked.isdecimal() and int(asked) == each.number):
            return each
    last = course()[-1].number
    raise ConfigError(f"no lesson {asked!r}; they are numbered 1 to {last}, and minidense lessons list shows them")


def languages() -> tuple[str, ...]:
    """Those that notebooks are built in."""
    return tuple(sorted(path.name for path in (folder() / "notebooks").glob("*") if path.is_dir()))


def notebook(lesson: Lesson, language: str = "en") -> Path:
    """A lesson's notebook as it was built. Raises ConfigError for a language it was not built in."""
    path = folder() / "notebooks" / language / f"{lesson.name}.ipynb"
    if not path.exists():
        built = ", ".join(languages()) or "none; python -m minidense.lessons.build makes them"
        raise ConfigError(f"lesson {lesson.number} is not there in {language!r}; there is {built}")
    return path
