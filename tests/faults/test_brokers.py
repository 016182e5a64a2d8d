"""Brokers that die, hang, forget, cannot be reached or have no room, under two real nodes with publishers and clients.

Throughout: a publish ends in time, with an answer or a refusal; subscribers stay connected and get everything exactly
once and in order, or are told of a gap; readiness says how it is; and nothing grows without bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from live import LiveServer, Stream, serve_command, wait_for
from nodes import TOPIC, Publisher, is_ready, send, start, subscribed, wait_acquainted
from proxy import Proxy, proxy_to
from service_fixtures import Get, make_service
from services import Service
from services.kinds import SERVICES
from ssepool.brokers import connect
from ssepool.brokers.group import MAX_WAITING_BYTES
from ssepool.brokers.record import records
from ssepool.config import HubConfig, KiB, MiB
from ssepool.core.event import Event
from ssepool.errors import BrokerError


@pytest.fixture(scope="module")
def harmed(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = make_service(kind, tmp_path_factory.mktemp(kind))
    yield service
    service.kill()


@pytest.fixture(scope="module", params=SERVICES)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def service(harmed: Service) -> Service:
    """A server that each test of this file may harm."""
    if harmed.process is None or harmed.process.poll() is not None:
        harmed.start()
    return harmed


@pytest.fixture
def url(service: Service, request: pytest.FixtureRequest) -> str:
    """The URL of a history of the test's own."""
    return service.url("t" + re.sub(r"\W+", "_", request.node.name)[-40:])


# The broker is away.


@pytest.fixture(scope="module")
def away(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that goes away and comes back with all that it had."""
    service = make_service(kind, tmp_path_factory.mktemp(kind))
    service.start()
    yield service
    service.kill()


@pytest.fixture(scope="module")
def wire(away: Service) -> Iterator[Proxy]:
    with proxy_to(away.port) as wire:
        yield wire


@pytest.fixture(scope="module")
def pair(away: Service, wire: Proxy) -> Iterator[list[LiveServer]]:
    """Two nodes that outlive whatever happens to the broker."""
    with start(away.url("pair").replace(f":{away.port}", f":{wire.port}", 1)) as nodes:
        yield nodes


def find(node: LiveServer, stream: Stream) -> int:
    """The status of what a node says of a connection."""
    status: int = node.request("GET", f"/connections/{stream.connection}")[0]
    return status


def refuse(nodes: list[LiveServer], streams: list[Stream], event: dict[str, Any]) -> None:
    """Both nodes refuse it in time, turn red, and do not take each other's connections for closed."""
    with ThreadPoolExecutor() as pool:
        sent = pool.map(lambda node: send(node, event), nodes)
        found = pool.map(find, nodes, reversed(streams))
        assert not any(sent)
        assert list(found) == [503, 503]
    for node in nodes:
        wait_for(lambda node=node: not is_ready(node), what="not ready")
        assert node.request("GET", "/health/live")[0] == 200


@pytest.mark.parametrize("fault", ["killed", "hanging", "cut off"])
def test_while_the_broker_is_away_publishes_fail_in_time_and_afterwards_all_is_as_it_should_be(
    away: Service, wire: Proxy, pair: list[LiveServer], fault: str
) -> None:
    nodes, topic = pair, f"{TOPIC}/{fault}"
    begin, end = {
        "killed": (away.kill, away.start),
        "hanging": (away.suspend, away.resume),
        "cut off": (wire.cut, wire.mend),
    }[fault]
    lost = {"topic": topic, "data": "lost", "id": f"lost-{fault[:3]}"}
    with subscribed(nodes, topic) as streams, Publisher(nodes, fault[:3], topic) as publisher:
        publisher.more()
        begin()
        try:
            refuse(nodes, streams, lost)
            wait_for(lambda: publisher.refused)
        finally:
            end()
        for node in nodes:
            wait_for(lambda node=node: is_ready(node), what="ready again")
        publisher.more()
        expected = publisher.stop()
        for stream in streams:
            stream.until(lambda s: s.data[-1:] == expected[-1:])
            # What was refused while nobody could tell may have been stored after all; but no more than once.
            assert stream.data.count("lost") <= 1
            assert [data for data in stream.data if data != "lost"] == expected
            assert not stream.of_type("ssepool.gap")
        assert streams[0].data == streams[1].data
        wait_acquainted(nodes)
        for node in nodes:
            assert [find(node, stream) for stream in streams] == [200, 200]
        with Stream(nodes[1], topic, last_event_id=expected[9]) as late:
            late.until(lambda s: s.data[-1:] == expected[-1:])
            assert [data for data in late.data if data != "lost"] == expected[10:]


def empty(service: Service) -> None:
    """Somebody has deleted it all."""
    service.lose_data()


def wipe(service: Service) -> None:
    """It comes back with another disk."""
    service.kill()
    for path in getattr(service, "cluster", service.directory).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    service.start()


@pytest.mark.parametrize("fault", [empty, wipe])
def test_when_the_broker_has_lost_its_data_subscribers_are_told_and_go_on(
    service: Service, url: str, fault: Callable[[Service], None]
) -> None:
    before, after = [f"before{number}" for number in range(20)], [f"after{number}" for number in range(20)]
    with start(url) as nodes, subscribed(nodes) as streams:
        made = nodes[0].publish(TOPIC, "made")
        for data in before:
            nodes[1].publish(TOPIC, data, id=data)
        for stream in streams:
            stream.wait_data("made", *before)
        fault(service)
        for place, data in enumerate(after):  # the first ones before anybody can have noticed
            wait_for(lambda place=place, data=data: send(nodes[place % 2], {"data": data, "id": data}))
        for stream in streams:
            stream.until(lambda s: s.data[-1:] == after[-1:])
            assert stream.data == ["made", *before, *after]
            (gap,) = stream.of_type("ssepool.gap")
            assert gap["reason"] == "broker_lost"
            order = [event.type == "ssepool.gap" or event.data for event in stream.events]
            assert order.index(before[-1]) < order.index(True) < order.index(after[0])
        for node in nodes:
            wait_for(lambda node=node: is_ready(node))
            for id in (made, before[3]):
                with Stream(node, TOPIC, last_event_id=id) as late:
                    late.wait_data(*after)
                    (gap,) = late.of_type("ssepool.gap")
                    assert (gap["requested"], gap["reason"], gap["resumed"]) == (id, "unknown_id", after[0])
            with Stream(node, TOPIC, last_event_id=after[3]) as late:
                late.wait_data(*after[4:])
                assert not late.of_type("ssepool.gap")
        wait_acquainted(nodes)


async def test_nothing_is_read_of_another_history_than_the_one_that_is_known(service: Service, url: str) -> None:
    await _read_of_another_history(url, service.lose_data)


async def test_nothing_is_read_of_another_file_than_the_one_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    await _read_of_another_history(f"sqlite:///{path}", lambda: remove(path))


async def _read_of_another_history(url: str, lose: Callable[[], None]) -> None:
    """A hub may have positions of the old one, which mean nothing in the new one, until it has asked for the bounds."""
    reader, writer = (connect(HubConfig(broker=url)) for _ in range(2))
    try:
        for broker in (reader, writer):
            await broker.open()
        await writer.append(records([Event("old", (TOPIC,))] * 2, MiB))
        assert [entry.position for entry in await reader.read(1, max_entries=9)] == [2]
        lose()
        await writer.bounds()
        await writer.append(records([Event("new", (TOPIC,))] * 3, MiB))
        with pytest.raises(BrokerError, match=r"another history|another one|a new history"):
            await reader.read(1, max_entries=9)
        tail = reader.tail(1)
        with contextlib.suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(0.5):
                assert not await anext(tail)  # type: ignore[arg-type]
        await tail.aclose()  # type: ignore[attr-defined]
        await reader.bounds()
        assert [entry.position for entry in await reader.read(1, max_entries=9)] == [2, 3]
    finally:
        for broker in (reader, writer):
            await broker.close()


def test_a_node_ends_in_time_while_its_broker_hangs(service: Service, url: str) -> None:
    with start(url) as nodes, subscribed(nodes) as streams, Publisher(nodes[:1]) as publisher:
        publisher.more(5)
        service.suspend()
        try:
            wait_for(lambda: publisher.refused)
            publisher.stop()
            nodes[0].stop()
            streams[0].to_end()
            assert streams[0].of_type("ssepool.close") == [{"reason": "shutdown"}]
        finally:
            service.resume()
        assert not [line for line in nodes[0].log if "Traceback" in line]


# Memory.

OFFERED = 1000
"""Publishes of a quarter of a MiB each, four times as much as may wait."""

AT_ONCE = 900
"""How many of them are under way at the most: far more than may wait."""

COPIES = 5
"""Of what waits there are the request's body, its text and its frame, and a little that is on its way in and out."""


def memory(node: LiveServer) -> int:
    """Bytes, its share of what it shares with others included."""
    rollup = Path(f"/proc/{node.process.pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
    assert found
    return int(found[1]) * KiB


def post(node: LiveServer, body: bytes) -> tuple[int, str]:
    """Status and text of the answer, whenever it comes."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/events", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_what_waits_for_the_broker_is_bounded(tmp_path: Path) -> None:
    service = make_service("redis", tmp_path)
    service.start()
    try:
        with serve_command("--broker", service.url("bounded"), "--broker-timeout", "5") as node:
            body = json.dumps({"topic": TOPIC, "data": "x" * 256 * KiB}).encode()
            assert post(node, body)[0] == 201
            before, seen = memory(node), [0]
            service.suspend()
            with ThreadPoolExecutor(AT_ONCE) as pool:
                answering = [pool.submit(post, node, body) for _ in range(OFFERED)]
                while not all(answer.done() for answer in answering):
                    seen.append(memory(node))
                    time.sleep(0.02)
            answers = [answer.result() for answer in answering]
            assert max(seen) - before < COPIES * MAX_WAITING_BYTES
            assert {status for status, _ in answers} == {503}
            # Beyond the bytes of all bodies under way, or of all events that wait for the broker.
            refused = [said for _, said in answers if "is too slow or away" in said or "too_many_bodies" in said]
            assert len(refused) >= OFFERED / 2
            service.resume()
            wait_for(lambda: send(node, {"data": "x"}))
    finally:
        service.kill()


# A node is killed.


@pytest.fixture(params=["sqlite", *SERVICES])
def any_url(request: pytest.FixtureRequest, services: Get, tmp_path: Path) -> str:
    """The URL of a history of the test's own, on a server that nothing happens to."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    return services(request.param).url("killing")


def test_when_a_node_is_killed_under_load_the_others_go_on_and_have_all_that_was_acknowledged(any_url: str) -> None:
    with start(any_url) as nodes, subscribed(nodes[:1]) as (stream,):
        survivor, victim = nodes
        with Publisher([survivor], "a") as one, Publisher([victim], "b") as two, Publisher(nodes, "c") as three:
            two.more()
            three.more()
            victim.stop(signal.SIGKILL)
            one.more()
            three.more()
            expected = [publisher.stop() for publisher in (one, two, three)]
        survivor.publish(TOPIC, "end")
        stream.until(lambda s: s.data[-1:] == ["end"])
        assert not stream.of_type("ssepool.gap")
        assert len(set(stream.data)) == len(stream.data)
        for name, acknowledged in zip("abc", expected, strict=True):
            received = [data for data in stream.data if data.startswith(name)]
            # The last one that the victim took may be stored though it could not say so any more.
            assert received[: len(acknowledged)] == acknowledged
            assert len(received) <= len(acknowledged) + (name == "b")
        with Stream(survivor, TOPIC, query={"last_event_id": "earliest"}) as late:
            late.wait_data(*stream.data)


# The file of SQLite.


def test_on_a_full_disk_publishes_are_refused_until_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(6 * MiB))
    with start(f"sqlite:///{small_disk}/events.db") as nodes, subscribed(nodes) as streams:
        expected: list[str] = []

        def fill() -> bool:
            """Whether there was still room."""
            name = f"{len(expected)}"
            if not send(
                nodes[len(expected) % 2], {"data": name, "id": name}, {"data": "x" * 300 * KiB, "topic": "big"}
            ):
                return False
            expected.append(name)
            return True

        wait_for(lambda: not fill())
        for node in nodes:
            assert not send(node, {"data": "x" * 300 * KiB, "topic": "big"}, {"data": "all or nothing"})
        with Stream(nodes[0], TOPIC, query={"last_event_id": "earliest"}) as late:  # what is there can be read
            late.wait_data(*expected)
        ballast.unlink()
        for node in nodes:
            wait_for(lambda: fill())
            wait_for(lambda node=node: is_ready(node))
        for stream in streams:
            stream.wait_data(*expected)
            assert not stream.of_type("ssepool.gap")
        wait_acquainted(nodes)


def remove(path: Path) -> None:
    for part in path.parent.glob("events.db*"):
        shutil.rmtree(part) if part.is_dir() else part.unlink()


def replace(path: Path) -> None:
    """By a file that another node has begun."""
    other = path.with_name("other.db")
    with serve_command("--broker", f"sqlite:///{other}") as node:
        node.publish("elsewhere", "x")
    remove(path)
    other.rename(path)


@pytest.mark.parametrize("fault", [remove, replace])
def test_when_the_file_has_gone_subscribers_are_told_and_go_on(tmp_path: Path, fault: Callable[[Path], None]) -> None:
    path = tmp_path / "events.db"
    with start(f"sqlite:///{path}") as nodes, subscribed(nodes) as streams:
        for number in range(10):
            assert send(nodes[number % 2], {"data": f"{number}", "id": f"{number}"})
        for stream in streams:
            stream.wait_data(*map(str, range(10)))
        for _ in range(100):  # messages between the nodes
            assert nodes[0].request("GET", "/cluster")[0] == 200
        fault(path)
        for number in range(10, 20):
            wait_for(lambda number=number: send(nodes[number % 2], {"data": f"{number}", "id": f"{number}"}))
        for stream in streams:
            stream.wait_data(*map(str, range(20)))
            assert [gap["reason"] for gap in stream.of_type("ssepool.gap")] == ["broker_lost"]
        for node in nodes:
            wait_for(lambda node=node: is_ready(node))
        if fault is remove:  # which takes a while
            wait_acquainted(nodes)
        with Stream(nodes[1], TOPIC, last_event_id="3") as late:
            late.wait_data(*map(str, range(10, 20)))
            assert [gap["reason"] for gap in late.of_type("ssepool.gap")] == ["unknown_id"]
