"""Lists and shards for a training framework, of the clips that are really there.

examples:
  python make_training_lists.py clips lists/k400 --input_csv kinetics-400_train kinetics-400_val \\
      --format slowfast
  python make_training_lists.py clips shards --format webdataset --shard_size 500M
  python make_training_lists.py clips lists/few --format csv --per_class 10 --seed 1
  python make_training_lists.py clips lists/same --format jepa --only_manifest theirs.csv

The first one says what it read and left out, writes, and ends like this:

               wanted       there    missing      listed
  train       246,245     240,618     2.29 %     240,618
  val          19,906      19,404     2.52 %      19,404
  lost most     12.40 %  121 of 976: sniffing
  published    VideoMAEv2: 240,436 train, 19,796 val
  wrote lists/k400: train.csv, val.csv, classes.txt, classes.json, excluded.csv, manifest.csv
  next: python tools/run_net.py --cfg configs/Kinetics/SLOWFAST_8x8_R50.yaml ...

Numbers are of all classes of the versions, sorted by name, from 0. A video that is in any val or
test list is never in train. excluded.csv has every row that is in no list, and why.
"""

from __future__ import annotations

import utils.early  # noqa: F401 (first: Ctrl-C while the rest is imported)

import argparse
import sys
from collections.abc import Sequence

from utils.cli import EXIT_OK, Tell, existing_folder, make_parser, run_script, teller
from utils.files import make_folder
from utils.machines import run_folder
from utils.packages import check_packages
from utils.process import sleep, stop_on_signals
from utils.training import manifest, steps, summary
from utils.training.formats import FORMATS
from utils.training.options import add_options, check_args


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "")
    add_options(parser)
    args = parser.parse_args(argv)
    args.command = sys.argv[1:] if argv is None else list(argv)
    check_args(parser, args)
    return args


def run(args: argparse.Namespace, tell: Tell) -> int:
    """Read, choose, look, write; the exit code. Raises UserError, Stopped."""
    clips, out = existing_folder(args.clips, "clips"), args.out.absolute()
    read = steps.read(args, tell)
    if read is None:
        return EXIT_OK
    theirs = manifest.read_manifest(args.compare) if args.compare else None
    choice = steps.choose_rows(read, args, tell)
    steps.check_out(out, clips, args)
    wanted = summary.count(choice)
    steps.look_at_clips(choice, clips, args, tell)
    if args.dry_run:
        steps.say_plan(choice, steps.count_and_draw(choice, wanted, args), tell)
        tell(f"would write {args.out}: lists for {args.format}")
        return steps.exit_code(choice, [])
    (make_folder(out) / steps.MARK).touch()
    steps.measure_clips(choice, clips, out, args)
    counts = steps.count_and_draw(choice, wanted, args)
    sleep(0)
    with run_folder(out) as workspace:
        job = steps.make_job(choice, clips, out, workspace, args, tell)
        written = FORMATS[args.format].write(job)
        steps.drop_gone(job)
        written += steps.write_beside(job, args, theirs)
    return steps.finish(job, counts, written, args, tell)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_packages("joblib", "requests", "urllib3")
    with stop_on_signals():
        return run(args, teller(args.quiet))


if __name__ == "__main__":
    run_script(main)
