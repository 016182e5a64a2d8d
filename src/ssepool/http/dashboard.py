"""The dashboard: the operator's page. It uses the other endpoints alone, so only its files have routes here."""

from __future__ import annotations

from starlette.routing import BaseRoute

from ssepool.http.pages import file_route

DASHBOARD_FILES = ("dashboard.css", "dashboard.js", "connections.js", "series.js", "topics.js")
"""Files that the page loads, beside those of all pages."""


def routes() -> list[BaseRoute]:
    """GET /dashboard, the page, and the files that it loads."""
    return [
        file_route("/dashboard", "dashboard.html"),
        *(file_route(f"/dashboard/{name}", name) for name in DASHBOARD_FILES),
    ]
