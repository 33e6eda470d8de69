"""The structure holds: imports run down the floors, CuPy has one door, and nothing runs what it reads."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "minidense"

# A module may import from its own floor and those below. Names are the first part of the path inside the package.
FLOORS = {
    "errors": 0,
    "memory": 0,
    "version": 0,
    "backend": 0,
    "cupy_trouble": 0,
    "gpus": 0,
    "pickle_machine": 0,
    "precision": 0,
    "threads": 0,
    "ops": 1,
    "tensor": 2,
    "functional": 3,
    "speed": 3,
    "testing": 3,
    "nn": 4,
    "optim": 4,
    "schedule": 4,
    "models": 5,
    "data": 5,
    "pictures": 5,
    "step": 5,
    "summary": 5,
    "summary_table": 5,
    "torch_files": 5,
    "bench": 6,
    "checkpoint": 6,
    "config": 6,
    "doctor": 6,
    "experiments": 6,
    "fast": 6,
    "fitting": 6,
    "interrupt": 6,
    "lessons": 6,
    "models_command": 6,
    "recipes": 6,
    "command": 6,
    "plots": 6,
    "predict": 6,
    "report": 6,
    "run_folder": 6,
    "summary_command": 6,
    "train": 6,
    "weights": 6,
    "__init__": 7,
    "__main__": 7,
    "cli": 7,
}
# may be imported inside functions, and only there
OPTIONAL = {"PIL", "cupy", "jupyter_client", "jupytext", "matplotlib", "nbclient", "nbformat", "scipy", "torch"}

FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    """The name under which FLOORS knows a file."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path, tree=None):
    """(node, absolute module name) of every import statement in a file, relative ones resolved."""
    package = ("minidense", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree or ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            if node.module:
                yield node, base + node.module
            else:
                yield from ((node, base + alias.name) for alias in node.names)


def is_type_checking(branch):
    """Read by type checkers only, so nobody pays for what is imported there."""
    return isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING" and not branch.orelse


def upward(source, target):
    return FLOORS[target] > FLOORS[source]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_down_the_floors(path):
    here = room(path)
    assert here in FLOORS, f"{path.name} has no floor: give it one in FLOORS"
    for _, name in imports(path):
        parts = name.split(".")
        if parts[0] == "minidense" and len(parts) > 1 and parts[1] in FLOORS:
            assert not upward(here, parts[1]), (
                f"{path.relative_to(PACKAGE)} (floor {FLOORS[here]}) imports {name} (floor {FLOORS[parts[1]]}): move the shared piece down"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_optional_libraries_are_imported_inside_functions(path):
    tree = ast.parse(path.read_text())
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    for_types = {id(n) for f in tree.body if isinstance(f, ast.If) and is_type_checking(f) for n in ast.walk(f)}
    for node, name in imports(path, tree):
        if id(node) in for_types:
            continue
        library = name.split(".")[0]
        if id(node) in inside:
            assert library in OPTIONAL, f"{path.name} imports {name} inside a function: put it at the top"
        else:
            assert library not in OPTIONAL, f"{path.name} imports {name} at the top: everybody would pay for it"


def test_the_check_sees_an_upward_import():
    assert upward("ops", "tensor")
    assert not upward("train", "data")


def test_only_the_package_itself_imports_the_twins():
    """Without fast/ everything still works."""
    for path in FILES:
        if room(path) not in ("fast", "__init__"):
            assert not any(name.startswith("minidense.fast") for _, name in imports(path)), path


def test_ops_have_not_heard_of_tensors():
    for path in (PACKAGE / "ops").glob("*.py"):
        assert not any("tensor" in name for _, name in imports(path)), path


def test_cupy_is_named_in_one_file():
    naming = {p.name for p in FILES if re.search(r"\bimport_module\(.cupy|\bmodules.*cupy|import cupy", p.read_text())}
    assert naming == {"backend.py"}


def test_what_cupy_alone_has_is_used_on_the_ground_floor():
    """cupy_trouble.py and gpus.py are handed the module by backend.py; the floors above know ``xp``, and fast/ is a wing of its own."""
    using = {
        path.name
        for path in FILES
        if room(path) != "fast"
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Name) and node.id == "cupy")
        or (isinstance(node, ast.Attribute) and node.attr == "cuda" and "torch" not in ast.unparse(node))
    }
    assert using == {"backend.py", "cupy_trouble.py", "gpus.py"}


def test_nothing_that_runs_what_it_reads():
    """No pickle, eval or exec; the one reader of pickles (pickle_machine.py) carries out instructions by hand and calls nothing."""
    for path in FILES:
        tree = ast.parse(path.read_text())
        called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert not called & {"eval", "exec", "compile", "__import__"}, path
        assert not {name.split(".")[0] for _, name in imports(path)} & {
            "pickle",
            "marshal",
            "shelve",
            "yaml",
            "dill",
        }, path


def test_public_names_are_reviewed_as_one_list():
    """A misspelt or forgotten public name shows here (DeZero shipped batch_nrom for years)."""
    import minidense as md

    assert sorted(md.functional.__dict__.keys() & {n for n in dir(md.functional) if not n.startswith("_")} & functions(md.functional)) == [
        "add", "avg_pool2d", "batch_norm", "concat", "conv2d", "cross_entropy", "div", "dropout", "exp", "getitem",
        "global_avg_pool2d", "linear", "log", "log_softmax", "log_sum_exp", "matmul", "max", "max_pool2d", "mean", "mul",
        "neg", "pad", "power", "relu", "reshape", "sigmoid", "softmax", "squared_hinge", "sub", "sum", "tanh", "transpose",
    ]  # fmt: skip


def functions(module):
    return {
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
    }
