"""The options of make_training_lists.py, and what follows from them alone."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from utils.cli import add_num_jobs, non_negative_float, non_negative_int, positive_int
from utils.lists.fetching import add_input_csv, add_lists_base, add_trim_format
from utils.training.formats import FORMATS
from utils.training.subsets import fraction

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
SMALLEST_SHARD, SHARD_SIZE = 10_000, "1G"
WITHOUT_PATHS = ("torchvision", "huggingface", "webdataset")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clips", type=Path, help="the flat folder of clips")
    parser.add_argument("out", type=Path, help="the folder that the lists go to")
    parser.add_argument("--format", choices=FORMATS, required=True, help="whose lists to write")
    _add_rows_options(parser.add_argument_group("which clips"))
    _add_form_options(parser.add_argument_group("how they are written"))
    group = parser.add_argument_group("the same data elsewhere")
    group.add_argument(
        "--hash", action="store_true", help="SHA-256 of every clip in manifest.csv; remembered"
    )
    group.add_argument(
        "--measure", action="store_true", help="the true length of every clip in manifest.csv"
    )
    group.add_argument(
        "--compare", type=Path, metavar="MANIFEST", help="say what differs from another's set"
    )
    group.add_argument(
        "--only_manifest",
        type=Path,
        metavar="MANIFEST",
        help="exactly the clips of another's set; those that lack go to to_download.csv",
    )
    group = parser.add_argument_group("what to do")
    add_num_jobs(group)
    group.add_argument("--ffmpeg", metavar="PATH", help="ffmpeg to use (default: the wheel's)")
    group.add_argument("--dry_run", action="store_true", help="read and count, and write nothing")


def _add_rows_options(group: argparse._ArgumentGroup) -> None:
    add_input_csv(group)
    add_lists_base(group)
    group.add_argument(
        "--holdout",
        nargs="+",
        type=Path,
        default=[],
        metavar="LIST",
        help="more lists whose val and test videos never stay in train",
    )
    group.add_argument("--split", nargs="+", default=[], help="only these splits")
    group.add_argument("--label", nargs="+", default=[], help="only these classes, in any spelling")
    group.add_argument(
        "--per_class", type=positive_int, metavar="N", help="at most N clips a class and split"
    )
    group.add_argument(
        "--fraction", type=fraction, metavar="F", help="this part of each class and split, 0 to 1"
    )
    group.add_argument(
        "--seed", type=non_negative_int, default=0, metavar="N", help="of the draw and the shards"
    )
    group.add_argument(
        "--min_seconds",
        type=non_negative_float,
        default=0.0,
        metavar="S",
        help="leave out clips that are shorter; 0 measures none",
    )
    add_trim_format(group)


def _add_form_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--classes", type=Path, metavar="FILE", help="another order of the classes, one a line"
    )
    group.add_argument(
        "--path_prefix",
        type=Path,
        metavar="DIR",
        help="paths in the lists are relative to this folder (default: clips, or --link_dir)",
    )
    group.add_argument("--absolute", action="store_true", help="absolute paths in the lists")
    group.add_argument(
        "--link_dir",
        type=Path,
        metavar="DIR",
        help="make links to the clips there, and name these in the lists",
    )
    group.add_argument("--name", help="mmaction2: how its lists begin (default: kinetics400 ...)")
    group.add_argument(
        "--frames", type=Path, metavar="DIR", help="mmaction2, ava: the output of frame_extract.py"
    )
    group.add_argument(
        "--pretrain", action="store_true", help="videomae: `path 0 -1`, for pretraining"
    )
    group.add_argument(
        "--annotations",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="ava: annotations_{split}.csv of make_ava_kin_download_csv.py",
    )
    group.add_argument(
        "--shard_size",
        type=shard_size,
        default=SHARD_SIZE,
        metavar="BYTES",
        help="webdataset: a shard's most, with K, M or G",
    )


def check_args(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """What argparse cannot say by itself; ends with exit code 2."""
    for option, formats in (
        ("frames", ("mmaction2", "ava")),
        ("name", ("mmaction2",)),
        ("pretrain", ("videomae",)),
        ("annotations", ("ava",)),
    ):
        if getattr(args, option) and args.format not in formats:
            parser.error(f"--{option} goes with --format {' or '.join(formats)}")
    if args.format == "ava" and not args.annotations:
        parser.error("--format ava needs --annotations annotations_train.csv ...")
    if args.name is not None and not re.fullmatch(r"[\w.-]+", args.name, re.ASCII):
        parser.error(f"--name {args.name!r} is not of letters, digits, _ . -")
    if args.absolute and args.path_prefix:
        parser.error("--absolute and --path_prefix exclude each other")
    if args.lists_base is not None and not re.match(r"https?://.", args.lists_base):
        parser.error(f"--lists_base {args.lists_base}: begins with http:// or https://")
    for option in ("link_dir", "path_prefix", "absolute"):
        if getattr(args, option) and args.format in WITHOUT_PATHS:
            parser.error(f"--{option} is for lists of paths, and --format {args.format} has none")
    if args.link_dir and (args.frames or args.format == "ava"):
        parser.error("--link_dir links clips, and these lists name frames")
    if args.shard_size != shard_size(SHARD_SIZE) and args.format != "webdataset":
        parser.error("--shard_size goes with --format webdataset")


def shard_size(text: str) -> int:
    """An argparse type: `1G`, `500M`, or bytes."""
    found = re.fullmatch(r"(\d{1,12})([KMG]?)B?", text.upper(), re.ASCII)
    size = int(found[1]) * UNITS[found[2]] if found else 0
    if size < SMALLEST_SHARD:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 1G, 500M, from 10K on")
    return size
