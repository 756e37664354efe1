"""Tests of the mouth bank: the choice of its frames, its windows, its search and its artefact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.common.face.actor_geometry import ANCHORS, measure_geometry
from services.common.face.crops import HeadPose, head_template, head_to_box
from services.common.face.landmarks import MOUTH_AREA, mouth_opening, part_lips, shut_lips
from services.common.face.mouth_bank import (
    FORMAT,
    MouthBank,
    Retrieved,
    bank_arrays,
    bank_from_arrays,
    blend,
    choose_frames,
    fit_retrieved,
    inside_weight,
    make_bank,
    retrieve,
    target_points,
    warp_retrieved,
    window_costs,
)
from services.common.face.thin_plate_spline import evaluate_grid
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from tests.unit.common.face.windows import causal_windows

HEAD = head_template()
MOUTH = HEAD[list(MOUTH_AREA)]


def turned(yaw_degrees: float) -> np.ndarray:
    angle = np.radians(yaw_degrees)
    return np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])


def opened(amounts: np.ndarray) -> np.ndarray:
    """Mouths whose lower half is pulled down by so many pixels: float32 [F, 59, 3]."""
    mouths = np.repeat(MOUTH[None], len(amounts), axis=0)
    lower = MOUTH[:, 1] > 0
    mouths[:, lower, 1] += amounts[:, None]
    return mouths.astype(np.float32)


def bank_of(mouth: np.ndarray, index: np.ndarray | None = None, rotation: np.ndarray | None = None) -> MouthBank:
    count = len(mouth)
    anchors = np.repeat(HEAD[None, list(ANCHORS)], count, axis=0)
    boxes = np.zeros((count, 160, 160, 3), np.uint8)
    boxes += np.arange(count, dtype=np.uint8)[:, None, None, None]
    return make_bank(
        boxes,
        mouth,
        np.repeat(np.eye(3)[None], count, axis=0) if rotation is None else rotation,
        np.arange(count) if index is None else index,
        measure_geometry(mouth, anchors),
    )


def best(bank: MouthBank, window: np.ndarray, rotation: np.ndarray | None = None, count: int = 3) -> Retrieved:
    """The best windows for one target window."""
    return retrieve(bank, window_costs(bank, window, rotation), count)


AMOUNTS = 6 + 6 * np.sin(np.arange(60) ** 1.3 / 4)


def test_no_window_crosses_a_gap_of_the_footage() -> None:
    index = np.concatenate([np.arange(10), np.arange(50, 57), np.arange(90, 94)])
    rows = bank_of(opened(np.zeros(21)), index).window_rows
    assert (np.diff(index[rows], axis=1) == 1).all()
    assert rows[:, -1].tolist() == [5, 6, 7, 8, 9, 15, 16]


def test_a_bank_without_six_neighbours_still_has_windows() -> None:
    rows = bank_of(opened(np.zeros(3)), np.array([0, 10, 20])).window_rows
    assert rows.tolist() == [[0] * 6, [1] * 6, [2] * 6]


def test_the_best_window_for_the_banks_own_motion_is_itself() -> None:
    bank = bank_of(opened(AMOUNTS))
    windows = causal_windows(bank.mouth)
    found = [int(best(bank, windows[row], np.eye(3)).rows[0, -1]) for row in range(5, 60)]
    assert found == list(range(5, 60))


def test_motion_before_the_frame_decides_between_equal_mouths() -> None:
    rise_and_fall = np.concatenate([np.arange(0, 12, 2.0), np.full(3, 12.0), np.arange(10, -2, -2.0)])
    bank = bank_of(opened(np.concatenate([rise_and_fall, rise_and_fall])))
    falling = causal_windows(opened(np.array([12.0, 12, 12, 10, 8, 6])))[-1]
    assert best(bank, falling).rows[0, -1] % 15 == 11


def test_retrieved_windows_come_from_different_places_best_first() -> None:
    bank = bank_of(opened(AMOUNTS))
    found = best(bank, causal_windows(bank.mouth)[30], np.eye(3), count=4)
    ends = found.rows[:, -1]
    assert len(ends) == 4
    assert np.abs(ends[:, None] - ends[None, :])[~np.eye(4, dtype=bool)].min() >= 3
    assert found.weights.sum() == pytest.approx(1.0)
    assert (np.diff(found.weights) <= 0).all()


def test_a_small_bank_gives_as_many_as_it_has() -> None:
    bank = bank_of(opened(AMOUNTS[:7]))
    found = best(bank, causal_windows(bank.mouth)[6], count=3)
    assert len(found.rows) == 1
    assert found.weights.tolist() == [1.0]


def test_of_equal_mouths_the_one_in_the_same_orientation_is_taken() -> None:
    turns = np.repeat([turned(-20), turned(0), turned(15)], 8, axis=0)
    bank = bank_of(opened(np.zeros(24)), rotation=turns)
    window = causal_windows(opened(np.zeros(6)))[-1]
    for yaw, block in ((-18, 0), (2, 1), (14, 2)):
        assert best(bank, window, turned(yaw)).rows[0, -1] // 8 == block


def test_a_mouth_of_the_same_opening_aside_is_nearer_than_a_wider_one_in_place() -> None:
    aside = opened(np.zeros(6)) + np.array([1.5, 0, 0], np.float32)
    wider = opened(np.full(6, 3.0))
    same = opened(np.zeros(6))
    assert np.abs(aside - same).mean() > np.abs(wider - same).mean()
    costs = window_costs(bank_of(np.concatenate([aside, wider]), np.r_[0:6, 20:26]), same, np.eye(3))
    assert costs[0] < 0.9 * costs[1]


def test_parted_lips_are_not_made_from_shut_lips_although_these_are_nearer() -> None:
    shut = np.repeat(shut_lips(MOUTH)[None], 6, axis=0)
    parted = np.repeat(part_lips(shut[0], np.repeat([[0.0, 7.0, 0.0]], 9, axis=0).astype(np.float32))[None], 6, axis=0)
    aside = parted + np.array([4.0, 2.0, 0.0], np.float32)
    assert np.abs(shut - parted).mean() < 0.8 * np.abs(aside - parted).mean()
    bank = bank_of(np.concatenate([shut, aside]), np.r_[0:6, 20:26])
    assert best(bank, parted, np.eye(3)).rows[0, -1] == 11
    assert best(bank, shut, np.eye(3)).rows[0, -1] == 5


def gaping(gap_px: float) -> np.ndarray:
    """Six frames of lips that are so far apart: float32 [6, 59, 3]."""
    gaps = np.repeat([[0.0, gap_px, 0.0]], 9, axis=0).astype(np.float32)
    return np.repeat(part_lips(shut_lips(MOUTH), gaps)[None], 6, axis=0)


@pytest.mark.parametrize(("half", "taken"), [(12.0, "wide"), (18.0, "nearest")])
def test_a_wide_mouth_is_not_made_from_one_of_half_its_height_although_this_is_nearer(half: float, taken: str) -> None:
    wide = gaping(24.0)
    aside = wide + np.array([5.0, 3.0, 0.0], np.float32)
    assert np.abs(gaping(12.0) - wide).mean() < 0.7 * np.abs(aside - wide).mean()
    bank = bank_of(np.concatenate([gaping(half), aside]), np.r_[0:6, 20:26])
    assert best(bank, wide, np.eye(3)).rows[0, -1] == {"nearest": 5, "wide": 11}[taken]
    # A small mouth shows no teeth that a stretch could make taller.
    small = bank_of(np.concatenate([gaping(3.0), gaping(6.0) + np.array([5.0, 3.0, 0.0], np.float32)]), np.r_[0:6, 20:26])
    assert best(small, gaping(6.0), np.eye(3)).rows[0, -1] == 5


def test_costs_are_zero_for_the_same_window_and_grow_with_the_difference() -> None:
    bank = bank_of(opened(AMOUNTS))
    windows = causal_windows(bank.mouth)
    own = window_costs(bank, windows[20], np.eye(3))
    assert own[15] == pytest.approx(0.0, abs=1e-4)
    assert window_costs(bank, windows[20] + 1, np.eye(3))[15] == pytest.approx(1.0, rel=1e-3)


def test_the_first_frame_stands_in_for_what_lies_before_it() -> None:
    windows = causal_windows(opened(np.arange(8.0)))
    np.testing.assert_array_equal(windows[0], np.repeat(opened(np.zeros(1)), 6, axis=0))
    np.testing.assert_array_equal(windows[7], opened(np.arange(2.0, 8.0)))
    np.testing.assert_array_equal(causal_windows(opened(np.arange(8.0)), context=5), windows[5:])


def test_control_points_are_the_projections_of_the_frames_own_pose() -> None:
    bank = bank_of(opened(AMOUNTS[:8]), rotation=np.stack([turned(3.0 * step) for step in range(8)]))
    for row in range(8):
        pose = HeadPose(2.5, bank.rotation[row], np.array([400.0, 300.0, 0.0]))
        np.testing.assert_allclose(target_points(bank.mouth[row], bank.geometry, pose), bank.control_points[row], atol=1e-3)
        np.testing.assert_allclose(head_to_box(bank.mouth[row], pose), bank.box_landmarks[row], atol=1e-3)


def test_the_medoid_is_the_most_ordinary_mouth() -> None:
    assert bank_of(opened(np.array([0.0, 1.0, 2.0, 3.0, 40.0]))).medoid == 2


def test_a_bank_survives_its_artefact() -> None:
    bank = bank_of(opened(AMOUNTS), np.arange(60) * 2)
    again = bank_from_arrays(decode_arrays(encode_arrays(bank_arrays(bank), {"format": FORMAT})))
    for name in ("boxes", "mouth", "rotation", "box_landmarks", "anchors_box", "frame_index"):
        np.testing.assert_array_equal(getattr(again, name), getattr(bank, name))
    np.testing.assert_array_equal(again.geometry.jaw_envelope, bank.geometry.jaw_envelope)


def heard(bank: MouthBank) -> MouthBank:
    """The bank with speech and expression."""
    speech = np.random.default_rng(1).random((bank.num_frames, 20, 40)).astype(np.float32)
    return replace(bank, speech=speech, expression=speech[:, 0, :12])


def test_speech_and_expression_survive_the_artefact_and_may_be_missing() -> None:
    bank = heard(bank_of(opened(AMOUNTS[:8])))
    again = bank_from_arrays(decode_arrays(encode_arrays(bank_arrays(bank), {"format": FORMAT})))
    np.testing.assert_array_equal(again.speech, bank.speech)
    np.testing.assert_array_equal(again.expression, bank.expression)
    silent = bank_arrays(replace(bank, speech=None, expression=None))
    assert not {"speech", "expression"} & set(silent)
    again = bank_from_arrays(decode_arrays(encode_arrays(silent, {"format": FORMAT})))
    assert again.speech is None
    assert again.expression is None


@pytest.mark.parametrize("name", ["speech", "expression"])
@pytest.mark.parametrize("damage", ["shape", "number", "none", "frames"])
def test_damaged_speech_and_expression_are_refused(name: str, damage: str) -> None:
    arrays = bank_arrays(heard(bank_of(opened(AMOUNTS[:8]))))
    damaged = {
        "shape": arrays[name].ravel(),
        "number": arrays[name] + np.float32(np.nan),
        "none": arrays[name][..., :0],
        "frames": arrays[name][:5],
    }
    arrays[name] = damaged[damage]
    with pytest.raises(InvalidRequest, match=f"array '{name}' is damaged"):
        bank_from_arrays(decode_arrays(encode_arrays(arrays, {"format": FORMAT})))


@pytest.mark.parametrize("damage", ["format", "shape", "missing"])
def test_what_is_no_bank_is_refused(damage: str) -> None:
    arrays = bank_arrays(bank_of(opened(AMOUNTS[:8])))
    metadata = {"format": "something/1" if damage == "format" else FORMAT}
    if damage == "shape":
        arrays["mouth"] = arrays["mouth"][:, :-1]
    if damage == "missing":
        del arrays["boxes"]
    with pytest.raises(InvalidRequest):
        bank_from_arrays(decode_arrays(encode_arrays(arrays, metadata)))


def test_a_blend_of_flat_pictures_is_their_weighted_mean() -> None:
    pictures = np.stack([np.full((160, 160, 3), value, np.uint8) for value in (100, 140, 200)])
    mixed = blend(pictures, np.array([0.5, 0.25, 0.25], np.float32))
    assert np.unique(mixed).tolist() == [135]


def test_a_blend_keeps_the_detail_of_the_best_picture() -> None:
    stripes = (np.arange(160) % 2 * 80 + 80).astype(np.uint8)
    best = np.broadcast_to(stripes[None, :, None], (160, 160, 3)).copy()
    flat = np.full_like(best, 120)
    mixed = blend(np.stack([best, flat, flat]), np.array([0.6, 0.2, 0.2], np.float32)).astype(float)
    assert mixed[:, 20:-20].std() > 0.9 * best.std()
    plain = 0.6 * best.astype(float) + 0.4 * 120
    assert plain.std() < 0.7 * best.std()


def test_a_frame_wanted_as_it_is_in_the_bank_comes_back_unchanged() -> None:
    bank = bank_of(opened(AMOUNTS))
    found = best(bank, causal_windows(bank.mouth)[30], np.eye(3), count=1)
    pose = HeadPose(1.0, np.eye(3), np.zeros(3))
    points = target_points(bank.mouth[30], bank.geometry, pose)
    grids = evaluate_grid(fit_retrieved(bank, found, points))
    np.testing.assert_array_equal(warp_retrieved(bank, found, grids, points), bank.boxes[30])


def test_inside_of_one_frame() -> None:
    """Between the lips, the texture is the warped picture of the frame that the inside is taken from, and of no other."""
    bank = bank_of(opened(AMOUNTS))
    costs = window_costs(bank, causal_windows(bank.mouth)[30], np.eye(3))
    points = target_points(bank.mouth[30] + np.float32(1.0), bank.geometry, HeadPose(1.0, np.eye(3), np.zeros(3)))
    inside = retrieve(bank, costs, 3, inside=44)
    alone = Retrieved(np.full((1, 6), 44), np.ones(1, np.float32), 44)
    pictures = [warp_retrieved(bank, found, evaluate_grid(fit_retrieved(bank, found, points)), points) for found in (inside, alone)]
    between = inside_weight(points) == 1.0
    assert between.sum() > 50
    np.testing.assert_array_equal(pictures[0][between], pictures[1][between])
    assert (pictures[0][inside_weight(points) == 0.0] != pictures[1][inside_weight(points) == 0.0]).any()
    assert inside.sources.tolist() == [*inside.rows[:, -1], 44]


def talking(count: int) -> Float32:
    """A mouth that opens and shuts, never twice the same: float32 [count, 59, 3]."""
    still = head_template()[list(MOUTH_AREA)]
    frames = np.arange(count)
    opening = 6.0 + 5.0 * np.sin(0.7 * frames) * np.cos(0.13 * frames)
    mouth = np.repeat(still[None], count, axis=0)
    mouth[:, still[:, 1] > 0, 1] += opening[:, None]
    return mouth.astype(np.float32)


def runs(kept: np.ndarray) -> list[np.ndarray]:
    return np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1)


def test_a_long_clip_is_thinned_to_windows_that_keep_the_rare_mouth() -> None:
    mouth = talking(400)
    mouth[200, :, 1] += np.where(mouth[200, :, 1] > 0, 25.0, 0.0)
    kept = choose_frames(mouth, np.arange(400), 60)
    assert 50 <= len(kept) <= 60
    assert 200 in kept
    assert min(len(run) for run in runs(kept)) >= 6
    opening = mouth_opening(mouth)
    usual = np.delete(opening, 200)
    assert opening[kept].min() < usual.min() + 0.5
    assert np.delete(opening[kept], np.flatnonzero(kept == 200)).max() > usual.max() - 0.5


def test_a_rare_mouth_is_kept_with_the_second_before_it() -> None:
    mouth = talking(400)
    mouth[200, :, 1] += np.where(mouth[200, :, 1] > 0, 25.0, 0.0)
    kept = choose_frames(mouth, np.arange(400), 100, length=25)
    assert 75 <= len(kept) <= 100
    assert set(range(176, 201)) <= set(kept.tolist())
    assert min(len(run) for run in runs(kept)) >= 25


def test_a_short_clip_is_kept_whole() -> None:
    assert choose_frames(talking(40), np.arange(40), 60).tolist() == list(range(40))


def test_footage_without_neighbours_is_thinned_frame_by_frame() -> None:
    kept = choose_frames(talking(50), np.arange(50) * 3, 12)
    assert len(kept) == 12
    assert (np.diff(kept) > 0).all()


def test_no_frame_is_chosen_twice_where_all_mouths_are_the_same() -> None:
    same = np.repeat(talking(1), 50, axis=0)
    assert len(choose_frames(same, np.arange(50) * 2, 12)) == 1
    assert len(choose_frames(same, np.arange(50), 3)) == 1
