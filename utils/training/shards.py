"""Write webdataset shards, `{split}-000000.tar` and on, in parallel, each complete or absent.

Which clip goes into which shard depends on the clips, their sizes and the seed alone, so a rerun of
the same command writes only the shards that are not there. A shard says what it holds: the first
member's owner is a digest of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.cli import plural
from utils.errors import DiskFull, UserError, is_disk_full
from utils.files import publish
from utils.parallel import run_in_processes
from utils.process import STOP, sleep
from utils.training.choosing import Candidate, shuffled
from utils.training.outputs import ListSet, known_of

BLOCK = 512
END = 2 * BLOCK
COPY = 2**20  # bytes read at once
IN_SHARDS = ("clip", "youtube_id", "time_start", "time_end", "split", "label", "number", "version")
OWNER = slice(265, 297)  # where a tar's first header holds the name of its owner


@dataclass(frozen=True)
class ShardSample:
    """One clip of a shard: its file, the size it had, and the other two members."""

    clip: str
    path: str
    size: int
    cls: bytes  # b"" without a label
    json: bytes

    @property
    def key(self) -> str:
        # webdataset takes what stands before the first dot for the sample's key.
        return self.clip.replace(".", "_")

    @property
    def tar_bytes(self) -> int:
        sizes = [self.size, len(self.json), *([len(self.cls)] if self.cls else [])]
        return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes)


@dataclass
class Shard:
    """A shard: its name, its clips in their order, a digest of all but these clips' bytes."""

    name: str
    rows: list[Candidate] = field(default_factory=list)
    tar_bytes: int = END
    digest: str = ""


@dataclass(frozen=True)
class ShardTask:
    """A shard for a worker process to write."""

    final: str
    temporary: str
    digest: str
    samples: tuple[ShardSample, ...]


def webdataset(files: ListSet) -> list[Path]:
    """Write the shards that are not there yet. Raises UserError, DiskFull, Stopped."""
    from utils.run import Progress  # it knows of clusters: not for every run

    splits = {split: plan_shards(files, split) for split in files.choice.used_splits()}
    shards = {shard.name: shard for of_split in splits.values() for shard in of_split}
    for split, of_split in splits.items():
        _check_workers(split, of_split, files.args.workers)
    there = _shards_there(files.out, shards)
    missing = [shard for name, shard in shards.items() if name not in there]
    files.tell(f"shards       {len(shards):,}, {len(there):,} of them existing")

    def task(shard: Shard) -> ShardTask:
        samples = tuple(_sample(files, row) for row in shard.rows)
        final, temporary = str(files.out / shard.name), str(files.workspace / shard.name)
        return ShardTask(final, temporary, shard.digest, samples)

    with Progress(len(missing), "shard", quiet=files.args.quiet) as progress:
        # Tasks are drawn as workers become free.
        tasks = map(task, missing)
        for done, problem, disk_full in run_in_processes(
            write_shard, tasks, files.args.num_jobs, _shard_crashed
        ):
            if disk_full:
                STOP.set()
                raise DiskFull(files.out)
            progress.add("not written" if problem else "written")
            if problem:
                files.gone.extend(row.name for row in shards[done].rows)
                progress.failure("not written", done, problem)
    sleep(0)
    return [path for name in shards if (path := files.out / name).exists()]


def plan_shards(files: ListSet, split: str) -> list[Shard]:
    """The shards of a split, shuffled by the seed, each at most --shard_size bytes."""
    shards: list[Shard] = []
    most = files.args.shard_size
    for row in shuffled(files.choice.chosen(split), files.args.seed):
        sample = _sample(files, row)
        if END + sample.tar_bytes > most:
            raise UserError(
                f"{sample.path} needs {END + sample.tar_bytes:,} bytes: more than --shard_size"
                f" {most:,}"
            )
        if not shards or shards[-1].tar_bytes + sample.tar_bytes > most:
            shards.append(Shard(f"{split}-{len(shards):06d}.tar"))
        shard, known = shards[-1], f"{sample.key} {sample.size}\n".encode()
        digest = hashlib.blake2b(shard.digest.encode(), digest_size=15)
        digest.update(known + sample.cls + sample.json)
        shard.digest = digest.hexdigest()
        shard.rows.append(row)
        shard.tar_bytes += sample.tar_bytes
    return shards


def _check_workers(split: str, shards: Sequence[Shard], workers: int | None) -> None:
    """Raises UserError where a worker would get no shard: it would end, or have its epoch empty."""
    if workers is not None and len(shards) < workers:
        bytes_ = sum(shard.tar_bytes for shard in shards)
        clips = sum(len(shard.rows) for shard in shards)
        advice = f"give --shard_size {bytes_ // (2 * workers) // 1000 * 1000:,}".replace(",", "")
        if clips < workers:
            advice = "use fewer workers"
        raise UserError(
            f"{split} has {plural(len(shards), 'shard')} of {plural(clips, 'clip')}, fewer than"
            f" --workers {workers}: {advice}"
        )


def _sample(files: ListSet, row: Candidate) -> ShardSample:
    known = known_of(files.choice, row, "")
    number = known["number"]
    cls = str(number).encode() if isinstance(number, int) else b""
    path = str(files.clips / (row.name + row.suffix))
    text = json.dumps({key: known[key] for key in IN_SHARDS}, ensure_ascii=False).encode(
        errors="surrogateescape"
    )
    return ShardSample(row.name, path, row.bytes, cls, text)


def _shards_there(out: Path, shards: Mapping[str, Shard]) -> set[str]:
    """The shards that an earlier run made. Raises UserError for those of another selection.

    They are never mixed, because a reader takes all that the folder holds.
    """
    there = set()
    for path in sorted(out.glob("*-[0-9][0-9][0-9][0-9][0-9][0-9].tar")):
        with path.open("rb") as file:
            header = file.read(BLOCK)
        if len(header) < BLOCK:
            continue  # no tar, of whomever
        owner = header[OWNER].rstrip(b"\0").decode("ascii", "replace")
        if not re.fullmatch(r"[0-9a-f]{30}", owner):
            raise UserError(f"{path} is not of this script: name another folder, or remove it")
        shard = shards.get(path.name)
        if shard is None or shard.digest != owner:
            raise UserError(
                f"{path} is of another selection of clips (more of them, another seed or"
                " --shard_size): name another folder, or remove it"
            )
        if path.stat().st_size == shard.tar_bytes:
            there.add(path.name)
    return there


def write_shard(task: ShardTask) -> tuple[str, str, bool]:
    """Write one shard and give it its name; in a worker process.

    Gives its name, what is wrong if it was not written, and whether the disk is full.
    """
    temporary, final, end = Path(task.temporary), Path(task.final), END
    try:
        with tarfile.TarFile(temporary, "w", format=tarfile.USTAR_FORMAT, copybufsize=COPY) as tar:
            for number, sample in enumerate(task.samples):
                problem = _add(tar, sample, "" if number else task.digest)
                end += sample.tar_bytes
                if problem:
                    return final.name, problem, False
        # tarfile pads to 10,240 bytes; the end mark of two blocks is all that the form asks for.
        os.truncate(temporary, end)
        publish(temporary, final)
        return final.name, "", False
    except OSError as error:
        return final.name, str(error), is_disk_full(error)
    finally:
        temporary.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, sample: ShardSample, owner: str) -> str:
    """Add a sample's members; what is wrong with it, or nothing."""
    suffix = os.path.splitext(sample.path)[1]
    try:
        with open(sample.path, "rb") as file:
            if os.fstat(file.fileno()).st_size != sample.size:
                return f"{sample.path} changed while it was read: run again, into a new folder"
            tar.addfile(_member(sample.key + suffix, sample.size, owner), file)
    except FileNotFoundError:
        return f"{sample.path} was removed during the run: run again, into a new folder"
    except OSError as error:
        if is_disk_full(error):
            raise
        return f"{sample.path} cannot be read ({error}): run again"
    for kind, data in ((".cls", sample.cls), (".json", sample.json)):
        if data:
            tar.addfile(_member(sample.key + kind, len(data)), io.BytesIO(data))
    return ""


def _member(name: str, size: int, owner: str = "") -> tarfile.TarInfo:
    # No times and owners: the same clips give the same bytes.
    member = tarfile.TarInfo(name)
    member.size, member.uname = size, owner
    return member


def _shard_crashed(task: ShardTask, how: str) -> tuple[str, str, bool]:
    return os.path.basename(task.final), how, False
