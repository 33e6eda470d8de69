"""The course: every lesson runs, every claim holds, every check can fail, and nobody's work is written over."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy
import pytest
from lesson_mutants import FEWEST, table, tried

from minidense import Tensor
from minidense.errors import ConfigError
from minidense.lessons import build, check, checker, claim, claims, command, exercises
from minidense.lessons import course as courses
from minidense.lessons.build import exercises_of, fingerprint, read_source
from minidense.lessons.course import course, folder, lesson, topics

LESSONS = course()
ONE_LESSON, WHOLE_COURSE = 180, 20 * 60  # seconds, at most
every_lesson = pytest.mark.parametrize("each", LESSONS, ids=lambda each: each.name)
took: dict[str, float] = {}  # seconds of each lesson, for the course as a whole
claimed: dict[str, list[dict]] = {}


def source_of(each):
    return folder() / "en" / f"{each.name}.py"


def cells_of(each):
    return read_source(source_of(each))


# -- every lesson runs ------------------------------------------------------------------------------------------------


def run_as_script(each, seed, tmp_path):
    """Run a lesson as anybody would, warnings being errors; returns its claims and how long it took."""
    claims_file = tmp_path / "claims.jsonl"
    known = {"MPLBACKEND": "Agg", "MINIDENSE_LESSON_SEED": str(seed), "MINIDENSE_CLAIMS": str(claims_file)}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "error", str(source_of(each))],
        env={**os.environ, **known},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=ONE_LESSON,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "✗" not in done.stdout, done.stdout  # with the solutions in place all checks pass
    assert "not solved yet" not in done.stdout
    return [
        json.loads(line) for line in claims_file.read_text(encoding="utf-8").splitlines()
    ], time.perf_counter() - began


@every_lesson
def test_a_lesson_runs_as_a_script(each, tmp_path):
    claimed[each.name], took[each.name] = run_as_script(each, 0, tmp_path)


@pytest.mark.slow
@every_lesson
def test_a_lesson_runs_as_a_notebook_and_its_claims_hold_at_another_seed(each, monkeypatch, tmp_path):
    """As it is given out, in the checker's own kernel. Nothing stops, and no exercise is solved by itself."""
    monkeypatch.setenv(claims.ENVIRONMENT_SEED, "1")
    monkeypatch.setenv(claims.ENVIRONMENT_FILE, str(tmp_path / "claims.jsonl"))
    path = tmp_path / f"{each.name}.ipynb"
    path.write_bytes(courses.notebook(each).read_bytes())
    began = time.perf_counter()
    report = checker.examine(path, each)
    assert time.perf_counter() - began < ONE_LESSON
    assert report.stopped == []
    assert [verdict.state for verdict in report.verdicts] == ["open"] * len(exercises_of(cells_of(each)))
    told = (tmp_path / "claims.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(told) >= len(list(calls_of_claim(each)))  # more where a claim stands in a loop


@pytest.mark.slow
@every_lesson
def test_the_claims_hold_at_a_third_seed(each, tmp_path):
    run_as_script(each, 2, tmp_path)


def test_the_whole_course_computes_for_twenty_minutes_at_most():
    if len(took) < len(LESSONS):
        pytest.skip("needs the time of every lesson: run the whole file")
    print(f"\nthe course: {sum(took.values()):.0f} s; " + ", ".join(f"{name[:2]} {took[name]:.0f}" for name in took))
    assert sum(took.values()) < WHOLE_COURSE


def test_there_are_forty_claims():
    if len(claimed) < len(LESSONS):
        pytest.skip("needs the claims of every lesson: run the whole file")
    told = {(name, one["what"]) for name, all_of_it in claimed.items() for one in all_of_it}
    assert len(told) >= 40
    assert len(told) == sum(map(len, claimed.values())), "two claims of a lesson have the same words"


def calls_of_claim(each):
    for node in ast.walk(ast.parse(source_of(each).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim":
            yield node


@every_lesson
def test_a_band_has_what_was_measured_beside_it(each):
    """A band is wide only where chance touches the number, and then it says what five seeds gave."""
    for call in calls_of_claim(each):
        words = ast.unparse(call)
        assert len(call.args) == 4, words
        what, _, low, high = call.args
        exact = ast.unparse(low) == ast.unparse(high)
        assert exact or isinstance(what, ast.Constant), f"{words}: the words of a band are written out"
        seen = any(keyword.arg == "seen" for keyword in call.keywords)
        assert exact or seen, (
            f"{words}: a band needs seen=(lowest, highest); scripts/measure_lessons --write fills it in"
        )


# -- how a lesson is made ---------------------------------------------------------------------------------------------


@every_lesson
def test_a_notebook_is_what_its_source_says(each):
    """Otherwise: python -m minidense.lessons.build"""
    assert courses.notebook(each).read_text(encoding="utf-8") == build.built(each)


@every_lesson
def test_notebooks_are_given_out_without_outputs(each):
    made = nbformat.read(courses.notebook(each), as_version=4)
    nbformat.validate(made)
    for cell in made.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
            assert "-solution" not in cell.id


@every_lesson
def test_a_lesson_has_the_rhythm(each):
    cells = cells_of(each)
    names = [cell.id for cell in cells]
    for part in ("break-it", "summary", "paper", "source", "source-code"):
        assert names.count(part) == 1, part
    assert names[-1] == "source-code"
    assert "getsource" in cells[-1].source
    assert cells[0].id.startswith("why")
    assert any(name.startswith("predict") for name in names)
    assert 2 <= len(exercises_of(cells)) <= 4
    assert len(list(calls_of_claim(each))) >= 3
    for cell in cells:
        if cell.part == "-hint":
            assert cell.source.startswith("<details>"), cell.id
        if cell.id.startswith("predict"):
            assert "(a)" in cell.source, cell.id
            assert "(b)" in cell.source, cell.id
        if cell.part == "-stub" and cell.exercise:
            assert "raise NotImplementedError" in cell.source, cell.id


@every_lesson
def test_a_lesson_needs_nothing_but_what_is_installed(each):
    """No network, no image set, no IPython in the code: it runs as a script too. CIFAR-10 is an extra of one lesson."""
    text = "\n".join(cell.source for cell in cells_of(each) if cell.kind == "code")
    modules = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    known = sys.stdlib_module_names | {"minidense", "numpy", "matplotlib", "PIL"}
    assert modules <= known, modules - known
    assert not modules & {"urllib", "http", "socket", "multiprocessing"}


@every_lesson
def test_lessons_need_only_earlier_ones(each):
    assert each.seconds > 0, "scripts/measure_lessons --write measures them"
    assert all(number < each.number for number in each.needs)


def test_all_topics_of_the_lecture_are_carried():
    assert len(topics()) == 11
    assert {key for each in LESSONS for key in each.topics} == {topic.key for topic in topics()}


def test_every_place_where_lecture_and_paper_differ_is_told():
    assert [difference.number for difference in courses.differences()] == list(range(1, 33))
    untold = [row for row in build.differences_table()[2:] if row.endswith("|  |")]
    assert untold == []


def test_the_page_of_the_course_has_the_tables_of_its_lessons():
    """Otherwise: python -m minidense.lessons.build"""
    page = (folder() / "README.md").read_text(encoding="utf-8")
    assert page == build.page()
    for each in LESSONS:
        assert (
            f"| {each.number:02} | [{each.title}](notebooks/en/{each.name}.ipynb) | {command.minutes(each)} |" in page
        )


# -- exercises --------------------------------------------------------------------------------------------------------


@every_lesson
def test_every_check_passes_the_solution_and_nothing_else(each):
    """python tests/lesson_mutants.py prints the table of the whole course."""
    found = tried(each)
    print("\n" + table(found))
    assert [one for one in found if not one.as_it_should_be] == []
    for exercise in exercises_of(cells_of(each)):
        wrong = [one for one in found if one.exercise == exercise and one.answer not in ("solution", "stub", "nothing")]
        assert len(wrong) >= FEWEST
        assert len({one.answer for one in wrong}) == len(wrong), "two mutants with the same words"


@every_lesson
def test_exercises_are_told_apart_by_name(each):
    names = [checker.name_of(code) for code in checker.checks_of(each).values()]
    assert len(set(names)) == len(names) == len(exercises_of(cells_of(each)))


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (NotImplementedError("later"), "open", "not solved yet"),
        (5, "wrong", "two doubled is four"),
        (KeyError("x"), "wrong", "stopped with KeyError: 'x' (line"),
        (4, "solved", "solved"),
    ],
    ids=["open", "wrong", "error", "solved"],
)
def test_a_check_tells_open_wrong_and_solved(answer, state, says, capsys):
    def doubled():
        if isinstance(answer, Exception):
            raise answer
        assert answer == 4, "two doubled is four"

    assert check(doubled) is doubled
    verdict = exercises.VERDICTS["doubled"]
    assert verdict.state == state
    assert verdict.says.startswith(says)
    assert capsys.readouterr().out == f"{exercises.SIGNS[state]} doubled: {verdict.says}\n"
    assert json.loads(exercises.as_lines().splitlines()[-1]) == {
        "name": "doubled",
        "state": state,
        "says": verdict.says,
    }


def test_an_error_names_the_learners_own_line(capsys):
    """Not that of the library in which it was raised."""

    def times():
        return Tensor(numpy.ones((2, 3))) @ Tensor(numpy.ones((2, 3)))

    @check
    def product():
        times()

    assert exercises.VERDICTS["product"].says.endswith("of times)")


# -- claims -----------------------------------------------------------------------------------------------------------


def test_a_claim_is_printed_with_its_band(capsys):
    claim("a ratio", 4.0e-6, 1e-6, 1e-5, seen=(2e-6, 6e-6))
    claim("parameters", 769_162, 769_162, 769_162)
    assert capsys.readouterr().out.splitlines() == [
        "✓ a ratio: 4e-06 (claimed: 1e-06 to 1e-05; five seeds gave 2e-06 to 6e-06)",
        "✓ parameters: 769,162 (exactly)",
    ]


@pytest.mark.parametrize("value", [0.9e-6, 1.1e-5, float("nan"), float("inf")])
def test_a_claim_that_does_not_hold_stops_the_lesson(value):
    with pytest.raises(AssertionError, match=r"'a ratio'.*the lesson says 1e-06 to 1e-05"):
        claim("a ratio", value, 1e-6, 1e-5)


def test_an_exact_claim_that_does_not_hold_says_both_numbers():
    with pytest.raises(AssertionError, match=r"'a count': 1\.00001, but the lesson says exactly 1\."):
        claim("a count", 1.00001, 1, 1)


@pytest.mark.parametrize("band", [{"low": 2, "high": 1}, {"low": 0, "high": 1, "seen": (0.5, 1.5)}])
def test_a_band_must_hold_what_was_seen(band):
    with pytest.raises(ConfigError, match="must hold what was seen"):
        claim("x", 1, band.pop("low"), band.pop("high"), **band)


def test_claims_are_noted_in_a_file_on_request(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(claims.ENVIRONMENT_FILE, str(tmp_path / "file"))
    claim("x", 1.5, 1, 2)
    with pytest.raises(AssertionError):
        claim("y", float("inf"), 1, 2)
    first, second = map(json.loads, (tmp_path / "file").read_text(encoding="utf-8").splitlines())
    assert (first["what"], first["value"], first["seed"]) == ("x", 1.5, claims.SEED)
    assert second["value"] == "inf"


def test_a_wrong_seed_stops_lessons_and_no_other_command():
    wrong = {**os.environ, claims.ENVIRONMENT_SEED: "x"}
    help_ = subprocess.run([sys.executable, "-m", "minidense", "--help"], env=wrong, capture_output=True, text=True)
    assert help_.returncode == 0, help_.stderr
    asked = [sys.executable, "-c", "from minidense.lessons import SEED"]
    lesson_ = subprocess.run(asked, env=wrong, capture_output=True, text=True)
    assert "MINIDENSE_LESSON_SEED must be a whole number" in lesson_.stderr


def test_the_seed_is_a_whole_number():
    assert claims.seed_of({}) == 0
    assert claims.seed_of({claims.ENVIRONMENT_SEED: "7"}) == 7
    with pytest.raises(ConfigError, match="MINIDENSE_LESSON_SEED must be a whole number"):
        claims.seed_of({claims.ENVIRONMENT_SEED: "-1"})


# -- the builder ------------------------------------------------------------------------------------------------------

EXERCISE = """\
# %% [markdown] id="x1"
# Exercise
# %% id="x1-stub"
def f(): raise NotImplementedError
# %% [markdown] id="x1-hint"
# Hint
# %% id="x1-solution"
def f(): return 1
# %% id="x1-check"
@check
def one(): assert f() == 1
"""
TOY = '# %% [markdown] id="why"\n# Because.\n# %% id="run"\nprint(1)\n' + EXERCISE
TOY_COURSE = """
[[topic]]
key = "t"
title = "a topic"
[[lesson]]
name = "01_toy"
title = "A toy"
difficulty = 1
needs = []
able = ["play"]
topics = ["t"]
seconds = 3
[[difference]]
number = 1
lecture = "this"
paper = "that"
"""
PAGE = "# Page\n<!-- lessons -->\n<!-- /lessons -->\n<!-- differences -->\n<!-- /differences -->\nEnd\n"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A course of one lesson in a folder of its own: returns the folder."""
    (tmp_path / "en").mkdir()
    (tmp_path / "ko").mkdir()
    (tmp_path / "course.toml").write_text(TOY_COURSE)
    (tmp_path / "en" / "01_toy.py").write_text(TOY)
    (tmp_path / "README.md").write_text(PAGE)
    for module in (courses, build):
        monkeypatch.setattr(module, "folder", lambda: tmp_path)
    cached = (course, topics, courses.differences)
    for function in cached:
        function.cache_clear()
    yield tmp_path
    for function in cached:
        function.cache_clear()


def test_a_notebook_is_built_once_and_again_only_when_its_source_changes(toy, capsys):
    assert build.main(["--check"]) == 1
    assert not (toy / "notebooks").exists()
    assert build.main([]) == 0
    path = toy / "notebooks" / "en" / "01_toy.ipynb"
    made = nbformat.read(path, as_version=4)
    names = ["front", "why", "run", "x1", "x1-stub", "x1-hint", "x1-solution", "x1-check"]
    assert [cell.id for cell in made.cells] == names
    assert [cell.id for cell in made.cells if cell.cell_type == "code"] == ["run", "x1-stub", "x1-check"]
    assert made.cells[0].source.startswith("# 01 · A toy\n\n**Time** about 5 minutes, of which 3 s computing")
    assert "<summary>Solution</summary>\n\n```python\ndef f(): return 1\n```" in made.cells[6].source
    before = path.stat().st_mtime_ns
    assert build.main([]) == 0
    assert path.stat().st_mtime_ns == before
    assert build.main(["--check"]) == 0
    page = (toy / "README.md").read_text()
    assert "| 01 | [A toy](notebooks/en/01_toy.ipynb) | 5 | ● | – | a topic |" in page
    assert "| 1 | this | that |  |" in page
    assert page.startswith("# Page\n<!-- lessons -->\n| |")
    assert page.endswith("<!-- /differences -->\nEnd\n")
    (toy / "en" / "01_toy.py").write_text(TOY.replace("Because.", "Because!"))
    assert build.main(["--check"]) == 1
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# %%\nx = 1\n", "cell 1 needs a name"),
        ('# %% id="Upper"\nx = 1\n', "cell 1 needs a name"),
        ('# %% id="a"\nx = 1\n# %% id="a"\nx = 2\n', "two cells are called 'a'"),
        (
            EXERCISE.replace('id="x1-check"', 'id="other"'),
            "exercise x1 needs the cells x1, x1-stub, x1-hint, x1-solution, x1-check",
        ),
    ],
)
def test_a_source_that_is_not_in_order_is_refused(tmp_path, text, says):
    path = tmp_path / "01_toy.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)):
        read_source(path)


def test_another_language_has_the_same_code_and_its_own_prose(toy):
    why = fingerprint("Because.")
    (toy / "ko" / "01_toy.md").write_text(
        f'<!-- cell id="why" english="{why}" -->\n왜냐하면.\n\n둘째 문단.\n<!-- cell id="x1" english="00000000" -->\n연습\n'
    )
    english = nbformat.reads(build.built(lesson("1")), as_version=4).cells
    korean = nbformat.reads(build.built(lesson("1"), "ko"), as_version=4).cells
    assert [cell.id for cell in korean] == [cell.id for cell in english]
    for mine, theirs in zip(korean, english, strict=True):
        if theirs.cell_type == "code":
            assert mine.source == theirs.source
    by_name = {cell.id: cell.source for cell in korean}
    assert by_name["why"] == "왜냐하면.\n\n둘째 문단."
    assert by_name["x1"].startswith(
        "> ⚠ 영어 원문이 바뀌어"
    )  # the English that was translated is not the English of today
    assert by_name["x1"].endswith("연습")
    assert by_name["x1-hint"].startswith("> ⚠ 아직 번역되지 않았습니다")
    assert "<summary>풀이</summary>" in by_name["x1-solution"]


def test_a_page_without_its_marks_is_refused(toy):
    (toy / "README.md").write_text("# Page\n")
    with pytest.raises(ConfigError, match="needs <!-- lessons -->"):
        build.build(only_check=True)


def test_a_translation_falls_behind_when_the_english_changes(toy):
    (toy / "ko" / "01_toy.md").write_text(f'<!-- cell id="why" english="{fingerprint("Because.")}" -->\n왜냐하면.\n')
    (toy / "en" / "01_toy.py").write_text(TOY.replace("Because.", "Because we care."))
    why = next(cell for cell in nbformat.reads(build.built(lesson("1"), "ko"), as_version=4).cells if cell.id == "why")
    assert why.source == f"{build.WORDS['ko']['stale']}\n\n왜냐하면."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("text\n", "must begin with"),
        ('<!-- cell id="why" english="00000000" -->\na\n<!-- cell id="why" english="00000000" -->\nb\n', "comes twice"),
        ('<!-- cell id="why-not" english="00000000" -->\na\n', "no cells of prose called why-not"),
    ],
)
def test_a_translation_that_fits_no_lesson_is_refused(toy, text, says):
    (toy / "ko" / "01_toy.md").write_text(text)
    with pytest.raises(ConfigError, match=says):
        build.built(lesson("1"), "ko")


# -- the command ------------------------------------------------------------------------------------------------------


def test_list_shows_every_lesson(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["start", "4"]) == 0
    capsys.readouterr()
    assert command.main(["list"]) == 0
    said = capsys.readouterr().out
    for each in LESSONS:
        assert f"{each.number:2}  {each.title}" in said
    assert said.count("started here") == 1


def test_start_copies_a_notebook_and_never_writes_over_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["start", "04"]) == 0
    mine = tmp_path / "04_vanishing_gradient.ipynb"
    assert mine.read_bytes() == courses.notebook(lesson("4")).read_bytes()
    assert "jupyter lab 04_vanishing_gradient.ipynb" in capsys.readouterr().out
    assert command.main(["start", "4"]) == 0  # as it was given out: nothing to lose
    assert "already" in capsys.readouterr().out
    mine.write_text("my work")
    assert command.main(["start", "4"]) == 2
    said = capsys.readouterr().err
    assert "nothing was written" in said
    assert said.count("\n") == 1
    assert mine.read_text() == "my work"
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    (tmp_path / "other").mkdir()
    assert command.main(["start", "4", "--to", "other"]) == 0
    assert (tmp_path / "other" / mine.name).exists()
    assert "minidense lessons check 4 other/04_vanishing_gradient.ipynb" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["start", "17"], "no lesson '17'; they are numbered 1 to 16"),
        (["start", "one"], "no lesson 'one'"),
        (["start", "1", "--to", "nowhere"], "no such folder"),
        (["start", "1", "--language", "fr"], "not there in 'fr'; there is en"),
        (["check", "1"], "01_derivative.ipynb is not here"),
        (["check", "1", "text.ipynb"], "text.ipynb: not a notebook"),
        (
            ["check", "1", "text.ipynb", "--patience", "0"],
            "--patience must be at least 1 and at most 86,400 seconds, got 0",
        ),
        (["check", "1", "--patience", "2.5", "text.ipynb"], "needs a whole number, got '2.5'"),
        (["begin"], "invalid choice: 'begin'"),
        (["check"], "required: N"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.ipynb").write_text("no notebook")
    try:
        code = command.main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.ipynb"]


def test_without_jupyter_check_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(["start", "1"]) == 0
    monkeypatch.setitem(sys.modules, "nbformat", None)
    assert command.main(["check", "1"]) == 2
    assert 'running a notebook needs nbformat: pip install "minidense[lessons]"' in capsys.readouterr().err


# In place of lesson 01's work: only the engine and the exercises, so that a kernel has little to do.
def learners_notebook(path, *, solved=(), without=(), also=()):
    """Lesson 01 as a learner has left it, with some exercises solved, some cells deleted and others added."""
    each = lesson("1")
    code = {cell.id: cell.source for cell in cells_of(each)}
    made = nbformat.read(courses.notebook(each), as_version=4)
    for cell in made.cells:
        if cell.id.removesuffix("-stub") in solved:
            cell.source = code[f"{cell.id.removesuffix('-stub')}-solution"]
    made.cells = [cell for cell in made.cells if cell.id not in without]
    made.cells += [nbformat.v4.new_code_cell(source) for source in also]
    nbformat.write(made, path)
    return path


@pytest.mark.parametrize(
    ("notebook", "code", "says"),
    [
        (
            {},
            1,
            "0 of 3 exercises solved. Look at: sigmoid_of_a_number, walk_through_every_number_once, downhill_to_a_minimum",
        ),
        ({"solved": ("x1", "x3")}, 1, "2 of 3 exercises solved. Look at: walk_through_every_number_once"),
        ({"solved": ("x1", "x2", "x3")}, 0, "3 of 3 exercises solved: well done"),
        # The learner's checks may be gone, or be others: the course's own are asked.
        ({"solved": ("x1", "x2"), "without": ("x3-check",)}, 1, "Look at: downhill_to_a_minimum"),
        ({"also": ["def check(f): return f", "sigmoid = walk = downhill = None"]}, 1, "0 of 3 exercises solved"),
        ({"solved": ("x1", "x2", "x3"), "without": ("imports",)}, 1, "NameError"),
        ({"solved": ("x1", "x2", "x3"), "also": ["def sigmoid(x:"]}, 0, "stopped with SyntaxError"),
        ({"also": ["import os; os._exit(1)"]}, 1, "killed its kernel"),
    ],
    ids=[
        "untouched",
        "two",
        "all",
        "check deleted",
        "check replaced",
        "imports deleted",
        "syntax error",
        "dead kernel",
    ],
)
def test_check_looks_at_the_learners_own_file(notebook, code, says, tmp_path, capsys):
    path = learners_notebook(tmp_path / "mine.ipynb", **notebook)
    before = path.read_bytes()
    assert command.main(["check", "1", str(path)]) == code
    assert says in capsys.readouterr().out
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mine.ipynb"]


def test_an_empty_notebook_solves_nothing(tmp_path, capsys):
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "mine.ipynb")
    assert command.main(["check", "1", str(tmp_path / "mine.ipynb")]) == 1
    said = capsys.readouterr().out
    assert "0 of 3 exercises solved" in said
    assert said.count("NameError") == 3


def test_a_cell_that_never_ends_is_given_up_and_the_rest_is_looked_at(tmp_path, capsys):
    path = learners_notebook(tmp_path / "mine.ipynb", solved=("x1", "x2", "x3"), also=["while True: pass", "1 / 0"])
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert command.main(["check", "1", str(path), "--patience", "20"]) == 0
    said = capsys.readouterr().out
    assert f"! cell {len(cells) - 1} was stopped after 20 s" in said
    assert f"! cell {len(cells)} stopped with ZeroDivisionError" in said
    assert "3 of 3 exercises solved" in said


def test_a_notebook_runs_in_this_python(tmp_path, capsys):
    path = learners_notebook(tmp_path / "mine.ipynb", also=[f"import sys; assert sys.executable == {sys.executable!r}"])
    command.main(["check", "1", str(path)])
    assert "AssertionError" not in capsys.readouterr().out
