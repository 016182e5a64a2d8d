"""docs/access.md is true: its recipes run as they stand there, and let nobody in who may not."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import jwt
import pytest

from live import TESTS, LiveServer, Stream
from written import PROTOCOLS, blocks, serve_code

ACCESS = (TESTS.parent / "docs" / "access.md").read_text("utf-8")
RECIPES = {
    code.splitlines()[0].removeprefix("# recipe: "): code
    for code in blocks(ACCESS, "Recipes", "python")
    if code.startswith("# recipe: ")
}
ANN, BEN = {"Cookie": "session=a-session"}, {"Cookie": "session=another"}
KEY = "the key of a provider, with 32 bytes and more"

DJANGO = """
import django, os
from django.conf import settings

settings.configure(
    SECRET_KEY="x" * 50,
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.dirname(__file__) + "/users.db"}},
)
django.setup()
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.core.management import call_command
from django.http import HttpResponse
from django.urls import path

call_command("migrate", verbosity=0)
for name in "ann", "ben":
    User.objects.create_user(name)


def enter(request, name):
    login(request, User.objects.get(username=name))
    return HttpResponse(status=204)


def leave(request):
    logout(request)
    return HttpResponse(status=204)


urlpatterns = [path("enter/<name>", enter), path("leave", leave)]
"""


@pytest.fixture(params=PROTOCOLS)
def http(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def status(server: LiveServer, query: str, headers: dict[str, str], prefix: str = "") -> int:
    with Stream(server, path=f"{prefix}/events?{query}", headers=headers) as stream:
        return stream.until(lambda s: s.status).status


def bearer(key: str = KEY, **claims: object) -> dict[str, str]:
    own = {"sub": "ann", "iss": "https://id.example.com/", "aud": "hub", "exp": int(time.time()) + 60, **claims}
    token = jwt.encode({name: value for name, value in own.items() if value is not None}, key, "HS256")
    return {"Authorization": f"Bearer {token}"}


def test_each_recipe_is_tried_here() -> None:
    assert sorted(RECIPES) == ["chat", "django", "job", "jwt"]


def test_the_sections_of_others_have_a_place() -> None:
    order = ["Recipes", "Tokens", "Asking your application", "Tickets", "Ends and revocation", "Administration"]
    headings = [line.removeprefix("## ") for line in ACCESS.splitlines() if line.startswith("## ")]
    assert headings[-len(order) :] == order


def test_django_users_have_their_own_topics_until_they_leave(tmp_path: Path, http: str) -> None:
    code = DJANGO + RECIPES["django"] + "\napp = application\n"
    with serve_code(code, tmp_path, http) as server:
        with Stream(server, path="/enter/ann") as stream:
            cookie = stream.until(lambda s: s.status).headers["set-cookie"].partition(";")[0]
        ann = {"Cookie": cookie}
        asked = [("topic=users/1", ann), ("topic=users/2", ann), ("topic=users/1", {}), ("topic=users/1", BEN)]
        assert [status(server, *one, "/sse") for one in asked] == [200, 403, 401, 401]
        assert server.request("GET", "/leave", headers=ann)[0] == 204
        assert status(server, "topic=users/1", ann, "/sse") == 401


def test_the_tokens_of_a_provider_count_if_they_are_whole(tmp_path: Path, http: str) -> None:
    code = RECIPES["jwt"].replace(
        '"the public key of your provider, or jwt.PyJWK(...).key; never one that the token names"', repr(KEY)
    )
    with serve_code(code, tmp_path, http) as server:
        assert status(server, "topic=users/ann", bearer()) == 200
        assert status(server, "topic=users/ben", bearer()) == 403
        for bad in (
            {},
            {"Authorization": "Bearer x"},
            bearer(iss="https://evil.example/"),
            bearer(aud="other"),
            bearer(exp=1),
            bearer(exp=None),
            bearer(sub=None),
            bearer(KEY[::-1]),
        ):
            assert status(server, "topic=users/ann", bad) == 401


def test_everybody_reads_the_news_and_members_their_rooms(tmp_path: Path, http: str) -> None:
    event = {"topic": "chat/2", "data": "hello"}
    with serve_code(RECIPES["chat"], tmp_path, http) as server:
        asked = [("topic=news", {}), ("topic=chat/2", {}), ("topic=news&topic=chat/1", ANN), ("topic=chat/1", BEN)]
        assert [status(server, *one) for one in asked] == [200, 401, 200, 403]
        with Stream(server, "news", "chat/2", headers=BEN).opened() as ben:
            assert server.request("POST", "/events", event, ANN)[0] == 201
            ben.wait_data("hello")
        for body, headers, refused in (
            (event, {}, 401),
            ({**event, "topic": "chat/1"}, BEN, 403),
            ({**event, "topic": "news"}, ANN, 403),
            ({**event, "private": False}, ANN, 403),
        ):
            assert server.request("POST", "/events", body, headers)[0] == refused


def test_a_job_tells_its_progress_to_its_user_alone(tmp_path: Path, http: str) -> None:
    with serve_code(RECIPES["job"], tmp_path, http) as server, contextlib.ExitStack() as streams:
        assert server.request("POST", "/jobs")[0] == 401
        code, answer = server.request("POST", "/jobs", headers=ANN)
        assert code == 202
        topic = f"topic={answer['topic']}"
        assert [status(server, topic, BEN, "/sse"), status(server, "pattern=*", BEN, "/sse")] == [403, 403]
        path = f"/sse/events?{topic}&last_event_id=earliest"
        ann = streams.enter_context(Stream(server, path=path, headers=ANN).opened())
        ann.wait_data(*(f'{{"percent":{percent}}}' for percent in range(0, 101, 20)))
