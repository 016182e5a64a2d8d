"""What a request presents: a bearer token or a cookie, one of them, once."""

from __future__ import annotations

import pytest

from ssepool import BadCredentials
from ssepool.config import TOKEN_COOKIE
from ssepool.http.access.credentials import Presented, presented

COOKIE = f"{TOKEN_COOKIE}=a.b.c"


def look(*fields: tuple[str, str]) -> Presented | None:
    return presented([(name.encode(), value.encode()) for name, value in fields], TOKEN_COOKIE)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ([("authorization", "Bearer a.b.c")], ("a.b.c", False)),
        ([("authorization", "bearer   a.b.c ")], ("a.b.c", False)),
        ([("authorization", "Bearer")], ("", False)),
        ([("authorization", "Basic dTpw")], (None, False)),
        ([("cookie", COOKIE)], ("a.b.c", True)),
        ([("cookie", f"session=1; {COOKIE}; x={TOKEN_COOKIE}")], ("a.b.c", True)),
        ([("cookie", "session=1"), ("cookie", COOKIE)], ("a.b.c", True)),
        ([("authorization", "Basic dTpw"), ("cookie", COOKIE)], ("a.b.c", True)),
        ([("authorization", "Bearer a.b.c"), ("cookie", "session=1")], ("a.b.c", False)),
    ],
)
def test_what_is_presented(fields: list[tuple[str, str]], found: tuple[str | None, bool]) -> None:
    assert look(*fields) == Presented(*found)


@pytest.mark.parametrize("fields", [[], [("cookie", f"session=1; not{COOKIE}; {TOKEN_COOKIE}2=x; =; ;{TOKEN_COOKIE}")]])
def test_nothing_is_presented(fields: list[tuple[str, str]]) -> None:
    found = look(*fields)
    assert found is None or found == Presented("", True)


@pytest.mark.parametrize(
    "fields",
    [
        [("authorization", "Bearer a.b.c"), ("authorization", "Bearer a.b.c")],
        [("authorization", "Basic dTpw"), ("authorization", "Bearer a.b.c")],
        [("cookie", f"{COOKIE}; {COOKIE}")],
        [("cookie", COOKIE), ("cookie", COOKIE)],
        [("authorization", "Bearer a.b.c"), ("cookie", COOKIE)],
        [("authorization", "Bearer"), ("cookie", COOKIE)],
    ],
)
def test_two_of_a_kind_are_refused(fields: list[tuple[str, str]]) -> None:
    with pytest.raises(BadCredentials):
        look(*fields)
