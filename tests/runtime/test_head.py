"""What a request's head has to be, whoever serves it."""

from __future__ import annotations

import pytest

from ssepool.runtime.head import fault_of, is_host, take_authority

HOSTS = ["", "localhost", "a.example:8000", "127.0.0.1:", "[::1]", "[::1]:80", "a_b.example", "%41", "xn--a"]
NO_HOSTS = [
    "a b",
    "a/b",
    "a@b",
    "a:b",
    "[::1",
    "::1",
    "a:80:80",
    "\u00e9",
    "a,b\t",
    "[::1]x",
    "<a>",
    'a"',
    "a?b",
    "a#b",
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_one_with_or_without_its_port(host: str) -> None:
    assert is_host(host.encode())


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_is_refused(host: str) -> None:
    answer = fault_of(b"GET", "1.1", [(b"host", host.encode())])
    assert answer is not None
    assert answer.startswith(b"HTTP/1.1 400")


HOST = (b"host", b"a")
CODED = b"transfer-encoding"
FAULTS = [
    ("1.1", [], b"400"),
    ("1.1", [HOST, HOST], b"400"),
    ("1.1", [HOST], None),
    ("1.0", [], None),
    ("1.0", [HOST], None),
    ("1.0", [HOST, HOST], b"400"),
    ("2.0", [HOST], b"505"),
    ("0.9", [HOST], b"505"),
    ("1.1", [HOST, (CODED, b"chunked")], None),
    ("1.1", [HOST, (CODED, b"Chunked")], None),
    ("1.1", [HOST, (CODED, b"gzip, chunked")], b"501"),
    ("1.1", [HOST, (CODED, b"gzip"), (CODED, b"chunked")], b"501"),
    ("1.0", [HOST, (CODED, b"chunked")], b"400"),
]


@pytest.mark.parametrize(("version", "headers", "status"), FAULTS)
def test_a_head_is_taken_or_refused(version: str, headers: list[tuple[bytes, bytes]], status: bytes | None) -> None:
    answer = fault_of(b"POST", version, headers)
    assert (answer and answer.split()[1]) == status


def test_there_are_no_tunnels() -> None:
    assert (fault_of(b"CONNECT", "1.1", [HOST]) or b"").startswith(b"HTTP/1.1 501")


AUTHORITIES = {
    b"http://evil.example/events": b"evil.example",
    b"http://evil.example:8000?topic=a": b"evil.example:8000",
    b"https://[::1]:80/": b"[::1]:80",
    b"http://localhost@evil.example/": b"evil.example",
    b"http://localhost#@evil.example/": b"localhost",
    b"http://": b"",
    b"*": b"hub",
    b"/http://evil.example/": b"hub",
    b"evil.example:443": b"hub",
}


@pytest.mark.parametrize(("target", "host"), AUTHORITIES.items())
def test_the_authority_of_a_target_counts_in_place_of_host(target: bytes, host: bytes) -> None:
    headers = [(b"a", b"b"), (b"host", b"hub")]
    take_authority(target, headers)
    assert headers == [(b"a", b"b"), (b"host", host)]


@pytest.mark.parametrize("hosts", [[], [(b"host", b"a"), (b"host", b"b")]])
def test_it_does_not_mend_a_request_without_host_or_with_two(hosts: list[tuple[bytes, bytes]]) -> None:
    headers = list(hosts)
    take_authority(b"http://localhost/", headers)
    assert headers == hosts
