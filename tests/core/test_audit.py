"""The audit trail in virtual time: what is kept, and how much strangers can have written."""

from __future__ import annotations

import json
from typing import Any

from ssepool.core.audit import ALL_REFUSALS_PER_SECOND, MAX_ENTRIES, Entry, Trail
from ssepool.core.rates import BURST_SECONDS


def entry(time: float = 0.0, *, allowed: bool = True, ip: str | None = "10.0.0.1", **fields: Any) -> Entry:
    given: dict[str, Any] = {
        "action": "pool",
        "method": "POST",
        "path": "/pool/drain",
        "parts": {},
        "subject": None,
        "issuer": None,
        "token_id": None,
        "status": 202 if allowed else 401,
    }
    return Entry(time=time, allowed=allowed, ip=ip, **{**given, **fields})


def test_what_a_stranger_wrote_is_escaped() -> None:
    line = entry(subject="a\n\x1b[31m\u202e\x9b").line()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["subject"] == "a\n\x1b[31m\u202e\x9b"


def test_all_that_operators_do_is_written_down_and_the_last_of_it_kept() -> None:
    trail = Trail()
    for number in range(MAX_ENTRIES + 5):
        assert trail.add(entry(number), 0.0) is not None
    kept = trail.newest(2 * MAX_ENTRIES)
    assert [each.time for each in kept] == [float(time) for time in range(MAX_ENTRIES + 4, 4, -1)]
    assert [each.time for each in trail.newest(2)] == [MAX_ENTRIES + 4, MAX_ENTRIES + 3]


def test_one_address_has_ten_refusals_written_down_and_then_one_a_second() -> None:
    trail = Trail()
    written = [trail.add(entry(allowed=False), 0.0) for _ in range(100)]
    assert sum(each is not None for each in written) == BURST_SECONDS
    other = trail.add(entry(allowed=False, ip="10.0.0.2"), 0.0)
    assert other is not None
    assert other.passed_over == 90
    assert trail.add(entry(allowed=False), 0.5) is None
    again = trail.add(entry(allowed=False), 1.1)
    assert again is not None
    assert again.passed_over == 1


def test_addresses_of_one_network_are_one_and_all_together_have_a_bound() -> None:
    trail = Trail()
    network = [trail.add(entry(allowed=False, ip=f"2001:db8::{number:x}"), 0.0) for number in range(1, 50)]
    assert sum(each is not None for each in network) == BURST_SECONDS
    crowd = [trail.add(entry(allowed=False, ip=f"10.{n >> 8}.{n & 255}.1"), 0.0) for n in range(1000)]
    assert sum(each is not None for each in crowd) == ALL_REFUSALS_PER_SECOND * BURST_SECONDS - BURST_SECONDS


def test_strangers_do_not_push_out_what_operators_did() -> None:
    trail = Trail()
    trail.add(entry(1.0), 0.0)
    for second in range(3 * MAX_ENTRIES):
        trail.add(entry(2.0 + second, allowed=False), float(second))
    kept = trail.newest(5000)
    assert len(kept) == MAX_ENTRIES + 1
    assert kept[-1].time == 1.0


def test_what_comes_over_a_unix_socket_has_a_rate_too() -> None:
    trail = Trail()
    written = [trail.add(entry(allowed=False, ip=None), 0.0) for _ in range(100)]
    assert sum(each is not None for each in written) == BURST_SECONDS
