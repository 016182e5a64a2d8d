"""Several nodes over one broker of each kind: real `ssepool serve` processes that share nothing else."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from live import LiveServer, Stream, serve_command, wait_for
from service_fixtures import Get
from services.kinds import SERVICES

FLAGS: tuple[tuple[str, ...], ...] = ((), ("--on-duplicate", "refuse"), ("--window-bytes", "8192"))
"""What is special to each of the three nodes. The last one has next to nothing of the history in memory."""

Connect = Callable[..., Stream]


@contextmanager
def start(url: str, *flags: tuple[str, ...]) -> Iterator[list[LiveServer]]:
    """Several nodes, each with flags of its own."""
    with ExitStack() as stack, ThreadPoolExecutor(len(flags)) as pool:
        starting = [serve_command("--broker", url, "--pool-size", "20", *own) for own in flags]
        yield list(pool.map(stack.enter_context, starting))


@pytest.fixture(scope="module", params=["sqlite", *SERVICES])
def url(request: pytest.FixtureRequest, services: Get, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The broker's."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('nodes')}/events.db"
    return services(request.param).url("nodes")


@pytest.fixture(scope="module")
def shared(url: str) -> Iterator[list[LiveServer]]:
    with start(url, *FLAGS) as nodes:
        yield nodes


@pytest.fixture
def nodes(shared: list[LiveServer]) -> list[LiveServer]:
    """Three nodes that know each other."""
    names = {name_of(node) for node in shared}
    wait_for(lambda: all(known_to(node) == names for node in shared), what="nodes that know each other")
    return shared


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic of the test's own: the nodes and their history are everybody's."""
    return f"tests/{request.node.originalname}"


@pytest.fixture
def connect() -> Iterator[Connect]:
    streams: list[Stream] = []

    def connect(*args: Any, **options: Any) -> Stream:
        streams.append(Stream(*args, **options))
        return streams[-1]

    yield connect
    for stream in streams:
        stream.close()


def ask(node: LiveServer, path: str) -> Any:
    status, answer = node.request("GET", path)
    assert status == 200, answer
    return answer


def name_of(node: LiveServer) -> str:
    name: str = ask(node, "/pool")["node"]
    return name


def known_to(node: LiveServer) -> set[str]:
    """The nodes that have answered it."""
    return {report["node"] for report in ask(node, "/cluster")["nodes"]}


def publish(node: LiveServer, topic: str, data: Iterable[Any]) -> list[str]:
    """One batch."""
    status, answer = node.request("POST", "/events", [{"topic": topic, "data": str(one)} for one in data])
    assert status == 201, answer
    ids: list[str] = answer["ids"]
    return ids


def ids_of(stream: Stream) -> list[str]:
    return [event.id for event in stream.events if not event.type.startswith("ssepool.")]


# Events.


def test_what_is_published_on_any_node_reaches_all_in_one_order(
    nodes: list[LiveServer], connect: Connect, topic: str
) -> None:
    streams = [connect(node, topic).opened() for node in nodes]
    ids = [node.publish(topic, number) for number, node in enumerate(nodes * 10)]
    for stream in streams:
        stream.wait_data(*map(str, range(30)))
        assert ids_of(stream) == ids


def test_batches_of_two_publishers_at_once_stay_whole_and_all_see_one_order(
    nodes: list[LiveServer], connect: Connect, topic: str
) -> None:
    streams = [connect(node, topic).opened() for node in nodes]
    batches = {f"{place}.{number}": 1 + number % 20 for place in (0, 2) for number in range(40)}

    def publish_all(place: int) -> dict[str, list[str]]:
        return {
            name: publish(nodes[place], topic, [name] * size)
            for name, size in batches.items()
            if name.startswith(f"{place}.")
        }

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(publish_all, (0, 2))
    total = sum(batches.values())
    for stream in streams:
        stream.until(lambda s: len(s.data) >= total)
    order = list(zip(streams[0].data, ids_of(streams[0]), strict=True))
    runs = [(name, [id for _, id in run]) for name, run in itertools.groupby(order, key=lambda pair: pair[0])]
    assert dict(runs) == {**first, **second}
    assert len(runs) == len(batches)  # each in one piece
    for place in (0, 2):
        assert [name for name, _ in runs if name.startswith(f"{place}.")] == [n for n in batches if n[0] == str(place)]
    for stream in streams[1:]:
        assert (stream.data, ids_of(stream)) == (streams[0].data, ids_of(streams[0]))


@pytest.mark.parametrize("own", [False, True], ids=["made", "chosen"])
def test_a_client_resumes_on_another_node(nodes: list[LiveServer], connect: Connect, topic: str, own: bool) -> None:
    topic = f"{topic}/{own}"

    def send(node: LiveServer, number: int) -> None:
        node.publish(topic, number, **({"id": f"own{number}"} if own else {}))

    stream = connect(nodes[0], topic).opened()
    for number in range(3):
        send(nodes[0], number)
    stream.wait_data("0", "1", "2")
    stream.close()
    for place, node in enumerate(nodes):
        send(nodes[0], 3 + 2 * place)
        stream = connect(node, topic, last_event_id=stream.last_event_id).opened()
        send(nodes[1], 4 + 2 * place)
        stream.wait_data(str(3 + 2 * place), str(4 + 2 * place))
        assert not stream.of_type("ssepool.gap")
        stream.close()


@pytest.mark.parametrize("own", [False, True], ids=["made", "chosen"])
def test_what_a_client_missed_is_fetched_from_the_broker_while_publishing_goes_on(
    nodes: list[LiveServer], connect: Connect, topic: str, own: bool
) -> None:
    topic = f"{topic}/{own}"
    begin = nodes[0].publish(topic, "begin", **({"id": "begin"} if own else {}))
    expected = [str(number) for number in range(4000)]
    for start in range(0, 3000, 500):
        publish(nodes[0], topic, expected[start : start + 500])
    going_on = threading.Thread(
        target=lambda: [publish(nodes[n % 2], topic, expected[n : n + 10]) for n in range(3000, 4000, 10)]
    )
    going_on.start()
    # The last node has all but the newest of it only at the broker, the first one has it at hand.
    streams = [connect(node, topic, last_event_id=begin) for node in (nodes[0], nodes[2], nodes[2])]
    live = connect(nodes[2], topic).opened()
    for stream in streams:
        stream.wait_data(*expected)
        assert not stream.of_type("ssepool.gap")
    going_on.join()
    live.until(lambda s: s.data[-1:] == expected[-1:])
    assert live.data == expected[-len(live.data) :]
    assert ids_of(streams[0]) == ids_of(streams[1]) == ids_of(streams[2])


def test_everything_that_is_kept_can_be_asked_for(nodes: list[LiveServer], connect: Connect, topic: str) -> None:
    expected = [str(number) for number in range(1500)]
    publish(nodes[1], topic, expected)
    for node in nodes:
        stream = connect(node, topic, query={"last_event_id": "earliest"})
        stream.wait_data(*expected)
        assert not stream.of_type("ssepool.gap")
        nodes[1].publish(topic, "more")
        expected.append("more")
        stream.wait_data(*expected)


def test_a_client_that_has_had_no_event_comes_back_to_any_node_and_has_missed_none(
    nodes: list[LiveServer], connect: Connect, topic: str
) -> None:
    stream = connect(nodes[0], topic).opened()
    place = stream.events[0].id
    stream.close()
    nodes[1].publish("others", "of no interest")
    nodes[1].publish(topic, "missed")
    for node in nodes:
        again = connect(node, topic, last_event_id=place).wait_data("missed")
        assert not again.of_type("ssepool.gap")
        assert again.events[0].id == place  # until something has come


def test_the_newest_of_each_topic_come_first_on_any_node(nodes: list[LiveServer], connect: Connect, topic: str) -> None:
    for number in range(5):
        nodes[number % 3].publish(f"{topic}/{number % 2}", number)
    for node in nodes:
        everything = connect(node, f"{topic}/0", f"{topic}/1", last_event_id="earliest")
        everything.wait_data("0", "1", "2", "3", "4")
        stream = connect(node, f"{topic}/0", f"{topic}/1", last_event_id="latest").wait_data("3", "4")
        assert not stream.of_type("ssepool.gap")


def test_a_row_is_one_on_all_nodes(nodes: list[LiveServer], connect: Connect, topic: str) -> None:
    watching = [connect(node, topic).opened() for node in nodes]
    ids = [nodes[number % 3].publish(topic, number, key=str(number % 2)) for number in range(6)]
    nodes[2].publish(topic, "gone", key="2")
    nodes[0].publish(topic, "2", key="2", removed=True)
    for stream in watching:  # until no node is behind
        stream.wait_data(*"012345", "gone", "2")
    streams = [connect(node, topic, last_event_id="earliest").wait_data("4", "5") for node in nodes]
    nodes[1].publish(topic, "6", key="0")
    for stream in streams:
        stream.wait_data("4", "5", "6")
    for node in nodes:  # who comes back may show what has been removed
        stream = connect(node, topic, last_event_id=ids[0], query={"last_event_id": "earliest"})
        stream.wait_data("5", "2", "6")
        assert not stream.of_type("ssepool.gap")


def test_every_node_lists_the_topics_of_all(nodes: list[LiveServer], connect: Connect, topic: str) -> None:
    for number, node in enumerate(nodes):
        node.publish(f"{topic}/{number}", number)
        connect(node, f"{topic}/{number}", f"{topic}/own {number}").opened()
    rows = sorted((f"{topic}/{name}", count) for n in range(3) for name, count in ((str(n), 1), (f"own {n}", 0)))

    def listed(node: LiveServer, limit: int) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        after = ""
        while after is not None:
            page = ask(node, f"/topics?{urlencode({'prefix': topic + '/', 'limit': limit, 'after': after})}")
            assert all(row["subscribers"] == 1 for row in page["topics"])
            found += [(row["topic"], row["events"]) for row in page["topics"]]
            after = page["next"]
        return found

    for node in nodes:
        wait_for(lambda node=node: listed(node, 2) == rows, what="what the others have published")
        assert listed(node, 100) == rows


def test_an_id_that_nobody_knows_is_told_as_a_gap_on_any_node(
    nodes: list[LiveServer], connect: Connect, topic: str
) -> None:
    nodes[0].publish(topic, "kept")
    for node, id in itertools.product(nodes, ("00000000-17", "never-published")):
        stream = connect(node, topic, last_event_id=id).wait_data("kept")
        (gap,) = stream.of_type("ssepool.gap")
        assert (gap["requested"], gap["reason"]) == (id, "unknown_id")


def test_an_id_is_published_once_on_whichever_node(nodes: list[LiveServer], connect: Connect, topic: str) -> None:
    streams = [connect(node, topic).opened() for node in nodes]
    assert nodes[0].publish(topic, "first", id="once") == "once"
    for node in (nodes[0], nodes[2]):
        assert node.publish(topic, "first", id="once") == "once"
    status, answer = nodes[1].request("POST", "/events", {"topic": topic, "data": "first", "id": "once"})
    assert (status, answer["error"]["code"]) == (409, "duplicate_event")
    batch = [{"topic": topic, "data": "all or nothing"}, {"topic": topic, "data": "first", "id": "once"}]
    assert nodes[1].request("POST", "/events", batch)[0] == 409
    for node in nodes:
        status, answer = node.request("POST", "/events", {"topic": topic, "data": "another", "id": "once"})
        assert (status, answer["error"]["code"]) == (409, "id_conflict")
    assert nodes[1].publish(f"{topic}/elsewhere", "another", id="once") == "once"
    nodes[1].publish(topic, "last")
    for stream in streams:
        stream.wait_data("first", "last")


# Connections.


def test_every_node_reaches_every_connection(nodes: list[LiveServer], connect: Connect, topic: str) -> None:
    streams = [connect(node, topic, data={"place": place}).opened() for place, node in enumerate(nodes * 2)]
    ids = sorted(stream.connection for stream in streams)
    for node in nodes:
        answer = ask(node, f"/connections?topic={topic}")
        assert ([found["id"] for found in answer["connections"]], answer["missing"]) == (ids, [])
        pages: list[str] = []
        following: str | None = ""
        while following is not None:
            page = ask(node, f"/connections?topic={topic}&limit=2{following and '&after=' + following}")
            pages += [found["id"] for found in page["connections"]]
            following = page["next"]
        assert pages == ids
        for place, stream in enumerate(streams):
            assert ask(node, f"/connections/{stream.connection}")["data"] == {"place": place}
            path = f"/connections/{stream.connection}/messages"
            token = stream.of_type("ssepool.open")[0]["token"]
            for given, status in ((token, 202), ("wrong", 401)):
                assert node.request("POST", path, {"hello": 1}, {"Authorization": f"Bearer {given}"})[0] == status
    assert ask(nodes[0], "/connections?topic=nobody/wants/this")["connections"] == []


def test_a_connection_that_is_nowhere_is_not_found(nodes: list[LiveServer], connect: Connect, topic: str) -> None:
    stream = connect(nodes[1], topic).opened()
    used = stream.connection
    stream.close()
    nodes[1].wait_pool(open=0, closing=0)
    for node, id in itertools.product(nodes, (used, "ffffff-0-0", "nonsense", f"{used.partition('-')[0]}-99-1")):
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/messages")):
            body = {} if method == "POST" else None
            headers = {"Authorization": "Bearer token"}
            status, _ = node.request(method, f"/connections/{id}{path}", body, headers)
            # A wrong token is answered alike whether the connection is there or not; without a key that the nodes share
            # nobody can tell it of a node that has left.
            assert status in ((401, 404) if method == "POST" else (404,)), (method, id)


def test_who_is_kicked_from_another_node_stays_away_from_all(
    nodes: list[LiveServer], connect: Connect, topic: str
) -> None:
    for victim in nodes:
        data = {"name": f"mallory of {victim.port}"}
        stream = connect(victim, topic, data=data).opened()
        other = nodes[0] if victim is not nodes[0] else nodes[1]
        assert other.request("DELETE", f"/connections/{stream.connection}")[0] == 204
        stream.to_end()
        assert stream.of_type("ssepool.close") == [{"reason": "kicked"}]
        for node in nodes:  # bans are told to the others by a message
            wait_for(lambda node=node, data=data: is_sent_away(connect(node, topic, data=data)))
        assert not is_sent_away(connect(other, topic, data={"name": "alice"}))
        for node in nodes:
            node.wait_pool(waiting=0, reserved=0)


def is_sent_away(stream: Stream) -> bool:
    stream.until(lambda s: s.events)
    stream.close()
    return stream.of_type("ssepool.close") == [{"reason": "kicked"}]


# The cluster itself.


def test_every_node_tells_of_all(nodes: list[LiveServer], connect: Connect, topic: str) -> None:
    names = [name_of(node) for node in nodes]
    streams = [connect(nodes[0], topic).opened(), connect(nodes[2], topic).opened()]
    id = nodes[1].publish(topic, "event")
    for stream in streams:
        stream.wait_data("event")
    for node, name in zip(nodes, names, strict=True):
        answer = ask(node, "/cluster")
        reports = {report["node"]: report for report in answer["nodes"]}
        assert (answer["nodes"][0]["node"], set(reports), answer["missing"]) == (name, set(names), [])
        assert {report["pid"] for report in reports.values()} == {node.process.pid for node in nodes}
        assert [reports[name]["pool"]["open"] for name in names] == [1, 0, 1]
        assert [reports[name]["pool"]["waiting"] for name in names] == [0, 0, 0]
        for report in reports.values():
            assert report["broker"]["failing"] is None
            assert report["broker"]["behind"] == 0
            assert "s3cret" not in report["broker"]["url"]
        positions = [reports[streamed]["broker"]["position"] for streamed in (names[0], names[2])]
        assert positions == [int(id.rpartition("-")[2])] * 2


def test_a_node_that_leaves_is_forgotten_at_once(nodes: list[LiveServer], url: str) -> None:
    names = {name_of(node) for node in nodes}
    with start(url, ()) as (leaving,):
        wait_for(lambda: all(known_to(node) == {*names, name_of(leaving)} for node in nodes))
        leaving.stop()
        for node in nodes:
            known_to(node)  # what the others answer comes after that node's goodbye
            assert heard_by(node) == (names, set())


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_nodes_that_are_gone_are_forgotten_and_one_that_only_hung_comes_back(
    kind: str, services: Get, tmp_path: Path, connect: Connect, topic: str
) -> None:
    url = f"sqlite:///{tmp_path}/events.db" if kind == "sqlite" else services(kind).url("gone")
    with start(url, (), (), ()) as (node, victim, hanging):
        name, others = name_of(node), {name_of(victim), name_of(hanging)}
        wait_for(lambda: heard_by(node) == ({name, *others}, set()))
        stream = connect(hanging, topic).opened()
        victim.stop(signal.SIGKILL)
        hanging.process.send_signal(signal.SIGSTOP)
        try:
            known, missing = heard_by(node)
            assert known == {name}
            assert missing <= others
            ids = publish(node, topic, "abc")
            wait_for(lambda: heard_by(node) == ({name}, set()), what="both are forgotten")
            assert node.request("GET", f"/connections/{stream.connection}")[0] == 404
        finally:
            hanging.process.send_signal(signal.SIGCONT)
        stream.wait_data("a", "b", "c")
        assert ids_of(stream) == ids
        wait_for(lambda: name_of(hanging) in known_to(node))
        assert ask(node, f"/connections/{stream.connection}")["id"] == stream.connection


def test_a_node_that_does_not_answer_is_named(nodes: list[LiveServer], connect: Connect, topic: str) -> None:
    hanging, stream = nodes[1], connect(nodes[1], topic).opened()
    name, process = name_of(hanging), hanging.process

    def is_named() -> bool:
        """Unless it hangs for so long that it is forgotten."""
        process.send_signal(signal.SIGSTOP)
        try:
            with ThreadPoolExecutor() as pool:
                cluster = pool.submit(heard_by, nodes[0])
                listed = pool.submit(ask, nodes[2], "/connections")
                kick = pool.submit(nodes[0].request, "DELETE", f"/connections/{stream.connection}")
            return name in cluster.result()[1] and listed.result()["missing"] == [name] and kick.result()[0] == 503
        finally:
            process.send_signal(signal.SIGCONT)
            wait_for(lambda: name in known_to(nodes[0]))

    wait_for(is_named)


def heard_by(node: LiveServer) -> tuple[set[str], set[str]]:
    """Who answered it, and who did not."""
    answer = ask(node, "/cluster")
    return {report["node"] for report in answer["nodes"]}, {node["node"] for node in answer["missing"]}


def test_nodes_of_another_name_are_none_of_ours(nodes: list[LiveServer], url: str, tmp_path: Path, topic: str) -> None:
    other = f"sqlite:///{tmp_path}/other.db" if url.startswith("sqlite") else url.replace("name=nodes", "name=others")
    with serve_command("--broker", other) as stranger, Stream(stranger, topic).opened() as stream:
        publish(nodes[0], topic, ["ours"])
        stranger.publish(topic, "theirs")
        stream.wait_data("theirs")
        assert known_to(stranger) == {name_of(stranger)}
        assert name_of(stranger) not in known_to(nodes[0])
