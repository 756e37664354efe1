from __future__ import annotations

import pytest

from gateway.batch.quality import reasons_to_look
from gateway.batch.types import Quality, ShotRecord, ShotState


def record(**more: object) -> ShotRecord:
    figures: dict[str, object] = {"frames": 100, "frames_dubbed": 80, "r_opening": 0.75, "warnings": ("one", "two")}
    return ShotRecord.model_validate({"id": "a", "state": ShotState.DONE, **figures, **more})


def test_without_thresholds_every_shot_passes() -> None:
    assert reasons_to_look(Quality(), record(frames=0, frames_dubbed=0, r_opening=None, warnings=("w",) * 50)) == ()


def test_a_figure_at_its_threshold_passes() -> None:
    assert reasons_to_look(Quality(min_dubbed_share=0.8, min_r_opening=0.75, max_warnings=2), record()) == ()


@pytest.mark.parametrize(
    ("quality", "shot", "said"),
    [
        (Quality(min_dubbed_share=0.81), record(), "80 of 100 frames are dubbed, a share of 0.800: at least 0.81 is wanted"),
        (Quality(min_dubbed_share=0.01), record(frames=0, frames_dubbed=0), "0 of 0 frames are dubbed"),
        (Quality(min_r_opening=0.76), record(), "opening is 0.750: at least 0.76 is wanted"),
        (Quality(min_r_opening=0.7500001), record(), "opening is 0.7500000: at least 0.7500001 is wanted"),
        (Quality(min_r_opening=-1), record(r_opening=None), "was not measured"),
        (Quality(max_warnings=1), record(), "the number of warnings is 2: at most 1 is wanted"),
    ],
)
def test_each_missed_threshold_is_told_with_both_figures(quality: Quality, shot: ShotRecord, said: str) -> None:
    (reason,) = reasons_to_look(quality, shot)
    assert said in reason


def test_all_missed_thresholds_are_told() -> None:
    assert len(reasons_to_look(Quality(min_dubbed_share=0.9, min_r_opening=0.9, max_warnings=0), record())) == 3
