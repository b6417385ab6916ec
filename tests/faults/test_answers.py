"""Groups 6, 7 and 8: bodies, answers, and what a network can do. Every case is a row of a table.

Many faults share a run, one video each: what a row promises is the reason in the report after the
faulty run. An empty reason means that the clip came all the same.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeSource
from tests.faults.promise import SMALL, Lab, keeps_promise

Case = tuple[dict[str, Any], str]
FFMPEG = {"client": "ffmpeg"}  # the way by sections; without it the whole video meets the fault too
WHOLE = {"client": "native", "no_range": True}  # the whole video, and no section comes

BODIES: dict[str, Case] = {
    "short______": ({"cut_after": 9000, "no_range": True}, "network"),
    "short_once_": ({"cut_after": 9000, "times": 1}, ""),
    "no_length__": ({"truncate": 9000, "no_length": True}, "truncated"),
    "no_range___": ({"no_range": True}, ""),
    "length_less": ({"no_length": True}, ""),
    "in_part____": ({"truncate": 9000, **FFMPEG}, ""),
    "stalls_once": ({"stall_after": 9000, "times": 1, **FFMPEG}, ""),
    "slowed_down": ({"throttle": 100_000, "only": "open_ended"}, ""),
    "longer_____": ({"longer": 5000}, ""),
    "empty______": ({"truncate": 0, "no_range": True}, "network"),
    "empty_once_": ({"truncate": 0, "no_range": True, **FFMPEG}, ""),
    "endless____": ({"endless": True, "no_range": True, **FFMPEG}, ""),
    "gzipped____": ({"gzip": True}, ""),
}
NEVER: dict[str, Case] = {
    "endless____": ({"endless": True, "throttle": 30_000, **WHOLE}, "timeout"),
    "byte_by_byt": ({"throttle": 1}, "timeout"),
    "silent_____": ({"stall_after": 0}, "timeout"),
    "silent_api_": ({"stall_after": 0, "target": "player"}, "timeout"),
}
ANSWERS: dict[str, Case] = {
    "answer_403_": ({"status": 403}, "forbidden"),
    "answer_404_": ({"status": 404}, "network"),
    "answer_410_": ({"status": 410}, "network"),
    "answer_500_": ({"status": 500}, "network"),
    "no_section_": ({"status": 403, **FFMPEG}, ""),
    "once_503___": ({"status": 503, "times": 1}, ""),
    "once_429___": ({"status": 429, "times": 1}, ""),
    "wait_429___": ({"status": 429, "retry_after": 1, "times": 1}, ""),
    "loops______": ({"redirect": "loop"}, "network"),
    "other_host_": ({"redirect": "/elsewhere.mp4"}, ""),
    "web_page___": ({"html": True}, "undecodable"),
    "section_web": ({"html": True, **FFMPEG}, ""),
}
API: dict[str, Case] = {
    "api_403____": ({"status": 403}, "forbidden"),
    "api_404____": ({"status": 404}, "network"),
    "api_500____": ({"status": 500}, "network"),
    "api_once503": ({"status": 503, "times": 1}, ""),
    "api_loops__": ({"redirect": "loop"}, "network"),
    "api_page___": ({"html": True}, "network"),
    "api_broken_": ({"body": b'{"playabilityStatus": {"sta'}, "network"),
    "api_list___": ({"body": b"[]"}, "network"),
    "api_empty__": ({"body": b"{}"}, "network"),
    "api_reset__": ({"reset": True}, "network"),
}


IN_CI = (  # one of each kind: an error, one that passes, a body that is none, a lost connection
    *("short______", "no_length__", "no_range___", "stalls_once", "longer_____", "empty______"),
    *("endless____", "gzipped____", "answer_403_", "answer_500_", "no_section_", "wait_429___"),
    *("loops______", "other_host_", "web_page___", "api_403____", "api_once503", "api_page___"),
    *("api_broken_", "api_reset__"),
)


def some(table: dict[str, Case], in_ci: bool) -> dict[str, Case]:
    return {name: case for name, case in table.items() if (name in IN_CI) == in_ci}


def set_up(
    lab: Lab, table: dict[str, Case], names: Iterable[str], source: Path, **more: Any
) -> None:
    """Make a video for each of the rows `names` of a table, and its fault."""
    other_host = lab.standin.add_file("/elsewhere.mp4", source).replace("127.0.0.1", "localhost")
    order = list(table)
    for youtube_id in names:
        knob, _ = table[youtube_id]
        # Every second row has video and audio at two addresses.
        lab.video(youtube_id, source, progressive=order.index(youtube_id) % 2 == 0)
        if knob.get("redirect", "").endswith(".mp4"):
            knob = {**knob, "redirect": other_host}
        if knob.get("client") == "native":
            lab.standin.knobs(youtube_id, status=403, client="ffmpeg")
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


SOME = pytest.mark.parametrize(
    "in_ci",
    [pytest.param(True, id="some"), pytest.param(False, id="the others", marks=pytest.mark.slow)],
)


@SOME
def test_bodies(in_ci: bool, lab: Lab, source: MakeSource) -> None:
    bodies = some(BODIES, in_ci)
    set_up(lab, BODIES, bodies, source(**SMALL))
    done = lab.run("--n", "6")
    came_as_promised(lab, bodies)
    keeps_promise(lab, done, 1 if in_ci else 0)


@SOME
def test_answers(in_ci: bool, lab: Lab, source: MakeSource) -> None:
    """Of the servers of the data and of the API, in one run: what takes long is the waiting."""
    answers, api = some(ANSWERS, in_ci), some(API, in_ci)
    set_up(lab, ANSWERS, answers, source(**SMALL))
    set_up(lab, API, api, source(**SMALL), target="player")
    done = lab.run("--n", "8")
    came_as_promised(lab, answers | api)
    keeps_promise(lab, done, 1)


@pytest.mark.slow
def test_what_never_comes_to_an_end(lab: Lab, source: MakeSource) -> None:
    set_up(lab, NEVER, NEVER, source(**SMALL))
    done = lab.run("--n", "4", "--timeout", "8")
    came_as_promised(lab, NEVER)
    keeps_promise(lab, done, 1)


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ("http://127.0.0.1:1/", "network"),
        pytest.param("http://nowhere.invalid/", "network", marks=pytest.mark.slow),
        pytest.param("https://{tls}/", "network", marks=pytest.mark.slow),
        pytest.param("http://127.0.0.1:{silent}/", "timeout", marks=pytest.mark.slow),
    ],
    ids=["refused", "no such name", "TLS", "silent"],
)
def test_a_server_that_cannot_be_reached(
    base: str, reason: str, lab: Lab, source: MakeSource
) -> None:
    """Through yt-dlp's generic extractor, as a lab's own mirror of whole videos is."""
    lab.video("unreachable", source(**SMALL))
    with silent_port() as silent:
        address = base.format(tls=lab.standin.api_host, silent=silent)
        lab.more = ["--url_base", address, "--ytdlp_args", ""]
        done = lab.run("--timeout", "8" if reason == "timeout" else "60")
    assert lab.reasons() == {"unreachable": reason}, lab.report()

    def bring_back() -> None:
        lab.more = ["--url_base", lab.standin.url_base]

    keeps_promise(lab, done, 1, mend=bring_back)
