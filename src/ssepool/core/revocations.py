"""Revocations: grants that have been taken back before they ran out."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import islice, product
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from ssepool.core.grant import MAX_SUBJECT_CHARACTERS, Grant
from ssepool.core.topics import shown
from ssepool.errors import RevocationsFull

MIN_KEPT_SECONDS = 86_400.0
"""Seconds for which a revocation is kept, or longer where tokens may live longer: none that it covers is left then."""

MAX_REVOCATIONS = 50_000
"""Revocations that may be in force at a time: some 25 MB in each process."""

EXPIRE_SECONDS = 60.0
"""Seconds between two times that those are dropped which have run out; until then they are in force."""

Key = tuple[str | None, str | None, str | None]
"""Subject, issuer and token id; None stands for any."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What is taken back: the grants of which all that is said here is true."""

    subject: Annotated[str | None, Meta(description="Only grants of this subject.")] = None
    issuer: Annotated[str | None, Meta(description="Only grants of this issuer.")] = None
    token_id: Annotated[str | None, Meta(description="Only those that come from this token.")] = None
    issued_before: Annotated[
        float | None, Meta(description="Only those issued before this time, in seconds since the epoch.")
    ] = None
    until: Annotated[
        float, Meta(description="When it is forgotten, in seconds since the epoch: no such grant is left then.")
    ] = 0.0

    @classmethod
    def of(
        cls,
        *,
        subject: str | None,
        issuer: str | None,
        token_id: str | None,
        issued_before: float | None,
        now: float,
        max_token_age: float,
    ) -> Self:
        """A revocation from the time `now` on, in seconds since the epoch, where a token may live for `max_token_age`
        seconds. Raises `ValueError`."""
        for name, value in (("subject", subject), ("issuer", issuer), ("token_id", token_id)):
            if value is not None and not _is_name(value):
                allowed = f"it takes 1 to {MAX_SUBJECT_CHARACTERS} characters"
                raise ValueError(f"{name} {shown(value)} is not allowed: {allowed}")
        if subject is None and token_id is None:
            raise ValueError("a revocation takes a subject or a token_id: it says whose grants are taken back")
        kept = max(MIN_KEPT_SECONDS, max_token_age)
        latest = now + kept
        if issued_before is not None and not 0 <= issued_before <= latest:
            allowed = f"it takes seconds since the epoch, {latest:.0f} at most"
            raise ValueError(f"issued_before {issued_before!r} is not allowed: {allowed}")
        until = max(now, issued_before or 0.0) + kept
        return cls(subject=subject, issuer=issuer, token_id=token_id, issued_before=issued_before, until=until)

    @property
    def key(self) -> Key:
        """Whose grants it is about."""
        return self.subject, self.issuer, self.token_id

    @property
    def id(self) -> str:
        """Names it where it is kept. One of everything has another name than one of what was issued before a time, so
        that neither takes the place of the other."""
        return sha256(repr((self.key, self.issued_before is None)).encode()).hexdigest()[:32]

    def joined(self, other: Self) -> Self:
        """What takes back all that this one and another one of the same key do."""
        before = (self.issued_before, other.issued_before)
        widest = None if None in before else max(time for time in before if time is not None)
        return msgspec.structs.replace(self, issued_before=widest, until=max(self.until, other.until))


class Revocations:
    """Those that are in force. To ask about a grant takes as long however many there are."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Revocation] = {}
        self._expire_at = 0.0

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Revocation]:
        """In the order in which they came to be known."""
        return iter(self._by_key.values())

    def add(self, revocation: Revocation, most: int = MAX_REVOCATIONS) -> Revocation:
        """Take grants back, and return what is in force for them now. Raises `RevocationsFull` if there are `most`
        others: none is ever given up for another."""
        known = self._by_key.get(revocation.key)
        if known is None and len(self._by_key) >= most:
            raise RevocationsFull(f"{most} revocations are in force, which is the most; one more is not kept")
        joined = revocation if known is None else known.joined(revocation)
        self._by_key[revocation.key] = joined
        return joined

    def covers(self, grant: Grant) -> bool:
        """Whether this grant has been taken back. One that does not say when it was issued may be of any time."""
        if not self._by_key or (grant.subject is None and grant.token_id is None):
            return False
        for key in _keys(grant):
            found = self._by_key.get(key)
            if found is not None and (
                found.issued_before is None or grant.issued_at is None or grant.issued_at < found.issued_before
            ):
                return True
        return False

    def expire(self, now: float) -> None:
        """Forget those that have run out at this time, in seconds since the epoch."""
        if self._by_key and now >= self._expire_at:
            self._expire_at = now + EXPIRE_SECONDS
            self._by_key = {key: one for key, one in self._by_key.items() if one.until > now}

    def page(self, after: str | None, most: int) -> list[Revocation] | None:
        """The next ones behind the one with this id, or the first; None if it is not in force."""
        rest = iter(self)
        if after is not None and not any(one.id == after for one in rest):
            return None
        return list(islice(rest, most))


def _is_name(value: object) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_SUBJECT_CHARACTERS:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)  # which no JSON can carry


def _keys(grant: Grant) -> Iterator[Key]:
    """All keys under which this grant may have been taken back, but for those of everybody."""
    for subject, issuer, token_id in product({grant.subject, None}, {grant.issuer, None}, {grant.token_id, None}):
        if subject is not None or token_id is not None:
            yield subject, issuer, token_id
