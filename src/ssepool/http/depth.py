"""Depth: how deep arrays and objects may stand inside each other in JSON that comes from strangers.

Whatever goes through a value afterwards may do so by recursion, with a stack that ends somewhere.
"""

from __future__ import annotations

from itertools import accumulate

MAX_DEPTH = 32
"""Arrays and objects inside each other at most."""
TOO_DEEP = f"is nested too deep; it takes {MAX_DEPTH} arrays and objects inside each other at most"
"""What a refusal says, behind the name of the value."""
LONG_BYTES = 400
"""From so many bytes on, brackets are looked for before they are counted."""

_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_MARKS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_STEPS = {ord("["): 1, ord("]"): -1}


def is_too_deep(text: bytes) -> bool:
    """Whether JSON, which is well formed, is nested deeper than `MAX_DEPTH`. Takes time in proportion to its length."""
    # Nearly all JSON has so few brackets that this is all that it costs.
    if len(text) <= 2 * MAX_DEPTH or (len(text) > LONG_BYTES and _has_hardly_any(text)):
        return False
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    return depth_of(text) > MAX_DEPTH


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


def depth_of(text: bytes) -> int:
    """How deep JSON, which is well formed, is nested; 0 for a text or a number."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # All brackets are square from here on. Two quotation marks in a row can go: where a text ends and the next one
    # begins, or the other way round, nothing changes for what stands around them.
    marks = text.translate(_SQUARE, _NO_MARKS).replace(b'""', b"")
    if b'"' in marks:
        marks = b"".join(marks.split(b'"')[::2])
    depth = 0
    # Each round takes the innermost pairs away. Where that takes little, the rest is counted one by one.
    while 4 * len(rest := marks.replace(b"[]", b"")) < 3 * len(marks):
        marks = rest
        depth += 1
    return depth + max(accumulate(map(_STEPS.__getitem__, marks)), default=0)
