"""Guards of the picture: a dub that stops following its speech, or gets softer, fails here, for every method.

Each person is enrolled on a part of a clip and dubbed on the rest with the clip's own sound: one fold of the two that `dubstage
evaluate` makes of a short clip. FIGURES are what the committed networks reach. They are no targets: docs/methods has the figures of
more people. A change that improves a figure by more than its margin should move the figure here.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from gateway.dub.choices import EnrolOptions
from research.evaluation.aggregate import BootstrapSettings
from research.evaluation.protocol import EvaluationSettings
from research.stage_host import StageHost
from services.common.methods import METHODS
from tests.system.evaluating import Evaluator

# Sound and picture of some clips are frames apart. Guards of the picture take this lag out.
SETTINGS: Final = EvaluationSettings(
    variants=("mean_mouth", "full_aligned"), bootstrap=BootstrapSettings(replicates=2), sample_count=0
)
ADAPTED_A_LITTLE: Final = EnrolOptions(renderer_steps=12)
"""A tenth of the usual steps: enough to fail if the adaptation makes a picture worse."""
FACE5: Final = ("video/vr_face5.mp4", 0)
"""A clip, and which of its folds."""
CLOSE: Final = ("people/dev_7.mp4", 1)
"""A close shot of a man with stubble."""
STREAMED: Final = "dubstage streamed"
"""The method `dubstage` with its predictor of live streams, measured on a file."""
ALWAYS: Final = {("dubstage", FACE5)}
"""Guards that `make test` runs: the default method. The others run when networks change."""


@dataclass(frozen=True)
class Figures:
    """Metrics of a dub: opening's correlation, LMD against the still mouth, PSNR above the still mouth, and both sharpnesses."""

    correlation: float
    lmd_ratio: float
    psnr_gain_db: float
    sharpness: float
    native_sharpness: float


MARGINS: Final = Figures(correlation=0.12, lmd_ratio=0.08, psnr_gain_db=0.4, sharpness=0.15, native_sharpness=0.2)
"""How much worse a figure may get. Processors of another kind change figures by less than a tenth of this."""
FIGURES: Final[dict[tuple[str, tuple[str, int]], Figures]] = {
    ("dubstage", FACE5): Figures(0.78, 0.76, 2.25, 0.89, 1.11),
    ("dubstage", CLOSE): Figures(0.83, 0.68, 1.65, 0.98, 1.28),
    (STREAMED, FACE5): Figures(0.78, 0.81, 1.80, 0.88, 1.11),
    ("portrait", FACE5): Figures(0.81, 0.77, 1.93, 0.91, 1.04),
    ("ugc", FACE5): Figures(0.70, 0.85, 1.20, 0.83, 0.91),
    ("everybody", FACE5): Figures(0.53, 0.91, 0.71, 0.83, 0.62),
    ("headpose", FACE5): Figures(0.43, 0.83, 0.98, 1.03, 0.99),
    ("hetero", FACE5): Figures(0.43, 0.95, 1.04, 0.47, 0.39),
    ("everyone", FACE5): Figures(0.76, 0.77, 2.45, 0.68, 0.41),
}


@pytest.fixture(scope="module")
def evaluate(host: StageHost, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    return Evaluator(host, tmp_path_factory.mktemp("guards"))


def reached(method: str, clip: Path, fold: int, evaluate: Evaluator) -> Figures:
    found = evaluate(method, clip, ADAPTED_A_LITTLE, replace(SETTINGS, only_fold=fold)).variants
    still, full = (found[name].metrics for name in SETTINGS.variants)
    return Figures(
        correlation=full["mouth_opening_correlation"],
        lmd_ratio=full["mouth_lmd_px"] / still["mouth_lmd_px"],
        psnr_gain_db=full["mouth_psnr_db"] - still["mouth_psnr_db"],
        sharpness=full["sharpness_ratio"],
        native_sharpness=full["native_sharpness_ratio"],
    )


@pytest.mark.parametrize(
    ("method", "part"),
    [
        pytest.param(method, part, id=f"{method}-{part[0]}-{part[1]}", marks=[] if (method, part) in ALWAYS else pytest.mark.long)
        for method, part in FIGURES
    ],
)
def test_a_dub_is_as_good_as_it_was(method, part, clips, evaluate, monkeypatch) -> None:
    monkeypatch.setitem(METHODS, STREAMED, replace(METHODS["dubstage"].streamed, name=STREAMED))
    name, fold = part
    expected, found = FIGURES[method, part], reached(method, clips.path(name), fold, evaluate)
    assert found.correlation > expected.correlation - MARGINS.correlation, found
    assert found.lmd_ratio < expected.lmd_ratio + MARGINS.lmd_ratio, found
    assert found.psnr_gain_db > expected.psnr_gain_db - MARGINS.psnr_gain_db, found
    assert found.sharpness == pytest.approx(expected.sharpness, abs=MARGINS.sharpness), found
    assert found.native_sharpness == pytest.approx(expected.native_sharpness, abs=MARGINS.native_sharpness), found


def test_every_method_has_a_guard() -> None:
    assert {*METHODS, STREAMED} <= {method for method, _ in FIGURES}
