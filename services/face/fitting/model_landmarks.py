"""Part of a morphable model for landmark fitting: mean, bases and normals at the landmarks, computed once per model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.errors import InvalidRequest
from services.common.face.landmarks import FACE_OVAL, STABLE
from services.common.geometry.landmark_set import LandmarkSet
from services.common.geometry.morphable_model import MorphableModel
from services.common.geometry.normals import vertex_normals

CONTOUR_WEIGHT: Final = 0.3
"""Weight of points on the face's outline, which slide along the outline in tracking."""
_MESH_POINTS: Final = 468
_FEWEST: Final = 20
_LEAST_FACING: Final = 0.15


@dataclass(frozen=True, slots=True)
class ModelLandmarks:
    """N landmarks of one model that the tracker measures.

    Attributes:
        name: name by which callers ask for the model.
        model: the model.
        landmarks: the landmarks of the model's "mediapipe" set that the tracker measures.
        mean: float64 [N, 3], head space.
        identity: float64 [N, 3, I], one standard deviation per coefficient.
        expression: float32 [N, 3, E], one standard deviation per coefficient.
        normals: float64 [N, 3], unit, of the mean shape.
        trust: float64 [N], weights of the points.
        stable: bool [N], points that speech does not move.
    """

    name: str
    model: MorphableModel
    landmarks: LandmarkSet
    mean: Float64
    identity: Float64
    expression: Float32
    normals: Float64
    trust: Float64
    stable: npt.NDArray[np.bool_]

    @property
    def is_whole_mesh(self) -> bool:
        """Whether the landmarks are all vertices in the model's order, so that an actor's own shape can be measured."""
        return self.landmarks.are_vertices and np.array_equal(self.landmarks.vertices[:, 0], np.arange(self.model.num_vertices))

    def measured(self, tracked: npt.NDArray[np.floating]) -> Float64:
        """Return the model's landmarks among the tracker's points, float [..., 478, 3] to float64 [..., N, 3]."""
        return np.asarray(tracked[..., self.landmarks.mediapipe, :], np.float64)

    def base(self, identity: npt.NDArray[np.floating], offset: npt.NDArray[np.floating] | None = None) -> Float64:
        """Return a person's landmarks without expression, float64 [N, 3].

        Args:
            identity: [I], coefficients.
            offset: [V, 3], the actor's own shape, head space; None: zeros.
        """
        shape = self.model.shape(
            np.asarray(identity, np.float64), np.zeros(self.model.num_expression), None if offset is None else offset
        )
        return np.asarray(self.landmarks.of(shape), np.float64)

    def facing(self, rotation: Float64) -> Float64:
        """Return the weights of the points under rotations [T, 3, 3], [T, N].

        The tracker only guesses points that are turned away.
        """
        towards = -np.einsum("ti,ni->tn", rotation[:, 2], self.normals)
        return np.asarray(self.trust * np.clip(2.5 * towards + 0.25, _LEAST_FACING, 1.0))


def model_landmarks(model: MorphableModel, name: str | None = None) -> ModelLandmarks:
    """Return the landmarks of a model for fitting.

    `name` is the name by which callers ask for the model; None: the model's own name.

    Raises:
        InvalidRequest: the tracker's mesh has too few of the model's landmarks.
    """
    everything = model.landmark_set("mediapipe")
    chosen = everything.select((everything.mediapipe >= 0) & (everything.mediapipe < _MESH_POINTS))
    if len(chosen) < _FEWEST:
        raise InvalidRequest(
            f"only {len(chosen)} landmarks of morphable model {model.name!r} are known in the tracked mesh; {_FEWEST} are needed",
            field="morphable_model",
        )
    normals = np.asarray(chosen.of(vertex_normals(model.mean_shape.astype(np.float64), model.triangles)))
    return ModelLandmarks(
        name=model.name if name is None else name,
        model=model,
        landmarks=chosen,
        mean=np.asarray(chosen.of(model.mean_shape), np.float64),
        identity=chosen.of_basis(model.identity_basis).astype(np.float64) * model.identity_deviation,
        expression=np.ascontiguousarray(chosen.of_basis(model.expression_basis) * model.expression_deviation, np.float32),
        normals=normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9),
        trust=np.where(np.isin(chosen.mediapipe, FACE_OVAL), CONTOUR_WEIGHT, 1.0),
        stable=np.isin(chosen.mediapipe, STABLE),
    )
