"""New speech for a woman whose mouth is shut in all of her footage, and whose footage has music for sound."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.dub.job.outcome import DubOutcome
from gateway.dub.request.dub_request import DubRequest
from services.common.face.landmarks import mouth_opening
from tests.system.dubbing import SPEECH, Dubber, cut, track


@pytest.fixture(scope="module")
def footage(clips: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut(clips.path("video/lp_s18.mp4"), tmp_path_factory.mktemp("shut") / "footage.mkv", 0, 1.8)


@pytest.fixture(scope="module")
def outcome(footage: Path, dubber: Dubber) -> DubOutcome:
    request = DubRequest(footage=footage, speech=SPEECH, output=footage.with_name("dub.mkv"), method="dubstage", codec="ffv1")
    return dubber(request)


def test_the_mouth_opens_and_shuts(outcome: DubOutcome) -> None:
    seen = mouth_opening(np.stack([frame.faces[0].mouth_landmarks for frame in track(outcome.written.path)]))
    assert np.quantile(seen, 0.9) > 4.0
    assert np.quantile(seen, 0.1) < 1.0


@pytest.mark.long
def test_unseen_mouth_has_no_lag(outcome: DubOutcome) -> None:
    """The sound has no lag because it belongs to no mouth."""
    assert outcome.actor.lag_frames is None


@pytest.mark.long
def test_unseen_mouth_warning(outcome: DubOutcome) -> None:
    """A warning says what is not known of the person."""
    assert any("hardly shows an open mouth" in warning for warning in outcome.warnings)


@pytest.mark.long
def test_preview_has_warning(footage: Path, dubber: Dubber, tmp_path: Path) -> None:
    """A preview, which may be shorter than the footage, has the warning too, and none about the length of the speech."""
    asked = DubRequest(footage=footage, speech=SPEECH, output=tmp_path / "dub.mkv", method="dubstage", codec="ffv1")
    warnings = dubber(replace(asked, preview=True)).warnings
    assert any("hardly shows an open mouth" in warning for warning in warnings)
    assert not any("the speech" in warning for warning in warnings)
