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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import DiskFull, is_disk_full, publish
from utils.parallel import run_in_processes
from utils.process import sleep, stop_run
from utils.progress import Progress
from utils.report import ReportFile, read_report
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

    @property
    def content(self) -> str:
        """A digest of all that the shard's bytes hang on, but the clips' own."""
        digest = hashlib.sha256()
        for each in self.samples:
            digest.update(f"{each.key} {each.size}\n".encode() + each.cls + each.json)
        return digest.hexdigest()


@dataclass(frozen=True)
class Written:
    """What came of a shard: nothing to say, or why it was not written. `gone`: over which clip."""

    shard: Shard
    problem: str = ""
    gone: str = ""
    disk_full: bool = False


def webdataset(job: Job) -> list[Path]:
    """Write what is not there yet. Raises UserError, DiskFull, Stopped."""
    shards = [s for split in job.choice.used_splits() for s in plan(job, split)]
    memory = job.out / MEMORY_NAME
    known = {row[0]: row[3] for row in read_report(memory, MEMORY_COLUMNS)}
    planned = {shard.name: shard.content for shard in shards}
    _check_folder(job.out, planned, known)
    missing = [shard for shard in shards if not _is_there(shard, known.get(shard.name))]
    job.tell(f"shards       {len(shards):,}, {len(shards) - len(missing):,} of them there")
    with (
        ReportFile(memory, MEMORY_COLUMNS) as report,
        Progress(len(missing), "shard", quiet=job.quiet) as progress,
    ):
        # Before they are written: a run that is killed must know its own shards again.
        new = [shard for shard in missing if known.get(shard.name) != planned[shard.name]]
        report.append_all((s.name, len(s.samples), s.tar_bytes, planned[s.name]) for s in new)
        for done in run_in_processes(write, missing, job.num_jobs, _crashed):
            if done.disk_full:
                stop_run()
                raise DiskFull(job.out)
            progress.add("not written" if done.problem else "written")
            if done.problem:
                job.gone.append(done.gone or done.shard.final)
                progress.failure("not written", done.shard.name, done.problem)
    sleep(0)
    return [Path(shard.final) for shard in shards if os.path.exists(shard.final)]


def plan(job: Job, split: str) -> list[Shard]:
    """The shards of a split, shuffled by the seed, each at most `job.shard_size` bytes."""
    shards: list[Shard] = []
    samples: list[Sample] = []
    size = END

    def close() -> None:
        name = f"{split}-{len(shards):06d}.tar"
        shards.append(Shard(str(job.out / name), str(job.workspace / name), tuple(samples)))

    for at in shuffled(job.choice, job.choice.chosen(split), job.seed):
        sample = _sample(job.choice, at, job.clips)
        if END + sample.tar_bytes > job.shard_size:
            raise UserError(
                f"{sample.path} needs {END + sample.tar_bytes:,} bytes: more than --shard_size"
                f" {job.shard_size:,}"
            )
        if size + sample.tar_bytes > job.shard_size:
            close()
            samples, size = [], END
        samples.append(sample)
        size += sample.tar_bytes
    close()
    return shards


def _sample(choice: Choice, at: int, clips: Path) -> Sample:
    name, number = choice.rows.names[at], choice.numbers[at]
    path = str(clips / (name + SUFFIX))
    known = known_of(choice, at, path)
    text = json.dumps({key: known[key] for key in KNOWN}, ensure_ascii=False)
    # webdataset takes what stands before the first dot for the sample's key.
    key = name.replace(".", "_")
    cls = b"" if number < 0 else str(number).encode()
    return Sample(key, path, choice.sizes[at], cls, text.encode())


def _is_there(shard: Shard, known: str | None) -> bool:
    if known != shard.content or not os.path.exists(shard.final):
        return False
    return os.path.getsize(shard.final) == shard.tar_bytes


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
                    return Written(shard, problem=problem, gone=sample.key)
        # tarfile pads to 10,240 bytes; the end mark of two blocks is all that the form asks for.
        os.truncate(temporary, shard.tar_bytes)
        publish(temporary, Path(shard.final))
        return Written(shard)
    except OSError as error:
        return Written(shard, problem=str(error), disk_full=is_disk_full(error))
    finally:
        temporary.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, sample: Sample) -> str:
    """Add a sample's members; what is wrong with it, or nothing."""
    try:
        with open(sample.path, "rb") as file:
            if os.fstat(file.fileno()).st_size != sample.size:
                return f"{sample.path} changed while it was read: run again"
            tar.addfile(_member(sample.key + SUFFIX, sample.size), file)
    except FileNotFoundError:
        return f"{sample.path} is gone since it was looked at: run again"
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
    return Written(shard, problem=how)
