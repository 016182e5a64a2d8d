"""Depth: how deep arrays and objects may stand inside each other in JSON that comes from strangers.

Whatever goes through a value afterwards may do so by recursion, with a stack that ends somewhere. So the depth is known
before anything is made of the text: to make millions of arrays takes seconds.
"""

from __future__ import annotations

from ssepool.config import KiB

MAX_DEPTH = 32
"""Arrays and objects inside each other at most."""
TOO_DEEP = f"is nested too deep; it takes {MAX_DEPTH} arrays and objects inside each other at most"
"""What a refusal says, behind the name of the value."""
MAX_CONTAINERS = 500_000
"""Arrays and objects of one text at most: to make as many takes some 100 ms, and the garbage collector's time grows
faster than their number."""
TOO_MANY = f"has more than {MAX_CONTAINERS} arrays and objects, which is the most that it takes"
"""What a refusal says, behind the name of the value."""
PREFIX_BYTES = 64 * KiB
"""The beginning of a longer text is looked at first."""
LONG_BYTES = 400
"""From so many bytes on, brackets are looked for before they are counted."""

_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
# Where one object ends and the next one begins it gets no deeper. Batches of flat events are known by it.
_BESIDE = (b"},{", b"}, {", b"}\n{")
_OPEN = ord("[")


def is_too_deep(text: bytes, spare: int = 0) -> bool:
    """Whether JSON is nested deeper than `MAX_DEPTH` and `spare` levels more. Of what is not well formed, whether a
    parser would come so deep before it stops. Takes time in proportion to the length."""
    most = MAX_DEPTH + spare
    # Nearly all JSON has so few brackets that this is all that it costs.
    if len(text) <= 2 * MAX_DEPTH or (len(text) > LONG_BYTES and _has_hardly_any(text)):
        return False
    opened = text.count(b"[") + text.count(b"{")
    for beside in _BESIDE:
        if opened <= most:
            return False
        opened -= text.count(beside)
    if opened <= most:
        return False
    # What is deep in its beginning is known for it without a look at the rest.
    if len(text) > PREFIX_BYTES and is_too_deep(text[: max(PREFIX_BYTES, len(text) // 8)], spare):
        return True
    marks = _marks(text)
    # Each round takes the innermost pairs away.
    for _ in range(most):
        rest = marks.replace(b"[]", b"")
        if len(rest) == len(marks):
            break
        marks = rest
    return b"[]" in marks or marks.count(b"[") > most


def has_too_many(text: bytes) -> bool:
    """Whether there are more than `MAX_CONTAINERS` arrays and objects in JSON."""
    if len(text) <= 2 * MAX_CONTAINERS or text.count(b"[") + text.count(b"{") <= MAX_CONTAINERS:
        return False
    return _marks(text).count(b"[") > MAX_CONTAINERS


def count_items(text: bytes, most: int) -> int:
    """How many items that are arrays or objects there are in an array of JSON; at `most` counting ends."""
    found = depth = 0
    for mark in _marks(text):
        if mark == _OPEN:
            depth += 1
            if depth == 2:
                found += 1
                if found == most:
                    break
        else:
            depth -= 1
    return found


def _has_hardly_any(text: bytes) -> bool:
    """Whether there are fewer than a handful of brackets. To find them takes a tenth of the time of counting all."""
    left = 5
    for mark in (b"[", b"{"):
        place = text.find(mark)
        while place >= 0:
            left -= 1
            if not left:
                return False
            place = text.find(mark, place + 1)
    return True


def _marks(text: bytes) -> bytes:
    """The brackets of JSON that stand outside of its texts, all as square ones."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotation marks in a row can go: where a text ends and the next one begins, or the other way round, nothing
    # changes for what stands around them.
    marks = text.translate(_SQUARE, _NO_MARKS).replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2]) if b'"' in marks else marks
