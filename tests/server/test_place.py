"""Where the Unix socket of administration is made and found: only where nobody else can put another."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from pathlib import Path

import pytest

from ssepool.errors import ConfigError
from ssepool.server import place
from ssepool.server.place import find_path, make_path, searched


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of this test alone: `user`, `system` and one in `temporary`, of which only the last is there."""
    (tmp_path / "temporary").mkdir(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(place, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "user"))


def own(tmp_path: Path) -> Path:
    return tmp_path / "temporary" / f"ssepool-{os.getuid()}"


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    with contextlib.chdir(path.parent):  # the whole of it is too long for a Unix socket
        listener.bind(path.name)
    return listener


def test_the_users_own_folder_comes_first_then_that_of_the_service_then_one_that_is_made(tmp_path: Path) -> None:
    assert make_path(8000) == own(tmp_path) / "ssepool-8000.sock"
    assert own(tmp_path).stat().st_mode & 0o777 == 0o700
    (tmp_path / "system").mkdir(0o755)
    assert make_path(8000) == tmp_path / "system" / "ssepool-8000.sock"
    (tmp_path / "user").mkdir(0o700)
    assert make_path(8001) == tmp_path / "user" / "ssepool-8001.sock"


@pytest.mark.parametrize("folder", ["user", "system"])
@pytest.mark.parametrize("fault", ["others write", "a link", "a file", "relative"])
def test_a_folder_that_is_not_safe_is_passed_over(
    folder: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / folder
    if fault == "others write":
        path.mkdir()
        path.chmod(0o770)
    elif fault == "a link":
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    elif fault == "a file":
        path.touch()
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", "elsewhere")
    assert make_path(8000).parent == own(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
@pytest.mark.parametrize("folder", ["user", "system"])
def test_a_folder_of_somebody_else_is_passed_over(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(0o755)
    os.chown(tmp_path / folder, 12345, 12345)
    assert make_path(8000).parent == own(tmp_path)


@pytest.mark.parametrize("fault", ["others read", "a link", "somebody else's", "a folder in which others move things"])
def test_a_made_folder_that_somebody_else_was_faster_with_is_refused(fault: str, tmp_path: Path) -> None:
    path = own(tmp_path)
    if fault == "others read":
        path.mkdir(0o755)
    elif fault == "a link":
        (tmp_path / "elsewhere").mkdir(0o700)
        path.symlink_to(tmp_path / "elsewhere")
    elif fault == "somebody else's":
        if os.geteuid() != 0:
            pytest.skip("only root gives folders away")
        path.mkdir(0o700)
        os.chown(path, 12345, 12345)
    else:
        path.parent.chmod(0o777)
    with pytest.raises(ConfigError, match=rf"is not safe in {path}: .*--admin unix:PATH names another"):
        make_path(8000)


def test_in_a_folder_for_everybody_where_each_has_his_own_it_is_safe(tmp_path: Path) -> None:
    own(tmp_path).parent.chmod(0o1777)
    assert make_path(8000).parent == own(tmp_path)


def test_where_no_folder_can_be_made_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"there is no place for the Unix socket of administration: .*--admin none"):
        make_path(8000)


def test_what_was_made_is_found_by_its_port(tmp_path: Path) -> None:
    assert find_path(8000) is None
    with listen(make_path(8000)):
        assert find_path(8000) == make_path(8000)
        assert find_path(8001) is None
    (tmp_path / "user").mkdir(0o700)
    (tmp_path / "user" / "ssepool-8000.sock").touch()  # no socket
    assert find_path(8000) == own(tmp_path) / "ssepool-8000.sock"
    assert str(find_path(8000)) in searched(8000)
    assert str(tmp_path / "user") in searched(8000)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives sockets away")
def test_a_socket_of_somebody_else_is_found_where_only_root_makes_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for folder in ("user", "system"):
        (tmp_path / folder).mkdir(0o755)
        with listen(tmp_path / folder / "ssepool-8000.sock"):
            os.chown(tmp_path / folder / "ssepool-8000.sock", 12345, 12345)
        assert find_path(8000) == (None if folder == "user" else tmp_path / folder / "ssepool-8000.sock")
