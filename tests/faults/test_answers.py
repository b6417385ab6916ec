"""Groups 6, 7 and 8: bodies, answers, and what a network can do. Every case is a row of a table.

Many faults share a run, one video each: what a row promises is the reason in the report after the
faulty run. An empty reason means that the clip came all the same.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeSource
from tests.faults.promise import SMALL, Lab, keeps_promise

Case = tuple[dict[str, Any], str]
FFMPEG = {"client": "ffmpeg"}  # the way by sections; without it the whole video meets the fault too

BODIES: dict[str, Case] = {
    "short______": ({"cut_after": 9000}, "network"),
    "short_once_": ({"cut_after": 9000, "times": 1}, ""),
    "no_length__": ({"truncate": 9000, "no_length": True}, "truncated"),
    "longer_____": ({"longer": 5000}, ""),
    "empty______": ({"truncate": 0, "no_range": True}, "network"),
    "empty_once_": ({"truncate": 0, "no_range": True, **FFMPEG}, ""),
    "endless____": ({"endless": True, "no_range": True, **FFMPEG}, ""),
    "gzipped____": ({"gzip": True}, ""),
}
NEVER: dict[str, Case] = {
    "endless____": ({"endless": True, "no_range": True, "throttle": 30_000}, "timeout"),
    "byte_by_byt": ({"throttle": 1}, "timeout"),
    "silent_____": ({"stall_after": 0}, "timeout"),
    "silent_api_": ({"stall_after": 0, "target": "player"}, "timeout"),
}
ANSWERS: dict[str, Case] = {
    "answer_403_": ({"status": 403}, "forbidden"),
    "answer_404_": ({"status": 404}, "network"),
    "answer_410_": ({"status": 410}, "network"),
    "answer_500_": ({"status": 500}, "network"),
    "once_503___": ({"status": 503, "times": 1}, ""),
    "once_429___": ({"status": 429, "times": 1}, ""),
    "wait_429___": ({"status": 429, "retry_after": 1, "times": 1}, ""),
    "loops______": ({"redirect": "loop"}, "network"),
    "web_page___": ({"html": True}, "undecodable"),
}
API: dict[str, Case] = {
    "api_403____": ({"status": 403}, "forbidden"),
    "api_404____": ({"status": 404}, "network"),
    "api_500____": ({"status": 500}, "network"),
    "api_once503": ({"status": 503, "times": 1}, ""),
    "api_loops__": ({"redirect": "loop"}, "network"),
    "api_page___": ({"html": True}, "network"),
    "api_broken_": ({"body": b'{"playabilityStatus": {"sta'}, "network"),
    "api_list___": ({"body": b"[]"}, "unknown"),
    "api_empty__": ({"body": b"{}"}, "unavailable"),
    "api_reset__": ({"reset": True}, "network"),
}


def set_up(lab: Lab, table: dict[str, Case], source: Path, **more: Any) -> None:
    for youtube_id, (knob, _) in table.items():
        lab.video(youtube_id, source)
        lab.standin.knobs(youtube_id, **(more | knob))


def came_as_promised(lab: Lab, table: dict[str, Case]) -> None:
    found = lab.reasons()
    messages = {row["youtube_id"]: row["message"] for row in lab.report().values()}
    wrong = {
        name: (found.get(name), "not", reason, messages.get(name))
        for name, (_, reason) in table.items()
        if found.get(name) != reason
    }
    assert not wrong, wrong


@pytest.mark.parametrize(
    ("table", "more"),
    [
        pytest.param(BODIES, {}, id="bodies"),
        pytest.param(ANSWERS, {}, id="answers"),
        pytest.param(API, {"target": "player"}, id="api"),
    ],
)
def test_what_a_server_says(
    table: dict[str, Case], more: dict[str, Any], lab: Lab, source: MakeSource
) -> None:
    set_up(lab, table, source(**SMALL), **more)
    done = lab.run("--n", "10")
    came_as_promised(lab, table)
    keeps_promise(lab, done, 1)
