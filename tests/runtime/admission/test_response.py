"""The response: a request's way through ASGI, with a server of the test's own that may give its sockets away."""

from __future__ import annotations

import asyncio
import errno
import json
from typing import Any

import pytest
from starlette.background import BackgroundTask
from starlette.responses import Response

from admitting import Handed, Source, news, pool_of, take_slot, takes_sockets
from parts import delivered, until
from ssepool.config import HubConfig
from ssepool.core.event import Event
from ssepool.core.frames import COMMENTS, COMPLETED_ID, DIALECT
from ssepool.core.grant import STRANGER, Grant
from ssepool.core.states import Reason, SlotState
from ssepool.core.visit import Visit
from ssepool.errors import PoolClosed
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.engine import GOODBYE_SECONDS, Engine
from ssepool.runtime.handover import ABORT, ALONE, DETACH
from virtual import in_virtual_time, now


class Exchange:
    """A request, the server that serves it and the client at the other end."""

    def __init__(
        self,
        engine: Engine,
        visit: Visit | None = None,
        *,
        offers: tuple[str, ...] = (),
        gives: bool = True,
        headers: dict[str, str] | None = None,
        later: tuple[str, str] | None = None,
        **scope: Any,
    ) -> None:
        """The server `offers` extensions, and `gives` its socket away when it is asked to."""
        self.source = Source()
        self.visit = visit or news(source=self.source, generator="its own")
        self.response = EventStream(engine, self.visit, headers)
        if later is not None:
            self.response.headers[later[0]] = later[1]
            self.response.set_cookie("seen", "1")
        self.handed: Handed | None = None
        self.asked: list[tuple[str, float]] = []
        """Extensions that were called, with their `ack_timeout`."""
        self.aborts = 0
        self.messages: list[dict[str, Any]] = []
        """What was sent, also where the server has given its socket away."""
        self.takes = asyncio.Event()
        self.takes.set()
        self.fails: BaseException | None = None
        """What `send` raises."""
        self.departure: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._gives = gives
        extensions = {
            DETACH: self._detach,
            ALONE: lambda seconds: self.asked.append((ALONE, seconds)),
            ABORT: self._abort,
        }
        self._scope = {
            "type": "http",
            "method": "GET",
            "http_version": "1.1",
            "extensions": {name: extensions[name] for name in offers},
        } | scope
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self.response(self._scope, self._receive, self._send)

    def _detach(self, ack_timeout: float) -> Handed | None:
        self.asked.append((DETACH, ack_timeout))
        self.handed = Handed() if self._gives else None
        return self.handed

    def _abort(self) -> None:
        self.aborts += 1

    async def _receive(self) -> dict[str, Any]:
        return await self.departure

    async def _send(self, message: Any) -> None:
        await self.takes.wait()
        if self.fails is not None:
            raise self.fails
        self.messages.append(message)
        sink = self.handed.sink if self.handed is not None else None
        if sink is None:
            return
        if message["type"] == "http.response.start":
            sink.head(b"HEAD ")
        else:
            sink.body(message["body"])
            if not message.get("more_body", False):
                sink.complete()

    def leave(self, code: int = 0) -> None:
        """The client leaves."""
        if self.handed is not None:
            self.handed.client.close()
        elif not self.departure.done():
            self.departure.set_result({"type": "http.disconnect", "ssepool.errno": code})

    async def done(self) -> BaseException | None:
        """What the request ended with."""
        await asyncio.wait([self.task])
        return asyncio.CancelledError() if self.task.cancelled() else self.task.exception()

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def sent(self) -> bytes:
        """The body as the server was given it."""
        assert self.messages[0]["type"] == "http.response.start"
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def body(self) -> bytes:
        """The body as the client got it."""
        return self.sent if self.handed is None else self.handed.received.removeprefix(b"HEAD ")

    async def told(self, *words: bytes) -> None:
        """Return once the client has been told all of this."""
        await until(lambda: self.messages and all(word in self.body for word in words))


PATHS = pytest.mark.parametrize("offers", [(), pytest.param((DETACH,), marks=takes_sockets)], ids=["plain", "detached"])


# The application's own header fields.

OWN = {"Access-Control-Allow-Origin": "http://a.example", "X-Own": "1", "Cache-Control": "private"}


async def _ask(engine: Engine, visit: Visit, offers: tuple[str, ...], method: str = "GET") -> Exchange:
    exchange = Exchange(engine, visit, offers=offers, headers=OWN, later=("X-Later", "2"), method=method)
    await until(lambda: exchange.messages)
    exchange.leave()
    return exchange


@PATHS
@pytest.mark.parametrize(
    ("answer", "status", "settings"),
    [
        ("stream", 200, {}),
        ("head", 200, {}),
        ("everything", 204, {}),
        ("kicked", 200, {}),
        ("kicked user", 204, {}),
        ("full", 200, {"on_full": "retry"}),
        ("full", 503, {"on_full": "reject"}),
        ("closed", 200, {}),
    ],
)
@in_virtual_time
async def test_an_own_header_is_on_every_answer(
    offers: tuple[str, ...], answer: str, status: int, settings: dict[str, Any]
) -> None:
    async with pool_of(detach=True, **settings) as engine:
        visit = news(last_event_id=COMPLETED_ID) if answer == "everything" else news()
        if answer.startswith("kicked"):
            visit = news(grant=Grant(subject="ann") if answer.endswith("user") else STRANGER)
            engine.bans.add(visit.fingerprint, engine.now() + 60.0)
        elif answer == "full":
            take_slot(engine)
        elif answer == "closed":
            engine.pool.close()
        exchange = await _ask(engine, visit, offers, "HEAD" if answer == "head" else "GET")
        headers = exchange.messages[0]["headers"]
        names = [name for name, _ in headers]
        assert exchange.status == status
        assert dict(headers)[b"access-control-allow-origin"] == b"http://a.example"
        assert (dict(headers)[b"x-own"], dict(headers)[b"x-later"]) == (b"1", b"2")
        assert dict(headers)[b"cache-control"] == b"private"
        assert dict(headers)[b"set-cookie"].startswith(b"seen=1")
        assert len(names) == len({*names})
        assert (
            dict(headers).get(b"content-type")
            == {200: b"text/event-stream", 503: b"application/json", 204: None}[status]
        )
        if exchange.handed is not None:
            exchange.handed.client.close()


@in_virtual_time
async def test_what_another_response_has_may_be_given_whole() -> None:
    other = Response()
    other.set_cookie("a", "1")
    other.set_cookie("b", "2")
    del other.headers["content-length"]  # as that has none which FastAPI injects
    async with pool_of() as engine:
        response = EventStream(engine, news(), other.headers)
        assert [value for name, value in response.raw_headers if name == b"set-cookie"] == [
            value for name, value in other.raw_headers if name == b"set-cookie"
        ]
        assert len(response.headers.getlist("set-cookie")) == 2


# Answers that are no streams.


@PATHS
@in_virtual_time
async def test_head_is_answered_with_the_head_of_the_stream_and_takes_no_slot(offers: tuple[str, ...]) -> None:
    async with pool_of(detach=True) as engine:
        exchange = Exchange(engine, method="HEAD", offers=offers)
        assert await exchange.done() is None
        assert (exchange.status, exchange.headers) == (200, dict(DIALECT.headers))
        assert exchange.messages[1:] == [{"type": "http.response.body", "body": b""}]
        assert (engine.pool.stats().requests, exchange.asked) == (0, [])
        assert exchange.source.spares == ["its own"]


@PATHS
@in_virtual_time
async def test_who_is_to_stay_away_is_told_so_and_takes_no_slot(offers: tuple[str, ...]) -> None:
    async with pool_of(detach=True) as engine:
        source = Source()
        exchange = Exchange(engine, news(last_event_id=COMPLETED_ID, source=source), offers=offers)
        assert await exchange.done() is None
        assert exchange.messages == [
            {"type": "http.response.start", "status": 204, "headers": []},
            {"type": "http.response.body", "body": b""},
        ]
        assert (engine.pool.stats().requests, exchange.asked, source.spares) == (0, [], [None])


@in_virtual_time
async def test_a_hub_that_was_never_opened_is_a_mistake_that_the_server_is_told_of() -> None:
    exchange = Exchange(Engine(HubConfig(), now=now()))
    error = await exchange.done()
    assert isinstance(error, PoolClosed)
    assert "give your application lifespan=hub.lifespan" in str(error)
    assert (exchange.messages, exchange.source.spares) == ([], ["its own"])


@pytest.mark.parametrize(
    ("scope", "closes"),
    [({"http_version": "1.1"}, True), ({"http_version": "1.0"}, True), ({"http_version": "2"}, False), ({}, True)],
)
@pytest.mark.parametrize("on_full", ["retry", "reject"])
@in_virtual_time
async def test_who_is_turned_away_does_not_keep_its_connection_which_http_2_shares(
    on_full: str, scope: dict[str, str], closes: bool
) -> None:
    async with pool_of(on_full=on_full, detach=True) as engine:
        slot = take_slot(engine)
        exchange = Exchange(engine, offers=(DETACH, ALONE), **scope)
        assert await exchange.done() is None
        assert exchange.headers.get(b"connection") == (b"close" if closes else None)
        if on_full == "reject":
            assert exchange.status == 503
            assert int(exchange.headers[b"retry-after"]) >= 3
            assert exchange.headers[b"content-length"] == str(len(exchange.body)).encode()
            assert json.loads(exchange.body)["error"]["code"] == "pool_full"
        else:
            assert exchange.status == 200
            assert b"content-length" not in exchange.headers
            assert b"event: ssepool.close\n" in exchange.body
            assert b'{"reason":"pool_full"}' in exchange.body
            assert b"retry: " in exchange.body
        assert not exchange.messages[-1].get("more_body")
        assert (exchange.asked, exchange.source.spares) == ([], ["its own"])
        engine.pool.release(slot, engine.now())


# Streams.


@PATHS
@in_virtual_time
async def test_the_head_goes_through_send_and_a_middleware_may_have_changed_it(offers: tuple[str, ...]) -> None:
    async with pool_of(detach=True) as engine:
        exchange = Exchange(engine, offers=offers)
        exchange.response.headers["x-own"] = "1"
        await exchange.told(b"ssepool.open")
        assert (exchange.status, exchange.headers) == (200, {**dict(DIALECT.headers), b"x-own": b"1"})
        assert exchange.messages[1] == {"type": "http.response.body", "body": b"", "more_body": True}
        if exchange.handed is not None:
            place = f"{engine.log.window.epoch}-0".encode()
            assert exchange.handed.received.startswith(b"HEAD id: %b\nevent: ssepool.open\n" % place)
        exchange.leave()
        await exchange.done()


@PATHS
@in_virtual_time
async def test_a_client_is_given_its_stream_until_it_leaves(offers: tuple[str, ...]) -> None:
    async with pool_of(detach=True) as engine:
        exchange = Exchange(engine, offers=offers)
        await exchange.told(b"ssepool.open")
        [connection] = engine.connections
        assert exchange.source.viewers != []
        engine.publish_nowait([Event.of("news", "one"), Event.of("other", "not for it")])
        await exchange.told(b"data: one\n\n")
        assert b"not for it" not in exchange.body
        exchange.leave()
        await until(lambda: not connection.is_open)
        assert await exchange.done() is None
        assert exchange.source.viewers == []
        assert exchange.source.spares == ["its own"]
        assert engine.pool.stats().released["client_closed"] == 1


@takes_sockets
@in_virtual_time
async def test_a_detached_stream_is_the_hubs_own_and_its_request_is_over() -> None:
    async with pool_of(detach=True) as engine:
        exchange = Exchange(engine, offers=(DETACH,))
        assert await exchange.done() is None
        assert exchange.source.spares == ["its own"]
        handed = exchange.handed
        assert handed is not None
        [connection] = engine.connections
        assert (handed.sink, connection.is_open, exchange.sent) == (None, True, b"")
        engine.publish_nowait([Event.of("news", "one")])
        await exchange.told(b"data: one\n\n")
        assert connection.bytes_sent == len(handed.received)
        exchange.leave()
        await until(lambda: not connection.is_open)


# What goes on beside a stream.


@PATHS
@in_virtual_time
async def test_background_tasks_run_once_when_the_stream_has_ended(offers: tuple[str, ...]) -> None:
    async with pool_of(detach=True) as engine:
        done: list[bool] = []
        exchange = Exchange(engine, news(), offers=offers)
        exchange.response.background = BackgroundTask(lambda: done.append(True))
        await exchange.told(b"ssepool.open")
        assert (done, exchange.task.done()) == ([], bool(offers))
        exchange.leave()
        await until(lambda: done)
        assert await exchange.done() is None
        assert done == [True]


@PATHS
@pytest.mark.parametrize("method", ["HEAD", "GET"])
@in_virtual_time
async def test_background_tasks_run_once_where_there_is_no_stream(offers: tuple[str, ...], method: str) -> None:
    async with pool_of(detach=True, on_full="reject") as engine:
        done: list[bool] = []
        slot = take_slot(engine)
        exchange = Exchange(engine, news(), offers=offers, method=method)
        exchange.response.background = BackgroundTask(lambda: done.append(True))
        assert await exchange.done() is None
        assert done == [True]
        engine.pool.release(slot, engine.now())


@PATHS
@in_virtual_time
async def test_what_a_generator_raises_before_its_first_event_its_request_raises(offers: tuple[str, ...]) -> None:
    async with pool_of(detach=True) as engine:
        error, source = ValueError("not you"), Source()
        source.refusal = error
        exchange = Exchange(engine, news(source=source), offers=offers)
        assert await exchange.done() is error
        assert (exchange.messages, source.viewers, len(source.spares)) == ([], [], 1)
        assert engine.pool.stats().released["error"] == 1
        if exchange.handed is not None:  # the application answers now
            assert exchange.handed.sink is not None
            exchange.handed.sink.head(b"HEAD ")
            exchange.handed.sink.body(b"sorry")
            exchange.handed.sink.complete()
            assert exchange.handed.received == b"HEAD sorry"
            assert engine.streamer is not None
            assert len(engine.streamer) == 0
        exchange.leave()


@in_virtual_time
async def test_a_plain_stream_ends_with_its_request() -> None:
    async with pool_of() as engine:
        exchange = Exchange(engine)
        await exchange.told(b"ssepool.open")
        await asyncio.sleep(3600)
        assert not exchange.task.done()
        [connection] = engine.connections
        connection.close("lifetime")
        assert await exchange.done() is None
        assert b'{"reason":"lifetime"}' in exchange.body
        assert exchange.messages[-1]["more_body"]  # it is cut
        assert (engine.pool.count(SlotState.FREE), len(asyncio.all_tasks())) == (1, 1)


@in_virtual_time
async def test_a_server_may_say_that_the_peer_is_dead() -> None:
    async with pool_of() as engine:
        exchange = Exchange(engine)
        await exchange.told(b"ssepool.open")
        exchange.leave(errno.ETIMEDOUT)
        assert await exchange.done() is None
        assert engine.pool.stats().released["peer_dead"] == 1


@pytest.mark.parametrize(
    ("offers", "gives", "detach", "asked"),
    [
        ((), True, True, []),
        ((ALONE,), True, True, [ALONE]),
        ((ALONE, DETACH), True, False, [ALONE]),
        ((DETACH,), True, False, []),
        pytest.param((DETACH, ALONE), True, True, [DETACH], marks=takes_sockets),
        pytest.param((DETACH, ALONE), False, True, [DETACH, ALONE], marks=takes_sockets),
        pytest.param((DETACH,), False, True, [DETACH], marks=takes_sockets),
    ],
)
@in_virtual_time
async def test_a_server_is_asked_for_its_socket_or_to_keep_it_for_this_stream(
    offers: tuple[str, ...], gives: bool, detach: bool, asked: list[str]
) -> None:
    async with pool_of(detach=detach, ack_timeout=12.5) as engine:
        exchange = Exchange(engine, offers=offers, gives=gives)
        await exchange.told(b"ssepool.open")
        assert exchange.asked == [(name, 12.5) for name in asked]
        assert (exchange.handed is not None) == (asked == [DETACH] and gives)
        exchange.leave()
        await exchange.done()


@pytest.mark.parametrize(("reason", "aborts"), [(Reason.SEND_TIMEOUT, 1), (Reason.KICKED, 0)])
@in_virtual_time
async def test_a_stream_that_is_cut_is_aborted_and_one_that_ends_is_not(reason: Reason, aborts: int) -> None:
    async with pool_of() as engine:
        exchange = Exchange(engine, offers=(ABORT,))
        await exchange.told(b"ssepool.open")
        engine.connections.evict(engine.pool.slots[0], reason)
        assert await exchange.done() is None
        assert (exchange.aborts, engine.pool.stats().released[reason]) == (aborts, 1)


# Waiting.


@PATHS
@in_virtual_time
async def test_without_announcements_nothing_is_said_until_there_is_a_slot(offers: tuple[str, ...]) -> None:
    async with pool_of(detach=True) as engine:
        slot = take_slot(engine)
        exchange = Exchange(engine, offers=offers)
        await asyncio.sleep(20)
        assert (exchange.messages, len(engine.pool.waiting)) == ([], 1)
        engine.pool.release(slot, engine.now())
        await exchange.told(b"ssepool.open")
        exchange.leave()
        await exchange.done()


@PATHS
@in_virtual_time
async def test_who_could_not_read_an_announcement_waits_for_its_status(offers: tuple[str, ...]) -> None:
    async with pool_of(announce_queue=True, detach=True) as engine:
        take_slot(engine)
        exchange = Exchange(engine, news(dialect=COMMENTS), offers=offers)
        await asyncio.sleep(20)
        assert exchange.messages == []
        engine.pool.drain(engine.now(), 0.0)
        await exchange.done()
        assert exchange.status == 503
        exchange.leave()


@PATHS
@in_virtual_time
async def test_with_announcements_the_head_and_the_place_are_told_at_once(offers: tuple[str, ...]) -> None:
    async with pool_of(announce_queue=True, detach=True) as engine:
        slot = take_slot(engine)
        exchange = Exchange(engine, offers=offers)
        await exchange.told(b'{"position":1,"waiting":1}')
        assert exchange.body == DIALECT.queued(1, 1)
        await asyncio.sleep(20)
        engine.pool.release(slot, engine.now())
        await exchange.told(b"ssepool.open")
        assert [message["type"] for message in exchange.messages].count("http.response.start") == 1
        exchange.leave()
        await exchange.done()


@PATHS
@in_virtual_time
async def test_with_announcements_a_free_slot_is_not_waited_for(offers: tuple[str, ...]) -> None:
    async with pool_of(announce_queue=True, detach=True) as engine:
        exchange = Exchange(engine, offers=offers)
        await exchange.told(b"ssepool.open")
        assert b"ssepool.queued" not in exchange.body
        exchange.leave()
        await exchange.done()


@PATHS
@pytest.mark.parametrize("announce_queue", [True, False])
@in_virtual_time
async def test_who_has_waited_in_vain_is_told_so_once_and_sent_away(
    offers: tuple[str, ...], announce_queue: bool
) -> None:
    async with pool_of(announce_queue=announce_queue, acquire_timeout=30, detach=True) as engine:
        slot = take_slot(engine)
        exchange = Exchange(engine, offers=offers)
        await asyncio.sleep(31)
        engine.pool.reap(engine.now())
        assert await exchange.done() is None
        assert b'{"reason":"timed_out"}' in exchange.body
        assert exchange.body.count(b"ssepool.close") == exchange.body.count(b"retry: ") == 1
        assert [message["type"] for message in exchange.messages].count("http.response.start") == 1
        assert (b"connection" in exchange.headers) is not announce_queue
        if exchange.handed is None:
            assert exchange.messages[-1].get("more_body", False) is announce_queue
        else:
            assert (exchange.handed.client.recv(1), engine.streamer) == (b"", engine.streamer)  # it is closed
            assert not engine.streamer
            exchange.leave()
        assert (exchange.source.viewers, exchange.source.spares) == ([], ["its own"])
        engine.pool.release(slot, engine.now())


@PATHS
@pytest.mark.parametrize("announce_queue", [True, False])
@in_virtual_time
async def test_who_leaves_while_it_waits_is_out_of_the_queue(offers: tuple[str, ...], announce_queue: bool) -> None:
    async with pool_of(announce_queue=announce_queue, detach=True) as engine:
        slot = take_slot(engine)
        exchange = Exchange(engine, offers=offers)
        await until(lambda: engine.pool.waiting)
        await asyncio.sleep(1)
        before = list(exchange.messages)
        exchange.leave()
        assert await exchange.done() is None
        assert (len(engine.pool.waiting), engine.pool.stats().cancelled) == (0, 1)
        assert exchange.messages == before
        assert exchange.source.spares == ["its own"]
        if exchange.handed is not None:
            assert exchange.handed.gone_calls == 1
        engine.pool.release(slot, engine.now())


@PATHS
@pytest.mark.parametrize("announce_queue", [True, False])
@in_virtual_time
async def test_a_request_that_is_cancelled_while_it_waits_leaves_nothing_behind(
    offers: tuple[str, ...], announce_queue: bool
) -> None:
    async with pool_of(announce_queue=announce_queue, detach=True) as engine:
        slot = take_slot(engine)
        exchange = Exchange(engine, offers=offers)
        await until(lambda: engine.pool.waiting)
        await asyncio.sleep(1)
        exchange.task.cancel()
        assert isinstance(await exchange.done(), asyncio.CancelledError)
        assert (len(engine.pool.waiting), engine.pool.stats().cancelled) == (0, 1)
        assert exchange.source.spares == ["its own"]
        assert not engine.streamer
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        exchange.leave()
        engine.pool.release(slot, engine.now())


@in_virtual_time
async def test_a_plain_request_that_is_cancelled_while_it_streams_frees_its_slot() -> None:
    async with pool_of() as engine:
        exchange = Exchange(engine)
        await exchange.told(b"ssepool.open")
        exchange.task.cancel()
        assert isinstance(await exchange.done(), asyncio.CancelledError)
        assert engine.pool.stats().released["error"] == engine.pool.count(SlotState.FREE) == 1
        assert (exchange.source.viewers, exchange.source.spares) == ([], ["its own"])


# A server that ends, and says so to its requests while the hub says goodbye: to a hundred in turns.


@pytest.mark.parametrize("ending", ["disconnect", "cancel"])
@in_virtual_time
async def test_whoever_is_open_at_the_end_is_told_so_whatever_the_server_does_to_its_request(ending: str) -> None:
    async with pool_of(100) as engine:
        exchanges = [Exchange(engine) for _ in range(100)]
        for exchange in exchanges:
            await exchange.told(b"ssepool.open")
        engine.shutdown()
        for exchange in exchanges:
            if ending == "cancel":
                exchange.task.cancel()
            else:
                exchange.departure.set_result({"type": "http.disconnect"})
        for exchange in exchanges:
            assert isinstance(await exchange.done(), asyncio.CancelledError if ending == "cancel" else type(None))
            assert exchange.body.count(b'{"reason":"shutdown"}') == 1
        assert engine.pool.stats().released["shutdown"] == engine.pool.count(SlotState.FREE) == 100


@pytest.mark.parametrize("ending", ["disconnect", "cancel"])
@in_virtual_time
async def test_a_client_that_takes_nothing_does_not_hold_up_the_end(ending: str) -> None:
    async with pool_of() as engine:
        exchange = Exchange(engine)
        await exchange.told(b"ssepool.open")
        exchange.takes.clear()
        began = engine.now()
        engine.shutdown()
        if ending == "cancel":
            exchange.task.cancel()
        else:
            exchange.departure.set_result({"type": "http.disconnect"})
        await exchange.done()
        assert engine.now() - began == pytest.approx(GOODBYE_SECONDS)
        assert engine.pool.count(SlotState.FREE) == 1


@in_virtual_time
async def test_who_has_left_by_itself_when_the_hub_ends_is_not_written_to() -> None:
    async with pool_of() as engine:
        exchange = Exchange(engine)
        await exchange.told(b"ssepool.open")
        exchange.takes.clear()
        engine.shutdown()
        exchange.leave(errno.ECONNRESET)
        assert await exchange.done() is None
        assert b"shutdown" not in exchange.body


# A server whose `send` fails.


@PATHS
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    "failure", [ConnectionResetError(), RuntimeError("on purpose")], ids=lambda it: type(it).__name__
)
@in_virtual_time
async def test_a_head_that_cannot_be_sent_ends_the_request(
    offers: tuple[str, ...], waits: bool, failure: Exception
) -> None:
    async with pool_of(2, announce_queue=True, detach=True) as engine:
        others = [take_slot(engine) for _ in range(2 if waits else 1)]
        exchange = Exchange(engine, offers=offers)
        exchange.fails = failure
        has_left = isinstance(failure, OSError)
        assert await exchange.done() is (None if has_left else failure)
        assert (len(engine.pool.waiting), len(engine.connections.held())) == (0, len(others))
        assert not engine.streamer
        assert engine.pool.stats().released["client_closed" if has_left else "error"] == (0 if waits else 1)
        assert exchange.source.spares == ["its own"]
        exchange.leave()
        for slot in others:
            engine.pool.release(slot, engine.now())


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (ConnectionResetError(), Reason.CLIENT_CLOSED),
        (OSError(errno.ETIMEDOUT, "gone"), Reason.PEER_DEAD),
        (RuntimeError("on purpose"), Reason.ERROR),
    ],
    ids=["reset", "dead", "failed"],
)
@in_virtual_time
async def test_a_frame_that_cannot_be_sent_ends_the_stream(failure: Exception, reason: Reason) -> None:
    async with pool_of() as engine:
        exchange = Exchange(engine)
        await exchange.told(b"ssepool.open")
        exchange.fails = failure
        engine.publish_nowait([Event.of("news", "one")])
        assert await exchange.done() is (failure if reason is Reason.ERROR else None)
        assert engine.pool.stats().released[reason] == engine.pool.count(SlotState.FREE) == 1
        assert exchange.source.spares == ["its own"]


@PATHS
@in_virtual_time
async def test_a_client_that_leaves_while_its_head_is_on_its_way_frees_its_slot(offers: tuple[str, ...]) -> None:
    async with pool_of(detach=True) as engine:
        called: list[Any] = []
        engine.hooks.add("connect", called.append)
        exchange = Exchange(engine, offers=offers)
        exchange.takes.clear()
        await until(lambda: engine.connections.held())
        await asyncio.sleep(1)
        exchange.leave()
        await asyncio.sleep(1)
        exchange.takes.set()
        assert await exchange.done() is None
        assert (engine.pool.count(SlotState.FREE), called, len(engine.feeds)) == (1, [], 0)
        assert engine.pool.stats().released["client_closed"] == 1
        assert (exchange.source.viewers, exchange.source.spares) == ([], ["its own"])


@in_virtual_time
async def test_a_visit_without_a_run_needs_none() -> None:
    async with pool_of() as engine:
        exchange = Exchange(engine, news())
        await exchange.told(b"ssepool.open")
        engine.publish_nowait([Event.of("news", "one")])
        await delivered(engine)
        await exchange.told(b"data: one\n\n")
        exchange.leave()
        assert await exchange.done() is None
