"""The browser client with a token, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page

from live import LiveServer, serve_command
from minting import AUDIENCE, ISSUER, ROOM, Keys, mint
from windows import Windows, browser_test, until

PARTS = {"type": "ssepool", "publish_parts": ["public"]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    key = Keys.into(tmp_path).access.token_keys[0]
    with serve_command("--token-keys", key, "--token-issuers", ISSUER, "--token-audience", AUDIENCE) as server:
        yield server


async def subscribed(page: Page, server: LiveServer, token: str) -> None:
    """Have the page subscribe to the room with tokens that a function returns."""
    await page.goto(f"{server.url}/health/live")
    await page.evaluate(
        """async (token) => {
          const { SSEPool } = await import("/ssepool.js");
          window.asked = 0;
          window.token = token;
          window.pool = new SSEPool("/", { token: async () => (window.asked++, window.token) });
          window.seen = [];
          window.feed = pool.subscribe({ topics: ["room"] });
          feed.on("message", (data, event) => seen.push([data, event.lastEventId !== ""]));
        }""",
        token,
    )


@browser_test
async def test_a_page_streams_publishes_and_sends_with_a_token(server: LiveServer, windows: Windows) -> None:
    page = await windows.context.new_page()
    await subscribed(page, server, mint(authorization_details=[ROOM, PARTS]))
    await until(page, "feed.state === 'open'")
    await page.evaluate("pool.publish('room', { text: 'ä\\n\\nb' })")
    await until(page, "seen.length === 1")
    assert await page.evaluate("seen") == [[{"text": "ä\n\nb"}, True]]
    assert await page.evaluate("feed.send({ typing: true })") == {"accepted": True}
    assert await page.evaluate("asked") == 3


@browser_test
async def test_a_page_comes_back_with_a_new_token(server: LiveServer, windows: Windows) -> None:
    page = await windows.context.new_page()
    await subscribed(page, server, mint("x" * 32))
    await until(page, "feed.state === 'reconnecting' && asked >= 1")
    await page.evaluate("(token) => { window.token = token; feed.reconnect(); }", mint())
    await until(page, "feed.state === 'open'")
