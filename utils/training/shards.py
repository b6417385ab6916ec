"""webdataset shards: `{split}-000000.tar` and on, each whole or not there, many at once.

Which clip goes into which shard hangs on the clips, their sizes and the seed alone, so that a rerun
of the same command goes on where it was ended. `.shards.csv` remembers what each shard holds.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import DiskFull, UserError, is_disk_full
from utils.files import publish
from utils.parallel import run_in_processes
from utils.process import sleep, stop_run
from utils.report import ReportFile, read_report
from utils.run import Progress
from utils.training.choosing import Choice
from utils.training.job import Job
from utils.training.subsets import shuffled
from utils.training.text_lists import known_of
from utils.training.there import SUFFIX

MEMORY_NAME = ".shards.csv"
MEMORY_COLUMNS = ("shard", "clips", "bytes", "content")
BLOCK = 512
END = 2 * BLOCK
COPY = 2**20  # bytes read at once
KNOWN = ("clip", "youtube_id", "time_start", "time_end", "split", "label", "number", "version")


@dataclass(frozen=True)
class Sample:
    """One clip of a shard: its file, the size it had, and the other two members."""

    key: str
    path: str
    size: int
    cls: bytes  # b"" without a label
    json: bytes

    @property
    def tar_bytes(self) -> int:
        members = [self.size, len(self.json), *([len(self.cls)] if self.cls else [])]
        return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in members)


@dataclass(frozen=True)
class Shard:
    final: str
    temporary: str
    samples: tuple[Sample, ...]

    @property
    def name(self) -> str:
        return os.path.basename(self.final)

    @property
    def tar_bytes(self) -> int:
        return END + sum(sample.tar_bytes for sample in self.samples)


@dataclass
class Planned:
    """A shard to be: its rows, in their order; samples are made when it is written."""

    name: str
    rows: array[int] = field(default_factory=lambda: array("I"))
    tar_bytes: int = END
    content: str = ""  # a digest of all that its bytes hang on, but the clips' own


@dataclass(frozen=True)
class Written:
    """What came of a shard: nothing to say, or why it was not written."""

    name: str
    problem: str = ""
    disk_full: bool = False


def webdataset(job: Job) -> list[Path]:
    """Write what is not there yet. Raises UserError, DiskFull, Stopped."""
    shards = [each for split in job.choice.used_splits() for each in plan(job, split)]
    memory = job.out / MEMORY_NAME
    known = {row[0]: row[3] for row in read_report(memory, MEMORY_COLUMNS)}
    _check_folder(job.out, {each.name: each.content for each in shards}, known)
    missing = [each for each in shards if not _is_there(job.out, each, known.get(each.name))]
    job.tell(f"shards       {len(shards):,}, {len(shards) - len(missing):,} of them there")
    tasks = (_shard(job, each) for each in missing)  # drawn as workers become free
    with (
        ReportFile(memory, MEMORY_COLUMNS) as report,
        Progress(len(missing), "shard", quiet=job.quiet) as progress,
    ):
        # Before they are written: a run that is killed must know its own shards again.
        new = [each for each in missing if known.get(each.name) != each.content]
        report.append_all((e.name, len(e.rows), e.tar_bytes, e.content) for e in new)
        clips_of = {e.name: [job.choice.rows.names[at] for at in e.rows] for e in missing}
        for done in run_in_processes(write, tasks, job.num_jobs, _crashed):
            if done.disk_full:
                stop_run()
                raise DiskFull(job.out)
            progress.add("not written" if done.problem else "written")
            if done.problem:
                job.gone.extend(clips_of[done.name])  # none of them is in a shard
                progress.failure("not written", done.name, done.problem)
    sleep(0)
    return [path for each in shards if (path := job.out / each.name).exists()]


def plan(job: Job, split: str) -> list[Planned]:
    """The shards of a split, shuffled by the seed, each at most `job.shard_size` bytes."""
    shards: list[Planned] = []
    digest = hashlib.sha256()
    for at in shuffled(job.choice, job.choice.chosen(split), job.seed):
        sample = _sample(job.choice, at, job.clips)
        size = sample.tar_bytes
        if END + size > job.shard_size:
            raise UserError(
                f"{sample.path} needs {END + size:,} bytes: more than --shard_size"
                f" {job.shard_size:,}"
            )
        if not shards or shards[-1].tar_bytes + size > job.shard_size:
            shards.append(Planned(f"{split}-{len(shards):06d}.tar"))
            digest = hashlib.sha256()
        digest.update(f"{sample.key} {sample.size}\n".encode() + sample.cls + sample.json)
        shards[-1].rows.append(at)
        shards[-1].tar_bytes += size
        shards[-1].content = digest.hexdigest()
    return shards


def _shard(job: Job, planned: Planned) -> Shard:
    samples = tuple(_sample(job.choice, at, job.clips) for at in planned.rows)
    return Shard(str(job.out / planned.name), str(job.workspace / planned.name), samples)


def _sample(choice: Choice, at: int, clips: Path) -> Sample:
    name, number = choice.rows.names[at], choice.numbers[at]
    path = str(clips / (name + SUFFIX))
    known = known_of(choice, at, path)
    text = json.dumps({key: known[key] for key in KNOWN}, ensure_ascii=False)
    # webdataset takes what stands before the first dot for the sample's key.
    key = name.replace(".", "_")
    cls = b"" if number < 0 else str(number).encode()
    return Sample(key, path, choice.sizes[at], cls, text.encode())


def _is_there(out: Path, planned: Planned, known: str | None) -> bool:
    path = out / planned.name
    return known == planned.content and path.exists() and path.stat().st_size == planned.tar_bytes


def _check_folder(out: Path, planned: Mapping[str, str], known: Mapping[str, str]) -> None:
    """Shards of two selections are never mixed: a reader takes all that the folder holds."""
    for path in sorted(out.glob("*-[0-9][0-9][0-9][0-9][0-9][0-9].tar")):
        if path.name not in known:
            raise UserError(f"{path} is not of this script: name another folder, or remove it")
        if planned.get(path.name) != known[path.name]:
            raise UserError(
                f"{path} is of another selection of clips (more of them, another seed or"
                " --shard_size): name another folder, or remove it"
            )


def write(shard: Shard) -> Written:
    """Write one shard and give it its name; in a worker process."""
    temporary = Path(shard.temporary)
    try:
        with tarfile.TarFile(temporary, "w", format=tarfile.USTAR_FORMAT, copybufsize=COPY) as tar:
            for sample in shard.samples:
                problem = _add(tar, sample)
                if problem:
                    return Written(shard.name, problem)
        # tarfile pads to 10,240 bytes; the end mark of two blocks is all that the form asks for.
        os.truncate(temporary, shard.tar_bytes)
        publish(temporary, Path(shard.final))
        return Written(shard.name)
    except OSError as error:
        return Written(shard.name, str(error), disk_full=is_disk_full(error))
    finally:
        temporary.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, sample: Sample) -> str:
    """Add a sample's members; what is wrong with it, or nothing."""
    try:
        with open(sample.path, "rb") as file:
            if os.fstat(file.fileno()).st_size != sample.size:
                return f"{sample.path} changed while it was read: run again, into a new folder"
            tar.addfile(_member(sample.key + SUFFIX, sample.size), file)
    except FileNotFoundError:
        return f"{sample.path} is gone since it was looked at: run again, into a new folder"
    except OSError as error:
        if is_disk_full(error):
            raise
        return f"{sample.path} cannot be read ({error}): run again"
    for suffix, data in ((".cls", sample.cls), (".json", sample.json)):
        if data:
            tar.addfile(_member(sample.key + suffix, len(data)), io.BytesIO(data))
    return ""


def _member(name: str, size: int) -> tarfile.TarInfo:
    # No times and owners: the same clips give the same bytes.
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _crashed(shard: Shard, how: str) -> Written:
    return Written(shard.name, how)
