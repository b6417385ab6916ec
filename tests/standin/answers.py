"""What YouTube's player API answers, in its own words: for videos that play and for all the others.

The texts of `DEAD` are YouTube's, with the page's curly apostrophes where YouTube sends them: they
are what yt-dlp puts on stderr, and what the suite has to tell apart. Used by `server`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from clipreader.media import ratio
from tests.standin.sources import make_dash, top_boxes

# YouTube's H.264 streams by the short side of the picture; 140 is the sound, 18 both in one file.
VIDEO_ITAGS = {144: 160, 240: 133, 360: 134, 480: 135, 720: 136, 1080: 137}
AUDIO_ITAG, PROGRESSIVE_ITAG = 140, 18
PROGRESSIVE_MAX_SHORT_SIDE = 360
CHECK_ID = "jNQXAC9IVRw"  # the suite's check video: it is shown, though no test adds it
QUALITIES = {144: "tiny", 240: "small", 360: "medium", 480: "large", 720: "hd720", 1080: "hd1080"}


@dataclass(frozen=True)
class Dead:
    """A player answer without a stream, and the `reason` that the report should give for it."""

    expected: str
    status: str
    reason: str = ""
    subreason: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # merged into the answer


_GONE = "Video unavailable"
_DRM = {"streamingData": {"licenseInfos": [{"drmFamily": "WIDEVINE"}], "adaptiveFormats": []}}
_CAPTCHA = {"playabilityStatus": {"errorScreen": {"playerCaptchaViewModel": {"url": "x"}}}}

# A reason may have several wordings: "reason" is the usual one, "reason/variant" another.
DEAD: dict[str, Dead] = {
    "removed": Dead("removed", "ERROR", _GONE, "This video has been removed by the uploader"),
    "removed/terms": Dead(
        "removed",
        "ERROR",
        _GONE,
        "This video has been removed for violating YouTube's Terms of Service",
    ),
    "private": Dead(
        "private",
        "LOGIN_REQUIRED",
        "Private video",
        "Sign in if you've been granted access to this video",
    ),
    "account_terminated": Dead(
        "account_terminated",
        "ERROR",
        _GONE,
        "This video is no longer available because the YouTube account associated with this video "
        "has been terminated.",
    ),
    "account_terminated/closed": Dead(
        "account_terminated",
        "ERROR",
        _GONE,
        "This video is no longer available because the uploader has closed their YouTube account.",
    ),
    "account_terminated/account_closed": Dead(
        "account_terminated",
        "ERROR",
        _GONE,
        "This video is no longer available because the YouTube account associated with this video "
        "has been closed.",
    ),
    "copyright": Dead(
        "copyright",
        "ERROR",
        _GONE,
        "This video is no longer available due to a copyright claim by Studio Ltd.",
    ),
    "copyright/grounds": Dead(
        "copyright",
        "UNPLAYABLE",
        _GONE,
        "This video contains content from Studio Ltd, who has blocked it on copyright grounds",
    ),
    "members_only": Dead(
        "members_only",
        "UNPLAYABLE",
        "Join this channel to get access to members-only content like this video, and other "
        "exclusive perks.",
    ),
    "members_only/level": Dead(
        "members_only",
        "UNPLAYABLE",
        "This video is available to this channel's members on level: Friend (or any higher level). "
        "Join this channel to get access to members-only content and other exclusive perks.",
    ),
    "age_restricted": Dead(
        "age_restricted",
        "LOGIN_REQUIRED",
        "Sign in to confirm your age",
        "This video may be inappropriate for some users.",
    ),
    "geo_blocked": Dead(
        "geo_blocked",
        "UNPLAYABLE",
        _GONE,
        "The uploader has not made this video available in your country",
    ),
    "geo_blocked/claim": Dead(
        "geo_blocked",
        "UNPLAYABLE",
        _GONE,
        "This video contains content from Studio Ltd, who has blocked it in your country on "
        "copyright grounds",
    ),
    "live": Dead("live", "LIVE_STREAM_OFFLINE", "This live event will begin in 3 days."),
    "live/premiere": Dead("live", "LIVE_STREAM_OFFLINE", "Premieres in 4 hours"),
    "live/ended": Dead("live", "LIVE_STREAM_OFFLINE", "This live event has ended."),
    "live/recording": Dead(
        "live", "LIVE_STREAM_OFFLINE", "This live stream recording is not available."
    ),
    "unknown/processing": Dead(
        "unknown", "UNPLAYABLE", "We're processing this video. Check back later."
    ),
    "unknown/review": Dead("unknown", "UNPLAYABLE", _GONE, "This video is pending review."),
    "drm": Dead("drm", "OK", extra=_DRM),
    "unavailable": Dead("unavailable", "ERROR", _GONE, "This video is unavailable"),
    "unavailable/bare": Dead("unavailable", "ERROR", "This video is not available"),
    "bot_check": Dead(
        "bot_check",
        "LOGIN_REQUIRED",
        "Sign in to confirm you\N{RIGHT SINGLE QUOTATION MARK}re not a bot",
        "This helps protect our community. Learn more",
    ),
    "bot_check/captcha": Dead("bot_check", "UNPLAYABLE", _GONE, extra=_CAPTCHA),
    "rate_limited": Dead(
        "rate_limited", "UNPLAYABLE", _GONE, "This content isn't available, try again later."
    ),
    "rate_limited/curly": Dead(
        "rate_limited",
        "UNPLAYABLE",
        _GONE,
        "This content isn\N{RIGHT SINGLE QUOTATION MARK}t available, try again later.",
    ),
    # What an account or an address that is banned gets for every video, told in these words or,
    # some day, in others.
    "rate_limited/ban": Dead(
        "rate_limited",
        "ERROR",
        _GONE,
        "This content isn\N{RIGHT SINGLE QUOTATION MARK}t available.",
    ),
    "unavailable/other_ban": Dead("unavailable", "ERROR", "This video is not available"),
    "no_format": Dead("no_format", "OK"),
    "no_format/reload": Dead("no_format", "UNPLAYABLE", "The page needs to be reloaded."),
    "no_format/app": Dead(
        "no_format",
        "UNPLAYABLE",
        "The following content is not available on this app.",
        "Watch on the latest version of YouTube.",
    ),
    "no_format/elsewhere": Dead(
        "no_format",
        "UNPLAYABLE",
        _GONE,
        "Playback on other websites has been disabled by the video owner",
    ),
    "removed/hate": Dead(
        "removed",
        "ERROR",
        "This video has been removed for violating YouTube\N{RIGHT SINGLE QUOTATION MARK}s policy"
        " on hate speech.",
        "Learn more about combating hate speech in your country.",
    ),
    "geo_blocked/location": Dead(
        "geo_blocked", "UNPLAYABLE", _GONE, "This video is not available in your location"
    ),
    "members_only/premium": Dead(
        "members_only", "UNPLAYABLE", "This video is only available to Music Premium members"
    ),
    "bot_check/sign_in": Dead("bot_check", "LOGIN_REQUIRED", "Please sign in"),
}


def dead_answer(youtube_id: str, dead: Dead) -> dict[str, Any]:
    """The player's answer for a video that does not play."""
    playability: dict[str, Any] = {"status": dead.status}
    if dead.reason:
        playability["reason"] = dead.reason
        error = {"reason": {"simpleText": dead.reason}}
        if dead.subreason:
            error["subreason"] = {"simpleText": dead.subreason}
        playability["errorScreen"] = {"playerErrorMessageRenderer": error}
    extra = dict(dead.extra)
    playability.update(extra.pop("playabilityStatus", {}))
    details = {"videoId": youtube_id, "title": f"stand-in {youtube_id}", "lengthSeconds": "0"}
    return {"playabilityStatus": playability, "videoDetails": details, **extra}


@dataclass(frozen=True)
class Stream:
    """One file behind a format: what the player says of it, and where it lies."""

    itag: int
    path: Path
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Media:
    """All that is known of a video that plays."""

    seconds: float
    streams: tuple[Stream, ...]


def describe(paths: tuple[Path, ...], progressive: bool | None, adaptive: bool = True) -> Media:
    """The formats YouTube would offer for these sources (one per height), the DASH pairs made.

    `progressive` None gives itag 18 to a source with a short side of at most 360, as YouTube does.
    Without `adaptive` that is all that is left.
    """
    streams: list[Stream] = []
    longest = 0.0
    for path in paths:
        with av.open(str(path)) as source:
            picture = source.streams.video[0]
            width, height = picture.width, picture.height
            fps = ratio(picture.average_rate) or Fraction(25)
            seconds = (source.duration or 0) / av.time_base
            longest = max(longest, seconds)
        short = min(width, height)
        row = min(VIDEO_ITAGS, key=lambda side: abs(side - short))
        shape = {"width": width, "height": height, "fps": round(fps), "qualityLabel": f"{row}p"}
        shape["quality"] = QUALITIES[row]
        video, audio = make_dash(path)
        if progressive or (progressive is None and short <= PROGRESSIVE_MAX_SHORT_SIDE):
            codecs = "avc1.42001E, mp4a.40.2" if audio else "avc1.42001E"
            about = {"mimeType": f'video/mp4; codecs="{codecs}"', **shape, **_sound(audio)}
            streams.append(Stream(PROGRESSIVE_ITAG, path, about | _file(path, seconds)))
        about = {"mimeType": 'video/mp4; codecs="avc1.4D401E"', **shape}
        streams.append(Stream(VIDEO_ITAGS[row], video, about | _file(video, seconds)))
        if audio and not any(stream.itag == AUDIO_ITAG for stream in streams):
            about = {"mimeType": 'audio/mp4; codecs="mp4a.40.2"', "quality": "tiny"}
            about |= _sound(audio) | _file(audio, seconds)
            streams.append(Stream(AUDIO_ITAG, audio, about))
    if not adaptive:
        streams = [stream for stream in streams if stream.itag == PROGRESSIVE_ITAG]
    return Media(longest, tuple(streams))


def _sound(audio: Path | None) -> dict[str, Any]:
    if audio is None:
        return {}
    quality = "AUDIO_QUALITY_MEDIUM"
    return {"audioQuality": quality, "audioSampleRate": "44100", "audioChannels": 1}


def _file(path: Path, seconds: float) -> dict[str, Any]:
    """What follows from the file itself; the index ranges only for a DASH file."""
    size = path.stat().st_size
    bitrate = round(size * 8 / seconds) if seconds else 0
    about: dict[str, Any] = {
        "contentLength": str(size),
        "approxDurationMs": str(round(seconds * 1000)),
        "bitrate": bitrate,
        "averageBitrate": bitrate,
    }
    boxes = {kind: (offset, offset + length - 1) for kind, offset, length in top_boxes(path)}
    if "sidx" in boxes:
        about["initRange"] = {"start": "0", "end": str(boxes["moov"][1])}
        first, last = boxes["sidx"]
        about["indexRange"] = {"start": str(first), "end": str(last)}
    return about


def shown_answer(youtube_id: str) -> dict[str, Any]:
    """The player's answer for a video of which nobody asks for more than the answer."""
    about = {"mimeType": 'video/mp4; codecs="avc1.42001E, mp4a.40.2"', "qualityLabel": "240p"}
    stream = Stream(PROGRESSIVE_ITAG, Path(), about | {"width": 320, "height": 240})
    media = Media(19.0, (stream,))
    return play_answer(youtube_id, media, "http://127.0.0.1:9/none", "Me at the zoo", "19")


def play_answer(
    youtube_id: str,
    media: Media,
    media_url: str,
    title: str,
    length_seconds: str,
    ad_seconds: float | None = None,
) -> dict[str, Any]:
    """The player's answer for a video that plays; `media_url` is where `?id=&itag=` are served.

    ad_seconds: of an advertisement before it, until it can be skipped.
    """
    formats: dict[str, list[dict[str, Any]]] = {"formats": [], "adaptiveFormats": []}
    for stream in media.streams:
        kind = "formats" if stream.itag == PROGRESSIVE_ITAG else "adaptiveFormats"
        url = f"{media_url}?id={youtube_id}&itag={stream.itag}"
        formats[kind].append({"itag": stream.itag, "url": url, **stream.about})
    return {
        "playabilityStatus": {"status": "OK"},
        "videoDetails": {
            "videoId": youtube_id,
            "title": title,
            "lengthSeconds": length_seconds,
            "isLiveContent": False,
        },
        "streamingData": {"expiresInSeconds": "21540", **formats},
        "adPlacements": [] if ad_seconds is None else [_advertisement(ad_seconds)],
    }


def _advertisement(seconds: float) -> dict[str, Any]:
    config = {"adPlacementConfig": {"kind": "AD_PLACEMENT_KIND_START"}}
    video = {
        "playerVars": f"length_seconds={seconds + 25:.0f}",
        "skipOffsetMilliseconds": round(seconds * 1000),
    }
    renderer = {"instreamVideoAdRenderer": video}
    return {"adPlacementRenderer": {"config": config, "renderer": renderer}}
