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
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from utils.cli import plural
from utils.errors import DiskFull, UserError, is_disk_full
from utils.files import publish
from utils.parallel import run_in_processes
from utils.process import sleep
from utils.training.choosing import Candidate, shuffled
from utils.training.outputs import ListSet, known_of

BLOCK = 512
END = 2 * BLOCK
SHARD_SIZE = 10**9  # bytes
COPY = 2**20  # bytes read at once
IN_SHARDS = ("clip", "youtube_id", "time_start", "time_end", "split", "label", "number", "version")
OWNER = slice(265, 297)  # where a tar's first header holds the name of its owner


class ShardSample(NamedTuple):
    """One clip of a shard: its key, its file, the size of that, and further members by suffix."""

    key: str
    path: str
    size: int
    members: Mapping[str, bytes]

    @property
    def tar_bytes(self) -> int:
        sizes = [self.size, *map(len, self.members.values())]
        return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes)


@dataclass
class Shard:
    """A shard: its file, its clips in their order, a digest of all but these clips' bytes.

    samples: of the clips, made just before they are written, because they take more memory.
    """

    final: Path
    temporary: Path
    rows: list[Candidate] = field(default_factory=list)
    samples: list[ShardSample] = field(default_factory=list)
    tar_bytes: int = END
    digest: str = ""


def webdataset(files: ListSet) -> None:
    """Write the shards that do not exist yet. Raises UserError, Stopped."""
    from utils.run import Progress  # imports the cluster module, which few runs need

    shards: dict[str, Shard] = {}
    for split in files.choice.used_splits():
        of_split = plan_shards(files, split)
        _check_workers(split, of_split, files.args.workers)
        shards |= {shard.final.name: shard for shard in of_split}
    existing = _existing_shards(files.out, shards)
    missing = [shard for name, shard in shards.items() if name not in existing]
    files.tell(f"shards       {len(shards):,}, {len(existing):,} of them existing")
    # A generator, because a shard is taken from it when a worker is free.
    tasks = (
        replace(shard, rows=[], samples=[_sample(files, row) for row in shard.rows])
        for shard in missing
    )
    with Progress(len(missing), "shard", quiet=files.args.quiet) as progress:
        for name, problem in run_in_processes(
            write_shard, tasks, files.args.num_jobs, lambda shard, how: (shard.final.name, how)
        ):
            progress.add("not written" if problem else "written")
            if problem:
                progress.failure("not written", name, problem)
                for row in shards[name].rows:
                    files.lose(row.name)
    sleep(0)
    files.written += [name for name in shards if (files.out / name).exists()]


def plan_shards(files: ListSet, split: str) -> list[Shard]:
    """Return the shards of a split, shuffled by the seed, each at most --shard_size bytes."""
    shards: list[Shard] = []
    most = files.args.shard_size or SHARD_SIZE
    for row in shuffled(files.choice.chosen(split), files.args.seed):
        sample = _sample(files, row)
        if (size := END + sample.tar_bytes) > most:
            raise UserError(f"--shard_size {most:,} is too small: {sample.path} needs {size:,}")
        if not shards or shards[-1].tar_bytes + sample.tar_bytes > most:
            name = f"{split}-{len(shards):06d}.tar"
            shards.append(Shard(files.out / name, files.workspace / name))
        shard, known = shards[-1], f"{sample.key} {sample.size}\n".encode()
        digest = hashlib.blake2b(shard.digest.encode(), digest_size=15)
        digest.update(known + b"".join(sample.members.values()))
        shard.digest = digest.hexdigest()
        shard.rows.append(row)
        shard.tar_bytes += sample.tar_bytes
    return shards


def _check_workers(split: str, shards: Sequence[Shard], workers: int | None) -> None:
    """Raise UserError if a worker would get no shard, because it would end or have no epoch."""
    if workers is not None and len(shards) < workers:
        clips = sum(len(shard.rows) for shard in shards)
        size = sum(shard.tar_bytes for shard in shards) // (2 * workers) // 1000 * 1000
        advice = f"use --shard_size {size}" if clips >= workers else "use fewer workers"
        have = f"{plural(len(shards), 'shard')} of {plural(clips, 'clip')}"
        raise UserError(f"{split} has {have}, fewer than --workers {workers}: {advice}")


def _sample(files: ListSet, row: Candidate) -> ShardSample:
    known = known_of(files, row)
    number = known["number"]
    cls = {".cls": str(number).encode()} if isinstance(number, int) else {}
    text = json.dumps({key: known[key] for key in IN_SHARDS}, ensure_ascii=False)
    members = cls | {".json": text.encode(errors="surrogateescape")}
    # webdataset takes what precedes the first dot of a name for the sample's key.
    key = row.name.replace(".", "_")
    return ShardSample(key, str(files.clips / (row.name + row.suffix)), row.bytes, members)


def _existing_shards(out: Path, shards: Mapping[str, Shard]) -> set[str]:
    """Return the shards that an earlier run made. Raises UserError for those of other clips.

    They are never mixed, because a reader takes all shards in the folder.
    """
    existing = set()
    for path in sorted(out.glob("*-[0-9][0-9][0-9][0-9][0-9][0-9].tar")):
        with path.open("rb") as file:
            header = file.read(BLOCK)
        if len(header) < BLOCK:
            continue  # no tar: it is written again
        shard = shards.get(path.name)
        if shard is None or header[OWNER].rstrip(b"\0") != shard.digest.encode():
            raise UserError(f"{path} is of another selection of clips: use another folder")
        if path.stat().st_size == shard.tar_bytes:
            existing.add(path.name)
    return existing


def write_shard(shard: Shard) -> tuple[str, str]:
    """Write one shard, in a worker process; return its name, and what is wrong or "".

    Raises DiskFull.
    """
    name, temporary = shard.final.name, shard.temporary
    try:
        with tarfile.TarFile(temporary, "w", format=tarfile.USTAR_FORMAT, copybufsize=COPY) as tar:
            for number, sample in enumerate(shard.samples):
                if problem := _add_sample(tar, sample, "" if number else shard.digest):
                    return name, problem
        # tarfile pads to 10,240 bytes; the format requires two empty blocks only.
        os.truncate(temporary, shard.tar_bytes)
        publish(temporary, shard.final)
        return name, ""
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(shard.final.parent) from error
        return name, str(error)
    finally:
        temporary.unlink(missing_ok=True)


def _add_sample(tar: tarfile.TarFile, sample: ShardSample, owner: str) -> str:
    """Add the members of a sample; return what is wrong with it, or ""."""
    suffix = os.path.splitext(sample.path)[1]
    try:
        with open(sample.path, "rb") as file:
            if os.fstat(file.fileno()).st_size != sample.size:
                return f"{sample.path} changed during the run: run again"
            tar.addfile(_member(sample.key + suffix, sample.size, owner), file)
    except OSError as error:
        if is_disk_full(error):
            raise
        return f"{sample.path} cannot be read ({error.strerror or error}): run again"
    for kind, data in sample.members.items():
        tar.addfile(_member(sample.key + kind, len(data)), io.BytesIO(data))
    return ""


def _member(name: str, size: int, owner: str = "") -> tarfile.TarInfo:
    # No times and owners: the same clips give the same bytes.
    member = tarfile.TarInfo(name)
    member.size, member.uname = size, owner
    return member
