"""Tests of RetrieveWarp: the stream of textures, the inside of a mouth, and the albedo modes."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from services.common.array_types import UInt8
from services.common.errors import InvalidRequestError
from services.common.face.crops import head_to_box
from services.common.face.drawing import IdentityDrawing
from services.common.face.landmarks import LIPS_OUTER, MOUTH_AREA, NUM_LIPS, mouth_opening
from services.common.face.mouth_bank import MouthBank
from services.common.face.mouth_inside import MouthView
from services.common.face.mouth_texture import inside_weight
from services.texture.bank import build_bank
from services.texture.inside_path import InsideCosts
from services.texture.retrieve_warp import IdentityStream, UnseenInside, WarpStream
from services.texture.temporal_warp import TemporalWarpModel
from services.texture.types import ALBEDO_MODES, TargetFrame, WarpedFrame, WarpMode
from tests.refusals import raised
from tests.unit.texture.people import HEAD, MODEL, POSE, a_person, turned

if TYPE_CHECKING:
    from tests.unit.texture.conftest import DrawnPerson

MOUTH = HEAD[list(MOUTH_AREA)]
DRAWING = IdentityDrawing(a_person(), MODEL)
NETWORK = WarpMode.TEMPORAL_WARP_NETWORK
RETRIEVING = [mode for mode in WarpMode if mode not in ALBEDO_MODES]


@pytest.fixture(scope="module")
def shut(person: DrawnPerson) -> MouthBank:
    """Ninety frames of the person, on which the lips are 1 px apart."""
    silent = copy.copy(person)
    apart = float(mouth_opening(person.mouth(0))) - person.opening(0)
    silent.opening = lambda _: 1.0 - apart  # type: ignore[method-assign,assignment]
    return build_bank([silent.bank_frame(frame) for frame in range(90)])


def answers(
    bank: MouthBank, model: TemporalWarpModel, frames: Iterable[TargetFrame], mode: WarpMode = NETWORK
) -> list[WarpedFrame]:
    """The answers to a whole stream."""
    stream = WarpStream(InsideCosts(bank), mode, model)
    return [warped for frame in frames if (warped := stream.push(frame)) is not None]


def between_the_lips(frame: WarpedFrame) -> UInt8:
    """The pixels around the middle of the target inner lips."""
    x, y = np.rint(frame.box_landmarks[len(LIPS_OUTER) : NUM_LIPS].mean(axis=0)).astype(int)
    return frame.texture[y - 1 : y + 2, x - 2 : x + 3]


def test_unseen_open_mouth_is_dark(person: DrawnPerson, shut: MouthBank, model: TemporalWarpModel) -> None:
    """An open mouth of a person who is never seen with one is dark inside."""
    (frame,) = answers(shut, model, [person.target(max(range(90), key=person.opening))])
    lips = shut.boxes[shut.medoid].astype(np.float32).mean()
    assert between_the_lips(frame).max() < 0.5 * lips


def test_inside_of_a_frame_outside_the_bank_is_refused(person: DrawnPerson, shut: MouthBank, model: TemporalWarpModel) -> None:
    with pytest.raises(InvalidRequestError, match="no frame 91"):
        answers(shut, model, [replace(person.target(0), inside_frame_index=91)])


def test_named_inside_is_shown(person: DrawnPerson, shut: MouthBank, model: TemporalWarpModel) -> None:
    (found,) = answers(shut, model, [replace(person.target(0), inside_frame_index=61)])
    assert found.inside_frame_index == 61


def test_shut_lips_have_no_dark_line(shut: MouthBank) -> None:
    texture, target = shut.boxes[0], shut.control_points[0].copy()
    upper, lower = slice(len(LIPS_OUTER) + 1, len(LIPS_OUTER) + 10), slice(NUM_LIPS - 1, len(LIPS_OUTER) + 10, -1)
    target[lower] = target[upper]
    assert np.array_equal(UnseenInside(shut).drawn(texture, target), texture)


def test_known_open_mouth_not_drawn(person: DrawnPerson) -> None:
    """Nothing is drawn for a person whose open mouth is known."""
    bank = build_bank([person.bank_frame(frame) for frame in range(90)])
    inside = UnseenInside(bank)
    assert not inside.needed
    assert np.array_equal(inside.drawn(bank.boxes[0], bank.control_points[0]), bank.boxes[0])


def target(frame: int, *, context_only: bool = False) -> TargetFrame:
    pose = replace(POSE, rotation=turned(yaw=2.0 * frame))
    return TargetFrame(frame, MOUTH + np.array([0.0, 0.1 * frame, 0.0], np.float32), pose, context_only)


@pytest.mark.parametrize("mode", [WarpMode.LOW_FREQUENCY_ALBEDO, WarpMode.DETAILED_ALBEDO])
def test_a_frame_depends_on_itself_alone(mode: WarpMode) -> None:
    whole = IdentityStream(DRAWING, mode)
    answers = [whole.push(target(frame)) for frame in range(4)]
    alone = IdentityStream(DRAWING, mode).push(target(3))
    assert isinstance(alone, WarpedFrame)
    assert isinstance(answers[3], WarpedFrame)
    assert alone.texture.tobytes() == answers[3].texture.tobytes()
    drawn = DRAWING.draw(target(3).mouth, target(3).pose, detailed=mode is WarpMode.DETAILED_ALBEDO)
    assert alone.texture.tobytes() == drawn.tobytes()
    np.testing.assert_array_equal(alone.box_landmarks, head_to_box(target(3).mouth, target(3).pose))
    assert (alone.bank_frame_index, alone.distance, alone.fitting_error, alone.bending_energy) == (-1, 0.0, 0.0, 0.0)


def test_context_is_not_answered() -> None:
    assert IdentityStream(DRAWING, WarpMode.LOW_FREQUENCY_ALBEDO).push(target(0, context_only=True)) is None


def test_frames_must_come_in_order() -> None:
    stream = IdentityStream(DRAWING, WarpMode.LOW_FREQUENCY_ALBEDO)
    stream.push(target(2))
    with pytest.raises(InvalidRequestError, match="must increase"):
        stream.push(target(2))


def test_no_detail_is_refused_at_once() -> None:
    plain = IdentityDrawing(a_person(texture=np.zeros((0, 0, 3), np.uint8), seen=np.zeros((0, 0), np.uint8)), MODEL)
    IdentityStream(plain, WarpMode.LOW_FREQUENCY_ALBEDO)
    with raised(InvalidRequestError, field="config.identity"):
        IdentityStream(plain, WarpMode.DETAILED_ALBEDO)


@pytest.fixture(scope="module")
def bank(person: DrawnPerson) -> MouthBank:
    return build_bank([person.bank_frame(number) for number in range(90)])


def same(first: WarpedFrame, second: WarpedFrame) -> bool:
    return (
        np.array_equal(first.texture, second.texture)
        and np.array_equal(first.box_landmarks, second.box_landmarks)
        and (first.frame_index, first.bank_frame_index, first.distance, first.fitting_error, first.bending_energy)
        == (second.frame_index, second.bank_frame_index, second.distance, second.fitting_error, second.bending_energy)
    )


@pytest.mark.parametrize("mode", RETRIEVING)
def test_five_context_frames_suffice(person: DrawnPerson, bank: MouthBank, model: TemporalWarpModel, mode: WarpMode) -> None:
    """Five frames of context give the bytes of the whole stream."""
    insides = np.random.default_rng(3).choice(bank.frame_index, 14)

    def target(number: int, *, context_only: bool = False) -> TargetFrame:
        frame = person.target(number, context_only=context_only)
        return replace(frame, inside_frame_index=int(insides[number - 200]))

    whole = answers(bank, model, [target(number) for number in range(200, 214)], mode)
    for start in (206, 211):
        frames = [target(number, context_only=number < start) for number in range(start - 5, 214)]
        part = answers(bank, model, frames, mode)
        assert [frame.frame_index for frame in part] == list(range(start, 214))
        assert all(same(one, other) for one, other in zip(part, whole[start - 200 :], strict=True))


@pytest.mark.parametrize("named", [True, False])
def test_one_source_per_pixel_inside(person: DrawnPerson, bank: MouthBank, model: TemporalWarpModel, *, named: bool) -> None:
    """Every pixel between the lips comes from one bank frame, also where the source changes: no frame shines through another.

    All pixels of a bank frame have the frame's own grey level. The widest mouths are the lightest: no gap is darkened.
    """
    levels = np.argsort(np.argsort(mouth_opening(bank.mouth))) * 250 // bank.num_frames
    boxes = np.zeros_like(bank.boxes) + levels[:, None, None, None].astype(np.uint8)
    stream = WarpStream(InsideCosts(replace(bank, boxes=boxes)), NETWORK, model)
    insides = np.random.default_rng(7).choice(bank.frame_index, 40)
    shown = set()
    for number in range(200, 240):
        frame = person.target(number)
        found = stream.push(replace(frame, inside_frame_index=int(insides[number - 200])) if named else frame)
        assert found is not None
        between = inside_weight(MouthView(frame.mouth, frame.pose.rotation, found.box_landmarks)) == 1.0
        row = int(np.searchsorted(bank.frame_index, found.inside_frame_index))
        assert (found.texture[between] == boxes[row, 0, 0]).all()
        shown.add(row)
    assert len(shown) > 5


def test_a_gap_starts_anew(person: DrawnPerson, bank: MouthBank, model: TemporalWarpModel) -> None:
    after = answers(bank, model, [person.target(number) for number in (200, 201, 210, 211)])
    fresh = answers(bank, model, [person.target(number) for number in (210, 211)])
    assert all(same(one, other) for one, other in zip(after[2:], fresh, strict=True))


def test_the_texture_shows_the_wanted_mouth(person: DrawnPerson, bank: MouthBank, model: TemporalWarpModel) -> None:
    stream = WarpStream(InsideCosts(bank), WarpMode.THIN_PLATE_SPLINE, model)
    still = WarpStream(InsideCosts(bank), WarpMode.MEAN_MOUTH, model)
    errors: list[float] = []
    still_errors: list[float] = []
    for number in range(300, 330):
        truth = person.bank_frame(number).box.astype(float)
        for made, found in ((stream, errors), (still, still_errors)):
            warped = made.push(person.target(number))
            assert warped is not None
            found.append(float(np.abs(warped.texture - truth)[30:110, 20:140].mean()))
    assert np.mean(errors) < 0.35 * np.mean(still_errors)


def test_still_mouth_follows_head(person: DrawnPerson, bank: MouthBank, model: TemporalWarpModel) -> None:
    """The still mouth follows the head but not the speech."""
    frames = [TargetFrame(step, person.mouth(step), person.pose(0)) for step in range(5)]
    made = answers(bank, model, frames, WarpMode.MEAN_MOUTH)
    assert all(np.array_equal(frame.texture, made[0].texture) for frame in made)
    assert all(np.array_equal(frame.box_landmarks, made[0].box_landmarks) for frame in made)
    turned = answers(bank, model, [TargetFrame(0, person.mouth(0), person.pose(17))], WarpMode.MEAN_MOUTH)
    assert not np.array_equal(turned[0].texture, made[0].texture)


def test_retrieval_centres_mouth(person: DrawnPerson, bank: MouthBank, model: TemporalWarpModel) -> None:
    """Retrieval alone puts the mouth's centre at the target place."""
    (warped,) = answers(bank, model, [person.target(250)], WarpMode.RETRIEVAL_ONLY)
    dark = np.argwhere(warped.texture[..., 0] < 170)[:, ::-1]
    lips = warped.box_landmarks[:20]
    np.testing.assert_allclose((dark.min(0) + dark.max(0)) / 2, (lips.min(0) + lips.max(0)) / 2, atol=2.0)
    assert (warped.fitting_error, warped.bending_energy) == (0.0, 0.0)


def test_diagnostics_tell_what_was_found(person: DrawnPerson, bank: MouthBank, model: TemporalWarpModel) -> None:
    made = answers(bank, model, [person.target(number) for number in range(30, 40)])
    # The target motion is the bank's own.
    assert [frame.bank_frame_index for frame in made[5:]] == list(range(35, 40))
    assert max(frame.distance for frame in made[5:]) < 1e-3
    (far,) = answers(bank, model, [TargetFrame(0, person.mouth(0) * np.float32(1.3), person.pose(0))])
    assert far.distance > 5.0
    assert far.bending_energy > made[-1].bending_energy


def test_a_bank_of_one_frame_is_enough(person: DrawnPerson, model: TemporalWarpModel) -> None:
    single = build_bank([person.bank_frame(3)])
    for mode in RETRIEVING:
        assert len(answers(single, model, [person.target(number) for number in range(3)], mode)) == 3


def test_indices_must_increase(person: DrawnPerson, bank: MouthBank, model: TemporalWarpModel) -> None:
    with pytest.raises(InvalidRequestError, match="5 came after 5"):
        answers(bank, model, [person.target(5), person.target(5)])
