"""Pages: how the files of `web/` are sent, and the routes of the files that several pages use."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles

from ssepool.http.access.gate import Gate

WEB_DIRECTORY = Path(__file__).parent.parent / "web"
"""The directory of all pages, styles and scripts."""
MEDIA_TYPES = {
    # A platform's own table may give .js a media type with which browsers refuse to run a module.
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
"""The media type of a file, by the end of its name. RFC 9239 is the source of `text/javascript`."""
FILE_HEADERS = {
    # A page loads nothing from other hosts and has no script or style inside its HTML. So text from strangers could do
    # no harm even if it ended up as markup.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Header fields of every file: the page's rights (W3C Content Security Policy Level 3), and a check before reuse."""
SHARED_FILES = ("base.css", "page.js", "pool.js")
"""Files that several pages use."""

FILES = StaticFiles(directory=WEB_DIRECTORY)
"""Reads the files, with their `ETag` and `Last-Modified`."""


def routes() -> list[BaseRoute]:
    """GET /ssepool.js, the browser client, and GET /web/..., the files that several pages use."""
    return [file_route("/ssepool.js", "ssepool.js"), *(file_route(f"/web/{name}", name) for name in SHARED_FILES)]


def file_route(path: str, name: str) -> Gate:
    """A route at `path` that sends the file `name` of `web/`, and 304 to a browser that has it already."""

    async def get(request: Request) -> Response:
        response = await FILES.get_response(name, request.scope)
        response.headers.update(FILE_HEADERS)
        if response.status_code == 200:
            response.headers["Content-Type"] = MEDIA_TYPES[Path(name).suffix]
        return response

    return Gate(path, get, methods=["GET"], needs="nothing")
