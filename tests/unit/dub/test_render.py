"""Runs of frames that are rendered together, and the colours of a face in each shot."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from gateway.compositing.movable import JAW_CONTOUR
from gateway.dub.records import FACE_RECORD, RecordFile, mouth_in_box
from gateway.dub.render import ShotColours, runs_of
from services.common.array_types import Array
from services.common.face.crops import head_template
from services.common.face.landmarks import MOUTH_AREA


def test_runs_are_the_unbroken_stretches_of_rendered_frames() -> None:
    rendered = np.array([1, 1, 0, 1, 0, 0, 1, 1], dtype=bool)
    assert runs_of(rendered, range(8)) == [range(2), range(3, 4), range(6, 8)]
    assert runs_of(rendered, range(1, 7)) == [range(1, 2), range(3, 4), range(6, 7)]
    assert runs_of(rendered, range(4, 6)) == []


PALE, TANNED = (225, 175, 160), (120, 80, 55)


def face_records(count: int, cut: int) -> Array:
    """A pale face before a tanned wall, and from frame `cut` on the other way round."""
    made = np.zeros(count, FACE_RECORD)
    made["scale"], made["rotation"], made["mouth"] = 1.0, np.eye(3), head_template()[list(MOUTH_AREA)]
    for frame, record in enumerate(made):
        face, wall = (PALE, TANNED) if frame < cut else (TANNED, PALE)
        record["frame"] = frame
        record["pixels"] = wall
        contour = np.round(mouth_in_box(record)[JAW_CONTOUR]).astype(np.int32)
        cv2.fillPoly(record["pixels"], [np.concatenate([contour, [[contour[-1, 0], 0], [contour[0, 0], 0]]])], face)
    return made


def test_shots_have_their_own_colours(tmp_path: Path) -> None:
    """What may move is judged by the face's colours in the frame's own shot, in whatever order frames are asked for."""
    records = face_records(40, 25)
    with RecordFile(tmp_path / "faces.bin", FACE_RECORD) as faces:
        faces.append(records)
        rows, usable = np.arange(40), np.ones(40, np.bool_)
        found = ShotColours(faces, rows, usable, [25]).movable(records)
        later = ShotColours(faces, rows, usable, [25]).movable(records[30:])
    np.testing.assert_array_equal(found[30:], later)
    assert found[:, 60, 70:90].all()
    assert not found[:, 150:].any(), "the wall has the colour of the face in the other shot"
