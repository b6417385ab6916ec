"""How finished files get their names, and what is never overwritten, followed or removed."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab import wait_for
from utils import files
from utils.errors import UserError
from utils.process import STOP


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "made"
    path.write_text("made")
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    path.write_text("mine")
    return path


@pytest.mark.parametrize("publish", [files.publish, files.publish_new])
def test_a_file_is_on_the_disk_before_it_has_its_name_and_then_its_folder(
    publish: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final, synced = tmp_path / "out" / "final", []
    final.parent.mkdir()
    sync = os.fsync

    def note(file: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{file}"), final.exists()))
        sync(file)

    monkeypatch.setattr(os, "fsync", note)
    publish(made, final)
    assert synced == [(str(made), False), (str(final.parent), True)]
    assert final.read_text() == "made" and not made.exists()


def without_links(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Hard links fail: all of them, or (EXDEV) those of files outside of temporary folders."""
    make = os.link

    def link(source: Any, target: Any, **more: Any) -> None:
        if number != errno.EXDEV or ".tmp" not in Path(source).parts:
            raise OSError(number, os.strerror(number))
        make(source, target, **more)

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("number", [None, errno.EPERM, errno.EXDEV])
def test_a_move_goes_over_no_file(
    number: int | None, made: Path, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a file system without hard links, and to another one."""
    if number:
        without_links(monkeypatch, number)
    with pytest.raises(FileExistsError):
        files.move_across(made, mine)
    assert (made.read_text(), mine.read_text()) == ("made", "mine")
    dangling = tmp_path / "dangling"
    dangling.symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        files.move_across(made, dangling)
    files.move_across(made, tmp_path / "free")
    assert (tmp_path / "free").read_text() == "made" and not made.exists()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"mine", "dangling", "free"}


@pytest.mark.parametrize("number", [None, errno.EXDEV])
def test_the_last_file_is_kept_if_another_run_removes_the_source(
    number: int | None, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number:
        without_links(monkeypatch, number)
    link = os.link

    def link_and_remove(source: Any, target: Any, **more: Any) -> None:
        link(source, target, **more)
        made.unlink()

    monkeypatch.setattr(os, "link", link_and_remove)
    files.move_across(made, tmp_path / "final")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"final": "made"}


def test_a_copy_that_does_not_hold_the_same_bytes_is_none(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though size and times agree."""
    copy = shutil.copy2

    def copy_badly(source: Path, target: Path, **more: Any) -> None:
        copy(source, target, **more)
        target.write_text("MADE")
        shutil.copystat(source, target)

    monkeypatch.setattr(shutil, "copy2", copy_badly)
    without_links(monkeypatch, errno.EXDEV)
    with pytest.raises(OSError, match="the same bytes"):
        files.move_across(made, tmp_path / "final")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_files_set_aside_have_names_of_their_own_and_go_through_no_link(tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    for text in ("first", "second"):
        (tmp_path / "a.mp4").write_text(text)
        files.set_aside(tmp_path / "a.mp4", aside)
    assert (aside / "a.mp4").read_text() == "first"
    assert (aside / "a.1.mp4").read_text() == "second"
    (tmp_path / "a.mp4").write_text("third")
    (tmp_path / "link").symlink_to(aside)
    with pytest.raises(UserError, match="is a link"):
        files.set_aside(tmp_path / "a.mp4", tmp_path / "link")
    assert (tmp_path / "a.mp4").read_text() == "third" and len(list(aside.iterdir())) == 2


def test_no_output_replaces_a_file_of_another_program(mine: Path, tmp_path: Path) -> None:
    files.check_ours(mine, "mi", "move it")
    files.check_ours(tmp_path / "free", "mi", "move it")
    with pytest.raises(UserError, match="mine is not a file of this script: move it"):
        files.check_ours(mine, "ours", "move it")


def test_only_folders_of_runs_are_cleared(tmp_path: Path) -> None:
    base = tmp_path / ".tmp"
    (base / "mine" / "deep").mkdir(parents=True)
    (base / "run-notes").write_text("mine")
    (base / "run-dead").mkdir()
    for path in base.iterdir():
        os.utime(path, (0, 0))  # without a sign of life for long
    with files.run_folder(tmp_path):
        pass
    assert sorted(path.name for path in base.iterdir()) == ["mine", "run-notes"]
    assert (base / "mine" / "deep").is_dir() and (base / "run-notes").read_text() == "mine"


def test_a_lock_is_not_taken_through_a_link(mine: Path, tmp_path: Path) -> None:
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / "run-r.csv.lock").symlink_to(mine)
    with pytest.raises(UserError), files.run_folder(tmp_path, ["r.csv"]):
        pass
    assert mine.read_text() == "mine"


def test_a_run_whose_temporary_folder_is_replaced_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BEAT_SECONDS", 0.05)
    try:
        with pytest.raises(UserError, match="no longer there"), files.run_folder(tmp_path):
            (tmp_path / ".tmp").rename(tmp_path / "aside")
            (tmp_path / ".tmp").mkdir()
            wait_for(STOP.is_set)
    finally:
        STOP.clear()


def test_a_run_of_another_machine_lives_as_long_as_it_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BEAT_SECONDS", 0.05)
    with files.run_folder(tmp_path) as workspace:
        os.utime(workspace, (0, 0))
        wait_for(lambda: workspace.stat().st_mtime > time.time() - 60)
