"""Revocations on several nodes in processes of their own, on workers, and after all have started anew."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live import LiveServer, Stream, serve, serve_command, wait_for
from minting import AUDIENCE, ISSUER, SECRET, mint
from nodes import wait_acquainted
from sessions import session

PATHS = ("detached", "plain")


@pytest.fixture
def broker(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/events.db"


@contextlib.contextmanager
def nodes(broker: str, *paths: str) -> Iterator[list[LiveServer]]:
    with contextlib.ExitStack() as stack:
        found = [
            stack.enter_context(serve(path, sessions="at_once", broker=broker, cluster_key="of these tests"))
            for path in paths
        ]
        wait_acquainted(found)
        yield found


def revoke(server: LiveServer, **given: Any) -> None:
    status, answer = server.request("POST", "/revocations", given)
    assert status == 201, answer


def test_streams_end_on_all_nodes_within_a_second(broker: str) -> None:
    with nodes(broker, *PATHS) as (one, two), contextlib.ExitStack() as stack:
        gone = [stack.enter_context(Stream(node, "news", headers=session("u1"))).opened() for node in (one, two)]
        stays = [stack.enter_context(Stream(node, "news", headers=session("u2"))).opened() for node in (one, two)]
        began = time.monotonic()
        revoke(one, subject="u1")
        for stream in gone:
            stream.to_end()
            assert stream.of_type("ssepool.close") == [{"reason": "revoked"}]
        assert time.monotonic() - began < 1
        for node in (one, two):
            with Stream(node, "news", headers=session("u1")) as again:
                assert again.until(lambda s: s.status).status == 401
        one.publish("news", "still there")
        for stream in stays:
            stream.wait_data("still there")


def test_nodes_that_start_when_all_have_died_know_what_was_revoked(broker: str) -> None:
    with nodes(broker, "detached") as [node]:
        revoke(node, subject="u1")
        node.stop(signal.SIGKILL)
    with nodes(broker, *PATHS) as found:
        for node in found:
            with Stream(node, "news", headers=session("u1")) as stream:
                assert stream.until(lambda s: s.status).status == 401
            with Stream(node, "news", headers=session("u2")) as stream:
                stream.opened()
            listed = node.request("GET", "/revocations")[1]["revocations"]
            assert [one["subject"] for one in listed] == ["u1"]


def test_all_workers_of_a_port_know(broker: str) -> None:
    with serve_command("--workers", "3", "--broker", broker, "--pool-size", "30") as server:
        revoke(server, subject="u1")
        known = 0

        def all_know() -> bool:
            nonlocal known
            _, answer = server.request("GET", "/revocations")  # each on a connection of its own, so of any worker
            known = known + 1 if answer["revocations"] else 0
            return known >= 20

        wait_for(all_know, seconds=5, what="20 answers in a row that know")


def test_the_streams_of_a_token_end_on_all_workers(broker: str, tmp_path: Path) -> None:
    key = tmp_path / "key.txt"
    key.write_text(SECRET)
    key.chmod(0o600)
    access = ("--token-keys", str(key), "--token-issuers", ISSUER, "--token-audience", AUDIENCE)
    with (
        serve_command("--workers", "2", "--broker", broker, "--pool-size", "40", *access) as server,
        contextlib.ExitStack() as stack,
    ):
        bearer = {"Authorization": f"Bearer {mint(sub='u1', jti='t1')}"}
        other = {"Authorization": f"Bearer {mint(sub='u1', jti='t2')}"}
        gone = [stack.enter_context(Stream(server, "room", headers=bearer)).opened() for _ in range(12)]
        stays = stack.enter_context(Stream(server, "room", headers=other)).opened()
        assert len({stream.connection.partition("-")[0] for stream in gone}) == 2
        assert server.operate("POST", "/revocations", {"token_id": "t1"})[0] == 201
        for stream in gone:
            stream.to_end()
            assert stream.of_type("ssepool.close") == [{"reason": "revoked"}]
        assert stays.of_type("ssepool.close") == []
        with Stream(server, "room", headers=bearer) as again:
            assert again.until(lambda stream: stream.status).status == 401
