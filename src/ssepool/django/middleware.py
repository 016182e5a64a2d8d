"""Middleware: what Django answers where a view meets an error of the hub."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from ssepool.errors import RequestError


class RequestErrors(MiddlewareMixin):
    """Answers an error of this package with its status, where Django would say 500: `InvalidTopic` is a 400, and
    `PoolClosed` a 503. For sync and async views; a transaction of the request is rolled back."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """The answer for an error that a view has raised; None for those of others."""
        if not isinstance(exception, RequestError):
            return None
        return HttpResponse(
            exception.detail,
            status=exception.status_code,
            headers=dict(exception.headers or {}),
            content_type="text/plain; charset=utf-8",
        )
