"""The dashboard in a real browser, over the stand-alone server; and its routes alone."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest
from playwright.async_api import Page, expect
from starlette.applications import Starlette
from starlette.testclient import TestClient

from live import LiveServer, Stream, running
from ssepool.http import dashboard, pages
from ssepool.http.errors import handlers
from windows import Windows, browser_test, serving, until

SIZE = 8


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with serving("--pool-size", str(SIZE)) as server:
        yield server


async def number(page: Page, name: str, value: int) -> None:
    """Wait until a number of the pool has this value."""
    await expect(page.locator(f"#n-{name}")).to_have_text(str(value))


async def kick(page: Page, connection: str) -> None:
    await page.get_by_role("button", name=f"Kick {connection}", exact=True).click()


def shows(page: Page, connection: str) -> Any:
    return expect(page.locator("#connections tr:not(.gone) .id").get_by_text(connection, exact=True))


@browser_test
async def test_the_pool_is_shown_as_it_changes(server: LiveServer, windows: Windows) -> None:
    page = await windows.open(server.url, "dashboard")
    await number(page, "open", 1)
    await number(page, "size", SIZE)
    await expect(page.locator("#pool-state")).to_have_text("open")
    with Stream(server, "a").opened():
        await number(page, "open", 2)
        await expect(page.locator("#share")).to_have_text("25 %")
        await expect(page.locator("#meter")).to_have_attribute("aria-valuenow", "25")
        await expect(page.locator("#cells")).to_have_attribute(
            "aria-label", f"{SIZE} slots: {SIZE - 2} free, 0 reserved, 2 open, 0 closing"
        )
    await number(page, "open", 1)
    left = page.locator("#released tr", has_text="client_closed").locator("td.n")
    await expect(left).to_have_text(["+1", "1"])


@browser_test
async def test_all_of_it_comes_over_one_stream_and_from_one_host(server: LiveServer, windows: Windows) -> None:
    requests: list[tuple[str, str]] = []
    windows.context.on("request", lambda request: requests.append((request.resource_type, request.url)))
    page = await windows.open(server.url, "dashboard")
    await number(page, "open", 1)
    assert [kind for kind, _ in requests].count("eventsource") == 1
    assert [url for _, url in requests if not url.startswith((server.url, "data:"))] == []


@browser_test
async def test_the_last_minutes_are_drawn_from_what_was_delivered(server: LiveServer, windows: Windows) -> None:
    page = await windows.open(server.url, "dashboard")
    await number(page, "open", 1)  # the numbers that what is delivered from now on is compared with
    with Stream(server, "a").opened() as stream:
        for place in range(50):
            server.publish("a", str(place))
        stream.until(lambda s: len(s.data) == 50)
        label = "document.querySelector('.line-delivered svg').getAttribute('aria-label')"
        await until(page, f"Number({label}?.match(/highest in five minutes ([0-9.]+)/)?.[1]) > 5")
        await until(page, "document.querySelector('.line-bytes .line').getAttribute('d').length > 10")
        await until(page, "document.querySelector('.line-open b').textContent === '2'")


@browser_test
async def test_what_others_gave_of_themselves_is_text_and_never_markup(server: LiveServer, windows: Windows) -> None:
    nasty = "<img src=x onerror='document.title = 1'><b>bold</b>"
    with Stream(server, nasty, "b", data={"name": nasty}).opened() as stream:
        page = await windows.open(server.url, "dashboard")
        await shows(page, stream.connection).to_have_count(1)
        row = page.locator("#connections tr", has_text=stream.connection)
        await row.locator(".data summary").click()
        await expect(row.locator(".data pre")).to_have_text(json.dumps({"name": nasty}, separators=(",", ":")))
        await row.locator(".topics summary").click()
        await expect(row.locator(".topics pre")).to_contain_text(nasty)
        await kick(page, stream.connection)
        await expect(page.locator("#kick-who")).to_contain_text(nasty)
        assert await page.locator("#connections img, #connections td b b, #kick img").count() == 0
        assert await page.title() == "ssepool dashboard"


@browser_test
async def test_the_biggest_topics_are_shown_by_what_the_operator_asks_for(server: LiveServer, windows: Windows) -> None:
    nasty = "<img src=x onerror='document.title = 1'>"
    long = "tenants/" + "long-name-" * 20
    for place in range(12):
        server.publish(f"small/{place}", "x")
    server.publish(long, "x" * 5000)
    for _ in range(3):
        server.publish(nasty, "x")
    with Stream(server, "small/3").opened():
        page = await windows.open(server.url, "dashboard")
        rows = page.locator("#biggest-rows tr")
        await expect(rows).to_have_count(8)
        await expect(page.locator("#topic-count")).to_have_text("14 with events")
        await rows.nth(0).locator("summary").click()
        await expect(rows.nth(0).locator("pre")).to_have_text(long)
        await expect(rows.nth(1).locator(".name")).to_have_text(nasty)
        for order, first, column, value in (
            ("events", nasty, "events", "3"),
            ("subscribers", "small/3", "subscribers", "1"),
            ("rate", nasty, "rate", "0.3/s"),
        ):
            await page.select_option("#biggest-by", order)
            await expect(rows.nth(0).locator(".name")).to_have_text(first)
            await expect(rows.nth(0).locator(f".{column}")).to_have_text(value)
        assert await page.locator("#biggest img").count() == 0
        assert await page.title() == "ssepool dashboard"


@browser_test
async def test_topics_are_asked_for_calmly_and_only_while_the_page_is_seen(
    server: LiveServer, windows: Windows
) -> None:
    page = await windows.context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: "/topics?" in request.url and asked.append(request.url))
    await page.add_init_script("Object.defineProperty(document, 'hidden', { get: () => window.away === true });")
    await page.clock.install()
    await page.goto(f"{server.url}/dashboard")
    await number(page, "open", 1)
    await expect(page.locator("#biggest-none")).to_be_visible()
    before = len(asked)
    await page.clock.fast_forward(9_000)
    assert len(asked) == before
    async with page.expect_request("**/topics?*"):
        await page.clock.fast_forward(2_000)
    await page.evaluate("window.away = true")
    before = len(asked)
    for _ in range(3):
        await page.clock.fast_forward(30_000)
    assert len(asked) == before
    async with page.expect_request("**/topics?*"):
        await page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'));")


@browser_test
async def test_connections_are_filtered_and_told_apart_from_this_page(server: LiveServer, windows: Windows) -> None:
    with Stream(server, "a").opened() as one, Stream(server, "b").opened() as two:
        page = await windows.open(server.url, "dashboard")
        await shows(page, one.connection).to_have_count(1)
        own = page.locator("#connections tr", has_text="this page")
        await expect(own).to_have_count(1)
        await expect(own.locator("button")).to_have_count(0)
        await page.fill("#filter-topic", "b")
        await page.press("#filter-topic", "Enter")
        await shows(page, one.connection).to_have_count(0)
        await shows(page, two.connection).to_have_count(1)
        await page.fill("#filter-topic", "nobody has this")
        await page.press("#filter-topic", "Enter")
        await expect(page.locator("#none")).to_be_visible()
        await page.get_by_role("button", name="Show all").click()
        await shows(page, one.connection).to_have_count(1)


@browser_test
async def test_a_client_is_kicked_only_after_a_question(server: LiveServer, windows: Windows) -> None:
    with Stream(server, "a").opened() as stream:
        page = await windows.open(server.url, "dashboard")
        await kick(page, stream.connection)
        await expect(page.locator("#kick [data-close]")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.locator("#kick")).to_be_hidden()
        assert server.pool()["released"]["kicked"] == 0
        await kick(page, stream.connection)
        await page.fill("#kick-seconds", "7")
        await page.press("#kick-seconds", "Enter")
        assert stream.to_end().of_type("ssepool.close") == [{"reason": "kicked"}]
        await expect(page.locator("#kick")).to_be_hidden()
        await page.mouse.move(0, 0)
        await page.locator("#filter-topic").focus()
        await shows(page, stream.connection).to_have_count(0)


@browser_test
async def test_many_connections_come_page_by_page(windows: Windows) -> None:
    with serving("--pool-size", "60") as server, contextlib.ExitStack() as stack:
        streams = [stack.enter_context(Stream(server, "a").opened()) for _ in range(30)]
        page = await windows.open(server.url, "dashboard")
        rows = page.locator("#connections tr")
        await expect(rows).to_have_count(25)
        await expect(page.locator("#previous")).to_be_disabled()
        await page.click("#next")
        await expect(page.locator("#page")).to_have_text("Page 2")
        await expect(rows).to_have_count(6)  # with the page's own
        await expect(page.locator("#next")).to_be_disabled()
        for stream in streams[20:]:
            stream.close()
        server.wait_pool(open=21)
        await page.click("#previous")
        await expect(rows).to_have_count(21)


@browser_test
async def test_the_pool_is_resized(server: LiveServer, windows: Windows) -> None:
    page = await windows.open(server.url, "dashboard")
    await expect(page.locator("#size")).to_have_value(str(SIZE))
    await page.fill("#size", "20")
    await page.press("#size", "Enter")
    await number(page, "size", 20)
    await expect(page.locator("#resize-note")).to_have_text("The pool has 20 slots now.")
    with Stream(server, "a").opened(), Stream(server, "a").opened():
        await number(page, "open", 3)
        await page.fill("#size", "1")
        await page.press("#size", "Enter")
        await expect(page.locator("#resize-note")).to_have_text("Shrinking to 1: 2 more go as their clients leave.")
    await expect(page.locator("#resize-note")).to_have_text("The pool has 1 slot now.")
    await page.fill("#size", "2000000")
    await page.press("#size", "Enter")
    await expect(page.locator("#resize-error")).to_contain_text("2000000")


@browser_test
async def test_a_drain_is_asked_for_twice_and_leaves_the_page_with_the_numbers(
    server: LiveServer, windows: Windows
) -> None:
    with Stream(server, "a").opened() as stream:
        page = await windows.open(server.url, "dashboard")
        await number(page, "open", 2)
        await page.click("#drain-open")
        await expect(page.locator("#drain")).to_contain_text("does not open again")
        await page.get_by_role("button", name="Leave it open").click()
        assert server.pool()["state"] == "open"
        await page.click("#drain-open")
        await expect(page.locator("#drain-count")).to_have_text("2 clients are sent away")
        await page.fill("#drain-seconds", "0")
        await page.get_by_role("button", name="Drain for good").click()
        assert stream.to_end().of_type("ssepool.close") == [{"reason": "drained"}]
        await expect(page.locator("#pool-state")).to_have_text("drained")
        await expect(page.locator("#notice-text")).to_contain_text("The pool is drained")
        await expect(page.locator("#drain-open")).to_be_disabled()
        await number(page, "open", 0)


@browser_test
async def test_a_full_pool_is_told_also_to_the_page_that_waits_itself(windows: Windows) -> None:
    with serving("--pool-size", "1") as server:
        with Stream(server, "a").opened():
            page = await windows.open(server.url, "dashboard", state="connecting")
            await expect(page.locator("#notice-text")).to_contain_text("The dashboard itself needs a slot")
            await expect(page.locator("#pool-state")).to_have_text("full")
            await number(page, "waiting", 1)
        await expect(page.locator("#state")).to_have_text("Live")
        await expect(page.locator("#notice")).to_be_hidden()


@browser_test
async def test_a_lost_connection_is_told_and_comes_back(windows: Windows) -> None:
    with serving("--pool-size", "7") as server:
        page = await windows.open(server.url, "dashboard")
        await number(page, "size", 7)
        server.stop(signal.SIGKILL)
        await expect(page.locator("#notice-text")).to_contain_text("the connection is lost")
        await expect(page.locator("body")).to_have_class("stale")
    with serving("--pool-size", "9", port=server.port):
        await number(page, "size", 9)
        await expect(page.locator("#state")).to_have_text("Live")
        await expect(page.locator("#notice")).to_be_hidden()
        await expect(page.locator("body")).not_to_have_class("stale")


MOUNTED = """
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from ssepool import Hub

hub = Hub()
app = Starlette(routes=[Mount("/sse", app=hub.dev_app)], lifespan=hub.lifespan)
uvicorn.run(app, port=0)
"""


@browser_test
async def test_the_dashboard_works_under_a_prefix(windows: Windows) -> None:
    with running([sys.executable, "-c", MOUNTED], r"running on (http\S*)") as server:
        page = await windows.open(f"{server.url}/sse", "dashboard")
        await number(page, "open", 1)
        await expect(page.locator("#connections tr")).to_have_count(1)
        await page.fill("#size", "5")
        await page.press("#size", "Enter")
        await number(page, "size", 5)


@browser_test
@pytest.mark.parametrize("width", [320, 390, 768, 1440, 2560])
async def test_the_page_fits_its_window(server: LiveServer, windows: Windows, width: int) -> None:
    server.publish("w" * 400, "x")
    with Stream(server, "x" * 500, "y" * 300, data={"key": "z" * 900}).opened() as stream:
        page = await windows.open(server.url, "dashboard")
        await shows(page, stream.connection).to_have_count(1)
        await page.set_viewport_size({"width": width, "height": 844})
        for summary in await page.locator(".rows summary").all():
            await summary.click()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


@browser_test
async def test_nothing_moves_when_the_first_numbers_come(server: LiveServer, windows: Windows) -> None:
    page = await windows.context.new_page()
    await page.add_init_script(
        """window.shift = 0;
        const add = (list) => list.getEntries().forEach(({ value }) => (window.shift += value));
        new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });"""
    )
    await page.goto(f"{server.url}/dashboard")
    await number(page, "open", 1)
    with Stream(server, "a").opened():
        await number(page, "open", 2)
    await number(page, "open", 1)
    assert cast("float", await page.evaluate("shift")) < 0.1


@browser_test
async def test_everything_that_can_be_pressed_has_a_name_and_is_reached_by_keyboard(
    server: LiveServer, windows: Windows
) -> None:
    with Stream(server, "a").opened() as stream:
        page = await windows.open(server.url, "dashboard")
        await shows(page, stream.connection).to_have_count(1)
        visited: list[str] = []
        for _ in range(20):
            await page.keyboard.press("Tab")
            visited.append(
                await page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
            )
        for wanted in ("Skip to the numbers", "size", "drain-open", "filter-topic", "filter-user", "filter-ip", "Kick"):
            assert wanted in visited
        nameless = await page.evaluate(
            """[...document.querySelectorAll("button, a, input, select")]
                 .filter((node) => !(node.labels?.length || node.textContent.trim() || node.ariaLabel))
                 .map((node) => node.outerHTML)"""
        )
        assert nameless == []


@browser_test
async def test_a_page_that_is_not_allowed_says_so(windows: Windows) -> None:
    with running([sys.executable, "-c", NO_RIGHTS], "^ready (http.*)") as server:
        page = await windows.context.new_page()
        await page.goto(f"{server.url}/dashboard")
        await expect(page.locator("#notice-text")).to_contain_text("You are not allowed to see this: this takes")
        await expect(page.locator("#connections-error")).to_contain_text("this takes credentials")
        await expect(page.locator("#biggest")).to_be_hidden()


NO_RIGHTS = """
from live_hub import ready
from ssepool import Hub, ServerConfig
from ssepool.server.server import Server
hub = Hub(authorize=lambda asking: None)
Server(hub, hub.admin_app, ServerConfig(port=0), on_started=ready).run()
"""
"""A hub that has administration at a port, and takes nobody for an operator."""


# The routes alone


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = Starlette(routes=[*pages.routes(), *dashboard.routes()], exception_handlers=handlers)
    with TestClient(app) as client:
        yield client


def test_every_file_that_a_page_names_is_served(client: TestClient) -> None:
    page = client.get("/dashboard").text
    linked = [link for link in re.findall(r'(?:href|src)="([^"#:]+)"', page) if "." in link]
    imported = [f"dashboard/{name}" for name in dashboard.DASHBOARD_FILES] + [
        f"web/{name}" for name in pages.SHARED_FILES
    ]
    for path in {*linked, *imported, "ssepool.js"}:
        response = client.get(f"/{path}")
        assert response.status_code == 200, path
        assert "default-src 'none'" in response.headers["content-security-policy"]
        again = client.get(f"/{path}", headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_the_page_has_no_script_or_style_of_its_own_and_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/dashboard").text
    assert re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=|https?://(?!www\.w3\.org/2000/svg)", page) is None
