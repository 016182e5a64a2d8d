"""What an application says is a grant, or it is nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ssepool.core.grant import Grant
from ssepool.errors import InvalidGrant
from ssepool.http.access.answer import EXPIRES_IN_SECONDS, MAX_EXPIRES_IN_SECONDS, read_answer

ORDERS = {"match": "orders/:id", "match_type": "urlpattern"}


def read(answer: Any) -> Grant:
    return read_answer(answer if isinstance(answer, bytes) else json.dumps(answer).encode(), 1000.0)


def test_all_of_it_is_in_the_grant() -> None:
    assert read(
        {
            "subject": "ann",
            "subscribe": ["users/ann", ORDERS],
            "publish": ["chat"],
            "publish_parts": ["id", "public"],
            "admin": ["metrics"],
            "data": {"name": "Ann"},
            "expires_in": 60,
            "token_id": "session-1",
        }
    ) == Grant(
        subject="ann",
        subscribe=["users/ann", ORDERS],
        publish=["chat"],
        publish_parts=["id", "public"],
        admin=["metrics"],
        data={"name": "Ann"},
        expires_at=1060.0,
        issued_at=1000.0,
        token_id="session-1",
    )


def test_a_name_never_acts_as_a_pattern() -> None:
    grant = read({"subscribe": ["room:blue", "orders/:id"]})
    assert not grant.subscribe.cover("room:red")
    assert not grant.subscribe.cover("orders/1")


@pytest.mark.parametrize(("said", "seconds"), [(None, EXPIRES_IN_SECONDS), (0.5, 0.5), (1e300, MAX_EXPIRES_IN_SECONDS)])
def test_it_ends(said: float | None, seconds: float) -> None:
    assert read({} if said is None else {"expires_in": said}).expires_at == 1000.0 + seconds


@pytest.mark.parametrize(
    "answer",
    [
        *(
            b"",
            b"<html>Log in</html>",
            b"\xff",
            b"null",
            b"[]",
            b'"ok"',
            b"true",
            b"{}{}",
            b"[" * 5000,
            b'{"data":' * 5000,
        ),
        b'{"subject": "ann", "subscribe": ["a"]',
        {"subject": 7},
        {"subject": ""},
        {"subject": "x" * 300},
        {"subscribe": "news"},
        {"subscribe": None},
        {"subscribe": ["news", 7]},
        {"subscribe": [{"match": "a", "match_type": "regexp"}]},
        {"subscribe": [{"match": "(", "match_type": "urlpattern"}]},
        {"subscribe": ["a"] * 1001},
        {"publish": [""]},
        {"publish_parts": ["type"]},
        {"admin": ["everything"]},
        *({"expires_in": value} for value in (0, -1, "60", True, None, [])),
        b'{"expires_in": NaN}',
        {"subcribe": ["a"]},  # says something that would not be obeyed
        {"expires_at": 99},
    ],
    ids=lambda answer: str(answer)[:40],
)
def test_anything_else_is_refused(answer: Any) -> None:
    with pytest.raises(InvalidGrant):
        read(answer)
