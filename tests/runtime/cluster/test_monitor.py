"""Monitor: when the state of a port is told to those that listen, by nodes that say what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from parts import Applicant, Paper, opened, report_of, running
from ssepool.core.decoder import Decoder
from ssepool.core.grant import STRANGER
from ssepool.core.pool import Pool
from ssepool.core.report import Node, NodeReport
from ssepool.core.topics import Subscription
from ssepool.core.visit import Visit
from ssepool.errors import BrokerError
from ssepool.runtime.cluster.monitor import INTERVAL_SECONDS, TOPIC, TYPE, Monitor
from virtual import in_virtual_time, now

SOON = 1.1 * INTERVAL_SECONDS


class Watched:
    """A monitor, the nodes that it asks, and the engine whose clients listen."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.pool = Pool()
        self.pool.open()
        self.published = 0
        self.asked: list[dict[str, bool]] = []
        self.missing: list[Node] = []
        self.takes = 0.0
        """Seconds until the nodes have answered."""
        self.error: BrokerError | None = None
        self.monitor = Monitor(self, engine.feeds, engine.tasks)  # type: ignore[arg-type]

    async def reports(self, **which: bool) -> tuple[list[NodeReport], list[Node]]:
        self.asked.append(which)
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        mine = report_of(self.pool, node="a", published=self.published, uptime=now()())
        return [mine, report_of(self.pool, node="b")], self.missing

    async def listener(self, topic: str = TOPIC) -> Paper:
        return (await opened(self.engine, Visit(grant=STRANGER, subscription=Subscription.of([topic]))))[0]


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    async with running(now=now()) as engine:
        subject = Watched(engine)
        try:
            yield subject
        finally:
            subject.monitor.stop()


def told(link: Paper) -> list[dict[str, Any]]:
    return [msgspec.json.decode(message.data) for message in Decoder().feed(link.written) if message.type == TYPE]


@in_virtual_time
async def test_while_nobody_listens_nobody_is_asked() -> None:
    async with watched() as subject:
        link = await subject.listener("ssepool/else")
        await asyncio.sleep(10 * INTERVAL_SECONDS)
        assert (subject.asked, told(link)) == ([], [])


@in_virtual_time
async def test_a_listener_gets_a_first_picture_of_all_workers_together() -> None:
    async with watched() as subject:
        link = await subject.listener()
        await asyncio.sleep(SOON)
        (report,) = told(link)
        assert (report["node"], report["pool"]["size"]) == ("a", 2 * 1000)
        assert report["cells"] == "f" * 2000
        assert subject.asked == [{"group": True, "cells": True}]


@in_virtual_time
async def test_only_what_has_changed_is_told() -> None:
    async with watched() as subject:
        link = await subject.listener()
        await asyncio.sleep(10 * INTERVAL_SECONDS + 0.01)  # in which time passes, and no more
        assert len(subject.asked) == 10
        assert len(told(link)) == 1
        subject.published += 1
        await asyncio.sleep(3 * INTERVAL_SECONDS)
        assert [report["events"]["published"] for report in told(link)] == [0, 1]
        subject.pool.acquire(now()(), Applicant())
        await asyncio.sleep(3 * INTERVAL_SECONDS)
        assert [report["pool"]["reserved"] for report in told(link)] == [0, 0, 2]


@in_virtual_time
async def test_a_listener_that_comes_later_gets_a_picture_too() -> None:
    async with watched() as subject:
        first = await subject.listener()
        await asyncio.sleep(3 * INTERVAL_SECONDS)
        second = await subject.listener()
        await asyncio.sleep(SOON)
        assert (len(told(first)), len(told(second))) == (2, 1)


@in_virtual_time
async def test_whoever_listens_after_all_have_gone_gets_a_picture() -> None:
    async with watched() as subject:
        link = await subject.listener()
        await asyncio.sleep(SOON)
        feed = link.feed
        assert feed is not None
        link.leave_feed()
        subject.engine.feeds.drop(feed)
        asked = len(subject.asked)
        await asyncio.sleep(5 * INTERVAL_SECONDS)
        assert (len(subject.asked), len(told(link))) == (asked, 1)
        subject.engine.feeds.join(link, feed.subscription)  # the same one, so that nothing at all is new
        await asyncio.sleep(SOON)
        assert len(told(link)) == 2


@pytest.mark.parametrize("trouble", ["a worker does not answer", "the broker is away"])
@in_virtual_time
async def test_half_a_picture_is_not_told(trouble: str) -> None:
    async with watched() as subject:
        if trouble == "the broker is away":
            subject.error = BrokerError("on purpose")
        else:
            subject.missing = [Node("c", "far", 1)]
        link = await subject.listener()
        await asyncio.sleep(5 * INTERVAL_SECONDS)
        assert (len(subject.asked) >= 4, told(link)) == (True, [])
        subject.error, subject.missing = None, []
        await asyncio.sleep(SOON)
        assert len(told(link)) == 1


@in_virtual_time
async def test_nobody_is_asked_again_before_all_have_answered() -> None:
    async with watched() as subject:
        subject.takes = 3.5 * INTERVAL_SECONDS
        link = await subject.listener()
        await asyncio.sleep(4.2 * INTERVAL_SECONDS)
        assert (len(subject.asked), told(link)) == (1, [])
        await asyncio.sleep(INTERVAL_SECONDS)
        assert (len(subject.asked), len(told(link))) == (2, 1)


@in_virtual_time
async def test_once_it_is_stopped_it_looks_no_more() -> None:
    async with watched() as subject:
        await subject.listener()
        await asyncio.sleep(SOON)
        subject.monitor.stop()
        asked = len(subject.asked)
        await asyncio.sleep(10 * INTERVAL_SECONDS)
        assert len(subject.asked) == asked
