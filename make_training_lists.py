#!/usr/bin/env python3
r"""Write training lists, folder trees or shards for the clips on disk.

examples:
  python make_training_lists.py clips lists/k400 --format slowfast \
      --input_csv kinetics-400_train kinetics-400_val
  python make_training_lists.py clips shards --format webdataset \
      --shard_size 500M --workers 16
  python make_training_lists.py clips lists/few --format csv --per_class 10
  python make_training_lists.py clips lists/same --format jepa \
      --only_manifest theirs.csv

The first command prints what it read and excluded, and ends like this:

            requested     on disk    missing      listed
  train       246,505     240,618      2.39%     240,618
  val          19,906      19,404      2.52%      19,404
  most missing  12.40%  121 of 976: sniffing
  published    VideoMAEv2: 240,436 train, 19,796 val
  wrote lists/k400: train.csv, val.csv, classes.txt, classes.json,
    excluded.csv, manifest.csv
  next: python tools/run_net.py --cfg ... DATA.PATH_TO_DATA_DIR ...

Class indices start at 0, in alphabetical order over all classes in the lists.
Videos in a val or test list are never in train. excluded.csv has every
excluded row with the reason.
"""

from __future__ import annotations

from utils.errors import UserError, check_packages  # isort: skip

import argparse
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils import cli
from utils.files import make_folder, run_folder
from utils.report import REPORT_NAME, VIDEOS_NAME, Known, read_known
from utils.training import choosing, outputs, shards
from utils.training.choosing import AUDIO, SPLITS, VIDEO, Choice, Reason
from utils.training.outputs import ListSet

MARK = ".make_training_lists"  # marks a folder that this script wrote
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
SMALLEST_SHARD = 10_000
PUBLISHED = (  # versions, who used them, and with how many clips in train and val
    ("400", "VideoMAEv2", 240_436, 19_796),
    ("400", "gluon-cv", 240_618, 19_404),
    ("400", "CVDF", 241_258, 19_881),
    ("600", "VideoMAEv2", 366_006, 27_935),
    ("400 600 700", 'VideoMAEv2, "K710"', 658_340, 66_803),
)
ByClass = Counter[tuple[str, int | None]]  # clips by split and class index


@dataclass(frozen=True)
class Format:
    """How the files of a framework are written.

    next: the last line of the summary, for a shell; `say_written` fills in each word and quotes it.
    options: which not every format has. absolute: paths are absolute by default. one_label: each
    clip must have one label. any_file: of audio, too, and with white space in its path.
    """

    write: Callable[[ListSet], None]
    next: str = ""
    options: Sequence[str] = ()
    absolute: bool = False
    one_label: bool = True
    any_file: bool = False


_SLOWFAST = (
    "next: python tools/run_net.py --cfg configs/Kinetics/SLOWFAST_8x8_R50.yaml"
    " DATA.PATH_TO_DATA_DIR {out} DATA.PATH_PREFIX {prefix} MODEL.NUM_CLASSES {classes}"
)
_MMACTION2 = (
    "use: in a config of MMAction2, or after --cfg-options:"
    " {split}_dataloader.dataset.ann_file={out}/{first}"
    " {split}_dataloader.dataset.data_prefix.{key}={prefix} model.cls_head.num_classes={classes}"
)
_VIDEOMAE = (
    "next: python run_class_finetuning.py --data_set Kinetics-400 --data_path {out}"
    " --nb_classes {classes}"
)
_JEPA = "use: in data.datasets of a config of V-JEPA: {out}/{split}.csv"
_AVA = (
    "next: python tools/run_net.py --cfg configs/AVA/SLOWFAST_32x2_R50_SHORT.yaml"
    " AVA.FRAME_LIST_DIR {out}/frame_lists AVA.FRAME_DIR {prefix} AVA.ANNOTATION_DIR {out}"
)
_TORCHVISION = (
    'next: python -c "from torchvision.datasets import Kinetics;'
    ' Kinetics({out!r}, 16, split={split!r})"'
)
_HUGGINGFACE = (
    'next: python -c "from datasets import load_dataset;'
    " load_dataset('videofolder', data_dir={out!r})\""
)
_WEBDATASET = (
    'next: python -c "import webdataset; webdataset.WebDataset({out!r} +'
    " '/{split}-{{000000..{last:06d}}}.tar', shardshuffle=100)\""
)
_PATHS = ("absolute", "link_dir", "path_prefix")
_ANY = {"one_label": False, "any_file": True}

FORMATS = {
    "slowfast": Format(outputs.path_label, _SLOWFAST, _PATHS),
    "mmaction2": Format(outputs.mmaction2, _MMACTION2, (*_PATHS, "frames", "name")),
    "videomae": Format(outputs.path_label, _VIDEOMAE, (*_PATHS, "pretrain"), absolute=True),
    "jepa": Format(outputs.path_label, _JEPA, _PATHS, absolute=True),
    "torchvision": Format(outputs.torchvision, _TORCHVISION),
    "huggingface": Format(outputs.huggingface, _HUGGINGFACE, one_label=False),
    "webdataset": Format(shards.webdataset, _WEBDATASET, ("shard_size", "workers"), **_ANY),
    "ava": Format(outputs.ava, _AVA, (*_PATHS, "frames", "annotations"), one_label=False),
    "csv": Format(outputs.csv_with_header, "", _PATHS, **_ANY),
    "json": Format(outputs.json_lists, "", _PATHS, **_ANY),
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.make_parser(__doc__ or "")
    define_options(parser)
    args = parser.parse_args(argv)
    args.command = sys.argv[1:] if argv is None else list(argv)
    check_formats(parser, args)
    return args


def define_options(parser: cli.Parser) -> None:
    file: dict[str, Any] = {"type": Path, "metavar": "FILE"}
    files = file | {"nargs": "+", "default": []}
    folder: dict[str, Any] = {"type": Path, "metavar": "DIR"}
    count: dict[str, Any] = {"type": cli.positive_int, "metavar": "N"}
    existing = folder | {"type": cli.must("be a folder", Path.is_dir, Path)}
    flag: dict[str, Any] = {"action": "store_true"}
    parser.add_argument("clips", type=Path, help="folder of the clips")
    parser.add_argument("out", type=Path, help="folder for the lists")
    text = f"one of {', '.join(FORMATS)}"
    parser.add_argument("--format", choices=FORMATS, required=True, metavar="NAME", help=text)

    group = parser.group("which clips")
    add = group.add_argument
    cli.add_shared(group, "--input_csv", "--columns", "--clip_seconds", "--label", "--split")
    add("--exclude", **files, help="exclude the clips of these lists, or of suspects.csv")
    text = "keep only videos under this licence: creativecommon, ..."
    add("--license", metavar="NAME", help=text)
    add("--holdout", **files, help="more lists whose val and test videos are excluded from train")
    add("--per_class", **count, help="keep at most N clips of each class in each split")
    part = cli.must("be above 0 and at most 1", lambda part: 0 < part <= 1, cli.non_negative_float)
    text = "keep this fraction of each class in each split"
    add("--fraction", type=part, metavar="F", help=text)
    add("--seed", type=cli.non_negative_int, default=0, metavar="N", help="seed of random choices")
    text = "exclude shorter clips, and broken ones (default: 0, off)"
    add("--min_seconds", type=cli.non_negative_float, default=0.0, metavar="SECONDS", help=text)
    add("--only_manifest", **file, help="use exactly the clips of this manifest.csv")

    add = parser.group("how they are written").add_argument
    add("--classes", **file, help="file with all classes in order, one per line")
    add("--path_prefix", **folder, help="write paths relative to this folder (default: clips)")
    add("--absolute", **flag, help="write absolute paths")
    add("--link_dir", **folder, help="create links to the clips here, and write their paths")
    add("--report", **existing, help="folder with the download report (default: clips)")
    name = cli.must("have only letters, digits, _ . -", re.compile(r"[\w.-]+", re.A).fullmatch, str)
    add("--name", type=name, help="mmaction2: prefix of the list names (default: kinetics400 ...)")
    add("--frames", **existing, help="mmaction2, ava: output folder of frame_extract.py")
    add("--pretrain", **flag, help="videomae: write `path 0 -1` for pretraining")
    add("--annotations", **files, help="ava: annotations of make_ava_kin_download_csv.py")
    size: dict[str, Any] = {"type": shard_size, "metavar": "BYTES"}
    add("--shard_size", **size, help="webdataset: maximum size of a shard: 500M, 2G (default: 1G)")
    add("--workers", **count, help="webdataset: stop if there are fewer than N shards")

    add = parser.group("the same data elsewhere").add_argument
    add("--hash", **flag, help="write the SHA-256 of every clip to manifest.csv")
    add("--measure", **flag, help="write the measured lengths to manifest.csv")
    add("--compare", **file, help="compare with this manifest.csv")

    cli.add_shared(parser.group("how to run"), "--num_jobs", "--dry_run")
    group = parser.group("rarely needed")
    cli.add_shared(group, "--trim_format", "--lists_base", "--ffmpeg")


def check_formats(parser: cli.Parser, args: argparse.Namespace) -> None:
    """Check combinations of options; exits with code 2."""
    for option in sorted({option for form in FORMATS.values() for option in form.options}):
        formats = [name for name, form in FORMATS.items() if option in form.options]
        if getattr(args, option) and args.format not in formats:
            parser.error(f"--{option} requires --format {' or '.join(formats)}")
    if args.format == "ava" and not args.annotations:
        parser.error("--format ava needs --annotations annotations_train.csv ...")
    if args.absolute and args.path_prefix:
        parser.error("--absolute cannot be combined with --path_prefix")
    if args.link_dir and (args.frames or args.format == "ava"):
        parser.error("--link_dir cannot be used with lists of frames")


def shard_size(text: str) -> int:
    """An argparse type: `1G`, `500M`, or bytes."""
    found = re.fullmatch(r"(\d{1,12})([KMG]?)B?", text.upper(), re.ASCII)
    size = int(found[1]) * UNITS[found[2]] if found else 0
    if size < SMALLEST_SHARD:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 1G, or below 10K")
    return size


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages("joblib", "requests", "urllib3")
    return make_lists(args, cli.teller(args.quiet))


def make_lists(args: argparse.Namespace, tell: cli.Tell) -> int:
    """Read, choose, look and write; return the exit code. Raises UserError, Stopped."""
    form = FORMATS[args.format]
    clips, out = cli.existing_folder(args.clips, "the folder of clips"), args.out.absolute()
    theirs = outputs.read_manifest(args.compare) if args.compare else None
    only = outputs.read_manifest(args.only_manifest) if args.only_manifest else None
    choice = choosing.read_choice(args, only, tell)
    if choice is None:
        return cli.EXIT_OK
    choose_rows(choice, args, tell)
    check_out(out, clips, args)
    base = (args.frames or args.link_dir or clips).absolute()
    is_absolute = args.absolute or (form.absolute and not args.path_prefix)
    prefix = None if is_absolute else (args.path_prefix or base).absolute()
    before = outputs.path_before(base, prefix, form.any_file, tell)
    requested = choice.by_class()
    choosing.look(choice, clips, VIDEO + AUDIO if form.any_file else VIDEO)
    check_any(choice, args, requested)
    if args.frames:
        choosing.look_at_frames(choice, args.frames)
    if not args.dry_run:
        (make_folder(out) / MARK).touch()
        if args.hash or args.measure or args.min_seconds:
            choosing.measure(choice, clips, out / choosing.MEMORY_NAME, args)
    check_any(choice, args, requested)
    on_disk = choice.by_class()
    choosing.draw(choice, args.per_class, args.fraction, args.seed)
    if args.dry_run:
        say_table(choice, requested, on_disk, tell)
        tell(f"would write {args.out}: lists for {args.format}")
        return exit_code_of(choice)
    known, report = Known(), (args.report or clips) / REPORT_NAME
    if choice.reasons()[Reason.MISSING]:
        known = read_known(report)
        if not args.report and not report.exists():
            tell(f"note         {args.clips} has no download report: use --report DIR")
    with run_folder(out) as workspace:
        files = ListSet(choice, clips, out, workspace, before, args, tell)
        if args.link_dir:
            links = {f"{row.clip.name}{row.suffix}": row for row in choice.chosen()}
            outputs.link_all(files, make_folder(args.link_dir), links)
        form.write(files)
        outputs.write_beside(files, known, theirs)
    say_table(choice, requested, on_disk, tell)
    say_written(files, prefix)
    return exit_code_of(choice)


def choose_rows(choice: Choice, args: argparse.Namespace, tell: cli.Tell) -> None:
    """Keep the requested rows. Raises UserError if there are none."""
    choosing.exclude(choice, args.exclude, args, tell)
    if args.license:
        videos = (args.report or args.clips) / VIDEOS_NAME
        choosing.keep_licence(choice, args.license, videos, tell)
    choosing.select(choice, args.split, args.label)
    if FORMATS[args.format].one_label and not args.pretrain:
        for row in choice.chosen():
            if row.number is None:
                row.reason = Reason.SEVERAL_LABELS if row.numbers else Reason.NO_LABEL


def check_out(out: Path, clips: Path, args: argparse.Namespace) -> None:
    """Raise UserError for a folder that contains other files than ours."""
    if out.resolve() == clips.resolve():
        raise UserError(f"{args.out} is the folder of clips: name another one for the lists")
    # Links are made in these folders, and those of an earlier run removed.
    if any(clips.resolve().is_relative_to((out / split).resolve()) for split in SPLITS):
        raise UserError(f"{args.clips} is inside {args.out}: use another folder for the lists")
    if out.is_dir() and not (out / MARK).exists():
        for name in sorted(set(os.listdir(out)) - {".tmp"}):
            where = f"{args.out} contains {cli.printable(name)}"
            raise UserError(f"{where}, which this script did not write: use another folder")


def check_any(choice: Choice, args: argparse.Namespace, requested: ByClass) -> None:
    """Raise UserError if no clip is left to be listed; those of a manifest may all be missing."""
    if not any(choice.chosen()) and not (args.only_manifest and requested):
        counts = choice.reasons().most_common()
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in counts)
        raise UserError(f"no clip to list ({reasons}): check {args.clips}, --trim_format")


def say_table(choice: Choice, requested: ByClass, on_disk: ByClass, tell: cli.Tell) -> None:
    """Print the clips of each split, the classes that lost most, and what published work had."""
    reasons = choice.reasons()
    if parts := [f"{reasons[each]:,} {each}" for each in Reason if each and reasons[each]]:
        tell(f"excluded     {', '.join(parts)}")
    tell("          requested     on disk    missing      listed")
    total, lost = Counter[int](), Counter[int]()
    listed = Counter(row.split for row in choice.chosen())
    for split in SPLITS:
        clips = sum(number for (each, _), number in requested.items() if each == split)
        here = sum(number for (each, _), number in on_disk.items() if each == split)
        if clips:
            share = f"{100 * (clips - here) / clips:.2f}%"
            tell(f"{split:7}{clips:12,}{here:12,}{share:>11}{listed[split]:12,}")
    for (split, number), clips in requested.items():
        if number is not None:
            total[number] += clips
            lost[number] += clips - on_disk[split, number]
    worst = sorted((n for n in lost if lost[n]), key=lambda n: (-lost[n] / total[n], -lost[n], n))
    for number in worst[: choosing.SHOWN]:
        share = f"{100 * lost[number] / total[number]:.2f}%"
        name = cli.printable(choice.classes.names[number])
        tell(f"most missing {share:>7}  {lost[number]:,} of {total[number]:,}: {name}")
    # Both releases of 700 count as one.
    used = " ".join(dict.fromkeys(each.removesuffix("_2020") for each in choice.version_names))
    for versions, who, train, val in PUBLISHED:
        if versions == used:
            tell(f"published    {who}: {train:,} train, {val:,} val")


def say_written(files: ListSet, prefix: Path | None) -> None:
    """Print the written files and the next step."""
    args, tell, choice, names = files.args, files.tell, files.choice, files.written
    shown = names if len(names) <= 10 else [*names[:3], f"... {len(names) - 8} more", *names[-5:]]
    tell(f"wrote {args.out}: {', '.join(shown)}")
    there = {name for name in os.listdir(files.out) if not name.startswith(".")}
    made = [*names, os.path.relpath(args.link_dir or args.out, args.out)]
    if stale := sorted(there.difference(name.partition("/")[0] for name in made)):
        tell(f"note         not written by this run: {cli.printable(', '.join(stale), 300)}")
    if files.lost:
        tell(f"lost         {cli.plural(files.lost, 'clip')} during the run: run again")
    if args.only_manifest and choice.reasons()[Reason.MISSING]:
        words = [str(args.clips), "--input_csv", str(args.out / outputs.TO_DOWNLOAD)]
        tell(f"next: python download.py {shlex.join(words)}")
    splits, line = choice.used_splits(), FORMATS[args.format].next
    if not splits or not line:
        return
    if args.frames:
        tell("      frames: filename_tmpl='{:06}.jpg', start_index=1")
    values = {
        "out": str(files.out),
        "prefix": prefix or "",
        "first": names[0],
        "key": "img" if args.frames else "video",
        "classes": len(choice.classes.names),
        "split": splits[0],
        "last": sum(name.startswith(f"{splits[0]}-") for name in names) - 1,
    }
    tell(shlex.join(word.format(**values) for word in shlex.split(line)))


def exit_code_of(choice: Choice) -> int:
    """Return 1 if a requested clip is missing or a row is invalid."""
    lacking = {Reason.MISSING, Reason.UNREADABLE, Reason.NO_FRAMES} & choice.reasons().keys()
    return cli.EXIT_INCOMPLETE if choice.refused or lacking else cli.EXIT_OK


if __name__ == "__main__":
    cli.run_script(main)
