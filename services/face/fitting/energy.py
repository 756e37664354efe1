"""The loss of the three-stage fit and its gradient (Dubbing for Everyone, A.1, Eq. 3).

    L = l_photo * L_photo + l_land * L_land + l_reg * L_reg

* L_photo: mean absolute difference between the drawn face and the crop over the drawn pixels and the channels, grey levels 0..255.
  The face is drawn by the differentiable rasteriser (rasterise.py): albedo times spherical-harmonics shading of 9 bands.
* L_land: mean squared distance between projected and tracked landmarks, weighted by the trust in each landmark, crop pixels.
* L_reg: mean squared coefficient, in standard deviations, of expression and albedo.

The gradients are explicit, so the fit needs no torch (docs/decisions/0006). Departures from the paper: the camera is the tracker's
weak perspective, which has no intrinsic parameters; the jaw of FLAME is three expression coefficients (loaders/flame.py); the paper
gives no weights, and the weights here were chosen on a development clip. The paper regularises the shape too, which stage 1 fixes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np

from services.common.array_types import Float32, Float64, UInt8
from services.common.face.crops import CROP_SIZE
from services.common.geometry.arrays import normalised
from services.common.geometry.lighting import face_normals, shading_basis
from services.common.geometry.rasterise import Backend, draw_surface
from services.common.geometry.rotations import matrix_from_axis_angle
from services.face.fitting.model import ModelLandmarks, Surface, shading_slope

DRAWN_SIZE: Final = 128
"""Side of the drawn picture, pixels: half of the crop. A triangle of the default model still covers about ten pixels."""
_SHRINK: Final = DRAWN_SIZE / CROP_SIZE


@dataclass(frozen=True, kw_only=True, slots=True)
class FittingWeights:
    """Weights of Eq. 3.

    Attributes:
        photo: weight per grey level.
        land: weight per squared crop pixel.
        reg: weight per squared standard deviation.
    """

    photo: float = 1.0
    land: float = 50.0
    reg: float = 1.0


class FrameUnknowns(NamedTuple):
    """Unknowns of one frame, which it does not share with others.

    Attributes:
        expression: float64 [E], standard deviations.
        turn: float64 [3], axis-angle rotation on top of the frame's first rotation.
        scale: float64 [1], logarithm of the size relative to the frame's first size.
        translation: float64 [2], shift from the frame's first translation, crop pixels.
        light: float64 [9, 3], camera axes.
    """

    expression: Float64
    turn: Float64
    scale: Float64
    translation: Float64
    light: Float64


class Loss(NamedTuple):
    """Loss of one frame and its gradient.

    Attributes:
        total: L.
        photo: L_photo, grey levels.
        land: L_land, squared crop pixels.
        frame: gradient with respect to the frame's unknowns.
        albedo: gradient with respect to the albedo coefficients, float64 [A], without the regularisation of the albedo.
    """

    total: float
    photo: float
    land: float
    frame: FrameUnknowns
    albedo: Float64


class FitTarget(NamedTuple):
    """Picture, landmarks and first pose of one frame.

    Attributes:
        picture: float32 [128, 128, 3], the crop, reduced, 0..255.
        landmarks: float64 [N, 2], crop pixels.
        scale: size of the first pose, crop pixels per unit of head space.
        rotation: float64 [3, 3], of the first pose.
        translation: float64 [2], of the first pose, crop pixels.
    """

    picture: Float32
    landmarks: Float64
    scale: float
    rotation: Float64
    translation: Float64


class PersonEnergy:
    """Eq. 3 for the frames of one person, whose shape is known and fixed (stage 1)."""

    def __init__(
        self, face: ModelLandmarks, surface: Surface, neutral: Float64, weights: FittingWeights, *, backend: Backend = "numba"
    ) -> None:
        """Prepare the person.

        Args:
            face: the model's landmarks.
            surface: skin of the same model.
            neutral: float64 [V, 3], the person's face without expression, head space.
            weights: weights of the loss.
            backend: rasteriser.
        """
        model = face.model
        self.weights, self._face, self._backend = weights, face, backend
        self._neutral, self._base = neutral, np.asarray(face.landmarks.of(neutral), np.float64)
        self._basis = (model.expression_basis * model.expression_deviation).reshape(-1, model.num_expression)
        self._points_basis = face.expression.reshape(-1, model.num_expression)
        self._mean = np.asarray(model.albedo(np.zeros(model.num_albedo)), np.float64)
        self._albedo_basis = model.albedo_basis.astype(np.float64) * model.albedo_deviation
        self._triangles, self._table = model.triangles, surface.mesh.table
        self._drawn = np.ascontiguousarray(surface.mesh.triangles, np.int32)

    def shape(self, expression: Float64) -> Float64:
        """Return the person's face, float64 [V, 3], for expression coefficients [E] in standard deviations."""
        return self._neutral + (self._basis @ expression.astype(np.float32)).astype(np.float64).reshape(-1, 3)

    def albedo(self, coefficients: Float64) -> Float64:
        """Return the albedo of the vertices, float64 [V, 3], for coefficients [A] in standard deviations."""
        return self._mean + self._albedo_basis @ coefficients

    def loss(self, target: FitTarget, frame: FrameUnknowns, albedo: Float64) -> Loss:
        """Return the loss of one frame and its gradient.

        Args:
            target: what the frame shows.
            albedo: float64 [V, 3], albedo of the vertices.
        """
        rotation = matrix_from_axis_angle(frame.turn) @ target.rotation
        scale = target.scale * float(np.exp(frame.scale[0]))
        translation = target.translation + frame.translation
        photo, shown = self._photo(target, frame, albedo, rotation, scale, translation)
        land, seen = self._land(target, frame, rotation, scale, translation)
        decay = 2.0 * self.weights.reg / len(frame.expression)
        pull = self.weights.reg * float(frame.expression @ frame.expression) / len(frame.expression)
        gradient = FrameUnknowns(
            shown.frame.expression + seen.expression + decay * frame.expression,
            shown.frame.turn + seen.turn,
            shown.frame.scale + seen.scale,
            shown.frame.translation + seen.translation,
            shown.frame.light,
        )
        total = self.weights.photo * photo + self.weights.land * land + pull
        return Loss(total, photo, land, gradient, shown.albedo)

    def _photo(
        self, target: FitTarget, frame: FrameUnknowns, albedo: Float64, rotation: Float64, scale: float, translation: Float64
    ) -> tuple[float, _ColourGradient]:
        """Return L_photo and the weighted gradient."""
        shape = self.shape(frame.expression)
        sums, lengths, normals = self._normals(shape)
        turned, facing = shape @ rotation.T, normals @ rotation.T
        basis = shading_basis(facing)
        shade = basis @ frame.light
        points = (scale * turned[:, :2] + translation + 0.5) * _SHRINK - 0.5
        colours = 255.0 * albedo * shade
        drawn = draw_surface(points, turned[:, 2], self._drawn, colours, (DRAWN_SIZE, DRAWN_SIZE), backend=self._backend)
        difference = np.where(drawn.covered[..., None], drawn.values - target.picture, 0.0)
        count = max(3 * int(drawn.covered.sum()), 1)
        by_points, by_colours = drawn.gradient(np.sign(difference) * (self.weights.photo / count))
        by_shade = 255.0 * albedo * by_colours
        by_facing = np.einsum("vc,vci->vi", by_shade, shading_slope(facing, frame.light))
        by_position = by_points * _SHRINK
        moved = scale * np.concatenate([by_position, np.zeros((len(by_position), 1))], 1)
        by_shape = moved @ rotation + self._normals_gradient(shape, sums, lengths, normals, by_facing @ rotation)
        gradient = FrameUnknowns(
            (by_shape.reshape(-1).astype(np.float32) @ self._basis).astype(np.float64),
            (np.cross(turned, moved) + np.cross(facing, by_facing)).sum(0),
            np.array([(moved * turned).sum()]),
            by_position.sum(0),
            basis.T @ by_shade,
        )
        by_albedo = (255.0 * shade * by_colours).reshape(-1) @ self._albedo_basis.reshape(-1, self._albedo_basis.shape[-1])
        return float(np.abs(difference).sum() / count), _ColourGradient(gradient, by_albedo)

    def _land(
        self, target: FitTarget, frame: FrameUnknowns, rotation: Float64, scale: float, translation: Float64
    ) -> tuple[float, FrameUnknowns]:
        """Return L_land and the weighted gradient."""
        moved = (self._points_basis @ frame.expression.astype(np.float32)).astype(np.float64)
        turned = (self._base + moved.reshape(-1, 3)) @ rotation.T
        trust = self._face.facing(rotation[None])[0]
        trust = trust / trust.sum()
        residual = scale * turned[:, :2] + translation - target.landmarks
        by_position = 2.0 * self.weights.land * trust[:, None] * residual
        by_turned = scale * np.concatenate([by_position, np.zeros((len(by_position), 1))], 1)
        gradient = FrameUnknowns(
            ((by_turned @ rotation).reshape(-1).astype(np.float32) @ self._points_basis).astype(np.float64),
            np.cross(turned, by_turned).sum(0),
            np.array([(by_turned * turned).sum()]),
            by_position.sum(0),
            np.zeros_like(frame.light),
        )
        return float((trust * (residual**2).sum(1)).sum()), gradient

    def _normals(self, shape: Float64) -> tuple[Float64, Float64, Float64]:
        """Return the sums of the face normals around each vertex, their lengths, and the unit normals."""
        faces = np.asarray(face_normals(shape, self._triangles))
        sums = np.concatenate([faces, np.zeros((1, 3))])[self._table].sum(1)
        lengths = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        return sums, lengths, np.asarray(normalised(sums))

    def _normals_gradient(self, shape: Float64, sums: Float64, lengths: Float64, normals: Float64, upstream: Float64) -> Float64:
        """Return the gradient with respect to the vertices [V, 3] of a number with the gradient `upstream` by the unit normals."""
        by_sums = (upstream - normals * (normals * upstream).sum(1, keepdims=True)) / lengths
        by_faces = by_sums[self._triangles].sum(1)
        a, b, c = (shape[self._triangles[:, corner]] for corner in range(3))
        by_b, by_c = np.cross(c - a, by_faces), np.cross(by_faces, b - a)
        by_corner = np.stack([-by_b - by_c, by_b, by_c], 1)
        flat = self._triangles.reshape(-1)
        return np.stack([np.bincount(flat, by_corner[..., axis].reshape(-1), len(sums)) for axis in range(3)], 1)


class _ColourGradient(NamedTuple):
    frame: FrameUnknowns
    albedo: Float64


def target_of(crop: UInt8, landmarks: Float64, scale: float, rotation: Float64, translation: Float64) -> FitTarget:
    """Return the target of one frame.

    Args:
        crop: uint8 [256, 256, 3], RGB.
        landmarks: [N, 2 or 3], the model's landmarks, crop pixels.
        scale: size of the first pose in the crop.
        rotation: [3, 3], of the first pose.
        translation: [2 or 3], of the first pose, crop pixels.
    """
    small = cv2.resize(crop, (DRAWN_SIZE, DRAWN_SIZE), interpolation=cv2.INTER_AREA)
    return FitTarget(
        small.astype(np.float32), np.asarray(landmarks[:, :2], np.float64), scale, rotation, np.asarray(translation[:2], np.float64)
    )
