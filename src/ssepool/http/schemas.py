"""The schemas of the OpenAPI document, derived from the structs that the endpoints read and write.

They are JSON Schemas of draft 2020-12, as OpenAPI 3.2 takes them (section 4.24).
"""

from __future__ import annotations

from typing import Any

import msgspec

from ssepool.core.audit import Entry
from ssepool.core.refusal import ErrorBody
from ssepool.core.report import ClusterReport, Node, NodeReport, PoolReport
from ssepool.core.revocations import Revocation
from ssepool.core.topics import MAX_NAME_CHARACTERS
from ssepool.http.audit import AuditLog
from ssepool.http.connections import ConnectionList, Kicked
from ssepool.http.demo import Start
from ssepool.http.pool import Drain, Resize
from ssepool.http.publish import Incoming
from ssepool.http.revocations import RevocationList, Revoke
from ssepool.http.tickets import NewTicket, TicketWish
from ssepool.http.topics import TopicList
from ssepool.http.wish import StreamWish
from ssepool.runtime.cluster.messages import ConnectionInfo
from ssepool.runtime.cluster.topics import TopicInfo

Schema = dict[str, Any]
"""A schema, or another part of the document."""

NAMES = {
    ErrorBody: "Error",
    Incoming: "Event",
    ConnectionInfo: "Connection",
    ConnectionList: "Connections",
    Kicked: "Kicked",
    TopicInfo: "Topic",
    TopicList: "Topics",
    AuditLog: "Audit",
    Entry: "AuditEntry",
    PoolReport: "Pool",
    ClusterReport: "Cluster",
    NodeReport: "Node",
    Node: "Name",
    Resize: "Resize",
    Drain: "Drain",
    Revoke: "Revoke",
    Revocation: "Revocation",
    RevocationList: "Revocations",
    Start: "DemoJob",
    TicketWish: "TicketWish",
    StreamWish: "Subscription",
    NewTicket: "Ticket",
}
"""The structs of JSON bodies, and their names in the document. Structs inside these keep their own names."""

TEXT: Schema = {"type": "string"}
"""Any text."""
COUNT: Schema = {"type": "integer", "minimum": 0}
"""A number of things."""
NUMBER: Schema = {"type": "number", "minimum": 0}
"""A number that is not negative."""
ANY: Schema = {"description": "Anything that JSON can carry."}
"""Any JSON."""
TOPIC: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARACTERS}
"""A topic or a pattern."""


def ref(name: str) -> Schema:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def obj(required: str = "", /, **properties: Schema) -> Schema:
    """The schema of an object. `required` has the names of the properties that must be there, with spaces between."""
    names = required.split()
    return {"type": "object", **({"required": names} if names else {}), "properties": properties}


def array(items: Schema, **more: Any) -> Schema:
    """The schema of an array."""
    return {"type": "array", "items": items, **more}


def schemas() -> Schema:
    """All schemas of the document, by name."""
    _, components = msgspec.json.schema_components(NAMES, ref_template="#/components/schemas/{name}")
    names = {kind.__name__: name for kind, name in NAMES.items()}
    references = {ref(own)["$ref"]: ref(name)["$ref"] for own, name in names.items()}
    found = {names.get(own, own): _renamed(schema, references) for own, schema in components.items()}
    for name, schema in found.items():
        schema["title"] = name
    # No annotation of a struct can tell which fields exclude each other.
    found["Event"]["oneOf"] = [{"required": ["topic"]}, {"required": ["topics"]}]
    found["Event"]["anyOf"] = [{"required": ["data"]}, {"required": ["key", "removed"]}]
    # A form has no struct: all its values are texts.
    texts = dict.fromkeys(("data", "type", "id", "private", "key", "removed"), TEXT)
    form = obj("topic", topic=array(TOPIC, minItems=1), retry=COUNT, **texts)
    found["EventForm"] = {**form, "anyOf": found["Event"]["anyOf"], "additionalProperties": False}
    wish = {"topic": array(TOPIC), "pattern": array(TOPIC), "last_event_id": TEXT, "lastEventId": TEXT, "data": TEXT}
    wish["heartbeat"] = {"enum": ["event"]}
    found["SubscriptionForm"] = {**obj(**wish), "additionalProperties": False}
    # The fields of an event as readers of streams have them (WHATWG HTML, 9.2.6).
    found["StreamEvent"] = obj("data", data=TEXT, event=TEXT, id=TEXT, retry=COUNT)
    return found


def _renamed(node: Any, references: dict[str, str]) -> Any:
    """A schema in which every reference has its new name."""
    if isinstance(node, list):
        return [_renamed(item, references) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: references.get(value, value) if key == "$ref" else _renamed(value, references)
        for key, value in node.items()
    }
