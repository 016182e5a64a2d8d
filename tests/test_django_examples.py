"""The Django project of `examples/django_notifications`, which docs/django.md explains, and Django under WSGI beside a
stand-alone hub."""

from __future__ import annotations

import http.cookiejar
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from django_site import free_port
from live import DEADLINE, TESTS, LiveServer, Stream, running, serve_command

EXAMPLES = TESTS.parent / "examples"
PROJECT = EXAMPLES / "django_notifications"
DOCS = (TESTS.parent / "docs" / "django.md").read_text("utf-8")
PREPARE = """
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("makemigrations", check=True, verbosity=0)
call_command("migrate", verbosity=0)
for name in "ann", "ben":
    User.objects.create_user(name, password=name)
"""


def test_the_code_of_the_documentation_is_that_of_the_example() -> None:
    blocks = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in blocks] == [
        "project/settings.py",
        "project/asgi.py",
        "project/urls.py",
        "notes/models.py",
    ]
    for name, code in blocks:
        assert code in (PROJECT / name).read_text("utf-8"), name


class Browser:
    """A user with cookies."""

    def __init__(self, server: LiveServer, user: str = "") -> None:
        self.server = server
        self.jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        if user:
            self.open("/login")
            assert self.post("/login", username=user, password=user) == 200

    def open(self, path: str, data: bytes | None = None) -> tuple[int, str]:
        try:
            with self._opener.open(self.server.url + path, data, DEADLINE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def post(self, path: str, **form: str | list[str]) -> int:
        token = {cookie.name: cookie.value for cookie in self.jar}.get("csrftoken", "")
        return self.open(path, urlencode({**form, "csrfmiddlewaretoken": token}, doseq=True).encode())[0]

    def listen(self, path: str = "/events/") -> Stream:
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.jar)
        return Stream(self.server, path=path, headers={"Cookie": cookies} if cookies else {})


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("notes") / "db.sqlite3"
    env = {**os.environ, "DATABASE": str(file)}
    subprocess.run([sys.executable, "manage.py", "shell", "-c", PREPARE], cwd=PROJECT, env=env, check=True, timeout=60)
    return file


@pytest.mark.parametrize("protocol", ["ssepool.uvicorn:Protocol", "httptools"])
def test_each_user_is_notified_of_what_has_been_committed_for_them(database: Path, protocol: str) -> None:
    command = ["uvicorn", "project.asgi:application", "--app-dir", str(PROJECT), "--http", protocol, "--port", "0"]
    with running([sys.executable, "-m", *command], r"running on (http\S*)", {"DATABASE": str(database)}) as server:
        ann, ben, nobody = Browser(server, "ann"), Browser(server, "ben"), Browser(server)
        with nobody.listen() as refused:
            assert refused.until(lambda s: s.status).status == 401
        with ann.listen().opened() as hers, ben.listen().opened() as his:
            assert ben.post("/notes", to=["ann", "nobody"], text="rolled back") == 404
            assert ben.post("/notes", to=["ann", "ben"], text="x" * 200) == 400
            assert nobody.post("/notes", to="ann", text="forged") == 403
            assert ben.post("/notes", to="ann", text="hello") == 204
            assert ann.post("/notes", to="ben", text="thanks") == 204
            hers.wait_data('{"text":"ben: hello"}')
            his.wait_data('{"text":"ann: thanks"}')
            assert hers.events[-1].type == "notification"
        status, page = ann.open("/")
        assert status == 200
        assert "ben: hello" in page and "rolled back" not in page and "thanks" not in page


@pytest.fixture
def wsgi(tmp_path: Path) -> Iterator[LiveServer]:
    env = {"BROKER": f"sqlite:///{tmp_path}/events.db", "PORT": str(free_port())}
    with running([sys.executable, "-m", "examples.django_wsgi_app"], r"running on (http\S*)", env) as server:
        yield server


@pytest.mark.parametrize("flags", [(), ("--no-detach",)], ids=["detached", "plain"])
def test_users_of_a_wsgi_project_stream_from_a_hub_beside_it(
    wsgi: LiveServer, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    place = ("--admin", f"unix:{tmp_path}/hub.sock", "--broker", f"sqlite:///{tmp_path}/events.db")
    with serve_command("--authorize-url", f"{wsgi.url}/sse-auth", *place, *flags) as hub:
        ann, ben = Browser(wsgi), Browser(wsgi)
        for browser, user, password in (ann, "ann", "red"), (ben, "ben", "blue"):
            assert browser.open("/login", urlencode({"user": user, "password": password}).encode())[0] == 204
        assert Browser(wsgi).open("/notes", b"text=forged")[0] == 401
        ann.server = ben.server = hub
        with ann.listen("/events?topic=users/ann").opened() as stream:
            with ben.listen("/events?topic=users/ann") as refused:
                assert refused.until(lambda s: s.status).status == 403
            ann.server = wsgi
            assert ann.open("/notes", b"text=Hello")[0] == 201
            stream.wait_data('{"text":"Hello"}')
