"""The demo in a real browser, over the stand-alone server; and its routes alone."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.async_api import Page, expect
from starlette.applications import Starlette
from starlette.testclient import TestClient

from live import LiveServer, running
from ssepool.core.event import Event
from ssepool.http import demo, pages
from ssepool.http.access.door import Door
from ssepool.http.access.everybody import Everybody
from ssepool.http.budget import Budget
from ssepool.http.errors import handlers
from windows import Windows, browser_test, has_state, serving, until


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with serving("--pool-size", "40") as server:
        yield server


async def say(page: Page, text: str) -> None:
    await page.fill("#chat-text", text)
    await page.press("#chat-text", "Enter")


async def hears(page: Page, text: str, *, times: int = 1) -> None:
    said = page.locator("#chat-log .said p").get_by_text(text, exact=True)
    await expect(said).to_have_count(times)


async def number(page: Page, name: str) -> int:
    return int((await page.locator(f"#n-{name}").inner_text()).replace(",", ""))


PICTURE = """new Promise((done) =>
  requestAnimationFrame(() => requestAnimationFrame(() => done(document.querySelector("#cells").toDataURL()))))"""
"""What the pool's tiles look like once all news of them are drawn."""
PERCENT = "Number(document.querySelector('#job-bar').getAttribute('aria-valuenow'))"


@browser_test
async def test_two_windows_talk_to_each_other(server: LiveServer, windows: Windows) -> None:
    one, two = await windows.open(server.url), await windows.open(server.url)
    await say(one, "Is the water warm?")
    await hears(two, "Is the water warm?")
    await say(two, "Twenty-four degrees")
    await hears(one, "Twenty-four degrees")
    await expect(one.locator(".said.own")).to_have_count(1)
    await expect(two.locator(".said.own")).to_have_count(1)


@browser_test
async def test_what_others_say_is_text_and_never_markup(server: LiveServer, windows: Windows) -> None:
    one, two = await windows.open(server.url), await windows.open(server.url)
    nasty = "<img src=x onerror='document.title = 1'><b>bold</b>"
    await one.fill("#chat-name", "<i>me</i>")
    await say(one, nasty)
    await hears(two, nasty)
    await expect(two.locator(".said .who b")).to_have_text("<i>me</i>")
    await one.fill("#notice-text", nasty)
    await one.click("#notice-form button")
    await expect(two.locator(".toast p")).to_have_text(nasty)
    assert await two.locator(".said img, .said p b, .said i, .toast img, .notice img").count() == 0
    assert await two.title() == "ssepool demo"


@browser_test
async def test_a_chat_message_may_be_anything(server: LiveServer, windows: Windows) -> None:
    page = await windows.open(server.url)
    for data in ("just text", 17, None, [1, 2], {"name": {"a": 1}, "text": ["x"], "at": 1e300}, {}):
        server.publish("demo/chat", data, type="chat")
    await hears(page, "just text")
    await hears(page, "17")
    await hears(page, '["x"]')
    await expect(page.locator("#chat-log .said")).to_have_count(6)


@browser_test
async def test_a_new_window_sees_what_was_said_before(server: LiveServer, windows: Windows) -> None:
    first = await windows.open(server.url)
    await say(first, "Long ago")
    await hears(first, "Long ago")
    await hears(await windows.open(server.url), "Long ago")


@browser_test
async def test_a_long_history_shows_its_end_and_pops_nothing_up(server: LiveServer, windows: Windows) -> None:
    said = [{"topic": "demo/chat", "type": "chat", "data": {"text": f"number {n}"}} for n in range(2000)]
    noticed = [{"topic": "demo/notifications", "type": "notification", "data": "old news"} for _ in range(100)]
    assert server.request("POST", "/events", noticed + said)[0] == 201
    page = await windows.open(server.url)
    await hears(page, "number 1999")
    await expect(page.locator(".said")).to_have_count(100)
    await expect(page.locator(".notice")).to_have_count(30)
    await expect(page.locator(".toast")).to_have_count(0)


@browser_test
async def test_a_page_that_comes_back_asks_only_for_what_is_new(server: LiveServer, windows: Windows) -> None:
    one, two = await windows.open(server.url), await windows.open(server.url)
    await say(one, "before")
    await hears(one, "before")
    await one.goto("about:blank")
    await say(two, "meanwhile")
    await hears(two, "meanwhile")
    streams: list[str] = []
    one.on("request", lambda request: request.resource_type == "eventsource" and streams.append(request.url))
    await one.go_back()
    await hears(one, "meanwhile")
    await hears(one, "before")
    assert len(streams) == 1 and "last_event_id=" in streams[0] and "earliest" not in streams[0]


@browser_test
async def test_all_of_it_comes_over_one_stream_and_from_one_host(server: LiveServer, windows: Windows) -> None:
    requests: list[tuple[str, str]] = []
    windows.context.on("request", lambda request: requests.append((request.resource_type, request.url)))
    page = await windows.open(server.url)
    await say(page, "hello")
    await hears(page, "hello")
    await page.click("#notice-form button")
    await expect(page.locator(".toast")).to_have_count(1)
    await until(page, "document.querySelector('#n-open').textContent === '1'")
    assert [kind for kind, _ in requests].count("eventsource") == 1
    assert [url for _, url in requests if not url.startswith((server.url, "data:"))] == []


@browser_test
async def test_the_bar_of_a_job_goes_on_after_a_reload(server: LiveServer, windows: Windows) -> None:
    page = await windows.open(server.url)
    await page.click("#job-start")
    await until(page, f"{PERCENT} >= 10")
    await expect(page.locator("#job-start")).to_be_disabled()
    before = await page.evaluate(PERCENT)
    await page.reload()
    assert await page.evaluate(PERCENT) >= before
    await expect(page.locator("#job-text")).to_contain_text("resumed after the reload")
    await until(page, f"{PERCENT} > {before} && {PERCENT} < 100")
    await page.goto("about:blank")  # and what it misses while the page is gone, it gets later
    await page.go_back()
    await until(page, f"{PERCENT} === 100")
    await expect(page.locator("#job-text")).to_have_text("Done: 100 %")
    await expect(page.locator("#job-start")).to_be_enabled()


@browser_test
async def test_a_job_is_seen_in_its_own_window_only(server: LiveServer, windows: Windows) -> None:
    one, two = await windows.open(server.url), await windows.open(server.url)
    await one.click("#job-start")
    await until(one, f"{PERCENT} >= 5")
    await say(one, "running")
    await hears(two, "running")
    assert await two.evaluate(PERCENT) == 0


@browser_test
async def test_a_notification_reaches_every_window_and_pops_up_once(server: LiveServer, windows: Windows) -> None:
    one, two = await windows.open(server.url), await windows.open(server.url)
    await one.fill("#notice-text", "Lane 3 closes at noon")
    await one.select_option("#notice-level", "warning")
    await one.click("#notice-form button")
    for page in (one, two):
        await expect(page.locator(".toast.warning p")).to_have_text("Lane 3 closes at noon")
        await expect(page.locator(".notice p")).to_have_text("Lane 3 closes at noon")
    await two.click(".toast button")
    await expect(two.locator(".toast")).to_have_count(0)
    await two.reload()
    await has_state(two, "open")
    await say(one, "now")
    await hears(two, "now")
    await expect(two.locator(".notice")).to_have_count(1)
    await expect(two.locator(".toast")).to_have_count(0)


@browser_test
async def test_the_pool_is_shown_as_it_changes(server: LiveServer, windows: Windows) -> None:
    page = await windows.open(server.url, reduced_motion="reduce")  # tiles that flash look different each time
    await until(page, "document.querySelector('#n-open').textContent === '1'")
    assert await number(page, "size") == 40 and await number(page, "free") == 39
    alone = await page.evaluate(PICTURE)
    other = await windows.open(server.url)
    await until(page, "document.querySelector('#n-open').textContent === '2'")
    await until(page, f"async (before) => (await {PICTURE}) !== before", alone)
    await other.close()
    await until(page, "document.querySelector('#n-open').textContent === '1'")
    released = page.locator("#released div", has_text="client_closed").locator("dd")
    await expect(released).to_have_text("1")
    await until(page, f"async (before) => (await {PICTURE}) === before", alone)
    assert await number(page, "granted") == 2


@browser_test
async def test_who_leaves_gives_the_slot_back_and_can_come_back(server: LiveServer, windows: Windows) -> None:
    page, witness = await windows.open(server.url), await windows.open(server.url)
    await until(witness, "document.querySelector('#n-open').textContent === '2'")
    await page.click("#leave")
    await has_state(page, "closed")
    await until(witness, "document.querySelector('#n-open').textContent === '1'")
    await say(witness, "missed?")
    await hears(witness, "missed?")
    await page.click("#leave")
    await has_state(page, "open")
    await hears(page, "missed?")


@browser_test
async def test_windows_come_back_after_the_server_was_killed(windows: Windows) -> None:
    with serving() as server:
        one, two = await windows.open(server.url), await windows.open(server.url)
        await say(one, "before the crash")
        for page in (one, two):
            await hears(page, "before the crash")
        server.stop(signal.SIGKILL)
        await has_state(one, "reconnecting")
        await say(one, "into the void")
        await expect(one.locator("#chat-error")).to_be_visible()
        await expect(one.locator("#chat-text")).to_have_value("into the void")
    with serving(port=server.port):
        await has_state(one, "open")
        await has_state(two, "open")
        # The new server knows nothing of the old one's events, and says so.
        await expect(one.locator("#chat-log .gap")).to_have_count(1)
        await say(one, "after the crash")
        await hears(two, "after the crash")
        await hears(two, "before the crash")


@browser_test
async def test_a_window_in_the_queue_says_its_place_and_is_let_in(windows: Windows) -> None:
    with serving("--pool-size", "1", "--announce-queue") as server:
        first = await windows.open(server.url)
        second = await windows.open(server.url, state="waiting")
        await expect(second.locator("#state")).to_have_text("Waiting for a slot, at place 1")
        await until(first, "document.querySelectorAll('#queue i').length === 1")
        await first.close()
        await has_state(second, "open")


@browser_test
async def test_a_window_that_was_refused_tries_again_by_itself(windows: Windows) -> None:
    with serving("--pool-size", "1", "--on-full", "reject") as server:
        first = await windows.open(server.url)
        second = await windows.open(server.url, state="reconnecting")
        await until(second, "document.querySelector('#n-open').textContent === '1'")  # asked for, not streamed
        await first.close()
        await has_state(second, "open")


@browser_test
async def test_a_kicked_window_says_so_and_comes_back(server: LiveServer, windows: Windows) -> None:
    page = await windows.open(server.url)
    connection = await page.locator("#connection-id").inner_text()
    assert server.request("DELETE", f"/connections/{connection}?seconds=1")[0] == 204
    await expect(page.locator("#state")).to_have_text("Reconnecting (kicked)")
    await has_state(page, "open")


@browser_test
async def test_the_browser_client_alone(server: LiveServer, windows: Windows) -> None:
    page = await windows.open(server.url)
    result = await page.evaluate(
        """async () => {
          const { SSEPool } = await import("./ssepool.js");
          const pool = new SSEPool();
          const states = [];
          const feed = pool.subscribe({ patterns: ["orders/:id"], data: { page: 3 } });
          feed.on("ssepool.state", (state) => states.push(state));
          await new Promise((done) => feed.on("ssepool.open", done));
          const got = new Promise((done) => feed.on("update", (data, event) => done([data, event.lastEventId])));
          // Types that EventSource has a meaning of its own for.
          const error = new Promise((done) => feed.on("error", done));
          await pool.publish("orders/1", "no object", { type: "error" });
          const id = await pool.publish("orders/42", { paid: true }, { type: "update", id: "my-id" });
          const accepted = await feed.send({ typing: true });
          const refused = await pool.publish("orders/../1", 1).catch((error) => [error.name, error.status, error.code]);
          const result = { id, got: await got, error: await error, accepted, refused, last: feed.lastEventId };
          feed.close();
          const late = await feed.send(1).catch((error) => error.name);
          return { ...result, late, states, reason: feed.reason, base: pool.base.href };
        }"""
    )
    assert result == {
        "id": "my-id",
        "got": [{"paid": True}, "my-id"],
        "error": "no object",
        "accepted": {"accepted": True},
        "refused": ["HubError", 400, "invalid_topic"],
        "last": "my-id",
        "late": "HubError",
        "states": ["open", "closed"],
        "reason": "client_closed",
        "base": f"{server.url}/",
    }


@browser_test
async def test_the_browser_client_begins_with_the_newest_and_comes_back_behind_them(
    server: LiveServer, windows: Windows
) -> None:
    ids = [server.publish("news", str(number)) for number in (1, 2, 3)]
    page = await windows.open(server.url)
    await page.evaluate(
        """async () => {
          const { SSEPool } = await import("./ssepool.js");
          globalThis.seen = [];
          globalThis.feed = new SSEPool().subscribe({ topics: ["news"], lastEventId: "last=2" });
          feed.on("message", (data) => seen.push(data));
          feed.on("ssepool.gap", (data) => seen.push(data));
          const id = await new Promise((done) => feed.on("ssepool.open", (data) => done(data.connection)));
          globalThis.connection = id;
        }"""
    )
    await until(page, "() => seen.length === 2")
    assert await page.evaluate("() => feed.lastEventId") == ids[-1]
    connection = await page.evaluate("() => connection")
    assert server.request("DELETE", f"/connections/{connection}?seconds=0")[0] == 204
    for number in (4, 5):
        server.publish("news", str(number))
    await until(page, "() => seen.length >= 4")
    assert await page.evaluate("() => seen") == [2, 3, 4, 5]


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
async def test_the_demo_works_under_a_prefix(windows: Windows) -> None:
    with running([sys.executable, "-c", MOUNTED], r"running on (http\S*)") as server:
        url = f"{server.url}/sse"
        page = await windows.open(url)
        await say(page, "under a prefix")
        await hears(page, "under a prefix")
        await page.click("#job-start")
        await until(page, f"{PERCENT} >= 2")
        await expect(page.locator("#curl-subscribe")).to_contain_text(f"{url}/events?")


@browser_test
async def test_ten_thousand_slots_do_not_hold_the_page_up(windows: Windows) -> None:
    with serving("--pool-size", "10000") as server:
        page = await windows.open(server.url)
        await until(page, "document.querySelector('#n-size').textContent === '10,000'")
        slowest = await page.evaluate(
            """async () => {
              let slowest = 0;
              for (let frame = 0, last = performance.now(); frame < 60; frame += 1) {
                if (frame % 15 === 0) dispatchEvent(new Event("resize"));
                await new Promise(requestAnimationFrame);
                slowest = Math.max(slowest, performance.now() - last);
                last = performance.now();
              }
              return slowest;
            }"""
        )
        assert slowest < 500
        await say(page, "still here")
        await hears(page, "still here")


@browser_test
@pytest.mark.parametrize("width", [320, 390, 768, 1440, 2560])
async def test_the_page_fits_its_window(server: LiveServer, windows: Windows, width: int) -> None:
    page = await windows.open(server.url)
    await page.set_viewport_size({"width": width, "height": 844})
    await say(page, "x" * 500)
    await hears(page, "x" * 500)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


@browser_test
async def test_everything_that_can_be_pressed_has_a_name_and_is_reached_by_keyboard(
    server: LiveServer, windows: Windows
) -> None:
    page = await windows.open(server.url)
    visited: list[str] = []
    for _ in range(40):
        await page.keyboard.press("Tab")
        visited.append(await page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    for wanted in ("Skip to the chat", "leave", "chat-name", "chat-text", "job-start", "notice-text", "notice-level"):
        assert wanted in visited
    nameless = await page.evaluate(
        """[...document.querySelectorAll("button, a, input, select")]
             .filter((node) => !(node.labels?.length || node.textContent.trim() || node.ariaLabel))
             .map((node) => node.outerHTML)"""
    )
    assert nameless == []


# The routes alone


class Quiet:
    """An engine that takes events and does nothing with them."""

    async def publish_many(self, events: list[Event]) -> list[str]:
        return ["1"] * len(events)


@pytest.fixture
def client() -> Iterator[TestClient]:
    door = Door([Everybody()], wall_clock=time.time)
    routes = [*pages.routes(), *demo.routes(Quiet(), Budget(), door)]  # type: ignore[arg-type]
    app = Starlette(routes=routes, exception_handlers=handlers)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/demo", "text/html; charset=utf-8"),
        ("/demo/demo.css", "text/css; charset=utf-8"),
        ("/demo/demo.js", "text/javascript; charset=utf-8"),
        ("/web/base.css", "text/css; charset=utf-8"),
        ("/ssepool.js", "text/javascript; charset=utf-8"),
    ],
)
def test_files_have_their_type_and_are_sent_again_only_when_changed(
    client: TestClient, path: str, content_type: str
) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == content_type
    assert "default-src 'none'" in response.headers["content-security-policy"]
    again = client.get(path, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_page_has_no_script_or_style_of_its_own_and_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/demo").text
    assert re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=|https?://(?!www\.w3\.org/2000/svg)", page) is None


def test_a_job_of_a_tab_that_runs_already_is_not_started_again(client: TestClient) -> None:
    first = client.post("/demo/jobs", json={"tab": "a-b_1"})
    again = client.post("/demo/jobs", json={"tab": "a-b_1"})
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()


def test_jobs_beyond_the_bound_are_refused(client: TestClient) -> None:
    for tab in range(demo.MAX_JOBS):
        assert client.post("/demo/jobs", json={"tab": str(tab)}).status_code == 202
    refused = client.post("/demo/jobs", json={"tab": "one-more"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_jobs")


async def test_a_job_reports_each_step_and_its_end_and_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "STEP_SECONDS", 0)
    published: list[Event] = []

    async def publish_many(events: list[Event]) -> None:
        published.extend(events)

    jobs = demo.Jobs(SimpleNamespace(publish_many=publish_many))  # type: ignore[arg-type]
    job, _ = jobs.start("tab")
    await jobs._running["tab"][1]
    assert {(event.topics, event.type) for event in published} == {(("demo/jobs/tab",), "progress")}
    reports = [json.loads(event.data) for event in published]
    assert [report["step"] for report in reports] == list(range(demo.JOB_STEPS + 1))
    assert reports[-1] == {"job": job, "percent": 100, "step": demo.JOB_STEPS, "done": True}
    assert jobs.start("tab")[1], "the tab may start another"
    await jobs._running["tab"][1]


@pytest.mark.parametrize(
    ("send", "status", "code"),
    [
        ({"json": {"tab": "../x"}}, 400, "invalid_job"),
        ({"json": {"tab": ""}}, 400, "invalid_job"),
        ({"json": {"tab": "x" * 65}}, 400, "invalid_job"),
        ({"json": {"tab": 5}}, 400, "invalid_job"),
        ({"json": {"tab": "x\n"}}, 400, "invalid_job"),
        ({"json": {}}, 400, "invalid_job"),
        ({"json": {"tab": "x", "more": 1}}, 400, "unknown_field"),
        ({"json": {"tab": "x"}, "params": {"more": 1}}, 400, "unknown_parameter"),
        ({"json": {"tab": "x" * 2000}}, 413, "body_too_large"),
        ({"content": "{", "headers": {"Content-Type": "application/json"}}, 400, "invalid_json"),
        ({"data": {"tab": "x"}}, 415, "unsupported_media_type"),
    ],
)
def test_a_bad_request_for_a_job_is_refused(client: TestClient, send: dict[str, Any], status: int, code: str) -> None:
    response = client.post("/demo/jobs", **send)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
