"""A server of event streams on bare sockets that loses, doubles and swaps events as it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from types import TracebackType

Fault = Callable[[int, bytes], Iterable[bytes]]
"""From the number of an event, in the order of its coming, and its frame: the frames that are sent for it."""

FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def faithful(number: int, frame: bytes) -> Iterable[bytes]:
    """Send everything as it is."""
    return (frame,)


def losing(*numbers: int) -> Fault:
    """Do not send these."""
    return lambda number, frame: () if number in numbers else (frame,)


def doubling(*numbers: int) -> Fault:
    """Send these twice."""
    return lambda number, frame: (frame, frame) if number in numbers else (frame,)


def swapping(*numbers: int) -> Fault:
    """Send each of these after the one that follows it."""
    held: list[bytes] = []

    def swap(number: int, frame: bytes) -> Iterable[bytes]:
        if number in numbers:
            held.append(frame)
            return ()
        return (frame, *(held.pop() for _ in range(len(held))))

    return swap


class FaultyServer:
    """`GET /TOPIC` is a stream, `POST /TOPIC` publishes each line of its body there. Queries mean nothing."""

    def __init__(
        self,
        fault: Callable[[], Fault] = lambda: faithful,
        *,
        chunked: bool = False,
        line_end: bytes = b"\n",
        held_back: int = 0,
        ids: bool = True,
        refuses: Callable[[int], bytes | None] = lambda request: None,
        subscribe_status: bytes = b"200 OK",
        closes_after: int = 0,
        leaves: bool = False,
    ) -> None:
        """`held_back` bytes of each frame are sent with the next one; `closes_after` so many events, streams end.

        `refuses` gives the answer to the n-th request that publishes, if it is another than the usual one; then
        nothing is published, and if it `leaves`, the connection ends.
        """
        self._make_fault = fault
        self._chunked = chunked
        self._line_end = line_end
        self._held_back = held_back
        self._ids = ids
        self._refuses = refuses
        self._subscribe_status = subscribe_status
        self._closes_after = closes_after
        self._leaves = leaves
        self.requests: list[bytes] = []
        """Those that published, whole."""
        self.subscriptions: list[bytes] = []
        """The heads of those that subscribed."""
        self._topics: dict[bytes, list[Stream]] = {}
        self._history: dict[bytes, list[bytes]] = {}
        self._faults: dict[bytes, Fault] = {}
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> FaultyServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            # A listener that is closed while somebody accepts goes on listening.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for connection in self._sockets:
                connection.close() if connection.fileno() < 0 else _shut(connection)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        try:
            while True:
                while b"\r\n\r\n" not in received:
                    if not (data := connection.recv(65536)):
                        return
                    received += data
                head, _, received = received.partition(b"\r\n\r\n")
                method, target, _ = head.split(b" ", 2)
                path = target.partition(b"?")[0]
                if method == b"GET":
                    self._subscribe(connection, path, head)
                    while connection.recv(65536):
                        pass
                    return
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0
                )
                while len(received) < length:
                    received += connection.recv(65536)
                was_refused = self._publish(connection, path, head, received[:length])
                received = received[length:]
                if was_refused and self._leaves:
                    return
        except OSError:
            return
        finally:
            connection.close()

    def _subscribe(self, connection: socket.socket, path: bytes, head: bytes) -> None:
        with self._lock:
            self.subscriptions.append(head)
            framing = b"Transfer-Encoding: chunked\r\n" if self._chunked else b""
            status = b"HTTP/1.1 %b\r\nContent-Type: text/event-stream\r\n%b\r\n" % (self._subscribe_status, framing)
            connection.sendall(status)
            stream = Stream(connection, self._chunked, self._held_back)
            self._topics.setdefault(path, []).append(stream)
            for line in head.split(b"\r\n"):
                if line.startswith(b"Last-Event-ID: "):
                    stream.send(self._history[path][int(line[15:]) + 1 :])

    def _publish(self, connection: socket.socket, path: bytes, head: bytes, body: bytes) -> bool:
        with self._lock:
            answer = self._refuses(len(self.requests))
            self.requests.append(head + b"\r\n\r\n" + body)
            for line in body.split(b"\n") if answer is None else ():
                history = self._history.setdefault(path, [])
                number = len(history)
                end = self._line_end
                frame = (b"id: %d%b" % (number, end) if self._ids else b"") + b"data: " + line + end + end
                history.append(frame)
                fault = self._faults.setdefault(path, self._make_fault())
                frames = list(fault(number, frame))
                for stream in self._topics.get(path, ()):
                    stream.send(frames)
                    if number + 1 == self._closes_after:
                        _shut(stream.connection)
                if number + 1 == self._closes_after:
                    del self._topics[path]
            connection.sendall(answer or FINE)
            return answer is not None


class Stream:
    """What one subscriber is sent."""

    def __init__(self, connection: socket.socket, chunked: bool, held_back: int) -> None:
        self.connection = connection
        self._chunked = chunked
        self._held_back = held_back
        self._held = b""

    def send(self, frames: list[bytes]) -> None:
        """Send frames, each in chunks of its own, all but the bytes that are held back."""
        data = b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) if self._chunked else frame for frame in frames)
        data = self._held + data
        at = max(0, len(data) - self._held_back)
        self._held = data[at:]
        try:
            self.connection.sendall(data[:at])
        except OSError:
            return


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
