from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ssepool.errors import (
    BrokerError,
    ConfigError,
    ConnectionReleased,
    EventTooLarge,
    InvalidEvent,
    InvalidTopic,
    PoolClosed,
    PoolFull,
    PoolTimeout,
    SSEPoolError,
)
from ssepool.http.errors import APIError, error_reply, handlers, translate


async def ask(error: Exception | None, method: str = "GET", path: str = "/") -> httpx.Response:
    """What an application with our handlers answers where an endpoint raises."""

    async def endpoint(request: Request) -> Response:
        if error is not None:
            raise error
        return PlainTextResponse("hello")

    routes = [Route("/", endpoint, methods=["GET"]), Route("/", endpoint, methods=["POST"])]
    transport = httpx.ASGITransport(Starlette(routes=routes, exception_handlers=handlers), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://hub") as http:
        return await http.request(method, path)


@pytest.mark.parametrize(
    ("cls", "status", "code"),
    [
        (ConfigError, 400, "invalid_setting"),
        (InvalidEvent, 400, "invalid_event"),
        (EventTooLarge, 413, "event_too_large"),
        (InvalidTopic, 400, "invalid_topic"),
        (PoolFull, 503, "pool_full"),
        (PoolTimeout, 503, "timed_out"),
        (PoolClosed, 503, "pool_closed"),
        (ConnectionReleased, 404, "not_found"),
        (BrokerError, 503, "broker_error"),
    ],
)
async def test_an_error_of_the_package_has_its_status_and_code(cls: type[Exception], status: int, code: str) -> None:
    answer = await ask(cls("size=1 open=1"))
    assert answer.status_code == status
    assert answer.json() == {"error": {"code": code, "message": "size=1 open=1"}}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"


def test_an_error_derived_from_one_of_the_package_is_answered_like_it() -> None:
    class Mine(PoolFull):
        pass

    assert translate(Mine("x")).code == "pool_full"
    assert translate(SSEPoolError("x")).status_code == 500


async def test_a_refusal_keeps_its_headers() -> None:
    answer = await ask(APIError(401, "invalid_token", "no", {"WWW-Authenticate": "Bearer"}))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json() == {"error": {"code": "invalid_token", "message": "no"}}


async def test_a_path_without_anything_is_named() -> None:
    answer = await ask(None, path="/nowhere")
    assert answer.status_code == 404
    assert answer.json() == {"error": {"code": "not_found", "message": "there is nothing at '/nowhere'"}}


async def test_a_wrong_method_is_answered_with_those_of_all_routes_of_the_path() -> None:
    answer = await ask(None, "DELETE")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    error = answer.json()["error"]
    assert error["code"] == "method_not_allowed"
    assert "'DELETE'" in error["message"] and "GET, HEAD, OPTIONS, POST" in error["message"]


async def test_options_says_what_a_path_takes() -> None:
    answer = await ask(None, "OPTIONS")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "GET, HEAD, OPTIONS, POST", b"")


async def test_another_http_exception_is_json_too() -> None:
    answer = await ask(HTTPException(418, "short and stout"))
    assert answer.status_code == 418
    assert answer.json() == {"error": {"code": "im_a_teapot", "message": "short and stout"}}


async def test_a_defect_is_answered_in_json_that_does_not_tell_it() -> None:
    answer = await ask(ZeroDivisionError("secret"))
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text


async def test_a_client_that_left_is_no_fault() -> None:
    assert (await ask(ClientDisconnect())).status_code == 400  # and nothing was raised


def test_a_message_that_json_cannot_carry_is_still_answered() -> None:
    assert b"\\\\udc80" in error_reply(400, "x", "\udc80").body
