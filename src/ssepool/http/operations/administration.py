"""Administration: what operators can ask for."""

from __future__ import annotations

from ssepool.http.audit import MAX_PAGE_ENTRIES, PAGE_ENTRIES
from ssepool.http.connections import MAX_PAGE_CONNECTIONS, PAGE_CONNECTIONS, STATES
from ssepool.http.operations.words import (
    BODY,
    CONNECTION_ID,
    FOREIGN,
    GONE,
    NO_ROOM,
    NOT_OPEN,
    SECONDS,
    UNREACHABLE,
    answers,
    body,
    content,
    json,
    param,
)
from ssepool.http.revocations import MAX_PAGE_REVOCATIONS, PAGE_REVOCATIONS
from ssepool.http.schemas import NUMBER, TEXT, Schema, obj
from ssepool.http.topics import MAX_PAGE_TOPICS, ORDERS, PAGE_TOPICS

ADMINISTRATION: Schema = {
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
                _503=UNREACHABLE,
            ),
        },
        "delete": {
            "operationId": "kickAll",
            "summary": "Kick all clients of a user, a topic or an address, on all nodes; with several, who fits all",
            "parameters": [
                param("topic", TEXT, "With this topic or pattern."),
                param("user", TEXT, "Of this user, who is kept away also where none of theirs is connected."),
                param("ip", TEXT, "From this address."),
                SECONDS,
            ],
            "responses": answers(
                200,
                "So many are sent away.",
                json("Kicked"),
                _400="A parameter is not allowed, or none of the three says whom.",
                _403=FOREIGN,
                _503=UNREACHABLE,
            ),
        },
    },
    "/connections/{id}": {
        "parameters": [CONNECTION_ID],
        "get": {
            "operationId": "getConnection",
            "summary": "One connection",
            "responses": answers(200, "The connection.", json("Connection"), _404=GONE, _503=UNREACHABLE),
        },
        "delete": {
            "operationId": "kick",
            "summary": "Kick a client: close its stream and keep it away for a while",
            "parameters": [SECONDS],
            "responses": answers(
                204,
                "Kicked.",
                _400="A parameter is not allowed.",
                _403=FOREIGN,
                _404=GONE,
                _503=UNREACHABLE,
            ),
        },
    },
    "/topics": {
        "get": {
            "operationId": "listTopics",
            "summary": "What is kept of each topic, who listens on any node, and how often is published to it",
            "parameters": [
                param("prefix", TEXT, "Only those whose names begin so."),
                param(
                    "sort",
                    {"enum": list(ORDERS), "default": "name"},
                    "In which order: by name, or those that have most first, and then only these.",
                ),
                param(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_TOPICS, "default": PAGE_TOPICS},
                    "At most so many.",
                ),
                param("after", TEXT, "Only names behind this one: `next` of the page before. With `sort=name` alone."),
            ],
            "responses": answers(
                200,
                "A page. `next` is null on the last one.",
                json("Topics"),
                _400="A parameter is unknown or has a value that is not allowed.",
                _503=UNREACHABLE,
            ),
        }
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
                _503=f"The broker did not keep it: it holds on this node alone. Or too many are in force. {NO_ROOM}",
                _403=FOREIGN,
                **BODY,
            ),
        },
    },
    "/cluster": {
        "get": {
            "operationId": "getCluster",
            "summary": "All nodes of the broker: their pools, queues and how far they are behind",
            "responses": answers(200, "The nodes that answered, this one first.", json("Cluster"), _503=UNREACHABLE),
        }
    },
    "/pool": {
        "get": {
            "operationId": "getPool",
            "summary": "The numbers of this node: of all its workers together, and of each",
            "responses": answers(200, "The numbers.", json("Pool"), _503=UNREACHABLE),
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
                _503=f"{NOT_OPEN} {NO_ROOM}",
                _403=FOREIGN,
                **BODY,
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
                _503=f"{NOT_OPEN} {NO_ROOM}",
                _403=FOREIGN,
                **BODY,
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
                _503=UNREACHABLE,
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
}
"""The operations of operators, by path and method."""
