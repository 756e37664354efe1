"""A preview shows what the dub will show: the same mouths in its first seconds, at half size."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from gateway.dub.job import dub_job, passes
from gateway.dub.request.dub_request import DubRequest
from gateway.media.probe import probe
from tests.conftest import Clips
from tests.system.dubbing import SPEECH, Dubber, cut, decoded

LARGEST, MEAN = 2.0, 1.0
"""Mean differences of the luma of the lower face, of 255: of a frame, and of all frames. The detail of the mouth is added at half
size."""


@pytest.mark.long
def test_preview_shows_frames_of_dub(dubber: Dubber, clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames of a preview are those of the dub, reduced, also where the preview ends amid the speech."""
    for module in (passes, dub_job):
        monkeypatch.setattr(module, "PREVIEW_S", 1)
    footage = cut(clips.path("video/hp_31.mp4"), tmp_path / "footage.mp4", 0, 1.6)
    request = DubRequest(footage=footage, speech=SPEECH, output=tmp_path / "dub.mp4", method="dubstage", codec="ffv1")
    dub = dubber.with_faces(request)
    preview = tmp_path / "preview.mp4"
    outcome = dubber(replace(request, output=preview, preview=True, half_size=True))
    video = probe(preview).video
    assert (video.width, video.height, video.num_frames) == (640, 360, 25)
    assert any("640 x 360" in str(warning) for warning in outcome.warnings)
    changed: list[float] = []
    differences: list[float] = []
    for filmed, whole, half, record in zip(decoded(footage), decoded(request.output), decoded(preview), dub.faces, strict=False):
        before, after = (cv2.resize(planes[0], (640, 360), interpolation=cv2.INTER_AREA) for planes in (filmed, whole))
        x, y, width, height = (int(edge) // 2 for edge in record["box"])
        lower = np.s_[y + height // 2 : y + height, x : x + width]
        differences.append(float(cv2.absdiff(half[0], after)[lower].mean()))
        changed.append(float(cv2.absdiff(before, after)[lower].mean()))
    assert max(differences) < LARGEST
    assert np.mean(differences) < MEAN < 3 * MEAN < np.mean(changed)


@pytest.mark.long
def test_preview_keeps_size_for_format(dubber: Dubber, clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFV1 in NUT cannot say the colour matrix, which players of a smaller picture would take for another one."""
    for module in (passes, dub_job):
        monkeypatch.setattr(module, "PREVIEW_S", 1)
    footage = cut(clips.path("video/hp_31.mp4"), tmp_path / "footage.mp4", 0, 1.2)
    preview = tmp_path / "preview.nut"
    dubber(DubRequest(footage=footage, speech=SPEECH, output=preview, method="dubstage", preview=True, half_size=True))
    video = probe(preview).video
    assert (video.width, video.height) == (1280, 720)
