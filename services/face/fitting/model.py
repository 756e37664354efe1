"""A morphable model for fitting: its part at the landmarks, and surface points whose colours are compared with the picture."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.errors import InvalidRequestError
from services.common.face.drawing import FaceMesh
from services.common.face.landmarks import FACE_OVAL, STABLE
from services.common.face.morphable_models import MorphableModels
from services.common.geometry.arrays import normalised
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.fragments import visible_vertices
from services.common.geometry.lighting import BAND_OF, IRRADIANCE, vertex_normals
from services.common.geometry.morphable_model import LandmarkSet, MorphableModel
from services.common.geometry.rasterise import Backend, rasterise

CONTOUR_WEIGHT: Final = 0.3
"""Weight of points on the face's outline, which slide along the outline in tracking."""
_MESH_POINTS: Final = 468
_FEWEST: Final = 20
_LEAST_FACING: Final = 0.15
_MOST_POINTS: Final = 2400
_NOT_SKIN: Final = ("mouth_interior", "eyes")
_STEP: Final = 0.05
_LEAST_FACING_OF_COLOURS: Final = 0.25
_Y1: Final = np.sqrt(3.0 / (4.0 * np.pi))
_Y2: Final = 0.5 * np.sqrt(15.0 / np.pi)
_Y20: Final = 0.25 * np.sqrt(5.0 / np.pi)


@dataclass(frozen=True, slots=True)
class ModelLandmarks:
    """N landmarks of one model that the tracker measures.

    Attributes:
        name: name by which callers ask for the model.
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
        InvalidRequestError: the tracker's mesh has too few of the model's landmarks.
    """
    everything = model.landmark_set("mediapipe")
    chosen = everything.select((everything.mediapipe >= 0) & (everything.mediapipe < _MESH_POINTS))
    if len(chosen) < _FEWEST:
        raise InvalidRequestError(
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


class FittableModels:
    """Models for fitting, by name. Each model is prepared once. Several threads may share the object."""

    def __init__(self, models: MorphableModels) -> None:
        self._models = models
        self._prepared: dict[str, ModelLandmarks] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> ModelLandmarks:
        """Return the named model, prepared for fitting.

        Raises:
            ModelNotFoundError: no model has this name.
            InvalidRequestError: the model's file is damaged, or the tracker's mesh has too few of the model's landmarks.
        """
        model = self._models.get(name)
        with self._lock:
            if name not in self._prepared:
                self._prepared[name] = model_landmarks(model, name)
            return self._prepared[name]


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """S points on the skin of one model, with the model's bases at the points.

    Attributes:
        mesh: the model's skin: without eyes and mouth.
        identity: float32 [S, 3, I], basis at the points, one standard deviation per coefficient.
        expression: float32 [S, 3, E], basis at the points, one standard deviation per coefficient.
        albedo_mean: float64 [S, 3].
        albedo_basis: float64 [S, 3, A], one standard deviation per coefficient.
    """

    mesh: FaceMesh
    points: LandmarkSet
    identity: Float32
    expression: Float32
    albedo_mean: Float64
    albedo_basis: Float64

    def normals(self, shape: Float64, camera: WeakPerspective) -> Float64:
        """Return the unit normals [S, 3] of the points in camera axes, for a shape [V, 3]."""
        return np.asarray(normalised(self.points.of(self.mesh.camera_normals(shape, camera))))

    def visible(self, shape: Float64, camera: WeakPerspective, size: tuple[int, int], backend: Backend = "numba") -> Float64:
        """Return the weights of the points in one frame, [S]: 0 for hidden points, small where the surface is seen from the side.

        Args:
            shape: [V, 3], head space.
            camera: without leading axes.
            size: height and width of the picture.
            backend: rasteriser.
        """
        image = camera.project(shape)
        pixels, depth = image[None, :, :2], image[None, :, 2]
        fragments = rasterise(pixels, depth, self.mesh.triangles, *size, backend=backend)
        seen = visible_vertices(fragments, pixels, depth, self.mesh.triangles)[0]
        normals = self.normals(shape, camera)
        facing = np.clip((-normals[:, 2] - _LEAST_FACING_OF_COLOURS) / 0.5, 0.0, 1.0)
        return np.asarray(facing * seen[self.points.vertices].all(-1))


def surface_of(model: MorphableModel) -> Surface:
    """Return the skin of a model: the vertices, and for a model with few vertices also the middles of the triangles.

    Raises:
        InvalidRequestError: the model has no albedo.
    """
    if model.albedo_mean is None:
        raise InvalidRequestError(f"morphable model {model.name!r} has no albedo to fit to colours", field="morphable_model")
    mesh = FaceMesh.of(model, _NOT_SKIN)
    # At the outline and at the edges of lips and lids, a blurred picture shows colours that are not skin.
    inside = np.ones(model.num_vertices, bool)
    inside[_border_vertices(mesh.triangles)] = False
    used = np.unique(mesh.triangles)
    used = used[inside[used]] if inside[used].any() else used
    vertices = used[:: max(1, -(-len(used) // _MOST_POINTS))]
    weights = np.tile(np.array([[1.0, 0.0, 0.0]], np.float32), (len(vertices), 1))
    corners = np.repeat(vertices[:, None], 3, axis=1)
    if len(mesh.triangles) + len(vertices) <= _MOST_POINTS:
        middles = mesh.triangles[inside[mesh.triangles].all(1)]
        corners = np.concatenate([corners, middles])
        weights = np.concatenate([weights, np.full((len(middles), 3), 1.0 / 3.0, np.float32)])
    points = LandmarkSet(corners.astype(np.int32), weights, np.full(len(corners), -1, np.int32))
    return Surface(
        mesh=mesh,
        points=points,
        identity=np.ascontiguousarray(points.of_basis(model.identity_basis) * model.identity_deviation, np.float32),
        expression=np.ascontiguousarray(points.of_basis(model.expression_basis) * model.expression_deviation, np.float32),
        albedo_mean=np.asarray(points.of(model.albedo_mean.astype(np.float64))),
        albedo_basis=points.of_basis(model.albedo_basis).astype(np.float64) * model.albedo_deviation,
    )


def _border_vertices(triangles: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return the vertices at edges that belong to only one triangle."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(unique[count == 1])


def normal_slopes(surface: Surface, neutral: Float64) -> tuple[Float32, Float32]:
    """Return the derivatives of the points' normals by identity [S, 3, I] and expression [S, 3, E], at the neutral face.

    The coefficients are in standard deviations.
    """
    model, mesh = surface.mesh.model, surface.mesh
    before = vertex_normals(neutral, model.triangles, mesh.table)

    def slopes(basis: Float32, deviation: Float32) -> Float32:
        rows = np.empty((len(surface.points), 3, len(deviation)), np.float32)
        for k in range(len(deviation)):
            after = vertex_normals(neutral + _STEP * float(deviation[k]) * basis[..., k], model.triangles, mesh.table)
            rows[..., k] = surface.points.of((after - before) / _STEP)
        return rows

    return slopes(model.identity_basis, model.identity_deviation), slopes(model.expression_basis, model.expression_deviation)


def shading_slope(normals: Float64, light: Float64) -> Float64:
    """Return the derivative of the shading by the normal, [..., 3 channels, 3 axes], at unit normals [..., 3] in camera axes.

    Args:
        normals: [..., 3].
        light: [9, 3].
    """
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    zero = np.zeros_like(x)
    one = zero + _Y1
    rows = [
        (zero, zero, zero), (zero, one, zero), (zero, zero, one), (one, zero, zero),
        (_Y2 * y, _Y2 * x, zero), (zero, _Y2 * z, _Y2 * y), (zero, zero, 6.0 * _Y20 * z), (_Y2 * z, zero, _Y2 * x),
        (_Y2 * x, -_Y2 * y, zero),
    ]  # fmt: skip
    derivative = np.stack([np.stack(row, -1) for row in rows], -2)
    kept = np.array([IRRADIANCE[band] / np.pi for band in BAND_OF])
    return np.asarray(np.einsum("...bi,b,bc->...ci", derivative, kept, light, optimize=True))
