"""GET /openapi.json against the routes of the application and against what it answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV32SpecValidator
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from ssepool import Grant, Hub
from ssepool.http.openapi import document

Subscribe = Callable[..., Awaitable[Any]]
PARTS_OF_PAGES = ("/demo/demo.", "/dashboard/", "/web/")
METHODS = ("get", "query", "post", "put", "patch", "delete", "head", "options")


def operations(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Methods and paths of routes. The files that make up the pages are their own affair."""
    for route in routes:
        if isinstance(route, Mount):
            yield from operations(list(route.routes), prefix + route.path)
        elif isinstance(route, Route) and not route.path.startswith(PARTS_OF_PAGES):
            yield from ((method.lower(), prefix + route.path) for method in (route.methods or set()) - {"HEAD"})


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_no_server_makes_the_document_before_it_is_asked_for() -> None:
    code = "import ssepool.server.server, ssepool.http.openapi as it; print(it.document.cache_info().currsize)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0\n"


def test_the_document_has_every_route_of_the_application_and_no_other(hub: Hub) -> None:
    documented = {(method, path) for path, item in document()["paths"].items() for method in item if method in METHODS}
    assert documented == set(operations(list(hub.dev_app.routes)))


SURFACES = ("app", "admin_app", "dev_app")


@pytest.mark.parametrize("name", SURFACES)
async def test_a_surface_tells_its_own_operations_and_what_they_take(name: str) -> None:
    surface = getattr(Hub(authorize=lambda asking: None), name)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(surface), base_url="http://hub") as http:
        document = (await http.get("/openapi.json")).json()
    told = {(method, path) for path, item in document["paths"].items() for method in item if method in METHODS}
    assert told == set(operations(list(surface.routes))) - {("head", "/events")}
    needs = {(method.lower(), route.path): route.needs for route in surface.routes for method in route.methods}
    schemes = document["components"]["securitySchemes"]
    for method, path in told:
        operation, need = document["paths"][path][method], needs[method, path]
        assert operation["security"] == ([] if need == "nothing" else [{scheme_of(need): [need]}])
        assert need == "nothing" or scheme_of(need) in schemes
        answers = operation["responses"]
        assert ("401" in answers, "403" in answers) == (need != "nothing", need != "nothing")


@pytest.mark.parametrize("name", SURFACES)
async def test_a_document_is_openapi_3_2_and_tells_the_events_of_a_stream(name: str) -> None:
    surface = getattr(Hub(authorize=lambda asking: None), name)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(surface), base_url="http://hub") as http:
        document = (await http.get("/openapi.json")).json()
    if name != "app":  # whose operations the others have; each takes seconds
        OpenAPIV32SpecValidator(document).validate()
    for method in ("get", "query"):
        stream = document["paths"]["/events"][method]["responses"]["200"]["content"]["text/event-stream"]
        assert stream == {"itemSchema": {"$ref": "#/components/schemas/StreamEvent"}}
    posted = document["paths"]["/events"]["post"]["operationId"]
    assert posted == ("subscribeByPost" if name == "admin_app" else "publish")


def scheme_of(need: str) -> str:
    return "connection" if need == "connection" else "grant"


async def test_what_the_document_says_of_refusals_is_what_is_answered() -> None:
    surface = Hub(authorize=lambda asking: Grant() if "x" in asking.headers else None).admin_app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(surface), base_url="http://hub") as http:
        for path, item in (await http.get("/openapi.json")).json()["paths"].items():
            for method in set(item) & set(METHODS):
                if item[method]["security"]:
                    target = path.replace("{id}", "a") + ("?topic=a" if (path, method) == ("/events", "get") else "")
                    wish = {"json": {"topics": ["a"]}} if path == "/events" and method != "get" else {}
                    for credentials, status in ({}, 401), ({"x": "y"}, 403):
                        headers = {"accept": "text/event-stream", **credentials}
                        answer = await http.request(method.upper(), target, headers=headers, **wish)
                        assert answer.status_code == status


def test_every_reference_leads_somewhere() -> None:
    for reference in references(document()):
        node: Any = document()
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_operations_have_names_of_their_own_and_answers() -> None:
    items = [item[method] for item in document()["paths"].values() for method in METHODS if method in item]
    assert len({item["operationId"] for item in items}) == len(items)
    assert all(item["summary"] and item["responses"] for item in items)


def test_path_parameters_are_declared() -> None:
    for path, item in document()["paths"].items():
        declared = {parameter["name"] for parameter in item.get("parameters", ()) if parameter["in"] == "path"}
        assert declared == {part.strip("{}") for part in path.split("/") if part.startswith("{")}


async def test_answers_have_the_fields_that_the_document_tells(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    await subscribe("topic=a")
    schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    page = (await http.get("/connections")).json()
    assert sorted(page) == sorted(schemas["Connections"]["properties"])
    assert sorted(page["connections"][0]) == sorted(schemas["Connection"]["properties"])
    refusal = (await http.get("/nowhere")).json()
    assert sorted(refusal["error"]) == sorted(schemas["ErrorDetails"]["properties"])


async def test_the_servers_url_is_where_the_surface_is_mounted(hub: Hub) -> None:
    outer = Starlette()
    outer.mount("/sse", hub.dev_app)
    for app, url in ((hub.dev_app, "/"), (outer, "/sse")):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub") as http:
            prefix = "" if url == "/" else url
            answer = await http.get(f"{prefix}/openapi.json")
        assert answer.json()["openapi"] == "3.2.0"
        assert answer.json()["servers"] == [{"url": url}]
