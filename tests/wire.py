"""The grammar of what the hub writes, for tests that look at a stream's bytes and not at decoded events."""

from __future__ import annotations

import re

# Fields in this order, each at most once but for data; LF only; one blank line behind (DESIGN, "On the wire").
FRAME = re.compile(
    rb"(?:id: [!-~]{1,128}\n)?(?:event: [^\r\n\0]+\n)?(?:retry: [0-9]+\n)?(?:data: [^\r\n]*\n)+\n", re.DOTALL
)
COMMENT = re.compile(rb": [^\r\n]*\n")


def check(raw: bytes, *, complete: bool = True) -> tuple[list[bytes], list[bytes]]:
    """Frames and comments of a stream; fails at the first byte that belongs to neither.

    A stream that was cut off by its client may end within a frame: `complete=False`.
    """
    frames: list[bytes] = []
    comments: list[bytes] = []
    place = 0
    while place < len(raw):
        if found := COMMENT.match(raw, place):
            comments.append(found[0])
        elif found := FRAME.match(raw, place):
            frames.append(found[0])
        else:
            if not complete and b"\n\n" not in raw[place:]:
                break
            raise AssertionError(f"neither frame nor comment at byte {place}: {raw[place : place + 200]!r}")
        place = found.end()
    return frames, comments
