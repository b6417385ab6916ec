"""Any bytes at all as a list, an archive or a report: never a traceback, never a wrong path."""

from __future__ import annotations

import io
import re
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.standin.mirror import make_tar
from utils.clip import Clip, Result, clip_name
from utils.download.archives import member_key
from utils.download.youtube_sections import find_index, read_index
from utils.errors import UserError
from utils.lists.reading import read_lists
from utils.report import RESULT_COLUMNS, ReportFile, read_known, read_report
from utils.web import BadTar, TarStream

NAME = re.compile(r"[A-Za-z0-9_-]{11}_\d{6}(_\d{6})?")
ODD = st.sampled_from(
    ["../../x", "/etc/x", "abcdefghijk", "-bcdefghijk", "00000000012", "NaN", "inf", "1e9", "-1"]
    + ['"', '""', "\x00", "\u202e", "\ufeff", "\n", "\r", ",", " ", "8", "10", "-5", "1" * 12, "٣"]
    + [";touch x", "$(touch x)", "%03d", "youtube_id", "time_start", "time_end", "label", "é"]
)
FIELD = st.one_of(ODD, st.text(max_size=12), st.integers().map(str), st.floats().map(str))
ROW = st.lists(FIELD, max_size=6).map(",".join)
HEADERS = st.sampled_from(
    [
        "youtube_id,time_start,time_end",
        "label,youtube_id,time_start,time_end,split",
        "video-id,start-time,end-time,label-name",
    ]
)


def at(content: bytes, use: Callable[[Path], None]) -> None:
    """`use` a file of that content; only a UserError of one line may come of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.csv"
        path.write_bytes(content)
        try:
            use(path)
        except UserError as error:
            assert "\n" not in str(error) and str(path) in str(error)
        assert [entry.name for entry in Path(folder).iterdir()] == ["file.csv"]


def look_at_lists(path: Path) -> None:
    lists = read_lists([path])
    for name, clip in lists.clips.items():
        assert NAME.fullmatch(name), name
        assert name == clip.name and name.startswith(clip.youtube_id)
    for refused in lists.refused:
        assert str(refused).isprintable()


@given(st.one_of(HEADERS, ROW), st.lists(ROW, max_size=8), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_list(header: str, rows: list[str], end: str) -> None:
    at(end.join([header, *rows]).encode(errors="surrogatepass"), look_at_lists)


@given(st.binary(max_size=300))
def test_any_bytes_as_a_list(content: bytes) -> None:
    at(content, look_at_lists)
    at(b"youtube_id,time_start,time_end\nabcdefghijk,1,2\n" + content, look_at_lists)


def look_at_report(path: Path) -> None:
    before = list(read_report(path, RESULT_COLUMNS))
    assert all(len(row) == len(RESULT_COLUMNS) for row in before)
    known = read_known(path)
    assert all(status in ("failed", "unavailable") for status, _, _ in known.reasons.values())
    with ReportFile(path, RESULT_COLUMNS) as report:
        report.append_result(Result.of(CLIP, "private", "youtube"))
    after = list(read_report(path, RESULT_COLUMNS))
    assert after[-1][5] == "private"  # the new line is whole, whatever stood before it
    assert read_known(path).reasons[CLIP.name][1] == "private"


CLIP = Clip("abcdefghijk_000001_000002", "abcdefghijk", 1.0, 2.0)
LINE = f"{CLIP.name},abcdefghijk,1,2,failed,network,youtube,1,1,0,x,2026-01-01T00:00:00Z"


@given(
    st.lists(st.one_of(ROW, st.just(LINE + ",x,2026-01-01T00:00:00Z")), max_size=6),
    st.binary(max_size=40),
)
def test_any_report(rows: list[str], torn: bytes) -> None:
    header = ",".join(RESULT_COLUMNS)
    text = "".join(f"{row}\n" for row in [header, *rows])
    at(text.encode(errors="surrogatepass") + torn, look_at_report)


@given(st.binary(max_size=300))
def test_any_bytes_as_a_report(content: bytes) -> None:
    at(content, look_at_report)


MEMBER = st.tuples(
    st.one_of(
        st.sampled_from(
            ["../a.mp4", "/etc/passwd", f"../../{CLIP.name}.mp4", f"a/{CLIP.name}.mp4", "x\ny.mp4"]
            + [f"._{CLIP.name}.mp4", f"{CLIP.name}.mp4/../../x.mp4", "\udcff.mp4", "a" * 300]
        ),
        st.text(min_size=1, max_size=30).filter(lambda name: "\x00" not in name),
    ),
    st.binary(max_size=700),
)


@given(st.lists(MEMBER, max_size=4), st.booleans(), st.data())
def test_any_archive(members: list[tuple[str, bytes]], zipped: bool, data: st.DataObject) -> None:
    """Damaged anywhere, cut off anywhere: told as such, and no name but a clip's comes out."""
    archive = bytearray(make_tar(members, zipped=zipped))
    for _ in range(data.draw(st.integers(0, 3))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(archive)))
    stream = io.BytesIO(bytes(archive[:end] if data.draw(st.booleans()) else archive))
    tar = TarStream(stream.read)
    whole = dict(members)
    try:
        for member in tar.members():
            if (key := member_key(member)) is None:
                continue
            file = io.BytesIO()
            tar.copy(file)
            assert len(file.getvalue()) == member.size <= len(archive) * 1100
            assert NAME.fullmatch(clip_name(*key))
            if not zipped and member.name in whole and bytes(archive) == make_tar(members):
                assert file.getvalue() == whole[member.name]
    except BadTar as error:
        assert "\n" not in str(error)


@given(st.binary(max_size=2000))
def test_any_bytes_as_an_archive(content: bytes) -> None:
    for start in (b"", b"\x1f\x8b", b"\x1f\x8b\x08\x00" + bytes(6)):
        tar = TarStream(io.BytesIO(start + content).read)
        with suppress(BadTar):
            assert all(member.size >= 0 for member in tar.members())


WORD = st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1))
FRAGMENT = st.tuples(WORD, WORD, st.sampled_from([0x9000_0000, 0x8000_0000, 0]))


@given(st.booleans(), WORD, WORD, WORD, st.lists(FRAGMENT, max_size=4), st.data())
def test_any_index_of_fragments(
    wide: bool, scale: int, earliest: int, skip: int, fragments: list[Any], data: st.DataObject
) -> None:
    """From a video server: what it lists lies behind it, in order; odd ones are not taken."""
    box = struct.pack(">B7x", wide)
    box += struct.pack(">IQQ" if wide else ">III", scale, earliest, skip)
    box += struct.pack(">xxH", len(fragments))
    box += b"".join(struct.pack(">III", *each) for each in fragments)
    head = b"\0\0\0\x08ftyp\0\0\0\x0amoov??"
    file = bytearray(head + struct.pack(">I4s", 8 + len(box), b"sidx") + box)
    whole: bool | None = bool(scale and fragments and not earliest)
    whole = whole and all(0 < size < 2**31 and time and key for size, time, key in fragments)
    for _ in range(data.draw(st.integers(0, 2))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
        whole = None
    index = read_index(bytes(file) + bytes(data.draw(st.integers(0, 50))))
    assert whole is None or whole == (index is not None)
    if index is not None:
        _, last = find_index(bytes(file)) or (0, 0)
        places, times = index.places, index.times
        assert places[0] >= last and places == sorted(set(places)) and times == sorted(set(times))
        assert len(places) == len(times) > 1
        assert index.window(0.0, times[-1]) == (places[0], places[-1])
        assert index.window(times[-1] + 1, times[-1] + 9) is None
