"""What is special to the broker on NATS JetStream: its faults, its refusals, and what its stream looks like."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from histories import DEADLINE, Open, batch, page_of, positions, read_all, take
from services.nats import Nats
from ssepool.brokers import connect
from ssepool.brokers.nats.address import Address
from ssepool.brokers.nats.batch import State, decode, subject_of
from ssepool.brokers.nats.batch import batch as messages_of
from ssepool.brokers.record import pack
from ssepool.config import HubConfig, MiB
from ssepool.core.cut import Cut
from ssepool.errors import BrokerError, ConfigError, IdConflict


@pytest.fixture
def kind() -> str:
    """For the fixtures `service` and `opened`."""
    return "nats"


@asynccontextmanager
async def operator(service: Nats) -> AsyncIterator[JetStreamContext]:
    """Somebody else at the server."""
    async with Client() as client:
        await client.connect(f"nats://127.0.0.1:{service.port}")
        yield client.jetstream()


def behind(place: int) -> dict[str, str]:
    """The headers of a message of ours behind a place."""
    return {"Nats-Expected-Last-Sequence": str(place)}


def configure(service: Nats, text: str) -> None:
    """Start the server again with a configuration of its own."""
    service.kill()
    path = service.directory / "nats.conf"
    path.write_text(text)
    service.options = ("-c", str(path))
    service.start()


# A server that dies or hangs.


async def test_an_append_that_was_sent_and_not_answered_may_be_stored(service: Nats, opened: Open) -> None:
    broker = await opened(broker_timeout=1.0)
    await broker.append(batch("a"))
    service.suspend()
    with pytest.raises(BrokerError, match=r"no answer in 1 s; the events may be published or not$"):
        await broker.append(batch("b", ids=("mine",)))
    service.resume()
    await broker.append(batch("b", ids=("mine",)))
    assert [entry.id for entry in await read_all(broker)][1:] == ["mine"]


async def test_waiting_calls_end_when_the_broker_is_closed(opened: Open) -> None:
    broker = await opened()
    waiting = [
        asyncio.ensure_future(page_of(broker.tail(0))),  # type: ignore[arg-type]
        asyncio.ensure_future(anext(broker.messages())),  # type: ignore[arg-type]
    ]
    await asyncio.sleep(0.1)
    await broker.close()
    for future in waiting:
        with pytest.raises(BrokerError, match="the connection is closed"):
            await asyncio.wait_for(future, DEADLINE)


async def test_a_cancellation_that_comes_together_with_an_answer_ends_the_call(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await opened()
    answered = Client._process_msg

    async def append_for_ever() -> None:
        while True:
            await broker.append(batch("a"))

    task = asyncio.create_task(append_for_ever())

    async def answer(self: Client, *args: Any) -> None:
        await answered(self, *args)
        task.cancel()

    monkeypatch.setattr(Client, "_process_msg", answer)
    async with asyncio.timeout(DEADLINE):
        await asyncio.wait([task])
    assert task.cancelled()
    assert len(await read_all(broker)) <= 1


async def test_a_connection_that_hangs_is_given_up(service: Nats, opened: Open) -> None:
    broker = await opened(broker_timeout=0.3)
    waiting = asyncio.ensure_future(anext(broker.messages()))  # type: ignore[arg-type]
    await asyncio.sleep(0.1)
    service.suspend()
    with pytest.raises(BrokerError):
        await asyncio.wait_for(waiting, DEADLINE)


# A history that is lost, in whole and in part.


async def test_a_publisher_that_remembers_a_deleted_stream_appends_nothing_to_the_next(
    service: Nats, opened: Open
) -> None:
    one, two = await opened(), await opened()
    await one.append(batch("a"))  # it knows: the newest message is the first
    service.lose_data()
    await two.append(batch("b"))  # which is true of the new stream too
    assert positions(await one.append(batch("c"))) == [2]
    assert await one.bounds() == await two.bounds()
    assert len({entry.id[:8] for entry in await read_all(two) if entry.id}) == 1


async def test_a_stream_that_was_emptied_begins_a_new_history_for_all(service: Nats, opened: Open) -> None:
    one, two = await opened(), await opened()
    await one.append(batch(*"abc"))
    before = await one.bounds()
    async with operator(service) as js:
        await js.purge_stream("test")
    after = await two.bounds()
    assert after == await one.bounds() == (after.epoch, 0, 0, 0, (), 0)
    assert after.epoch != before.epoch
    assert await two.append(batch("d")) == [(f"{after.epoch}-1", 1)]
    assert await one.append(batch("e")) == [(f"{after.epoch}-2", 2)]


async def test_what_a_dead_publisher_left_is_passed_over(service: Nats, opened: Open) -> None:
    broker = await opened()
    await broker.append(batch("a"))
    async with operator(service) as js:
        prefix = (await js.stream_info("test")).config.subjects[0][:-1]  # type: ignore[index]
        epoch = (await broker.bounds()).epoch
        state = State(2, epoch, 1, 100)
        messages, _ = messages_of(state, batch("x", "y", "z", ids=("p", "q", "r")), MiB)
        for place, (subject, data) in enumerate(messages[:2], 2):
            await js.publish(prefix + subject, data, headers=behind(place))
        assert await broker.find("p") is None
        assert (await broker.bounds())[1:3] == (0, 1)
        await js.publish(prefix + messages[0][0], messages[0][1], headers=behind(4))
    assert positions(await broker.append(batch("b", "c", ids=("p", "s")))) == [2, 3]
    assert [await broker.find(id) for id in "pqrs"] == [2, None, None, 3]
    assert positions(await broker.append(batch("q", "b", ids=("q", "p")))) == [4, 2]
    for entries in (await read_all(broker), await take(broker, 0, 4)):
        assert [entry.frame.split(b"data: ")[1] for entry in entries] == [b"a\n\n", b"b\n\n", b"c\n\n", b"q\n\n"]


async def test_a_stream_of_an_earlier_version_is_taken_over(service: Nats, opened: Open) -> None:
    old = [*batch("a", "b", ids=("mine", "other")), *batch("c")]
    async with operator(service) as js:
        await js.add_stream(name="test", subjects=["test.00c0ffee.>"])
        messages, _ = messages_of(State(2, "00c0ffee", 40, 999), old, MiB)
        await js.publish("test.00c0ffee.log", b"dropped")
        await js.publish("test.00c0ffee.log", b"dropped")
        for place, (subject, data) in enumerate(messages, 2):
            older = "test.00c0ffee." + subject.rpartition(".")[0], pack(msgspec.msgpack.decode(data)[:9])
            await js.publish(*older, headers=behind(place))
        await js.purge_stream("test", seq=3)
        await js.publish("test.00c0ffee.log", *_message_of("d", State(4, "00c0ffee", 43, 1099)))
    for turn in range(2):
        broker = await opened()
        bounds = await broker.bounds()
        assert (bounds.oldest, bounds.timelines, bounds.floor) == (40, (("00c0ffee", 44),), 40)
        assert [entry.id for entry in await read_all(broker)][:3] == ["mine", "other", "00c0ffee-43"]
        assert await broker.find("00c0ffee-43") == 43
        assert await broker.find("mine", lambda topics, private: topics == ("news",)) == 41
        assert await broker.find("other") == 42
        assert await broker.find("mine", lambda topics, private: topics == ("x",)) == (45 if turn else None)
        assert positions(await broker.append(batch("b", "a", ids=("other", "mine")))) == [42, 41]
        with pytest.raises(IdConflict):
            await broker.append(batch("d", "other", ids=(None, "mine")))
        assert positions(await broker.append(batch("d", ids=("mine",), topics=["x"]))) == [45]


def _message_of(text: str, state: State) -> tuple[bytes, float | None, str | None, dict[str, str]]:
    """What `publish` takes of a message behind this end."""
    [(_, data)], _ = messages_of(state, batch(text), MiB)
    return data, None, None, behind(state.seq)


async def test_topics_that_a_message_has_no_room_for_are_read_from_the_event(service: Nats, opened: Open) -> None:
    broker = await opened()
    large = [f"{number} ".ljust(1000, "x") for number in range(90)]
    some = [*batch("a", ids=("mine",), topics=["a"]), *batch("b", ids=("mine",), topics=large)]
    assert positions(await broker.append(some)) == positions(await broker.append(some)) == [1, 2]
    assert await broker.find("mine", lambda topics, private: large[7] in topics) == 2
    assert await broker.find("mine", lambda topics, private: "b" in topics) is None


async def test_a_history_whose_beginning_was_cut_inside_a_batch(service: Nats, opened: Open) -> None:
    broker = await opened()
    await broker.append(batch(*"abc", ids=("a", "b", "c")))
    await broker.append(batch("d"))
    async with operator(service) as js:
        await js.purge_stream("test", seq=3)  # with the message that says how the history is called
    assert positions(await read_all(broker)) == positions(await take(broker, 0, 1)) == [4]
    bounds = await (await opened()).bounds()
    assert (bounds.oldest, bounds.timelines) == (3, ())


# Processes, turns, and what the server keeps.


@asynccontextmanager
async def far_away(service: Nats, seconds: float) -> AsyncIterator[int]:
    """A port of the server where everything takes so much longer, each way."""
    writers: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        writers.append(writer)
        while data := await reader.read(65536):
            loop.call_later(seconds, writer.write, data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", service.port)
        await asyncio.gather(forward(reader, to_writer), forward(to_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()


async def test_a_near_publisher_that_appends_without_a_break_leaves_turns_to_others(
    service: Nats, opened: Open
) -> None:
    near = await opened()

    async def append_for_ever() -> None:
        while True:
            await near.append(batch("near"))

    async with far_away(service, 0.01) as port:
        far = await opened(f"nats://127.0.0.1:{port}?name=test")
        task = asyncio.create_task(append_for_ever())
        async with asyncio.timeout(DEADLINE):
            for _ in range(10):
                await far.append(batch("large" * 150_000, "large" * 150_000))  # needs two messages in a row
        task.cancel()
        await asyncio.wait([task])
        await far.close()
    kept = [entry for entry in await read_all(near) if b"near" not in entry.frame]
    assert positions(kept[1::2]) == [position + 1 for position in positions(kept[::2])]
    assert len(kept) == 20


async def places(service: Nats, stream: str = "test") -> list[int]:
    """The places of the messages that a stream has."""
    async with operator(service) as js:
        state = (await js.stream_info(stream)).state
        found = []
        for seq in range(state.first_seq, state.last_seq + 1):
            with contextlib.suppress(NotFoundError):
                await js.get_msg(stream, seq)
                found.append(seq)
        return found


async def test_what_is_dropped_leaves_the_server(service: Nats, opened: Open) -> None:
    broker = await opened()  # the history's name is at the first place
    for text in "abcde":
        await broker.append(batch(text))
    await broker.append(batch(*"fgh", ids=("f", "g", None)))  # two messages
    await broker.drop([3], {}, 0)
    assert await places(service) == [1, 2, 3, 5, 6, 7, 8]
    await broker.drop([1, 2], {}, 0)
    assert await places(service) == [5, 6, 7, 8, 9]  # the name stands behind all
    await broker.drop([6, 8], {}, 0)
    assert await places(service) == [5, 6, 7, 8, 9]
    assert len(await places(service, "test_cuts")) == 2  # the floor is one
    await broker.drop([7], {}, 0)
    assert (await places(service), len(await places(service, "test_cuts"))) == ([5, 6, 9], 1)
    await broker.drop([4, 5], {}, 0)
    assert await places(service) == [9]
    await broker.append(batch("i"))
    await broker.drop([9], {}, 0)
    assert await places(service) == [11]
    assert (await broker.bounds())[1:4] == (9, 9, 0)


async def test_names_are_apart(service: Nats, opened: Open) -> None:
    one, two = await opened(service.url("one")), await opened(service.url("one-2"))
    await one.append(batch("a", ids=("mine",)))
    assert (await two.bounds())[1:4] == (0, 0, 0)
    assert await two.find("mine") is None


# What the server refuses.


async def test_a_server_without_jetstream_is_an_error_that_says_what_to_do(service: Nats, opened: Open) -> None:
    service.kill()
    service.options = ()
    service.start()
    with pytest.raises(ConfigError, match=r"JetStream is not enabled.*start nats-server with -js"):
        await opened()


LOGINS = """
jetstream {}
accounts { app {
    jetstream: enabled
    users: [
        {user: ann, password: "s3cret%"},
        {user: bob, password: s3cret, permissions: {publish: {deny: ["$JS.API.STREAM.CREATE.>"]}}},
        {user: cid, password: s3cret, permissions: {
            publish: [
                "$JS.API.STREAM.INFO.test", "$JS.API.STREAM.CREATE.test", "$JS.API.STREAM.PURGE.test"
                "$JS.API.STREAM.MSG.GET.test", "$JS.API.CONSUMER.CREATE.test", "$JS.API.CONSUMER.DELETE.test.*"
                "$JS.API.CONSUMER.MSG.NEXT.test.*", "test.>"
                "$JS.API.STREAM.INFO.test_facts", "$JS.API.STREAM.CREATE.test_facts", "$JS.API.STREAM.PURGE.test_facts"
                "$JS.API.STREAM.MSG.GET.test_facts", "$JS.API.CONSUMER.CREATE.test_facts"
                "$JS.API.STREAM.INFO.test_cuts", "$JS.API.STREAM.CREATE.test_cuts", "$JS.API.STREAM.PURGE.test_cuts"
                "$JS.API.STREAM.MSG.GET.test_cuts", "$JS.API.CONSUMER.CREATE.test_cuts"
                "$JS.API.CONSUMER.DELETE.test_cuts.*", "$JS.API.CONSUMER.MSG.NEXT.test_cuts.*"
                "$JS.API.STREAM.MSG.DELETE.test", "$JS.API.STREAM.MSG.DELETE.test_cuts", "_INBOX.>"
                "$JS.API.CONSUMER.DELETE.test_facts.*", "$JS.API.CONSUMER.MSG.NEXT.test_facts.*"
            ]
            subscribe: ["_INBOX.>", "test.messages", "test.turns", "test.hubs"]
        }}
    ]
} }
"""


@pytest.mark.parametrize("login", ["", "ann:s3cret@", "s3cret@", "nobody:s3cret@"])
async def test_wrong_credentials_are_an_error_at_the_start(service: Nats, opened: Open, login: str) -> None:
    configure(service, LOGINS)
    with pytest.raises(ConfigError, match=r"does not accept this user and password, or token$") as error:
        await opened(f"nats://{login}127.0.0.1:{service.port}")
    assert "s3cret" not in str(error.value)
    await opened(f"nats://ann:s3cret%25@127.0.0.1:{service.port}")


async def test_a_token_is_accepted(service: Nats, opened: Open) -> None:
    configure(service, "jetstream {}\nauthorization { token: s3cret }")
    broker = await opened(f"nats://s3cret@127.0.0.1:{service.port}")
    assert broker.url == f"nats://***@127.0.0.1:{service.port}"
    assert len(await broker.append(batch("a"))) == 1


async def test_a_user_without_a_permission_is_an_error_that_names_it(service: Nats, opened: Open) -> None:
    configure(service, LOGINS)
    with pytest.raises(
        ConfigError, match=r'ermissions [vV]iolation for .*ublish to "\$js\.api\.stream\.create'
    ) as error:
        await opened(f"nats://bob:s3cret@127.0.0.1:{service.port}")
    assert "s3cret" not in str(error.value)


async def test_few_permissions_are_enough(service: Nats, opened: Open) -> None:
    configure(service, LOGINS)
    broker = await opened(f"nats://cid:s3cret@127.0.0.1:{service.port}?name=test")
    await broker.append(batch("a", "b", ids=("mine",)))
    await broker.drop([1], {"news": Cut(1)}, 0)
    assert list(await broker.cuts()) == [("news", Cut(1))]
    await opened(f"nats://cid:s3cret@127.0.0.1:{service.port}?name=test")
    assert positions(await take(broker, 0, 1)) == positions(await broker.read(0, max_entries=5)) == [2]
    await broker.keep("one", b"1", 0.01)
    await broker.keep("two", b"2", 60)
    assert [fact.name for fact in await broker.kept() if fact.name == "two"] == ["two"]
    await asyncio.sleep(0.02)
    await broker.trim()
    await broker.send(b"x")


async def test_a_max_payload_that_is_too_small_is_an_error_at_the_start(service: Nats, opened: Open) -> None:
    configure(service, "jetstream {}\nmax_payload: 65536")
    with pytest.raises(ConfigError, match=r"max_payload is 65536 bytes; set it to 1048576 \(1 MiB\) or more$"):
        await opened()


async def test_a_stream_of_somebody_else_is_an_error_and_stays(service: Nats, opened: Open) -> None:
    async with operator(service) as js:
        await js.add_stream(name="test", subjects=["orders.>"])
        await js.add_stream(name="other", subjects=["mine.>"])
        with pytest.raises(ConfigError, match=r"there is a stream 'test' already that is not ssepool's"):
            await opened()
        with pytest.raises(ConfigError, match=r"the stream 'mine' cannot be made: subjects overlap"):
            await opened(service.url("mine"))
        assert {stream.config.name for stream in await js.streams_info()} == {"test", "other"}


async def test_more_replicas_than_servers_are_an_error_at_the_start(service: Nats, opened: Open) -> None:
    with pytest.raises(ConfigError, match=r"cannot be made: replicas > 1 not supported"):
        await opened(service.url("test") + "&replicas=3")


async def test_a_store_that_is_full_stores_nothing(service: Nats, opened: Open) -> None:
    configure(service, "jetstream { max_file_store: 1MB }")
    broker = await opened()
    await broker.append(batch("a"))
    with pytest.raises(BrokerError, match=r"nothing was published$"):
        for number in range(10):
            await broker.append(batch("x" * 300_000, ids=(str(number),)))
    kept = await read_all(broker)
    assert positions(kept) == list(range(1, len(kept) + 1))
    assert await broker.find(str(len(kept) - 1)) is None


async def test_a_server_that_is_not_there_is_a_broker_error(service: Nats, opened: Open) -> None:
    service.kill()
    with pytest.raises(BrokerError, match=r"^nats://u:\*\*\*@127\.0\.0\.1:\d+: .*[Cc]onnect") as error:
        await opened(f"nats://u:s3cret@127.0.0.1:{service.port}")
    assert not isinstance(error.value, ConfigError)


async def test_one_of_several_servers_is_enough(service: Nats, opened: Open) -> None:
    broker = await opened(f"nats://127.0.0.1:1,127.0.0.1:{service.port}?name=test")
    assert len(await broker.append(batch("a"))) == 1


async def test_no_password_goes_to_a_server_without_tls(opened: Open) -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version": "2.10.0", "max_payload": 1048576, "headers": true, "auth_required": true}\r\n')
        heard.append(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ConfigError, match=r"the server does not speak TLS; no password was sent$"):
            await opened(f"tls://ann:s3cret@127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with asyncio.timeout(DEADLINE):
            while not heard:
                await asyncio.sleep(0.01)
    assert heard == [b""]


@pytest.mark.parametrize("version", ["2.8.4", "1.4.1"])
async def test_a_server_that_is_too_old_is_an_error_at_the_start(opened: Open, version: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version": "%b", "max_payload": 1048576, "headers": true}\r\n' % version.encode())
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        with pytest.raises(ConfigError, match=rf"this is NATS {re.escape(version[:3])}; ssepool needs 2\.9 or newer$"):
            await opened(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")


# The URL, and messages.


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("//h?nmae=x", "has 'nmae' in its query; it takes name and replicas"),
        ("//u:s3cret@h?password=s3cret", "has 'password' in its query"),
        ("//h?name=", "name='' is not allowed; it takes letters, digits, - and _"),
        ("//h?name=a.b", "name='a.b' is not allowed"),
        ("//h?replicas=2.5", "replicas='2.5' is not allowed; it takes 1 to 5"),
        ("//h?replicas=0", "replicas='0' is not allowed"),
        ("//h/app", "it takes nats://host:port"),
        ("", "it takes nats://host:port"),
        ("//h:99999", "it takes nats://host:port"),
        ("//a,,b", "it takes nats://host:port"),
    ],
)
def test_a_url_that_will_not_do_is_an_error_that_says_why(rest: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        connect(HubConfig(broker=f"nats:{rest}"))
    assert said in str(error.value)
    assert "s3cret" not in str(error.value)


def test_a_url_says_where_the_servers_are_and_who_we_are() -> None:
    assert Address.of("tls://ann:s3%40cret@a:1,b?name=app&replicas=3") == (
        ["tls://a:1", "tls://b"],
        "ann",
        "s3@cret",
        "app",
        3,
        "tls://ann:***@a:1,b?name=app&replicas=3",
    )
    assert Address.of("nats://h") == (["nats://h"], None, None, "ssepool", 1, "nats://h")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nats", "nats.errors"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("broker", "connection", "stream"):
        monkeypatch.delitem(sys.modules, f"ssepool.brokers.nats.{name}", raising=False)
    with pytest.raises(ConfigError, match=r'install "ssepool\[nats\]"$'):
        connect(HubConfig(broker="nats://h"))


@pytest.mark.parametrize("id", ["a.b", "*", ">", "a>b", "a%2Eb", "/", "$SYS", "x" * 128, "." * 128])
def test_the_subject_of_an_id_is_one_token_and_its_own(id: str) -> None:
    subject = subject_of(id, ("news",))
    prefix, token, digest = subject.split(".")
    assert prefix == "id"
    assert re.fullmatch(r"[A-Za-z0-9_~%-]+", token)
    assert re.fullmatch(r"[0-9a-f]{32}", digest)
    assert subject != subject_of(id.replace(".", "%2E") + "x", ("news",))
    assert subject != subject_of(id, ("other",))


def test_a_batch_has_as_many_messages_as_it_needs() -> None:
    def sizes(max_bytes: int, *data: str, ids: Sequence[str] = ()) -> list[tuple[str, int, int, int]]:
        made, _ = messages_of(State(7, "e", 5, 0), batch(*data, ids=ids), max_bytes)
        parts = [(subject.rpartition(".")[0] or subject, decode(message)) for subject, message in made]
        assert {part.of for _, part in parts} == {len(made)}
        return [(subject, part.number, part.place, len(part.data)) for subject, part in parts]

    whole = len(pack(batch("abc")))
    assert sizes(1000, "abc") == [("log", 0, 0, whole)]
    whole = len(pack(batch("abc", ids=["x"])))
    assert sizes(1000, "abc", ids=["x"]) == [("id.x", 0, 6, whole)]
    assert sizes(whole - 1, "abc", ids=["x"]) == [("id.x", 0, 6, whole - 1), ("log", 1, 0, 1)]
    both = len(pack(batch("abc", "def", ids=["x", "y"])))
    assert sizes(1000, "abc", "def", ids=["x", "y"]) == [("id.x", 0, 6, both), ("id.y", 1, 7, 0)]


def test_a_message_has_room_for_the_topics_that_it_repeats() -> None:
    few, many = ("a" * 50,), tuple("b" * 50 + str(number) for number in range(9))
    some = [*batch("x" * 900, ids=["x"], topics=few), *batch("y", ids=["y"], topics=many)]
    made, _ = messages_of(State(7, "e", 5, 0), some, 1000)
    parts = [decode(message) for _, message in made]
    assert [part.topics for part in parts] == [few, None]
    assert [len(part.data) + len(pack(part.topics)) <= 1000 for part in parts] == [True, True]
    assert b"".join(part.data for part in parts) == pack(some)
