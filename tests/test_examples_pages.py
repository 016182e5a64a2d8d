"""The pages of the examples in a real browser, and the workers that some of them need."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from live import DEADLINE, running, serve_app, wait_for
from service_fixtures import Get
from tools import NODE_MODULES, require
from windows import browser, browser_test, until

__all__ = ["browser"]

CDN = "https://cdn.jsdelivr.net/"
WORKERS = {
    "celery": (["celery", "-A", "examples.jobs.with_celery", "worker", "--loglevel=info"], r"(celery@\S+) ready"),
    "arq": (["arq", "examples.jobs.with_arq.WorkerSettings"], r"(Starting worker)"),
}
NEW_WORDS = {
    '"datastar-merge-fragments"': '"datastar-patch-elements"',
    "({ fragments: fragmentsRaw": "({ elements: fragmentsRaw",
    'name: "onLoad"': 'name: "init"',
}
"""What Datastar 1.0 calls otherwise; on npm is only a version from before it."""

Visit = Callable[..., Awaitable[Page]]


@cache
def datastar() -> str:
    require("@starfederation/datastar")
    module = NODE_MODULES / "@starfederation/datastar/dist/bundles/datastar.js"
    command = [f"{require('esbuild')}/bin/esbuild", "--bundle", "--format=esm", str(module)]
    code = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    for old, new in NEW_WORDS.items():
        assert old in code
        code = code.replace(old, new)
    return code


async def from_packages(route: Route) -> None:
    """What a page wants from the CDN, from the npm packages of the tests; nothing else is reached."""
    path = route.request.url.removeprefix(CDN)
    if path.startswith("npm/htmx.org@4."):
        body = (Path(require("htmx4")) / "dist" / path.partition("/dist/")[2]).read_text("utf-8")
    else:
        assert path.endswith("/bundles/datastar.js")
        body = datastar()
    await route.fulfill(content_type="text/javascript", body=body, headers={"Access-Control-Allow-Origin": "*"})


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """`visit(url)` opens a page as a visitor of its own, which must have no error."""
    complaints: list[str] = []
    contexts = []

    async def visit(url: str, **options: Any) -> Page:
        contexts.append(context := await browser.new_context(**options))
        await context.route(CDN + "**", from_packages)
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(url)
        return page

    yield visit
    for context in contexts:
        await context.close()
    assert complaints == []


async def fits(page: Page) -> None:
    """Whether nothing of a page stands over its edge, on a telephone and on a desk."""
    for width in 390, 1440:
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


@browser_test
@pytest.mark.parametrize("path", ["detached", "plain"])
async def test_a_chat_shows_what_others_say_and_who_is_there(visit: Visit, path: str) -> None:
    with serve_app("examples.chat.app:app", path) as server:
        pages = {name: await visit(server.url) for name in ("Ann", "Ben", "Cy")}
        for name, page in pages.items():
            await page.fill("#name", name)
            await page.press("#name", "Enter")
            await expect(page.locator("#present")).to_contain_text(name)
        ann, ben, cy = pages.values()
        await expect(ann.locator("#present")).to_have_text("Ann, Ben, Cy")
        await ann.fill("#text", "<i>Hello!</i>")
        await ann.press("#text", "Enter")
        for page in ben, ann:
            await expect(page.locator("#log li")).to_have_text("Ann <i>Hello!</i>")
        await fits(ben)

        await cy.close()
        await expect(ann.locator("#present")).to_have_text("Ann, Ben")
        await ben.goto("about:blank")
        await expect(ann.locator("#present")).to_have_text("Ann")
        await ann.fill("#text", "Are you there?")
        await ann.press("#text", "Enter")
        await expect(ann.locator("#log li")).to_have_count(2)
        await ben.go_back()
        await expect(ben.locator("#log li")).to_have_count(2)
        await expect(ann.locator("#present")).to_have_text("Ann, Ben")

        other = await visit(f"{server.url}?room=other", storage_state=await ben.context.storage_state())
        await expect(other.locator("#present")).to_have_text("Ben")
        await expect(other.locator("#log li")).to_have_count(0)

        await kill(ben)
        await expect(ann.locator("#present")).to_have_text("Ann")


async def kill(page: Page) -> None:
    """Have a page's process crash."""
    session = await page.context.new_cdp_session(page)
    crash = asyncio.ensure_future(session.send("Page.crash"))
    await page.wait_for_event("crash")
    crash.cancel()


@browser_test
@pytest.mark.parametrize("queue, path", [("celery", "detached"), ("arq", "plain")])
async def test_the_bar_of_a_job_goes_on_after_a_reload(
    visit: Visit, services: Get, monkeypatch: pytest.MonkeyPatch, queue: str, path: str
) -> None:
    service = services("redis")
    if queue == "arq":
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([require("arq"), os.environ.get("PYTHONPATH", "")]))
    for name, value in {"REDIS": f"redis://127.0.0.1:{service.port}/7", "QUEUE": queue, "PACE": "0.05"}.items():
        monkeypatch.setenv(name, value)
    command, announces = WORKERS[queue]
    with (
        running([sys.executable, "-m", *command], announces),
        serve_app("examples.jobs.app:app", path) as server,
    ):
        assert server.request("GET", "/events")[0] == server.request("POST", "/jobs")[0] == 401
        page, stranger = await visit(server.url), await visit(server.url)
        value = "document.querySelector('progress')?.value ?? 0"
        await page.click("button")
        await until(page, f"{value} >= 3")
        await page.reload()
        await until(page, f"{value} >= 3")
        assert await page.evaluate(value) < 40
        await page.goto("about:blank")
        await page.go_back()
        await expect(page.locator("#jobs small")).to_contain_text("done")
        assert await page.evaluate(value) == 40
        await fits(page)
        # The stranger's stream has come as far by now: its own job is all that it sees.
        await stranger.click("button")
        await until(stranger, f"{value} >= 3")
        await expect(stranger.locator("progress")).to_have_count(1)
        await expect(page.locator("progress")).to_have_count(1)


@browser_test
@pytest.mark.parametrize("path", ["detached", "plain"])
async def test_an_answer_is_stopped_and_is_there_after_a_reload(
    visit: Visit, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("PACE", "0.3")
    with serve_app("examples.answer.app:app", path) as server:
        page = await visit(server.url)
        await page.fill("#question", "Why")
        await page.press("#question", "Enter")
        await expect(page.locator("#answer")).to_contain_text("You ask:")
        await page.reload()
        await expect(page.locator("#answer")).to_contain_text("You ask: Why?")
        await expect(page.locator("#state")).to_have_text("Answering …")
        await page.click("#stop")
        await expect(page.locator("#state")).to_have_text("Stopped")
        wait_for(lambda: "the model works no more\n" in server.log)
        text = await page.inner_text("#answer")
        assert "otherwise" not in text
        await page.reload()
        await expect(page.locator("#state")).to_have_text("Stopped")
        assert await page.inner_text("#answer") == text
        await fits(page)
        stranger = await visit(page.url)
        await expect(stranger.locator("#state")).to_have_text("This answer is gone")


@browser_test
async def test_htmx_puts_what_is_published_into_the_page(visit: Visit) -> None:
    with serve_app("examples.orders.app:app") as server:
        ann = {"http_credentials": {"username": "ann", "password": "red"}}
        one, two = [await visit(f"{server.url}/orders/17", **ann) for _ in range(2)]
        await one.click("text=Packed")
        for page in one, two:
            await expect(page.locator("li")).to_have_text("packed, says ann")
        await two.goto("about:blank")
        await one.click("text=Shipped")
        await expect(one.locator("li")).to_have_count(2)
        await two.go_back()
        await expect(two.locator("li")).to_have_text(["packed, says ann", "shipped, says ann"])
        await fits(two)


@browser_test
async def test_datastar_patches_its_element(visit: Visit) -> None:
    with serve_app("examples.notices.app:app") as server:
        pages = {"ann": await visit(server.url), "ben": await visit(server.url)}
        for user, page in pages.items():
            await page.fill("[name=user]", user)
            await page.fill("[name=password]", {"ann": "red", "ben": "blue"}[user])
            async with page.expect_response("**/notices?*", timeout=DEADLINE * 1000):  # what comes before, it has not
                await page.press("[name=password]", "Enter")
            await expect(page.locator("h1")).to_have_text(f"Notices for {user}")
        ann, ben = pages.values()
        await ann.fill("[name=to]", "ben")
        await ann.fill("[name=text]", "<i>Hello!</i>")
        await ann.press("[name=text]", "Enter")
        await expect(ben.locator("#notice")).to_have_text("ann: <i>Hello!</i>")
        await expect(ann.locator("#notice")).to_have_text("None yet")
        await ben.fill("[name=text]", "To all")
        await ben.press("[name=text]", "Enter")
        for page in ann, ben:
            await expect(page.locator("#notice")).to_have_text("ben: To all")
        await fits(ann)
