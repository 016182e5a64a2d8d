"""The dashboard: the operator's page. It works on the rest of the surface alone and has only its files here."""

from __future__ import annotations

from starlette.routing import BaseRoute

from ssepool.http.pages import file_route

PARTS = ("dashboard.css", "dashboard.js", "connections.js", "series.js")


def routes() -> list[BaseRoute]:
    """The routes of the dashboard: its page, and the files that it is made of."""
    return [
        file_route("/dashboard", "dashboard.html"),
        *(file_route(f"/dashboard/{name}", name) for name in PARTS),
    ]
