from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from gateway.batch.quality import WIDTH, jpeg_of, reasons_to_look, shown_frame, thumbnail_of
from gateway.batch.types import Quality, ShotAppearance, ShotMotion, ShotRecord, ShotState
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.reports.appearance import AppearanceMetrics
from services.common.array_types import UInt8


def decoded(jpeg: bytes) -> UInt8:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture[..., ::-1], np.uint8)


@pytest.mark.parametrize(
    ("rendered", "frame"),
    [
        ([], 0),
        ([0, 0, 0, 0], 2),
        ([0, 0, 1, 0], 2),
        ([1, 0, 0, 0, 1, 1], 4),
        ([0] * 5000, 375),
        ([0] * 4000 + [1] * 1000, 4000),
        ([1] * 5000, 375),
    ],
)
def test_thumbnail_near_the_beginning(rendered: list[int], frame: int) -> None:
    """The middle of the rendered frames near the beginning is shown."""
    assert shown_frame(np.array(rendered, np.bool_)) == frame


@pytest.mark.parametrize(("shape", "size"), [((1080, 1920), (180, 320)), ((200, 100), (200, 100)), ((3, 4000), (1, 320))])
def test_a_thumbnail_has_the_proportions_of_the_picture(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert decoded(jpeg_of(np.full((*shape, 3), 128, np.uint8))).shape == (*size, 3)


def test_thumbnail_shows_frame_colours(carphone: Path) -> None:
    """A thumbnail shows the chosen frame in its colours."""
    video = probe(carphone)
    rendered = np.zeros(video.video.num_frames, np.bool_)
    rendered[60:81] = True
    with VideoReader(video) as reader:
        frames = {frame.index: to_rgb(frame).astype(np.float32) for frame in reader if frame.index in (0, 70)}
    shown = decoded(thumbnail_of(video, rendered)).astype(np.float32)
    assert shown.shape[1] <= WIDTH
    assert np.abs(shown - frames[70]).mean() < 4
    assert np.abs(shown - frames[0]).mean() > 6
    assert np.abs(shown[..., ::-1] - frames[70]).mean() > 6


def record(**more: object) -> ShotRecord:
    figures: dict[str, object] = {"frames": 100, "frames_dubbed": 80, "r_opening": 0.75, "warnings": ("one", "two")}
    figures["motion"] = ShotMotion(
        silence_opening=0.3, opening_spread=0.8, width_spread=0.5, fastest_step=1.4, vowel_shift_ms=12.0, closure_shift_ms=-30.0
    )
    return ShotRecord.model_validate({"id": "a", "state": ShotState.DONE, **figures, **more})


def test_without_thresholds_every_shot_passes() -> None:
    assert reasons_to_look(Quality(), record(frames=0, frames_dubbed=0, r_opening=None, warnings=("w",) * 50)) == ()


def test_a_figure_at_its_threshold_passes() -> None:
    quality = Quality(
        min_dubbed_share=0.8,
        min_r_opening=0.75,
        max_warnings=2,
        max_silence_opening=0.3,
        min_opening_spread=0.8,
        max_opening_spread=0.8,
        min_width_spread=0.5,
        max_fastest_step=1.4,
        max_shift_ms=30,
    )
    assert reasons_to_look(quality, record()) == ()


@pytest.mark.parametrize(
    ("quality", "shot", "said"),
    [
        (Quality(min_dubbed_share=0.81), record(), "80 of 100 frames are dubbed, a share of 0.800: at least 0.81 is wanted"),
        (Quality(min_dubbed_share=0.01), record(frames=0, frames_dubbed=0), "0 of 0 frames are dubbed"),
        (Quality(min_r_opening=0.76), record(), "opening is 0.750: at least 0.76 is wanted"),
        (Quality(min_r_opening=0.7500001), record(), "opening is 0.7500000: at least 0.7500001 is wanted"),
        (Quality(min_r_opening=-1), record(r_opening=None), "was not measured"),
        (Quality(max_warnings=1), record(), "the number of warnings is 2: at most 1 is wanted"),
        (Quality(max_silence_opening=0.1), record(), "as a share of the person's own range, is 0.300: at most 0.1 is wanted"),
        (Quality(min_opening_spread=0.9), record(), "spread of the mouth's opening over the person's own is 0.800: at least 0.9"),
        (Quality(max_opening_spread=0.7), record(), "spread of the mouth's opening over the person's own is 0.800: at most 0.7"),
        (Quality(min_width_spread=0.85), record(), "spread of the lip width over the person's own is 0.500: at least 0.85"),
        (
            Quality(max_fastest_step=1),
            record(),
            "fastest change of the mouth's opening over the person's own is 1.400: at most 1.0",
        ),
        (Quality(max_shift_ms=20), record(), "at vowels or at p, b, m is 30.000: at most 20.0 is wanted"),
        (Quality(max_silence_opening=1), record(motion=None), "range, was not measured"),
        (Quality(min_width_spread=0.1), record(motion=None), "width over the person's own was not measured"),
        (Quality(min_width_spread=0.1), record(motion=ShotMotion(fastest_step=1.0)), "own was not measured"),
    ],
)
def test_each_missed_threshold_is_told_with_both_figures(quality: Quality, shot: ShotRecord, said: str) -> None:
    (reason,) = reasons_to_look(quality, shot)
    assert said in reason


def test_seen_faults_are_told() -> None:
    """Each threshold of what eyes see is told with its own sentence; what a video does not show passes."""
    seen = ShotAppearance(tint_alarms=0.4, nostril_alarms=0.2, low_contrast=0.12, popping=1.3, face_distance=0.5)
    strict = Quality(
        max_tint_alarms=0.1,
        max_nostril_alarms=0.1,
        max_low_contrast=0.05,
        max_popping=1.2,
        max_clothing_moved=0.1,
        max_face_distance=0.43,
    )
    told = reasons_to_look(strict, record(appearance=seen))
    assert len(told) == 5
    assert "another colour than the person's own is 0.400: at most 0.1 is wanted" in told[0]
    assert "the distance of the face from the face of the video is 0.500: at most 0.43 is wanted" in told[4]
    assert len(reasons_to_look(strict, record())) == 6, "nothing was measured"
    assert reasons_to_look(Quality(), record(appearance=seen)) == ()


def test_only_gated_figures_are_recorded() -> None:
    found = ShotAppearance.of(AppearanceMetrics(0.4, math.nan, -0.011112, 1.3, 0.7, 2.0, 0.0, 31.0, 0.2))
    assert found == ShotAppearance(tint_alarms=0.4, low_contrast=-0.0111, popping=1.3, clothing_moved=0.0, face_distance=0.2)


def test_missing_measures_pass_thresholds() -> None:
    """Speech without silence and vowels misses no threshold of them."""
    motion = ShotMotion(opening_spread=1.0, width_spread=1.0, fastest_step=1.0)
    assert reasons_to_look(Quality(max_silence_opening=0.0, max_shift_ms=0.0), record(motion=motion)) == ()


def test_all_missed_thresholds_are_told() -> None:
    assert len(reasons_to_look(Quality(min_dubbed_share=0.9, min_r_opening=0.9, max_warnings=0), record())) == 3
