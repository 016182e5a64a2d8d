"""Topics: what is kept of each topic, who listens, and how often is published to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from heapq import nlargest, nsmallest
from typing import Annotated

import msgspec
from msgspec import Meta

from ssepool.core.stats import Count, Seconds
from ssepool.core.topics import OWN_TOPICS
from ssepool.runtime.cluster.cluster import Cluster
from ssepool.runtime.cluster.messages import CountSubscribers, FindTopics, TopicNames
from ssepool.runtime.cluster.presence import MAX_PAGE_BYTES
from ssepool.runtime.engine import Engine
from ssepool.runtime.streams.slices import Slice

STEP_TOPICS = 100
"""Topics that are looked at between two looks at the clock."""


class TopicInfo(msgspec.Struct, frozen=True):
    """What there is to know of a topic."""

    topic: Annotated[str, Meta(description="Its name.")]
    events: Annotated[Count, Meta(description="Events of it that are kept.")]
    bytes: Annotated[Count, Meta(description="Bytes of memory that they take, or would take.")]
    oldest: Annotated[Seconds | None, Meta(description="Seconds since its oldest event came to this node; or null.")]
    newest: Annotated[Seconds | None, Meta(description="Seconds since its newest event came to this node; or null.")]
    rate: Annotated[float, Meta(description="Events a second, over the last minute.", ge=0)]
    subscribers: Annotated[Count, Meta(description="Connections to any node that have subscribed to it by its name.")]
    by_pattern: Annotated[Count, Meta(description="Others, which have a pattern that matches it.")]


class Topics:
    """Lists the topics of the history, and those that somebody has subscribed to by name, for all nodes.

    What is kept is the same on each node, as is the rate: only subscribers are asked for. All that depends on how much
    is kept goes in slices. The hub's own topics are not among them.
    """

    def __init__(self, engine: Engine, cluster: Cluster) -> None:
        self._engine = engine
        self._cluster = cluster
        cluster.on(FindTopics, self._find_here)
        cluster.on(CountSubscribers, self._count_here)

    async def page(self, wanted: FindTopics) -> tuple[list[TopicInfo], bool, list[str]]:
        """The wanted topics, whether there are others behind them, and the nodes that did not answer. Raises
        `BrokerError` if other nodes cannot be reached."""
        others = [node.node for node in self._cluster.others]
        pages, missing = [await self._find(wanted, is_all=True)], set[str]()
        if wanted.sort in ("name", "subscribers"):
            answers = await self._cluster.ask(wanted, nodes=others)
            pages += answers.values()
            missing |= set(others) - set(answers)
        names, more = merged(pages, wanted)
        counts: dict[str, tuple[int, int]] = {}
        while len(counts) < len(names):
            some = fitting(names[len(counts) :])
            found, silent = await self._count(some, others)
            counts.update(zip(some, found, strict=True))
            missing |= silent
        if wanted.sort == "subscribers":
            names = sorted(names, key=lambda name: (-counts[name][0], name))
        rates = self._engine.feeds.rates()
        topics = [self._describe(name, counts[name], rates.get(name, 0.0)) for name in names[: wanted.limit]]
        return topics, more and wanted.sort == "name", [node for node in others if node in missing]

    async def _count(self, names: list[str], others: list[str]) -> tuple[list[tuple[int, int]], set[str]]:
        question = CountSubscribers(names)
        here, answers = await asyncio.gather(self._count_here(question), self._cluster.ask(question, nodes=others))
        rows = zip(here, *answers.values(), strict=True)
        return [(sum(each[0] for each in row), sum(each[1] for each in row)) for row in rows], set(others) - set(
            answers
        )

    def _describe(self, name: str, subscribers: tuple[int, int], rate: float) -> TopicInfo:
        window = self._engine.log.window
        held, ages = window.holding(name), window.ages(name, self._engine.now())
        oldest, newest = (None, None) if ages is None else (round(max(0.0, age), 3) for age in ages)
        return TopicInfo(name, held.events, held.bytes, oldest, newest, round(rate, 3), *subscribers)

    # What this node has.

    async def _find_here(self, wanted: FindTopics) -> TopicNames:
        return await self._find(wanted, is_all=False)

    async def _count_here(self, question: CountSubscribers) -> list[tuple[int, int]]:
        feeds, step = self._engine.feeds, Slice(self._engine.now)
        found: list[tuple[int, int]] = []
        for topic in question.topics:
            found.append((feeds.named(topic), feeds.by_pattern(topic)))
            if step.is_over:
                await step.pause()
        return found

    async def _find(self, wanted: FindTopics, *, is_all: bool) -> TopicNames:
        """The first of what is subscribed to here, or of all topics."""
        best: dict[str, float] = {}
        weigh = self._weight(wanted.sort)
        more = False

        def keep() -> bool:
            names = best.items()
            by_name = wanted.sort == "name"
            first = nsmallest(wanted.limit, names) if by_name else nlargest(wanted.limit, names, key=lambda one: one[1])
            has_left_out = len(best) > wanted.limit
            best.clear()
            best.update(first)
            return has_left_out

        step = Slice(self._engine.now)
        async for names in self._names(step, is_all=is_all):
            for name in names:
                if name.startswith(wanted.prefix) and name > wanted.after and not name.startswith(OWN_TOPICS):
                    best[name] = weigh(name)
            if len(best) > 2 * wanted.limit + STEP_TOPICS:
                more = keep() or more
            if step.is_over:
                await step.pause()
        more = keep() or more
        listed = fitting(list(best))
        return TopicNames(listed, more or len(listed) < len(best))

    def _weight(self, sort: str) -> Callable[[str], float]:
        engine = self._engine
        if sort == "events":
            return lambda name: engine.log.window.holding(name).events
        if sort == "bytes":
            return lambda name: engine.log.window.holding(name).bytes
        if sort == "rate":
            rates = engine.feeds.rates()
            return lambda name: rates.get(name, 0.0)
        return engine.feeds.named if sort == "subscribers" else lambda name: 0.0

    async def _names(self, step: Slice, *, is_all: bool) -> AsyncIterator[Iterable[str]]:
        """The names of topics, a few at a time; some come again."""
        for feed in self._engine.feeds:
            yield feed.subscription.topics
        if not is_all:
            return
        published = list(self._engine.feeds.rates())
        for start in range(0, len(published), STEP_TOPICS):
            yield published[start : start + STEP_TOPICS]
        window = await self._engine.log.indexed()
        position = window.oldest
        until = window.newest  # or it would never end, where events come as fast as it goes
        while position < until:
            found, reached = window.names(position)
            position = reached or until
            names = list(found)
            for start in range(0, len(names), STEP_TOPICS):
                yield names[start : start + STEP_TOPICS]


def merged(pages: list[TopicNames], wanted: FindTopics) -> tuple[list[str], bool]:
    """The names of several nodes' pages, and whether there are others behind them. Of those in the order of their names
    what comes behind the end of one of the pages is left out: other names of that page may come before it."""
    if wanted.sort != "name":
        return list(dict.fromkeys(name for page in pages for name in page.names)), False
    ends = [page.names[-1] for page in pages if page.more]
    found = sorted({name for page in pages for name in page.names})
    known = [name for name in found if not ends or name <= min(ends)]
    listed = fitting(known[: wanted.limit])
    return listed, bool(ends) or len(listed) < len(known)


def fitting(names: list[str]) -> list[str]:
    """The first of these names, as many as fit into a message; one at least."""
    size = 0
    for place, name in enumerate(names):
        size += len(msgspec.json.encode(name)) + 1
        if size > MAX_PAGE_BYTES and place:
            return names[:place]
    return names
