"""The public class: its names are those of its page, and no others."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from parts import until
from ssepool import Connection, Hub, HubConfig, PoolConfig
from ssepool.core.event import EventFields
from ssepool.core.frames import DialectFields
from ssepool.core.grant import Grant
from ssepool.core.visit import Visit

PAGE = (Path(__file__).parents[1] / "docs" / "hub.md").read_text("utf-8")


def documented(text: str) -> set[str]:
    """The names in the first column of a page's tables."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)", cell)}


def public(cls: type[Any], *instances: object) -> set[str]:
    return {name for owner in (cls, *instances) for name in dir(owner) if not name.startswith("_")}


def test_the_hub_has_the_names_of_its_page_and_no_others() -> None:
    assert public(Hub, Hub()) == documented(PAGE)


def test_a_connection_has_the_names_of_the_page() -> None:
    [line] = re.findall(r"^A `Connection` has (.*)\.$", PAGE, re.MULTILINE)
    assert set(re.findall(r"`(\w+)", line)) <= public(Connection)


@pytest.mark.parametrize("method", [Hub.publish, Hub.response, Hub.stream, Hub.kick, Hub.drain])
def test_the_parameters_are_those_of_the_page(method: Any) -> None:
    [given] = re.findall(rf"`{method.__name__}\((.*?)\)`", PAGE)
    names = [name for name in re.split(r"[ ,*]+", given) if name]
    expected = [name for name in inspect.signature(method).parameters if name != "self"]
    fields = {"fields": EventFields, "wire": DialectFields}.get(expected[-1])
    if fields is not None:
        expected[-1:] = fields.__annotations__
    assert names == expected


def test_every_public_name_says_what_it_does() -> None:
    methods = [getattr(Hub, name) for name in public(Hub)]
    assert [method for method in methods if not inspect.getdoc(method)] == []


def test_there_is_one_class_of_that_name() -> None:
    sources = Path(inspect.getfile(Hub)).parent.rglob("*.py")
    assert sum(len(re.findall(r"^class Hub\b", path.read_text("utf-8"), re.MULTILINE)) for path in sources) == 1


def on(folder: Path) -> HubConfig:
    return HubConfig(broker=f"sqlite:///{folder}/events.db", pool=PoolConfig(size=1))


async def test_a_hub_that_opens_keeps_away_whom_the_others_keep_away(tmp_path: Path) -> None:
    visit = Visit(grant=Grant(subject="mallory"))
    async with Hub(on(tmp_path)) as one:
        first = one.parts.engine
        first.bans.add(visit.fingerprint, first.now() + 30)
        async with Hub(on(tmp_path)) as another:
            second = another.parts.engine
            await until(lambda: second.bans.contains(visit, second.now()))


async def test_a_hub_that_closes_does_not_wait_for_others_to_tell(tmp_path: Path) -> None:
    hub = Hub(on(tmp_path))
    await hub.open()
    assert hub._learning is not None
    assert not hub._learning.done()  # there is nobody else
    await hub.close()
    assert hub._learning.cancelled()


async def test_an_event_replaces_and_removes() -> None:
    async with Hub() as hub:
        window = hub.parts.engine.log.window

        def kept() -> list[tuple[str | None, bool]]:
            return [(entry.key, entry.removed) for entry in window.read(0, max_entries=9)]

        await hub.publish("t", 1, key="7")
        hub.publish_nowait("t", 2, key="7")
        await asyncio.to_thread(hub.publish_sync, "t", 3, key="8")
        await hub.publish_many([hub.event("t", 4, key="7")])
        assert kept() == [("8", False), ("7", False)]
        await hub.remove("t", "7")
        await asyncio.to_thread(hub.publish_sync, "t", "8", key="8", removed=True)
        assert kept() == [("7", True), ("8", True)]
