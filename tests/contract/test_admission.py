"""Who gets a slot, who waits, and what those are told who get none."""

from __future__ import annotations

import pytest

from live import LiveServer, Stream
from live_fixtures import Connect, Start

SETTINGS = {"size": 2, "max_waiting": 2, "acquire_timeout": 600}


def closing(stream: Stream) -> list[str]:
    """The reasons that a stream gave before it ended."""
    return [data["reason"] for data in stream.to_end().of_type("ssepool.close")]


def test_requests_wait_without_an_answer_and_are_served_in_order(server: LiveServer, connect: Connect) -> None:
    first, second = connect(server, "a").opened(), connect(server, "a").opened()
    third = connect(server, "a")
    server.wait_pool(waiting=1)
    fourth = connect(server, "a")
    server.wait_pool(waiting=2)
    assert third.quiet() and fourth.quiet()

    second.close()
    third.opened()
    assert server.wait_pool(open=2, waiting=1)
    assert fourth.quiet()

    first.close()
    fourth.opened()
    server.wait_pool(open=2, waiting=0)
    server.publish("a", "to the two that were served late")
    third.wait_data("to the two that were served late")
    fourth.wait_data("to the two that were served late")


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_waiting_client_that_leaves_is_out_of_the_queue_at_once(
    server: LiveServer, connect: Connect, reset: bool
) -> None:
    first, _ = connect(server, "a").opened(), connect(server, "a").opened()
    before = server.pool()["cancelled"]
    leaver = connect(server, "a")
    server.wait_pool(waiting=1)
    patient = connect(server, "a")
    server.wait_pool(waiting=2)
    leaver.close(reset=reset)
    server.wait_pool(waiting=1, cancelled=before + 1)
    first.close()
    patient.opened()


def test_a_full_queue_answers_200_with_a_time_to_come_back_and_closes(server: LiveServer, connect: Connect) -> None:
    for _ in range(2):
        connect(server, "a").opened()
    for waiting in (1, 2):
        connect(server, "a")
        server.wait_pool(waiting=waiting)
    before = server.pool()["refused"]
    fifth = connect(server, "a")
    assert closing(fifth) == ["pool_full"]
    assert fifth.status == 200
    assert fifth.headers["content-type"] == "text/event-stream"
    assert fifth.retry is not None and fifth.retry >= 1000
    server.wait_pool(refused=before + 1, waiting=2)


def test_a_bigger_pool_serves_those_who_wait(server: LiveServer, connect: Connect) -> None:
    here = [connect(server, "a").opened() for _ in range(2)]
    late = []
    for waiting in (1, 2):
        late.append(connect(server, "a"))
        server.wait_pool(waiting=waiting)
    try:
        assert server.request("PATCH", "/pool", {"size": 3})[0] == 200
        late[0].opened()
        assert late[1].quiet()
        assert server.request("PATCH", "/pool", {"size": 4})[0] == 200
        late[1].opened()
    finally:
        assert server.request("PATCH", "/pool", {"size": 2})[0] == 200
    # Nobody is sent away; slots go as their clients leave.
    server.wait_pool(size=4, open=4)
    here[0].close()
    late[0].close()
    server.wait_pool(size=2, open=2)


def test_the_newcomer_does_not_overtake_who_waits(server: LiveServer, connect: Connect) -> None:
    here = [connect(server, "a").opened() for _ in range(2)]
    waiting = []
    for number in (1, 2):
        waiting.append(connect(server, "a", data=f"waiter {number}"))
        server.wait_pool(waiting=number)
    here[0].close()
    newcomer = connect(server, "a", data="newcomer")
    waiting[0].opened()
    here[1].close()
    waiting[1].opened()
    waiting[0].close()
    newcomer.opened()
    served = server.request("GET", "/connections")[1]["connections"]
    assert sorted(connection["data"] for connection in served) == ["newcomer", "waiter 2"]


def test_whoever_waits_too_long_is_told_to_come_back(start: Start, connect: Connect) -> None:
    server = start(size=1, acquire_timeout=0.2, reap_interval=0.05)
    connect(server, "a").opened()
    late = connect(server, "a")
    assert closing(late) == ["timed_out"]
    assert late.status == 200 and late.retry
    server.wait_pool(timed_out=1, waiting=0, open=1)


def test_on_full_retry_answers_200_at_once_and_closes(start: Start, connect: Connect) -> None:
    server = start(size=1, on_full="retry")
    connect(server, "a").opened()
    late = connect(server, "a")
    assert closing(late) == ["pool_full"]
    assert late.status == 200 and late.retry
    server.wait_pool(refused=1, queued=0)


def test_on_full_reject_answers_503_with_retry_after(start: Start, connect: Connect) -> None:
    server = start(size=1, on_full="reject", retry=7.0)
    connect(server, "a").opened()
    late = connect(server, "a").until(lambda s: s.status and s.raw)
    assert late.status == 503
    assert 7 <= int(late.headers["retry-after"]) <= 14
    status, answer = server.request("GET", "/events?topic=a")
    assert status == 503
    assert answer["error"]["code"] == "pool_full"
    assert "size=1 open=1" in answer["error"]["message"]


def test_an_announced_queue_answers_at_once(start: Start, connect: Connect) -> None:
    # The reaper, which tells of changes, does not look within this test.
    server = start(size=1, announce_queue=True, reap_interval=500, heartbeat_interval=2000, acquire_timeout=600)
    connect(server, "a").opened()
    second = connect(server, "a").until(lambda s: s.of_type("ssepool.queued"))
    third = connect(server, "a").until(lambda s: s.of_type("ssepool.queued"))
    assert (second.status, third.status) == (200, 200)
    assert second.of_type("ssepool.queued") == [{"position": 1, "waiting": 1}]
    assert third.of_type("ssepool.queued") == [{"position": 2, "waiting": 2}]


def test_an_announced_queue_tells_positions_and_keeps_streams_alive(start: Start, connect: Connect) -> None:
    server = start(size=1, announce_queue=True, reap_interval=0.05, heartbeat_interval=0.2, acquire_timeout=600)
    first = connect(server, "a").opened()
    second = connect(server, "a").until(lambda s: s.of_type("ssepool.queued"))
    third = connect(server, "a").until(lambda s: s.of_type("ssepool.queued") and len(s.comments) >= 2)
    first.close()
    second.opened()
    third.until(lambda s: len(s.of_type("ssepool.queued")) == 2)
    assert [queued["position"] for queued in third.of_type("ssepool.queued")] == [2, 1]
    second.close()
    third.opened()
    server.publish("a", "live")
    third.wait_data("live")
    assert [event.type for event in third.events] == ["ssepool.queued", "ssepool.queued", "ssepool.open", "message"]


def test_an_announced_queue_closes_the_streams_of_those_who_wait_too_long(start: Start, connect: Connect) -> None:
    server = start(size=1, announce_queue=True, reap_interval=0.05, acquire_timeout=0.5)
    connect(server, "a").opened()
    late = connect(server, "a")
    assert closing(late) == ["timed_out"]
    assert late.retry and late.of_type("ssepool.queued")
    leaver = connect(server, "a").until(lambda s: s.of_type("ssepool.queued"))
    leaver.close(reset=True)
    server.wait_pool(waiting=0)


def test_limits_refuse_although_slots_are_free(start: Start, connect: Connect) -> None:
    server = start(size=10, max_per_ip=3, max_per_topic=2)
    for _ in range(2):
        connect(server, "busy").opened()
    assert closing(connect(server, "busy")) == ["pool_full"]
    assert closing(connect(server, "other", "busy")) == ["pool_full"]
    connect(server, "other").opened()
    assert closing(connect(server, "yet another")) == ["pool_full"]
    elsewhere = connect(server, "yet another", source="127.0.0.2").opened()
    elsewhere.close()
    server.wait_pool(open=3, refused=3, waiting=0)


def test_a_limit_is_free_again_when_its_client_leaves(start: Start, connect: Connect) -> None:
    server = start(size=1, max_per_ip=2, acquire_timeout=600)
    first = connect(server, "a").opened()
    waiting = connect(server, "a")
    server.wait_pool(waiting=1)
    assert closing(connect(server, "a")) == ["pool_full"]  # who waits counts
    waiting.close()
    server.wait_pool(waiting=0)
    second = connect(server, "a")
    server.wait_pool(waiting=1)
    first.close()
    second.opened()


def test_the_refused_are_counted_and_hold_nothing(start: Start, connect: Connect) -> None:
    server = start(size=1, max_waiting=0)
    connect(server, "a").opened()
    for _ in range(20):
        assert closing(connect(server, "a")) == ["pool_full"]
    pool = server.pool()
    assert (pool["requests"], pool["granted"], pool["refused"], pool["queued"]) == (21, 1, 20, 0)


@pytest.mark.paths("protocol", "detached", "plain")  # hypercorn leaves this to middleware
@pytest.mark.parametrize("trusted", [["127.0.0.1"], ["127.0.0.0/31"], ["127.0.0.9", "*"], []])
def test_a_client_behind_a_trusted_proxy_has_its_own_address(
    start: Start, connect: Connect, trusted: list[str]
) -> None:
    server = start(size=10, trusted_proxies=trusted)
    seen: dict[str, str] = {}
    for source, forwarded in (
        ("127.0.0.1", "203.0.113.7"),
        ("127.0.0.1", "198.51.100.1, 203.0.113.8"),
        ("127.0.0.1", "2001:db8::1"),
        ("127.0.0.1", ""),
        ("127.0.0.2", "203.0.113.9"),
    ):
        stream = connect(server, "a", source=source, headers={"X-Forwarded-For": forwarded}).opened()
        answer = server.request("GET", f"/connections/{stream.connection}")[1]
        seen[forwarded] = answer["ip"]
    if not trusted:
        assert set(seen.values()) == {"127.0.0.1", "127.0.0.2"}
        return
    everybody = "*" in trusted
    assert seen == {
        "203.0.113.7": "203.0.113.7",
        # What the client sent itself stands in front; only the proxy's own word counts.
        "198.51.100.1, 203.0.113.8": "203.0.113.8",
        "2001:db8::1": "2001:db8::1",
        "": "127.0.0.1",
        "203.0.113.9": "203.0.113.9" if everybody else "127.0.0.2",
    }


@pytest.mark.paths("protocol", "detached", "plain")
def test_limits_count_the_clients_behind_a_proxy_and_not_the_proxy(start: Start, connect: Connect) -> None:
    server = start(size=10, max_per_ip=1, on_full="reject")
    for number in range(3):
        connect(server, "a", headers={"X-Forwarded-For": f"203.0.113.{number}"}).opened()
    again = connect(server, "a", headers={"X-Forwarded-For": "203.0.113.0"}).until(lambda s: s.status)
    assert again.status == 503
