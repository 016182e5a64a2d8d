"""Addresses: which of them count as one source."""

from __future__ import annotations

import pytest

from ssepool.core.addresses import counted


@pytest.mark.parametrize(
    ("ip", "source"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::6", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("testclient", "testclient"),
        ("no:address", "no:address"),
    ],
)
def test_an_address_of_version_6_counts_by_its_network(ip: str, source: str) -> None:
    assert counted(ip) == source
