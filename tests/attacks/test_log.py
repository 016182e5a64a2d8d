"""What a stranger can have the server log."""

from __future__ import annotations

import socket

from live import serve, wait_for


def test_a_flood_of_bad_requests_is_a_few_lines() -> None:
    with serve("detached", size=10) as server:
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(b"\x00 bad\r\n\r\n")
                client.settimeout(10)
                assert client.recv(12) == b"HTTP/1.1 400"
        lines = wait_for(lambda: [line for line in server.log if "Invalid HTTP request" in line])
        assert len(lines) <= 5
