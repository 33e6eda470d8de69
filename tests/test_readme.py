"""What the README promises: its examples run and print what it says, and CI runs its test command."""

import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_examples_run_and_print_what_the_readme_shows():
    printed = []
    for code in blocks("python"):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, {})
        printed.append(out.getvalue())
    assert printed[0] == blocks("text")[0]
    assert float(re.search(r"loss ([\d.]+)", printed[1])[1]) < 1  # it learns: a guess would be ln 10 = 2.3


def test_the_readmes_two_commands_are_one_line_each():
    quickstart, tests, *_ = blocks("bash")
    assert quickstart == "pip install . && python -m minidense.train --preset quickstart\n"
    assert tests == 'pip install -e ".[test]" && pytest\n'


def test_ci_takes_its_test_command_out_of_the_readme():
    """scripts/check reads the command from the section "Tests"; were it copied there, the two could drift apart."""
    script = (ROOT / "scripts" / "check").read_text()
    assert "README.md" in script
    assert blocks("bash")[1].strip() not in script
    assert "scripts/check" in (ROOT / ".ci" / "run").read_text()
    section = README.split("## Tests")[1].split("\n## ")[0]
    assert blocks("bash")[1] in section


def test_every_file_the_readme_links_to_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
