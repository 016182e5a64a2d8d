"""The fixtures of `live_fixtures`."""

from __future__ import annotations

from live_fixtures import (  # noqa: F401
    connect,
    expected_trouble,
    pytest_configure,
    pytest_generate_tests,
    server,
    shared,
    start,
    streams,
)
