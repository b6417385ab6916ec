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
from dataclasses import dataclass, field
from pathlib import Path

from utils.cli import plural
from utils.errors import DiskFull, UserError, is_disk_full
from utils.files import publish
from utils.parallel import run_in_processes
from utils.process import sleep
from utils.training.choosing import Candidate, shuffled
from utils.training.outputs import ListSet, facts_of

BLOCK = 512
END = 2 * BLOCK
SHARD_SIZE = 10**9  # bytes
COPY = 2**20  # bytes read at once
OWNER = slice(265, 297)  # where a tar's first header holds the name of its owner


@dataclass
class Shard:
    """A shard: its file, the folder of clips, its clips in their order.

    digest: of the clips' names, sizes and labels.
    """

    final: Path
    temporary: Path
    clips: Path
    rows: list[Candidate] = field(default_factory=list)
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
    missing = _missing_shards(files.out, shards)
    files.tell(f"shards       {len(shards):,}, {len(shards) - len(missing):,} of them existing")
    with Progress(len(missing), "shard", quiet=files.args.quiet) as progress:
        for name, problem in run_in_processes(
            write_shard, missing, files.args.num_jobs, lambda shard, how: (shard.final.name, how)
        ):
            progress.add("not written" if problem else "written")
            if problem:
                progress.failure("not written", name, problem)
                for row in shards[name].rows:
                    files.lose(row)
    sleep(0)
    files.written += [name for name in shards if (files.out / name).exists()]


def plan_shards(files: ListSet, split: str) -> list[Shard]:
    """Return the shards of a split, shuffled by the seed, each at most --shard_size bytes."""
    shards: list[Shard] = []
    most = files.args.shard_size or SHARD_SIZE
    for row in shuffled(files.choice.chosen(split), files.args.seed):
        members = members_of(row)
        sizes = [row.bytes, *map(len, members.values())]
        tar_bytes = sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes)
        if END + tar_bytes > most:
            needs = f"{row.clip.name} needs {END + tar_bytes:,}"
            raise UserError(f"--shard_size {most:,} is too small: {needs}")
        if not shards or shards[-1].tar_bytes + tar_bytes > most:
            name = f"{split}-{len(shards):06d}.tar"
            shards.append(Shard(files.out / name, files.workspace / name, files.clips))
        shard = shards[-1]
        digest = hashlib.blake2b(shard.digest.encode(), digest_size=15)
        digest.update(f"{key_of(row)} {row.bytes}\n".encode() + b"".join(members.values()))
        shard.digest = digest.hexdigest()
        shard.rows.append(row)
        shard.tar_bytes += tar_bytes
    return shards


def key_of(row: Candidate) -> str:
    """Return the key of a clip: what precedes the first dot in the names of its members."""
    return row.clip.name.replace(".", "_")


def members_of(row: Candidate) -> dict[str, bytes]:
    """Return what a shard holds of a clip beside its file, by suffix."""
    members = {} if row.number is None else {".cls": str(row.number).encode()}
    text = json.dumps(facts_of(row), ensure_ascii=False)
    return members | {".json": text.encode(errors="surrogateescape")}


def _check_workers(split: str, shards: Sequence[Shard], workers: int | None) -> None:
    """Raise UserError if a worker would get no shard, because it would end or have no epoch."""
    if workers is not None and len(shards) < workers:
        clips = sum(len(shard.rows) for shard in shards)
        size = sum(shard.tar_bytes for shard in shards) // (2 * workers) // 1000 * 1000
        advice = f"use --shard_size {size}" if clips >= workers else "use fewer workers"
        have = f"{plural(len(shards), 'shard')} of {plural(clips, 'clip')}"
        raise UserError(f"{split} has {have}, fewer than --workers {workers}: {advice}")


def _missing_shards(out: Path, shards: Mapping[str, Shard]) -> list[Shard]:
    """Return the shards that no earlier run made. Raises UserError if the folder has other shards.

    Two sets are never mixed, because a reader takes all shards in the folder.
    """
    missing = dict(shards)
    for path in sorted(out.glob("*-[0-9][0-9][0-9][0-9][0-9][0-9].tar")):
        with path.open("rb") as file:
            header = file.read(BLOCK)
        if len(header) < BLOCK:
            continue  # no tar: it is written again
        shard = shards.get(path.name)
        if shard is None or header[OWNER].rstrip(b"\0") != shard.digest.encode():
            raise UserError(f"{path} is of another selection of clips: use another folder")
        if path.stat().st_size == shard.tar_bytes:
            del missing[path.name]
    return [*missing.values()]


def write_shard(shard: Shard) -> tuple[str, str]:
    """Write one shard, in a worker process; return its name, and what is wrong or "".

    Raises DiskFull.
    """
    name, temporary, owner = shard.final.name, shard.temporary, shard.digest
    try:
        with tarfile.TarFile(temporary, "w", format=tarfile.USTAR_FORMAT, copybufsize=COPY) as tar:
            for row in shard.rows:
                path = shard.clips / f"{row.clip.name}{row.suffix}"
                with path.open("rb") as file:
                    content = file.read(row.bytes + 1)
                if len(content) != row.bytes:
                    return name, f"{path} changed during the run: run again"
                for suffix, data in ({row.suffix: content} | members_of(row)).items():
                    # No times and owners, except in the first: the same clips give the same bytes.
                    member = tarfile.TarInfo(key_of(row) + suffix)
                    member.size, member.uname, owner = len(data), owner, ""
                    tar.addfile(member, io.BytesIO(data))
        # tarfile pads to 10,240 bytes; the format requires two empty blocks only.
        os.truncate(temporary, shard.tar_bytes)
        publish(temporary, shard.final)
        return name, ""
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(shard.final.parent) from error
        return name, f"{error.filename or shard.final}: {error.strerror or error}: run again"
    finally:
        temporary.unlink(missing_ok=True)
