"""A preview shows what the dub will show: the same mouths and sound in its seconds, at half size."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from gateway.dub.choices import Fit
from gateway.dub.request import dub_request
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.sound.timecode import VideoTime
from gateway.media.probe import probe
from gateway.media.sound import SoundReader
from tests.conftest import Clips
from tests.system.dubbing import SPEECH, Dubber, cut, decoded, frame_seconds, write_wav
from tests.system.test_speech_lengths import demo_speech

LARGEST, MEAN = 2.0, 1.0
"""Mean differences of the luma of the lower face, of 255: of a frame, and of all frames. The detail of the mouth is added at half
size."""


@pytest.mark.long
@pytest.mark.parametrize(("at", "first"), [(None, 0), (VideoTime(Fraction("0.59")), 15), (VideoTime(Fraction("1.2")), 30)])
def test_preview_shows_frames_of_dub(
    dubber: Dubber, clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: VideoTime | None, first: int
) -> None:
    """The frames and the sound of a preview are those of the dub from its begin on, reduced, also where it ends amid the speech."""
    monkeypatch.setattr(dub_request, "PREVIEW_S", 1)
    footage = cut(clips.path("video/hp_31.mp4"), tmp_path / "footage.mp4", 0, 2.2)
    request = DubRequest(footage=footage, speech=SPEECH, output=tmp_path / "dub.mp4", method="dubstage", codec="ffv1")
    dub = dubber.with_faces(request)
    preview = tmp_path / "preview.mp4"
    outcome = dubber(replace(request, output=preview, preview=True, preview_at=at, half_size=True))
    video = probe(preview).video
    assert (video.width, video.height, video.start) == (640, 360, 0)
    assert frame_seconds(preview) == [Fraction(index, 25) for index in range(25)]
    assert any("640 x 360" in str(warning) for warning in outcome.warnings)
    whole_plan, own = dub.outcome.plan, slice(first, first + 25)
    assert (outcome.plan.row.tolist(), outcome.plan.reason.tolist()) == (
        whole_plan.row[own].tolist(),
        whole_plan.reason[own].tolist(),
    )
    np.testing.assert_array_equal(outcome.plan.strength, whole_plan.strength[own])
    changed: list[float] = []
    differences: list[float] = []
    frames = (list(decoded(path))[first:] for path in (footage, request.output))
    for filmed, whole, half, record in zip(*frames, decoded(preview), dub.faces[first:], strict=False):
        before, after = (cv2.resize(planes[0], (640, 360), interpolation=cv2.INTER_AREA) for planes in (filmed, whole))
        x, y, width, height = (int(edge) // 2 for edge in record["box"])
        lower = np.s_[y + height // 2 : y + height, x : x + width]
        differences.append(float(cv2.absdiff(half[0], after)[lower].mean()))
        changed.append(float(cv2.absdiff(before, after)[lower].mean()))
    assert len(differences) == 25
    assert max(differences) < LARGEST
    assert np.mean(differences) < MEAN < 3 * MEAN < np.mean(changed)
    heard, said = (np.concatenate(list(SoundReader(path).speech().chunks)) for path in (preview, request.output))
    begin = first * 16000 // 25
    np.testing.assert_array_equal(heard, said[begin : begin + 16000])
    assert heard.any()


@pytest.mark.long
@pytest.mark.parametrize(("footage", "method", "fit"), [("carphone", "dubstage", "loop"), ("astronaut", "portrait", "cut")])
def test_preview_of_own_timeline(
    dubber: Dubber,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    footage: str,
    method: str,
    fit: Fit,
) -> None:
    """In a video with its own timeline, a preview begins at the time of the result."""
    monkeypatch.setattr(dub_request, "PREVIEW_S", 1)
    speech = write_wav(tmp_path / "speech.wav", demo_speech(16000, 1.6), 16000)
    whole = DubRequest(
        footage=request.getfixturevalue(footage), speech=speech, output=tmp_path / "dub.mp4", method=method, fit=fit, codec="ffv1"
    )
    dubber(whole)
    preview = replace(whole, output=tmp_path / "preview.mp4", preview=True, preview_at=VideoTime(Fraction(1)))
    outcome = dubber(preview)
    first = round(probe(preview.output).video.average_rate)
    frames = list(zip(decoded(preview.output), list(decoded(whole.output))[first:], strict=True))
    assert len(frames) == outcome.plan.num_frames == round(0.6 * first)
    assert max(float(cv2.absdiff(one[0], other[0]).mean()) for one, other in frames) < MEAN


@pytest.mark.long
def test_preview_keeps_size_for_format(dubber: Dubber, clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFV1 in NUT cannot say the colour matrix, which players of a smaller picture would take for another one."""
    monkeypatch.setattr(dub_request, "PREVIEW_S", 1)
    footage = cut(clips.path("video/hp_31.mp4"), tmp_path / "footage.mp4", 0, 1.2)
    preview = tmp_path / "preview.nut"
    dubber(DubRequest(footage=footage, speech=SPEECH, output=preview, method="dubstage", preview=True, half_size=True))
    video = probe(preview).video
    assert (video.width, video.height) == (1280, 720)
