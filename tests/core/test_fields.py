"""Fields: a look at a few is a look at all of them."""

from __future__ import annotations

import pytest

from ssepool.core.fields import FIELDS, fields_of, only


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (["host"], b"0"),
        (["accept", "host"], b"1"),
        (["via", "host", "via"], b"1"),
        (["host", "host"], None),
        (["via", "host", "via", "host"], None),
        (["accept"], None),
        ([], None),
    ],
)
def test_a_field_counts_that_comes_once_whatever_others_do(names: list[str], value: bytes | None) -> None:
    headers = [(name.encode(), b"%d" % place) for place, name in enumerate(names)]
    assert only(b"host", headers, dict(headers)) == value


def test_what_was_made_once_is_what_all_get() -> None:
    scope = {"headers": [(b"via", b"1"), (b"host", b"x"), (b"via", b"2")]}
    assert fields_of(scope) == {b"via": b"2", b"host": b"x"}
    made = dict(scope["headers"])
    assert fields_of({**scope, FIELDS: made}) is made
