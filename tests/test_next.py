"""The `next:` lines of all scripts run as they stand, whatever the folders are called."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MakeSource
from tests.scripts import environment, next_commands, run, write_list
from tests.standin.server import StandIn

FOLDER = """it's a "set" of $HOME `x` & more"""


def test_download_and_its_next_command(standin: StandIn, tmp_path: Path) -> None:
    standin.add_dead("deaddeaddea", "removed")
    folder = tmp_path / FOLDER
    folder.mkdir()
    write_list(folder / "my list.csv", ["deaddeaddea,0,10"])
    words = ["-out", "--input_csv", "my list.csv", "--videos_per_hour", 0]
    words = [*words[1:], "--ytdlp_args", standin.ytdlp_args, "--", "-out"]
    done = run("download.py", *words, cwd=folder)
    (command,) = next_commands(done.err)
    assert command[-2:] == ["--", "-out"]
    assert command[-4:-2] == ["--retry", "unavailable"]
    standin.clear_log()
    line = next(line for line in done.err.splitlines() if line.startswith("next: "))
    again = subprocess.run(
        ["bash", "-c", line.removeprefix("next: ")],
        cwd=folder,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert again.returncode == 1, again.stderr
    assert "1 of 1 clip processed" in again.stderr and standin.requests()


def test_scripts_that_make_something_of_clips(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    (folder / "clips").mkdir(parents=True)
    (folder / "clips" / "abcdefghijk_000001_000003.mp4").write_text("broken")
    for script in ("frame_extract.py", "downscale_videos.py"):
        done = run(script, "clips", f"{script} out", cwd=folder)
        assert done.code == 1
        (command,) = next_commands(done.err)
        assert command[2:] == ["clips", f"{script} out"]


@pytest.mark.slow
def test_training_lists_of_every_format(source: MakeSource, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    (folder / "clips").mkdir(parents=True)
    rows = []
    for number, split in enumerate(["train", "train", "val"]):
        name = f"abcdefghij{number}"
        shutil.copyfile(source(seconds=2), folder / "clips" / f"{name}_000001_000003.mp4")
        rows.append(f"{name},1,3,a class,{split}")
    write_list(folder / "l.csv", rows, header="youtube_id,time_start,time_end,label,split")
    for name in ("slowfast", "mmaction2", "videomae", "jepa", "torchvision", "huggingface"):
        words = ["clips", f"lists {name}", "--input_csv", "l.csv", "--format", name]
        done = run("make_training_lists.py", *words, cwd=folder)
        if done.code == 0:
            next_commands(done.err)
        else:  # a framework whose lists are split at blanks, and which says so
            assert "white space or quotes" in done.err, done.err
    words = ["clips", "shards", "--input_csv", "l.csv", "--format", "webdataset"]
    done = run("make_training_lists.py", *words, cwd=folder)
    assert done.code == 0 and len(next_commands(done.err)) == 1
