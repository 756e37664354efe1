"""A face that leaves and comes back, something before a mouth, many shots: what is not a free mouth stays as it was."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from gateway.dub.learn.live_span import LIVE_SPAN, LiveSpan
from gateway.dub.request.dub_request import DubRequest
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.sound import SoundReader
from services.common.array_types import Bool, Float32, UInt8
from services.common.face.landmarks import LIPS_OUTER
from services.common.store.artefacts import ArtefactStore
from services.face.tracking import FaceTracker, Networks
from services.face.types import TrackOptions
from tests.system.dubbing import SPEECH, Dubber, cut, decoded, frame_seconds, streamed
from tests.written_pictures import write_pictures


@pytest.mark.long
def test_returning_face_fades_in(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """The face is out of the picture from 5.0 to 6.5 s, which is 1.8 to 3.3 s of the cut."""
    footage, output = cut(clips.path("derived/d05_face_leaves_frame.mp4"), tmp_path / "footage.mp4", 2.4, 9.2), tmp_path / "dub.mp4"
    dub = dubber.with_faces(DubRequest(footage=footage, speech=SPEECH, output=output, method="dubstage", codec="ffv1"))
    plan = dub.outcome.plan
    rendered = plan.rendered()
    gone = np.flatnonzero(plan.reason == common_pb2.FRAME_REASON_NO_FACE)
    assert len(gone) > 40
    assert set(dub.faces["face_id"]) == {0}
    before, after = np.flatnonzero(rendered[: gone[0]])[-1], gone[-1] + np.flatnonzero(rendered[gone[-1] :])[0]
    assert before > 20
    assert len(rendered) - after > 25
    np.testing.assert_allclose(plan.strength[[before - 2, before - 1, before]], [1, 2 / 3, 1 / 3], atol=1e-6)
    np.testing.assert_allclose(plan.strength[[after, after + 1, after + 2]], [1 / 3, 2 / 3, 1], atol=1e-6)

    assert frame_seconds(output) == frame_seconds(footage)
    for index, (old, new) in enumerate(zip(decoded(footage), decoded(output), strict=True)):
        if not rendered[index]:
            assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True)), index


@pytest.mark.long
def test_occluder_is_never_painted_over(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """The patch has a colour of the face, so its edges are not known.

    It lies over the mouth at 30 to 74 of the clip, and beside the mouth before and after.
    """
    footage, output = cut(clips.path("derived/d07_moving_occluder.mp4"), tmp_path / "footage.mp4", 0, 3.6), tmp_path / "dub.mp4"
    clear = clips.path("video/vr_face5.mp4")
    outcome = dubber(DubRequest(footage=footage, speech=SPEECH, output=output, method="dubstage", codec="ffv1"))
    covered = outcome.plan.reason == common_pb2.FRAME_REASON_OCCLUDED_MOUTH
    assert 36 <= covered.sum() <= 50
    for index, (free, old, new) in enumerate(zip(decoded(clear), decoded(footage), decoded(output), strict=False)):
        if covered[index]:
            assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True)), index
            continue
        patch = np.abs(old[0].astype(int) - free[0].astype(int)) > 40
        # The neck moves with the jaw, and reads across the edge of a patch that touches the neck.
        patch = cv2.erode(patch.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        np.testing.assert_array_equal(old[0][patch], new[0][patch], err_msg=str(index))


@dataclass(frozen=True, slots=True)
class Microphone:
    """A black disc before a face in one frame: the frame, the disc's pixels, and the share of the mouth behind the disc."""

    picture: UInt8
    disc: Bool
    mouth_share: float


@pytest.fixture(scope="module")
def tracked(clips: Any) -> tuple[list[UInt8], list[Float32]]:
    """The first 100 frames of a clip, and the outer lips in each, frame pixels."""
    with VideoReader(probe(clips.path("people/dev_4.mp4"))) as reader:
        pictures = [to_rgb(frame) for frame in reader.frames(0, 100)]
    tracker = FaceTracker(Networks(), TrackOptions(max_faces=1))
    tracked = [frame for picture in pictures for frame in tracker.push(picture)] + tracker.finish()
    return pictures, [frame.faces[0].landmarks[list(LIPS_OUTER), :2] for frame in tracked]


def microphone(picture: UInt8, lips: Float32, centre: Float32, radius: float) -> Microphone:
    """A picture behind a black disc; radius 0: there is no disc."""
    disc, mouth = np.zeros((2, *picture.shape[:2]), np.uint8)
    if radius:
        cv2.circle(disc, np.rint(centre).astype(int).tolist(), round(radius), (1,), cv2.FILLED)
    cv2.fillConvexPoly(mouth, cv2.convexHull(np.rint(lips).astype(np.int32)), (1,))
    seen = picture.copy()
    seen[disc > 0] = 30
    return Microphone(seen, disc > 0, float(disc[mouth > 0].mean()))


def coming_and_going(pictures: list[UInt8], lips: list[Float32]) -> list[Microphone]:
    """The disc comes from below to the mouth, moves to and fro beside the mouth, and goes again."""
    made = []
    for index, (picture, points) in enumerate(zip(pictures, lips, strict=True)):
        width = float(np.ptp(points[:, 0]))
        there = np.clip((index - 26) / 12, 0, 1) - np.clip((index - len(lips) + 14) / 12, 0, 1)
        beside = np.array([0.5 * width * (1 + 0.4 * np.sin(index / 9)), width * (0.4 + 3.0 * (1 - there))])
        made.append(microphone(picture, points, points.mean(axis=0) + beside, 0.6 * width if there > 0 else 0.0))
    return made


def resting(pictures: list[UInt8], lips: list[Float32]) -> list[Microphone]:
    """The disc rests in the picture below the mouth and before a part of the mouth, from the first frame to the last."""
    usual = np.median(lips, axis=0)
    width = float(np.ptp(usual[:, 0]))
    centre = np.asarray(usual.mean(axis=0) + np.array([0.25 * width, 0.8 * width]), np.float32)
    return [microphone(picture, points, centre, 0.72 * width) for picture, points in zip(pictures, lips, strict=True)]


@pytest.mark.long
@pytest.mark.parametrize("place", [coming_and_going, pytest.param(resting, marks=pytest.mark.long)])
def test_mouth_is_dubbed_beside_a_microphone(place, tracked, dubber, tmp_path) -> None:
    """Frames in which at most half of the mouth is covered are dubbed, and the microphone keeps its pixels."""
    made = place(*tracked)
    footage, output = tmp_path / "footage.mp4", tmp_path / "dub.mp4"
    write_pictures(footage, [frame.picture for frame in made])
    outcome = dubber(DubRequest(footage=footage, speech=SPEECH, output=output, method="dubstage", codec="ffv1"))
    rendered = outcome.plan.rendered()
    behind = np.array([bool(frame.disc.any()) and frame.mouth_share <= 0.5 for frame in made])
    assert behind.sum() > 40
    assert rendered[behind].mean() >= 0.95
    changed = total = 0
    for frame, old, new in zip(made, decoded(footage), decoded(output), strict=True):
        changed += int((np.abs(old[0].astype(int) - new[0])[frame.disc] > 1).sum())
        total += int(frame.disc.sum())
    assert changed < 0.005 * total


@pytest.mark.long
def test_live_stream_beside_a_microphone(tracked, host, settings, tmp_path) -> None:
    """A microphone that rests before a part of the mouth keeps its pixels in a live stream, and the mouth moves beside it."""
    made, footage = resting(*tracked), tmp_path / "footage.mp4"
    write_pictures(footage, [frame.picture for frame in made])
    speech = np.concatenate(list(SoundReader(SPEECH).speech().chunks))[: 2 * 16000]
    live = streamed(host, settings, "microphone", footage, speech)
    arrays = ArtefactStore(settings.artefacts_url).get_arrays(live.actor.artefacts[LIVE_SPAN]).arrays
    span = LiveSpan.of_arrays(arrays)
    assert len(span) >= len(live.pictures) == 50
    with VideoReader(probe(footage)) as reader:
        filmed = [to_rgb(frame) for frame in reader]
    changed = total = 0
    moves = []
    for number, picture in zip(span.frames.tolist(), live.pictures, strict=False):
        off = np.abs(picture.astype(int) - filmed[number]).max(axis=-1)
        changed += int((off[made[number].disc] > 1).sum())
        total += int(made[number].disc.sum())
        moves.append(int((off > 24).sum()))
    assert changed < 0.005 * total
    assert np.median(moves) > 50


@pytest.mark.long
def test_stage_performance_with_cuts(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """One man's mouth is free for 20 frames in all, less than the second that a speaking style takes."""
    footage, output = clips.path("video/fr_short_hamilton_clip.mp4"), tmp_path / "dub.mp4"
    outcome = dubber(DubRequest(footage=footage, speech=SPEECH, output=output, method="dubstage", codec="ffv1"))
    assert probe(output).video.num_frames == probe(footage).video.num_frames == outcome.plan.num_frames == 275
    assert outcome.undubbed.startswith("none of the 275 frames is dubbed")
    assert "at least 25 are needed" in outcome.undubbed
    counts = outcome.plan.counts()
    assert {"NO_FACE", "TARGET_NOT_PRESENT", "OCCLUDED_MOUTH", "LOW_CONFIDENCE"} == set(counts)
    assert not outcome.facts.mask_area_px.any()
    assert frame_seconds(output) == frame_seconds(footage)
    for old, new in zip(decoded(footage), decoded(output), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))
