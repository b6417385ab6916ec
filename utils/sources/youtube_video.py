"""One video: the tries, the sections or the whole, and what becomes of each of its clips.

Under `sources/youtube`. `youtube_commands` builds the lines that are run here, `youtube_errors`
says what their failures mean.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.clip import Clip, clip_window
from utils.files import disk_is_full, is_disk_full, publish
from utils.packages import UNEXPECTED, describe
from utils.process import Finished, Stopped, run_child, sleep
from utils.report import Result
from utils.sources.common import YOUTUBE, FetchOptions
from utils.sources.pace import Pace, Turn
from utils.sources.youtube_commands import (
    child_environment,
    extract_command,
    section_inputs,
    whole_command,
)
from utils.sources.youtube_errors import (
    BLOCKS,
    FFMPEG_REASONS,
    FetchError,
    classify,
    classify_ytdlp,
    is_for_good,
    survives_as_whole,
    ytdlp_message,
)
from utils.video.checks import check_clip
from utils.video.ffmpeg import Input, complaints, cut_command, file_url, last_line, read_source
from utils.video.probe import DURATION_TOLERANCE, BadClip, measure_end

TRIES = 3  # extractions for one video in one run, blocks not counted
SECTION_AGAIN = 50  # of so many videos that come whole, one is tried by section again
STICKY_AFTER = 3  # sections that failed in a row where the whole video came: then it comes first


class SectionLuck:
    """Counts the sections that failed where the whole video came; shared by the workers.

    After STICKY_AFTER in a row the whole video comes first; every SECTION_AGAIN videos a section
    is tried again, or a fault that has passed would cost a run of weeks ten times the bytes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._whole_first = 0

    def whole_first(self) -> bool:
        """Whether the next video should come whole; counts that it is asked."""
        with self._lock:
            if self._failed_in_a_row < STICKY_AFTER:
                return False
            self._whole_first += 1
            return self._whole_first % SECTION_AGAIN != 0

    def section_came(self) -> None:
        with self._lock:
            self._failed_in_a_row = 0

    def only_whole_came(self) -> None:
        with self._lock:
            self._failed_in_a_row += 1


class Budget:
    """The time that is left for a video; waiting for a turn does not use it up."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._deadline - time.monotonic()

    def add(self, seconds: float) -> None:
        self._deadline += seconds

    def require(self) -> float:
        """The seconds left, at least one. Raises FetchError (timeout) when there are none."""
        if self.left <= 0:
            raise FetchError("timeout", "took longer than --timeout")
        return max(1.0, self.left)


def fetch_video(
    clips: Sequence[Clip],
    options: FetchOptions,
    pace: Pace | None = None,
    luck: SectionLuck | None = None,
    turn_number: int = 0,
    record: Callable[[Result], None] | None = None,
) -> list[Result]:
    """Fetch all `clips` of one video; one result for each, fewer when the run is stopped.

    `turn_number` says which of the proxies takes the first try. `record` is given the result of a
    clip as soon as its file is in place, for its video may have more that take their time. Raises
    Stopped when nothing was finished.
    """
    video = _Video(clips, options, pace or Pace(), luck or SectionLuck(), turn_number)
    video.record = record
    try:
        video.folder = Path(
            tempfile.mkdtemp(prefix=f"{clips[0].youtube_id}-", dir=options.workspace)
        )
        video.fetch()
    except OSError as error:
        full = is_disk_full(error) or disk_is_full(options.out)
        message = f"{error.strerror or error}: {error.filename or options.out}"
        for clip in list(video.pending):
            video.finish(clip, "disk_full" if full else "unknown", message)
    except UNEXPECTED as error:
        for clip in list(video.pending):
            video.finish(clip, "unknown", describe(error))
    except Stopped:
        if not video.results:
            raise
    finally:
        shutil.rmtree(video.folder, ignore_errors=True)
    return video.results


class _Video:
    """The tries for one video, and what has become of its clips so far."""

    def __init__(
        self,
        clips: Sequence[Clip],
        options: FetchOptions,
        pace: Pace,
        luck: SectionLuck,
        turn_number: int,
    ) -> None:
        self.options, self.pace, self.luck = options, pace, luck
        self.folder = options.workspace / "none"
        self.turn_number = turn_number
        self.pending = list(clips)
        self.results: list[Result] = []
        self.attempts = 0
        self.media_blocks = 0
        self.record: Callable[[Result], None] | None = None
        self.started = time.monotonic()
        self.waited = 0.0
        self.budget = Budget(options.timeout * len(clips))

    def fetch(self) -> None:
        """Try until every clip is on disk or written off."""
        while self.pending:
            turn = self._wait_turn()
            self.attempts += 1
            before = len(self.pending)
            try:
                errors = self._attempt()
            except FetchError as error:
                errors = {clip.name: error for clip in self.pending}
            except BaseException:
                self.pace.unclear(turn)  # or a scout that is gone would be waited for, for ever
                raise
            if (block := self._met_block(errors)) and self.media_blocks <= TRIES:
                self.pace.blocked(turn, block)
                self.attempts -= 1  # nobody's clip fails for a block
                continue
            answered = len(self.pending) < before or any(map(is_for_good, errors.values()))
            (self.pace.passed if answered else self.pace.unclear)(turn)
            self._give_up(errors)
            if self.pending:
                # The wait grows with the tries, and is never the same for two workers.
                sleep(min(2.0**self.attempts, max(0.0, self.budget.left)) * random.uniform(0.5, 1))

    def _wait_turn(self) -> Turn:
        before = time.monotonic()
        turn = self.pace.wait_turn()
        waited = time.monotonic() - before
        self.waited += waited
        self.budget.add(waited)
        return turn

    def _met_block(self, errors: Mapping[str, FetchError]) -> str:
        """The reason of a block; empty if none was met.

        Blocks of the site never end. Blocks on the data of one video do, after some pauses, or
        that one video would hold up all others for ever.
        """
        blocks = [error for error in errors.values() if error.reason in BLOCKS]
        if not blocks:
            return ""
        self.media_blocks += not blocks[0].at_extraction
        return blocks[0].reason

    def _give_up(self, errors: Mapping[str, FetchError]) -> None:
        """Write off the clips for which another try is of no use, or of which there were enough."""
        for clip in list(self.pending):
            error = errors[clip.name]
            hopeless = error.reason in ("timeout", "cookies", "js_runtime", "disk_full", *BLOCKS)
            if is_for_good(error) or hopeless or self.attempts >= TRIES:
                self.finish(clip, error.reason, error.message)

    def finish(self, clip: Clip, reason: str, message: str = "", size: int = 0) -> None:
        """Say what has become of a clip."""
        self.pending.remove(clip)
        result = Result.of(
            clip,
            reason,
            self.options.source_name,
            attempts=self.attempts,
            seconds=time.monotonic() - self.started - self.waited,
            bytes=size,
            message=message,
        )
        self.results.append(result)
        if result.is_on_disk and self.record is not None:
            self.record(result)

    def _attempt(self) -> dict[str, FetchError]:
        """One extraction, and from it sections or the whole video; the errors of what is left."""
        proxies = self.options.proxies
        turn = self.turn_number + self.attempts - 1
        proxy = proxies[turn % len(proxies)] if proxies else None
        info, info_file = self._extract(proxy)
        errors: dict[str, FetchError] = {}
        inputs = section_inputs(info, self.options)
        # ffmpeg knows http:// proxies only, and goes past any other one without a word.
        reachable = proxy is None or proxy.startswith("http://")
        if inputs and reachable and not self.luck.whole_first():
            errors = self._cut_sections(info, inputs, proxy)
        if not any(survives_as_whole(errors.get(clip.name)) for clip in self.pending):
            return errors
        tried_sections = bool(errors)
        came = len(self.pending)
        try:
            errors |= self._cut_whole(info_file, proxy)
        except FetchError as error:
            # What a section told for good (past_end) stays told.
            lasting = {name: each for name, each in errors.items() if is_for_good(each)}
            return {clip.name: error for clip in self.pending} | lasting
        if tried_sections and len(self.pending) < came:
            self.luck.only_whole_came()
        return errors

    def _extract(self, proxy: str | None) -> tuple[dict[str, Any], Path]:
        """What yt-dlp knows of the video, and the file that it is kept in."""
        argv = extract_command(self.pending[0].youtube_id, self.options, self.folder, proxy)
        done = run_child(argv, timeout=self.budget.require(), env=child_environment(proxy))
        try:
            info = read_info(done, self.options.url_base)
        except FetchError as error:
            error.at_extraction = True
            raise
        info_file = self.folder / "info.json"
        info_file.write_text(done.stdout, encoding="utf-8")
        return info, info_file

    def _cut_sections(
        self, info: Mapping[str, Any], inputs: Sequence[Input], proxy: str | None
    ) -> dict[str, FetchError]:
        errors = {}
        for clip in list(self.pending):
            try:
                # Half of the time is kept for the whole video, which a slowed-down section needs.
                limit = min(self.budget.require(), self.options.timeout / 2)
                self._cut(clip, inputs, limit, proxy, claimed=info.get("duration"))
                self.luck.section_came()
            except FetchError as error:
                errors[clip.name] = error
        return errors

    def _cut_whole(self, info_file: Path, proxy: str | None) -> dict[str, FetchError]:
        whole = self._fetch_whole(info_file, proxy)
        errors = {}
        try:
            tool = self.options.ffmpeg
            end = measure_end(tool, whole, timeout=self.budget.require())
            source = Input(file_url(whole), {"protocol_whitelist": "file"})
            for clip in list(self.pending):
                try:
                    self._cut(clip, [source], self.budget.require(), proxy, end=end)
                except FetchError as error:
                    errors[clip.name] = error
        except BadClip as error:
            raise FetchError(error.reason, f"the whole video: {error.message}") from error
        finally:
            whole.unlink(missing_ok=True)
        return errors

    def _fetch_whole(self, info_file: Path, proxy: str | None) -> Path:
        argv = whole_command(info_file, self.options, self.folder, proxy)
        done = run_child(argv, timeout=self.budget.require(), env=child_environment(proxy))
        if done.timed_out:
            raise FetchError("timeout", "fetching the whole video took longer than --timeout")
        files = [p for p in self.folder.glob("whole.*") if p.suffix not in (".part", ".ytdl")]
        if done.returncode != 0 or len(files) != 1:
            reason = classify_ytdlp(done.stderr, self.options.url_base)
            raise FetchError(reason, ytdlp_message(done))
        return files[0]

    def _cut(
        self,
        clip: Clip,
        inputs: Sequence[Input],
        limit: float,
        proxy: str | None,
        *,
        end: float | None = None,
        claimed: float | None = None,
    ) -> None:
        """Cut one clip, check it, give it its name. Raises FetchError.

        `end`: where the picture ends, if it was measured; `claimed`: what the site says.
        """
        options = self.options
        target = self.folder / f"{clip.name}.mp4"
        start, wanted = clip_window(clip)
        if end is not None and end - start < DURATION_TOLERANCE:
            raise FetchError("past_end", f"the video ends at {end:.2f} s")
        argv = cut_command(options.ffmpeg, inputs, start, wanted, options.encode, target)
        done = run_child(argv, timeout=limit, env=child_environment(proxy))
        if done.timed_out:
            raise FetchError("timeout", f"cutting took longer than {limit:.0f} s")
        source = read_source(done.stderr)
        known_end = end if end is not None else source.duration
        expected = wanted if known_end is None else min(wanted, known_end - start)
        if expected < DURATION_TOLERANCE:
            raise _past_end(start, known_end, claimed)
        if done.returncode != 0:
            raise FetchError(self._reason_of(done), last_line(done) or "ffmpeg failed")
        try:
            check_clip(target, expected, options.encode.audio and source.has_audio)
        except BadClip as error:
            reason = "disk_full" if disk_is_full(options.out) else error.reason
            raise FetchError(reason, error.message) from error
        size = target.stat().st_size
        publish(target, options.out / target.name)
        self.finish(clip, "short" if expected < wanted - DURATION_TOLERANCE else "", size=size)

    def _reason_of(self, done: Finished) -> str:
        if disk_is_full(self.options.out):
            return "disk_full"
        # Only ffmpeg's own complaints, and of those only what ffmpeg can know: the log also holds
        # the title and the description of the video, which may say anything ("not a bot").
        reason = classify("\n".join(complaints(done.stderr)))
        return reason if reason in FFMPEG_REASONS else "unknown"


def _past_end(start: float, end: float | None, claimed: float | None) -> FetchError:
    """The clip lies behind the video's end, as far as the file tells.

    For good only if both the file and the site say so: one of them may be wrong.
    """
    agreed = claimed is None or start > claimed - 1
    return FetchError("past_end" if agreed else "truncated", f"the video ends at {end:.2f} s")


def read_info(done: Finished, url_base: str = YOUTUBE) -> dict[str, Any]:
    """The JSON that yt-dlp printed. Raises FetchError with the reason where it did not."""
    if done.timed_out:
        raise FetchError("timeout", "yt-dlp took longer than --timeout")
    if done.returncode != 0:
        raise FetchError(classify_ytdlp(done.stderr, url_base), ytdlp_message(done))
    try:
        info = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise FetchError("unknown", f"yt-dlp printed no JSON: {ytdlp_message(done)}") from None
    if not isinstance(info, dict) or info.get("_type", "video") != "video":
        raise FetchError("bad_id", "the address does not lead to one video")
    if info.get("live_status") in ("is_live", "is_upcoming", "post_live"):
        raise FetchError("live", f"the video is a live stream ({info['live_status']})")
    return info
