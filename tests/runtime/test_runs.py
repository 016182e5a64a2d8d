"""Runs: a generator's life, and who gets its events, with an engine and scripted generators."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from parts import QUIET, Paper, delivered, opened, running, until
from scripted_broker import Scripted
from ssepool.config import HubConfig
from ssepool.core.event import Event
from ssepool.core.frames import COMPLETED_ID, FAILED_ID
from ssepool.core.grant import STRANGER
from ssepool.core.states import Reason
from ssepool.core.topics import Subscription
from ssepool.core.visit import Refused, Visit
from ssepool.errors import BrokerError, ConnectionReleased
from ssepool.runtime import runs as runs_module
from ssepool.runtime.admission.response import EventStream
from ssepool.runtime.engine import Engine
from ssepool.runtime.runs import STOP_SECONDS, Run, Runs
from ssepool.runtime.streams.delivery import SLICE_SECONDS
from ssepool.runtime.streams.link import OUTBOX_FRAMES
from virtual import hold_up, in_virtual_time, now

END = StopAsyncIteration()


class Script:
    """A generator that yields, raises or ends as the test says, and what was done to it."""

    def __init__(self, *items: Any) -> None:
        self.items = deque(items)
        self.news = asyncio.Event()
        self.begun = self.pulled = self.closed = 0

    def give(self, *items: Any) -> None:
        self.items.extend(items)
        self.news.set()

    def __aiter__(self) -> AsyncIterator[Any]:
        self.begun += 1
        return self

    async def __anext__(self) -> Any:
        while not self.items:
            self.news.clear()
            await self.news.wait()
        item = self.items.popleft()
        if isinstance(item, BaseException):
            raise item
        self.pulled += 1
        return item

    async def aclose(self) -> None:
        self.closed += 1


class Stage:
    """An engine and its runs, and clients that ask for them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.runs = Runs(engine)

    def ask(self, source: AsyncIterable[Any], topic: str | None = None, last_event_id: str | None = None) -> Visit:
        subscription = None if topic is None else Subscription.of([topic], private=True)
        visit = Visit(grant=STRANGER, subscription=subscription, last_event_id=last_event_id)
        self.runs.give(visit, source, topic)
        return visit

    def run(self, source: AsyncIterable[Any], topic: str | None = None) -> Run:
        """The run that a request for this gets."""
        run = self.ask(source, topic).source
        assert isinstance(run, Run)
        brought.setdefault(run, source)
        return run

    async def view(
        self, source: AsyncIterable[Any], topic: str | None = None, last_event_id: str | None = None
    ) -> Paper:
        """A client that has its slot, and whose request has been dealt with."""
        visit = self.ask(source, topic, last_event_id)
        link, _ = await opened(self.engine, visit)
        assert visit.source is not None
        self.engine.tasks.start(visit.source.left(visit.generator))
        return link


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running() as engine:
        stage = Stage(engine)
        yield stage
        stage.runs.cancel()


class Viewer:
    """A client as a run sees it."""

    def __init__(self) -> None:
        self.finished: list[Reason] = []

    def finish(self, reason: Reason) -> None:
        self.finished.append(reason)


class Nobody:
    """A client that takes everything, or has left when it is sent to."""

    def __init__(self, *, has_left: bool = False) -> None:
        self.has_left = has_left

    async def send(self, data: Any) -> None:
        if self.has_left:
            raise ConnectionReleased


brought: WeakKeyDictionary[Run, AsyncIterable[Any]] = WeakKeyDictionary()
"""The generator that the first request for a run brought."""


def attend(run: Run, viewer: Viewer) -> None:
    """The stream of the first request for a run, or of another one, is open."""
    run.attend(viewer, Nobody(), brought[run])


def closing(link: Paper) -> bytes:
    """The last frame of a stream that has ended."""
    assert link.ended
    return link.written[link.written.rindex(b"event: ssepool.close") :]


EACH = pytest.mark.parametrize("topic", [None, "job/7"], ids=["without a topic", "with a topic"])


@EACH
async def test_a_generators_events_come_in_order_and_then_the_end(stage: Stage, topic: str | None) -> None:
    script = Script("a", Event("b", type="step", id="s-1", retry=700), {"n": 1}, END)
    link = await stage.view(script, topic)
    await until(lambda: link.ended)
    assert link.events() == ["ssepool.open", "a", "b", '{"n":1}', "ssepool.close"]
    for line in (b"event: step\n", b"id: s-1\n", b"retry: 700\n"):
        assert link.written.count(line) == 1
    assert b'data: {"reason":"completed"}' in closing(link)
    assert b"retry" not in closing(link)
    assert f"id: {COMPLETED_ID}\n".encode() in link.written
    assert (script.begun, script.pulled, script.closed) == (1, 3, 1)


async def test_a_generator_begins_with_its_first_viewer(stage: Stage) -> None:
    script = Script()
    run = stage.run(script, "job/7")
    await asyncio.sleep(0)
    assert script.begun == 0
    attend(run, Viewer())
    await until(lambda: script.begun)
    attend(run, Viewer())
    await asyncio.sleep(0)
    assert script.begun == 1


async def test_one_generator_is_enough_for_all_who_ask_for_its_topic(stage: Stage) -> None:
    script, *spares = (Script("a", "b"), Script("never"), Script("never"))
    links = [await stage.view(source, "job/7") for source in (script, *spares)]
    script.give("c", END)
    await until(lambda: all(link.ended for link in links))
    for link in links:
        assert link.events() == ["ssepool.open", "a", "b", "c", "ssepool.close"]
    assert [(spare.begun, spare.closed) for spare in spares] == [(0, 1), (0, 1)]
    assert (script.begun, script.closed) == (1, 1)


async def test_who_asks_for_another_topic_or_for_none_has_a_generator_of_its_own(stage: Stage) -> None:
    scripts = [Script("a", END) for _ in range(4)]
    asked = zip(scripts, ("job/7", "job/8", None, None), strict=True)
    links = [await stage.view(script, topic) for script, topic in asked]
    await until(lambda: all(link.ended for link in links))
    assert [script.begun for script in scripts] == [1, 1, 1, 1]
    assert all(link.events() == ["ssepool.open", "a", "ssepool.close"] for link in links)


async def test_a_generator_with_a_topic_goes_on_without_a_client_and_gives_the_rest_to_who_comes_back(
    stage: Stage,
) -> None:
    script = Script("a", Event("b", id="second"))
    first = await stage.view(script, "job/7")
    await until(lambda: first.events()[1:] == ["a", "b"])
    first.end(Reason.CLIENT_CLOSED)
    script.give("c")
    await until(lambda: script.pulled == 3)
    again = await stage.view(Script(), "job/7", last_event_id="second")
    fresh = await stage.view(Script(), "job/7")
    script.give("d", END)
    await until(lambda: again.ended and fresh.ended)
    late = await stage.view(Script(), "job/7")  # after the end
    await until(lambda: late.ended)
    assert again.events() == ["ssepool.open", "c", "d", "ssepool.close"]
    assert fresh.events() == late.events() == ["ssepool.open", "a", "b", "c", "d", "ssepool.close"]
    assert script.begun == 1


async def test_what_was_published_to_the_topic_before_is_not_the_runs(stage: Stage) -> None:
    stage.engine.publish_nowait([Event.of("job/7", "of an earlier job")])
    script = Script("a")
    await stage.view(script, "job/7")
    await until(lambda: script.pulled)
    late = await stage.view(Script(), "job/7")
    script.give(END)
    await until(lambda: late.ended)
    assert late.events() == ["ssepool.open", "a", "ssepool.close"]


async def test_events_keep_their_fields_but_go_to_the_runs_topic_alone(stage: Stage) -> None:
    event = Event("x", ("elsewhere",), "step", "chosen", 500, private=True)
    script = Script(event, END)
    run = stage.run(script, "job/7")
    attend(run, Viewer())
    await until(lambda: run.outcome)
    [entry] = stage.engine.log.window.read(0, max_entries=10)
    assert (entry.topics, entry.id, entry.private) == (("job/7",), "chosen", True)
    assert entry.frame == event.encode()


# Its end.


@in_virtual_time
async def test_who_has_seen_the_end_has_everything() -> None:
    config = HubConfig(pool=QUIET, detach=False)
    async with running(config, now=now()) as engine:
        stage = Stage(engine)
        engine.publish_nowait([Event.of("job/7", "before", id="before")])
        run = stage.run(Script(*(Event(text, id=text) for text in ("first", "last")), END), "job/7")
        assert not run.is_over_for("before")
        attend(run, Viewer())
        await until(lambda: run.outcome)
        engine.publish_nowait([Event.of("job/7", "after", id="after"), Event.of("other", "x", id="elsewhere")])
        ids = (None, "", "earliest", "before", "first", "last", "after", "elsewhere", "?")
        answers = {id: run.is_over_for(id) for id in ids}
        assert [id for id, is_over in answers.items() if is_over] == ["last", "after"]
        assert run.ended_at == engine.now()


async def test_who_was_there_before_a_run_without_events_has_everything_once_it_is_over(stage: Stage) -> None:
    stage.engine.publish_nowait([Event.of("job/7", "x", id="before")])
    script = Script()
    run = stage.run(script, "job/7")
    attend(run, viewer := Viewer())
    await until(lambda: script.begun)
    assert not run.is_over_for("before")
    script.give(END)
    await until(lambda: viewer.finished)
    assert run.is_over_for("before")


@EACH
@pytest.mark.parametrize("failure", [RuntimeError("on purpose"), asyncio.CancelledError(), TimeoutError(), object()])
async def test_a_generator_that_fails_ends_its_streams_with_an_error(
    stage: Stage, topic: str | None, failure: object, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script("a", failure, "never")
    link = await stage.view(script, topic)
    await until(lambda: link.ended)
    assert link.events() == ["ssepool.open", "a", "ssepool.close"]
    assert b'{"reason":"error"}' in closing(link)
    assert COMPLETED_ID.encode() not in link.written
    assert FAILED_ID.encode() in link.written
    [record] = caplog.records
    assert record.message == f"a generator given to Hub.stream failed (topic {topic!r})"
    assert script.closed == 1
    if topic is not None:
        late = await stage.view(Script(), topic)
        await until(lambda: late.ended)
        assert late.events() == link.events()
        assert b'{"reason":"error"}' in closing(late)


@in_virtual_time
async def test_a_broker_that_fails_fails_the_run(caplog: pytest.LogCaptureFixture) -> None:
    broker = Scripted(HubConfig(pool=QUIET))
    async with running(broker=broker, now=now()) as engine:
        viewer, script = Viewer(), Script("a")
        run = Stage(engine).run(script, "job/7")
        attend(run, viewer)
        await until(lambda: script.pulled)
        broker.broken = "the cable is out"
        script.give("b")
        await until(lambda: viewer.finished)
        assert viewer.finished == [Reason.ERROR]
        assert caplog.records[0].exc_info is not None
        assert isinstance(caplog.records[0].exc_info[1], BrokerError)
        broker.broken = None


@in_virtual_time
async def test_viewers_are_sent_away_only_once_the_log_has_all_of_it() -> None:
    broker = Scripted(HubConfig(pool=QUIET))
    async with running(broker=broker, now=now()) as engine:
        broker.asleep = True
        viewer, script = Viewer(), Script("a", "b", END)
        run = Stage(engine).run(script, "job/7")
        attend(run, viewer)
        await asyncio.sleep(30)
        assert (script.closed, len(broker.entries), viewer.finished, run.outcome) == (1, 2, [], None)
        broker.asleep = False
        broker.ring()
        await asyncio.sleep(30)
        assert (viewer.finished, run.outcome) == ([Reason.COMPLETED], Reason.COMPLETED)


async def test_a_viewer_that_has_left_is_not_told_of_the_end(stage: Stage) -> None:
    script = Script("a")
    run = stage.run(script, "job/7")
    stays, leaves = Viewer(), Viewer()
    attend(run, stays)
    attend(run, leaves)
    run.unattend(leaves)
    script.give(END)
    await until(lambda: stays.finished)
    assert (stays.finished, leaves.finished) == ([Reason.COMPLETED], [])


# Who stops it.


async def test_without_a_topic_a_generator_ends_with_its_client(stage: Stage) -> None:
    script = Script("a")
    link = await stage.view(script)
    await until(lambda: script.pulled)
    assert script.closed == 0
    link.end(Reason.CLIENT_CLOSED)
    await until(lambda: script.closed)
    script.give("b")
    await stage.engine.tasks.close(10)
    assert (script.pulled, script.closed) == (1, 1)


async def test_a_generator_that_is_stopped_from_outside_tells_nobody(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    script, viewer = Script("a"), Viewer()
    run = stage.run(script, "job/7")
    attend(run, viewer)
    await until(lambda: script.pulled)
    stage.runs.cancel()
    await until(lambda: script.closed)
    await stage.engine.tasks.close(10)
    assert (viewer.finished, run.outcome, caplog.records) == ([], None, [])


async def test_the_generators_without_a_topic_are_left_to_their_clients_when_the_hub_closes(stage: Stage) -> None:
    script = Script("a")
    link = await stage.view(script)
    await until(lambda: script.pulled)
    stage.runs.cancel()
    stage.engine.shutdown()
    await stage.engine.cut()
    assert b'{"reason":"shutdown"}' in closing(link)
    assert script.closed == 1


@in_virtual_time
async def test_a_generator_has_the_time_that_it_needs_to_clean_up() -> None:
    async with running(now=now()) as engine:
        steps: list[str] = []

        async def careful() -> AsyncIterator[str]:
            try:
                yield "a"
                await asyncio.Event().wait()
            finally:
                steps.append("begins")
                await asyncio.sleep(0.5)
                steps.append("is done")

        run = Stage(engine).run(careful(), "job/7")
        attend(run, Viewer())
        await until(lambda: engine.log.position == 1)
        run.cancel()
        await asyncio.sleep(0.1)
        assert steps == ["begins"]
        run.cancel()  # a second time must not hit that
        await asyncio.sleep(1)
        assert steps == ["begins", "is done"]


@in_virtual_time
async def test_a_generator_that_nobody_watches_ends_after_the_time_given() -> None:
    async with running(HubConfig(pool=QUIET, detach=False, run_grace=10.0), now=now()) as engine:
        stage = Stage(engine)
        scripts = {name: Script("a") for name in ("deserted", "watched", "back", "asked for")}
        links = {name: await stage.view(script, name) for name, script in scripts.items()}
        await until(lambda: all(script.pulled for script in scripts.values()))
        for name in ("deserted", "back", "asked for"):
            links[name].end(Reason.CLIENT_CLOSED)
        await asyncio.sleep(9)
        stage.runs.expire(engine.now())
        await stage.view(Script(), "back")
        waiting = stage.ask(Script(), "asked for")  # it has no slot yet
        await asyncio.sleep(2)
        assert [script.closed for script in scripts.values()] == [0, 0, 0, 0]
        stage.runs.expire(engine.now())
        await asyncio.sleep(1)
        assert {name: script.closed for name, script in scripts.items()} == {
            **{"deserted": 1, "watched": 0},
            **{"back": 0, "asked for": 0},
        }
        late = await stage.view(Script("anew", END), "deserted")
        await until(lambda: late.ended)
        assert late.events() == ["ssepool.open", "anew", "ssepool.close"]
        assert waiting.source is not None
        await waiting.source.left(waiting.generator)
        stage.runs.cancel()


@in_virtual_time
async def test_a_generator_that_nobody_watches_ends_although_its_request_is_kept_for_it() -> None:
    async with running(HubConfig(pool=QUIET, detach=False, run_grace=10.0), now=now()) as engine:
        stage, script = Stage(engine), Script("a")
        visit = stage.ask(script, "kept")
        source = visit.source
        assert source is not None
        link, _ = await opened(engine, visit)
        kept = asyncio.create_task(source.settled(visit.generator))
        await until(lambda: script.pulled)
        link.end(Reason.CLIENT_CLOSED)
        await asyncio.sleep(11)
        assert not kept.done()
        stage.runs.expire(engine.now())
        await kept
        assert script.closed == 1
        await source.left(visit.generator)


@in_virtual_time
async def test_without_a_time_a_generator_goes_on_to_its_end() -> None:
    async with running(HubConfig(pool=QUIET, detach=False), now=now()) as engine:
        stage, script = Stage(engine), Script("a")
        link = await stage.view(script, "job/7")
        await until(lambda: script.pulled)
        link.end(Reason.CLIENT_CLOSED)
        await asyncio.sleep(10**6)
        stage.runs.expire(engine.now())
        script.give("b", END)
        await until(lambda: script.closed)
        assert script.pulled == 2


async def test_beyond_the_bound_another_generator_is_refused_and_closed_unused() -> None:
    async with running(HubConfig(pool=QUIET, detach=False, max_runs=2)) as engine:
        stage, scripts = Stage(engine), [Script("a"), Script("a")]
        for number, script in enumerate(scripts):
            await stage.view(script, f"job/{number}")
        spare, own, third = Script(), Script(), Script()
        assert stage.ask(spare, "job/1").refusal is None  # it runs already
        assert stage.ask(own).refusal is None  # it ends with its client, and so is bounded by the pool
        refused = stage.ask(third, "job/2")
        assert str(refused.refusal) == "max_runs=2 generators with a topic run already"
        status, body = await answer_of(engine, refused)
        assert (status, b'{"reason":"pool_full"}' in body) == (200, True)
        assert (third.begun, third.closed) == (0, 1)
        scripts[0].give(END)
        await until(lambda: scripts[0].closed)
        await until(lambda: stage.ask(Script(), "job/3").refusal is None)
        stage.runs.cancel()


async def answer_of(engine: Engine, visit: Visit) -> tuple[int, bytes]:
    """Status and body of the answer to a request."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "headers": []}
    await EventStream(engine, visit)(scope, None, send)  # type: ignore[arg-type]
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:])


async def test_a_client_that_left_while_it_was_sent_to_ends_its_generator(stage: Stage) -> None:
    over: list[Run] = []
    script = Script("a", "b")

    run = Run(stage.engine, None, over.append)
    run.attend(Viewer(), Nobody(has_left=True), script)
    await until(lambda: over)
    assert (over, script.pulled, script.closed, run.outcome) == ([run], 1, 1, Reason.COMPLETED)


@in_virtual_time
async def test_a_generator_is_pulled_no_faster_than_its_client_takes() -> None:
    async with running(now=now()) as engine:
        script = Script(*map(str, range(10 * OUTBOX_FRAMES)), END)
        visit = Stage(engine).ask(script)
        link, _ = await opened(engine, visit)
        link.room_left = 0
        await asyncio.sleep(60)
        assert OUTBOX_FRAMES <= script.pulled <= OUTBOX_FRAMES + 2
        link.make_room()
        await until(lambda: link.ended)
        assert link.events()[1:-1] == [str(number) for number in range(10 * OUTBOX_FRAMES)]


@EACH
@in_virtual_time
async def test_a_generator_that_never_waits_gives_way_to_others(topic: str | None) -> None:
    async with running(now=now()) as engine:
        turns = [0]

        async def greedy() -> AsyncIterator[str]:
            for number in range(200):
                hold_up(SLICE_SECONDS / 4)
                turns.append(0)
                yield str(number)

        async def others() -> None:
            while True:
                turns[-1] += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(others())
        link = await Stage(engine).view(greedy(), topic)
        await until(lambda: link.ended)
        beside.cancel()
        held = [index for index, turned in enumerate(turns) if turned]
        longest = max(later - earlier for earlier, later in itertools.pairwise(held))
        assert longest <= 5 + 1  # more than a slice, and the item with which that shows


# The first event, and errors before it.


async def never() -> asyncio.Future[None]:
    """What is done when a client leaves that stays."""
    return asyncio.get_running_loop().create_future()


@EACH
@in_virtual_time
async def test_the_head_waits_for_the_first_event_or_the_time_given(topic: str | None) -> None:
    async with running(now=now()) as engine:
        stage, loop = Stage(engine), asyncio.get_running_loop()
        for after, waited in ((0.2, 0.2), (30.0, 0.5)):
            script = Script()
            run = stage.run(script, topic and f"{topic}/{after}")
            loop.call_later(after, script.give, "a")
            began_at = loop.time()
            await run.begin(script, await never(), 0.5)
            assert loop.time() - began_at == pytest.approx(waited)
            run.cancel()


@EACH
@in_virtual_time
async def test_the_head_waits_no_longer_for_a_client_that_leaves(topic: str | None) -> None:
    async with running(now=now()) as engine:
        script, gone = Script(), await never()
        run = Stage(engine).run(script, topic)
        asyncio.get_running_loop().call_later(0.1, gone.set_result, None)
        began_at = engine.now()
        await run.begin(script, gone, 0.5)
        assert engine.now() - began_at == pytest.approx(0.1)
        leaving = asyncio.create_task(run.left(script))
        await asyncio.sleep(0.1)
        assert (script.closed, leaving.done()) == ((1, True) if topic is None else (0, False))
        run.cancel()
        await leaving


@EACH
async def test_an_error_before_the_first_event_is_the_requests_and_the_topic_is_free(
    stage: Stage, topic: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("not you")
    scripts = (Script(error), Script("never"))
    run, *_ = [stage.run(script, "job/7" if topic else None) for script in scripts]
    requests = [asyncio.create_task(run.begin(script, await never(), 10)) for script in scripts[: 2 if topic else 1]]
    await asyncio.wait(requests)
    for request in requests:
        refused = request.exception()
        assert isinstance(refused, Refused)
        assert refused.error is error
    assert (scripts[0].closed, scripts[1].begun, run.outcome, caplog.records) == (1, 0, None, [])
    assert stage.run(Script(), topic) is not run


async def test_an_error_that_no_request_waits_for_is_logged_and_the_hooks_are_told(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    stage.engine.hooks.add("error", lambda connection, error: told.append((connection.is_open, error)))
    error = ValueError("too late")
    link = await stage.view(Script(error))
    await until(lambda: link.ended)
    assert told == [(True, error)]
    assert [record.message for record in caplog.records] == ["a generator given to Hub.stream failed (topic None)"]


@EACH
async def test_a_generator_that_has_been_used_up_is_a_mistake_that_is_told(stage: Stage, topic: str | None) -> None:
    async def one() -> AsyncIterator[str]:
        yield "one"

    source = one()
    assert [item async for item in source] == ["one"]
    with pytest.raises(Refused, match="has been used up"):
        await stage.run(source, topic).begin(source, await never(), 10)


# Generators that will not end.


@EACH
@in_virtual_time
async def test_a_generator_that_ignores_its_cancellation_is_cut_and_the_log_tells(
    topic: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    met: list[float] = []

    async def stubborn() -> AsyncIterator[str]:
        yield "one"
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                met.append(asyncio.get_running_loop().time())

    async with running(now=now()) as engine:
        source = stubborn()
        run = Stage(engine).run(source, topic)
        attend(run, viewer := Viewer())
        await asyncio.sleep(1)
        stopped_at = engine.now()
        run.unattend(viewer)
        run.cancel()
        await run.left(source)
        assert engine.now() - stopped_at == pytest.approx(STOP_SECONDS)
        assert len(met) == 1
        assert source.ag_frame is None  # type: ignore[attr-defined]
        assert len(asyncio.all_tasks()) == 1
        assert ["goes on 5 s after it was cancelled" in record.message for record in caplog.records] == [True]


@in_virtual_time
async def test_what_a_generator_yields_after_its_cancellation_is_not_published() -> None:
    async def caught() -> AsyncIterator[str]:
        yield "one"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "two"

    async with running(now=now()) as engine:
        source = caught()
        run = Stage(engine).run(source, "job/7")
        attend(run, Viewer())
        await asyncio.sleep(1)
        run.cancel()
        await asyncio.sleep(1)
        assert engine.log.position == 1
        assert source.ag_frame is None  # type: ignore[attr-defined]


# Requests that come to nothing.


async def test_a_generator_that_nobody_got_a_slot_for_is_closed_unused_and_its_topic_is_free(stage: Stage) -> None:
    script, spare, third, fresh = Script(), Script(), Script(), Script()
    run = stage.run(script, "job/7")
    assert [stage.run(other, "job/7") for other in (spare, third)] == [run, run]
    for other in (script, spare):
        await run.left(other)
        assert stage.run(Script(), "job/7") is run  # somebody still asks for it
        await run.left(Script())
    await run.left(third)
    assert [(other.begun, other.closed) for other in (script, spare, third)] == [(0, 1)] * 3
    assert stage.run(fresh, "job/7") is not run


async def test_a_generator_that_has_a_viewer_is_not_closed_by_a_request_that_came_to_nothing(stage: Stage) -> None:
    script = Script()
    run = stage.run(script, "job/7")
    attend(run, Viewer())
    await until(lambda: script.begun)
    await run.left(Script())
    assert (script.closed, stage.run(Script(), "job/7")) == (0, run)


async def test_the_generator_of_the_run_is_not_closed_as_a_spare_one(stage: Stage) -> None:
    script = Script()
    run = stage.run(script, "job/7")
    stage.ask(script, "job/7")  # the application gives the same one again
    attend(run, Viewer())
    leaving = asyncio.create_task(run.left(script))
    await until(lambda: script.begun)
    assert (script.closed, leaving.done()) == (0, False)
    leaving.cancel()


async def test_a_source_need_not_be_closable_and_a_failing_close_is_logged(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    class Plain:
        def __aiter__(self) -> AsyncIterator[str]:
            return Script("a", END)

    class Failing(Script):
        async def aclose(self) -> None:
            raise RuntimeError("on purpose")

    link = await stage.view(Plain())
    await until(lambda: link.ended)
    assert caplog.records == []
    failing = await stage.view(Failing("a", END))
    await until(lambda: failing.ended)
    assert failing.events() == link.events() == ["ssepool.open", "a", "ssepool.close"]
    assert [record.message for record in caplog.records] == [
        "a generator given to Hub.stream failed while it was closed"
    ]


async def test_a_client_that_leaves_before_its_generator_has_begun_has_it_closed(stage: Stage) -> None:
    script = Script("a")
    link = await stage.view(script)
    link.end(Reason.CLIENT_CLOSED)
    await stage.engine.tasks.close(10)
    assert (script.pulled, script.closed) == (0, 1)


# A topic after its run.


@in_virtual_time
async def test_a_topic_is_free_again_once_its_events_are_kept_no_longer() -> None:
    config = HubConfig(pool=QUIET, detach=False, history_age=60)
    async with running(config, now=now()) as engine:
        stage = Stage(engine)
        runs: dict[str, Run] = {}
        for topic in ("first", "second", "goes on"):
            runs[topic] = stage.run(Script("a", *([END] if topic != "goes on" else [])), topic)
            attend(runs[topic], Viewer())
            await asyncio.sleep(10)

        def free() -> list[str]:
            stage.runs.expire(engine.now())
            return [topic for topic, run in runs.items() if stage.run(Script(), topic) is not run]

        await asyncio.sleep(29)  # 59 s after the end of the first
        assert free() == []
        await asyncio.sleep(2)
        assert free() == ["first"]
        await asyncio.sleep(10)
        assert free() == ["first", "second"]
        await asyncio.sleep(1000)
        assert free() == ["first", "second"]


async def test_a_run_that_is_forgotten_late_does_not_take_its_topic_from_the_next(stage: Stage) -> None:
    first = stage.run(Script(END), "job/7")
    attend(first, Viewer())
    await until(lambda: first.outcome)
    stage.runs.expire(stage.engine.now() + 1e9)
    second = stage.run(Script(), "job/7")
    stage.runs._over(first)
    stage.runs.expire(stage.engine.now() + 1e9)
    assert stage.run(Script(), "job/7") is second


async def test_what_a_run_publishes_is_delivered_like_everything_else(stage: Stage) -> None:
    subscriber, _ = await opened(stage.engine, Visit(grant=STRANGER, subscription=Subscription.of(["job/7"])))
    link = await stage.view(Script("a", Event("for viewers", private=True), END), "job/7")
    await until(lambda: link.ended)
    await delivered(stage.engine)
    assert subscriber.events() == ["ssepool.open", "a"]
    assert link.events() == ["ssepool.open", "a", "for viewers", "ssepool.close"]


async def test_a_bounded_number_of_runs_is_remembered_after_their_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "MAX_ENDED_RUNS", 3)
    for number in range(5):
        link = await stage.view(Script("x", END), f"topic{number}")
        await until(lambda link=link: link.ended)  # type: ignore[misc]
    assert list(stage.runs._by_topic) == ["topic2", "topic3", "topic4"]
    assert len(stage.runs._ended) == 3
