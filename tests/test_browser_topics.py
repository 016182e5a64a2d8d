"""The browser client in a real browser: where it begins, rows of state topics, pages out of the browser's cache."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from live import TESTS, LiveServer
from ssepool import Hub
from ssepool.client import AsyncClient
from tools import CHROMIUM_FLAGS, require
from windows import Windows, browser_test, serving, until
from written import blocks

READERS = ("EventSource", "fetch")
"""With what the client reads: a browser's own, and where it has a token to send what it brings."""
BEGINNINGS = {"earliest": [1, 2, 3, 4], "latest": [4], "last=3": [2, 3, 4], "id": [3, 4], "": []}

SUBSCRIBE = """async ([reader, topic, lastEventId, types]) => {
  const { SSEPool } = await import("./ssepool.js");
  globalThis.pool = new SSEPool("/", reader === "fetch" ? { token: () => undefined } : {});
  globalThis.seen = [];
  globalThis.opened = 0;
  globalThis.feed = pool.subscribe({ topics: [topic], lastEventId });
  for (const type of types) feed.on(type, (data) => seen.push(data));
  feed.on("ssepool.gap", (data) => seen.push(data));
  feed.on("ssepool.open", () => opened++);
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serving("--pool-size", "40") as server:
        yield server


async def subscribe(
    page: Page, reader: str, topic: str, begin: str = "", types: tuple[str, ...] = ("message",)
) -> None:
    await page.evaluate(SUBSCRIBE, [reader, topic, begin, types])
    await until(page, "() => opened === 1")


async def sees(page: Page, *expected: Any) -> None:
    await until(page, "(count) => seen.length >= count", len(expected))
    assert await page.evaluate("() => seen") == list(expected)


@browser_test
@pytest.mark.parametrize("reader", READERS)
async def test_it_begins_where_it_is_told_and_goes_on_where_it_was(
    server: LiveServer, windows: Windows, reader: str
) -> None:
    page = await windows.open(server.url)
    for begin, newest in BEGINNINGS.items():
        topic = f"{reader}/{begin}"
        ids = [server.publish(topic, number) for number in (1, 2, 3, 4)]
        await subscribe(page, reader, topic, ids[1] if begin == "id" else begin)
        server.publish(topic, 5)
        await sees(page, *newest, 5)
        await page.evaluate("() => { feed.close(); }")
        server.publish(topic, 6)
        server.publish(topic, 7)
        await page.evaluate("() => feed.reconnect()")
        await sees(page, *newest, 5, 6, 7)
        await page.evaluate("() => feed.close()")


@browser_test
@pytest.mark.parametrize("reader", READERS)
async def test_who_has_had_nothing_comes_back_and_has_missed_nothing(
    server: LiveServer, windows: Windows, reader: str
) -> None:
    page = await windows.open(server.url)
    for begin in ("", "latest"):
        topic = f"quiet/{reader}/{begin}"
        await subscribe(page, reader, topic, begin)
        await until(page, "() => /-/.test(feed.lastEventId)")
        await page.evaluate("() => { feed.close(); }")
        for number in (1, 2):
            server.publish(topic, number)
        await page.evaluate("() => feed.reconnect()")
        await sees(page, 1, 2)
        await page.evaluate("() => feed.close()")


@browser_test
async def test_events_that_nobody_listens_to_count_where_it_reads_itself(server: LiveServer, windows: Windows) -> None:
    page = await windows.open(server.url)
    server.publish("mixed", 0, type="unheard")
    await subscribe(page, "fetch", "mixed", "latest")
    last = server.publish("mixed", 1, type="unheard")
    await page.evaluate("() => { feed.on('end', () => {}); }")
    while await page.evaluate("() => { feed.reconnect(); return feed.lastEventId; }") != last:
        await until(page, "(count) => opened > count", await page.evaluate("() => opened"))
    await page.evaluate("() => { feed.close(); }")
    for number in (2, 3):
        server.publish("mixed", number)
    await page.evaluate("() => feed.reconnect()")
    await sees(page, 2, 3)


@browser_test
@pytest.mark.parametrize("reader", READERS)
async def test_rows_are_published_replaced_and_removed(server: LiveServer, windows: Windows, reader: str) -> None:
    page = await windows.open(server.url)
    topic = f"rows/{reader}"
    await page.evaluate(SUBSCRIBE, [reader, "elsewhere", "", []])
    publish = "([topic, data, fields]) => pool.publish(topic, data ?? undefined, fields)"
    for number in (1, 2):
        await page.evaluate(publish, [topic, {"id": 7, "n": number}, {"key": "7"}])
    await page.evaluate("() => feed.close()")
    await subscribe(page, reader, topic, "earliest", ("message", "removed"))
    keys = ["7", "1e3", "null", '"quoted"', "ada"]
    for key in keys:
        await page.evaluate(publish, [topic, None, {"key": key, "removed": True}])
    await page.evaluate(publish, [topic, {"id": 8}, {"key": "8", "removed": True}])
    await sees(page, {"id": 7, "n": 2}, *keys, {"id": 8})


@browser_test
async def test_cookies_of_another_site_go_with_what_it_posts(server: LiveServer, windows: Windows) -> None:
    page = await windows.open(server.url)
    sent = await page.evaluate(
        """async () => {
          const { SSEPool } = await import("./ssepool.js");
          const sent = [];
          globalThis.fetch = async (url, options) => (sent.push(options.credentials), new Response('{"ids": ["1"]}'));
          for (const withCredentials of [false, true]) await new SSEPool("/", { withCredentials }).publish("t", 1);
          return sent;
        }"""
    )
    assert sent == ["same-origin", "include"]


@pytest.mark.parametrize("reader", READERS)
@browser_test
async def test_a_page_out_of_the_back_forward_cache_has_missed_nothing(server: LiveServer, reader: str) -> None:
    topic = f"cached/{reader}"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=require("chromium"),
            args=list(CHROMIUM_FLAGS),
            ignore_default_args=["--disable-back-forward-cache"],
        )
        page = await browser.new_page()
        await page.goto(f"{server.url}/demo")
        await page.evaluate("addEventListener('pageshow', (event) => { globalThis.cached = event.persisted; })")
        await subscribe(page, reader, topic)
        server.publish(topic, 1)
        await sees(page, 1)
        await page.goto(f"{server.url}/health/live")
        for number in (2, 3):
            server.publish(topic, number)
        await page.go_back(wait_until="commit")
        await until(page, "() => globalThis.cached === true")
        await sees(page, 1, 2, 3)
        await browser.close()


BEHAVIOUR = (TESTS.parent / "docs" / "behaviour.md").read_text("utf-8")
[PYTHON] = blocks(BEHAVIOUR, "State topics", "python")
[PAGE] = blocks(BEHAVIOUR, "State topics", "js")
DRAW = (
    "globalThis.shown = null; globalThis.draw = (rows) => { shown = [...rows.values()].map(JSON.stringify).join(); };"
)


async def published_as_written(hub: AsyncClient) -> None:
    """What the documentation has of a publisher; both clients publish as a hub does."""
    names: dict[str, Any] = {}
    exec("async def publish(hub):\n" + indent(PYTHON, "    "), names)
    await names["publish"](hub)


async def shows(page: Page, *rows: str) -> None:
    await until(page, "(expected) => shown === expected", ",".join(rows))


@browser_test
async def test_the_table_of_the_documentation_is_right_over_a_restart_that_loses_all(windows: Windows) -> None:
    with serving("--retry", "0.05") as server:
        page = await windows.open(server.url)
        async with AsyncClient(server.url) as hub:
            await published_as_written(hub)
            await hub.publish("orders", {"id": 8}, key="8")
            await hub.publish("orders", {"id": 9}, key="9")
            await page.evaluate(f"() => {{ {DRAW} {PAGE} }}")
            await shows(page, '{"id":8}', '{"id":9}')
            await published_as_written(hub)
            await hub.remove("orders", "8")
            await shows(page, '{"id":9}')
        server.stop()
    with serving("--retry", "0.05", port=server.port):
        async with AsyncClient(server.url) as hub:
            await hub.publish("orders", {"id": 10}, key="10")
            await shows(page, '{"id":10}')


async def test_a_hub_publishes_what_the_documentation_has() -> None:
    async with Hub() as hub:
        await published_as_written(hub)  # type: ignore[arg-type]
        kept = hub.parts.engine.log.window.read(0, max_entries=9)
        assert [(entry.topics, entry.key, entry.removed) for entry in kept] == [
            (("orders",), "7", True),
            (("doc/1/cursors",), "ada", False),
        ]
