"""Reason codes, ids and cuts on real footage against spans annotated by eye (tests/data/face_spans.json)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from services.face.tracking import FaceTracker, Networks
from services.face.types import FrameFaces, Reason, TrackOptions

SPANS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "face_spans.json").read_text())["clips"]
TOLERANCE = 3
"""Frames: a patch that comes in covers less than 3 % of the lower face for three frames, which is no cover yet."""
MOST_FRAMES = {"video/lp_s18.mp4": 100}
"""Nothing changes in this clip after its beginning."""

PLAIN = ("video/lp_s18.mp4", "video/vr_face5.mp4", "video/lp_d3.mp4")
"""Clips of one face that is dubbed throughout, which the first and the last frames of the others hold too."""


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    opened = Networks()
    yield opened
    opened.close()


def track(networks: Networks, path: Path, most_frames: int | None) -> list[FrameFaces]:
    tracker = FaceTracker(networks, TrackOptions())
    with VideoReader(probe(path), threads=1) as reader:
        frames = [done for frame in reader.frames(0, most_frames) for done in tracker.push(to_rgb(frame))]
    return frames + tracker.finish()


def inner(spans: list[list[int]], length: int) -> list[int]:
    """Frames of spans, up to `length`, without the tolerance at borders inside the clip."""
    found: list[int] = []
    for begin, end in spans:
        found += range(begin + (TOLERANCE if begin else 0), min(end, length) - (TOLERANCE if end < length else 0))
    return found


@pytest.mark.long
@pytest.mark.parametrize("clip", [pytest.param(clip, marks=pytest.mark.long if clip in PLAIN else []) for clip in SPANS])
def test_face_codes_match_annotations(clip: str, clips, networks: Networks) -> None:
    """Codes, ids and cuts are those that people annotated."""
    truth = SPANS[clip]
    frames = track(networks, clips.path(clip), MOST_FRAMES.get(clip))
    reasons = [{str(face.reason) for face in frame.faces} or {"NO_FACE"} for frame in frames]
    dubbed = [Reason.DUBBED in codes for codes in reasons]

    assert [frame for frame in inner(truth["dubbed"], len(frames)) if not dubbed[frame]] == []
    assert [frame for frame in inner(truth["not_dubbed"], len(frames)) if dubbed[frame]] == []
    for reason, spans in truth["reasons"].items():
        assert [frame for frame in inner(spans, len(frames)) if reason not in reasons[frame]] == [], reason
    assert [frame.frame_index for frame in frames if frame.shot_cut] == truth.get("cuts", [])
    if "ids" in truth:
        assert {face.face_id for frame in frames for face in frame.faces} == set(range(truth["ids"]))
