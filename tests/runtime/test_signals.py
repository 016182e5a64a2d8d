"""Signals: who hears of the end of the process, and whose handlers stand afterwards. The test itself is the process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from parts import until
from ssepool.runtime.signals import ENDING, before_others


class Handler:
    """A handler of the application's or the server's own, and what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool]] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.calls.append((number, frame is not None))


class Ending:
    """What is called by the event loop."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        assert asyncio.get_running_loop().is_running()
        self.calls += 1


@pytest.fixture(autouse=True)
def theirs() -> Iterator[Handler]:
    """The handler of both signals before the hub comes. Afterwards all is as it was."""
    before = {number: signal.getsignal(number) for number in ENDING}
    handler = Handler()
    for number in ENDING:
        signal.signal(number, handler)
    yield handler
    for number in ENDING:
        signal.signal(number, before[number])


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in ENDING]


def test_these_signals_end_a_process() -> None:
    assert set(ENDING) == {signal.SIGTERM, signal.SIGINT}


@pytest.mark.parametrize("number", ENDING)
async def test_a_signal_is_heard_and_handed_on(number: signal.Signals, theirs: Handler) -> None:
    ending = Ending()
    with before_others(ending):
        signal.raise_signal(number)
        assert (ending.calls, theirs.calls) == (0, [(number, True)])  # the loop calls, not the handler
        await until(lambda: ending.calls)
        signal.raise_signal(number)
        await until(lambda: ending.calls == 2)
    assert theirs.calls == [(number, True)] * 2


async def test_the_handlers_stand_again_afterwards(theirs: Handler) -> None:
    ending = Ending()
    with before_others(ending):
        assert theirs not in handlers()
    assert handlers() == [theirs, theirs]
    with contextlib.suppress(RuntimeError), before_others(ending):
        raise RuntimeError
    assert handlers() == [theirs, theirs]
    for number in ENDING:
        signal.raise_signal(number)
    await asyncio.sleep(0)
    assert (len(theirs.calls), ending.calls) == (2, 0)


async def test_a_handler_that_was_set_meanwhile_is_left_alone(theirs: Handler) -> None:
    later = Handler()
    with before_others(Ending()):
        signal.signal(signal.SIGTERM, later)
    assert signal.getsignal(signal.SIGTERM) is later
    assert signal.getsignal(signal.SIGINT) is theirs


@pytest.mark.parametrize("kept", [signal.SIG_DFL, signal.SIG_IGN])
async def test_what_is_no_function_is_left_alone(kept: signal.Handlers, theirs: Handler) -> None:
    signal.signal(signal.SIGTERM, kept)
    with before_others(Ending()):
        assert signal.getsignal(signal.SIGTERM) is kept
        assert signal.getsignal(signal.SIGINT) is not theirs
    assert handlers() == [kept, theirs]


async def test_two_hubs_hear_both(theirs: Handler) -> None:
    first, second = Ending(), Ending()
    with before_others(first), before_others(second):
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: first.calls and second.calls)
    assert (first.calls, second.calls, len(theirs.calls)) == (1, 1, 1)
    assert handlers() == [theirs, theirs]


async def test_hubs_may_leave_in_any_order(theirs: Handler) -> None:
    first, second = Ending(), Ending()
    one, another = before_others(first), before_others(second)
    one.__enter__()
    another.__enter__()
    one.__exit__(None, None, None)
    signal.raise_signal(signal.SIGTERM)
    await until(lambda: second.calls)
    assert (first.calls, len(theirs.calls)) == (0, 1)
    another.__exit__(None, None, None)
    assert handlers() == [theirs, theirs]


def test_a_handler_that_outlives_its_loop_still_hands_the_signal_on(theirs: Handler) -> None:
    left: list[object] = []

    async def leave_one_behind() -> None:
        left.append(before_others(Ending()))
        left[0].__enter__()  # type: ignore[attr-defined]

    asyncio.run(leave_one_behind())
    assert signal.getsignal(signal.SIGTERM) is not theirs
    signal.raise_signal(signal.SIGTERM)
    assert theirs.calls == [(signal.SIGTERM, True)]

    async def come_and_go() -> None:
        with before_others(Ending()):
            pass

    asyncio.run(come_and_go())
    assert handlers() == [theirs, theirs]


def test_elsewhere_than_in_the_main_thread_nothing_is_done(theirs: Handler) -> None:
    seen: list[list[object]] = []

    async def elsewhere() -> None:
        with before_others(Ending()):
            seen.append(handlers())

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    thread.join()
    assert seen == [[theirs, theirs]]
    assert handlers() == [theirs, theirs]
