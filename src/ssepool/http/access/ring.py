"""KeyRing: the keys of all issuers, from files, variables and addresses, and how they are kept fresh."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from ssepool.config import AccessConfig, KiB
from ssepool.core.topics import shown
from ssepool.errors import ConfigError
from ssepool.http.access.jwks import PREFIX as ADDRESS_PREFIX
from ssepool.http.access.jwks import Unavailable, fetch
from ssepool.http.access.keys import Key, jwks_of, key_of, read_keys

MAX_TRIED = 2
"""Keys that one token is tried with at most: two, so that a new key may come beside the old one."""
MAX_FILE_BYTES = 64 * KiB
"""Bytes of a file with keys at most."""
LOOK_SECONDS = 5.0
"""Seconds between two looks whether a file with keys has changed."""
REFRESH_SECONDS = 300.0
"""Seconds after which an address is asked for its keys again, less up to a tenth."""
FIRST_RETRY_SECONDS = 1.0
"""Seconds after which an address that did not answer is asked again; they double up to `REFRESH_SECONDS`."""
ENV_PREFIX = "env:"
"""What an entry of `token_keys` that names a variable begins with."""

logger = logging.getLogger("ssepool")

Fetch = Callable[[str], bytes]
"""Returns what is at an address. Blocks. Raises `Unavailable`."""


class KeySource:
    """One entry of `token_keys`: whose keys they are, and where they come from."""

    def __init__(self, issuer: str, place: str) -> None:
        self.issuer = issuer
        """Whose keys they are."""
        self.place = place
        """A path, `env:NAME` or an https address."""
        self._stamp: tuple[int, ...] | None = None

    @property
    def is_address(self) -> bool:
        """Whether the keys are fetched."""
        return self.place.startswith(ADDRESS_PREFIX)

    @property
    def path(self) -> Path | None:
        """The file; None if it is none."""
        return None if self.is_address or self.place.startswith(ENV_PREFIX) else Path(self.place)

    def has_changed(self) -> bool:
        """Whether the file is another one than at the last look."""
        if self.path is None:
            return False
        try:
            found = self.path.stat()
        except OSError:
            return self._stamp is not None  # `read` says what is wrong
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        before, self._stamp = self._stamp, stamp
        return stamp != before

    def read(self) -> list[Key]:
        """The keys of a file or a variable. Raises `ConfigError`."""
        if self.path is None:
            name = self.place.removeprefix(ENV_PREFIX)
            if not os.environ.get(name):
                raise ConfigError(f"token_keys names the variable {name}, which is not set")
            return read_keys(os.environ[name].encode("utf-8", "surrogateescape"), f"the variable {name}")
        try:
            with self.path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            why = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"token_keys names {shown(self.place)}, which cannot be read: {why}") from None
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError(f"{self.place} is too large for keys; it takes {MAX_FILE_BYTES} bytes")
        return read_keys(text, self.place)


def sources_of(config: AccessConfig) -> list[KeySource]:
    """The entries of `token_keys`: `PLACE`, or `ISSUER=PLACE` where there are several issuers. Raises
    `ConfigError`."""
    found = []
    for entry in config.token_keys:
        issuer = next((name for name in config.token_issuers if entry.startswith(f"{name}=")), None)
        if issuer is None and len(config.token_issuers) > 1:
            raise ConfigError(
                f"AccessConfig.token_keys: {shown(entry)} does not say which issuer's key it is; with several "
                f"token_issuers it takes ISSUER={entry:.80}"
            )
        place = entry if issuer is None else entry.removeprefix(f"{issuer}=")
        if place.startswith("http://"):
            raise ConfigError(f"AccessConfig.token_keys: {shown(place)} is not allowed; an address takes https")
        found.append(KeySource(issuer or config.token_issuers[0], place))
    return found


class KeyRing:
    """The keys of all issuers, found by issuer and id. A token that one issuer signed never passes as another's."""

    def __init__(self, sources: Sequence[KeySource], *, fetch: Fetch = fetch) -> None:
        """Reads files and variables; what is fetched comes with `watch`. Raises `ConfigError`."""
        self.version = 0
        """Changes whenever the keys do."""
        self.issuers = frozenset(source.issuer for source in sources)
        """Who may issue."""
        self._fetch = fetch
        self._keys: dict[KeySource, list[Key]] = {}
        self._by_id: dict[tuple[str, str], tuple[Key, ...]] = {}
        self._unnamed: dict[tuple[str, str], tuple[Key, ...]] = {}
        self._by_algorithm: dict[tuple[str, str], tuple[Key, ...]] = {}
        self._sources = sources
        for source in sources:
            if not source.is_address:
                source.has_changed()
                self._put(source, source.read())

    def find(self, issuer: str, id: str | None, algorithm: str) -> Sequence[Key]:
        """The keys that a token may be signed with, `MAX_TRIED` at most. A token that names none, or a key that has no
        name here, is tried with the first that have its algorithm."""
        if id is None:
            return self._by_algorithm.get((issuer, algorithm), ())
        named = self._by_id.get((issuer, id))
        if named is None:
            return self._unnamed.get((issuer, algorithm), ())
        if len(named) == 1 and named[0].algorithm == algorithm:  # as nearly always
            return named
        return [key for key in named if key.algorithm == algorithm]

    def signing(self, issuer: str) -> Key:
        """The first key of an issuer that tokens can be signed with. Raises `ConfigError`."""
        for source, keys in self._keys.items():
            for key in keys:
                if source.issuer == issuer and key.may_sign:
                    return key
        raise ConfigError(f"token_keys has no secret and no private key of the issuer {issuer!r} to sign with")

    @property
    def exposed(self) -> list[Path]:
        """The files with a key to sign with that others on this machine may read."""
        signing = [source for source, keys in self._keys.items() if any(key.may_sign for key in keys)]
        paths = [source.path for source in signing if source.path is not None]
        return [path for path in paths if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)]

    @property
    def missing(self) -> str | None:
        """Which keys have never come; None if all have."""
        for source in self._sources:
            if source not in self._keys:
                return f"the keys at {source.place} have not come yet"
        return None

    async def watch(self) -> None:
        """Keep the keys fresh until this is cancelled: read files that have changed, ask addresses now and again.

        What cannot be read or fetched leaves the keys of before. No request has anything fetched.
        """
        addresses = [source for source in self._sources if source.is_address]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_files())
            for source in addresses:
                group.create_task(self._ask(source))

    def look(self) -> None:
        """Read the files that have changed since the last look."""
        for source in self._sources:
            if source.has_changed():
                try:
                    self._put(source, source.read())
                    logger.info("the keys in %s have changed", source.place)
                except ConfigError as error:
                    logger.warning("the keys of before stay in use: %s", error)

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    async def _ask(self, source: KeySource) -> None:
        retry = FIRST_RETRY_SECONDS
        while True:
            try:
                text = await _in_thread(self._fetch, source.place)
                self._put(source, _fetched(text, source.place))
                retry, pause = FIRST_RETRY_SECONDS, REFRESH_SECONDS
            except (Unavailable, ConfigError) as error:
                logger.warning("the keys of before stay in use: %s", error)
                pause, retry = retry, min(2 * retry, REFRESH_SECONDS)
            # Many hubs that were started together do not ask together.
            await asyncio.sleep(pause * random.uniform(0.9, 1.0))

    def _put(self, source: KeySource, keys: list[Key]) -> None:
        """Raises `ConfigError` for a key that another issuer has, too: its tokens would pass as those of either."""
        for other, theirs in self._keys.items():
            shared = {key.material for key in keys} & {key.material for key in theirs}
            if other.issuer != source.issuer and shared:
                raise ConfigError(f"{source.place} has a key that the issuer {other.issuer!r} has, too")
        if _names(self._keys.get(source, [])) == _names(keys):
            return
        self._keys[source] = keys
        self._by_id = self._index(lambda issuer, key: (issuer, key.id))
        self._by_algorithm = self._index(lambda issuer, key: (issuer, key.algorithm))
        self._unnamed = self._index(lambda issuer, key: None if key.is_named else (issuer, key.algorithm))
        self.version += 1

    def _index(self, place: Callable[[str, Key], tuple[str, str] | None]) -> dict[tuple[str, str], tuple[Key, ...]]:
        found: dict[tuple[str, str], tuple[Key, ...]] = {}
        for source in self._sources:
            for key in self._keys.get(source, ()):
                at = place(source.issuer, key)
                if at is not None:
                    found[at] = (*found.get(at, ()), key)[:MAX_TRIED]
        return found


def _names(keys: Sequence[Key]) -> list[tuple[str, str, str]]:
    return [(key.id, key.algorithm, key.material) for key in keys]


def _fetched(text: bytes, where: str) -> list[Key]:
    """The keys of an address. One that does not fit is passed over: whoever runs it has others to serve as well."""
    found = []
    for jwk in jwks_of(text, where):
        try:
            key = key_of(jwk, where)
        except ConfigError as error:
            logger.info("a key is passed over: %s", error)
            continue
        if key is not None and key.algorithm != "HS256":  # a secret that everybody can fetch
            found.append(key)
    if not found:
        raise ConfigError(f"{where} has no key to check tokens with")
    return found


async def _in_thread(work: Callable[[str], bytes], argument: str) -> bytes:
    """What a function returns that blocks, in a thread that nobody waits for at the end of the program, as the loop's
    own threads are waited for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()

    def settle(result: bytes | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result or b"")

    def run() -> None:
        result, error = None, None
        try:
            result = work(argument)
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, daemon=True, name="ssepool keys").start()
    return await future
