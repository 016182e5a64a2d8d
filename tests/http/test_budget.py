"""What all bodies of a hub may hold together, and that every route with a body counts."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Message

from parts import open_app
from ssepool import Hub, HubConfig, PoolConfig, parts
from ssepool.http.budget import Budget


def test_shares_take_what_there_is_and_give_it_back() -> None:
    budget = Budget(10)
    with budget.share() as one, budget.share() as other:
        assert one.take(4) and other.take(5) and one.take(1)
        assert not other.take(1)
        assert budget.taken == 10
    assert budget.taken == 0


def test_a_share_that_could_not_take_keeps_what_it_had() -> None:
    budget = Budget(10)
    with budget.share() as share:
        assert share.take(8)
        assert not share.take(3)
        assert share.take(2)
        assert budget.taken == 10


def test_a_share_can_have_what_the_whole_budget_has() -> None:
    budget = Budget(10)
    with budget.share() as one, budget.share() as other:
        assert one.take(4) and other.take(5)
        assert one.can_have(6)
        assert not one.can_have(7)
        assert budget.taken == 9


def test_one_address_has_a_quarter_and_room_for_one_body() -> None:
    budget = Budget(40, max_body=5)
    with budget.share("192.0.2.7") as one, budget.share("192.0.2.7") as two, budget.share("192.0.2.8") as other:
        assert one.take(6) and two.take(4)
        assert not one.take(1) and not two.take(1)
        assert other.take(10)
        with budget.share("192.0.2.7") as three, budget.share() as nobody:
            assert not three.take(1)
            assert nobody.take(20)  # of whom nothing is known, as over a Unix socket without a proxy's word
        assert budget.taken == 20
    assert (budget.taken, budget._of) == (0, {})
    assert Budget(40, max_body=15).max_share == 30  # a body, and as much for the events in it
    assert Budget(40, max_body=25).max_bytes == 50


def test_addresses_of_a_network_share_and_what_one_gives_back_another_may_take() -> None:
    budget = Budget(40)
    with budget.share("2001:db8::1") as one:
        assert one.take(10)
        with budget.share("2001:db8::2") as two, budget.share("2001:db8:0:1::1") as other:
            assert not two.take(1)
            assert other.take(10)
    with budget.share("2001:db8::2") as two:
        assert two.take(10)
    assert (budget.taken, budget._of) == (0, {})


def seen(monkeypatch: pytest.MonkeyPatch) -> list[Budget]:
    """The budgets that applications make from now on."""
    made: list[Budget] = []

    class Seen(Budget):
        def __init__(self, **options: int) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(parts, "Budget", Seen)
    return made


async def test_one_body_has_room_whatever_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    made = seen(monkeypatch)
    for max_body, due in ((1000, 64 * 2**20), (100 * 2**20, 200 * 2**20)):
        assert Hub(HubConfig(max_body=max_body))
        assert made[-1].max_bytes == due
        assert made[-1].max_share == max(due // 4, 2 * max_body)


async def ask(hub: Hub, method: str, path: str, query: str = "", body: bytes = b"{}", ip: str = "192.0.2.7") -> int:
    """The status of a request with a body, of two bytes unless one is given."""
    scope: dict[str, Any] = {
        **{"type": "http", "http_version": "1.1", "scheme": "http", "method": method, "path": path, "root_path": ""},
        "query_string": query.encode(),
        "headers": [(b"host", b"hub"), (b"content-type", b"application/json")],
        "client": (ip, 1234),
    }
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 0))

    await open_app(hub)(scope, receive, send)
    return statuses[0]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/events"), ("PATCH", "/pool"), ("POST", "/pool/drain"), ("POST", "/demo/jobs")]
)
async def test_every_route_that_reads_a_body_counts_it(monkeypatch: pytest.MonkeyPatch, method: str, path: str) -> None:
    made = seen(monkeypatch)
    async with Hub(HubConfig(pool=PoolConfig(size=1))) as hub:
        assert hub.dev_app
        [budget] = made
        with budget.share() as others:
            assert others.take(budget.max_bytes - 1)
            assert await ask(hub, method, path) == 503
        assert await ask(hub, method, path) in (202, 400)
        assert budget.taken == 0


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/events"), ("PATCH", "/pool"), ("POST", "/pool/drain"), ("POST", "/demo/jobs")]
)
async def test_one_address_locks_nobody_else_out(monkeypatch: pytest.MonkeyPatch, method: str, path: str) -> None:
    made = seen(monkeypatch)
    async with Hub(HubConfig(pool=PoolConfig(size=1))) as hub:
        assert hub.dev_app
        [budget] = made
        shares = [budget.share("192.0.2.7") for _ in range(12)]
        taken = [share.take(8 * 2**20 - 1) for share in shares]
        assert taken == [True, True] + [False] * 10
        assert shares[0].take(2)
        assert await ask(hub, method, path) == 503
        assert await ask(hub, method, path, ip="192.0.2.8") in (202, 400)
        for share in shares:
            share.__exit__(None, None, None)


async def test_messages_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = seen(monkeypatch)
    async with Hub(HubConfig(pool=PoolConfig(size=1))) as hub:
        assert hub.dev_app
        monkeypatch.setattr(hub.parts.nodes, "expects", lambda id, token: "accepted")
        with made[0].share() as others:
            assert others.take(made[0].max_bytes - 1)
            assert await ask(hub, "POST", "/connections/a/messages") == 503
        assert await ask(hub, "POST", "/connections/a/messages") == 404


@pytest.mark.parametrize(("taken", "due"), [(0, 413), (1500, 503)], ids=["alone", "beside others"])
async def test_the_events_of_a_body_count_with_all_that_they_take(taken: int, due: int) -> None:
    async with Hub(HubConfig(detach=False, max_body=1000)) as hub:
        budget = hub.parts.budget
        budget.max_bytes = budget.max_share = 5000
        event = b'{"topic":"a","data":""}'
        assert await ask(hub, "POST", "/events", body=b"[" + event + b"]") == 201
        budget.taken = taken
        many = b"[" + b",".join([event] * (9 if taken == 0 else 7)) + b"]"
        assert await ask(hub, "POST", "/events", body=many) == due
        assert (budget.taken, hub.stats().events_published) == (taken, 1)
