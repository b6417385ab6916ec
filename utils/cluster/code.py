"""The run's own code, as it goes to the workers of a cluster, which need no checkout."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def pack_code() -> bytes:
    """A zip of the scripts, `utils` and requirements.txt."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in [*ROOT.glob("*.py"), *(ROOT / "utils").rglob("*.py")]:
            archive.write(path, path.relative_to(ROOT))
        archive.write(ROOT / "requirements.txt", "requirements.txt")
    return packed.getvalue()
