"""Stage 3 on a stream: coefficients and light of each frame, with smoothing, and what a cut and the order of calls change."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from services.common.errors import InvalidRequestError
from services.common.face.crops import fit_head_pose
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rotations import geodesic_angle
from services.face.fitting.model import model_landmarks
from services.face.fitting.streaming import StreamFitter
from services.face.fitting.three_stage import ColouredFrames
from services.face.smoothing import raw_face
from tests.unit.face.fitting.synthetic_face import relative_expression_error
from tests.unit.face.fitting.test_streaming import FACE, SCENE, known

FRAMES = 6
READINGS = [raw_face(points.astype(np.float32)) for points in SCENE.landmarks()[:FRAMES]]


@cache
def pictures():
    return SCENE.pictures(range(FRAMES))


def stream(cut_before=-1, half_width=2, frames=FRAMES):
    fitter = StreamFitter(FACE, known(), ColouredFrames(FACE, known()))
    for frame in range(frames):
        if frame == cut_before:
            fitter.cut()
        fitter.see(0, frame, READINGS[frame], pictures()[frame])
    found = []
    for frame in range(frames):
        first = max(0, frame - half_width)
        found.append(fitter.coefficients(0, first, READINGS[first : frame + half_width + 1], frame - first, half_width))
    return found


@cache
def plain_stream():
    return stream()


def test_coloured_fit_finds_known_person():
    """Expression pose and light of a known person are found."""
    expression = np.stack([each.expression for each in plain_stream()])
    assert relative_expression_error(expression, SCENE.expression[:FRAMES]) < 0.12
    rotation = np.stack([each.pose.rotation for each in plain_stream()])
    assert np.degrees(geodesic_angle(rotation, SCENE.weak.rotation[:FRAMES])).max() < 1.0
    scale = np.array([each.pose.scale for each in plain_stream()])
    assert scale == pytest.approx(SCENE.weak.scale[:FRAMES], rel=0.01)
    place = np.stack([each.pose.translation[:2] for each in plain_stream()])
    assert place == pytest.approx(SCENE.weak.translation[:FRAMES, :2], abs=0.7)
    assert max(each.landmark_error for each in plain_stream()) < 0.4


def test_the_light_is_the_frames_own():
    assert not np.array_equal(plain_stream()[0].light, plain_stream()[-1].light)
    assert all(np.abs(each.light[0] - SCENE.light[0]).max() < 0.3 for each in plain_stream())
    assert np.array_equal(plain_stream()[0].albedo, known().albedo)


def test_a_cut_begins_anew():
    after, plain = (stream(cut_before, half_width=0, frames=3) for cut_before in (2, -1))
    assert np.array_equal(plain[1].expression, after[1].expression)
    assert not np.array_equal(plain[2].expression, after[2].expression)


def test_a_gap_begins_anew():
    one, other = ColouredFrames(FACE, known()), ColouredFrames(FACE, known())
    one.fit(0, 0, READINGS[0], pictures()[0])
    late, fresh = one.fit(0, 2, READINGS[2], pictures()[2]), other.fit(0, 2, READINGS[2], pictures()[2])
    assert np.array_equal(late.fits.expression, fresh.fits.expression)
    assert np.array_equal(late.light, fresh.light)


def test_two_faces_of_a_stream_do_not_mix():
    both, alone = ColouredFrames(FACE, known()), ColouredFrames(FACE, known())
    for frame in range(2):
        both.fit(1, frame, READINGS[frame + 3], pictures()[frame + 3])
        first, second = (each.fit(0, frame, READINGS[frame], pictures()[frame]) for each in (both, alone))
        assert np.array_equal(first.fits.expression, second.fits.expression)


def test_the_roll_of_the_head_is_kept():
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    points = SCENE.landmarks()[1].copy()
    points[:, :2] = (points[:, :2] - 128.0) @ turn.T + 128.0
    raw = raw_face(points.astype(np.float32))
    found = ColouredFrames(FACE, known()).fit(0, 0, raw, pictures()[1])
    own = fit_head_pose(points)
    assert np.degrees(geodesic_angle(found.fits.camera.rotation[0], own.rotation)) < 4.0


def test_a_model_without_albedo_is_refused():
    empty = np.zeros((0, 3, 0), np.float32)
    bare = dataclasses.replace(default_model(), albedo_mean=None, albedo_basis=empty, albedo_deviation=np.zeros(0, np.float32))
    with pytest.raises(InvalidRequestError, match="no albedo"):
        ColouredFrames(model_landmarks(bare), known())
