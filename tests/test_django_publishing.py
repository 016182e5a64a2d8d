"""`ssepool.django` outside of a server: settings and their check, the command, and publishing from other processes."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_site import environment, prepared, run, serve_site, sqlite
from live import Stream
from ssepool import Event, PoolClosed


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return prepared(sqlite(tmp_path_factory.mktemp("django") / "db.sqlite3"))


def test_a_command_and_a_job_of_another_process_publish_over_the_broker(
    database: dict[str, Any], tmp_path: Path
) -> None:
    ssepool = {"hub": {"broker": f"sqlite:///{tmp_path}/events.db"}}
    with serve_site("detached", database, **ssepool) as server, Stream(server, path="/kinds/").opened() as stream:
        env = environment(database, **ssepool)
        flags = ("--type", "note", "--id", "own", "--retry", "1500", "--private", "--json")
        done = run("manage", "ssepool_publish", "sync", '{"a": 1}', *flags, env=env)
        assert (done.stdout, done.stderr) == ("own\n", "")
        stream.wait_data('{"a":1}')
        assert (stream.events[-1].type, stream.last_event_id, stream.retry) == ("note", "own", 1500)
        for flags in (("1", "--key", "7"), ("--key", "7", "--remove", "--type", "note")):
            assert not run("manage", "ssepool_publish", "sync", *flags, env=env).stderr
        stream.wait_data('{"a":1}', "1", "7")
        for flags, said in ((("--remove",), "needs a key"), (("1", "--key", ""), "key")):
            refused = run("manage", "ssepool_publish", "sync", *flags, env=env)
            assert refused.returncode and said in refused.stderr and "Traceback" not in refused.stderr
        done = run("job", env=env)
        assert done.returncode == 0, done.stderr
        expected = ["at once", "outer 1", "outer 2", "signal", *(f"many {number}" for number in range(20)), "end"]
        stream.until(lambda s: "end" in s.data)
        assert stream.data[3:] == expected


def test_where_nobody_would_hear_an_event_that_is_said(database: dict[str, Any]) -> None:
    done = run("manage", "ssepool_publish", "news", "hello", env=environment(database))
    assert done.returncode == 1
    assert "the hub is not open in this process" in done.stderr and "SSEPOOL['hub']['broker']" in done.stderr
    done = run("manage", "ssepool_publish", "news", "{", "--json", env=environment(database))
    assert "the data is not JSON" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("ssepool", "said"),
    [
        ({"pool": {"size": 0}}, "SSEPOOL: PoolConfig.size = 0 is not allowed"),
        ({"pool": {"sise": 1}}, "settings: [pool] has no setting 'sise'; there are size,"),
        ({"poll": {}}, "settings: [poll] is not a table of settings; there are pool,"),
        ({"server": {"port": 1}}, "settings of `ssepool serve`"),
        ({"hub": {"broker": "carrier-pigeon://"}}, "has the scheme 'carrier-pigeon'"),
        ({"authorize": "django_project.nowhere.who"}, "cannot be imported: No module named"),
        ({"authorize": 5}, "it takes a function, or its name"),
    ],
)
def test_the_check_of_the_settings_names_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, ssepool: dict[str, Any], said: str
) -> None:
    from django.conf import settings

    from ssepool.django.checks import check_settings

    if not settings.configured:
        settings.configure()
    monkeypatch.setattr(settings, "SSEPOOL", ssepool, raising=False)
    [error] = check_settings()
    assert error.id == "ssepool.E001"
    assert said in error.msg
    monkeypatch.setattr(settings, "SSEPOOL", {"pool": {"size": 5}, "authorize": "os.path.join"})
    assert check_settings() == []


def test_manage_check_says_it(database: dict[str, Any]) -> None:
    done = run("manage", "check", env=environment(database, pool={"max_waiting": -1}))
    assert done.returncode == 1
    assert "max_waiting = -1 is not allowed" in done.stderr


def test_a_thread_that_publishes_while_the_server_stops_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssepool.django import publishing

    loop = asyncio.new_event_loop()

    class Stuck:
        async def publish_many(self, events: list[Event]) -> list[str]:
            loop.stop()
            return await loop.create_future()

    monkeypatch.setattr(publishing, "process", lambda: SimpleNamespace(loop=loop, hub=Stuck()))
    monkeypatch.setattr(publishing, "LOOK_SECONDS", 0.01)
    server = threading.Thread(target=loop.run_forever)
    server.start()
    with pytest.raises(PoolClosed, match="has stopped"):
        publishing.publish("news", "hello")
    server.join()
    [stuck] = asyncio.all_tasks(loop)
    stuck.cancel()
    loop.run_until_complete(asyncio.gather(stuck, return_exceptions=True))
    loop.close()
