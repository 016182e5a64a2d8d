"""Reports: each field of the structs is in the answers, in the schemas and on the command line, without another line of
code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from msgspec.inspect import DataclassType, ListType, Metadata, StructType, Type, type_info
from typer.testing import CliRunner

from live import LiveServer, serve_command, wait_for
from ssepool.cli import app
from ssepool.core.report import ClusterReport, NodeReport, PoolReport
from ssepool.core.states import PoolState, Reason
from ssepool.http.openapi import document

Place = tuple[str, ...]
"""The names that lead to a field; `*` stands for the items of an array."""

LIVE_ONLY = "cells"
"""The one field that no answer has."""


def fields(kind: Type, path: Place = ()) -> Iterator[Place]:
    """The places of all fields in a type."""
    if isinstance(kind, Metadata):
        yield from fields(kind.type, path)
    elif isinstance(kind, ListType):
        yield from fields(kind.item_type, (*path, "*"))
    elif isinstance(kind, StructType | DataclassType):
        for field in kind.fields:
            if field.name != LIVE_ONLY:
                yield (*path, field.encode_name)
                yield from fields(field.type, (*path, field.encode_name))


def all_fields(*kinds: type) -> list[tuple[type, Place]]:
    return [(kind, path) for kind in kinds for path in fields(type_info(kind))]


def schema_at(name: str, path: Place) -> dict[str, Any]:
    """The schema of a field, which must be a required one."""
    schemas = document()["components"]["schemas"]
    node: dict[str, Any] = schemas[name]
    for part in path:
        if "$ref" in node:
            node = schemas[node["$ref"].rpartition("/")[2]]
        if part == "*":
            node = node["items"]
        else:
            # A field with a default may be left out by somebody else's program; ours never leaves one out.
            assert part in node["required"] or "default" in node["properties"][part], path
            node = node["properties"][part]
    return node


def value_at(value: Any, path: Place) -> Any:
    for part in path:
        value = value[0] if part == "*" else value[part]
    return value


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Two workers on one port."""
    folder = tmp_path_factory.mktemp("reports")
    with serve_command("--workers", "2", "--broker", f"sqlite:///{folder}/events.db") as server:
        wait_for(lambda: len(server.request("GET", "/pool")[1]["workers"]) == 2)
        yield server


def test_the_walk_finds_what_is_nested() -> None:
    found = [path for _, path in all_fields(PoolReport)]
    assert {("uptime",), ("pool", "free"), ("workers", "*", "broker", "behind"), ("missing", "*", "node")} <= {*found}


@pytest.mark.parametrize(("kind", "path"), all_fields(PoolReport, NodeReport, ClusterReport))
def test_every_field_is_in_the_schema_with_a_description(kind: type, path: Place) -> None:
    name = {PoolReport: "Pool", NodeReport: "Node", ClusterReport: "Cluster"}[kind]
    assert schema_at(name, path)["description"]


def test_the_schema_names_all_states_and_reasons() -> None:
    assert sorted(schema_at("Pool", ("pool", "state"))["enum"]) == sorted(state.value for state in PoolState)
    released = schema_at("Pool", ("pool", "released"))
    assert sorted(released["properties"]) == sorted(released["required"]) == sorted(reason.value for reason in Reason)


@pytest.mark.parametrize("path", ["/pool", "/cluster"])
def test_every_field_is_in_the_answer(server: LiveServer, path: str) -> None:
    kind = {"/pool": PoolReport, "/cluster": ClusterReport}[path]
    status, answer = server.request("GET", path)
    assert status == 200
    assert msgspec.convert(answer, kind).missing == []  # type: ignore[attr-defined]
    for _, place in all_fields(kind):
        if place[:2] != ("missing", "*"):  # all workers are there
            value_at(answer, place)


async def test_the_answers_have_nothing_that_no_struct_has(http: httpx.AsyncClient) -> None:
    for path, kind in (("/pool", PoolReport), ("/cluster", ClusterReport)):
        answer = (await http.get(path)).content
        assert msgspec.json.decode(answer) == msgspec.to_builtins(msgspec.json.decode(answer, type=kind))


def test_every_field_is_on_the_command_line(server: LiveServer) -> None:
    result = CliRunner().invoke(app, ["stats", "--url", server.url])
    assert result.exit_code == 0, result.output
    shown = {re.split(r" {2,}", line)[0] for line in result.stdout.splitlines()}
    of_several = [path for _, path in all_fields(PoolReport) if path[0] != "workers" and "*" not in path]
    groups = {path[:-1] for path in of_several}
    assert {
        ".".join(("hub", *path)[-2:]) for path in of_several if path not in groups | {("pool", "released")}
    } <= shown
    assert {f"released.{reason.value}" for reason in Reason} <= shown
    # Of a worker only what differs from the others.
    assert {f"worker 0.{name}" for name in ("pid", "free", "open", "waiting", "size")} <= shown
