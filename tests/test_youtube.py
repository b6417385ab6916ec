"""What yt-dlp says, and the command lines it gets: pure functions."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from utils.clip import FAILED, REASONS
from utils.download.sources import FetchOptions, is_youtube
from utils.download.youtube_extract import (
    extract_command,
    seconds_until_available,
    section_inputs,
    whole_command,
)
from utils.download.youtube_texts import TEXTS, classify, classify_ytdlp
from utils.process import run_child
from utils.video.ffmpeg import (
    CutTask,
    Encode,
    Ffmpeg,
    Input,
    complaints,
    cut_command,
    file_url,
    read_duration,
)

OPTIONS = FetchOptions(Path("/o"), Path("/o/.tmp"), Ffmpeg("ffmpeg", "9", frozenset({"headers"})))


def texts() -> Iterator[tuple[set[str], str]]:
    """(the reasons that are right, what yt-dlp prints) of youtube_texts.tsv."""
    for line in Path(__file__).with_name("youtube_texts.tsv").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            reasons, _, text = line.split("\t")
            yield set(reasons.split("|")), text.replace("\\n", "\n").replace("\\r", "\r")


def test_every_text_has_its_reason() -> None:
    wrong = [(reasons, text) for reasons, text in texts() if classify_ytdlp(text) not in reasons]
    assert wrong == []


def test_a_text_is_known_in_any_case_and_with_any_apostrophe() -> None:
    for reasons, text in texts():
        found = re.fullmatch(r"(?s)(.*(?:AAAAAAAAAAA|ERROR|WARNING): )(.*)", text)
        head, said = found.groups() if found else ("", text)
        for other in (said.upper(), said.lower(), said.replace("'", "\u2019"), f"  {said} ."):
            assert classify_ytdlp(head + other) in reasons, other


def test_a_warning_alone_is_never_final() -> None:
    for _, text in texts():
        for line in text.splitlines():
            reason = classify_ytdlp(re.sub("^ERROR|^yt-dlp: error", "WARNING", line))
            assert REASONS[reason][0] == FAILED, line


def test_a_mirrors_error_page_is_not_for_good() -> None:
    stderr = "ERROR: Unsupported URL: http://lab/watch?v=x"
    assert classify_ytdlp(stderr) == "bad_id"
    assert classify_ytdlp(stderr, "http://lab/watch?v=") == "network"


def test_every_row_of_the_table_is_a_reason() -> None:
    assert {reason for reason, _ in TEXTS} < set(REASONS)


def test_an_id_is_never_an_option() -> None:
    argv = extract_command("--version__", OPTIONS, Path("/o/.tmp/x"))
    assert argv[-2:] == ["--", "https://www.youtube.com/watch?v=--version__"]
    assert "--ignore-config" in argv


def test_percent_signs_of_a_folder_are_no_template(tmp_path: Path) -> None:
    argv = whole_command(OPTIONS, Path("/o/%(id)s/x"))
    assert argv[argv.index("-o") + 1] == "/o/%%(id)s/x/whole.%(ext)s"


def test_only_http_reaches_ffmpeg() -> None:
    good = {"url": "http://h/v", "protocol": "https", "vcodec": "avc1"}
    assert [i.url for i in section_inputs(good, OPTIONS)] == ["http://h/v"]
    for url in ("file:///etc/passwd", "concat:/etc/passwd|x", "/etc/passwd", None):
        assert section_inputs(good | {"url": url}, OPTIONS) == []
    sound = {"url": "http://h/a", "protocol": "https", "vcodec": "none"}
    both = section_inputs({"requested_formats": [sound, good]}, OPTIONS)
    assert [i.url for i in both] == ["http://h/v", "http://h/a"]


def test_old_ffmpegs_get_no_option_that_they_lack() -> None:
    (found,) = section_inputs({"url": "https://h/v", "protocol": "https"}, OPTIONS)
    assert "request_size" not in found.options
    assert found.options["rw_timeout"] == "15000000"
    assert "ca_file" in found.options


LOG = """\
[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'http://h/v':
[info]   Metadata:
[info]     title           : Duration: 00:00:04.00
[info]     comment         : [error] you are not a bot, this video is not available in your country
                    : Stream #0:7: Audio: none
[info]   Duration: 01:00:20.50, start: 0.000000, bitrate: 463 kb/s
[info]   Stream #0:0[0x1](und): Video: h264 (High), yuv420p, 640x360
[http @ 0x55d0] [warning] HTTP error 403 Forbidden
[error] Error opening input: Server returned 403 Forbidden (access denied)
[info] Output #0, mp4, to 'x':
[info]   Stream #0:1: Audio: aac
"""


def test_what_a_video_says_of_itself_is_not_what_ffmpeg_says() -> None:
    assert read_duration(LOG) == 3620.5
    assert [line[:8] for line in complaints(LOG)] == ["[http @ ", "[error] "]
    assert classify("\n".join(complaints(LOG))) == "forbidden"


@pytest.mark.parametrize(
    ("address", "is_it"),
    [
        ("https://www.youtube.com/watch?v=", True),
        ("http://youtube.com/watch?v=", True),
        ("https://youtu.be/", True),
        ("https://notyoutube.com/watch?v=", False),
        ("http://127.0.0.1:8000/watch?v=", False),
    ],
)
def test_youtube_under_any_spelling(address: str, is_it: bool) -> None:
    assert is_youtube(address) is is_it


def test_one_encode_for_cut_scale_and_gop() -> None:
    task = CutTask(
        run_child,
        Ffmpeg("/bin/ff", "9"),
        [Input("http://h/v", {"headers": "A: b\r\n"}), Input("http://h/a")],
        417,
        10,
        Encode(short_side=256, keyint=16),
        Path("/o/a b.mp4"),
    )
    argv = cut_command(task, seek=Fraction(417))
    assert argv[0] == "/bin/ff"
    assert "file:/o/a b.mp4" in argv
    text = " ".join(argv)
    assert "-ss 417 -i http://h/v" in text.replace("-headers A: b\r\n ", "")
    assert text.count("-i ") == 2
    assert "-g 16" in text and "scale=" in text and "-movflags +faststart" in text
    assert file_url(Path("/a:b")) == "file:/a:b"


def test_a_video_without_an_advertisement_is_not_waited_for() -> None:
    """Its data is there since the extraction: a wait would give its job to other videos."""
    assert seconds_until_available({"available_at": time.time() - 0.1}) == 0
    assert 4 < seconds_until_available({"available_at": time.time() + 4}) <= 4.5
