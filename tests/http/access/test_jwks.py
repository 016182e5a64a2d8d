"""Fetching keys: over TLS whose certificate is checked, without redirects, in bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyserver import KeyServer, serving, text
from ssepool.http.access.jwks import MAX_BYTES, Unavailable, fetch


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        yield server


def test_what_is_there_is_fetched(server: KeyServer) -> None:
    server.answer = text(b"{}" * 1000)
    assert fetch(server.url) == b"{}" * 1000
    assert server.asked == ["/keys"]


def test_a_certificate_that_nobody_vouches_for_is_refused(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(Unavailable, match="certificate verify failed"):
        fetch(server.url)
    assert not server.asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: KeyServer, status: int) -> None:
    server.answer = text(b"", status, Location=server.url.replace("/keys", "/other"))
    with pytest.raises(Unavailable, match=str(status)):
        fetch(server.url)
    assert server.asked == ["/keys"]


@pytest.mark.parametrize("status", [204, 404, 500])
def test_another_status_is_no_answer(server: KeyServer, status: int) -> None:
    server.answer = text(b"{}" if status != 204 else b"", status)
    with pytest.raises(Unavailable, match=str(status)):
        fetch(server.url)


@pytest.mark.parametrize("declared", [str(MAX_BYTES + 1), "9999999999"])
def test_more_than_it_takes_is_not_read(server: KeyServer, declared: str) -> None:
    server.answer = text(b"x" * (MAX_BYTES + 1), **{"Content-Length": declared})
    with pytest.raises(Unavailable, match="more than 65536 bytes"):
        fetch(server.url)


def test_nobody_there_is_no_answer(server: KeyServer) -> None:
    with pytest.raises(Unavailable, match="refused"):
        fetch("https://127.0.0.1:1/keys")


@pytest.mark.parametrize("url", ["https://", "https://a:b/keys", "https://a b/keys", "file:///etc/passwd", "http://x/"])
def test_what_is_no_https_address_is_no_answer(url: str) -> None:
    with pytest.raises(Unavailable):
        fetch(url)
