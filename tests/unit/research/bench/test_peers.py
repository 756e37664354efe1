"""Metrics of other systems beside ours."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from research.bench.peers import (
    EvaluatedFrames,
    SystemMetrics,
    best_lag,
    encoded,
    face_parts,
    metrics_of,
    peers_of,
    unexplained_change,
)
from research.evaluation.measures import means_of
from research.evaluation.mouth_metrics import MouthTrack
from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import CROP_SIZE, HeadPose, head_template, to_frame
from services.common.face.landmarks import NUM_LANDMARKS

FRONTAL = HeadPose(1.0, np.eye(3), np.array([128.0, 160.0, 0.0]))
COUNT = 30


def landmarks() -> Float32:
    head = np.concatenate([head_template(), np.zeros((NUM_LANDMARKS - 468, 3), np.float32)])
    return np.repeat(to_frame(head, FRONTAL)[None], COUNT, axis=0)


def speaking(seed: int, opening: Float32) -> EvaluatedFrames:
    pictures = np.random.default_rng(seed).integers(0, 255, (COUNT, CROP_SIZE, CROP_SIZE, 3), np.uint8)
    track = MouthTrack(np.zeros((COUNT, 40, 2), np.float32), opening, np.full(COUNT, 40, np.float32))
    return EvaluatedFrames(pictures, pictures, track, np.ones(COUNT, np.bool_), np.ones(COUNT - 1, np.bool_))


OPENING = np.sin(np.arange(COUNT) / 2).astype(np.float32)
REAL = speaking(0, OPENING)
ALL = np.ones(COUNT, np.bool_)


def test_real_video_against_itself_is_perfect() -> None:
    found = metrics_of("clip", "real", REAL, REAL, ALL, landmarks(), [FRONTAL] * COUNT)
    assert (found.mouth_psnr_db, found.mouth_ssim, found.lmd_px, found.flicker, found.jitter) == (100.0, 1.0, 0.0, 0.0, 1.0)
    assert (found.r, found.spread, found.finest_band, found.best_lag) == pytest.approx((1.0, 1.0, 1.0, 0.0))


def test_face_parts_are_measured_alone() -> None:
    changed = REAL.crops.copy()
    changed[:, :100] = 255 - changed[:, :100]
    found = metrics_of("clip", "peer", REAL, replace(REAL, crops=changed), ALL, landmarks(), [FRONTAL] * COUNT)
    assert found.mouth_psnr_db == found.cheek_jaw_psnr_db == 100.0
    assert found.upper_psnr_db < 15.0


def test_systems_are_compared_on_common_frames() -> None:
    """A system that draws every frame is not judged on frames that another one left out."""
    half = np.arange(COUNT) < COUNT // 2
    wrong = REAL.crops.copy()
    wrong[~half] = 0
    for drawn in (half, ALL):
        found = metrics_of("clip", "peer", REAL, replace(REAL, crops=wrong, drawn=drawn), half, landmarks(), [FRONTAL] * COUNT)
        assert found.drawn == drawn.mean()
        assert found.mouth_psnr_db == 100.0


def test_late_mouth_has_its_delay() -> None:
    late = np.roll(OPENING, 2)
    assert best_lag(OPENING, late)[0] == 2
    assert best_lag(late, OPENING)[0] == -2


def test_seams_between_test_parts_do_not_flicker() -> None:
    brighter = np.minimum(REAL.crops, 200)
    darker = np.where(np.arange(COUNT)[:, None, None, None] < 15, brighter, brighter + 50).astype(np.uint8)
    real = replace(REAL, crops=brighter, follows=np.arange(COUNT - 1) != 14)
    assert metrics_of("clip", "peer", real, replace(REAL, crops=darker), ALL, landmarks(), [FRONTAL] * COUNT).flicker == 0.0


def speckles(shifts: list[int]) -> UInt8:
    """One smooth pattern, moved sideways by so many pixels: uint8 [T, 256, 256, 3]."""
    noise = np.random.default_rng(3).normal(0.0, 1.0, (CROP_SIZE, CROP_SIZE)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 5.0)
    pattern = np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return np.stack([np.repeat(np.roll(pattern, shift, axis=1)[..., None], 3, axis=2) for shift in shifts])


def test_jitter_is_no_motion() -> None:
    steady = speckles(list(range(0, 2 * COUNT, 2)))
    popping = steady.copy()
    popping[::5] = np.clip(popping[::5].astype(int) + 12, 0, 255).astype(np.uint8)
    calm, loud = (np.nanmean(unexplained_change(each)) for each in (steady, popping))
    assert np.abs(np.diff(steady.astype(int), axis=0)).mean() > 10.0
    assert calm < 0.5
    assert loud > 4.0


def test_unknown_openings_have_no_delay() -> None:
    assert best_lag(np.full(3, np.nan, np.float32), OPENING[:3])[0] == 0
    assert np.isnan(best_lag(OPENING[:2], OPENING[:2])[1])


def test_mouth_is_neither_cheek_nor_brow() -> None:
    jaw, upper = face_parts(landmarks()[0])
    assert jaw.any()
    assert upper.any()
    assert not (jaw & upper).any()
    assert not jaw[160, 128]


def test_all_sequences_go_through_one_encoder(tmp_path: Path) -> None:
    smooth = np.full((5, 64, 64, 3), 90, np.uint8)
    found = encoded(smooth, Fraction(25), tmp_path / "encoded.mp4")
    assert found.shape == smooth.shape
    assert np.abs(found.astype(int) - smooth).max() <= 3
    skin = np.full((3, 720, 1280, 3), (190, 130, 110), np.uint8)
    assert np.abs(encoded(skin, Fraction(25), tmp_path / "wide.mp4").astype(int) - skin).max() <= 3


def test_folder_without_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(InvalidRequestError, match=r"NAME\.SYSTEM\.mp4"):
        peers_of(tmp_path)


def test_results_stand_beside_their_video(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.one.mp4", "a.two.mp4", "b.one.mp4"):
        (tmp_path / name).touch()
    assert peers_of(tmp_path) == {tmp_path / "a.mp4": {"one": tmp_path / "a.one.mp4", "two": tmp_path / "a.two.mp4"}}


def test_means_are_by_system() -> None:
    row: SystemMetrics = metrics_of("clip", "real", REAL, REAL, ALL, landmarks(), [FRONTAL] * COUNT)
    found = means_of([row, replace(row, clip="other", r=0.5), replace(row, system="peer")], "system")
    assert [(each.clip, each.system, each.r) for each in found] == [
        ("mean of 2", "real", 0.75),
        ("mean of 1", "peer", pytest.approx(1.0)),
    ]
