#!/usr/bin/env python3
r"""Write training lists, trees or shards of the clips that are on disk.

examples:
  python make_training_lists.py clips lists/k400 --format slowfast \
      --input_csv kinetics-400_train kinetics-400_val
  python make_training_lists.py clips shards --format webdataset \
      --shard_size 500M --workers 16
  python make_training_lists.py clips lists/few --format csv --per_class 10
  python make_training_lists.py clips lists/same --format jepa \
      --only_manifest theirs.csv

The first command prints what it read and excluded, and ends like this:

               wanted       there    missing      listed
  train       246,505     240,618      2.39%     240,618
  val          19,906      19,404      2.52%      19,404
  lost most     12.40%  121 of 976: sniffing
  published    VideoMAEv2: 240,436 train, 19,796 val
  wrote lists/k400: train.csv, val.csv, classes.txt, classes.json,
    excluded.csv, manifest.csv
  next: python tools/run_net.py --cfg ... DATA.PATH_TO_DATA_DIR ...

Class indices count all classes of the lists, sorted by name, from 0. A video
of any val or test list is never in train. excluded.csv has every row that is
in no list, and why.
"""

from __future__ import annotations

from utils.errors import UserError, check_packages  # isort: skip

import argparse
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.cli import (
    EXIT_INCOMPLETE,
    EXIT_OK,
    Parser,
    Tell,
    add_shared,
    existing_folder,
    make_parser,
    non_negative_float,
    non_negative_int,
    plural,
    positive_int,
    printable,
    run_script,
    teller,
)
from utils.files import make_folder, run_folder
from utils.lists.official import add_input_csv, add_lists_base, add_trim_format
from utils.lists.versions import CLASSES
from utils.process import sleep, stop_on_signals
from utils.report import REPORT_NAME, VIDEOS_NAME, Known, read_known
from utils.training import choosing, outputs
from utils.training.choosing import AUDIO, LACKING, NO_LABEL, SPLITS, TRAIN, VIDEO, Choice, Reason
from utils.training.outputs import (
    ListSet,
    ava,
    csv_with_header,
    json_lists,
    mmaction2,
    mmaction2_name,
    path_label,
)
from utils.training.shards import webdataset
from utils.training.trees import huggingface, link_all, torchvision

MARK = ".make_training_lists"  # stands in a folder that is ours to write into
SHOWN = 10
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
SMALLEST_SHARD, SHARD_SIZE = 10_000, "1G"
# What published work had of each version: (who, train, val).
PUBLISHED = {
    ("400",): (
        ("VideoMAEv2", 240_436, 19_796),
        ("gluon-cv", 240_618, 19_404),
        ("CVDF", 241_258, 19_881),
    ),
    ("600",): (("VideoMAEv2", 366_006, 27_935),),
    ("400", "600", "700"): (('VideoMAEv2, "K710"', 658_340, 66_803),),
}
ByClass = Counter[tuple[str, int]]  # clips by split and class index


@dataclass(frozen=True)
class Format:
    """How a framework's files are written.

    start: the first command of training; with `hint` what to set in a config of the user's own. Its
    {words} are `say_written`'s, quoted for a shell; {code} is `code`, with the words as they are.
    splits_at_blanks: its reader splits at white space. has_paths: it lists paths; absolute: these
    are so by themselves. suffixes: of the files that it can hold.
    """

    write: Callable[[ListSet], list[Path]]
    start: str = ""
    code: str = ""
    hint: str = ""
    splits_at_blanks: bool = False
    needs_label: bool = True
    one_label: bool = True
    has_paths: bool = True
    absolute: bool = False
    suffixes: tuple[str, ...] = VIDEO


_SLOWFAST = (
    "python tools/run_net.py --cfg configs/Kinetics/SLOWFAST_8x8_R50.yaml"
    " DATA.PATH_TO_DATA_DIR {out} DATA.PATH_PREFIX {prefix} MODEL.NUM_CLASSES {classes}"
)
_MMACTION2 = (
    "{split}_dataloader.dataset.ann_file={out}/{name}_{split}_list_{kind}.txt"
    " {split}_dataloader.dataset.data_prefix.{key}={prefix} model.cls_head.num_classes={classes}"
)
_VIDEOMAE = (
    "python run_class_finetuning.py --data_set Kinetics-400 --data_path {out}"
    " --nb_classes {classes}"
)
_AVA = (
    "python tools/run_net.py --cfg configs/AVA/SLOWFAST_32x2_R50_SHORT.yaml"
    " AVA.FRAME_LIST_DIR {out}/frame_lists AVA.FRAME_DIR {prefix} AVA.ANNOTATION_DIR {out}"
)
_CODE = "python -c {code}"
_TORCHVISION = (
    "from torchvision.datasets import Kinetics;"
    " Kinetics({out!r}, frames_per_clip=16, split={split!r})"
)
_HUGGINGFACE = "from datasets import load_dataset; load_dataset('videofolder', data_dir={out!r})"
_WEBDATASET = (
    "import webdataset; webdataset.WebDataset({out!r} +"
    " '/{split}-{{000000..{last:06d}}}.tar', shardshuffle=100)"
)

FORMATS: dict[str, Format] = {
    "slowfast": Format(path_label, _SLOWFAST, splits_at_blanks=True),
    "mmaction2": Format(
        mmaction2,
        _MMACTION2,
        hint="in a config of MMAction2, or after --cfg-options:",
        splits_at_blanks=True,
    ),
    "videomae": Format(path_label, _VIDEOMAE, splits_at_blanks=True, absolute=True),
    "jepa": Format(
        path_label,
        "data: datasets: [{out}/{split}.csv]",
        hint="in a config of V-JEPA:",
        splits_at_blanks=True,
        absolute=True,
    ),
    "torchvision": Format(torchvision, _CODE, _TORCHVISION, has_paths=False),
    "huggingface": Format(
        huggingface, _CODE, _HUGGINGFACE, needs_label=False, one_label=False, has_paths=False
    ),
    "webdataset": Format(
        webdataset,
        _CODE,
        _WEBDATASET,
        needs_label=False,
        one_label=False,
        has_paths=False,
        suffixes=VIDEO + AUDIO,
    ),
    "ava": Format(ava, _AVA, splits_at_blanks=True, needs_label=False),
    "csv": Format(csv_with_header, needs_label=False, one_label=False, suffixes=VIDEO + AUDIO),
    "json": Format(json_lists, needs_label=False, one_label=False, suffixes=VIDEO + AUDIO),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    add_options(parser)
    args = parser.parse_args(argv)
    args.command = sys.argv[1:] if argv is None else list(argv)
    check_formats(parser, args)
    return args


def add_options(parser: Parser) -> None:
    parser.add_argument("clips", type=Path, help="folder of the clips")
    parser.add_argument("out", type=Path, help="folder for the lists")
    names = ", ".join(FORMATS)
    parser.add_argument(
        "--format", choices=FORMATS, required=True, metavar="NAME", help=f"one of {names}"
    )
    add = parser.group("which clips").add_argument
    add_input_csv(parser.group("which clips"))
    add_shared(parser.group("which clips"), "--label", "--split")
    files: dict[str, Any] = {"nargs": "+", "default": [], "type": Path, "metavar": "FILE"}
    add("--exclude", **files, help="exclude the clips of these lists, or of suspects.csv")
    add(
        "--license", metavar="NAME", help="keep only videos of this licence, such as creativecommon"
    )
    add("--holdout", **files, help="more lists whose val and test videos are kept out of train")
    count: dict[str, Any] = {"type": positive_int, "metavar": "N"}
    add("--per_class", **count, help="keep at most N clips of each class in each split")
    add(
        "--fraction",
        type=fraction,
        metavar="F",
        help="keep this fraction of each class in each split, above 0 up to 1",
    )
    seed: dict[str, Any] = {"type": non_negative_int, "default": 0, "metavar": "N"}
    add("--seed", **seed, help="seed for --per_class, --fraction and the order in shards")
    seconds: dict[str, Any] = {"type": non_negative_float, "default": 0.0, "metavar": "SECONDS"}
    add("--min_seconds", **seconds, help="exclude shorter clips, and broken ones (default: 0, off)")
    add(
        "--only_manifest",
        type=Path,
        metavar="FILE",
        help="use exactly the clips of this manifest.csv",
    )

    add = parser.group("how they are written").add_argument
    folder: dict[str, Any] = {"type": Path, "metavar": "DIR"}
    add("--classes", type=Path, metavar="FILE", help="order of the classes, one per line")
    add("--path_prefix", **folder, help="write paths relative to this folder (default: clips)")
    add("--absolute", action="store_true", help="write absolute paths")
    add(
        "--link_dir",
        **folder,
        help="create links to the clips in this folder, and write their paths",
    )
    add(
        "--report",
        **folder,
        help="folder whose download report says why clips are missing (default: clips)",
    )
    add("--name", help="mmaction2: start of the lists' names (default: kinetics400 ...)")
    add("--frames", **folder, help="mmaction2, ava: folder of frame_extract.py")
    add("--pretrain", action="store_true", help="videomae: write `path 0 -1` for pretraining")
    add(
        "--annotations",
        **files,
        help="ava: annotations_train.csv ... of make_ava_kin_download_csv.py",
    )
    size: dict[str, Any] = {"type": shard_size, "default": SHARD_SIZE, "metavar": "BYTES"}
    add("--shard_size", **size, help="webdataset: maximum shard size, with suffix K, M or G")
    add(
        "--workers",
        **count,
        help="webdataset: fail if there would be fewer than N shards (ranks x workers)",
    )

    add = parser.group("the same data elsewhere").add_argument
    add("--hash", action="store_true", help="write the SHA-256 of every clip to manifest.csv")
    add("--measure", action="store_true", help="write the measured lengths to manifest.csv")
    add("--compare", type=Path, metavar="FILE", help="compare with this manifest.csv")

    add_shared(parser.group("how to run"), "--num_jobs", "--dry_run")
    group = parser.group("rarely needed")
    add_trim_format(group)
    add_lists_base(group)
    add_shared(group, "--ffmpeg")


def check_formats(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Check combinations of options; exits with code 2."""
    for option, formats in (
        ("frames", ("mmaction2", "ava")),
        ("name", ("mmaction2",)),
        ("pretrain", ("videomae",)),
        ("annotations", ("ava",)),
        ("workers", ("webdataset",)),
    ):
        if getattr(args, option) and args.format not in formats:
            parser.error(f"--{option} requires --format {' or '.join(formats)}")
    if args.format == "ava" and not args.annotations:
        parser.error("--format ava needs --annotations annotations_train.csv ...")
    if args.name is not None and not re.fullmatch(r"[\w.-]+", args.name, re.ASCII):
        parser.error(f"--name {args.name!r} is not of letters, digits, _ . -")
    if args.absolute and args.path_prefix:
        parser.error("--absolute cannot be combined with --path_prefix")
    if args.lists_base is not None and not re.match(r"https?://.", args.lists_base):
        parser.error(f"--lists_base {args.lists_base}: must begin with http:// or https://")
    for option in ("link_dir", "path_prefix", "absolute"):
        if getattr(args, option) and not FORMATS[args.format].has_paths:
            parser.error(
                f"--{option} applies to lists of paths; --format {args.format} writes none"
            )
    if args.link_dir and (args.frames or args.format == "ava"):
        parser.error("--link_dir cannot be used with lists of frames")
    if args.shard_size != shard_size(SHARD_SIZE) and args.format != "webdataset":
        parser.error("--shard_size requires --format webdataset")


def shard_size(text: str) -> int:
    """An argparse type: `1G`, `500M`, or bytes."""
    found = re.fullmatch(r"(\d{1,12})([KMG]?)B?", text.upper(), re.ASCII)
    size = int(found[1]) * UNITS[found[2]] if found else 0
    if size < SMALLEST_SHARD:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size such as 1G or 500M (at least 10K)"
        )
    return size


def fraction(text: str) -> float:
    """An argparse type: a part, above 0 and up to 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a fraction above 0 and up to 1, such as 0.1"
        )
    return value


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages("joblib", "requests", "urllib3")
    with stop_on_signals():
        return make_lists(args, teller(args.quiet))


def make_lists(args: argparse.Namespace, tell: Tell) -> int:
    """Read, choose, look, write; the exit code. Raises UserError, Stopped."""
    clips, out = existing_folder(args.clips, "clips"), args.out.absolute()
    if args.report:
        existing_folder(args.report, "--report")
    theirs = outputs.read_manifest(args.compare) if args.compare else None
    only = outputs.read_manifest(args.only_manifest) if args.only_manifest else None
    choice = choosing.read_choice(args, only, tell)
    if choice is None:
        return EXIT_OK
    choose_rows(choice, args, tell)
    base = (args.frames or args.link_dir or clips).absolute()
    prefix = args.path_prefix.absolute() if args.path_prefix else base
    if args.absolute or (FORMATS[args.format].absolute and not args.path_prefix):
        prefix = None
    check_out(out, clips, args)
    if FORMATS[args.format].has_paths:
        before = outputs.path_before(base, prefix)
        outputs.check_paths(before, FORMATS[args.format].splits_at_blanks, tell)
    wanted = choice.by_class()
    choosing.look(choice, clips, FORMATS[args.format].suffixes)
    check_any(choice, args)
    if args.frames:
        choosing.look_at_frames(choice, args.frames)
        check_any(choice, args)
    if args.dry_run:
        there = choice.by_class()
        choosing.draw(choice, args.per_class, args.fraction, args.seed)
        say_table(choice, wanted, there, tell)
        tell(f"would write {args.out}: lists for {args.format}")
        return exit_code_of(choice, [])
    (make_folder(out) / MARK).touch()
    if args.hash or args.measure or args.min_seconds:
        choosing.measure(choice, clips, out / choosing.MEMORY_NAME, args)
        check_any(choice, args)
    there = choice.by_class()
    choosing.draw(choice, args.per_class, args.fraction, args.seed)
    sleep(0)
    missing = choice.count(Reason.MISSING)
    known = read_known((args.report or clips) / REPORT_NAME) if missing else Known()
    if missing and not args.report and not (clips / REPORT_NAME).exists():
        tell(f"note         {args.clips} has no download report: with --report DIR excluded.csv"
             " says why clips are missing")  # fmt: skip
    with run_folder(out) as workspace:
        named = args.link_dir.absolute() if args.link_dir else clips
        files = ListSet(choice, named, out, workspace, prefix, args, tell)
        if args.link_dir:
            names = {f"{row.name}{row.suffix}": row.name for row in choice.chosen()}
            link_all(files, make_folder(args.link_dir), names)
            drop_gone(files)
        written = FORMATS[args.format].write(files)
        drop_gone(files)
        written += outputs.write_beside(files, known, theirs)
    say_table(choice, wanted, there, tell)
    say_written(files, written)
    return exit_code_of(choice, files.gone)


def choose_rows(choice: Choice, args: argparse.Namespace, tell: Tell) -> None:
    """Keep the requested rows. Raises UserError if there are none."""
    say_lists(choice, tell)
    say_held_out(choice, tell)
    choosing.exclude(choice, args.exclude, tell)
    if args.license:
        videos = (args.report or args.clips) / VIDEOS_NAME
        choosing.keep_licence(choice, args.license, videos, tell)
    choosing.select(choice, args.split, args.label)
    form = FORMATS[args.format]
    without: Counter[tuple[str, Reason]] = Counter()
    for row in choice.chosen() if not args.pretrain else ():
        if row.several and form.one_label:
            row.reason = Reason.SEVERAL_LABELS
        elif form.needs_label and row.number == NO_LABEL and not row.several:
            row.reason = Reason.NO_LABEL
        if row.reason:
            without[row.split, row.reason] += 1
    for (split, reason), number in without.items():
        what = "no label" if reason == Reason.NO_LABEL else "many labels"
        tell(f"{what:13}{plural(number, 'clip')} of {split}: excluded from {args.format} lists")
    if any(reason == Reason.SEVERAL_LABELS for _, reason in without):
        several = ", ".join(name for name, each in FORMATS.items() if not each.one_label)
        tell(f"             {args.format} knows one label per clip; several: {several}")
    if not any(choice.chosen()):
        raise UserError("no rows left: see the lines above, and --split, --label")


def check_out(out: Path, clips: Path, args: argparse.Namespace) -> None:
    """Raises UserError for a folder that holds others' files."""
    if out.resolve() == clips.resolve():
        raise UserError(f"{args.out} is the folder of clips: name another one for the lists")
    # There links are made, and those of an earlier run removed.
    if any(clips.resolve().is_relative_to((out / split).resolve()) for split in SPLITS):
        raise UserError(f"{args.clips} is inside {args.out}: use another folder for the lists")
    if args.frames:
        existing_folder(args.frames, "--frames")
    if (out / MARK).exists() or not out.is_dir():
        return
    if foreign := sorted(set(os.listdir(out)) - {".tmp", MARK}):
        raise UserError(
            f"{args.out} contains {printable(foreign[0])}, which this script did not write:"
            " use another folder"
        )


def check_any(choice: Choice, args: argparse.Namespace) -> None:
    """Raise UserError if no clip is left to be listed."""
    if not any(choice.chosen()) and not args.only_manifest:
        counts = Counter(row.reason.text for row in choice.rows)
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in counts.most_common())
        raise UserError(
            f"no clip is left to be listed ({reasons}): is {args.clips} the folder that download.py"
            " filled, with the same --trim_format?"
        )


def drop_gone(files: ListSet) -> None:
    """Clips that went away while they were read are missing after all."""
    for name in files.gone:
        files.choice.by_name[name].reason = Reason.MISSING


def say_lists(choice: Choice, tell: Tell) -> None:
    """Print the lists, the classes, and which classes were joined."""
    classes = choice.classes
    tell(f"lists        {plural(len(choice.lists), 'file')}, {plural(choice.read, 'row')}")
    tell(f"classes      {len(classes.names):,} of {', '.join(choice.versions)}")
    for version, named in choice.labels.items():
        if 0 < named < (expected := CLASSES.get(version, 0)):
            tell(
                f"note         {version} has {expected} classes, and its lists name"
                f" {named}: numbers are of these (--classes FILE gives all)"
            )
    for old, new in classes.joined:
        tell(f"joined       {old!r} is {new!r}")
    for each in classes.renamed:
        tell(f"renamed      {each.old!r} is {each.new!r} now (all {each.videos} videos of both)")
    if choice.refused:
        tell(f"invalid      {plural(len(choice.refused), 'row')}")
        for refused in choice.refused[:SHOWN]:
            tell(f"             {refused}")


def say_held_out(choice: Choice, tell: Tell) -> None:
    """How many videos of train are in a val or test list, by pair of lists, and what was done."""
    told: dict[str, list[str]] = {"held out": [], "shared": []}
    for pair, count in choice.shared.items():
        train, held = pair if pair[1][1] != TRAIN else pair[::-1]
        text = f"{plural(count, 'video')} of {' '.join(train)} in {' '.join(held)}"
        if train[1] != TRAIN:
            told["shared"].append(text)
        elif held[1] not in (TRAIN, ""):
            told["held out"].append(text)
    for what, texts in told.items():
        for text in texts:
            tell(f"{what:13}{text}")
    if rows := choice.count(Reason.HELD_OUT):
        tell(f"             {plural(rows, 'row')} of train held out")
    if choice.relabelled:
        tell(
            f"labels       {plural(choice.relabelled, 'clip')} with two: the newest version's"
            " counts (other_label in excluded.csv)"
        )
    if choice.without_split:
        tell(f"split        {plural(choice.without_split, 'row')} without one: train")


def say_table(choice: Choice, wanted: ByClass, there: ByClass, tell: Tell) -> None:
    """Wanted, there, missing and listed for each split; the classes that lost most; the papers'."""
    reasons = Counter(row.reason for row in choice.rows)
    parts = [f"{reasons[each]:,} {each.text}" for each in Reason if each and reasons[each]]
    tell(f"excluded     {', '.join(parts) or 'no row'}")
    tell("             wanted       there    missing      listed")
    listed = Counter(row.split for row in choice.chosen())
    for split in SPLITS:
        here, all_ = (
            sum(n for (s, _), n in each.items() if s == split) for each in (there, wanted)
        )
        if all_:
            share = f"{100 * (all_ - here) / all_:.2f}%"
            tell(f"{split:7}{all_:12,}{here:12,}{share:>11}{listed[split]:12,}")
    for line in lost_most(choice.classes.names, wanted, there):
        tell(line)
    # Both forms of 700 count as one.
    versions = tuple(dict.fromkeys(each.removesuffix("_2020") for each in choice.versions))
    for who, train, val in PUBLISHED.get(versions, ()):
        tell(f"published    {who}: {train:,} train, {val:,} val")


def lost_most(names: Sequence[str], wanted: ByClass, there: ByClass) -> Iterator[str]:
    """A line for each of the ten classes that lost the largest part of their clips."""
    total: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    for (split, number), clips in wanted.items():
        if number != NO_LABEL:
            total[number] += clips
            lost[number] += clips - there[split, number]
    worst = sorted((n for n in lost if lost[n]), key=lambda n: (-lost[n] / total[n], -lost[n], n))
    for number in worst[:SHOWN]:
        share = f"{100 * lost[number] / total[number]:.2f}%"
        name = printable(names[number])
        yield f"lost most    {share:>7}  {lost[number]:,} of {total[number]:,}: {name}"


def say_written(files: ListSet, written: Sequence[Path]) -> None:
    """Print the written files and the next step."""
    args, tell, choice = files.args, files.tell, files.choice
    names = [os.path.relpath(path, files.out) for path in written]
    shown = names if len(names) <= 10 else [*names[:3], f"... {len(names) - 8} more", *names[-5:]]
    tell(f"wrote {args.out}: {', '.join(shown)}")
    forms = ("{}.csv", "{}.json", "*_{}_list_*.txt", "*_{}.csv", "frame_lists/{}.csv")
    there = (p for each in SPLITS for form in forms for p in files.out.glob(form.format(each)))
    if stale := sorted({os.path.relpath(path, files.out) for path in there} - set(names)):
        tell(f"note         left from an earlier run: {', '.join(stale)}")
    if files.gone:
        tell(
            f"not written, or removed during the run: {plural(len(files.gone), 'clip')}: run again"
        )
    if args.only_manifest and choice.count(Reason.MISSING):
        lacking = str(args.out / outputs.TO_DOWNLOAD)
        words = ["python", "download.py", str(args.clips), "--input_csv", lacking]
        tell(f"next: {shlex.join(words)}")
    splits, form = choice.used_splits(), FORMATS[args.format]
    if not splits or not form.start:
        return
    if args.frames:
        tell("      frames: filename_tmpl='{:06}.jpg', start_index=1")
    values: dict[str, Any] = {
        "out": str(files.out),
        "prefix": "" if files.prefix is None else str(files.prefix),
        "name": mmaction2_name(files),
        "kind": "rawframes" if args.frames else "videos",
        "key": "img" if args.frames else "video",
        "classes": len(choice.classes.names),
        "split": splits[0],
        "last": sum(name.startswith(f"{splits[0]}-") for name in names) - 1,
    }
    quoted = {key: shlex.quote(str(value)) for key, value in values.items()}
    start = form.start.format(code=shlex.quote(form.code.format(**values)), **quoted)
    tell(f"use: {form.hint} {start}" if form.hint else f"next: {start}")


def exit_code_of(choice: Choice, gone: Sequence[str]) -> int:
    """1 where a clip that was wanted is not there, or a row is none."""
    is_lacking = any(row.reason in LACKING for row in choice.rows)
    return EXIT_INCOMPLETE if gone or choice.refused or is_lacking else EXIT_OK


if __name__ == "__main__":
    run_script(main)
