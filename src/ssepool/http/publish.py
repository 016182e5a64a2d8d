"""POST /events: publish one event or a batch, all of its events or none."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ssepool.config import KiB
from ssepool.core.event import (
    MAX_ID_BYTES,
    MAX_KEY_CHARACTERS,
    MAX_RETRY_MILLISECONDS,
    MAX_TOPICS,
    MAX_TYPE_CHARACTERS,
    Event,
    memory_of,
)
from ssepool.core.grant import Grant
from ssepool.core.topics import MAX_NAME_CHARACTERS, OWN_TOPICS, shown
from ssepool.errors import EventTooLarge, InvalidEvent, InvalidTopic, SSEPoolError
from ssepool.http.access.door import Door
from ssepool.http.access.gate import Gate, grant_of
from ssepool.http.body import FORM, JSON, decode, media_type, no_room, read_share
from ssepool.http.budget import Budget, Share
from ssepool.http.depth import TOO_DEEP, count_items, has_too_many, is_too_deep
from ssepool.http.errors import APIError, translate
from ssepool.http.query import read_query
from ssepool.http.rates import check_rate
from ssepool.http.reply import JSON_HEADERS, JSONReply
from ssepool.runtime.engine import Engine
from ssepool.runtime.handover import Reply

PATH = "/events"
"""The path of POST /events."""
TARGET = PATH.encode()
"""The request target of a plain publish: the path without a query."""

NDJSON = "application/x-ndjson"
"""The media type of a batch with one JSON object on each line."""

MAX_BATCH_EVENTS = 10_000
"""Events of a batch at most. A batch enters the hub in one step, which holds the event loop for as long as it takes."""
STEP_EVENTS = 20
"""Events that are checked between two looks at the clock."""
MAX_PLAIN_EVENTS = 500
"""Events that `publish_nowait` takes at most."""
MAX_FORM_FIELDS = 1000
"""Fields of a form at most."""
MAX_FORM_BYTES_AT_ONCE = 64 * KiB
"""Longer forms are read in a thread: 8 MiB of percent-encoded bytes take 3 s."""
MAX_PLAIN_BYTES = 512 * KiB
"""Bytes of a body that `publish_nowait` takes at most."""
LEVELS_AROUND_DATA = 3
"""Levels by which a body may be nested deeper than the data of its events: the batch, the event, and one more so that
data that is a little too deep is found with the event's name."""

_LINE = re.compile(rb"\S[^\n]*")

PLAIN_MEDIA_TYPES = {kind.encode() + rest: kind for kind in (JSON, NDJSON) for rest in (b"", b"; charset=utf-8")}
"""The usual ways to write the media type, for `publish_nowait`. The route reads all other ways."""
NOT_PLAIN_HEADERS = frozenset({b"origin", b"sec-fetch-site", b"x-forwarded-host", b"content-type", b"content-encoding"})
"""Names of header fields that only the route and its middleware can judge; `Content-Type` only if it comes twice."""

TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
"""The values of `private` and `removed` in a form that stand for true."""
FALSE_WORDS = frozenset({"0", "false", "no", "off", ""})
"""The values of `private` and `removed` in a form that stand for false."""


# msgspec checks the types of an incoming event, and `Event` checks its values: the messages of `Event` show them. So
# the bounds of the values stand in the schema alone.
_Topic = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_NAME_CHARACTERS})]
_Topics = Annotated[tuple[_Topic, ...], Meta(extra_json_schema={"minItems": 1})]
_Type = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_TYPE_CHARACTERS})]
_Id = Annotated[str, Meta(extra_json_schema={"pattern": f"^[!-~]{{1,{MAX_ID_BYTES}}}$"})]
_Key = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_KEY_CHARACTERS})]
_Retry = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_RETRY_MILLISECONDS})]


class Incoming(msgspec.Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    """An event as a publisher writes it: data, and one topic or several."""

    topic: Annotated[_Topic | None, Meta(description="The event's topic.")] = None
    topics: Annotated[_Topics | None, Meta(description="The event's topics, instead of `topic`.")] = None
    data: Annotated[
        msgspec.Raw,
        Meta(
            description="A string is sent as it is, anything else as the JSON that it is, byte for byte. "
            "Only an event that is `removed` may do without: it carries its key."
        ),
    ] = msgspec.field(default_factory=msgspec.Raw)
    type: Annotated[_Type | None, Meta(description="Not `ssepool.*`.")] = None
    id: Annotated[
        _Id | None,
        Meta(description=f"Visible ASCII, at most {MAX_ID_BYTES} bytes; without it the hub makes one."),
    ] = None
    retry: Annotated[_Retry | None, Meta(description="Milliseconds.")] = None
    private: Annotated[
        bool | None,
        Meta(description="Only for clients with that right; true unless the publisher may publish to everybody."),
    ] = None
    key: Annotated[
        _Key | None,
        Meta(description="It takes the place of the event with the same key in the same topics."),
    ] = None
    removed: Annotated[
        bool, Meta(description="Nothing is there under the key any more. The type is `removed` if none is given.")
    ] = False


EVENT_FIELDS = Incoming.__struct_fields__
"""The fields of an event in JSON."""
FORM_FIELDS = tuple(name for name in EVENT_FIELDS if name != "topics")
"""The fields of an event in a form, where `topic` may be repeated."""
BATCH_DECODER: msgspec.json.Decoder[Incoming | list[Incoming]] = msgspec.json.Decoder(Incoming | list[Incoming])
"""Reads a JSON body: one event, or an array of events."""
LINE_DECODER = msgspec.json.Decoder(Incoming)
"""Reads one line of NDJSON."""
TEXT_DECODER = msgspec.json.Decoder(str)
"""Reads the data of an event that is a string."""
QUOTE = ord('"')
"""What a string of JSON begins with."""


def routes(engine: Engine, budget: Budget, door: Door) -> list[BaseRoute]:
    """POST /events. A body counts in `budget` until its events are published, and so do they."""

    async def publish(request: Request) -> Response:
        grant = await grant_of(door, request, "publish")
        door.check_may_publish(grant)
        check_rate(engine, request, "publish", user=grant.subject, take=False)
        read_query(request)
        kind = media_type(request, JSON, NDJSON, FORM)
        async with read_share(request, engine.config.max_body, budget) as (body, share):
            if kind == FORM and len(body) > MAX_FORM_BYTES_AT_ONCE:
                batch = await asyncio.to_thread(_batch, kind, body)
            else:
                batch = _batch(kind, body)
            _check_burst(engine, len(batch))
            check_rate(engine, request, "publish", len(batch), user=grant.subject)
            check = partial(_check_room, request, share)
            return JSONReply({"ids": await _publish(engine, door, grant, batch, check)}, 201)

    return [Gate(PATH, publish, methods=["POST"], needs="publish")]


def _check_room(request: Request, share: Share, events: Sequence[Event]) -> None:
    """Count what events take beside their data, which counts already as the body: 20 bytes of a body make an event,
    and 5 make a topic. Raises `APIError` (413 or 503)."""
    size = sum([memory_of(b"", event.topics, event.key) for event in events])
    if not share.can_have(size):
        message = "the batch takes too much memory with all its topics; it takes fewer events at a time"
        raise APIError(413, "batch_too_large", message)
    if not share.take(size):
        raise no_room(request)


async def _publish(
    engine: Engine,
    door: Door,
    grant: Grant,
    batch: Sequence[Incoming],
    check_room: Callable[[Sequence[Event]], None],
) -> list[str]:
    events: list[Event] = []
    slice = engine.slice()
    for start in range(0, len(batch), STEP_EVENTS):
        if slice.is_over:
            await slice.pause()
        made = _events(batch, start, STEP_EVENTS, grant)
        door.check_publishable(made, grant)
        check_room(made)
        events += made
    try:
        return await engine.publish_many(events)
    except EventTooLarge as error:
        sizes = [len(event.encode()) for event in events] if len(events) > 1 else [0]
        raise APIError(413, "event_too_large", f"events[{sizes.index(max(sizes))}]: {error}") from None


def _check_burst(engine: Engine, count: int) -> None:
    """Raise `APIError` (413) for a batch that no address could ever publish at once."""
    rate = engine.rates.publish
    if rate is not None and count > rate.burst:
        raise APIError(
            413,
            "batch_too_large",
            f"the batch has {count} events; publish_rate = {rate.per_second:g} allows {rate.burst} at once",
        )


def publish_nowait(
    engine: Engine,
    door: Door,
    grant: Grant,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    ip: str | None = None,
) -> Reply | None:
    """Publish the events of a plain request to `PATH`, whose grant is known, and return its answer.

    None if that would take time, if something is wrong, or if the request is not plain. Then nothing has been done, and
    the request is the route's: it waits where it must, and its refusals give the reason. The names of `headers` are in
    lower case; `ip` is the client's address.
    """
    rates, user = engine.rates, grant.subject
    rated = rates.publish is not None and (user is not None or ip is not None)
    if rated and not rates.allows("publish", ip, engine.now(), user=user):
        return None
    kind = ""
    for name, value in headers:
        if name == b"content-type" and not kind:
            kind = PLAIN_MEDIA_TYPES.get(value, "")
        elif name in NOT_PLAIN_HEADERS or (name == b"accept" and b"event-stream" in value.lower()):
            return None
    if not kind or len(body) > min(engine.config.max_body, MAX_PLAIN_BYTES) or _has_many(body, MAX_PLAIN_EVENTS):
        return None
    try:
        batch = _batch(kind, body)
        if len(batch) > MAX_PLAIN_EVENTS or (
            rated and not rates.allows("publish", ip, engine.now(), len(batch), user=user)
        ):
            return None
        events = _events(batch, 0, MAX_PLAIN_EVENTS, grant)
        door.check_publishable(events, grant)
        ids = engine.try_publish(events)
    except (SSEPoolError, APIError):
        return None
    if ids is None:
        return None
    if rated:
        rates.allows("publish", ip, engine.now(), len(batch), user=user, take=True)
    return 201, JSON_HEADERS, msgspec.json.encode({"ids": ids})


def _batch(kind: str, body: bytes) -> Sequence[Incoming]:
    """The events of a body; a tuple if it is a single event outside an array. Raises `APIError` (400 or 413)."""
    if kind == FORM:
        return (_from_form(body),)
    batch = _from_json(body) if kind == JSON else _from_lines(body)
    if isinstance(batch, Incoming):
        return (batch,)
    if not batch:
        raise APIError(400, "invalid_event", "the batch is empty; it takes at least one event")
    if len(batch) > MAX_BATCH_EVENTS:
        raise _too_many()
    return batch


def _has_many(body: bytes, events: int) -> bool:
    """Whether a body may have more events than this. Each has a field `data`, and what it holds may have some too."""
    return len(body) > events * len(b'{"data":1},') and body.count(b'"data"') > events


def _too_many() -> APIError:
    return APIError(
        413,
        "batch_too_large",
        f"the batch has more than {MAX_BATCH_EVENTS} events; it takes {MAX_BATCH_EVENTS} at most",
    )


def _events(batch: Sequence[Incoming], start: int, count: int, grant: Grant) -> list[Event]:
    """So many of a batch from `start` on, as events of whoever has this grant. Raises `APIError`, which names the first
    bad event."""
    events: list[Event] = []
    private = "public" not in grant.publish_parts
    try:
        for new in batch[start : start + count]:
            events.append(_make(new, private))
    except (SSEPoolError, APIError):
        # The bad event is made once more, under its name. Good batches, nearly all, do not pay for names.
        place = start + len(events)
        _event(batch[place], f"events[{place}]" if isinstance(batch, list) else "event")
        raise
    return events


def _event(new: Incoming, name: str) -> Event:
    """Make an event. Raises `APIError`, with `name` as the event's name in the message."""
    try:
        return _make(new, private=True)
    except (InvalidEvent, InvalidTopic) as error:
        refused = translate(error)
    except APIError as error:
        refused = error
    # All messages of an event's fields begin with the field.
    raise APIError(refused.status_code, refused.code, f"{name}.{refused.detail}")


def _make(new: Incoming, private: bool) -> Event:
    """The event that a publisher wrote; `private` where it does not say.

    Raises `APIError` (400 or 403), `InvalidEvent` or `InvalidTopic`.
    """
    topics = new.topics
    if topics is None:
        if new.topic is None:
            raise APIError(400, "invalid_event", "topic is missing; it takes topic (a string) or topics (an array)")
        topics = (new.topic,)
    elif new.topic is not None:
        raise APIError(400, "invalid_event", "topics is there beside topic; it takes one of them")
    elif not topics:
        raise APIError(400, "invalid_event", "topics is empty; it takes at least one topic")
    for topic in topics[: MAX_TOPICS + 1]:  # one more is refused below, whatever their names are
        if topic.startswith(OWN_TOPICS):
            message = f"topic {shown(topic)} is the hub's own; it takes topics that do not begin with {OWN_TOPICS!r}"
            raise APIError(403, "forbidden_topic", message)
    data = _text(new.data) if not new.removed or memoryview(new.data) else new.key or ""
    private = private if new.private is None else new.private
    return Event(data, topics, new.type, new.id, new.retry, private, new.key, new.removed)


def _text(raw: msgspec.Raw) -> str:
    """An event's data: a string, or JSON with the bytes that the publisher wrote, for what reads it may count digits
    that a number of ours would lose. Raises `APIError` (400)."""
    encoded = memoryview(raw)
    if not encoded:
        raise APIError(400, "invalid_event", "data is missing")
    try:
        if encoded[0] == QUOTE:
            return TEXT_DECODER.decode(raw)
        text = str(encoded, "utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise APIError(400, "invalid_json", f"data is not JSON in UTF-8: {error}") from None
    if is_too_deep(bytes(encoded)):
        raise APIError(400, "invalid_event", f"data {TOO_DEEP}")
    return text


def _from_json(body: bytes) -> Incoming | list[Incoming]:
    """One event, or the events of an array. Raises `APIError` (400 or 413)."""
    if _has_many(body, MAX_BATCH_EVENTS) and count_items(body, MAX_BATCH_EVENTS + 1) > MAX_BATCH_EVENTS:
        raise _too_many()
    return decode(
        BATCH_DECODER, body, root="event", code="invalid_event", fields=EVENT_FIELDS, spare=LEVELS_AROUND_DATA
    )


def _from_lines(body: bytes) -> list[Incoming]:
    """The events of an NDJSON body. Raises `APIError` (400 or 413), which names the first bad event."""
    ends = body.count(b"\n") + (not body.endswith(b"\n"))
    if ends <= MAX_BATCH_EVENTS and not has_too_many(body) and not is_too_deep(body, LEVELS_AROUND_DATA):
        try:
            batch = LINE_DECODER.decode_lines(body)
            if len(batch) == ends:
                return batch
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # what follows finds the event and its error
    # The body has blank lines, several events in a line, an event over several lines, too many lines, or an error.
    lines = [found[0] for found in islice(_LINE.finditer(body), MAX_BATCH_EVENTS + 1)]
    if len(lines) > MAX_BATCH_EVENTS:
        raise _too_many()
    return [
        decode(
            LINE_DECODER,
            line,
            root=f"events[{index}]",
            code="invalid_event",
            fields=EVENT_FIELDS,
            spare=LEVELS_AROUND_DATA,
        )
        for index, line in enumerate(lines)
    ]


def _from_form(body: bytes) -> Incoming:
    """The event of a form. Raises `APIError` (400)."""
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError as error:
        raise APIError(400, "invalid_form", f"the body is not a form in UTF-8: {error}") from None
    values: dict[str, str] = {}
    topics = tuple(value for name, value in pairs if name == "topic")
    for name, value in pairs:
        if name not in FORM_FIELDS:
            message = f"event has the unknown field {shown(name)}; it takes {', '.join(FORM_FIELDS)}"
            if name.lstrip().startswith(("{", "[")):
                message += f" (for JSON, send Content-Type: {JSON})"
            raise APIError(400, "unknown_field", message)
        if name in values and name != "topic":
            raise APIError(400, "invalid_event", f"event.{name} is given more than once")
        values[name] = value
    private, removed = (values.get(name, "").lower() for name in ("private", "removed"))
    for name, word in (("private", private), ("removed", removed)):
        if word not in TRUE_WORDS | FALSE_WORDS:
            raise APIError(400, "invalid_event", f"event.{name} is {shown(values[name])}; it takes true or false")
    if "data" not in values and removed not in TRUE_WORDS:
        raise APIError(400, "invalid_event", "event.data is missing")
    retry = values.get("retry", "")
    if retry and not (retry.isascii() and retry.isdecimal() and len(retry) <= 18):
        raise APIError(400, "invalid_event", f"event.retry is {shown(retry)}; it takes milliseconds, a whole number")
    return Incoming(
        data=msgspec.Raw(msgspec.json.encode(values["data"])) if "data" in values else msgspec.Raw(),
        topics=topics or None,
        # A browser sends the empty fields of a form too.
        type=values.get("type") or None,
        id=values.get("id") or None,
        retry=int(retry) if retry else None,
        private=private in TRUE_WORDS if private else None,
        key=values.get("key") or None,
        removed=removed in TRUE_WORDS,
    )
