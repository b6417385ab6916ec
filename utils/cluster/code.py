"""The run's own code, as it goes to the workers of a cluster, which need no checkout."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def own_script() -> str:
    """The script that runs, by its path in the checkout; empty for one that is not of the suite."""
    path = Path(sys.argv[0]).resolve()
    is_ours = path.suffix == ".py" and path.parent in (ROOT, ROOT / "benchmarks")
    return path.relative_to(ROOT).as_posix() if is_ours else ""


def pack_code(script: str) -> bytes:
    """A zip of the script, `utils` and requirements.txt."""
    files = [f for d in ("utils", "clipreader") for f in (ROOT / d).rglob("*.py")]
    files.append(ROOT / "requirements.txt")
    if script:
        files.append(ROOT / script)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.relative_to(ROOT))
    return packed.getvalue()
