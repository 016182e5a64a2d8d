"""The first subscriber of a replay: it learns the id of the event behind which the others begin."""

from __future__ import annotations

import socket

from ssepool.bench.framing import cut, read_head
from ssepool.bench.loop import Sockets
from ssepool.bench.publisher import BenchError
from ssepool.bench.subscribers import READ_BYTES
from ssepool.bench.target import Target, Template
from ssepool.core.decoder import Decoder


class Witness:
    """One subscriber that parses its stream in full, to learn the ids of the events."""

    scans = None
    """No scans: the turns call `ready` (see `Peer`)."""

    def __init__(self, target: Target, fields: tuple[str, ...], sockets: Sockets, run: bytes, timeout: float) -> None:
        """Connect within `timeout` seconds, and send the request.

        `fields` are the header fields beside the usual ones, `run` is the name of this run in its marks. Raises
        `BenchError` if no server answers.
        """
        self.is_open = False
        """Whether the head of the stream has come."""
        self.events = 0
        """How many events of this run have come."""
        self.first_id = ""
        """The id of the first of these events; "" if it has none."""
        self._sockets = sockets
        self._run = run.decode()
        self._decoder = Decoder()
        self._chunked = False
        self._rest = b""
        head = target.head("GET", ["Accept: text/event-stream", "Cache-Control: no-cache", *fields])
        request = Template(f"{head}\r\n").fill({"{i}": b"0"})
        try:
            self._socket = socket.create_connection(target.address, timeout)
            self._socket.sendall(request)
        except OSError as error:
            raise BenchError(f"no server answers at {target.host}: {error}") from None
        self._socket.setblocking(False)
        self._fd = sockets.add(self._socket, self)

    def ready(self, mask: int) -> None:
        """Read and parse what has come. Raises `BenchError` if the server does not stream, or ends the stream."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise BenchError(f"the first subscriber's stream broke: {error}") from None
        if not data:
            raise BenchError("the server closed the first subscriber's connection")
        self._rest += data
        if not self.is_open:
            parsed = read_head(self._rest)
            if parsed is None:
                return
            head, self._rest = parsed
            if head.status != 200:
                raise BenchError(f"the server answers the first subscriber with status {head.status}")
            self.is_open, self._chunked = True, head.chunked
        block = cut(self._rest, self._chunked)
        self._rest = block.rest
        for message in self._decoder.feed(block.blocks):
            if f"~{self._run}." in message.data:
                self.events += 1
                self.first_id = self.first_id or message.id

    def close(self) -> None:
        """Close the connection."""
        self._sockets.drop(self._fd)
