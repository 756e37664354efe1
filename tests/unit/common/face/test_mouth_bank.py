"""Tests of the mouth bank: the choice of its frames, its windows, its search and its artefact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose, head_template, head_to_box
from services.common.face.landmarks import MOUTH_AREA, mouth_opening, part_lips, shut_lips
from services.common.face.mouth_bank import (
    FORMAT,
    MouthBank,
    Retrieved,
    bank_arrays,
    bank_from_arrays,
    choose_frames,
    retrieve,
    target_points,
    window_costs,
)
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from tests.unit.common.face.banks import AMOUNTS, MOUTH, bank_of, causal_windows, opened

OF_SPEECH = ("speech", "expression", "spoken_mouth")


def turned(yaw_degrees: float) -> np.ndarray:
    angle = np.radians(yaw_degrees)
    return np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])


def best(bank: MouthBank, window: np.ndarray, rotation: np.ndarray | None = None, count: int = 3) -> Retrieved:
    """The best windows for one target window."""
    return retrieve(bank, window_costs(bank, window, rotation), count)


def test_no_window_crosses_a_gap_of_the_footage() -> None:
    index = np.concatenate([np.arange(10), np.arange(50, 57), np.arange(90, 94)])
    rows = bank_of(opened(np.zeros(21)), index).window_rows
    assert (np.diff(index[rows], axis=1) == 1).all()
    assert rows[:, -1].tolist() == [5, 6, 7, 8, 9, 15, 16]


def test_a_bank_without_six_neighbours_still_has_windows() -> None:
    rows = bank_of(opened(np.zeros(3)), np.array([0, 10, 20])).window_rows
    assert rows.tolist() == [[0] * 6, [1] * 6, [2] * 6]


def test_best_window_of_own_motion() -> None:
    """The best window for the bank's own motion is itself."""
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
    apart = np.abs(bank.window_rows[:, -1] - 30).astype(np.float32)
    assert retrieve(bank, apart, 3).rows[:, -1].tolist() == [30, 27, 33]
    assert found.weights.sum() == pytest.approx(1.0)
    assert (np.diff(found.weights) <= 0).all()


def test_small_bank_gives_all() -> None:
    """A small bank gives as many windows as it has."""
    bank = bank_of(opened(AMOUNTS[:7]))
    found = best(bank, causal_windows(bank.mouth)[6], count=3)
    assert len(found.rows) == 1
    assert found.weights.tolist() == [1.0]


def test_equal_mouths_prefer_orientation() -> None:
    """Among equal mouths, the mouth in the same orientation is taken."""
    turns = np.repeat([turned(-20), turned(0), turned(15)], 8, axis=0)
    bank = bank_of(opened(np.zeros(24)), rotation=turns)
    window = causal_windows(opened(np.zeros(6)))[-1]
    for yaw, block in ((-18, 0), (2, 1), (14, 2)):
        assert best(bank, window, turned(yaw)).rows[0, -1] // 8 == block


def test_tilt_of_view_costs_nothing() -> None:
    """The box is tilted with the head: views that differ by their tilt look the same."""
    bank = bank_of(opened(AMOUNTS[:8]), rotation=np.stack([turned(30.0)] * 8))
    (window, *_) = causal_windows(bank.mouth)[5:]
    angle = np.radians(35.0)
    tilt = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    assert window_costs(bank, window, tilt @ turned(30.0)) == pytest.approx(window_costs(bank, window, turned(30.0)), abs=1e-5)


def test_opening_outweighs_position() -> None:
    """A mouth of the same opening in its last frame at another place is nearer than a wider mouth in place."""
    same = opened(np.array([9.0, 9, 0, 0, 0, 0]))
    aside = same + np.array([1.5, 0, 0], np.float32)
    wider = opened(np.array([9.0, 9, 3, 3, 3, 3]))
    assert np.abs(aside - same).mean() > np.abs(wider - same).mean()
    costs = window_costs(bank_of(np.concatenate([aside, wider]), np.r_[0:6, 20:26]), same, np.eye(3))
    assert costs[0] < 0.9 * costs[1]


def gaping(gap_px: float) -> np.ndarray:
    """Six frames of lips that are so far apart in the last two: float32 [6, 59, 3]."""
    gaps = np.repeat([[0.0, gap_px, 0.0]], 9, axis=0).astype(np.float32)
    shut = shut_lips(MOUTH)
    return np.stack([shut] * 4 + [part_lips(shut, gaps)] * 2)


def test_parted_lips_not_from_shut() -> None:
    """Parted lips are not made from shut lips although these are nearer."""
    shut = gaping(0.0)
    parted = gaping(7.0)
    aside = parted + np.array([4.0, 2.0, 0.0], np.float32)
    assert np.abs(shut - parted).mean() < 0.8 * np.abs(aside - parted).mean()
    bank = bank_of(np.concatenate([shut, aside]), np.r_[0:6, 20:26])
    assert best(bank, parted, np.eye(3)).rows[0, -1] == 11
    assert best(bank, shut, np.eye(3)).rows[0, -1] == 5


@pytest.mark.parametrize(("half", "taken"), [(12.0, "wide"), (18.0, "nearest")])
def test_wide_mouth_not_from_half(half: float, taken: str) -> None:
    """A wide mouth is not made from one of half its height although this is nearer."""
    wide = gaping(24.0)
    aside = wide + np.array([5.0, 3.0, 0.0], np.float32)
    assert np.abs(gaping(12.0) - wide).mean() < 0.7 * np.abs(aside - wide).mean()
    bank = bank_of(np.concatenate([gaping(half), aside]), np.r_[0:6, 20:26])
    assert best(bank, wide, np.eye(3)).rows[0, -1] == {"nearest": 5, "wide": 11}[taken]
    # A small mouth shows no teeth that a stretch could make taller.
    small = bank_of(np.concatenate([gaping(3.0), gaping(6.0) + np.array([5.0, 3.0, 0.0], np.float32)]), np.r_[0:6, 20:26])
    assert best(small, gaping(6.0), np.eye(3)).rows[0, -1] == 5


def test_costs_grow_with_difference() -> None:
    """Costs are zero for the same window and grow with the difference."""
    bank = bank_of(opened(AMOUNTS))
    windows = causal_windows(bank.mouth)
    own = window_costs(bank, windows[20], np.eye(3))
    assert own[15] == pytest.approx(0.0, abs=1e-4)
    assert window_costs(bank, windows[20] + 1, np.eye(3))[15] == pytest.approx(1.0, rel=1e-3)


def test_first_frame_stands_in_before() -> None:
    """The first frame stands in for what lies before it."""
    windows = causal_windows(opened(np.arange(8.0)))
    np.testing.assert_array_equal(windows[0], np.repeat(opened(np.zeros(1)), 6, axis=0))
    np.testing.assert_array_equal(windows[7], opened(np.arange(2.0, 8.0)))
    np.testing.assert_array_equal(causal_windows(opened(np.arange(8.0)), context=5), windows[5:])


def test_control_points_of_own_pose() -> None:
    """Control points are the projections of the frame's own pose."""
    bank = bank_of(opened(AMOUNTS[:8]), rotation=np.stack([turned(3.0 * step) for step in range(8)]))
    for row in range(8):
        pose = HeadPose(2.5, bank.rotation[row], np.array([400.0, 300.0, 0.0]))
        np.testing.assert_allclose(target_points(bank.mouth[row], bank.geometry, pose), bank.control_points[row], atol=1e-3)
        np.testing.assert_allclose(head_to_box(bank.mouth[row], pose), bank.box_landmarks[row], atol=1e-3)


def test_the_medoid_is_the_most_ordinary_mouth() -> None:
    assert bank_of(opened(np.array([0.0, 1.0, 2.0, 3.0, 40.0]))).medoid == 2


def test_the_dark_of_a_person_comes_from_the_widest_mouths() -> None:
    """The dark is that between the lips: hair and clothes are darker here, and narrow mouths too."""
    bank = bank_of(opened(np.linspace(0.0, 20.0, 20)))
    boxes = np.full_like(bank.boxes, 90)
    boxes[18:, 70:110, 70:90] = (40, 20, 10)
    boxes[:18, 70:110, 70:90] = 5
    boxes[:, :40] = 0
    np.testing.assert_allclose(replace(bank, boxes=boxes).dark, [40, 20, 10])


def test_a_bank_survives_its_artefact() -> None:
    bank = bank_of(opened(AMOUNTS), np.arange(60) * 2)
    again = bank_from_arrays(decode_arrays(encode_arrays(bank_arrays(bank), {"format": FORMAT})))
    for name in ("boxes", "mouth", "rotation", "box_landmarks", "anchors_box", "frame_index"):
        np.testing.assert_array_equal(getattr(again, name), getattr(bank, name))
    np.testing.assert_array_equal(again.geometry.jaw_envelope, bank.geometry.jaw_envelope)


def heard(bank: MouthBank) -> MouthBank:
    """The bank with speech, expression and spoken mouths."""
    speech = np.random.default_rng(1).random((bank.num_frames, 20, 40)).astype(np.float32)
    return replace(bank, speech=speech, expression=speech[:, 0, :12], spoken_mouth=bank.mouth + 1)


def test_speech_and_expression_in_artefact() -> None:
    """Speech, expression and spoken mouths survive the artefact and may be missing."""
    bank = heard(bank_of(opened(AMOUNTS[:8])))
    again = bank_from_arrays(decode_arrays(encode_arrays(bank_arrays(bank), {"format": FORMAT})))
    for name in OF_SPEECH:
        np.testing.assert_array_equal(getattr(again, name), getattr(bank, name))
    silent = bank_arrays(replace(bank, speech=None, expression=None, spoken_mouth=None))
    assert not set(OF_SPEECH) & set(silent)
    again = bank_from_arrays(decode_arrays(encode_arrays(silent, {"format": FORMAT})))
    assert [getattr(again, name) for name in OF_SPEECH] == [None] * 3


@pytest.mark.parametrize("name", OF_SPEECH)
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
    with pytest.raises(InvalidRequestError, match=f"array '{name}' is damaged"):
        bank_from_arrays(decode_arrays(encode_arrays(arrays, {"format": FORMAT})))


@pytest.mark.parametrize("damage", ["format", "shape", "missing"])
def test_what_is_no_bank_is_refused(damage: str) -> None:
    arrays = bank_arrays(bank_of(opened(AMOUNTS[:8])))
    metadata = {"format": "something/1" if damage == "format" else FORMAT}
    if damage == "shape":
        arrays["mouth"] = arrays["mouth"][:, :-1]
    if damage == "missing":
        del arrays["boxes"]
    with pytest.raises(InvalidRequestError):
        bank_from_arrays(decode_arrays(encode_arrays(arrays, metadata)))


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


def test_thinning_keeps_rare_mouth() -> None:
    """A long clip is thinned to windows that keep the rare mouth."""
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


def test_rare_mouth_keeps_preceding_second() -> None:
    """A rare mouth is kept with the second before it."""
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


def test_equal_mouths_chosen_once() -> None:
    """No frame is chosen twice where all mouths are the same."""
    same = np.repeat(talking(1), 50, axis=0)
    assert len(choose_frames(same, np.arange(50) * 2, 12)) == 1
    assert len(choose_frames(same, np.arange(50), 3)) == 1
