"""Guards of the picture: a dub that stops following its speech, or gets softer, fails here, for every method.

Each person is enrolled on a part of a clip and dubbed on the rest with the clip's own sound. FIGURES are what the committed
networks reach. They are no targets: docs/methods has the figures of more people. A change that improves a figure by more than its
margin should move the figure here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.evaluation.aggregate import BootstrapSettings
from gateway.evaluation.protocol import EvaluationSettings, evaluate_clip
from gateway.evaluation.retrack import StageRetrack
from gateway.evaluation.session import PipelineSession
from gateway.methods import METHODS
from gateway.pipeline.enrol import EnrolOptions
from gateway.stages.host import StageHost

SETTINGS: Final = EvaluationSettings(variants=("mean_mouth", "full"), bootstrap=BootstrapSettings(replicates=2), sample_count=0)
ADAPTED_A_LITTLE: Final = EnrolOptions(renderer_steps=12)
"""A tenth of the usual steps: enough to fail if the adaptation makes a picture worse."""


@dataclass(frozen=True)
class Figures:
    """What a dub reaches: opening's correlation, LMD against the still mouth, PSNR above the still mouth, and both sharpnesses."""

    correlation: float
    lmd_ratio: float
    psnr_gain_db: float
    sharpness: float
    native_sharpness: float


MARGINS: Final = Figures(correlation=0.12, lmd_ratio=0.08, psnr_gain_db=0.4, sharpness=0.15, native_sharpness=0.2)
"""How much worse a figure may get. Processors of another kind change figures by less than a tenth of this."""
FACE5: Final = "video/vr_face5.mp4"
CLOSE: Final = "people/dev_7.mp4"
FIGURES: Final[dict[tuple[str, str], Figures]] = {
    ("ugc", FACE5): Figures(0.81, 0.81, 2.24, 0.86, 0.92),
    ("ugc", CLOSE): Figures(0.53, 0.91, 1.07, 0.76, 0.97),
    ("everybody", FACE5): Figures(0.7, 0.88, 1.5, 0.82, 0.75),
    ("headpose", FACE5): Figures(0.7, 0.84, 1.75, 0.78, 0.83),
    ("hetero", FACE5): Figures(0.69, 0.92, 1.07, 0.58, 0.67),
    ("everyone", FACE5): Figures(0.82, 0.81, 2.09, 0.78, 0.73),
}


def reached(method: str, clip: Path, host: StageHost, folder: Path) -> Figures:
    session = PipelineSession(host, clip, clip.name, folder, method, ADAPTED_A_LITTLE)
    try:
        found = evaluate_clip(session, StageRetrack(host), settings=SETTINGS).variants
    finally:
        session.close()
    still, full = (found[name].metrics for name in SETTINGS.variants)
    return Figures(
        correlation=full["mouth_opening_correlation"],
        lmd_ratio=full["mouth_lmd_px"] / still["mouth_lmd_px"],
        psnr_gain_db=full["mouth_psnr_db"] - still["mouth_psnr_db"],
        sharpness=full["sharpness_ratio"],
        native_sharpness=full["native_sharpness_ratio"],
    )


@pytest.mark.parametrize(("method", "name"), FIGURES)
def test_a_dub_is_as_good_as_it_was(method: str, name: str, clips: Any, host: StageHost, tmp_path: Path) -> None:
    expected, found = FIGURES[method, name], reached(method, clips.path(name), host, tmp_path)
    assert found.correlation > expected.correlation - MARGINS.correlation, found
    assert found.lmd_ratio < expected.lmd_ratio + MARGINS.lmd_ratio, found
    assert found.psnr_gain_db > expected.psnr_gain_db - MARGINS.psnr_gain_db, found
    assert found.sharpness == pytest.approx(expected.sharpness, abs=MARGINS.sharpness), found
    assert found.native_sharpness == pytest.approx(expected.native_sharpness, abs=MARGINS.native_sharpness), found


def test_every_method_has_a_guard() -> None:
    assert {method for method, _ in FIGURES} == set(METHODS)
