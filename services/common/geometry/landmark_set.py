"""Landmark sets: points on a mesh that correspond to the landmarks of a known layout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Int32
from services.common.errors import InvalidRequest
from services.common.geometry.array_module import Array, constant, gather


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkSet:
    """N landmarks on a mesh, each a point of a triangle given by barycentric weights.

    Attributes:
        vertices: int32 [N, 3], vertices of the model; a landmark on a vertex names that vertex three times.
        weights: float32 [N, 3], barycentric; each row sums to 1.
        mediapipe: int32 [N], the corresponding point of MediaPipe's 478-point mesh; -1 where no such point is known.
    """

    vertices: Int32
    weights: Float32
    mediapipe: Int32

    def __post_init__(self) -> None:
        shape = (len(self.vertices), 3)
        if self.vertices.shape != shape or self.weights.shape != shape or self.mediapipe.shape != shape[:1]:
            raise InvalidRequest("landmark vertices and weights must be [N, 3] and mediapipe [N]", field="landmarks")

    def __len__(self) -> int:
        return len(self.vertices)

    @classmethod
    def of_vertices(cls, vertices: npt.ArrayLike, mediapipe: npt.ArrayLike | None = None) -> LandmarkSet:
        """Return landmarks on vertices.

        Args:
            vertices: int [N].
            mediapipe: int [N], the corresponding points of MediaPipe's mesh; None: not known.
        """
        indices = np.asarray(vertices, np.int32)
        weights = np.zeros((len(indices), 3), np.float32)
        weights[:, 0] = 1.0
        numbers = np.full(len(indices), -1, np.int32) if mediapipe is None else np.asarray(mediapipe, np.int32)
        return cls(np.repeat(indices[:, None], 3, axis=1), weights, numbers)

    @property
    def are_vertices(self) -> bool:
        """Whether every landmark lies on a vertex."""
        return bool((self.weights[:, 0] == 1.0).all())

    def select(self, rows: npt.ArrayLike) -> LandmarkSet:
        """Return the landmarks in the given rows (int or bool array)."""
        index = np.asarray(rows)
        return LandmarkSet(self.vertices[index], self.weights[index], self.mediapipe[index])

    def of(self, per_vertex: Array) -> Array:
        """Return the values at the landmarks of a quantity per vertex: [..., V, D] to [..., N, D]."""
        if self.are_vertices:
            return gather(per_vertex, self.vertices[:, 0])
        weights = constant(self.weights[..., None], per_vertex)
        return (gather(per_vertex, self.vertices) * weights).sum(-2)

    def of_basis(self, basis: npt.NDArray[np.floating]) -> Float32:
        """Return a basis at the landmarks: [V, 3, K] to float32 [N, 3, K]."""
        return np.asarray(np.einsum("nvdk,nv->ndk", basis[self.vertices], self.weights), np.float32)
