"""Clients: what those who read, publish and send messages can ask for."""

from __future__ import annotations

from ssepool.http.body import FORM
from ssepool.http.needs import refusal
from ssepool.http.operations.words import (
    BODY,
    CONNECTION_ID,
    DATA,
    FOREIGN,
    GONE,
    NO_ROOM,
    TOO_MANY,
    TOO_SLOW,
    UNREACHABLE,
    WRONG_TYPE,
    answers,
    body,
    content,
    json,
    param,
    stream,
)
from ssepool.http.publish import NDJSON
from ssepool.http.schemas import ANY, TEXT, TOPIC, Schema, array, obj, ref

_BESIDE_BODY = [
    param(
        "last_event_id",
        TEXT,
        "Resume behind this event; `earliest`: all that is kept; `latest`, `last=N`: the newest of each topic.",
    ),
    param("lastEventId", TEXT, "The same as `last_event_id`; the last in the query counts."),
    param("Last-Event-ID", TEXT, "The same; wins over the query, unless it is empty.", place="header"),
    param("ticket", TEXT, "From `POST /tickets`; used up by this request."),
]
_WISH = {"required": True, "content": {**json("Subscription"), **content(FORM, ref("SubscriptionForm"))}}
_STREAMED = {
    **answers(
        200,
        "The stream.",
        stream(ref("StreamEvent")),
        _400="Unknown parameter, or a topic, pattern or data that is not well formed.",
        _414="The query string is too long.",
        _429=f"With `on_full = reject`. {TOO_MANY}",
        _503="The pool is full or not open.",
    ),
    "204": {"description": "The client has everything, or its user was kicked: it is to stay away."},
}
_REFUSED_BODY = {status.removeprefix("_"): refusal(why) for status, why in BODY.items()}

CLIENTS: Schema = {
    "/events": {
        "get": {
            "operationId": "subscribe",
            "summary": "Subscribe: a stream of Server-Sent Events",
            "description": (
                "Takes a slot of the pool, or waits for one. The first event has the type `ssepool.open` and tells the "
                "connection's id and token. Who has to come back later gets one event, `ssepool.close`, with a "
                "`retry:`, and so does who comes with a token that ran out a moment ago. 204 tells a user who was "
                "kicked, and a client that has everything, to stay away."
            ),
            "parameters": [
                param("topic", array(TOPIC), "Exact topic names; at least one topic or pattern."),
                param("pattern", array(TOPIC), "WHATWG URL Patterns over topic names; `(...)` only if allowed."),
                *_BESIDE_BODY,
                param("heartbeat", {"enum": ["event"]}, "Heartbeats as `ssepool.heartbeat` events, for a page to see."),
                param("data", TEXT, f"The client's own data, JSON of at most {DATA}, kept on the connection."),
            ],
            "responses": _STREAMED,
        },
        "query": {
            "operationId": "subscribeByQuery",
            "summary": "Subscribe with the topics in the body (RFC 10008): a list may be longer than a query string",
            "parameters": _BESIDE_BODY,
            "requestBody": _WISH,
            "responses": {**_STREAMED, **_REFUSED_BODY},
        },
        "post subscribe": {
            "operationId": "subscribeByPost",
            "summary": "Subscribe as QUERY does, for clients that have no such method",
            "description": "With `Accept: text/event-stream`; without, it is not for the stream.",
            "parameters": _BESIDE_BODY,
            "requestBody": _WISH,
            "responses": {**_STREAMED, **_REFUSED_BODY},
        },
        "post": {
            "operationId": "publish",
            "summary": "Publish one event or a batch: all of it or nothing",
            "description": (
                "With `Accept: text/event-stream` it publishes nothing: it subscribes, with the body, the right and "
                "the answers of QUERY."
            ),
            "requestBody": {
                "required": True,
                "content": {
                    **json({"oneOf": [ref("Event"), array(ref("Event"), minItems=1)]}),
                    **content(NDJSON, {"type": "string", "description": "One `Event` a line."}),
                    **content(FORM, ref("EventForm")),
                },
            },
            "responses": answers(
                201,
                "Published.",
                json(obj("ids", ids=array(TEXT))),
                _400="The body is not well formed, or an event is not allowed: the message says which and why.",
                _403="A topic of the hub's own, or a page of another site.",
                _408=TOO_SLOW,
                _409="An id is in the history already, for the same topics: with other content (`id_conflict`), or "
                "with the same and `on_duplicate` is `refuse` (`duplicate_event`).",
                _413="The body, an event or the batch is too large.",
                _415=WRONG_TYPE,
                _429=TOO_MANY,
                _503=f"The pool is not open, or the broker failed. {NO_ROOM}",
            ),
        },
    },
    "/tickets": {
        "post": {
            "operationId": "issueTicket",
            "summary": "A ticket for one subscription: for an EventSource of another site's page",
            "requestBody": body("TicketWish"),
            "responses": answers(
                201,
                "The ticket. It counts once, for exactly these topics and patterns.",
                json("Ticket"),
                _400="The body is not well formed, or a topic or pattern is not allowed.",
                _401="Who asks is not known, or their credentials do not count.",
                _403=f"They have no right to this. {FOREIGN}",
                _429=TOO_MANY,
                _503=f"The application that decides cannot be asked. {NO_ROOM}",
                **BODY,
            ),
        }
    },
    "/connections/{id}/messages": {
        "parameters": [CONNECTION_ID],
        "post": {
            "operationId": "sendMessage",
            "summary": "A client's own data to the server, while its stream is open",
            "parameters": [
                param("Authorization", TEXT, "`Bearer` and the token from `ssepool.open`.", place="header"),
                param("token", TEXT, "The token, for clients that cannot set a header."),
            ],
            "requestBody": body(ANY),
            "responses": answers(
                202,
                "Handed to the application.",
                json(obj("accepted", accepted={"const": True})),
                _400="The body is not JSON, or nested too deep.",
                _401="The token is missing or wrong.",
                _404=GONE,
                _429=TOO_MANY,
                _503=f"{UNREACHABLE} {NO_ROOM}",
                _403=FOREIGN,
                **BODY,
            ),
        },
    },
}
"""The operations of clients, by path and method."""
