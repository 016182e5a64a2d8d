"""GET and DELETE /connections, and the messages of clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from ssepool import Connection, Hub
from ssepool.core.bans import KICK_SECONDS
from ssepool.core.grant import Grant
from ssepool.core.visit import Visit

Subscribe = Callable[..., Awaitable[Any]]


async def ids(http: httpx.AsyncClient, query: str = "") -> list[str]:
    answer = await http.get(f"/connections?{query}")
    assert answer.status_code == 200, answer.text
    return [connection["id"] for connection in answer.json()["connections"]]


async def refused(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


async def test_nobody_is_connected_at_first(http: httpx.AsyncClient) -> None:
    assert (await http.get("/connections")).json() == {"connections": [], "next": None, "missing": []}


async def test_a_connection_tells_all_but_its_token(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    began = time.time()
    data = quote('{"page": 3}')
    stream = await subscribe(f"topic=b&topic=a&pattern=orders/:id&data={data}", ip="10.1.2.3")
    [connection] = (await http.get("/connections")).json()["connections"]
    assert began - 1 <= connection.pop("opened_at") <= time.time() + 1
    assert connection.pop("bytes_sent") > 0
    assert connection == {
        "id": stream.id,
        "state": "open",
        "user": None,
        "ip": "10.1.2.3",
        "topics": ["a", "b"],
        "patterns": ["orders/:id"],
        "data": {"page": 3},
        "events_sent": connection["events_sent"],
        "events_skipped": 0,
    }
    one = await http.get(f"/connections/{stream.id}")
    assert one.status_code == 200
    assert one.json()["id"] == stream.id
    assert stream.token not in one.text


async def test_who_has_left_is_no_longer_listed(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    stream = await subscribe("topic=a")
    await stream.leave()
    assert await ids(http) == []
    assert (await http.get(f"/connections/{stream.id}")).status_code == 404


async def test_filters_choose_among_connections(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    a = await subscribe("topic=a", ip="10.0.0.1")
    b = await subscribe("topic=b&pattern=x/*", ip="10.0.0.2")
    c = await subscribe("topic=a&topic=b", ip="10.0.0.2")
    assert await ids(http, "topic=a") == [a.id, c.id]
    assert await ids(http, "topic=x/*") == [b.id]
    assert await ids(http, "ip=10.0.0.2") == [b.id, c.id]
    assert await ids(http, "ip=10.0.0.2&topic=a") == [c.id]
    assert await ids(http, "user=somebody") == []
    assert await ids(http, "state=open") == [a.id, b.id, c.id]
    assert await ids(http, "state=closing") == []


async def test_pages_follow_each_other_though_clients_leave(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    streams = [await subscribe("topic=a") for _ in range(4)]
    first = (await http.get("/connections?limit=2")).json()
    assert [connection["id"] for connection in first["connections"]] == [streams[0].id, streams[1].id]
    await streams[1].leave()
    last = (await http.get(f"/connections?limit=2&after={first['next']}")).json()
    assert [connection["id"] for connection in last["connections"]] == [streams[2].id, streams[3].id]
    assert last["next"] is None


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "limit='0' is not allowed; it takes a whole number from 1 to 1000"),
        ("limit=1001", "1 to 1000"),
        ("limit=all", "limit='all'"),
        ("limit=", "limit=''"),
        ("state=idle", "state='idle' is not allowed; it takes open or closing"),
        ("after=x", "after='x' is not allowed"),
        ("after=a-b-c", "after='a-b-c' is not allowed"),
        ("page=2", "unknown query parameter 'page'; it takes topic, user, ip, state, limit, after"),
        ("ip=a&ip=b", "'ip' is given more than once"),
    ],
)
async def test_a_bad_query_is_refused(http: httpx.AsyncClient, query: str, message: str) -> None:
    status, _, text = await refused(await http.get(f"/connections?{query}"))
    assert status == 400
    assert message in text


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("id", ["nobody", "a-0-0", "x" * 3000, "%00", "%ff", "a%20b"])
async def test_a_connection_that_is_not_there_is_404(http: httpx.AsyncClient, method: str, id: str) -> None:
    status, code, _ = await refused(await http.request(method, f"/connections/{id}"))
    assert (status, code) == (404, "not_found")


async def test_data_of_an_application_that_json_cannot_carry_is_shown_as_text(
    http: httpx.AsyncClient, subscribe: Subscribe, hub: Hub
) -> None:
    stream = await subscribe("topic=a")
    connection = hub.connection(stream.id)
    assert connection is not None
    connection.visit.data = {1: object, "\udc80": "\udc80"}  # as `hub.response(data=...)` could have it
    data = (await http.get(f"/connections/{stream.id}")).json()["data"]
    assert "class 'object'" in data


async def test_a_kicked_client_is_told_and_its_slot_is_freed(
    http: httpx.AsyncClient, subscribe: Subscribe, hub: Hub
) -> None:
    stream = await subscribe("topic=a")
    answer = await http.delete(f"/connections/{stream.id}?seconds=0.5")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await stream.next("ssepool.close")).data == '{"reason":"kicked"}'
    await stream.leave()
    assert hub.stats().pool.released["kicked"] == 1
    assert (await http.delete(f"/connections/{stream.id}")).status_code == 404


@pytest.mark.parametrize("query", ["seconds=-1", "seconds=nan", "seconds=3601", "seconds=x", "minutes=1"])
async def test_a_kick_with_a_bad_query_kicks_nobody(
    http: httpx.AsyncClient, subscribe: Subscribe, hub: Hub, query: str
) -> None:
    stream = await subscribe("topic=a")
    assert (await http.delete(f"/connections/{stream.id}?{query}")).status_code == 400
    assert await ids(http) == [stream.id]


async def test_a_message_reaches_the_application(http: httpx.AsyncClient, subscribe: Subscribe, hub: Hub) -> None:
    heard: list[tuple[str, Any]] = []

    @hub.on_message
    async def listen(connection: Connection, data: Any) -> None:
        heard.append((connection.id, data))

    stream = await subscribe("topic=a")
    url = f"/connections/{stream.id}/messages"
    answer = await http.post(url, json={"typing": True}, headers={"Authorization": f"Bearer {stream.token}"})
    assert (answer.status_code, answer.json()) == (202, {"accepted": True})
    assert (await http.post(f"{url}?token={stream.token}", json=[1])).status_code == 202
    assert (await http.post(url, json=2, headers={"Authorization": f"bearer  {stream.token} "})).status_code == 202
    async with asyncio.timeout(5):
        while len(heard) < 3:
            await asyncio.sleep(0)
    assert heard == [(stream.id, {"typing": True}), (stream.id, [1]), (stream.id, 2)]


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ""),
        ({}, "?token="),
        ({}, "?token=wrong"),
        ({}, "?token=%C3%A4"),
        ({"Authorization": "Bearer wrong"}, ""),
        ({"Authorization": "Bearer"}, "?token=TOKEN"),
        ({"Authorization": "Basic TOKEN"}, ""),
        ({"Authorization": "TOKEN"}, ""),
        ({"Authorization": "Bearer TOKENx"}, ""),
    ],
)
async def test_a_message_without_the_right_token_is_refused(
    http: httpx.AsyncClient, subscribe: Subscribe, hub: Hub, headers: dict[str, str], query: str
) -> None:
    hub.on_message(lambda connection, data: pytest.fail("it got through"))
    stream = await subscribe("topic=a")
    headers = {name: value.replace("TOKEN", stream.token) for name, value in headers.items()}
    url = f"/connections/{stream.id}/messages{query.replace('TOKEN', stream.token)}"
    answer = await http.post(url, json=1, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["code"] == "invalid_token"
    assert stream.token not in answer.text


async def test_the_token_of_another_connection_is_refused(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    mine, theirs = await subscribe("topic=a"), await subscribe("topic=a")
    answer = await http.post(f"/connections/{theirs.id}/messages?token={mine.token}", json=1)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"", "application/json", 400, "invalid_json"),
        (b'"\xff"', "application/json", 400, "invalid_json"),
        (b"1", "text/plain", 415, "unsupported_media_type"),
        (b'"' + b"x" * 65535 + b'"', "application/json", 413, "body_too_large"),
    ],
)
async def test_a_bad_message_is_refused(
    http: httpx.AsyncClient, subscribe: Subscribe, body: bytes, kind: str, status: int, code: str
) -> None:
    stream = await subscribe("topic=a")
    url = f"/connections/{stream.id}/messages?token={stream.token}"
    answer = await http.post(url, content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_message_of_a_client_that_has_left_is_404(http: httpx.AsyncClient, subscribe: Subscribe) -> None:
    stream = await subscribe("topic=a")
    await stream.leave()
    answer = await http.post(f"/connections/{stream.id}/messages?token={stream.token}", json=1)
    assert answer.status_code == 404


async def test_a_client_whose_data_is_nested_without_end_can_be_kicked(hub: Hub, http: httpx.AsyncClient) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    left = asyncio.Event()
    started: list[int] = []

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        started.append(message.get("status", 0))

    request = type("Request", (), {"scope": {"type": "http", "method": "GET", "headers": [], "client": ("1.2.3.4", 5)}})
    scope = request.scope  # type: ignore[attr-defined]
    stream = asyncio.ensure_future(hub.response(request, topics=["a"], data=deep)(scope, receive, send))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        while not (found := list(hub.connections)):
            await asyncio.sleep(0)
        assert (await http.delete(f"/connections/{found[0].id}")).status_code == 204
        await stream


# All of a user, a topic or an address.


async def test_all_of_a_topic_or_an_address_are_kicked_and_kept_away(
    http: httpx.AsyncClient, subscribe: Subscribe, hub: Hub
) -> None:
    a = await subscribe("topic=a", ip="10.0.0.1")
    b = await subscribe("topic=b&topic=a", ip="10.0.0.2")
    c = await subscribe("pattern=a/*", ip="10.0.0.2")
    both = await http.delete("/connections?topic=a&ip=10.0.0.2")
    assert (both.status_code, both.json()) == (200, {"kicked": 1, "missing": []})
    await b.next("ssepool.close")
    assert (await http.delete("/connections?topic=a/*")).json()["kicked"] == 1
    assert json.loads((await c.next("ssepool.close")).data) == {"reason": "kicked"}
    assert (await http.delete("/connections?topic=nothing")).json()["kicked"] == 0
    assert await ids(http) == [a.id]
    bans = hub.parts.engine.bans.left(hub.parts.engine.now())
    assert [seconds for _, seconds in bans] == [KICK_SECONDS] * 2
    assert (await http.delete("/connections?ip=10.0.0.1&seconds=0")).json()["kicked"] == 1
    await a.next("ssepool.close")
    assert len(hub.parts.engine.bans.left(hub.parts.engine.now())) == 2


async def test_a_user_is_kept_away_also_without_a_connection(http: httpx.AsyncClient, hub: Hub) -> None:
    assert (await http.delete("/connections?user=u1&seconds=7")).json()["kicked"] == 0
    engine = hub.parts.engine
    assert engine.bans.seconds_left(Visit(grant=Grant(subject="u1")), engine.now()) == pytest.approx(7, abs=1)
    assert (await http.delete(f"/connections?user={'x' * 300}")).json()["kicked"] == 0  # a name that nobody can have


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "takes at least one of topic, user, ip: it does not kick everybody"),
        ("seconds=1", "takes at least one of topic, user, ip"),
        ("topic=a&seconds=x", "seconds='x' is not allowed"),
        ("topic=a&state=open", "unknown query parameter 'state'; it takes topic, user, ip, seconds"),
        ("topic=a&topic=b", "'topic' is given more than once"),
    ],
)
async def test_a_kick_that_says_not_whom_is_refused(
    http: httpx.AsyncClient, subscribe: Subscribe, query: str, message: str
) -> None:
    stream = await subscribe("topic=a")
    status, _, text = await refused(await http.delete(f"/connections?{query}"))
    assert status == 400
    assert message in text
    assert await ids(http) == [stream.id]
