"""The house's own rules: sizes, names, docstrings, errors, limits; each refusal says its reason."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("flightsw", "boards", "ground", "hil")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MODULE_LINES_MAX = 500  # what is longer has more than one subject
FUNCTION_LINES_MAX = 80  # a screen
CODE_IN_INIT = ("boards/profiles/__init__.py", "boards/support/trees/__init__.py", "flightsw/dictionary/__init__.py")
"""The loader lies with its TOML files; nothing below it needs to be imported without it."""

STANDARD_NAMES = ("hil/sim/trace.py",)
"""The field's word wins: a run has a trace, and a module of a package hides none at the top level."""

BROAD_HANDLERS = ("hil/bench/soak.py", "hil/powercut/outcomes.py", "hil/sim/loop.py")
"""A soak counts a crash as an outcome, and power cuts an error of a store; the loop keeps a callback's error and ends
the run with it."""

LIMIT_NAME = re.compile(r"_(MAX|MIN)$")


def name(path):
    return path.relative_to(ROOT).as_posix()


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


each_module = pytest.mark.parametrize("path", MODULES, ids=name)


def test_the_rules_look_at_the_whole_house():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)
    assert len(MODULES) > 60
    assert len(TESTS) > 20


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=name)
def test_a_module_is_not_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES_MAX


@each_module
def test_a_function_fits_a_screen(path):
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


@each_module
def test_a_module_is_not_named_like_one_of_the_standard_library(path):
    assert path.stem not in sys.stdlib_module_names or name(path) in STANDARD_NAMES


@each_module
def test_a_module_says_what_it_is_for(path):
    assert (ast.get_docstring(tree(path)) or "").strip()


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name == "__init__.py" and name(path) not in CODE_IN_INIT], ids=name
)
def test_importing_a_package_runs_no_code(path):
    statements = tree(path).body
    assert len(statements) == 1, "a docstring only: import flightsw.wire must load no flight code"


@each_module
def test_nothing_is_left_to_do(path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"\b(?:TODO|FIXME|XXX|HACK|NotImplementedError)\b", text) == []


@each_module
def test_an_error_is_dropped_only_with_the_reason_beside_it(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    dropped = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler) and all(_does_nothing(statement) for statement in node.body):
            dropped.append((node.lineno, node.end_lineno))
        elif isinstance(node, ast.With) and any("suppress(" in ast.unparse(item) for item in node.items):
            dropped.append((node.lineno, node.lineno))
    silent = [first for first, last in dropped if not any("#" in line for line in lines[first - 1 : last])]
    assert silent == [], "lines where an error is dropped in silence"


def _does_nothing(statement):
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


@each_module
def test_no_handler_takes_every_error_and_goes_on(path):
    broad = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]
    assert broad == [] or name(path) in BROAD_HANDLERS, "errors of ours must not be caught with those of the world"


@each_module
def test_a_limit_says_its_reason(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    body = tree(path).body
    unexplained = []
    for index, node in enumerate(body):
        if not isinstance(node, ast.AnnAssign) or not LIMIT_NAME.search(ast.unparse(node.target)):
            continue
        comment = any("#" in line for line in lines[node.lineno - 2 : node.end_lineno])
        # limits that belong together are explained by one text after the last of them
        following = next((other for other in body[index + 1 :] if not isinstance(other, ast.AnnAssign)), None)
        text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if not comment and not text:
            unexplained.append(ast.unparse(node.target))
    assert unexplained == []


def test_test_folders_are_no_packages():
    assert [name(path) for path in TESTS if path.name == "__init__.py"] == []


def test_test_files_have_names_of_their_own():
    stems = [path.stem for path in TESTS if path.stem != "conftest"]
    assert sorted(stems) == sorted(set(stems))


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_test_modules_import_no_test_modules(path):
    own = {other.stem for other in TESTS} | {"tests"}
    imported = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            imported.append("." if node.level else (node.module or ""))
        elif isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
    assert [module for module in imported if module.split(".")[0] in own or module == "."] == []
