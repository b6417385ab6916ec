"""The CVDF mirror's and the official lists' layout on the stand-in's plain server.

    mirror = Mirror(standin)
    mirror.add("700_2020", "val", "tap dancing", {"abcdefghijk_000001_000011.mp4": data})
    mirror.publish(folder / "kinetics_csv")
    main(["--source", "cvdf", "--mirror_base", mirror.base, ...])

Archives are made with Python's tarfile, and not with anything of this project's.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from tests.standin.server import StandIn

CVDF = "https://s3.amazonaws.com/kinetics/"  # what the published path lists begin with
DATASETS = ("400", "600", "700_2020")
SPLITS = ("train", "val", "test")
Content = bytes | tarfile.TarInfo


def make_tar(members: Iterable[tuple[str, Content]], *, zipped: bool = True) -> bytes:
    """A tar of files, and of whatever a given TarInfo is (a link, a device, a folder)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(data.getvalue(), 1) if zipped else data.getvalue()


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is no file: tarfile.SYMTYPE, LNKTYPE, CHRTYPE, DIRTYPE, ..."""
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


class Mirror:
    """Archives by class or by part, their path lists, and the official lists that go with them."""

    def __init__(self, standin: StandIn, prefix: str = "kinetics mirror") -> None:
        self.standin, self.prefix = standin, prefix
        self.base = f"{standin.root}/{quote(prefix)}/"
        self.rows: dict[tuple[str, str], list[tuple[str, str]]] = {}  # (label, clip)
        self.urls: dict[tuple[str, str], list[str]] = {}

    def list_clip(self, dataset: str, split: str, label: str, clip: str) -> None:
        """A row of an official list: `clip` is <id>_<start>_<end>."""
        self.rows.setdefault((dataset, split), []).append((label, clip))

    def add_archive(self, dataset: str, split: str, file: str, data: bytes) -> str:
        """Serves an archive and lists it; the path that requests and knobs know it by."""
        path = f"/{self.prefix}/{dataset}/{split}/{file}"
        self.standin.add_file(path, data)
        self.urls.setdefault((dataset, split), []).append(f"{CVDF}{dataset}/{split}/{file}")
        return path

    def add_replacements(self, data: bytes) -> str:
        path = f"/{self.prefix}/400/replacement_for_corrupted_k400.tgz"
        self.standin.add_file(path, data)
        return path

    def add_class(
        self,
        dataset: str,
        split: str,
        label: str,
        clips: Mapping[str, bytes],
        *,
        number: int = 1,
        zipped: bool = True,
        more: Iterable[tuple[str, Content]] = (),
    ) -> str:
        """A class's archive with these clips, which are listed too; `more` members come first.

        `number` is the class's place among the sorted labels, which Kinetics-700 counts by.
        """
        for clip in clips:
            self.list_clip(dataset, split, label, clip)
        members = [*more, *((f"{label}/{clip}.mp4", data) for clip, data in clips.items())]
        names = {"700_2020": f"k700_{split}_{number:03d}.tar.gz", "600": f"{label}.tar.gz"}
        return self.add_archive(dataset, split, names[dataset], make_tar(members, zipped=zipped))

    def publish(self, lists_folder: Path) -> None:
        """Serves the path lists; writes the official lists to where they are looked for."""
        lists_folder.mkdir(exist_ok=True)
        for dataset in DATASETS:
            for split in SPLITS:
                urls = self.urls.get((dataset, split), [])
                name = {"400": "k400", "600": "k600", "700_2020": "k700_2020"}[dataset]
                path = f"/{self.prefix}/{dataset}/{split}/{name}_{split}_path.txt"
                self.standin.add_file(path, "".join(f"{url}\n" for url in urls).encode())
                lines = ["label,youtube_id,time_start,time_end,split"]
                for label, clip in self.rows.get((dataset, split), []):
                    times = f"{int(clip[12:18])},{int(clip[19:25])}"
                    lines.append(f'"{label}",{clip[:11]},{times},{split}')
                file = lists_folder / f"kinetics-{dataset}_{split}.csv"
                file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def reads(self) -> list[str]:
        """The archives that were asked for, in order, by their file names."""
        asked = [r for r in self.standin.requests(target="file", method="GET")]
        return [r.youtube_id.rsplit("/", 1)[-1] for r in asked if not r.path.endswith(".txt")]
