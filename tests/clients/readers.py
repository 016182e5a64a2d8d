"""Clients of other makers as programs: `readers.py requests URL` prints what it reads, and at last `end: clean` or
`end: cut`, as its library sees it. A client that has to wait for more than a first event ends with `end: late`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import requests
import requests_sse
import urllib3
from ld_eventsource import SSEClient
from ld_eventsource.actions import Event, Fault
from ld_eventsource.config import ConnectStrategy

LATE = 8.0
"""Seconds without a byte after which a client gives up: less than the time between two heartbeats."""


def with_requests(url: str) -> Iterable[str]:
    with requests.get(url, stream=True, timeout=LATE) as response:
        yield from response.iter_lines(decode_unicode=True)


def with_urllib3(url: str) -> Iterable[str]:
    with urllib3.PoolManager() as pool:
        response = pool.request("GET", url, preload_content=False, timeout=LATE, retries=False)
        for part in response.stream():
            yield from part.decode().split("\n")


def with_launchdarkly(url: str) -> Iterable[str]:
    strategy = ConnectStrategy.http(url=url, urllib3_request_options={"timeout": LATE})
    with SSEClient(strategy) as client:
        for action in client.all:
            if isinstance(action, Event):
                yield action.event
            elif isinstance(action, Fault) and action.error is not None:
                raise action.error


def with_requests_sse(url: str) -> Iterable[str]:
    # It comes back by itself: how a connection ended is to be seen by whether it says so first.
    with requests_sse.EventSource(url, timeout=LATE, max_connect_retry=0) as source:
        for event in source:
            yield event.type


def main(client: str, url: str) -> str:
    """Read to the end, and tell what that was."""
    try:
        for line in globals()[f"with_{client}"](url):
            print(line, flush=True)
    except Exception as error:
        return "late" if "timed out" in str(error).lower() else "cut"
    return "clean"


if __name__ == "__main__":
    print("end:", main(*sys.argv[1:]))
