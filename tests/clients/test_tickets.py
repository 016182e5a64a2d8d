"""The browser client on a page of another site: its EventSource is let in by tickets, each time by a new one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from deciding import deciding
from live import serve_command, wait_for
from tools import CHROMIUM_FLAGS, require

LISTEN = """async ([hub, token]) => {
    const { SSEPool } = await import(`${hub}/ssepool.js`);
    window.states = [];
    window.data = [];
    const ticket = () => ({ Authorization: `Bearer ${token}` });
    window.feed = new SSEPool(`${hub}/`).subscribe({ topics: ["chat"], lastEventId: "earliest", ticket });
    feed.on("ssepool.state", (state) => states.push(state));
    feed.on("message", (data) => window.data.push(data));
}"""


@pytest.fixture
def page() -> Iterator[Page]:
    path = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield browser.new_page()
        browser.close()


@pytest.mark.parametrize("flags", [(), ("--no-detach",)])
def test_a_page_of_another_site_streams_with_tickets_and_comes_back_with_new_ones(
    page: Page, flags: tuple[str, ...]
) -> None:
    with deciding() as application, deciding() as shop:
        shop.says = b"<!doctype html><title>Shop</title>"
        origin = shop.url.removesuffix("/sse-auth")
        access = ("--authorize-url", application.url, "--allow-origins", origin)
        with serve_command(*access, "--max-lifetime", "1", "--retry", "0.1", *flags) as hub:
            page.goto(shop.url)
            page.evaluate(LISTEN, [hub.url, "ann"])
            for count in (1, 2, 3):
                wait_for(lambda count=count: page.evaluate("states.filter((s) => s === 'open').length") >= count)
                assert (
                    hub.request("POST", "/events", {"topic": "chat", "data": count}, {"Cookie": "session=ann"})[0]
                    == 201
                )
            wait_for(lambda: page.evaluate("data.length") == 3)
            assert page.evaluate("data") == [1, 2, 3]
            page.evaluate("feed.close()")
            assert page.evaluate("feed.state") == "closed"


def test_a_page_without_a_right_keeps_asking_politely_and_hears_nothing(page: Page) -> None:
    with deciding() as application, deciding() as shop:
        shop.says = b"<!doctype html><title>Shop</title>"
        origin = shop.url.removesuffix("/sse-auth")
        with serve_command("--authorize-url", application.url, "--allow-origins", origin) as hub:
            page.goto(shop.url)
            page.evaluate(LISTEN, [hub.url, "nobody"])
            wait_for(lambda: page.evaluate("states.includes('reconnecting')"))
            assert page.evaluate("data") == []
            page.evaluate("feed.close()")
            assert page.evaluate("feed.state") == "closed"
