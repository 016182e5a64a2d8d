"""Request bodies: a bound on their size, a list of media types, and JSON errors that name the place in the body."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
from starlette.requests import Request

from ssepool.config import KiB
from ssepool.core.topics import shown
from ssepool.http.budget import Budget, Share
from ssepool.http.depth import TOO_DEEP, TOO_MANY, has_too_many, is_too_deep
from ssepool.http.errors import APIError

JSON = "application/json"
"""The media type of JSON (RFC 8259, section 11)."""
FORM = "application/x-www-form-urlencoded"
"""The media type of a form (WHATWG URL, section 5)."""
MAX_START_SECONDS = 30.0
"""Seconds that a client has for a body in any case."""
MIN_BYTES_PER_SECOND = 16 * KiB
"""The slowest pace of a body: beyond `MAX_START_SECONDS` it has the time that its size takes at this pace."""
RETRY_SECONDS = 5
"""Seconds after which a client comes back whose body found no room, in `Retry-After`."""

TYPE_NAMES = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "an array",
    "object": "an object",
}
"""The names of msgspec's types in the messages of the hub."""

T = TypeVar("T")


@asynccontextmanager
async def read_body(request: Request, max_bytes: int, budget: Budget) -> AsyncIterator[bytes]:
    """As `read_share`, where what is made of the body takes little more than the body."""
    async with read_share(request, max_bytes, budget) as (body, _):
        yield body


@asynccontextmanager
async def read_share(request: Request, max_bytes: int, budget: Budget) -> AsyncIterator[tuple[bytes, Share]]:
    """The whole body of a request, of `max_bytes` bytes at most, and its share of `budget`. It counts there until the
    `async with` statement ends.

    Raises `APIError` (413) as soon as the declared or the received length exceeds `max_bytes`, `APIError` (408) if it
    takes the client longer than `seconds_for` its size, `APIError` (503) if the budget has no room for what has come,
    for all or for this address, and `ClientDisconnect` if the client leaves before it has sent everything.
    """
    with budget.share(request.client.host if request.client else None) as share:
        yield await _read(request, max_bytes, share), share


def seconds_for(size: int) -> float:
    """Seconds in which a body of so many bytes has to be there."""
    return MAX_START_SECONDS + size / MIN_BYTES_PER_SECOND


async def _read(request: Request, max_bytes: int, share: Share) -> bytes:
    length = request.headers.get("content-length", "")
    # As many digits are no length that any body could have, and Python takes its time over them.
    declared = (int(length) if len(length) <= 18 else max_bytes + 1) if length.isdecimal() else None
    if declared is not None and declared > max_bytes:
        raise _too_large(request, max_bytes)
    body = bytearray()
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(seconds_for(declared or 0)) as deadline:
            async for chunk in request.stream():
                if len(body) + len(chunk) > max_bytes:
                    raise _too_large(request, max_bytes)
                if not share.take(len(chunk)):
                    raise no_room(request)
                body += chunk
                if declared is None:
                    deadline.reschedule(began + seconds_for(len(body)))
    except TimeoutError:
        raise _too_slow(request, len(body), declared) from None
    return bytes(body)


def media_type(request: Request, *allowed: str) -> str:
    """The media type of the body, one of `allowed`, without its parameters.

    Raises `APIError` (415; RFC 9110, 15.5.16) for another type, a charset other than UTF-8, and a compressed body.
    """
    given = request.headers.get("content-type", "")
    name, *parameters = (part.strip() for part in given.lower().split(";"))
    charset = next((part[8:].strip("\"'") for part in parameters if part.startswith("charset=")), "utf-8")
    if name not in allowed or charset not in ("utf-8", "utf8"):
        message = f"Content-Type is {shown(given)}; it takes {', '.join(allowed)}, in UTF-8"
        raise APIError(415, "unsupported_media_type", message)
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        message = f"Content-Encoding is {shown(coding)}; bodies are taken as they are, without compression"
        raise APIError(415, "unsupported_media_type", message)
    return name


def decode(
    decoder: msgspec.json.Decoder[T],
    body: bytes,
    *,
    root: str,
    code: str,
    fields: tuple[str, ...] = (),
    spare: int = 0,
) -> T:
    """The value that `decoder` makes of a JSON body.

    `root` is the name of the body in messages; `code` is the error's code for a wrong value; `fields` are the names
    that an object may have. If the body is an array, its items are called `root` and an "s", with the index. The body
    may be nested `spare` levels deeper than `MAX_DEPTH`.

    Raises `APIError` (400); its message names the place in the body.
    """
    if has_too_many(body):
        raise APIError(400, "invalid_json", f"{root} {TOO_MANY}")
    if is_too_deep(body, spare):
        raise APIError(400, "invalid_json", f"{root} {TOO_DEEP}")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_value(str(error), root, code, fields) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise APIError(400, "invalid_json", f"{root} is not JSON in UTF-8: {error}") from None


def _wrong_value(text: str, root: str, code: str, fields: tuple[str, ...]) -> APIError:
    """The hub's refusal for an error of msgspec, such as ``Expected `str`, got `int` - at `$[3].id` ``."""
    found = re.fullmatch(r"(.*) - at `\$(.*)`", text, re.DOTALL)
    what, path = found.groups() if found else (text, "")
    place = f"{root}s{path}" if path.startswith("[") else root + path
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL):
        message = f"{place} has the unknown field {shown(found[1])}; it takes {', '.join(fields)}"
        return APIError(400, "unknown_field", message)
    if found := re.fullmatch(r"Object missing required field `(\w+)`", what):
        return APIError(400, code, f"{place}.{found[1]} is missing")
    if found := re.fullmatch(r"Expected `([\w |]+)`, got `(\w+)`", what):
        wanted = " or ".join(TYPE_NAMES.get(name, name) for name in found[1].split(" | "))
        return APIError(400, code, f"{place} is {TYPE_NAMES.get(found[2], found[2])}; it takes {wanted}")
    return APIError(400, code, f"{place}: {what}")


def _too_large(request: Request, max_bytes: int) -> APIError:
    message = f"the body exceeds {max_bytes} bytes, which is the most that {request.url.path} takes"
    return APIError(413, "body_too_large", message, _goodbye(request))


def _too_slow(request: Request, size: int, declared: int | None) -> APIError:
    seconds = seconds_for(size if declared is None else declared)
    message = (
        f"{size} bytes of the body came in {seconds:.0f} s; it takes all of it within {MAX_START_SECONDS:g} s and one "
        f"more for each {MIN_BYTES_PER_SECOND} bytes"
    )
    return APIError(408, "request_timeout", message, _goodbye(request))


def no_room(request: Request) -> APIError:
    """The refusal of a body for which the budget has no room."""
    message = "other bodies that are under way, of all or of this address, leave no room for this one; come back later"
    return APIError(503, "too_many_bodies", message, {"Retry-After": str(RETRY_SECONDS), **_goodbye(request)})


def _goodbye(request: Request) -> dict[str, str]:
    """A header field that ends the connection. Else the server would read the rest of the body to throw it away."""
    # HTTP/2 has no such field (RFC 9113, 8.2.2); there the server resets the one stream.
    return {"Connection": "close"} if request.scope.get("http_version", "1.1").startswith("1") else {}
