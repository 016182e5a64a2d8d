"""No server, but what nobody can go below with one `send` an event: a loop over sockets, and nothing around it.

It takes whole requests in one packet, ignores topics, loses what a full socket will not take, never notices who left.
"""

from __future__ import annotations

import json
import select
import socket
import sys

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
DONE = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


def main(port: int) -> None:
    poller = select.epoll()
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    poller.register(listener, select.EPOLLIN)
    silent: dict[int, socket.socket] = {}  # those that have not said what they want, and those that publish
    subscribers: list[socket.socket] = []
    published = 0
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                silent[connection.fileno()] = connection
                poller.register(connection, select.EPOLLIN)
                continue
            connection = silent[fd]
            request = connection.recv(65536)
            if request.startswith(b"GET"):
                connection.send(HEAD)
                poller.unregister(fd)
                subscribers.append(silent.pop(fd))
            elif request:
                published += 1
                data = json.loads(request.partition(b"\r\n\r\n")[2])["data"]
                frame = f"id: {published}\ndata: {data}\n\n".encode()
                for subscriber in subscribers:
                    subscriber.send(frame)
                connection.send(DONE)
            else:
                poller.unregister(fd)
                silent.pop(fd).close()


main(int(sys.argv[1]))
