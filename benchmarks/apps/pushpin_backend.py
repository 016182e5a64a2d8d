"""The application behind Pushpin: it has each subscriber held on the channel of its topic (GRIP)."""

from __future__ import annotations

import asyncio
import re
import sys

import uvloop

TOPIC = re.compile(rb"^GET [^ ]*[?&]topic=([^& ]*)")
HOLD = b"""HTTP/1.1 200 OK\r
Content-Type: text/event-stream\r
Content-Length: 0\r
Grip-Hold: stream\r
Grip-Channel: %b\r
Grip-Keep-Alive: :\\n; format=cstring; timeout=15\r
\r
"""


class Backend(asyncio.Protocol):
    """One connection of Pushpin's, with one request after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._raw = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._raw = (self._raw + data).split(b"\r\n\r\n")
        for request in requests:
            found = TOPIC.match(request)
            self._transport.write(HOLD % (found[1] if found else b"none"))  # type: ignore[attr-defined]


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
