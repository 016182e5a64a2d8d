"""Who may import whom (docs/design): the table below is the rule, the tests hold the code against it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "ssepool"
BESIDE = ("benchmarks", "services", "simulation")
"""Packages of the checkout that are not installed."""

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    # A module or a package, and what of ours it may import. A package stands for all in it that has no line of its
    # own, `package.*` for all in it but not for itself. What shares a line may import each other. Imports inside
    # functions and for types alone count too.
    "errors": (),
    "urls": (),
    "clock": (),  # what all hubs of a process go by
    "topic_rules": ("errors",),  # as settings say them
    "config": ("topic_rules", "urls", "errors"),
    "core": ("config", "topic_rules", "urls", "errors"),
    "brokers.base": ("brokers.record", "core", "config", "urls", "errors"),
    "brokers.record": ("core", "config", "urls", "errors"),  # an event as brokers store it
    "brokers.backstop": ("brokers.base", "config"),  # of publishers, and what hubs tell them
    "brokers.group": ("brokers.base", "brokers.record", "core", "config", "urls", "errors"),
    "brokers": ("brokers.base", "config", "urls", "errors"),  # finds the one that a URL names
    # Nobody imports these by name, and none another one.
    **dict.fromkeys(
        ("brokers.memory", "brokers.sqlite", "brokers.redis", "brokers.nats", "brokers.postgres"),
        ("brokers.base", "brokers.record", "core", "clock", "config", "urls", "errors"),
    ),
    # From here on downwards: who stands above whom. `runtime` itself has no code.
    "runtime": (),
    "runtime.tasks": (),
    "runtime.files": (),
    "runtime.hooks": ("runtime.tasks",),
    "runtime.departed": ("errors",),
    "runtime.threads": ("runtime.tasks", "core", "errors"),
    "runtime.background": ("runtime.tasks",),
    "runtime.cuttable": (),
    "runtime.serving": (),  # finds the server by itself
    "runtime.siblings": (),
    "runtime.signals": (),
    "runtime.handover": (),  # all that a server adapter has to know
    "runtime.wire": (),
    "runtime.head": ("runtime.wire",),
    "runtime.exchange": ("runtime.handover", "runtime.wire"),
    "runtime.proxies": ("runtime.handover", "core"),
    "runtime.entrance": ("runtime.files", "runtime.proxies", "core", "config", "urls"),
    "runtime.streams": (
        *("runtime.handover", "runtime.tasks"),
        *("brokers.backstop", "brokers.base", "brokers.group", "brokers.record"),
        *("core", "clock", "config", "urls", "errors"),
    ),
    "runtime.connections": ("runtime.streams", "runtime.departed", "runtime.hooks", "core", "clock", "errors"),
    "runtime.engine": (
        *("runtime.connections", "runtime.streams", "runtime.files", "runtime.handover", "runtime.hooks"),
        "runtime.tasks",
        *("brokers", "brokers.base", "core", "clock", "config", "urls", "errors"),
    ),
    "runtime.reaper": ("runtime.streams", "core"),
    "runtime.runs": ("runtime.cuttable", "runtime.engine", "runtime.streams", "core", "errors"),
    "runtime.admission": (
        *("runtime.background", "runtime.engine", "runtime.connections", "runtime.streams", "runtime.handover"),
        *("core", "config", "urls", "errors"),
    ),
    "runtime.cluster": (
        *("runtime.engine", "runtime.connections", "runtime.streams", "runtime.tasks"),
        *("brokers.base", "core", "clock", "config", "urls", "errors"),
    ),
    "http.access": ("runtime.handover", "core", "config", "urls", "errors"),  # who may do what
    "http": (
        *("http.access", "runtime.admission", "runtime.cluster", "runtime.engine", "runtime.handover"),
        *("core", "config", "urls", "errors"),
    ),
    "parts": (  # puts everything together
        *("http", "http.access", "runtime.cluster", "runtime.engine", "runtime.runs"),
        *("core", "clock", "config", "topic_rules", "urls", "errors"),
    ),
    "publishing": ("runtime.engine", "runtime.threads", "core"),
    "hub": (
        *("parts", "http", "http.access", "runtime.admission", "runtime.cluster", "runtime.connections"),
        *("runtime.reaper", "runtime.serving", "runtime.siblings", "runtime.signals"),
        *("publishing", "runtime.threads"),
        *("core", "clock", "config", "urls", "errors"),
    ),
    "uvicorn": (
        *("runtime.entrance", "runtime.exchange", "runtime.handover", "runtime.head", "runtime.proxies"),
        *("runtime.wire", "core", "config"),
    ),
    "gunicorn": ("uvicorn",),
    "server": (
        *("hub", "http", "http.access", "uvicorn"),
        *("runtime.admission", "runtime.cluster", "runtime.entrance", "runtime.files"),
        *("runtime.handover", "runtime.head", "runtime.proxies", "runtime.streams", "runtime.tasks", "runtime.wire"),
        *("core", "clock", "config", "urls", "errors"),
    ),
    "publisher": ("brokers", "brokers.backstop", "brokers.base", "brokers.group", "core", "config", "urls", "errors"),
    "django": ("hub", "publisher", "runtime.admission", "core", "config", "errors"),
    "client": ("core", "config", "urls", "errors"),
    "bench": ("core", "config", "urls", "errors"),
    "cli": (
        "topic_rules",
        "server",
        "hub",
        "parts",
        "http.access",
        "client",
        "bench",
        "core",
        "config",
        "urls",
        "errors",
    ),
    "__main__": ("cli",),
    "__init__": (
        "hub",
        "http.access",
        "publisher",
        "runtime.connections",
        "runtime.departed",
        "client",
        "core",
        "config",
        "urls",
        "errors",
    ),
    "testing": ("__init__", "hub", "client", "core", "clock", "config", "urls", "errors"),
    "web": (),
}

NOT_IN_CORE = {
    # The core is given the time, random numbers and bytes: it has no clock, socket, task or thread of its own.
    *("asyncio", "anyio", "concurrent", "multiprocessing", "signal", "subprocess", "threading"),
    *("datetime", "sched", "time"),
    *("os", "random", "secrets", "uuid"),
    *("io", "select", "selectors", "socket", "ssl"),
}
CORE_LIBRARIES = {"msgspec", "urlpattern"}


class Import(NamedTuple):
    """One import statement (or `import_module` with a literal name) in one of our modules."""

    source: str
    line: int
    target: str
    for_types: bool

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """All modules of a package by their full name."""
    return {_module_name(path, package): path for path in sorted(package.rglob("*.py"))}


def _module_name(path: Path, package: Path) -> str:
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(name: str, text: str, *, package: bool = False, known: frozenset[str] = frozenset()) -> Iterator[Import]:
    """All imports of the module `name`. `known` tells modules from the names inside them."""
    tree = ast.parse(text)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        for target in _targets(node, name if package else name.rpartition(".")[0], known):
            yield Import(name, node.lineno, target, id(node) in for_types)  # type: ignore[attr-defined]


def _targets(node: ast.AST, package: str, known: frozenset[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            yield inner if inner in known else base
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        yield from (str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant))


def layer(module: str) -> str:
    """The line of the table that a module of ours falls under."""
    parts = module.split(".")[1:] or ["__init__"]
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    lines = [names[0], *(line for name in names[1:] for line in (f"{name}.*", name))]
    return next((line for line in lines if line in MAY_IMPORT), names[0])


def is_ours(module: str) -> bool:
    return module.split(".")[0] == "ssepool"


def violations(found: list[Import]) -> list[str]:
    """What the table forbids among these imports."""
    unknown = sorted({item.source for item in found if layer(item.source) not in MAY_IMPORT})
    wrong = [f"{module} has no line in MAY_IMPORT: say what it may import" for module in unknown]
    for item in found:
        source, target = layer(item.source), layer(item.target)
        if is_ours(item.target) and target != source and target not in MAY_IMPORT.get(source, (target,)):
            wrong.append(f"{item}, which is not below it")
        if source == "core" and not _is_fit_for_core(item.target):
            wrong.append(f"{item}, which the core has no use for")
    return wrong


def _is_fit_for_core(target: str) -> bool:
    root = target.split(".")[0]
    allowed = CORE_LIBRARIES | (sys.stdlib_module_names - NOT_IN_CORE)
    return is_ours(target) or root in allowed


def cycle(found: list[Import]) -> list[str]:
    """A circle of modules that import each other, when they run or for types alone; or nothing."""
    graph: dict[str, set[str]] = {}
    for item in found:
        if is_ours(item.target) and item.target != item.source:
            graph.setdefault(item.source, set()).add(item.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def circle(sources: dict[str, str], packages: frozenset[str] = frozenset()) -> list[str]:
    """A circle of modules that name each other, for types and in functions too, or nothing. Takes their texts."""
    known = frozenset(sources)
    graph = {
        name: {item.target for item in imports(name, text, package=name in packages, known=known)} & known - {name}
        for name, text in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def found() -> list[Import]:
    """All imports of the package."""
    known = frozenset(modules())
    return [
        item
        for name, path in modules().items()
        for item in imports(name, path.read_text("utf-8"), package=path.name == "__init__.py", known=known)
    ]


def test_modules_import_only_what_is_below_them(found: list[Import]) -> None:
    assert violations(found) == []


def test_modules_do_not_import_each_other_in_a_circle(found: list[Import]) -> None:
    assert cycle(found) == []


@pytest.mark.parametrize("folder", BESIDE)
def test_modules_beside_the_package_do_not_name_each_other_in_a_circle(folder: str) -> None:
    paths = modules(ROOT / folder)
    assert paths, f"there is no package {folder}"
    packages = frozenset(name for name, path in paths.items() if path.name == "__init__.py")
    assert circle({name: path.read_text("utf-8") for name, path in paths.items()}, packages) == []


def test_the_table_names_only_layers_that_have_a_line() -> None:
    assert {layer for layers in MAY_IMPORT.values() for layer in layers} <= set(MAY_IMPORT)


def test_every_module_says_what_it_is_for() -> None:
    silent = [name for name, path in modules().items() if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert silent == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("ssepool.core.pool", "from ssepool.runtime.engine import Engine"),
        ("ssepool.core.pool", "from ssepool import Hub"),
        ("ssepool.core.pool", "from ..runtime import engine"),
        ("ssepool.core.pool", "import asyncio"),
        ("ssepool.core.pool", "def now():\n    from time import monotonic"),
        ("ssepool.core.pool", "import starlette.requests"),
        ("ssepool.runtime.engine", "from ssepool.hub import Hub"),
        ("ssepool.runtime.engine", "from ssepool.runtime import runs"),
        ("ssepool.runtime.engine", "import ssepool.brokers.memory"),
        ("ssepool.runtime.engine", "from ssepool.brokers import memory"),
        ("ssepool.runtime.engine", "import importlib\nimportlib.import_module('ssepool.brokers.redis')"),
        ("ssepool.runtime.engine", "import ssepool.brokers.nats.broker"),
        ("ssepool.brokers.nats.broker", "from ssepool.brokers.sqlite.history import History"),
        ("ssepool.runtime.engine", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ssepool.cli"),
        ("ssepool.runtime.streams.link", "from ssepool.runtime.connections import Connection"),
        ("ssepool.uvicorn", "from ssepool.runtime.engine import Engine"),
        ("ssepool.http.app", "from ssepool.testing import Client"),
        ("ssepool.config", "from ssepool.core.topics import Pattern"),
        ("ssepool.novelty", "import ssepool.errors"),
    ],
)
def test_a_forbidden_import_is_found(module: str, text: str) -> None:
    known = frozenset({*modules(), "ssepool.runtime.runs", "ssepool.brokers.memory"})
    assert len(violations(list(imports(module, text, known=known)))) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("ssepool.core.pool", "import heapq\nimport msgspec\nfrom ssepool.core.slot import Slot"),
        ("ssepool.core.pool", "from .slot import Slot\nfrom ..errors import PoolFull"),
        ("ssepool.brokers.redis.broker", "from ssepool.brokers.base import Broker\nimport redis"),
        ("ssepool.brokers.redis.broker", "from ssepool.brokers.redis import scripts"),
        ("ssepool.runtime.engine", "from ssepool.brokers.base import Broker\nfrom ssepool.core.pool import Pool"),
        ("ssepool.runtime.engine", "from ssepool.brokers import connect"),
        ("ssepool.cli", "def serve():\n    from ssepool.server.server import Server"),
        ("ssepool.testing", "from ssepool import Hub"),
    ],
)
def test_an_import_from_below_is_not_forbidden(module: str, text: str) -> None:
    assert violations(list(imports(module, text))) == []


def test_a_circle_through_a_function_is_found() -> None:
    there = imports("ssepool.core.a", "import ssepool.core.b")
    back = imports("ssepool.core.b", "def late():\n    import ssepool.core.a")
    assert set(cycle([*there, *back])) == {"ssepool.core.a", "ssepool.core.b"}


def test_a_circle_for_types_alone_is_found() -> None:
    there = imports("ssepool.core.a", "import ssepool.core.b")
    back = imports("ssepool.core.b", "if TYPE_CHECKING:\n    import ssepool.core.a")
    assert set(cycle([*there, *back])) == {"ssepool.core.a", "ssepool.core.b"}


@pytest.mark.parametrize("back", ["if TYPE_CHECKING:\n    import tools.a", "def late():\n    from tools import a"])
def test_beside_the_package_a_circle_for_types_or_in_a_function_is_one(back: str) -> None:
    assert set(circle({"tools.a": "import tools.b", "tools.b": back})) == {"tools.a", "tools.b"}
