"""GET /openapi.json: the whole HTTP surface as an OpenAPI 3.1 document, kept by hand in this file.

A test compares it with the routes of the application, so neither has what the other lacks.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ssepool.config import PoolConfig
from ssepool.core.states import Reason
from ssepool.http.connections import KICK, MOST_KICK, MOST_PAGE, PAGE, STATES
from ssepool.http.pool import MOST_DRAIN, Drain
from ssepool.http.reply import JSONReply

Schema = dict[str, Any]


def routes() -> list[BaseRoute]:
    """The route of this file."""

    async def openapi(request: Request) -> Response:
        # Where the surface is mounted, the paths below count from there.
        return JSONReply({**DOCUMENT, "servers": [{"url": request.scope.get("root_path", "") or "/"}]})

    return [Route("/openapi.json", openapi, methods=["GET"])]


# The words that the document is written in.


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def obj(required: str = "", /, **properties: Schema) -> Schema:
    names = required.split()
    return {"type": "object", **({"required": names} if names else {}), "properties": properties}


def array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def param(name: str, schema: Schema, description: str, *, place: str = "query", required: bool = False) -> Schema:
    required = required or place == "path"
    return {"name": name, "in": place, "required": required, "schema": schema, "description": description}


def content(media_type: str, schema: Schema) -> Schema:
    return {media_type: {"schema": schema}}


def answers(success: int, description: str, body: Schema | None = None, /, **refusals: str) -> Schema:
    """The responses of an operation: one success, and refusals as `_400="why"`."""
    found: Schema = {str(success): {"description": description, **({"content": body} if body else {})}}
    for status, why in refusals.items():
        found[status.removeprefix("_")] = {"description": why, "content": content("application/json", ref("Error"))}
    return found


UNREACHABLE = "Other nodes cannot be reached: the broker is away, or a node did not answer."

TEXT: Schema = {"type": "string"}
OPTIONAL_TEXT: Schema = {"type": ["string", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {"description": "Anything that JSON can carry."}
TOPIC: Schema = {"type": "string", "minLength": 1, "maxLength": 1024}
CONNECTION_ID = param("id", TEXT, "The connection's id, from its `ssepool.open` event.", place="path")
SIZE = {
    key: PoolConfig.__dataclass_fields__["size"].metadata[name]
    for key, name in (("minimum", "least"), ("maximum", "most"))
}

WORKER: Schema = {"type": ["integer", "null"], "minimum": 0, "description": "Its number among the workers."}
NUMBERS: Schema = {
    "node": TEXT,
    "pool": obj(
        "state size free reserved open closing waiting max_waiting requests queued granted timed_out cancelled "
        "refused wait_seconds open_seconds released",
        state={"enum": ["new", "open", "draining", "closed"]},
        size=COUNT,
        free=COUNT,
        reserved=COUNT,
        open=COUNT,
        closing=COUNT,
        waiting=COUNT,
        max_waiting=COUNT,
        requests=COUNT,
        queued=COUNT,
        granted=COUNT,
        timed_out=COUNT,
        cancelled=COUNT,
        refused=COUNT,
        wait_seconds=NUMBER,
        open_seconds=NUMBER,
        released=obj(" ".join(reason.value for reason in Reason), **{reason.value: COUNT for reason in Reason}),
    ),
    "events": obj("published delivered skipped", published=COUNT, delivered=COUNT, skipped=COUNT),
    "bytes_sent": COUNT,
    "feeds": COUNT,
    "history": obj("events bytes", events=COUNT, bytes=COUNT),
    "uptime": NUMBER,
}

SCHEMAS: Schema = {
    "Error": obj("error", error=obj("code message", code=TEXT, message=TEXT)),
    "Event": {
        **obj(
            "data",
            topic=TOPIC,
            topics=array(TOPIC, minItems=1),
            data={"description": "A string is sent as it is, anything else as JSON."},
            type={"type": ["string", "null"], "minLength": 1, "maxLength": 256, "description": "Not `ssepool.*`."},
            id={
                "type": ["string", "null"],
                "pattern": "^[!-~]{1,128}$",
                "description": "Visible ASCII, at most 128 bytes; without it the hub makes one.",
            },
            retry={"type": ["integer", "null"], "minimum": 0, "description": "Milliseconds."},
            private={"type": "boolean", "default": False, "description": "Only for clients with that right."},
        ),
        "oneOf": [{"required": ["topic"]}, {"required": ["topics"]}],
        "additionalProperties": False,
    },
    "EventForm": {
        **obj("topic data", topic=array(TOPIC, minItems=1), data=TEXT, type=TEXT, id=TEXT, retry=COUNT, private=TEXT),
        "additionalProperties": False,
    },
    "Connection": obj(
        "id state user ip topics patterns data opened_at events_sent bytes_sent events_skipped",
        id=TEXT,
        state={"enum": list(STATES)},
        user=OPTIONAL_TEXT,
        ip=OPTIONAL_TEXT,
        topics=array(TEXT),
        patterns=array(TEXT),
        data={"description": "The client's own data, as it gave it when it subscribed."},
        opened_at={"type": "number", "description": "Unix time in seconds."},
        events_sent=COUNT,
        bytes_sent=COUNT,
        events_skipped=COUNT,
    ),
    "Pool": obj(
        f"{' '.join(NUMBERS)} workers missing",
        **NUMBERS,
        workers=array(ref("Node"), description="Each of the processes on this port, where there are several."),
        missing=array(ref("Name"), description="Workers that did not answer in time: the sums are without them."),
    ),
    "Name": obj(
        "node host pid",
        node=TEXT,
        host=TEXT,
        pid=COUNT,
        group={"type": ["string", "null"], "description": "Names the workers of one port."},
        worker=WORKER,
    ),
    "Node": obj(
        f"{' '.join(NUMBERS)} host pid worker broker",
        **NUMBERS,
        host=TEXT,
        pid=COUNT,
        worker=WORKER,
        broker=obj(
            "url position behind failing",
            url=TEXT,
            position=COUNT,
            behind={**COUNT, "description": "Events that the broker has and this process has not."},
            failing={**OPTIONAL_TEXT, "description": "Why the broker cannot be reached; null if it can."},
        ),
    ),
}

PATHS: Schema = {
    "/events": {
        "get": {
            "operationId": "subscribe",
            "summary": "Subscribe: a stream of Server-Sent Events",
            "description": (
                "Takes a slot of the pool, or waits for one. The first event has the type `ssepool.open` and tells the "
                "connection's id and token. 204 tells a client that was kicked not to come back yet."
            ),
            "parameters": [
                param("topic", array(TOPIC), "Exact topic names; at least one topic or pattern."),
                param("pattern", array(TOPIC), "WHATWG URL Patterns over topic names."),
                param("last_event_id", TEXT, "Resume behind this event; `earliest`: all that is kept."),
                param("lastEventId", TEXT, "The same as `last_event_id`."),
                param("Last-Event-ID", TEXT, "The same; wins over the query.", place="header"),
                param("data", TEXT, "The client's own data, JSON of at most 2 KiB, kept on the connection."),
            ],
            "responses": {
                **answers(
                    200,
                    "The stream.",
                    content("text/event-stream", TEXT),
                    _400="Unknown parameter, or a topic, pattern or data that is not well formed.",
                    _414="The query string is too long.",
                    _503="The pool is full or not open.",
                ),
                "204": {"description": "The client was kicked: come back later, or not at all."},
            },
        },
        "post": {
            "operationId": "publish",
            "summary": "Publish one event or a batch: all of it or nothing",
            "requestBody": {
                "required": True,
                "content": {
                    **content("application/json", {"oneOf": [ref("Event"), array(ref("Event"), minItems=1)]}),
                    **content("application/x-ndjson", {"type": "string", "description": "One `Event` a line."}),
                    **content("application/x-www-form-urlencoded", ref("EventForm")),
                },
            },
            "responses": answers(
                201,
                "Published.",
                content("application/json", obj("ids", ids=array(TEXT))),
                _400="The body is not well formed, or an event is not allowed: the message says which and why.",
                _403="A topic of the hub's own, or a page of another site.",
                _408="The body did not come in time.",
                _409="An id is in the history already, and `on_duplicate` is `refuse`.",
                _413="The body or an event is too large.",
                _415="The body is of another type.",
                _503="The pool is not open, or the broker failed.",
            ),
        },
    },
    "/connections": {
        "get": {
            "operationId": "listConnections",
            "summary": "Who is connected to any node, page by page, in the order of nodes and slots",
            "parameters": [
                param("topic", TEXT, "Only with this topic or pattern."),
                param("user", TEXT, "Only of this user."),
                param("ip", TEXT, "Only from this address."),
                param("state", {"enum": list(STATES)}, "Only in this state."),
                param(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": MOST_PAGE, "default": PAGE},
                    "At most so many.",
                ),
                param("after", TEXT, "Only slots behind this one's: `next` of the page before."),
            ],
            "responses": answers(
                200,
                "A page. `next` is null on the last one.",
                content(
                    "application/json",
                    obj(
                        "connections next missing",
                        connections=array(ref("Connection")),
                        next=OPTIONAL_TEXT,
                        missing=array(TEXT, description="Nodes that did not answer: theirs are not among them."),
                    ),
                ),
                _400="A parameter is unknown or has a value that is not allowed.",
                _503=UNREACHABLE,
            ),
        }
    },
    "/connections/{id}": {
        "parameters": [CONNECTION_ID],
        "get": {
            "operationId": "getConnection",
            "summary": "One connection",
            "responses": answers(
                200,
                "The connection.",
                content("application/json", ref("Connection")),
                _404="It is not open.",
                _503=UNREACHABLE,
            ),
        },
        "delete": {
            "operationId": "kick",
            "summary": "Kick a client: close its stream and keep it away for a while",
            "parameters": [
                param(
                    "seconds",
                    {"type": "number", "minimum": 0, "maximum": MOST_KICK, "default": KICK},
                    "Who comes back within that time gets 204.",
                )
            ],
            "responses": answers(
                204,
                "Kicked.",
                _400="A parameter is not allowed.",
                _403="A page of another site.",
                _404="It is not open.",
                _503=UNREACHABLE,
            ),
        },
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
            "requestBody": {"required": True, "content": content("application/json", ANY)},
            "responses": answers(
                202,
                "Handed to the application.",
                content("application/json", obj("accepted", accepted={"const": True})),
                _400="The body is not JSON.",
                _401="The token is missing or wrong.",
                _403="A page of another site.",
                _404="It is not open.",
                _408="The body did not come in time.",
                _413="The body is too large.",
                _415="The body is of another type.",
                _503=UNREACHABLE,
            ),
        },
    },
    "/cluster": {
        "get": {
            "operationId": "getCluster",
            "summary": "All nodes of the broker: their pools, queues and how far they are behind",
            "responses": answers(
                200,
                "The nodes that answered, this one first.",
                content(
                    "application/json",
                    obj("nodes missing", nodes=array(ref("Node")), missing=array(ref("Name"))),
                ),
                _503=UNREACHABLE,
            ),
        }
    },
    "/pool": {
        "get": {
            "operationId": "getPool",
            "summary": "The numbers of this node: of all its workers together, and of each",
            "responses": answers(200, "The numbers.", content("application/json", ref("Pool")), _503=UNREACHABLE),
        },
        "patch": {
            "operationId": "resizePool",
            "summary": "Change the number of slots; surplus ones go as their clients leave",
            "requestBody": {
                "required": True,
                "content": content("application/json", obj("size", size={"type": "integer", **SIZE})),
            },
            "responses": answers(
                200,
                "The numbers afterwards.",
                content("application/json", ref("Pool")),
                _400="The size is not allowed.",
                _403="A page of another site.",
                _413="The body is too large.",
                _415="The body is of another type.",
                _503="The pool is not open.",
            ),
        },
    },
    "/pool/drain": {
        "post": {
            "operationId": "drainPool",
            "summary": "Take no more clients and send those there are away, one by one",
            "requestBody": {
                "required": False,
                "content": content(
                    "application/json",
                    obj(seconds={"type": "number", "minimum": 0, "maximum": MOST_DRAIN, "default": Drain().seconds}),
                ),
            },
            "responses": answers(
                202,
                "Draining.",
                content("application/json", obj("draining seconds", draining={"const": True}, seconds=NUMBER)),
                _400="The seconds are not allowed.",
                _403="A page of another site.",
                _413="The body is too large.",
                _415="The body is of another type.",
                _503="The pool is not open.",
            ),
        }
    },
    "/metrics": {
        "get": {
            "operationId": "getMetrics",
            "summary": "The numbers for Prometheus",
            "responses": answers(200, "Prometheus text or OpenMetrics, by `Accept`.", content("text/plain", TEXT)),
        }
    },
    "/health/live": {
        "get": {
            "operationId": "getLive",
            "summary": "Whether the process lives",
            "responses": answers(200, "It does.", content("application/json", obj("status", status={"const": "live"}))),
        }
    },
    "/health/ready": {
        "get": {
            "operationId": "getReady",
            "summary": "Whether clients are taken",
            "responses": answers(
                200,
                "They are.",
                content("application/json", obj("status", status={"const": "ready"})),
                _503="The pool is not open yet, is draining, or is closed; or the broker is away.",
            ),
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "getOpenAPI",
            "summary": "This document",
            "responses": answers(200, "The document.", content("application/json", {"type": "object"})),
        }
    },
    "/dashboard": {
        "get": {
            "operationId": "getDashboard",
            "summary": "The operator's page: the pool live, its connections, resize, drain",
            "responses": answers(200, "The page.", content("text/html", TEXT)),
        }
    },
    "/demo": {
        "get": {
            "operationId": "getDemo",
            "summary": "The demo, a page",
            "responses": answers(200, "The page.", content("text/html", TEXT)),
        }
    },
    "/demo/jobs": {
        "post": {
            "operationId": "startDemoJob",
            "summary": "Start the demo's long job",
            "requestBody": {"required": True, "content": content("application/json", obj("tab", tab=TEXT))},
            "responses": {
                **answers(
                    202,
                    "Started.",
                    content("application/json", obj("job", job=TEXT)),
                    _400="The body is not allowed.",
                    _403="A page of another site.",
                    _413="The body is too large.",
                    _415="The body is of another type.",
                    _503="Too many jobs are running.",
                ),
                "200": {
                    "description": "The tab's job that runs already.",
                    "content": content("application/json", obj("job", job=TEXT)),
                },
            },
        }
    },
    "/ssepool.js": {
        "get": {
            "operationId": "getClient",
            "summary": "The browser client, an ES module",
            "responses": answers(200, "The module.", content("text/javascript", TEXT)),
        }
    },
}

DOCUMENT: Schema = {
    "openapi": "3.1.0",
    "info": {
        "title": "ssepool",
        "version": "1",
        "description": (
            "Server-Sent Events from one managed, bounded pool of connections. Every refusal is JSON: "
            '`{"error": {"code": "...", "message": "..."}}`. A query string takes 8 KiB at most (414).'
        ),
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "paths": PATHS,
    "components": {"schemas": SCHEMAS},
}
