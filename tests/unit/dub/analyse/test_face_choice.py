"""Tests of the choice of the face to dub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import gateway_pb2 as pb
from dubstage.gateway.v1.dub_pb2 import FACE_RULE_LARGEST, DubSpec
from gateway.dub.analyse.face_choice import (
    AUTOMATIC,
    ChosenFace,
    FaceChoice,
    MeasureLag,
    about_faces,
    choose_face,
    main_faces,
    parse_face,
)
from gateway.dub.analyse.face_records import FaceIndex
from gateway.dub.analyse.frame_plan import make_plan
from gateway.dub.analyse.motion_clip import SoundLag
from gateway.dub.request.dub_request import DubRequest
from gateway.dub.request.spec import face_of
from services.common.errors import InvalidRequestError
from tests.unit.batch.rows import changed_shot, shot_of_row

DUBBED = common_pb2.FRAME_REASON_DUBBED


@pytest.fixture
def two_faces() -> FaceIndex:
    """Face 3, large on the left, and face 7, small on the right, over four frames."""
    frame = np.repeat(np.arange(4), 2)
    return FaceIndex(
        frame=frame,
        face_id=np.tile([3, 7], 4),
        reason=np.full(8, DUBBED, np.int64),
        area=np.tile([400.0, 100.0], 4).astype(np.float32),
        centre=np.tile([[50.0, 60.0], [200.0, 60.0]], (4, 1)).astype(np.float32),
        shot_cuts=(),
        num_frames=4,
    )


@pytest.mark.parametrize(("frames", "cuts"), [(range(3), (1,)), (range(1, 4), (0, 2)), (range(2, 3), ())])
def test_span_keeps_rows_of_records(two_faces: FaceIndex, frames: range, cuts: tuple[int, ...]) -> None:
    """The frames and cuts of a span count from 0. Its records keep their rows, and the plan of a span is that of its frames."""
    reason = np.where(np.arange(8) == 4, common_pb2.FRAME_REASON_PROFILE_VIEW, DUBBED)
    whole = replace(two_faces, shot_cuts=(1, 3), reason=reason, face_id=np.array([3, 7, 3, 7, 3, 7, 3, 8]))
    span, own = whole.span(frames), slice(frames.start, frames.stop)
    assert (span.num_frames, span.shot_cuts) == (len(frames), cuts)
    for face in (3, 7, 8, 9):
        assert span.rows_of(face).tolist() == whole.rows_of(face)[own].tolist()
        part, plan = (make_plan(one, face, np.zeros(one.num_frames, np.bool_), range(one.num_frames)) for one in (span, whole))
        assert (part.reason.tolist(), part.row.tolist()) == (plan.reason[own].tolist(), plan.row[own].tolist())
    free = whole.free_frames(whole.rows_of(3))
    assert span.free_frames(span.rows_of(3)).tolist() == free[own].tolist()


async def chosen(index: FaceIndex, choice: FaceChoice, measure: MeasureLag | None) -> int | None:
    found = await choose_face(index, choice, measure)
    return found.face_id if found is not None else None


def lags(confidences: dict[int, float], *, frames: int | None = 1) -> MeasureLag:
    """Return a measurement of the lags of faces, over 60 frames each."""

    async def measure(face_id: int) -> SoundLag:
        return SoundLag(frames, confidences[face_id], num_frames=60)

    return measure


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("auto", AUTOMATIC),
        ("largest", FaceChoice("largest")),
        ("speaker", FaceChoice("speaker")),
        ("7", FaceChoice("id", face_id=7)),
        ("12.5,40", FaceChoice("point", point=(12.5, 40.0))),
    ],
)
def test_the_ways_to_name_a_face(text: str, choice: FaceChoice) -> None:
    assert parse_face(text) == choice


@pytest.mark.parametrize("text", ["", "left", "1,2,3", "-4", "1;2", "nan", "1,nan", "inf,2", "1e9,3", "٣", "9" * 5000, "1,-2"])
def test_anything_else_is_refused_with_what_is_taken(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="takes auto, largest, speaker, the number of a face"):
        parse_face(text)


async def test_largest_face(two_faces: FaceIndex) -> None:
    """Frames in which a face cannot be dubbed count a tenth."""
    assert await chosen(two_faces, FaceChoice("largest"), lags({3: 0.2, 7: 1.4})) == 3
    turned = np.tile([common_pb2.FRAME_REASON_PROFILE_VIEW, DUBBED], 4)
    for area, face in ((41.0, 7), (39.0, 3)):
        index = replace(two_faces, reason=turned, area=np.tile([400.0, area], 4).astype(np.float32))
        assert await chosen(index, FaceChoice("largest"), None) == face


async def test_speaker_fits_the_sound(two_faces: FaceIndex) -> None:
    """The speaker is the face whose mouth fits the sound."""
    assert await chosen(two_faces, FaceChoice("speaker"), lags({3: 0.2, 7: 1.4})) == 7


@pytest.mark.parametrize(
    ("measure", "face", "why"),
    [
        (lags({3: 0.2, 7: 1.4}), 7, "the face that speaks: the mouth that fits the sound of the footage best (confidence: face 3 "),
        (lags({3: 0.1, 7: 0.2}), 3, "the largest of 2 faces; the sound does not tell for certain who speaks (confidence: face 3 "),
        (lags({3: 0.9, 7: 0.2}), 3, "the face that speaks: "),
        (lags({3: 0.9, 7: 0.9}, frames=None), 3, "the largest of 2 faces; no mouth can be compared with the sound"),
        (None, 3, "the largest of 2 faces; the footage has no sound that tells who speaks"),
    ],
)
async def test_default_is_certain_speaker_or_largest(two_faces: FaceIndex, measure: MeasureLag, face: int, why: str) -> None:
    """Without a choice, the speaker is taken where the sound tells for certain, otherwise the largest face."""
    found = await choose_face(two_faces, AUTOMATIC, measure)
    assert found is not None
    assert (found.face_id, found.speaks) == (face, why.startswith("the face that speaks"))
    assert found.why.startswith(why)
    (warning,) = about_faces(two_faces, found, AUTOMATIC)
    assert f"the footage shows 2 faces, and face {face} (at " in warning
    assert f"is taken: {found.why}. " in warning
    assert "face_id, point or face_rule" in warning


async def test_no_sound_selects_largest(two_faces: FaceIndex) -> None:
    """Without sound, the speaker falls back to the largest face."""
    assert await chosen(two_faces, FaceChoice("speaker"), None) == 3


async def test_incomparable_faces_select_largest(two_faces: FaceIndex) -> None:
    """The speaker falls back to the largest if no face can be compared with the sound."""
    two_faces.area[:] = two_faces.area[::-1].copy()  # the largest face is not the first one
    assert await chosen(two_faces, FaceChoice("speaker"), lags({3: 0.0, 7: 0.0}, frames=None)) == 7


async def test_a_point_names_the_face_around_it(two_faces: FaceIndex) -> None:
    assert await chosen(two_faces, FaceChoice("point", point=(195.0, 63.0)), None) == 7


async def test_empty_point_lists_faces(two_faces: FaceIndex) -> None:
    """A point without a face says where faces are."""
    with pytest.raises(InvalidRequestError, match=r"faces are at: 50,60, 200,60"):
        await chosen(two_faces, FaceChoice("point", point=(120.0, 300.0)), None)


async def test_an_unknown_id_says_which_there_are(two_faces: FaceIndex) -> None:
    with pytest.raises(InvalidRequestError, match="no face 4; it has: 3, 7"):
        await chosen(two_faces, FaceChoice("id", face_id=4), None)


async def test_footage_without_faces_has_no_target() -> None:
    none = np.empty(0, np.int64)
    empty = FaceIndex(none, none, none, np.empty(0, np.float32), np.empty((0, 2), np.float32), (), 5)
    assert await chosen(empty, FaceChoice("largest"), None) is None


def test_several_faces_warn(two_faces: FaceIndex) -> None:
    """A video of several faces without a named face warns of the face that is dubbed and how to choose."""
    (warning,) = about_faces(two_faces, ChosenFace(3, "the largest of 2 faces"), FaceChoice("largest"))
    assert "shows 2 faces, and face 3 (at 50,60 in frame 0, in 4 frames) is taken: the largest of 2 faces. " in warning
    assert "face 7 (at 200,60 in frame 0, in 4 frames)" in warning
    assert "face_id, point or face_rule" in warning
    assert "its number, largest or speaker" in warning
    for choice in (FaceChoice("speaker"), FaceChoice("id", face_id=7), FaceChoice("point", point=(200.0, 60.0))):
        assert about_faces(two_faces, ChosenFace(7, ""), choice) == []


def test_passers_by_give_no_warning(two_faces: FaceIndex) -> None:
    """Passers by are no main faces and no reason to warn."""
    assert main_faces(two_faces) == [3, 7]
    two_faces.area[two_faces.face_id == 7] = 19.0  # under a twentieth of the largest
    assert main_faces(two_faces) == [3]
    assert about_faces(two_faces, ChosenFace(3, ""), FaceChoice("largest")) == []


async def test_box_names_the_face_inside(two_faces: FaceIndex) -> None:
    assert await chosen(two_faces, FaceChoice("box", box=(180.0, 40.0, 40.0, 40.0)), None) == 7
    with pytest.raises(InvalidRequestError, match=r"no face at the box 0,0,10,10 in frame 2; faces are at: 50,60, 200,60"):
        await choose_face(two_faces, FaceChoice("box", box=(0.0, 0.0, 10.0, 10.0)), None, first=2)


async def test_choices_say_why(two_faces: FaceIndex) -> None:
    said = {kind: await choose_face(two_faces, FaceChoice(kind), lags({3: 0.2, 7: 1.4})) for kind in ("largest", "speaker")}
    assert said["largest"] == ChosenFace(3, "the largest of 2 faces")
    assert said["speaker"] == ChosenFace(
        7, "the mouth that fits the sound of the footage best (confidence: face 3 0.20, face 7 1.40)"
    )
    assert "no sound" in (await choose_face(two_faces, FaceChoice("speaker"), None) or said["largest"]).why


def test_requests_without_a_face_take_the_automatic_choice() -> None:
    """CreateDub, CreateActor, batch rows and dubs of the command line have one default. Explicit choices stay."""
    assert face_of(DubSpec()) == face_of(pb.CreateActorRequest()) == AUTOMATIC
    assert face_of(DubSpec(face_rule=FACE_RULE_LARGEST)) == FaceChoice("largest")
    row = shot_of_row(id="a", footage="/a.mp4", output="/b.mp4")
    assert face_of(row.dub) == AUTOMATIC
    assert face_of(changed_shot(row, face="largest").dub) == FaceChoice("largest")
    assert DubRequest(footage=Path("a.mp4"), speech=None, output=Path("b.mp4"), method="dubstage").face == AUTOMATIC
