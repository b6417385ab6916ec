"""The command line: help, one order of groups, the version, errors that name what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs_tables import parser_of
from tests.scripts import ROOT, run, run_here
from utils.cli import VERSION

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
SHARED = {"--dry_run", "--num_jobs", "--limit", "--ffmpeg", "--split", "--label", "--columns"}
LAST = ["how to run", "general", "rarely needed"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_fits_80_columns_and_ends_with_the_same_groups(script: str, tmp_path: Path) -> None:
    done = run_here(script, "--help", cwd=tmp_path)
    text = done.out
    assert done.code == 0 and f"python {script}" in text  # an example
    assert not [line for line in text.splitlines() if len(line) > 80]
    assert "default: none" not in text
    titles = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    found = [title for title in titles if title in LAST]
    assert found == [title for title in LAST if title in found] and "general" in found


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_version_line(script: str, tmp_path: Path) -> None:
    done = run(script, "--version", cwd=tmp_path)
    tools = "" if script == "load_frames.py" else r" yt-dlp [\d.]+, imageio-ffmpeg [\d.]+,"
    assert re.fullmatch(
        rf"{script} {re.escape(VERSION)} \(Python 3\.\d+\.\d+ on \w+,{tools}"
        r" PyAV [\d.]+, numpy [\d.]+\)\n",
        done.out,
    )
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert done.code == 0 and f"## {VERSION} " in changelog and script in changelog


def test_one_option_has_one_text() -> None:
    """What several scripts take is said in the same words, and has the same other names."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for script in SCRIPTS:
        for action in parser_of(script)._actions:
            for name in action.option_strings:
                if name in SHARED and script != "make_ava_kin_download_csv.py":
                    words = (*action.option_strings, str(action.metavar), action.help or "")
                    found.setdefault(name, set()).add(words)
    assert found.keys() == SHARED and all(len(each) == 1 for each in found.values()), found


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("download.py", ["out", "--inputcsv", "x"], "--inputcsv: no such option; did you mean"),
        ("download.py", ["out", "--input-cvs", "x"], "did you mean --input_csv?"),
        ("download.py", ["out", "--input_csv", "-list.csv"], "write ./-list.csv"),
        ("frame_extract.py", ["-clips", "out"], "write ./-clips"),
        ("frame_extract.py", ["in", "-2.mp4"], "write ./-2.mp4"),
        ("frame_extract.py", ["in", "-nice.mp4"], "write ./-nice.mp4"),
        ("frame_extract.py", ["in", "out", "--fps", "fast"], "--fps: 'fast' is not a rate"),
        ("frame_extract.py", ["in", "out", "--fps", "1e999999999"], "--fps: '1e999999999'"),
        ("frame_extract.py", ["in", "out", "-j", "0"], "--num_jobs: '0' is not a whole number"),
        ("make_report.py", ["--input_csv", "a.csv", "out"], "put the folder first"),
        ("download.py", ["--input_csv", "a.csv", "out", "--dry_run"], "put the folder first"),
        ("frame_extract.py", ["in", "out", "--window", "3"], "--window needs --key_frames"),
    ],
)
def test_errors_name_what_is_wrong(
    script: str, arguments: list[str], said: str, tmp_path: Path
) -> None:
    for name in ("-list.csv", "-clips", "-nice.mp4"):
        (tmp_path / name).touch()
    done = run_here(script, *arguments, cwd=tmp_path)
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert said in done.err


def test_only_what_swallowed_a_folder_is_blamed_for_it(tmp_path: Path) -> None:
    done = run_here("frame_extract.py", "--n", "3", "in", cwd=tmp_path)
    assert done.code == 2 and "output_dir" in done.err and "first" not in done.err
