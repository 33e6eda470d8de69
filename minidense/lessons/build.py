"""The builder: percent files, in which lessons are written, become notebooks. python -m minidense.lessons.build

A lesson is ``lessons/en/NN_name.py``: a plain Python script whose cells begin with ``# %%``, each with an id (jupytext's percent
format). Prose in another language lies beside it, ``lessons/ko/NN_name.md``, a piece for each cell of prose:

    <!-- cell id="why" english="1f0c9a3d" -->

where ``english`` is the ``fingerprint`` of the text that was translated, so that a translation that has fallen behind is marked.
Code is the same in every language.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import write_whole
from ..command import DONE, FAILED, WRONG_COMMAND_LINE, ended, show
from ..config import Parser
from ..errors import ConfigError
from .course import Lesson, course, differences, folder, topics

ENGLISH = "en"
WORDS = {
    "en": {"solution": "Solution"},
    "ko": {
        "solution": "풀이",
        "missing": "> ⚠ 아직 번역되지 않았습니다 (not translated yet).",
        "stale": "> ⚠ 영어 원문이 바뀌어 이 번역은 최신이 아닙니다 (the English text has changed since).",
    },
}
WORDS_A_MINUTE = 130  # of technical prose, formulas and code among it
MINUTES_AN_EXERCISE = 6
EXERCISE = re.compile(r"x[1-9]")
# Of an exercise, in this order; hints may be several: x1-hint, x1-hint-2.
PARTS = ("", "-stub", "-hint", "-solution", "-check")
MARK = re.compile(r'^<!-- cell id="([a-z0-9-]+)" english="([0-9a-f]{8})" -->$', re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """Of a lesson: "markdown" or "code", its name, and whether exercises need it (``setup``)."""

    kind: str
    id: str
    source: str
    setup: bool = False

    @property
    def exercise(self) -> str | None:
        """The exercise it belongs to: "x1"."""
        name = self.id.split("-")[0]
        return name if EXERCISE.fullmatch(name) else None

    @property
    def part(self) -> str:
        """Of an exercise: one of PARTS."""
        return re.sub(r"-\d$", "", self.id[len(self.id.split("-")[0]) :])


def read_source(path: Path) -> list[Cell]:
    """The cells of a percent file. Raises ConfigError for cells without a name, names used twice and exercises that lack a part."""
    import jupytext

    cells, seen = [], set()
    for number, cell in enumerate(jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent").cells, start=1):
        name = cell.metadata.get("id", "")
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name):
            raise ConfigError(
                f'{path.name}: cell {number} needs a name: # %% id="small-letters-and-digits", got {name!r}'
            )
        if name in seen:
            raise ConfigError(f"{path.name}: two cells are called {name!r}")
        seen.add(name)
        cells.append(Cell(cell.cell_type, name, cell.source, "setup" in cell.metadata.get("tags", ())))
    exercises = dict.fromkeys(cell.exercise for cell in cells if cell.exercise)
    for exercise in exercises:
        parts = tuple(dict.fromkeys(cell.part for cell in cells if cell.exercise == exercise))
        if parts != PARTS:
            wanted = ", ".join(exercise + part for part in PARTS)
            raise ConfigError(
                f"{path.name}: exercise {exercise} needs the cells {wanted} in this order, it has {', '.join(parts)}"
            )
    return cells


def exercises_of(cells: Sequence[Cell]) -> list[str]:
    """The names of a lesson's exercises, in order."""
    return [cell.id for cell in cells if cell.exercise == cell.id]


def fingerprint(text: str) -> str:
    """Of a piece of prose: eight hexadecimal digits that change when it changes. Space at line ends does not count."""
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return hashlib.sha256(lines.encode()).hexdigest()[:8]


def read_translation(path: Path) -> dict[str, tuple[str, str]]:
    """{cell name: (text, fingerprint of the English that it translates)}; empty where the file is not there.

    Raises ConfigError for text before the first mark, and for a cell that comes twice.
    """
    if not path.exists():
        return {}
    before, *pieces = MARK.split(path.read_text(encoding="utf-8"))
    if before.strip():
        raise ConfigError(f'{path.name}: must begin with <!-- cell id="..." english="..." -->')
    found: dict[str, tuple[str, str]] = {}
    for name, english, text in zip(pieces[0::3], pieces[1::3], pieces[2::3], strict=True):
        if name in found:
            raise ConfigError(f"{path.name}: cell {name!r} comes twice")
        found[name] = (text.strip(), english)
    return found


def front(lesson: Lesson, minutes: int) -> str:
    """What stands at the top of a lesson: title, time, difficulty, what it needs and gives, and its part of the lecture."""
    names = {topic.key: topic.title for topic in topics()}
    needs = ", ".join(f"{number:02}" for number in lesson.needs) or "nothing but Python"
    carried = "; ".join(names[key] for key in lesson.topics) or "what the lecture takes for granted"
    able = "\n".join(f"- {line}" for line in lesson.able)
    return (
        f"# {lesson.number:02} · {lesson.title}\n\n"
        f"**Time** about {minutes} minutes, of which {lesson.seconds:.0f} s computing · "
        f"**difficulty** {lesson.difficulty} of 3 · **needs** {needs} · **of the lecture** {carried}\n\n"
        f"After this lesson you can\n\n{able}"
    )


def minutes_of(cells: Sequence[Cell], seconds: float) -> int:
    """How long a lesson takes: its words and code read at WORDS_A_MINUTE, MINUTES_AN_EXERCISE each, and computing; in steps of five."""
    words = sum(len(cell.source.split()) for cell in cells if cell.part != "-solution")
    return max(
        5, 5 * round((words / WORDS_A_MINUTE + MINUTES_AN_EXERCISE * len(exercises_of(cells)) + seconds / 60) / 5)
    )


def translated(cells: Sequence[Cell], language: str, translation: dict[str, tuple[str, str]], file: str) -> list[Cell]:
    """The cells with their prose in another language; English where there is none yet, and marked where it has fallen behind.

    Raises ConfigError for a translation of a cell that the lesson does not have.
    """
    prose = {cell.id for cell in cells if cell.kind == "markdown"}
    if unknown := sorted(translation.keys() - prose):
        raise ConfigError(f"{file}: the lesson has no cells of prose called {', '.join(unknown)}")
    made = []
    for cell in cells:
        if cell.kind == "markdown":
            text, english = translation.get(cell.id, (None, None))
            if text is None:
                text = f"{WORDS[language]['missing']}\n\n{cell.source}"
            elif english != fingerprint(cell.source):
                text = f"{WORDS[language]['stale']}\n\n{text}"
            cell = Cell("markdown", cell.id, text)
        made.append(cell)
    return made


def built(lesson: Lesson, language: str = ENGLISH) -> str:
    """The notebook of a lesson as the text of a file: no outputs, solutions folded away, the same bytes each time."""
    import nbformat

    where = folder()
    cells = read_source(where / ENGLISH / f"{lesson.name}.py")
    minutes = minutes_of(cells, lesson.seconds)
    cells.insert(0, Cell("markdown", "front", front(lesson, minutes)))
    if language != ENGLISH:
        path = where / language / f"{lesson.name}.md"
        cells = translated(cells, language, read_translation(path), f"{language}/{path.name}")
    made = nbformat.v4.new_notebook(
        cells=[notebook_cell(cell, language) for cell in cells],
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "minidense": {"lesson": lesson.number, "language": language, "minutes": minutes},
        },
    )
    nbformat.validate(made)
    return nbformat.writes(made) + "\n"


def notebook_cell(cell: Cell, language: str) -> Any:
    """A cell as nbformat has it. A solution becomes folded prose, so that nobody runs it by mistake."""
    import nbformat

    if cell.part == "-solution" and cell.exercise:
        summary = WORDS[language]["solution"]
        text = f"<details>\n<summary>{summary}</summary>\n\n```python\n{cell.source.strip()}\n```\n\n</details>"
        return nbformat.v4.new_markdown_cell(text, id=cell.id)
    make = nbformat.v4.new_markdown_cell if cell.kind == "markdown" else nbformat.v4.new_code_cell
    return make(cell.source, id=cell.id)


def lessons_table() -> list[str]:
    """A row a lesson: what README.md has between its marks."""
    names = {topic.key: topic.title for topic in topics()}
    rows = ["| | lesson | minutes | difficulty | needs | of the lecture |", "|---|---|--:|---|---|---|"]
    for each in course():
        cells = read_source(folder() / ENGLISH / f"{each.name}.py")
        rows.append(
            f"| {each.number:02} | [{each.title}](notebooks/{ENGLISH}/{each.name}.ipynb) | {minutes_of(cells, each.seconds)} | "
            f"{each.difficulty * '●'} | {', '.join(f'{number:02}' for number in each.needs) or '–'} | "
            f"{'; '.join(names[key] for key in each.topics)} |"
        )
    return rows


def differences_table() -> list[str]:
    """A row for each place where lecture and paper differ, with the lessons that tell it in a cell called differs-NUMBER."""
    told: dict[int, list[str]] = {}
    for each in course():
        for cell in read_source(folder() / ENGLISH / f"{each.name}.py"):
            if cell.id.startswith("differs-"):
                for number in map(int, cell.id.split("-")[1:]):
                    if f"{each.number:02}" not in told.setdefault(number, []):
                        told[number].append(f"{each.number:02}")
    rows = ["| | the lecture | the paper, or its authors' code | lesson |", "|--:|---|---|---|"]
    for difference in differences():
        lessons = ", ".join(told.get(difference.number, []))
        rows.append(f"| {difference.number} | {difference.lecture} | {difference.paper} | {lessons} |")
    return rows


def page() -> str:
    """README.md of the course as it should be: its tables made anew between their marks."""
    text = (folder() / "README.md").read_text(encoding="utf-8")
    for mark, rows in (("lessons", lessons_table()), ("differences", differences_table())):
        begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
        if (text.count(begin), text.count(end)) != (1, 1):
            raise ConfigError(
                f"README.md of the lessons needs {begin.strip()} and {end} once each, on lines of their own"
            )
        before, rest = text.split(begin)
        text = before + begin + "\n".join(rows) + "\n" + end + rest.split(end)[1]
    return text


def build(*, languages: Sequence[str] = (ENGLISH,), only_check: bool = False) -> list[Path]:
    """Write every notebook that is missing or differs from its source, and the page; returns their paths. ``only_check`` writes nothing."""
    texts = {
        folder() / "notebooks" / language / f"{lesson.name}.ipynb": built(lesson, language)
        for language in languages
        for lesson in course()
    }
    texts[folder() / "README.md"] = page()
    changed = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if not only_check:
        for path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, texts[path].encode())
    return changed


def main(argv: Sequence[str] | None = None) -> int:
    """python -m minidense.lessons.build. Exit codes: 0 done, 1 with --check when a notebook differs from its source."""
    program = "python -m minidense.lessons.build"
    parser = Parser(
        prog=program,
        description="Build the notebooks of the course, and the tables of its page, from their sources.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--language", action="append", choices=sorted(WORDS), help="default: en; may be given several times"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 when a file differs from its source"
    )

    def work() -> int:
        given = parser.parse_args(argv)
        if not (folder() / ENGLISH).is_dir():
            raise ConfigError("the sources of the lessons are not installed; build in a clone of minidense")
        changed = build(languages=given.language or (ENGLISH,), only_check=given.check)
        verb = "differs" if given.check else "built"
        show("\n".join(f"{verb}: {path}" for path in changed) or "all as their sources say")
        return FAILED if given.check and changed else DONE

    def words(error: BaseException) -> str | None:
        if isinstance(error, ModuleNotFoundError):
            return f'building needs {error.name}: pip install "minidense[test]"'
        return None

    return ended(program, work, codes={ModuleNotFoundError: WRONG_COMMAND_LINE}, words=words)


if __name__ == "__main__":
    sys.exit(main())
