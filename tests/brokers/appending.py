"""A program that appends batches to a broker and says which are stored, for tests that kill it: URL, number of a run.

It prints `<batch> <first position> <events>` for each batch when `append` has returned. The events' data are
`<run>.<batch>.<place>/<events>`, so that it can be seen whether a batch is whole.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys

from ssepool.brokers import connect
from ssepool.brokers.record import records
from ssepool.config import HubConfig, MiB
from ssepool.core.event import Event


async def main(url: str, run: str) -> None:
    broker = connect(HubConfig(broker=url, history_events=1_000_000, history_bytes=1024 * MiB))
    await broker.open()
    for batch in itertools.count():
        size = random.choice((1, 1, 3, 100, 700))
        events = [Event(f"{run}.{batch}.{place}/{size}", ("news",)) for place in range(size)]
        stored = await broker.append(records(events, MiB))
        assert [one.position - stored[0].position for one in stored] == list(range(size))
        print(batch, stored[0].position, size, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
