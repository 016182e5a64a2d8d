"""Operations: what can be asked of a hub over HTTP, by path and method, as OpenAPI 3.1 writes it."""

from __future__ import annotations

from ssepool.config import KiB
from ssepool.core.bans import KICK_SECONDS
from ssepool.http.audit import MAX_PAGE_ENTRIES, PAGE_ENTRIES
from ssepool.http.connections import MAX_KICK_SECONDS, MAX_PAGE_CONNECTIONS, PAGE_CONNECTIONS, STATES
from ssepool.http.needs import refusal
from ssepool.http.publish import FORM, NDJSON
from ssepool.http.query import MAX_QUERY_BYTES
from ssepool.http.revocations import MAX_PAGE_REVOCATIONS, PAGE_REVOCATIONS
from ssepool.http.schemas import ANY, NUMBER, TEXT, TOPIC, Schema, array, obj, ref
from ssepool.http.subscribe import MAX_DATA_BYTES


def param(name: str, schema: Schema, description: str, *, place: str = "query") -> Schema:
    """A parameter: `place` is `query`, `header`, or `path`, where alone it is required."""
    return {"name": name, "in": place, "required": place == "path", "schema": schema, "description": description}


def content(media_type: str, schema: Schema) -> Schema:
    """A body of a media type."""
    return {media_type: {"schema": schema}}


def json(schema: Schema | str) -> Schema:
    """A JSON body, with a schema or the name of one."""
    return content("application/json", ref(schema) if isinstance(schema, str) else schema)


def body(schema: Schema | str, *, required: bool = True) -> Schema:
    """The JSON body of a request."""
    return {"required": required, "content": json(schema)}


def answers(success: int, description: str, body: Schema | None = None, /, **refusals: str) -> Schema:
    """The responses of an operation: one success, and refusals as `_400="why"`."""
    found: Schema = {str(success): {"description": description, **({"content": body} if body else {})}}
    for status, why in refusals.items():
        found[status.removeprefix("_")] = refusal(why)
    return found


# Words and parts of the operations.

_DATA = f"{MAX_DATA_BYTES // KiB} KiB"
MAX_QUERY = f"{MAX_QUERY_BYTES // KiB} KiB"
"""The longest query string, in words."""
_UNREACHABLE = "Other nodes cannot be reached: the broker is away, or a node did not answer."
_FOREIGN = "A page of another site, which may not do this."
_GONE = "It is not open."
_TOO_MANY = "The address asks for more than its rate allows; `Retry-After` says when to come back."
_NOT_OPEN = "The pool is not open."
_TOO_SLOW = "The body did not come in time."
_WRONG_TYPE = "The body is of another type."
_NO_ROOM = "The bodies of other requests leave no room for this one."
# The refusals of every JSON body.
_BODY = {"_408": _TOO_SLOW, "_413": "The body is too large.", "_415": _WRONG_TYPE}
_CONNECTION_ID = param("id", TEXT, "The connection's id, from its `ssepool.open` event.", place="path")

_SECONDS = param(
    "seconds",
    {"type": "number", "minimum": 0, "maximum": MAX_KICK_SECONDS, "default": KICK_SECONDS},
    "For so long: its user is told to stay away (204), others to come back afterwards.",
)

PATHS: Schema = {
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
                param("last_event_id", TEXT, "Resume behind this event; `earliest`: all that is kept."),
                param("lastEventId", TEXT, "The same as `last_event_id`."),
                param("Last-Event-ID", TEXT, "The same; wins over the query.", place="header"),
                param("ticket", TEXT, "From `POST /tickets`; used up by this request."),
                param("heartbeat", {"enum": ["event"]}, "Heartbeats as `ssepool.heartbeat` events, for a page to see."),
                param("data", TEXT, f"The client's own data, JSON of at most {_DATA}, kept on the connection."),
            ],
            "responses": {
                **answers(
                    200,
                    "The stream.",
                    content("text/event-stream", TEXT),
                    _400="Unknown parameter, or a topic, pattern or data that is not well formed.",
                    _414="The query string is too long.",
                    _429=f"With `on_full = reject`. {_TOO_MANY}",
                    _503="The pool is full or not open.",
                ),
                "204": {"description": "The client has everything, or its user was kicked: it is to stay away."},
            },
        },
        "post": {
            "operationId": "publish",
            "summary": "Publish one event or a batch: all of it or nothing",
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
                _408=_TOO_SLOW,
                _409="An id is in the history already, for the same topics: with other content (`id_conflict`), or "
                "with the same and `on_duplicate` is `refuse` (`duplicate_event`).",
                _413="The body, an event or the batch is too large.",
                _415=_WRONG_TYPE,
                _429=_TOO_MANY,
                _503=f"The pool is not open, or the broker failed. {_NO_ROOM}",
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
                _403=f"They have no right to this. {_FOREIGN}",
                _429=_TOO_MANY,
                _503=f"The application that decides cannot be asked. {_NO_ROOM}",
                **_BODY,
            ),
        }
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
                    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_CONNECTIONS, "default": PAGE_CONNECTIONS},
                    "At most so many.",
                ),
                param("after", TEXT, "Only slots behind this one's: `next` of the page before."),
            ],
            "responses": answers(
                200,
                "A page. `next` is null on the last one.",
                json("Connections"),
                _400="A parameter is unknown or has a value that is not allowed.",
                _503=_UNREACHABLE,
            ),
        },
        "delete": {
            "operationId": "kickAll",
            "summary": "Kick all clients of a user, a topic or an address, on all nodes; with several, who fits all",
            "parameters": [
                param("topic", TEXT, "With this topic or pattern."),
                param("user", TEXT, "Of this user, who is kept away also where none of theirs is connected."),
                param("ip", TEXT, "From this address."),
                _SECONDS,
            ],
            "responses": answers(
                200,
                "So many are sent away.",
                json("Kicked"),
                _400="A parameter is not allowed, or none of the three says whom.",
                _403=_FOREIGN,
                _503=_UNREACHABLE,
            ),
        },
    },
    "/connections/{id}": {
        "parameters": [_CONNECTION_ID],
        "get": {
            "operationId": "getConnection",
            "summary": "One connection",
            "responses": answers(200, "The connection.", json("Connection"), _404=_GONE, _503=_UNREACHABLE),
        },
        "delete": {
            "operationId": "kick",
            "summary": "Kick a client: close its stream and keep it away for a while",
            "parameters": [_SECONDS],
            "responses": answers(
                204,
                "Kicked.",
                _400="A parameter is not allowed.",
                _403=_FOREIGN,
                _404=_GONE,
                _503=_UNREACHABLE,
            ),
        },
    },
    "/connections/{id}/messages": {
        "parameters": [_CONNECTION_ID],
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
                _404=_GONE,
                _429=_TOO_MANY,
                _503=f"{_UNREACHABLE} {_NO_ROOM}",
                _403=_FOREIGN,
                **_BODY,
            ),
        },
    },
    "/revocations": {
        "get": {
            "operationId": "listRevocations",
            "summary": "Grants that are taken back, page by page, as this node knows them",
            "parameters": [
                param(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_REVOCATIONS, "default": PAGE_REVOCATIONS},
                    "At most so many.",
                ),
                param("after", TEXT, "Only those behind this one: `next` of the page before."),
            ],
            "responses": answers(
                200,
                "A page. `next` is null on the last one.",
                json("Revocations"),
                _400="A parameter is unknown or has a value that is not allowed.",
            ),
        },
        "post": {
            "operationId": "revoke",
            "summary": "Take grants back: their streams end on all nodes, and they let nobody in any more",
            "description": "Without `subject` and `token_id` it is not allowed: it says whose grants are taken back.",
            "requestBody": body("Revoke"),
            "responses": answers(
                201,
                "What is in force for these grants now.",
                json("Revocation"),
                _400="The body is not well formed, or says nobody's.",
                _503=f"The broker did not keep it: it holds on this node alone. Or too many are in force. {_NO_ROOM}",
                _403=_FOREIGN,
                **_BODY,
            ),
        },
    },
    "/cluster": {
        "get": {
            "operationId": "getCluster",
            "summary": "All nodes of the broker: their pools, queues and how far they are behind",
            "responses": answers(200, "The nodes that answered, this one first.", json("Cluster"), _503=_UNREACHABLE),
        }
    },
    "/pool": {
        "get": {
            "operationId": "getPool",
            "summary": "The numbers of this node: of all its workers together, and of each",
            "responses": answers(200, "The numbers.", json("Pool"), _503=_UNREACHABLE),
        },
        "patch": {
            "operationId": "resizePool",
            "summary": "Change the number of slots; surplus ones go as their clients leave",
            "requestBody": body("Resize"),
            "responses": answers(
                200,
                "The numbers afterwards.",
                json("Pool"),
                _400="The size is not allowed.",
                _503=f"{_NOT_OPEN} {_NO_ROOM}",
                _403=_FOREIGN,
                **_BODY,
            ),
        },
    },
    "/pool/drain": {
        "post": {
            "operationId": "drainPool",
            "summary": "Take no more clients and send those there are away, one by one",
            "requestBody": body("Drain", required=False),
            "responses": answers(
                202,
                "Draining.",
                json(obj("draining seconds", draining={"const": True}, seconds=NUMBER)),
                _400="The seconds are not allowed.",
                _503=f"{_NOT_OPEN} {_NO_ROOM}",
                _403=_FOREIGN,
                **_BODY,
            ),
        }
    },
    "/audit": {
        "get": {
            "operationId": "getAudit",
            "summary": "The last that operators did, and that was refused for want of rights, at all workers",
            "parameters": [
                param(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_ENTRIES, "default": PAGE_ENTRIES},
                    "At most so many.",
                )
            ],
            "responses": answers(
                200,
                "The entries, the newest first.",
                json("Audit"),
                _400="A parameter is unknown or has a value that is not allowed.",
                _503=_UNREACHABLE,
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
            "responses": answers(200, "It does.", json(obj("status", status={"const": "live"}))),
        }
    },
    "/health/ready": {
        "get": {
            "operationId": "getReady",
            "summary": "Whether clients are taken",
            "responses": answers(
                200,
                "They are.",
                json(obj("status", status={"const": "ready"})),
                _503="The pool is not open yet, is draining, or is closed; or the broker is away.",
            ),
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "getOpenAPI",
            "summary": "This document",
            "responses": answers(200, "The document.", json({"type": "object"})),
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
            "requestBody": body("DemoJob"),
            "responses": {
                **answers(
                    202,
                    "Started.",
                    json(obj("job", job=TEXT)),
                    _400="The body is not allowed.",
                    _503=f"Too many jobs are running. {_NO_ROOM}",
                    _403=_FOREIGN,
                    **_BODY,
                ),
                **answers(200, "The tab's job that runs already.", json(obj("job", job=TEXT))),
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
"""The operations, by path and method."""
