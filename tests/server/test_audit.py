"""Where a stand-alone hub writes its audit log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ssepool.errors import ConfigError
from ssepool.server.audit import LOGGER, written_to

log = logging.getLogger(LOGGER)


def test_a_file_is_for_its_user_alone_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text("{}\n")
    path.unlink()
    for number in range(2):
        with written_to(str(path)):
            log.info("%s", number)
    assert path.read_text() == "0\n1\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_put_away_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    with written_to(str(path)):
        log.info("old")
        path.rename(tmp_path / "audit.log.1")
        log.info("new")
    assert (path.read_text(), (tmp_path / "audit.log.1").read_text()) == ("new\n", "old\n")


def test_standard_output_has_the_lines_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with written_to("-"):
        log.info("%s", '{"a": 1}')
    assert capsys.readouterr().out == '{"a": 1}\n'


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with written_to("none"):
        assert not log.isEnabledFor(logging.INFO)
    with written_to(str(tmp_path / "audit.log")):
        assert log.isEnabledFor(logging.INFO)
    assert (log.handlers, log.level) == ([], logging.NOTSET)


def test_where_it_cannot_be_written_it_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"the audit log cannot be written to .*: No such file"),
        written_to(str(tmp_path / "there/is/nothing")),
    ):
        pass
