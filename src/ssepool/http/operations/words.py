"""Words: what the descriptions of operations are made of, and what several of them say."""

from __future__ import annotations

from ssepool.config import KiB
from ssepool.core.bans import KICK_SECONDS
from ssepool.http.connections import MAX_KICK_SECONDS
from ssepool.http.needs import refusal
from ssepool.http.query import MAX_QUERY_BYTES
from ssepool.http.schemas import TEXT, Schema, ref
from ssepool.http.wish import MAX_DATA_BYTES


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


def stream(schema: Schema) -> Schema:
    """A body that is a stream of Server-Sent Events, each as this schema says (OpenAPI 3.2, 4.14.4)."""
    return {"text/event-stream": {"itemSchema": schema}}


DATA = f"{MAX_DATA_BYTES // KiB} KiB"
"""The most data of a client, in words."""
MAX_QUERY = f"{MAX_QUERY_BYTES // KiB} KiB"
"""The longest query string, in words."""
UNREACHABLE = "Other nodes cannot be reached: the broker is away, or a node did not answer."
"""Why a question to all nodes has no answer."""
FOREIGN = "A page of another site, which may not do this."
"""Why a page is refused."""
GONE = "It is not open."
"""Why a connection is not found."""
TOO_MANY = "The address asks for more than its rate allows; `Retry-After` says when to come back."
"""Why an address is refused."""
NOT_OPEN = "The pool is not open."
"""Why the pool cannot be changed."""
TOO_SLOW = "The body did not come in time."
"""Why a body is not waited for."""
WRONG_TYPE = "The body is of another type."
"""Why a body is not read."""
NO_ROOM = "The bodies of other requests leave no room for this one."
"""Why a body is to come back later."""
BODY = {"_408": TOO_SLOW, "_413": "The body is too large.", "_415": WRONG_TYPE}
"""The refusals of every JSON body."""
CONNECTION_ID = param("id", TEXT, "The connection's id, from its `ssepool.open` event.", place="path")
"""The parameter of a connection's path."""
SECONDS = param(
    "seconds",
    {"type": "number", "minimum": 0, "maximum": MAX_KICK_SECONDS, "default": KICK_SECONDS},
    "For so long: its user is told to stay away (204), others to come back afterwards.",
)
"""How long those are kept away who are kicked."""
