"""Pages: the files of `web/`, how they are sent, and those that all pages share."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles

WEB = Path(__file__).parent.parent / "web"
TYPES = {
    # A platform's table of types may call .js something that browsers refuse to run as a module.
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
HEADERS = {
    # A page loads nothing from elsewhere and has no script or style of its own in it, so that text from strangers
    # could do no harm even if it ended up as markup.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
SHARED = ("base.css", "page.js", "pool.js")

FILES = StaticFiles(directory=WEB)


def routes() -> list[BaseRoute]:
    """The routes of the browser client, and of what all pages share, under `/web`."""
    return [file_route("/ssepool.js", "ssepool.js"), *(file_route(f"/web/{name}", name) for name in SHARED)]


def file_route(path: str, name: str) -> Route:
    """A route that sends one file of `web/`, and 304 to a browser that has it already."""

    async def get(request: Request) -> Response:
        response = await FILES.get_response(name, request.scope)
        response.headers.update(HEADERS)
        if response.status_code == 200:
            response.headers["Content-Type"] = TYPES[Path(name).suffix]
        return response

    return Route(path, get, methods=["GET"])
