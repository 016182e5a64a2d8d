"""Real servers and raw clients for tests that need real sockets.

`serve` starts a hub in a process of its own, on any of the ways that a stream can take:

- `detached`: the stand-alone server, sockets taken over;
- `plain`: the stand-alone server, every stream through ASGI's `send`;
- `hypercorn`: another ASGI server;
- `uvicorn`: `uvicorn --http ssepool.uvicorn:Protocol`, sockets taken over;
- `uvicorn plain`: the same, every stream through ASGI's `send`.

`serve_command` starts `ssepool serve`, `serve_app` an application that a hub is part of, and `running` anything that
announces its URL.
`Stream` is a client on a bare socket, so that a test decides what is read and when.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from ssepool import config
from ssepool.core.decoder import Decoder, Message

TESTS = Path(__file__).parent
PATHS = ("detached", "plain", "hypercorn")
DEADLINE = 30.0
"""Seconds that a condition may take to come true, on a machine that does other things too."""
LOG_SECONDS = 2.0
"""Seconds until the log of a server that has ended counts as whole: a process of it may outlive it, and write on."""

T = TypeVar("T")


def wait_for(condition: Callable[[], T], *, seconds: float = DEADLINE, what: str = "") -> T:
    """Look again and again until the condition is true, and return its value; fail after the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}; last value {value!r}")
        time.sleep(0.01)
    return value


class LiveServer:
    """A hub in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str, at_first: list[str]) -> None:
        self.process = process
        self.url = url
        self.port = urlsplit(url).port or 0
        self.is_split = False
        """Whether administration is on a socket of its own alone."""
        self.descriptors_at_rest = 0
        """How many it had open before its first client came, for tests that note it."""
        self.at_first = at_first
        """What it said before it was ready, and that it is."""
        self.log: list[str] = []
        """What it has said since."""
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self.log.extend(iter(output.readline, ""))

    @property
    def admin(self) -> str:
        """The Unix socket of its administration, as it announced it."""
        announced = re.compile(r"^  admin +unix:(\S+)")
        found = wait_for(
            lambda: next(filter(None, map(announced.search, list(self.log))), None), what="a line on admin"
        )
        return str(found[1])

    def said(self, text: str, *, since: int | None = None) -> str:
        """The first line with this in it, once it has come: lines are read beside the test. Of all that it ever said,
        or of its log behind the first `since` lines."""

        def found() -> str | None:
            lines = [*self.at_first, *self.log] if since is None else self.log[since:]
            return next((line for line in lines if text in line), None)

        return str(wait_for(found, what=f"{text!r} said"))

    def operate(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """As `request`, on the Unix socket of its administration."""
        connection = OverUnixSocket(self.admin)
        data = json.dumps(body).encode() if body is not None else None
        with contextlib.closing(connection):
            connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, _decoded(answer.read().decode())

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and decoded JSON (or text) of one request. `body` may be bytes or anything JSON can carry."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers or {}, method=method)
        names = set(headers or ())
        if "Cookie" in names and not names & {"Origin", "Sec-Fetch-Site"}:
            request.add_header("Sec-Fetch-Site", "same-origin")  # as the browsers that cookies come from
        if data is not None and not isinstance(body, bytes):
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read().decode()
        return status, _decoded(text)

    def publish(self, topic: str, data: Any, **fields: Any) -> str:
        status, answer = self.request("POST", "/events", {"topic": topic, "data": data, **fields})
        assert status == 201, answer
        return answer["ids"][0]

    def pool(self) -> dict[str, Any]:
        """The pool's part of GET /pool, whose sum is checked each time."""
        ask = self.operate if self.is_split else self.request
        pool: dict[str, Any] = ask("GET", "/pool")[1]["pool"]
        assert pool["free"] + pool["reserved"] + pool["open"] + pool["closing"] == pool["size"], pool
        assert pool["free"] == 0 or pool["waiting"] == 0 or pool["state"] != "open", pool
        return pool

    def wait_pool(self, **numbers: Any) -> dict[str, Any]:
        """Wait until the pool has these numbers; `released={"kicked": 1}` compares only the reasons given."""

        def reached() -> dict[str, Any] | None:
            pool = self.pool()
            released = numbers.get("released", {})
            same = all(pool[name] == value for name, value in numbers.items() if name != "released")
            return pool if same and all(pool["released"][why] == n for why, n in released.items()) else None

        try:
            return wait_for(reached, what=f"pool {numbers}")  # type: ignore[return-value]
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.pool()}") from None

    def descriptors(self) -> int:
        """How many file descriptors the server has open (Linux), but for libuv's reserve: one of /dev/null from its
        first connection on, of / once there was none left for another connection; and but for the hub's claim on its
        address, which comes a second after the start."""
        folder = f"/proc/{self.process.pid}/fd"
        claims = {f"socket:[{line.split()[6]}]" for line in _unix_sockets() if "@ssepool/memory/" in line}
        found = 0
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                found += os.readlink(f"{folder}/{name}") not in {os.devnull, "/", *claims}
        return found

    def stop(self, number: int = signal.SIGTERM, *, seconds: float = DEADLINE) -> int:
        """Send a signal and wait for the end, and for the last lines of the log; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(seconds)
        self._reader.join(LOG_SECONDS)
        return code


def _unix_sockets() -> list[str]:
    return Path("/proc/net/unix").read_text().splitlines()[1:]


class OverUnixSocket(http.client.HTTPConnection):
    """A connection to a server on a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextlib.contextmanager
def serve(path: str = "detached", *, port: int = 0, limit_files: int = 0, **settings: Any) -> Iterator[LiveServer]:
    """A running hub. `settings` are those of PoolConfig, HubConfig and ServerConfig by their names."""
    command = [sys.executable, str(TESTS / "live_hub.py"), path, str(port), json.dumps(settings)]
    if limit_files:
        command = ["bash", "-c", f'ulimit -n {limit_files} && exec "$@"', "bash", *command]
    with running(command, "^ready (http.*)") as server:
        yield server


def serve_app(app: str, path: str = "detached", **settings: Any) -> contextlib.AbstractContextManager[LiveServer]:
    """An application, `module:name`, from the folder of the repository or of the tests. `settings` are put into the
    environment, for applications that look there."""
    commands = {
        "detached": ["uvicorn", "--port", "0", "--http", "ssepool.uvicorn:Protocol", app],
        "plain": ["uvicorn", "--port", "0", "--http", "httptools", app],
        "hypercorn": ["hypercorn", "--workers", "0", "--bind", "127.0.0.1:0", app],
    }
    env = {item.env: str(settings.pop(item.name)) for item in config.settings() if item.name in settings}
    assert not settings, f"there are no settings {settings}"
    return running([sys.executable, "-m", *commands[path]], r"[Rr]unning on (http\S*)", env)


@contextlib.contextmanager
def serve_command(*flags: str, port: int = 0) -> Iterator[LiveServer]:
    """`ssepool serve`, as a user starts it."""
    access = [] if {"--public-topics", "--token-keys", "--authorize-url"} & set(flags) else ["--dev"]
    command = [sys.executable, "-m", "ssepool", "serve", *access, "--port", str(port), *flags]
    with running(command, r"serving on (http\S*)") as server:
        server.is_split = not access
        yield server


@contextlib.contextmanager
def running(command: list[str], announces: str, env: dict[str, str] | None = None) -> Iterator[LiveServer]:
    """A server in a process of its own; ready when a line of its output matches, whose first group is its URL."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TESTS.parent, env=environment
    )
    assert process.stdout is not None
    seen: list[str] = []
    try:
        for line in process.stdout:
            seen.append(line)
            if found := re.search(announces, line):
                break
        else:
            process.stdout.close()
            raise AssertionError("the server did not start:\n" + "".join(seen))
        server = LiveServer(process, found[1], seen)
        try:
            yield server
        except BaseException:
            print("".join(server.log))  # pytest shows it with the failure
            raise
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


class Stream:
    """A client of GET /events on a bare socket. Reads only when it is asked to."""

    def __init__(
        self,
        server: LiveServer | str,
        *topics: str,
        patterns: tuple[str, ...] = (),
        last_event_id: str | None = None,
        data: Any = None,
        query: dict[str, str] | None = None,
        method: str = "GET",
        path: str = "/events",
        headers: dict[str, str] | None = None,
        receive_buffer: int = 0,
        source: str = "",
    ) -> None:
        """`query` are further parameters, `source` is the address to come from."""
        url = urlsplit(server if isinstance(server, str) else server.url)
        pairs = [("topic", topic) for topic in topics] + [("pattern", pattern) for pattern in patterns]
        if data is not None:
            pairs.append(("data", json.dumps(data)))
        pairs += (query or {}).items()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((url.hostname, url.port))
        target = f"{path}{'?' if pairs else ''}{urlencode(pairs, quote_via=quote)}"
        lines = [f"{method} {target} HTTP/1.1", f"Host: {url.netloc}"]
        if last_event_id is not None:
            lines.append(f"Last-Event-ID: {last_event_id}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.status = 0
        """0 until the head has been read."""
        self.headers: dict[str, str] = {}
        self.events: list[Message] = []
        self.comments: list[str] = []
        self.raw = b""
        """The body as far as it has been read, without chunk framing."""
        self.ended = False
        self.whole = False
        """Whether the last chunk has come: the end was a clean one."""
        self._decoder = Decoder(on_comment=self.comments.append)
        self._buffer = b""

    @property
    def last_event_id(self) -> str:
        return self._decoder.last_event_id

    @property
    def retry(self) -> int | None:
        return self._decoder.retry

    def read(self, seconds: float = DEADLINE) -> bool:
        """Read what is there, waiting for something; False if nothing came in time or the stream has ended."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(1 << 20)
        except (TimeoutError, BlockingIOError):
            return False
        except ConnectionError:
            data = b""
        if not data:
            self.ended = True
            return False
        self._buffer += data
        if not self.status and b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            self.status = int(first.split()[1])
            self.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        if self.status:
            self._body()
        return True

    def _body(self) -> None:
        if self.headers.get("transfer-encoding") != "chunked":
            self._take(self._buffer)
            self._buffer = b""
            return
        while True:
            size, newline, rest = self._buffer.partition(b"\r\n")
            if not newline or len(rest) < (length := int(size, 16)) + 2:
                return
            self._take(rest[:length])
            self._buffer = rest[length + 2 :]
            if not length:
                self.ended = self.whole = True
                return

    def _take(self, data: bytes) -> None:
        self.raw += data
        self.events += self._decoder.feed(data)

    def until(self, condition: Callable[[Stream], object], *, seconds: float = DEADLINE) -> Stream:
        """Read until the condition holds; fail if it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition(self):
            left = deadline - time.monotonic()
            if left <= 0 or not (self.read(left) or condition(self)):
                raise AssertionError(
                    f"status={self.status} ended={self.ended} events={self.events[-5:]} {self.raw[-200:]!r}"
                )
        return self

    def opened(self) -> Stream:
        """Wait for `ssepool.open`."""
        return self.until(lambda s: any(event.type == "ssepool.open" for event in s.events))

    def to_end(self) -> Stream:
        """Wait until the server has ended the stream."""
        return self.until(lambda s: s.ended)

    def quiet(self) -> bool:
        """Whether nothing at all has come since the last look; reads what has."""
        return not self.read(0) and not self.ended

    def of_type(self, type: str) -> list[Any]:
        """The data, as JSON, of the events of one type."""
        return [json.loads(event.data) for event in self.events if event.type == type]

    @property
    def data(self) -> list[str]:
        """The data of all events that were published."""
        return [event.data for event in self.events if not event.type.startswith("ssepool.")]

    def wait_data(self, *expected: str) -> Stream:
        """Wait until exactly this has been published to us, in this order."""
        self.until(lambda s: len(s.data) >= len(expected))
        assert self.data == list(expected)
        return self

    @property
    def connection(self) -> str:
        return self.of_type("ssepool.open")[0]["connection"]

    def close(self, *, reset: bool = False) -> None:
        """Leave, with FIN or with RST."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
