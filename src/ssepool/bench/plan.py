"""The plan of a measurement: one frozen object, checked once. The options of `ssepool bench` are made from it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from ssepool.bench.target import Template
from ssepool.config import MiB, setting
from ssepool.errors import ConfigError

MAX_SUBSCRIBERS = 1_000_000
"""Subscribers, and topics, that a plan asks for at most."""
MAX_SECONDS = 86_400.0
"""How long a phase of a plan takes at most: a day."""
HUB_URL = "http://127.0.0.1:8000"
"""Where `ssepool serve` listens by default."""
JSON_TYPE = "application/json"
"""The media type of a request that publishes, if the plan names none."""
NDJSON_TYPE = "application/x-ndjson"
"""The media type of a batch with an event on each line, if the plan names none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to measure, and how. The defaults measure a hub of ours on this machine.

    The help of each field, which `ssepool bench --help` shows, has its meaning and its unit. Raises `ConfigError` for a
    value that is not allowed, and for values that do not go together.
    """

    subscribe: str = setting(f"{HUB_URL}/events?topic=bench-{{i}}", "URL of the stream; {i} = number of the topic")
    subscribe_headers: tuple[str, ...] = setting((), "header field of a subscriber's request, 'Name: value'")
    subscribers: int = setting(100, "how many there are", min=1, max=MAX_SUBSCRIBERS)
    connect_rate: float = setting(0.0, "subscribers that come a second; 0 = all at once")
    connect_timeout: float = setting(30.0, "seconds that the server may take to answer", max=MAX_SECONDS)
    topics: int = setting(1, "topics, shared out among subscribers; 0 = one each", max=MAX_SUBSCRIBERS)
    stall: float = setting(0.0, "share of the subscribers that stop reading once they are connected", max=1)
    last_event_id: str = setting("", "Last-Event-ID that subscribers send; in a replay, instead of one that is learnt")

    publish: str = setting(f"{HUB_URL}/events", "URL that takes events; may have the blanks of --body")
    method: str = setting("POST", "method of the request that publishes")
    headers: tuple[str, ...] = setting((), "header field of the request that publishes, 'Name: value'")
    body: str = setting(
        '{"topic":"bench-{i}","data":"{data}"}',
        "one event; {data} = what it has to carry, {i} = number of its topic, chosen by chance, "
        "{n} = its own number there, {t} = the time it is due, in microseconds",
    )
    size: int = setting(100, "bytes of {data}; the least that it takes is about 30", max=16 * MiB)
    batch: int = setting(1, "events of a request", min=1, max=100_000)
    batch_start: str = setting("", "text before the events of a batch")
    batch_join: str = setting("\n", "text between them")
    batch_end: str = setting("", "text behind them")
    rate: float = setting(50.0, "events a second; 0 = flat out")
    lanes: int = setting(1, "connections to publish on", min=1, max=64)
    window: float = setting(0.0, "flat out: events that may be on their way to the average subscriber; 0 = any number")

    warmup: float = setting(1.0, "seconds of publishing of which only losses are counted", max=MAX_SECONDS)
    seconds: float = setting(10.0, "seconds of publishing thereafter", max=MAX_SECONDS)
    events: int = setting(0, "events after which that ends earlier; 0 = any number")
    idle: bool = setting(False, "publish nothing, only hold the connections")
    replay: int = setting(0, "events that are published before the subscribers come, who then fetch them")
    settle: float = setting(1.0, "seconds from the last connection until memory is read", max=MAX_SECONDS)
    drain: float = setting(10.0, "seconds that events on their way are waited for, once all are sent", max=MAX_SECONDS)
    seed: int = setting(1, "what chance begins with", min=-math.inf)

    pids: tuple[int, ...] = setting((), "process of the server, whose cost is measured with that of all its children")
    remote: bool = setting(False, "allow servers on other machines")

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                lowest, highest = item.metadata["min"], item.metadata["max"]
                if not lowest <= value <= highest or not math.isfinite(value):
                    limit = f"at least {lowest:g}" if math.isinf(highest) else f"from {lowest:g} to {highest:g}"
                    raise ConfigError(f"Plan.{item.name} = {value} is not allowed; it takes a number, {limit}")
        self._check_heads()
        if self.idle and self.replay:
            raise ConfigError("a measurement is either idle or a replay")
        if not self.idle:
            self._check_body()
        if self.replay and (self.topic_count > 1 or self.lanes > 1 or self.stall):
            raise ConfigError("a replay is of one topic, published on one lane, and nobody stalls")

    @property
    def topic_count(self) -> int:
        """How many topics there are: one for each subscriber if `topics` is 0."""
        return self.topics or self.subscribers

    @property
    def publish_headers(self) -> tuple[str, ...]:
        """The header fields of a request that publishes: `headers`, with a media type if they name none."""
        if any(field.lower().startswith("content-type:") for field in self.headers):
            return self.headers
        lines = self.batch > 1 and not self.batch_start and self.batch_join == "\n"
        return (*self.headers, f"Content-Type: {NDJSON_TYPE if lines else JSON_TYPE}")

    def _check_heads(self) -> None:
        for text in (self.subscribe, *self.subscribe_headers):
            if not Template(text).blanks <= {"{i}"}:
                raise ConfigError(f"{text!r} has a blank that is for events alone; it takes {{i}}")
        for field in (*self.subscribe_headers, *self.headers):
            if not field.partition(":")[2] or not field.isprintable():
                raise ConfigError(f"{field!r} is not a header field; it takes 'Name: value'")
        if not self.last_event_id.isprintable():
            raise ConfigError(f"the last event id {self.last_event_id!r} cannot stand in a request")
        if not self.method.isascii() or not self.method.isalpha():
            raise ConfigError(f"{self.method!r} is not a method")

    def _check_body(self) -> None:
        in_body, in_url = ("{data}" in Template(text).blanks for text in (self.body, self.publish))
        if not in_body and not in_url:
            raise ConfigError(f"neither the body {self.body!r} nor the URL has {{data}}, which each event has to carry")
        if not in_body and self.batch > 1:
            raise ConfigError(f"the body {self.body!r} has no {{data}}, so there are no batches")
