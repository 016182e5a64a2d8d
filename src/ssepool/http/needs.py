"""Needs: what the OpenAPI document says of what a route takes, and of how those are refused who have not that."""

from __future__ import annotations

from ssepool.http.access.gate import Need
from ssepool.http.schemas import Schema, ref

SCHEMES: Schema = {
    "grant": {
        "type": "http",
        "scheme": "bearer",
        "description": (
            "What the hub is told to go by: a token, or whatever the application's `authorize` function looks at, such "
            "as its session's cookie. A requirement names the right that is needed. What is public takes nothing."
        ),
    },
    "connection": {"type": "http", "scheme": "bearer", "description": "The token of a stream's `ssepool.open` event."},
}
"""How requests prove what they may do."""

_UNAUTHORIZED = "No credentials, or none that count; `WWW-Authenticate` says which (RFC 6750, section 3)."
_FORBIDDEN: dict[str, str] = {
    "subscribe": "A topic or a pattern that the grant does not cover; one that is not there is answered alike.",
    "publish": "A topic that the grant does not cover, or an `id`, `retry` or `private: false` that it does not allow.",
}


def described(operation: Schema, needs: Need) -> Schema:
    """An operation together with what it takes."""
    if needs == "nothing":
        return {**operation, "security": []}
    responses: Schema = operation["responses"]
    scheme = "connection" if needs == "connection" else "grant"
    refusals = {"401": responses.get("401") or refusal(_UNAUTHORIZED)}
    if scheme == "grant":
        own = [responses["403"]["description"]] if "403" in responses else []
        refusals["403"] = refusal(" ".join([*own, _FORBIDDEN.get(needs) or f"The grant does not have `{needs}`."]))
    return {**operation, "security": [{scheme: [needs]}], "responses": {**responses, **refusals}}


def refusal(why: str) -> Schema:
    """The response of an operation that refuses, with the reason."""
    return {"description": why, "content": {"application/json": {"schema": ref("Error")}}}
