"""A wire between two programs that a test can cut: a TCP proxy that loses contact without a word to either side."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Forwards to a port of the loopback interface. While it is cut nothing passes and nothing is closed, as if packets
    were dropped; connections that are made meanwhile get no answer. Afterwards all goes on where it stood, as TCP does
    by sending again."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._whole = threading.Event()
        self._whole.set()
        self._ends: list[socket.socket] = []
        self._closed = False
        self._start(self._accept)

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def lead_to(self, port: int) -> None:
        """Lay connections that are made from now on to another port."""
        self._target = port

    def close(self) -> None:
        self._closed = True
        self.mend()
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near = self._listener.accept()[0]
            except OSError:  # it is closed
                return
            self._ends.append(near)
            self._start(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        self._whole.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            near.close()
            return
        self._ends.append(far)
        self._start(self._forward, near, far)
        self._forward(far, near)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._whole.wait()
                sink.sendall(data)
        self._whole.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    @staticmethod
    def _start(work: object, *arguments: socket.socket) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()  # type: ignore[arg-type]


@contextlib.contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """A wire to this port, until the end."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
