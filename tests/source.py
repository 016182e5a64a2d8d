"""Sources of `stream_app`: what a test feeds them with, and what becomes of them."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import urlencode

from live import LiveServer, Stream, wait_for

END, FAIL = "END", "FAIL"
"""What ends a source of `stream_app`, or has it fail."""


class Source:
    """A source of the application, by name, and the clients that ask for it."""

    numbers = itertools.count()

    def __init__(self, server: LiveServer, name: str = "source", *, named: bool = False, **wire: str) -> None:
        """`named`: with a topic. `wire` is what the application gives on to `Hub.stream` of how its clients want it."""
        self.server = server
        self.name = f"{name}-{next(self.numbers)}"
        pairs = [("topic", f"answers/{self.name}")] if named else []
        self.path = f"/streams/{self.name}?" + urlencode([*pairs, *wire.items()])

    def feed(self, *items: Any) -> None:
        assert self.server.request("POST", f"/streams/{self.name}", items)[0] == 200

    @property
    def counts(self) -> dict[str, int]:
        """How often it was made, begun, closed, and how many of its items were pulled."""
        counts: dict[str, int] = self.server.request("GET", f"/sources/{self.name}")[1]
        return {"made": 0, "begun": 0, "pulled": 0, "closed": 0} | counts

    def wait(self, **counts: int) -> None:
        wait_for(lambda: counts.items() <= self.counts.items(), what=f"{self.name} {counts}")

    def ask(self, **options: Any) -> Stream:
        return Stream(self.server, path=self.path, **options)

    def refused(self, **options: Any) -> int:
        """The status of an answer that is no stream."""
        with self.ask(**options) as stream:
            return stream.until(lambda s: s.status).status
