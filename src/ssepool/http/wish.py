"""Wish: how it is read what a client asks the stream for, in the query of GET /events or the body of QUERY and POST."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ssepool.config import KiB
from ssepool.core.frames import BEATING, DIALECT, Dialect
from ssepool.core.topics import Subscription, has_regexp, shown
from ssepool.core.visit import IN_QUERY, Scope, last_id
from ssepool.http.body import JSON, decode
from ssepool.http.depth import TOO_DEEP, is_too_deep
from ssepool.http.errors import APIError
from ssepool.http.query import Ignored, pairs_of
from ssepool.http.wishes import Wish

MAX_DATA_BYTES = 2 * KiB
"""Bytes of a client's own data at most, as JSON in UTF-8."""
MAX_WISH_BYTES = 32 * KiB
"""Bytes of a body at most."""
MAX_PATTERNS = 10
"""Patterns of one subscription at most."""
MAX_REGEXP_CHARACTERS = 64
"""Characters of a pattern with a regular expression at most. To compile `(\\w{100})` takes 80 ms and 20 MB, and a
stranger must not be able to demand that again and again."""

PARAMETERS = ("topic", "pattern", *IN_QUERY, "data", "heartbeat", "ticket")
"""The query parameters of GET /events."""
FORM_FIELDS = PARAMETERS[:-1]
"""The fields of a form. A ticket is for those who can send no body."""
BESIDE_BODY = ("ticket", *IN_QUERY)
"""The query parameters of QUERY and POST: what has its place in a body is not looked for in two."""

NONE_IGNORED = Ignored()
"""No parameter is ignored."""


class StreamWish(msgspec.Struct, forbid_unknown_fields=True):
    """A wish as a body has it: topics or patterns, and what the query of GET /events may have."""

    topics: Annotated[tuple[str, ...], Meta(description="Exact topic names.")] = ()
    patterns: Annotated[tuple[str, ...], Meta(description="WHATWG URL Patterns over topic names.")] = ()
    last_event_id: Annotated[
        str | None, Meta(description="Resume behind this event, unless the header or the query names a newer one.")
    ] = None
    data: Annotated[Any, Meta(description="The client's own data, kept on the connection.")] = None
    heartbeat: Annotated[str | None, Meta(description="`event`: heartbeats as `ssepool.heartbeat` events.")] = None


WISH_DECODER = msgspec.json.Decoder(StreamWish)
"""Reads a body."""


def asks_for_stream(method: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request for /events wants its stream. A POST is one for a stream if it says that it accepts one, as
    every reader of streams does and no publisher; the names of `headers` are in lower case."""
    if method != "POST":
        return method in ("GET", "HEAD", "QUERY")
    return any(name == b"accept" and b"text/event-stream" in value.lower() for name, value in headers)


def read_wish(scope: Scope, *, allow_regexp: bool, ignored: Ignored = NONE_IGNORED) -> Wish:
    """What a request for the stream asks for, from its ASGI scope. Raises `APIError` (400) or `InvalidTopic`."""
    query = read_subscription(scope["query_string"], allow_regexp=allow_regexp, ignored=ignored)
    wanted = Subscription.of(query["topic"], query["pattern"], private=True, compiled=False)
    return Wish(wanted, query["data"], query["heartbeat"])


def read_body_wish(kind: str, body: bytes, *, allow_regexp: bool, ignored: Ignored = NONE_IGNORED) -> Wish:
    """What a body asks for: JSON, or a form with the names of the query. Raises as `read_wish`."""
    if kind == JSON:
        fields = StreamWish.__struct_fields__
        wish = decode(WISH_DECODER, body, root="the subscription", code="invalid_json", fields=fields, spare=1)
        check_patterns(wish.patterns, allow_regexp=allow_regexp)
        topics, patterns, last_event_id = wish.topics, wish.patterns, wish.last_event_id
        data = None if wish.data is None else read_data(msgspec.json.encode(wish.data).decode())
        dialect = DIALECT if wish.heartbeat is None else read_heartbeat(wish.heartbeat)
    else:
        found = read_subscription(body, allow_regexp=allow_regexp, ignored=ignored, takes=FORM_FIELDS, of="a form")
        topics, patterns, data, last_event_id = found["topic"], found["pattern"], found["data"], last_id(body)
        dialect = found["heartbeat"]
    return Wish(Subscription.of(topics, patterns, private=True, compiled=False), data, dialect, last_event_id)


def check_beside_body(query_string: bytes, ignored: Ignored = NONE_IGNORED) -> None:
    """Raise `APIError` (400) for a query with more than may stand beside a body."""
    read_subscription(query_string, allow_regexp=False, ignored=ignored, takes=BESIDE_BODY, of="a query beside a body")


def read_subscription(
    query_string: bytes,
    *,
    allow_regexp: bool,
    ignored: Ignored = NONE_IGNORED,
    takes: Collection[str] = PARAMETERS,
    of: str = "GET /events",
) -> dict[str, Any]:
    """The lists `topic` and `pattern`, the value `data` and the dialect that `heartbeat` asks for, of a query string.
    Raises `APIError` (400), for a parameter that it does not take, too, unless that is ignored."""
    found: dict[str, Any] = {"topic": [], "pattern": [], "data": None, "heartbeat": DIALECT}
    try:
        pairs = pairs_of(query_string.decode("ascii"))
    except (UnicodeDecodeError, ValueError) as error:
        raise APIError(400, "invalid_query", f"the query is not percent-encoded UTF-8: {error}") from error
    for name, value in pairs:
        if name not in takes:
            if name in ignored:
                continue
            message = f"there is no parameter {shown(name)}; {of} takes {', '.join(takes)}"
            raise APIError(400, "unknown_parameter", message)
        if name == "data":
            found["data"] = read_data(value)
        elif name == "heartbeat":
            found["heartbeat"] = read_heartbeat(value)
        elif name in found:
            found[name].append(value)
    if patterns := found["pattern"]:
        check_patterns(patterns, allow_regexp=allow_regexp)
    return found


def check_patterns(patterns: Collection[str], *, allow_regexp: bool) -> None:
    """Raise `APIError` (400) for too many patterns, and for a pattern that costs too much to compile."""
    if len(patterns) > MAX_PATTERNS:
        raise APIError(400, "invalid_topic", f"{len(patterns)} patterns; a subscription takes {MAX_PATTERNS} at most")
    for pattern in patterns:
        if not has_regexp(pattern):
            continue
        if not allow_regexp:
            raise APIError(
                400,
                "invalid_topic",
                f"pattern {shown(pattern)} is not allowed: it has a regular expression in it, (...), and allow_regexp "
                "is off; without that it takes '*', ':name' and '{...}'",
            )
        if len(pattern) > MAX_REGEXP_CHARACTERS or "{" in pattern:
            raise APIError(
                400,
                "invalid_topic",
                f"pattern {shown(pattern)} is not allowed: with a regular expression in it, a pattern takes "
                f"{MAX_REGEXP_CHARACTERS} characters at most and no braces",
            )


def read_heartbeat(text: str) -> Dialect:
    """The dialect with the heartbeats that a client asks for. Raises `APIError` (400) for anything but `event`."""
    if text != "event":
        raise APIError(400, "invalid_parameter", f"heartbeat={shown(text)} is not allowed; it takes 'event'")
    return BEATING


def read_data(text: str) -> Any:
    """The client's own data, from JSON. Raises `APIError` (400) for other text, for more than `MAX_DATA_BYTES` bytes,
    and for JSON that is nested too deep."""
    given = text.encode()
    if len(given) > MAX_DATA_BYTES:
        raise APIError(400, "data_too_large", f"data has {len(given)} bytes; it takes JSON of at most {MAX_DATA_BYTES}")
    if is_too_deep(given):
        raise APIError(400, "invalid_json", f"data {TOO_DEEP}")
    try:
        return msgspec.json.decode(given)
    except msgspec.DecodeError as error:
        raise APIError(400, "invalid_json", f"data is not JSON: {error}") from error
