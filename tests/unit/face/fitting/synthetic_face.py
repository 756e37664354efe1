"""A talking face of known coefficients on the committed model: landmarks as a tracker gives them, and rendered pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from services.common.face.drawing import FaceMesh, draw_face
from services.common.face.landmarks import LEFT_EYE_LIDS, RIGHT_EYE_LIDS, mouth_opening
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rotations import matrix_from_euler

TRACKER_NOISE_PX = 0.13
"""Measured value of SHAPE_NOISE of smoothing.py."""


@dataclass(frozen=True)
class Scene:
    """T frames of one face."""

    identity: np.ndarray
    expression: np.ndarray
    albedo: np.ndarray
    light: np.ndarray
    weak: WeakPerspective
    shapes: np.ndarray

    def landmarks(self, noise_px=TRACKER_NOISE_PX):
        """[T, 478, 3], crop pixels; the irises are left at zero."""
        image = self.weak.project(self.shapes)
        tracked = np.zeros((len(image), 478, 3))
        tracked[:, :468] = image + noise_px * np.random.default_rng(99).normal(size=image.shape)
        return tracked

    def camera(self, frame):
        return WeakPerspective(self.weak.scale[frame], self.weak.rotation[frame], self.weak.translation[frame])

    def pictures(self, frames):
        """Rendered, uint8 [F, 256, 256, 3]."""
        mesh, albedo = FaceMesh.of(default_model()), default_model().albedo(self.albedo)
        drawn = [draw_face(mesh, self.shapes[t], self.camera(t), albedo, self.light, (256, 256)).picture for t in frames]
        return np.rint(np.stack(drawn)).astype(np.uint8)


def scene(frames=40, seed=0):
    """A face that opens its mouth from rest in three frames out of four, and turns its head."""
    model, random = default_model(), np.random.default_rng(seed)
    identity = random.normal(size=model.num_identity)
    drawn = 0.8 * random.normal(size=(12 * frames, model.num_expression))
    rest = np.zeros((1, model.num_expression))
    opens = _opening(model, identity, drawn) > _opening(model, identity, rest) + 1.0
    awake = _eyes(model, identity, drawn) < 1.1 * _eyes(model, identity, rest)
    expression = drawn[opens & awake][:frames]
    assert len(expression) == frames
    expression[::4] = 0.0
    angles = np.radians(random.uniform([-12.0, -20.0, -8.0], [12.0, 20.0, 8.0], (frames, 3)))
    place = random.uniform([124.0, 156.0, 0.0], [132.0, 164.0, 0.0], (frames, 3))
    light = np.zeros((9, 3))
    light[0] = np.array([3.2, 3.25, 3.35])
    light[1], light[2], light[3] = -0.35, -0.5, [0.45, 0.4, 0.36]
    light[4:] = 0.1 * random.normal(size=(5, 1))
    return Scene(
        identity=identity,
        expression=expression,
        albedo=0.7 * random.normal(size=model.num_albedo),
        light=light,
        weak=WeakPerspective(random.uniform(0.9, 1.05, frames), matrix_from_euler(angles), place),
        shapes=model.shape(identity, expression),
    )


def relative_expression_error(found, true):
    """|what the expressions found move the mesh - what the true ones move it| / |the latter|, over all frames and vertices.

    The mesh's own measure: the last coefficients move no point by a twentieth of a pixel, and count as little.
    """
    basis = default_model().expression_basis.reshape(-1, default_model().num_expression)
    return np.linalg.norm((found - true) @ basis.T) / np.linalg.norm(true @ basis.T)


def _opening(model, identity, expression):
    return mouth_opening(model.landmark_set("mouth_area").of(model.shape(identity, expression)))


def _eyes(model, identity, expression):
    one, other = np.array(RIGHT_EYE_LIDS + LEFT_EYE_LIDS).T
    shapes = model.shape(identity, expression)
    return np.linalg.norm(shapes[:, one, :2] - shapes[:, other, :2], axis=-1).mean(1)
