"""A real browser whose cookie runs out: it is told, renews it, comes back by itself, and has lost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Page

from live import LiveServer, serve
from sessions import session_value
from windows import Windows, browser_test, until

LISTEN = """
(lasting) => {
  globalThis.seen = [];
  globalThis.opened = 0;
  const source = globalThis.source = new EventSource("/events?topic=news");
  source.onmessage = (event) => seen.push(event.data);
  for (const name of ["expiring", "close"])
    source.addEventListener("ssepool." + name, (event) => {
      seen.push(name + " " + (JSON.parse(event.data).reason ?? ""));
      if (name === "expiring" && lasting) document.cookie = "session=u1; path=/";
    });
  source.addEventListener("ssepool.open", () => { opened += 1; });
}
"""


@pytest.fixture
def hub() -> Iterator[LiveServer]:
    with serve(sessions="at_once", reap_interval=0.1, retry=0.5) as hub:
        yield hub


async def listening(windows: Windows, hub: LiveServer, seconds: float, *, renews: bool) -> Page:
    """A page that listens with a session of so many seconds."""
    page = await windows.context.new_page()
    await page.goto(hub.url + "/health/live")
    value = session_value("u1", seconds)
    await windows.context.add_cookies([{"name": "session", "value": value, "url": hub.url}])
    await page.evaluate(LISTEN, renews)
    await until(page, "() => opened === 1")
    return page


async def seen(page: Page) -> list[str]:
    found: list[str] = await page.evaluate("() => seen")
    return found


@browser_test
async def test_a_page_that_renews_its_cookie_in_time_loses_nothing(windows: Windows, hub: LiveServer) -> None:
    page = await listening(windows, hub, 4, renews=True)
    sent: list[str] = []

    async def publish() -> Any:
        while await page.evaluate("() => opened < 2"):
            sent.append(str(len(sent)))
            await asyncio.to_thread(hub.publish, "news", sent[-1])
            await asyncio.sleep(0.1)

    async with asyncio.timeout(15):
        await publish()
    hub.publish("news", "the end")
    await until(page, '() => seen.includes("the end")')
    found = await seen(page)
    assert [text for text in found if text.isdigit()] == sent
    told = [text for text in found if not text.isdigit()]
    # A browser may drop what a cut is close behind.
    assert told in (["expiring ", "close token_expired", "the end"], ["expiring ", "the end"])


@browser_test
async def test_a_page_that_does_not_is_told_to_come_back_and_is_not_given_up(
    windows: Windows,
    hub: LiveServer,
) -> None:
    page = await listening(windows, hub, 2, renews=False)
    await until(page, '() => seen.filter((text) => text === "close token_expired").length === 2')
    # The second one is the answer to its coming back with the same cookie: it waits, and has not given up. That stream
    # may be open for a moment still.
    await until(page, "() => source.readyState !== EventSource.OPEN")
    assert await page.evaluate("() => source.readyState === EventSource.CONNECTING")


@browser_test
async def test_a_user_who_is_logged_out_and_has_no_other_session_is_gone_for_good(
    windows: Windows,
    hub: LiveServer,
) -> None:
    page = await listening(windows, hub, 600, renews=False)
    status, _ = await asyncio.to_thread(hub.request, "POST", "/revocations", {"subject": "u1"})
    assert status == 201
    await until(page, "() => source.readyState === 2")
    assert await seen(page) == ["close revoked"]
