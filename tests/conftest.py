"""What holds for all tests: no setting of the developer's own shell, hypothesis without deadlines, a browser, the
servers of brokers, a small disk, and the order of files."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

import pytest
from hypothesis import settings

from disk_fixtures import small_disk  # noqa: F401 a disk that a test may fill
from order import ordered
from pattern_fixtures import compiled  # noqa: F401
from service_fixtures import services  # noqa: F401 a server of each kind
from windows import browser, windows  # noqa: F401 the fixtures of tests in a browser

# Deadlines measure the machine, and CI's is shared; a failure there has to be one that can be run again from its log.
settings.register_profile("ssepool", deadline=None, print_blob=True)
settings.load_profile("ssepool")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove all `SSEPOOL_*` variables, which the command line and `config.load` would obey."""
    for name in [name for name in os.environ if name.startswith("SSEPOOL_")]:
        monkeypatch.delenv(name)


@pytest.hookimpl(trylast=True)  # after pytest-randomly, which shuffles files too
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first; the tests of a file stay as they are, in random order."""
    here = Path(__file__).parent
    items[:] = ordered(items, lambda item: PurePath(item.path).relative_to(here))
