#!/usr/bin/env python3
"""Run all scripts offline, in a minute, against a local YouTube stand-in.

examples:
  python demo.py

Starts a stand-in for YouTube on this machine, creates a few source videos, and
runs the scripts one after the other as a user would: download clips, combine
sources, import an old folder, extract frames, downscale, prepare AVA-Kinetics,
load a clip, write training lists, build a report page. Prints every command
with its output, and checks the files. The folder demo_output/ is not deleted.
"""

from __future__ import annotations

from utils.errors import UserError  # isort: skip (first: Ctrl-C while the rest is imported)

import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from tests.standin.mirror import Mirror
from tests.standin.server import StandIn
from tests.standin.sources import make_source
from tests.standin.stage import Stage, free_name
from utils.cli import EXIT_INCOMPLETE, EXIT_OK, make_parser, run_script, say
from utils.files import make_folder

SIZE, PORTRAIT = (480, 270), (270, 480)

LIST = """\
label,youtube_id,time_start,time_end,split
juggling,-demo_juggl,3,13,val
juggling,-demo_juggl,12,22,val
yoga,demo_yoga_1,5,15,val
yoga,demo_yoga_1,5,15,val
yoga,demo_short_,14,24,val
yoga,demo_short_,40,50,val
yoga,demo_privat,0,10,val
juggling,demo_remove,0,10,val
juggling,../../evil,0,10,val
"""

CHAIN_LIST = """\
label,youtube_id,time_start,time_end,split
yoga,demo_yoga_1,5,15,val
yoga,demo_yoga_1,7,11,val
zumba,demo_remove,10,15,val
juggling,-demo_juggl,20,24,val
"""

# AVA-Kinetics: at 7.48 s the 30 fps video shows its frame 224, the only one with the red box.
AVA_ID, AVA_TIME, AVA_FRAME = "demo_ava___", "7.48", 224
AVA_BOX = (0.25, 0.4, 0.75, 0.9)  # x1, y1, x2, y2 relative to the frame size
AVA_LABELS = """\
item { name: "stand" id: 12 }
item { name: "carry/hold (an object)" id: 17 }
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser(__doc__ or "")
    text = "folder for the output of the demo"
    parser.add_argument("--out", type=Path, default=Path("demo_output"), metavar="DIR", help=text)
    out = free_name(parser.parse_args(argv).out)
    make_folder(out)
    started = time.monotonic()
    with StandIn() as standin:
        stage = Stage(out.resolve(), standin)
        say("A server on this machine stands in for YouTube. Nothing is sent to the internet.")
        say("Its videos are synthetic: each frame shows its number as black and white blocks.")
        make_videos(stage)
        say()
        say(f"$ cd {shlex.quote(str(out))}")
        say("# yt-dlp arguments for this server; without them download.py uses YouTube")
        say(f"$ STANDIN={shlex.quote(standin.ytdlp_args)}")
        for step in STEPS:
            say()
            say(f"=== {step.__doc__}")
            stage.step = step.__name__
            step(stage)
    say()
    say(f"all steps wrote the expected files, in {time.monotonic() - started:.0f} s. In {out}/:")
    say("  clips/                 the clips, and download_report.csv with the status of each one")
    say("  page/report.html       a one-page report: open it in a browser")
    say("  frames/, clips_128/    JPEG frames, and small copies of the clips")
    say("  lists/, sheet.png      training lists, and a contact sheet of one clip")
    say("  ava_kinetics_csv/annotations_preview.png   an annotated box on its frame")
    return EXIT_OK


def make_videos(stage: Stage) -> None:
    """Make four videos that the stand-in plays, two that it refuses, and one for the mirror."""
    folder, standin = stage.folder / "sources", stage.standin
    folder.mkdir()
    standin.add_video("-demo_juggl", make_source(folder / "juggling.mp4", seconds=26, size=SIZE))
    standin.add_video("demo_yoga_1", make_source(folder / "yoga.mp4", seconds=16, size=PORTRAIT))
    standin.add_video("demo_short_", make_source(folder / "short.mp4", seconds=20, size=SIZE))
    box = (AVA_FRAME, AVA_FRAME + 1, *AVA_BOX)
    marked = make_source(folder / "ava.mp4", seconds=11, fps=30, size=SIZE, box=box)
    standin.add_video(AVA_ID, marked)
    make_source(folder / "zumba.mp4", seconds=5, size=SIZE)
    standin.add_dead("demo_privat", "private")
    standin.add_dead("demo_remove", "removed")


def list_to_clips(stage: Stage) -> None:
    """download.py: download a list. Two videos are unavailable, one ends early, a row is invalid"""
    stage.write("list.csv", LIST)
    stage.download("clips", "list.csv", expect=EXIT_INCOMPLETE, because="3 clips are unavailable")
    stage.expect(
        "clips",
        "-demo_juggl_000003_000013.mp4",
        "-demo_juggl_000012_000022.mp4",
        "demo_yoga_1_000005_000015.mp4",
        "demo_short__000014_000024.mp4",
    )


def the_same_again(stage: Stage) -> None:
    """Run the same command again: existing and unavailable clips are skipped"""
    stage.standin.clear_log()
    because = "they are still unavailable"
    stage.download("clips", "list.csv", "--quiet", expect=EXIT_INCOMPLETE, because=because)
    if stage.standin.requests():
        raise UserError("the stand-in received requests for known clips")


def chain_of_sources(stage: Stage) -> None:
    """download.py --source: two clips from disk, one from a mirror, one from YouTube"""
    zumba = (stage.folder / "sources" / "zumba.mp4").read_bytes()
    mirror = Mirror(stage.standin, prefix="mirror")
    mirror.add_class("700_2020", "val", "zumba", {"demo_remove_000010_000015": zumba})
    mirror.publish(stage.folder / "kinetics_csv")  # lists that say which archive has a clip
    stage.write("chain.csv", CHAIN_LIST)
    words = ["--source", "clips:clips,cvdf,youtube", "--mirror_base", mirror.base]
    stage.download("chain", "chain.csv", *words)
    stage.expect(
        "chain",
        "demo_yoga_1_000005_000015.mp4",
        "demo_yoga_1_000007_000011.mp4",
        "demo_remove_000010_000015.mp4",
        "-demo_juggl_000020_000024.mp4",
    )


def import_old_folder(stage: Stage) -> None:
    """reorg_kinetics_videos.py: import label folders with a duplicate and a broken file"""
    clips, old = stage.folder / "clips", stage.folder / "old_kinetics"
    for label in ("juggling balls", "yoga", "yoga (k600)"):
        (old / label).mkdir(parents=True)
    first, second = (clips / f"-demo_juggl_0000{times}.mp4" for times in ("03_000013", "12_000022"))
    yoga = clips / "demo_yoga_1_000005_000015.mp4"
    shutil.copyfile(first, old / "juggling balls" / "-demo_juggl_3_13.mp4")
    half = second.read_bytes()[: second.stat().st_size // 2]
    (old / "juggling balls" / "-demo_juggl_12_22.mp4").write_bytes(half)
    shutil.copyfile(yoga, old / "yoga" / "demo_yoga_1_5_15.mp4")
    shutil.copyfile(yoga, old / "yoga (k600)" / yoga.name)
    words = ["old_kinetics", "imported", "--duplicates", "old_duplicates"]
    because = "the broken clip is left in the old folder"
    stage.run("reorg_kinetics_videos.py", *words, expect=EXIT_INCOMPLETE, because=because)
    stage.expect("imported", first.name, yoga.name)
    stage.expect("old_kinetics/juggling balls", "-demo_juggl_12_22.mp4")


def clips_to_frames(stage: Stage) -> None:
    """frame_extract.py: extract five frames per second; the second run has nothing to do"""
    for _ in range(2):
        stage.run("frame_extract.py", "clips", "frames", "--fps", 5, "--short_side", 128)
    images = [f"{number:06d}.jpg" for number in range(1, 51)]  # ten seconds
    stage.expect("frames/demo_yoga_1_000005_000015", *images)


def clips_to_small_clips(stage: Stage) -> None:
    """downscale_videos.py: make small clips for load_frames.py"""
    words = ["clips", "clips_128", "--short_side", 128, "--for_loading"]
    stage.run("downscale_videos.py", *words)
    stage.expect("clips_128", *(path.name for path in (stage.folder / "clips").glob("*.mp4")))


def ava_kinetics(stage: Stage) -> None:
    """AVA-Kinetics: annotations to a list, the list to clips, annotated frames with their boxes"""
    box = ",".join(map(str, AVA_BOX))
    rows = "".join(f"{AVA_ID},{AVA_TIME},{box},{action}\n" for action in (12, 17))
    stage.write("ava_kinetics_csv/kinetics_val_v1.0.csv", rows)
    stage.write("ava_kinetics_csv/ava_action_list_v2.2.pbtxt", AVA_LABELS)
    make_list = ["make_ava_kin_download_csv.py", "--split", "val"]
    stage.run(*make_list)
    listing = "ava_kinetics_csv/videos_to_download.csv"
    stage.download("ava_clips", listing, "--quiet")
    clip = f"{AVA_ID}_000007"
    stage.expect("ava_clips", f"{clip}.mp4")
    stage.run(*make_list, "--clips", "ava_clips", "--preview", 1)
    key_frames = ["--key_frames", "ava_kinetics_csv/annotations_val.csv", "--window", 1]
    stage.run("frame_extract.py", "ava_clips", "ava_frames", *key_frames, "--quiet")
    # 3.48 s into the clip, at the default of 30 frames per second, and one before and after.
    stage.expect(f"ava_frames/{clip}", "000104.jpg", "000105.jpg", "000106.jpg")


def clip_to_array(stage: Stage) -> None:
    """load_frames.py: load a chunk of a clip as a NumPy array, and draw it"""
    clip = "clips_128/-demo_juggl_000003_000013.mp4"
    stage.run("load_frames.py", clip, "--start", 40, "--stop", 56, "--sheet", "sheet.png")


def clips_to_training(stage: Stage) -> None:
    """make_training_lists.py: write the lists of a training framework"""
    words = ["clips", "lists", "--input_csv", "list.csv", "--format", "slowfast"]
    because = "some clips are missing; excluded.csv names them"
    stage.run("make_training_lists.py", *words, expect=EXIT_INCOMPLETE, because=because)
    about = ("classes.json", "classes.txt", "excluded.csv", "manifest.csv")
    stage.expect("lists", "val.csv", *about)


def clips_to_page(stage: Stage) -> None:
    """make_report.py: build a one-page report"""
    page = "page/report.html"
    (stage.folder / "page").mkdir()
    stage.run("make_report.py", "clips", "--input_csv", "list.csv", "--out", page)
    stage.expect("page", "report.html", "missing.csv", "suspects.csv", "classes.csv")


STEPS = (
    list_to_clips,
    the_same_again,
    chain_of_sources,
    import_old_folder,
    clips_to_frames,
    clips_to_small_clips,
    ava_kinetics,
    clip_to_array,
    clips_to_training,
    clips_to_page,
)


if __name__ == "__main__":
    run_script(main)
