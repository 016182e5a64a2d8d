"""A server that says what a test tells it to, byte by byte, to one connection after the other."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
GONE = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


class Peer:
    """One accepted connection, with the request that came on it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.settimeout(30)

    def read_request(self) -> Request:
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = self._connection.recv(65536)
            if not chunk:
                raise ConnectionError("the client sent no head")
            received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        request = Request(head, body)
        while len(request.body) < int(request.headers.get(b"content-length", b"0")):
            request.body += self._connection.recv(65536)
        return request

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def reset(self) -> None:
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()

    def wait_until_it_leaves(self) -> None:
        while self._connection.recv(65536):
            pass

    def close(self) -> None:
        self._connection.close()


class Request:
    """A request as it stood on the wire."""

    def __init__(self, head: bytes, body: bytes) -> None:
        line, *fields = head.split(b"\r\n")
        self.method, self.target, _ = line.split(b" ")
        pairs = [field.split(b":", 1) for field in fields]
        self.headers = {name.lower(): value.removeprefix(b" ") for name, value in pairs}
        self.body = body


Play = Callable[[Peer], object] | bytes
"""What happens on a connection after its request: bytes are sent as they are."""


class ScriptedServer:
    """Plays the next part of its script on each connection; then nobody answers any more."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.requests: list[Request] = []
        self.leave = threading.Event()
        self._script: list[Play] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def play(self, *script: Play) -> None:
        self._script = list(script)
        self._thread.start()

    def stop(self) -> None:
        self.leave.set()
        self._close_listener()
        if self._thread.ident is not None:
            self._thread.join(10)
            assert not self._thread.is_alive()

    def _close_listener(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes up accept()
        except OSError:
            return  # closed before
        finally:
            self._listener.close()

    def _run(self) -> None:
        for part in self._script:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(connection)
            try:
                self.requests.append(peer.read_request())
                peer.send(part) if isinstance(part, bytes) else part(peer)
            except OSError:
                continue  # the client left first, which is up to it
            finally:
                peer.close()
        self._close_listener()
