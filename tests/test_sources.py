"""What holds for every source file of the package: sizes, and that every public name says what it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "ssepool"
TREES = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}

MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 45
"""Without the docstring."""

Function = ast.FunctionDef | ast.AsyncFunctionDef

CLASSES: dict[str, list[ast.ClassDef]] = {}
for _tree in TREES.values():
    for _node in ast.walk(_tree):
        if isinstance(_node, ast.ClassDef):
            CLASSES.setdefault(_node.name, []).append(_node)

DESCRIBED = {
    ast.unparse(node.targets[0])
    for tree in TREES.values()
    for node in tree.body
    if isinstance(node, ast.Assign) and "description=" in ast.unparse(node.value)
}
"""Types that say for each of their fields what it is."""


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def base_names(cls: ast.ClassDef) -> list[str]:
    return [ast.unparse(base).split("[")[0].split(".")[-1] for base in cls.bases]


def bases(cls: ast.ClassDef) -> Iterator[ast.ClassDef]:
    """All classes of ours that a class is derived from."""
    for name in base_names(cls):
        for base in CLASSES.get(name, ()):
            if base is not cls:
                yield base
                yield from bases(base)


def is_docstring(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def has_words(node: ast.Assign | ast.AnnAssign) -> bool:
    """Whether what is assigned says in itself what it is: help, or a description for a schema."""
    text = ast.unparse(node)
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) in DESCRIBED:
        return True
    return any(words in text for words in ("setting(", "_option(", "'help':", "description="))


def lines_of(function: Function) -> int:
    first = function.body[0]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if is_docstring(first) else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def silent(path: Path) -> Iterator[str]:
    """The public names of a file that do not say what they are."""
    yield from _silent(TREES[path].body, "", None)


def _silent(body: list[ast.stmt], owner: str, cls: ast.ClassDef | None) -> Iterator[str]:
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, Function):
            if node.name == "__init__" and cls is not None:
                yield from _silent_attributes(node.body, owner, cls)
            elif not node.name.startswith("_") and not ast.get_docstring(node) and not _inherits(cls, node.name):
                yield f"{owner}{node.name}()"
        elif isinstance(node, ast.ClassDef):
            if not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    yield node.name
                yield from _silent(node.body, f"{node.name}.", node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not is_docstring(following) and not has_words(node):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and _is_to_be_told(target.id, node, cls):
                    yield f"{owner}{target.id}"


def _silent_attributes(body: list[ast.stmt], owner: str, cls: ast.ClassDef) -> Iterator[str]:
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or is_docstring(following):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if not isinstance(target, ast.Attribute) or ast.unparse(target.value) != "self":
                continue
            if not target.attr.startswith("_") and not _inherits(cls, target.attr):
                yield f"{owner}{target.attr}"


def _is_to_be_told(name: str, node: ast.Assign | ast.AnnAssign, cls: ast.ClassDef | None) -> bool:
    if name.startswith("_") or name == "logger":
        return False
    if cls is not None and (_inherits(cls, name) or any("Enum" in base for base in base_names(cls))):
        return False
    return not (isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in ("TypeVar", "ParamSpec"))


def _inherits(cls: ast.ClassDef | None, name: str) -> bool:
    """Whether a base of the class says what this is: one of ours, or any that is not ours."""
    if cls is None:
        return False
    found = list(bases(cls))
    foreign = {"ABC", "Protocol", "Struct", "NamedTuple", "TypedDict", "Generic", "Exception", "Enum", "StrEnum"}
    for base in [cls, *found]:
        if any(other not in CLASSES and other not in foreign for other in base_names(base)):
            return True
    return any(
        f".{name}" not in "".join(f".{text}" for text in _silent(base.body, "", base)) and _has(base, name)
        for base in found
    )


def _has(cls: ast.ClassDef, name: str) -> bool:
    for node in ast.walk(cls):
        if isinstance(node, Function) and node.name == name:
            return True
        if isinstance(node, ast.Name | ast.Attribute) and name == (
            node.id if isinstance(node, ast.Name) else node.attr
        ):
            return True
    return False


@pytest.mark.parametrize("path", TREES, ids=name_of)
def test_every_public_name_says_what_it_is(path: Path) -> None:
    assert list(silent(path)) == []


@pytest.mark.parametrize("path", TREES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_FILE_LINES
    functions = [node for node in ast.walk(TREES[path]) if isinstance(node, Function)]
    assert {node.name: lines_of(node) for node in functions if lines_of(node) > MAX_FUNCTION_LINES} == {}


def test_the_median_function_is_short() -> None:
    lengths = sorted(lines_of(node) for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, Function))
    assert 4 <= lengths[len(lengths) // 2] <= 8


ALONE = [path for path in TREES if path.relative_to(PACKAGE).parts[0] in ("runtime", "server") and path.stem[0] != "_"]
TESTS = Path(__file__).parent


@pytest.mark.parametrize("path", ALONE, ids=name_of)
def test_each_part_has_a_test_of_its_own_that_needs_no_hub(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    text = (TESTS / relative.with_name(f"test_{relative.name}")).read_text("utf-8")
    assert relative.parts[0] == "server" or not re.search(r"import .*\bHub\b|from live import|subprocess", text)
