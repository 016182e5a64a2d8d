"""Middleware of both kinds, which sees a stream's head as any other response's."""

from __future__ import annotations

from collections.abc import Callable

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware


class Sync:
    """Knows sync code alone, so Django runs it, and holds it, in a thread."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response["X-Seen"] = f"{response.status_code} {response['Content-Type']}"
        response["Access-Control-Allow-Origin"] = "https://friend.example"
        if "X-Stop" in request.headers:
            return HttpResponse("not you", status=403)
        if "X-Teapot" in request.headers:
            response.status_code = 418
        return response


@sync_and_async_middleware
def either_way(get_response: Callable) -> Callable:
    if not iscoroutinefunction(get_response):
        return get_response

    async def middleware(request: HttpRequest) -> HttpResponse:
        response = await get_response(request)
        response.set_cookie("visited", "yes")
        return response

    return middleware
