"""GET /health/live and /health/ready."""

from __future__ import annotations

import httpx

from ssepool import Hub


async def ask(hub: Hub, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hub.dev_app), base_url="http://hub") as http:
        return await http.get(path)


async def test_a_hub_is_ready_only_while_its_pool_is_open() -> None:
    hub = Hub()
    seen = [(await ask(hub, "/health/ready")).status_code]
    await hub.open()
    seen.append((await ask(hub, "/health/ready")).status_code)
    hub.drain(0)
    seen.append((await ask(hub, "/health/ready")).status_code)
    await hub.close()
    answer = await ask(hub, "/health/ready")
    assert [*seen, answer.status_code] == [503, 200, 503, 503]
    assert answer.json()["error"] == {
        "code": "not_ready",
        "message": "the pool is closed; it takes clients only while it is open",
    }


async def test_a_hub_lives_in_every_state() -> None:
    hub = Hub()
    seen = [await ask(hub, "/health/live")]
    async with hub:
        seen.append(await ask(hub, "/health/live?from=a-probe"))
    seen.append(await ask(hub, "/health/live"))
    assert [(answer.status_code, answer.json()) for answer in seen] == [(200, {"status": "live"})] * 3
