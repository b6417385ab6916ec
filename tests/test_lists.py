"""Every form of list that is read, with the facts of published lists in synthetic rows; and what is
refused, with its reason."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scripts import ROOT, Done, run, run_here
from utils.errors import UserError
from utils.lists.ava import read_label_map
from utils.lists.reading import ClipLists, Selection, find_lists, read_lists

ID, ME = "-bcdefghijk", "abcdefghij_"
CAPTION = "é" * 70_000  # a cell of 140,000 characters: csv's limit is 131,072


def segments(**more: object) -> dict[str, object]:
    """A video as ActivityNet describes it: its duration is a text."""
    return {"duration": "82.75", "subset": "validation", "url": "https://www.youtube.com/", **more}


def panda(spans: object, captions: object) -> str:
    cells = (f'"{value}"' for value in (spans, captions, [0.4, 0.5]))
    return f"{ID},https://www.youtube.com/watch?v={ID},{','.join(cells)}\n"


# name -> (content, the clips as (id, start, end, label, split))
FORMS: dict[str, tuple[str, list[tuple[str, float, float, str, str]]]] = {
    "hacs.csv": (
        f"classname,youtube_id,subset,start,end,label\nArchery,{ID},training,15.0,17.0,1\n"
        f"Archery,{ID},testing,15.5,17.5,-1\n",
        [(ID, 15, 17, "Archery", "train"), (ID, 15.5, 17.5, "Archery", "test")],
    ),
    "countix.csv": (
        "video_id,class,kinetics_start,kinetics_end,repetition_start,repetition_end,count\n"
        f"{ID},battle rope training,0,10,0.5,7,17\n",
        [(ID, 0, 10, "battle rope training", "")],
    ),
    "internvid.csv": (
        "YoutubeID,Start_timestamp,End_timestamp,Caption\n"
        f'{ID},00:02:03.400,01:02:08.9,"A man, a plan"\n',
        [(ID, 123.4, 3728.9, "", "")],
    ),
    "panda.csv": (
        "videoID,url,timestamp,caption,matching_score\n"
        + panda([["0:00:00.000", "0:00:04.004"], ["0:01:02", "0:01:05"]], [CAPTION, "b"]),
        [(ID, 0, 4.004, "", ""), (ID, 62, 65, "", "")],
    ),
    "audioset.csv": (
        "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2, num_segs=2\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        f'{ID}, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n{ME}, 0.000, 10.000, "/m/09x0r"\n',
        [(ID, 30, 40, "/m/09x0r,/t/dd00088", ""), (ME, 0, 10, "/m/09x0r", "")],
    ),
    "vggsound.csv": (
        f'{ID},30,"playing bongo, loudly",train\n{ME},0,people,test\n',
        [(ID, 30, 40, "playing bongo, loudly", "train"), (ME, 0, 10, "people", "test")],
    ),
    "vggsound_test.csv": (
        f'{ID}_000300.mp4,dog barking\n{ME}_000030.mp4,"a, b"\n',
        [(ID, 300, 310, "dog barking", "test"), (ME, 30, 40, "a, b", "test")],
    ),
    "avspeech.csv": (f"{ID},12.345678,15.5,0.53,0.21\n", [(ID, 12.345678, 15.5, "", "")]),
    "ava_speech.csv": (
        f"{ID},900.00,902.5,NO_SPEECH\n{ID},902.5,903.5,CLEAN_SPEECH\n",
        [(ID, 900, 902.5, "NO_SPEECH", ""), (ID, 902.5, 903.5, "CLEAN_SPEECH", "")],
    ),
    "pandas.csv": (
        "youtube_id,time_start,time_end\nabcdefghij_,7.5440000000000005,9.000000000000001\n",
        [(ME, 7.544, 9, "", "")],
    ),
    "sheet.csv": (
        f'\ufeffsep=;\r\nVideo-ID;START Time;End_Time;Label;;\r\n{ID};1,5;3;"a;b";;\r\n'
        f"'{ME};1:02:03;1:02:05.5;x\r\n",
        [(ID, 1.5, 3, "a;b", ""), (ME, 3723, 3725.5, "x", "")],
    ),
    "urls.tsv": (
        "url\tstart\tend\n"
        f"https://www.youtube.com/watch?v={ID}&t=3s\t1\t2\nhttps://youtu.be/{ME}?si=x\t1\t2\n"
        f"https://m.youtube.com/watch?list=P&v={ID}\t2\t3\nyoutube.com/shorts/{ME}\t2\t3\n"
        f"https://www.youtube-nocookie.com/embed/{ID}\t3\t4\nv_{ME}\t3\t4\n",
        [(which, at, at + 1, "", "") for at in (1, 2, 3) for which in (ID, ME)],
    ),
    "milliseconds.csv": (
        f"youtube_id,start_ms,end_ms\n{ID},30000,40500\n",
        [(ID, 30, 40.5, "", "")],
    ),
    "activitynet.json": (
        json.dumps(
            {
                "version": "VERSION 1.3",
                "taxonomy": [{"nodeId": 1, "nodeName": "x"}],
                "database": {
                    ID: segments(annotations=[{"label": "Yoga", "segment": [1.5, 4]}]),
                    ME: segments(annotations=[]),
                    "v_" + ME: segments(annotations=None),
                },
            }
        ),
        [(ID, 1.5, 4, "Yoga", "val")],
    ),
    "kinetics.json": (
        json.dumps(
            {ID: segments(annotations={"label": "testifying", "segment": [84.0, 94.0]})}, indent=2
        ),
        [(ID, 84, 94, "testifying", "val")],
    ),
    "coin.json": (
        json.dumps(
            {
                "database": {
                    ID: {
                        "recipe_type": 112,
                        "class": "MakeTea",
                        "video_url": f"https://www.youtube.com/embed/{ID}",
                        "start": 5.0,
                        "end": 60,
                        "subset": "training",
                        "annotation": [{"id": "212", "segment": [12.0, 20.0], "label": "boil"}],
                    }
                }
            }
        ),
        [(ID, 12, 20, "boil", "train")],
    ),
    "youcook2.json": (
        json.dumps(
            {
                "database": {
                    ID: segments(annotations=[{"id": 0, "segment": [4, 5], "sentence": "s"}])
                }
            }
        ),
        [(ID, 4, 5, "", "val")],
    ),
    "hdvila.jsonl": (
        json.dumps(
            {"video_id": ID, "clip": [{"clip_id": "x", "span": ["00:00:17.759", "00:00:23.279"]}]}
        )
        + "\nnot JSON\n"
        + json.dumps({"video_id": ME, "clip": [{"clip_id": "y", "span": ["0:00:01", "0:00:02"]}]}),
        [(ID, 17.759, 23.279, "", ""), (ME, 1, 2, "", "")],
    ),
    "internvid.jsonl": (
        json.dumps({"YoutubeID": ID, "Start_timestamp": "00:00:01.5", "End_timestamp": "00:00:03"})
        + "\n\n"
        + json.dumps({"YoutubeID": ME, "Start_timestamp": 2, "End_timestamp": 3, "Caption": "c"}),
        [(ID, 1.5, 3, "", ""), (ME, 2, 3, "", "")],
    ),
    "objects.json": (
        json.dumps([{"url": f"https://youtu.be/{ID}", "start": 1, "end": 2.5, "label": "a"}]),
        [(ID, 1, 2.5, "a", "")],
    ),
    "captions.json": (
        json.dumps({f"v_{ID}": {"timestamps": [[0.83, 19], [1, 2]], "sentences": ["a", "b"]}}),
        [(ID, 0.83, 19, "", ""), (ID, 1, 2, "", "")],
    ),
    "finegym.json": (
        json.dumps(
            {
                ID: {
                    "E_000040_000095": {
                        "event": 1,
                        "segments": {"A_0003_0005": {"stages": 1, "timestamps": [[3.5, 5.25]]}},
                        "timestamps": [[40.25, 95]],
                    },
                    "E_000100_000110": {"event": 2, "segments": None, "timestamps": [[100, 110]]},
                }
            }
        ),
        [(ID, 43.75, 45.5, "", "")],
    ),
}


def read(folder: Path, name: str, content: str | bytes, **form: object) -> ClipLists:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return read_lists([path], **form)  # type: ignore[arg-type]


def facts(clips: ClipLists) -> list[tuple[str, float, float, str, str]]:
    rounded = (clip._replace(time_start=round(clip[2], 6), time_end=round(clip[3], 6))
               for clip in clips.clips.values())  # fmt: skip
    return [clip[1:6] for clip in rounded]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_its_clips(name: str, tmp_path: Path) -> None:
    content, expected = FORMS[name]
    assert facts(read(tmp_path, name, content)) == expected
    assert facts(read(tmp_path, f"{name}.gz", content)) == expected
    utf16 = content.removeprefix("\ufeff").encode("utf-16")
    assert facts(read(tmp_path, name, utf16)) == expected


def test_further_columns_are_kept(tmp_path: Path) -> None:
    def extras(name: str) -> list[dict[str, str]]:
        clips = read(tmp_path, name, FORMS[name][0]).clips
        return [dict(clip.extra) for clip in clips.values()]

    assert extras("hacs.csv") == [{"label_in_list": "1"}, {"label_in_list": "-1"}]
    assert [clip["caption"] for clip in extras("panda.csv")] == [CAPTION, "b"]
    assert [clip["sentences"] for clip in extras("captions.json")] == ["a", "b"]
    assert extras("coin.json")[0]["class"] == "MakeTea"
    assert extras("youcook2.json")[0]["sentence"] == "s"
    assert extras("avspeech.csv") == [{"x": "0.53", "y": "0.21"}]


def test_several_labels_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "audioset.csv"
    path.write_text(FORMS["audioset.csv"][0])
    lists = read_lists([path], every_row=True)
    assert lists.labels_of_versions() == {"audioset": {"/m/09x0r", "/t/dd00088"}}
    assert lists.files[0].labels_in(lists.every[0].label) == ["/m/09x0r", "/t/dd00088"]
    chosen = read_lists([path], Selection(labels=frozenset({"/t/dd00088"})))
    assert list(chosen.clips) == [f"{ID}_000030_000040"]


@pytest.mark.parametrize(
    "row, columns",
    [
        (f"yoga,{ID},2,12,val", "youtube_id=2,time_start=3,time_end=4"),
        (f"yoga;2;12.5;https://youtu.be/{ID}", "youtube_id=4,time_start=2,time_end=3"),
    ],
)
def test_a_list_without_a_header_is_told_its_columns(
    tmp_path: Path, row: str, columns: str
) -> None:
    with pytest.raises(UserError, match="no header") as caught:
        read(tmp_path, "a.csv", row + "\n")
    assert f"--columns {columns}" in str(caught.value)
    given = dict(pair.split("=") for pair in columns.split(","))
    assert len(read(tmp_path, "a.csv", row + "\n", columns=given).clips) == 1


def test_a_person_names_the_columns(tmp_path: Path) -> None:
    rows = f"{ID},x,1,4000\n"
    named = {"youtube_id": "Clip", "time_start": "from", "time_end": "To (s)"}
    with_header = read(tmp_path, "a.csv", f"Clip,What,From,To (s)\n{rows}", columns=named)
    numbered = {"youtube_id": "1", "time_start": "3", "time_end": "4", "label": "2"}
    without = read(tmp_path, "b.csv", rows, columns=numbered)
    assert facts(with_header) == [(ID, 1, 4000, "", "")]
    assert facts(without) == [(ID, 1, 4000, "x", "")]
    start_only = read(tmp_path, "c.csv", f"youtube_id,start\n{ID},30\n", clip_seconds=2.5)
    assert facts(start_only) == [(ID, 30, 32.5, "", "")]
    blank = read(tmp_path, "e.csv", f"youtube_id,start\n{ID},30, \n", clip_seconds=2.5)
    assert facts(blank) == [(ID, 30, 32.5, "", "")]
    shorter = read(tmp_path, "d.csv", FORMS["vggsound.csv"][0], clip_seconds=4)
    assert [clip.time_end for clip in shorter.clips.values()] == [34, 4]


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "whole videos": (f"video_id,title\n{ID},x\n", "names videos without times"),
    "ids alone": (f"{ID}\n{ME}\n", "names videos without times"),
    "addresses alone": (f"https://youtu.be/{ID}\n", "names videos without times"),
    "frame numbers": (f"youtube_id,start_frame,end_frame\n{ID},3,60\n", "counts frames"),
    "frames": (f"youtube_id,frame_start,frame_end\n{ID},3,60\n", "counts frames"),
    "milliseconds": (f"youtube_id,start,end\n{ID},30000,40000\n{ME},5000,15000\n", "milliseconds"),
    "another site": ("url,start,end\nhttps://vimeo.com/1,1,2\nhttps://vimeo.com/2,1,2\n", "vimeo"),
    "no end": (f"youtube_id,start\n{ID},30\n", "--clip_seconds"),
    "unknown columns": (f"Clip,From,To\n{ID},1,2\n", "--columns"),
    "spreadsheet": (b"PK\x03\x04" + bytes(99), "spreadsheet"),
    "old spreadsheet": (b"\xd0\xcf\x11\xe0" + bytes(99), "spreadsheet"),
    "web page": ("\n<!DOCTYPE html><html>", "web page"),
    "JSON of another thing": ('{"a": [1, 2], "b": {"c": 1}}', "JSON without clips"),
    "starts of clips": (f'[{{"id": "{ID}", "start": [1, 5], "end": [3, 9]}}]', "JSON without"),
    "broken JSON": ('{"database": {"', "not JSON that can be read"),
    "deep JSON": ("[" * 200_000, "nested too deep"),
    "deep objects": ('{"a":' * 900 + "1" + "}" * 900, "JSON without clips"),
    "large number": ('{"a": ' + "9" * 6000 + "}", "not JSON that can be read"),
    "torn gzip": (gzip.compress(b"youtube_id,time_start,time_end\n" * 99)[:-9], "cannot be read"),
    "no clip": ("youtube_id,time_start,time_end\nx,1,2\ny,1,2\n", "no row of"),
    "AVA": (f"{ID},0902,0.1,0.2,0.3,0.4,12\n", "make_ava_kin_download_csv.py"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_list_is_told_by_its_kind(name: str, tmp_path: Path) -> None:
    content, reason = REFUSED[name]
    with pytest.raises(UserError) as caught:
        read(tmp_path, "list.csv", content)
    text = str(caught.value)
    assert reason in text and "list.csv" in text and "\n" not in text and len(text) < 600


def test_odd_cells_cost_their_own_rows_only(tmp_path: Path) -> None:
    bad = [
        panda("[[['1', '2']]]", ["a"]),
        panda("[" * 5000, ["a"]),
        panda("__import__('os').system('touch x')", ["a"]),
        panda([["0:00:01", "0:00:02"], ["0:00:03"]], ["a", "b"]),
    ]
    head = "videoID,url,timestamp,caption,matching_score\n"
    lists = read(tmp_path, "panda.csv", head + "".join(bad) + panda([["1", "2"]], ["x"]))
    assert [clip.time_start for clip in lists.clips.values()] == [1]
    assert len(lists.refused) == 4 and lists.refused[0].line == 2
    spans = [[1, 2], [1], 5, [None, 3]]
    odd = json.dumps({ID: {"annotations": [{"segment": span} for span in spans]}})
    lists = read(tmp_path, "odd.json", odd)
    assert len(lists.clips) == 1 and len(lists.refused) == 2
    text = f"youtube_id,start,end,label\n{ID},1,{'9' * 6000},a\n{ME},1,2,{'x' * 200_000}\n"
    lists = read(tmp_path, "long.csv", text)
    assert len(lists.clips) == 1 and len(str(lists.refused[0])) < 300


@pytest.mark.parametrize(
    "form", ["database", "lines", pytest.param("bare", marks=pytest.mark.slow)]
)
def test_json_of_two_megabytes(form: str, tmp_path: Path) -> None:
    """One line, and in linear time."""
    videos = {f"{n:011d}": segments(annotations=[{"segment": [n % 9, 20]}]) for n in range(16_000)}
    text = json.dumps({"database": videos} if form == "database" else videos)
    if form == "lines":
        text = "\n".join(json.dumps({"video_id": key, **value}) for key, value in videos.items())
    assert len(text) > 2_000_000
    lists = read(tmp_path, "a.json", text)
    assert len(lists.clips) == 16_000 and not lists.refused


def test_a_sample_is_the_same_for_everybody(tmp_path: Path) -> None:
    rows = [f"a{n:010d},{n % 7},{n % 7 + 9},label {n % 5}\n" for n in range(500)]
    head = "youtube_id,time_start,time_end,label\n"
    lists = [read(tmp_path, "a.csv", head + "".join(rows)), ClipLists()]
    paths = [tmp_path / "a.csv"]

    def names(**how: int | tuple[int, int]) -> list[str]:
        return list(read_lists(paths, Selection(**how)).clips)  # type: ignore[arg-type]

    drawn = names(sample=20, seed=3)
    assert len(drawn) == 20 and drawn == sorted(drawn) and drawn != names(sample=20, seed=4)
    assert drawn[:2] == ["a0000000050_000001_000010", "a0000000063_000000_000009"]  # for ever
    assert set(names(sample=10, seed=3)) < set(drawn)
    parts = [names(sample=20, seed=3, shard=(part, 3)) for part in (1, 2, 3)]
    assert sorted(sum(parts, [])) == drawn
    of_class = [lists[0].clips[name].label for name in names(per_class=3)]
    assert len(of_class) == 15 and {of_class.count(label) for label in of_class} == {3}
    paths[0].write_text(head + "".join(reversed(rows)))
    assert sorted(names(sample=20, seed=3)) == drawn


def test_official_lists_that_come_with_the_suite(tmp_path: Path) -> None:
    """`--input_csv kinetics-400_val` needs no server, from any folder; a folder is taken as it is,
    and no list named means all twelve."""

    def plan(*given: object, cwd: Path = tmp_path) -> Done:
        return run_here("download.py", "out", *given, "--dry_run", cwd=cwd)

    done = plan("--input_csv", "kinetics-400_val")
    assert done.code == 0, done.err
    assert "19,906 rows" in done.err and "table with columns label, youtube_id" in done.err
    done = plan()
    assert done.code == 0 and done.err.count("would fetch") == 9
    done = plan("--input_csv", "kinetics_csv")
    assert done.code == 0 and "lists        3 files, 84,104 rows" in done.err, done.err
    empty = tmp_path / "more" / "kinetics_csv"
    for folder in (empty, empty.parent):  # one that does not exist, and one without lists
        done = plan("--input_csv", folder)
        assert done.code == 2 and "would fetch" not in done.err, done.err
        empty.parent.mkdir(exist_ok=True)
    done = plan(cwd=empty.parent)
    assert done.code == 0 and done.err.count("would fetch") == 9
    done = plan("--input_csv", "kinetics400_val")
    assert done.code == 2 and "kinetics-400_val" in done.err


def test_a_list_in_a_folder_is_read_once(tmp_path: Path) -> None:
    for name in ("a.csv", "a.csv.gz", "b.csv.gz", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in find_lists([tmp_path])[0]] == ["a.csv", "b.csv.gz"]


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.csv"
    subprocess.run(["mkfifo", fifo], check=True)
    for path in (fifo, Path("/dev/zero")):
        done = run_here("download.py", "out", "--input_csv", path, "--dry_run", cwd=tmp_path)
        assert done.code == 2 and "not a regular file" in done.err


def test_a_label_map_is_read_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "map.pbtxt"
    code = "import sys, pathlib; from utils.lists.ava import read_label_map as r\n"
    code += "try: r(pathlib.Path(sys.argv[1]))\nexcept Exception as e: print(type(e).__name__)"
    for text in ("item {\n" * 40_000, 'name: "' * 100_000, "id: 1 " * 100_000):
        path.write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", code, path], cwd=ROOT, timeout=20, capture_output=True, text=True
        )
        assert done.stdout == "UserError\n", done.stderr
    path.write_text('item { name: "a \\"b\\" id: 9" id: 7 }\nlabel {\n label_id: 8 name: "{c}"\n}')
    assert read_label_map(path) == {"7": 'a "b" id: 9', "8": "{c}"}


def test_clips_with_fractions_are_found_by_every_script(
    tmp_path: Path, source: Callable[..., Path]
) -> None:
    """Two clips of one second: fine names, which a list of what is missing keeps."""
    content = FORMS["hacs.csv"][0].replace("testing", "training")
    (tmp_path / "hacs.csv").write_text(content)
    names = [f"{ID}_000015.000_000017.000", f"{ID}_000015.500_000017.500"]
    there = tmp_path / "there"
    there.mkdir()
    (there / f"{names[0]}.mp4").symlink_to(source(seconds=2, size=(160, 120)))
    given = ["out", "--input_csv", "hacs.csv"]
    done = run("download.py", *given, "--source", "clips:there", cwd=tmp_path)
    assert done.code == 1, done.err
    assert [path.name for path in (tmp_path / "out").glob("*.mp4")] == [f"{names[0]}.mp4"]
    done = run("make_report.py", *given, cwd=tmp_path)
    assert done.code == 0, done.err
    missing = read_lists(list(tmp_path.rglob("missing.csv"))).clips
    assert list(missing) == [names[1]]
    done = run(
        "frame_extract.py", "out", "frames", "--only", "hacs.csv", "--fps", "1", cwd=tmp_path
    )
    assert (tmp_path / "frames" / names[0]).is_dir(), done.err
    given = ["out", "lists", "--input_csv", "hacs.csv", "--format", "csv"]
    done = run("make_training_lists.py", *given, cwd=tmp_path)
    assert names[0] in (tmp_path / "lists" / "train.csv").read_text(), done.err


def test_columns_name_the_keys_of_json(tmp_path: Path) -> None:
    """Also of nested objects; a key that no clip has is refused."""
    path = tmp_path / "list.json"
    clips = [{"from": 5, "what": "yoga", "label": "0"}, {"from": "0:01:00", "what": "run"}]
    path.write_text(json.dumps([{"Clip": ID, "video_id": ME, "parts": clips}]))
    columns = {"youtube_id": "clip", "time_start": "From", "label": "what"}
    found = read_lists([path], columns=columns, clip_seconds=2.5).clips.values()
    assert [clip[1:5] for clip in found] == [(ID, 5, 7.5, "yoga"), (ID, 60, 62.5, "run")]
    path.write_text(json.dumps({ID: {"window": [1, 2], "segment": [3, 4]}}))
    (clip,) = read_lists([path], columns={"time_start": "window"}).clips.values()
    assert (clip.time_start, clip.time_end) == (1, 2)
    for role in ("label", "youtube_id"):
        with pytest.raises(UserError, match=rf"--columns {role}=Nothing: no clip in .* has this"):
            read_lists([path], columns={role: "Nothing"})
