"""A real browser for tests: one visitor's windows on the pages of a stand-alone hub."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from live import DEADLINE, LiveServer, running
from tools import CHROMIUM_FLAGS, require

expect.set_options(timeout=DEADLINE * 1000)
browser_test = pytest.mark.asyncio(loop_scope="module")
"""For every test that takes `windows`."""


@contextlib.contextmanager
def serving(*flags: str, port: int = 0) -> Iterator[LiveServer]:
    """The stand-alone server with these flags."""
    command = [sys.executable, "-m", "ssepool", "serve", "--dev", "--port", str(port), *flags]
    with running(command, r"serving on (http\S*)") as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    path = require("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield browser
        await browser.close()


@dataclass
class Windows:
    """One visitor's browser windows, and what went wrong in them."""

    context: BrowserContext
    complaints: list[str]

    async def open(
        self, url: str, page_name: str = "demo", *, state: str = "open", reduced_motion: Any = "no-preference"
    ) -> Page:
        """Open a page of the hub at `url` and wait until its connection has this state."""
        page = await self.context.new_page()
        await page.emulate_media(reduced_motion=reduced_motion)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        await page.goto(f"{url}/{page_name}")
        await has_state(page, state)
        return page


@pytest_asyncio.fixture(loop_scope="module")
async def windows(browser: Browser) -> AsyncIterator[Windows]:
    """Windows of one visitor; fails the test where a page had an error or broke its own security policy."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(DEADLINE * 1000)
    windows = Windows(context, [])
    yield windows
    await context.close()
    # That a server is away or full is logged by the browser itself, and is what some of the tests are about.
    complaints = [text for text in windows.complaints if not re.search(r"ERR_|server responded with a status", text)]
    assert complaints == []


async def has_state(page: Page, state: str) -> None:
    await expect(page.locator("#state")).to_have_attribute("data-state", state)


async def until(page: Page, condition: str, argument: Any = None) -> None:
    """Wait for a condition in the page; Playwright's own way of waiting breaks the page's security policy."""
    async with asyncio.timeout(DEADLINE):
        while not await page.evaluate(condition, argument):
            await asyncio.sleep(0.02)
