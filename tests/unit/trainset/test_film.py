"""Tracks of long films, in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dubstage.common.v1alpha1 import common_pb2
from gateway.pipeline.records import FACE_RECORD, RecordFile
from gateway.trainset.film import TrackedFilm, face_width
from gateway.trainset.grid import on_grid

RATE = 30


@pytest.fixture
def faces(tmp_path: Path) -> Iterator[RecordFile]:
    """Records of 5 s at 30 frames/s, of a face that grows, and is away from 2 s to 4 s."""
    frames = [frame for frame in range(5 * RATE) if not 2 * RATE <= frame < 4 * RATE]
    rows = np.zeros(len(frames), FACE_RECORD)
    rows["frame"], rows["reason"] = frames, common_pb2.FRAME_REASON_DUBBED
    rows["scale"], rows["rotation"] = 1.0 + rows["frame"] / RATE, np.eye(3)
    with RecordFile(tmp_path / "faces", FACE_RECORD) as file:
        file.append(rows)
        yield file


def film_of(faces: RecordFile) -> TrackedFilm:
    rows = np.full(5 * RATE, -1, np.int64)
    rows[faces.read(0, faces.num_rows)["frame"]] = np.arange(faces.num_rows)
    return TrackedFilm(faces, rows, np.arange(5 * RATE) / RATE, 125)


def test_pieces_join_to_the_whole_track(faces: RecordFile) -> None:
    film = film_of(faces)
    whole = on_grid(faces.read(0, faces.num_rows), np.arange(5 * RATE) / RATE, 125)
    parts = [film.track(first, 25) for first in range(0, 125, 25)]
    assert [part is None for part in parts] == [False, False, False, False, False]
    for name in ("scale", "rotation", "usable", "landmarks"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


def test_a_piece_without_a_face_has_no_track(faces: RecordFile) -> None:
    assert film_of(faces).track(60, 30) is None


def test_films_are_cut_into_minutes_without_a_short_rest(faces: RecordFile) -> None:
    def pieces(num_frames: int) -> list[tuple[int, int]]:
        return list(TrackedFilm(faces, np.zeros(0, np.int64), np.zeros(0), num_frames).pieces())

    assert pieces(3) == [(0, 3)]
    assert pieces(1500) == [(0, 1500)]
    assert pieces(1520) == [(0, 1500)]
    assert pieces(3100) == [(0, 1500), (1500, 1500), (3000, 100)]


def test_the_width_of_a_face_is_that_of_the_mean_head_in_pixels_of_the_footage(faces: RecordFile) -> None:
    track = film_of(faces).track(0, 3)
    assert track is not None
    assert face_width(track) == pytest.approx(185.0 * 1.04, abs=0.1)
