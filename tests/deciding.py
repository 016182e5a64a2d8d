"""An application that decides who may do what, on a port of its own, and behaves as a test tells it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

GRANTS: dict[str, dict[str, Any]] = {
    "session=ann": {"subject": "ann", "subscribe": ["users/ann", "chat"], "publish": ["chat"], "expires_in": 600},
    "session=ben": {"subject": "ben", "subscribe": ["users/ben"], "expires_in": 600},
}
GRANTS["Bearer ann"] = GRANTS["session=ann"]
"""What it says to these credentials; to all others 401."""


class Deciding:
    """What is asked, and how it behaves."""

    def __init__(self) -> None:
        self.says: int | bytes | None = None
        """A status, a body, or what `GRANTS` say."""
        self.hang = threading.Event()
        """Cleared, it does not answer."""
        self.hang.set()
        self.asked: list[tuple[str, dict[str, str], list[tuple[str, str]]]] = []
        """Method, header fields and query of each request."""
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/sse-auth"

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = _Server(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Be down."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._server = None

    def behave(self) -> None:
        """As it should, and it has not been asked anything."""
        self.says = None
        self.hang.set()
        self.asked.clear()
        if self._server is None:
            self.start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def _handler(deciding: Deciding) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fields = {name.lower(): value for name, value in self.headers.items()}
            deciding.asked.append((self.command, fields, parse_qsl(urlsplit(self.path).query)))
            deciding.hang.wait(30)
            says = deciding.says
            if says is None:
                grant = GRANTS.get(fields.get("cookie") or fields.get("authorization", ""))
                says = 401 if grant is None else json.dumps(grant).encode()
            self.send_response(says if isinstance(says, int) else 200)
            self.send_header("Location", "/login")
            self.send_header("Content-Length", str(0 if isinstance(says, int) else len(says)))
            self.end_headers()
            if isinstance(says, bytes):
                self.wfile.write(says)

        do_POST = do_PUT = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def deciding() -> Iterator[Deciding]:
    """One that listens."""
    found = Deciding()
    try:
        yield found
    finally:
        found.hang.set()
        found.stop()
