"""README, the docs and the code agree, and the demo runs."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests import docs_tables
from tests.scripts import ROOT, next_commands, run

README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))


def test_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.encode()) <= 12_000
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", docs_tables.PAGES, ids=lambda page: page.name)
def test_tables_in_the_docs_are_those_of_the_code(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert docs_tables.renewed(text) == text, "run: python -m tests.docs_tables"


def test_every_script_has_a_table_of_its_options() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in docs_tables.PAGES)
    shown = re.findall(r"^<!-- options (\S+) -->$", pages, re.MULTILINE)
    assert sorted([*shown, "demo.py"]) == SCRIPTS


@pytest.mark.slow
def test_demo_and_the_examples_of_its_output_in_the_docs(tmp_path: Path) -> None:
    done = run("demo.py", "--out", "shown", cwd=tmp_path, timeout=500)
    assert done.code == 0, done.err
    assert "all steps wrote the expected files" in done.err
    for script in SCRIPTS:
        assert script == "demo.py" or f"/{script} " in done.err
    assert len(next_commands(done.err)) >= 4
    for left in ("sheet.png", "ava_kinetics_csv/annotations_preview.png"):
        assert (tmp_path / "shown" / left).stat().st_size > 1000
    for page in docs_tables.PAGES:  # two jobs: lines may come in another order
        text = page.read_text(encoding="utf-8")
        now = docs_tables.renewed(text, tmp_path / "shown")
        assert sorted(now.splitlines()) == sorted(text.splitlines()), (
            "run: python demo.py --out D; python -m tests.docs_tables D"
        )


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def test_imports_are_those_that_requirements_name() -> None:
    """A package that a script imports and no requirement names fails on a fresh machine only."""
    names = {
        re.split(r"[\[>=<]", line)[0].strip().lower()
        for name in ("requirements.txt", "requirements-loader.txt")
        for line in (ROOT / name).read_text().splitlines()
        if line.strip() and not line.startswith(("#", "-r "))
    }
    modules = {"ffmpeg-python": "ffmpeg", "pillow": "pil", "imageio-ffmpeg": "imageio_ffmpeg"}
    known = {modules.get(name, name.replace("-", "_")) for name in names}
    optional = {"distributed", "cloudpickle", "torch", "decord", "cv2", "torchcodec", "deno"}
    for path in [
        *ROOT.glob("*.py"),
        *(ROOT / "utils").rglob("*.py"),
        *(ROOT / "clipreader").rglob("*.py"),
    ]:
        for module in imported_modules(path):
            own = (ROOT / f"{module}.py").exists() or module in (
                "utils",
                "clipreader",
                "tests",
                "benchmarks",
            )
            if not own and module not in sys.stdlib_module_names and module not in optional:
                assert module.lower() in known, f"{path.name} imports {module}"
