"""Every test below tests/faults is part of `pytest -m faults_all`; `slow` ones run only there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.faults.promise import Lab
from tests.standin.server import StandIn

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis tries a few inputs in every run of CI, and many where the whole is asked for."""
    settings.register_profile("some", max_examples=25, deadline=None)
    settings.register_profile("many", max_examples=1500, deadline=None)
    settings.load_profile("many" if "faults_all" in config.option.markexpr else "some")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults_all)


@pytest.fixture
def lab(tmp_path: Path, standin: StandIn) -> Lab:
    return Lab(tmp_path, standin)
