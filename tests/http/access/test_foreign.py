"""Whose page has sent a request, by what a browser says of it."""

from __future__ import annotations

import pytest

from ssepool.http.access.asking import Asking
from ssepool.http.access.foreign import is_foreign
from ssepool.runtime.handover import FORWARDED_HOST

EVIL = ("origin", "https://evil.example")
SHOP = ("origin", "https://shop.example")
OWN = ("origin", "https://hub.example")
CROSS, SAME_SITE, SAME = (("sec-fetch-site", word) for word in ("cross-site", "same-site", "same-origin"))


def asking(*fields: tuple[str, str], forwarded: str | None = None) -> Asking:
    headers = [(name.encode(), value.encode()) for name, value in (("host", "hub.example"), *fields)]
    extensions = {FORWARDED_HOST: forwarded} if forwarded else {}
    return Asking({"type": "http", "headers": headers, "query_string": b"", "extensions": extensions}, "subscribe")


@pytest.mark.parametrize(
    ("fields", "foreign"),
    [
        ((), False),  # no browser, or a page of the hub's own in an old one
        ((SAME,), False),
        ((("sec-fetch-site", "none"),), False),
        ((OWN,), False),
        ((("origin", "https://hub.example:443"),), False),
        ((("origin", "https://HUB.example"),), False),
        ((OWN, SAME), False),
        ((("origin", "https://a.example"), SAME), False),  # a proxy has changed the host, but not what the browser says
        ((SHOP, CROSS), False),
        ((SHOP,), False),
        ((("origin", "https://www.listed.example"),), False),
        ((EVIL,), True),
        ((EVIL, CROSS), True),
        ((CROSS,), True),
        ((SAME_SITE,), True),
        ((SAME, CROSS), True),
        ((SHOP, EVIL), True),
        ((OWN, EVIL), True),
        ((("origin", "null"),), True),
        ((("origin", ""),), True),
        ((("origin", "https://hub.example.evil.example"),), True),
        ((("origin", "https://hub.example:444"),), True),
        ((("origin", "http://[::1"),), True),
    ],
)
def test_a_page_of_another_site_is_known(fields: tuple[tuple[str, str], ...], foreign: bool) -> None:
    trusted = ("https://shop.example", "*")
    assert is_foreign(asking(*fields), trusted, {"www.listed.example"}.__contains__) is foreign


def test_what_a_trusted_proxy_was_asked_for_counts() -> None:
    assert not is_foreign(asking(("origin", "https://outside.example"), forwarded="outside.example"), ())
    assert is_foreign(asking(OWN, forwarded="outside.example"), ())


def test_everybody_is_nobody_in_particular() -> None:
    assert is_foreign(asking(EVIL), ("*",))
    assert is_foreign(asking(("origin", "*")), ("*",))
