"""The 3D morphable face model: a mean and linear bases of identity, expression and albedo (Blanz and Vetter 1999).

    shape  = mean_shape + identity_basis @ identity + expression_basis @ expression  (+ offset: the actor's own shape)
    albedo = albedo_mean + albedo_basis @ albedo

These are S = S_mean + B_id alpha + B_exp beta and T = T_mean + B_tex delta of Yi et al., Sec. 3.1 (80 + 64 + 80 coefficients),
and the geometry and expression parameters of Everybody's Talkin', Sec. 3.1 (199 + 29). The model's file decides the sizes.

A landmark set is points on a mesh that correspond to the landmarks of a known layout. The default model is MediaPipe's 468
vertices with bases learned in this repository (docs/models/morphable_model.md).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Int32
from services.common.errors import InvalidRequestError
from services.common.geometry.arrays import Array, constant, gather
from services.common.store.tensor_bytes import decode_arrays, encode_arrays

FORMAT: Final = "dubstage-morphable-model-1"
WEIGHTS: Final = Path(__file__).with_name("weights") / "mediapipe_468.safetensors"


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
            raise InvalidRequestError("landmark vertices and weights must be [N, 3] and mediapipe [N]", field="landmarks")

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


@dataclass(frozen=True, eq=False)
class MorphableModel:
    """Linear face model in head space: x right, y down, z away from the camera.

    Coefficient k of a basis has the prior N(0, deviation_k^2). If a file's coefficients are in standard deviations (BFM, FLAME,
    the default model), the deviations are 1.

    Attributes:
        name: name of the model in logs, cards and artefacts.
        licence: licence and credit of the data.
        unit: unit of length of the shape; "crop pixel" for every model that was aligned to head space.
        mean_shape: float32 [V, 3].
        identity_basis: float32 [V, 3, I].
        expression_basis: float32 [V, 3, E].
        identity_deviation: float32 [I], standard deviation of each identity coefficient.
        expression_deviation: float32 [E].
        triangles: int32 [F, 3], counter-clockwise seen from outside (in head space (b - a) x (c - a) points outwards).
        uv: float32 [U, 2] in [0, 1], u right, v down, (0, 0) the top-left corner of the texture; empty where the file has none.
        uv_triangles: int32 [F, 3], rows of `uv` for each triangle's corners (equal to `triangles` if uv is per vertex).
        albedo_mean: float32 [V, 3], RGB in [0, 1] as displayed (gamma not undone), or None.
        albedo_basis: float32 [V, 3, A]; A = 0 if the model has no such basis.
        albedo_deviation: float32 [A].
        landmarks: landmark sets by name: "mediapipe" (every point with a known place in MediaPipe's mesh), "mouth_area" (the 59
            points of MOUTH_AREA in that order), "ibug_68" if known.
        regions: named parts, each int32 ids of triangles. The default model has "eyes" and "mouth_interior", which close the
            mesh's holes.
    """

    name: str
    licence: str
    unit: str
    mean_shape: Float32
    identity_basis: Float32
    expression_basis: Float32
    identity_deviation: Float32
    expression_deviation: Float32
    triangles: Int32
    uv: Float32 = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    uv_triangles: Int32 = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    albedo_mean: Float32 | None = None
    albedo_basis: Float32 = field(default_factory=lambda: np.zeros((0, 3, 0), np.float32))
    albedo_deviation: Float32 = field(default_factory=lambda: np.zeros(0, np.float32))
    landmarks: Mapping[str, LandmarkSet] = field(default_factory=lambda: MappingProxyType({}))
    regions: Mapping[str, Int32] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        vertices = len(self.mean_shape)
        expected = {
            "mean_shape": (vertices, 3),
            "identity_basis": (vertices, 3, len(self.identity_deviation)),
            "expression_basis": (vertices, 3, len(self.expression_deviation)),
            "triangles": (len(self.triangles), 3),
            "uv": (len(self.uv), 2),
            "uv_triangles": (len(self.triangles) if len(self.uv) else 0, 3),
        }
        if self.albedo_mean is not None:
            expected |= {"albedo_mean": (vertices, 3), "albedo_basis": (vertices, 3, len(self.albedo_deviation))}
        for attribute, shape in expected.items():
            actual = getattr(self, attribute).shape
            if actual != shape:
                raise InvalidRequestError(
                    f"{attribute} of morphable model {self.name!r} is {list(actual)}, not {list(shape)}", field=attribute
                )
        named: list[tuple[str, Int32, int]] = [
            ("triangles", self.triangles, vertices),
            ("uv_triangles", self.uv_triangles, len(self.uv)),
        ]
        named += [(f"landmarks.{name}", points.vertices, vertices) for name, points in self.landmarks.items()]
        named += [(f"regions.{name}", rows, len(self.triangles)) for name, rows in self.regions.items()]
        for attribute, indices, limit in named:
            if indices.size and (indices.min() < 0 or indices.max() >= limit):
                raise InvalidRequestError(
                    f"{attribute} of morphable model {self.name!r} have numbers outside 0..{limit - 1}", field=attribute
                )
        deviations = ("identity_deviation", "expression_deviation", "albedo_deviation")
        for attribute in ("mean_shape", "identity_basis", "expression_basis", "uv", "albedo_mean", "albedo_basis", *deviations):
            values = getattr(self, attribute)
            if values is not None and not np.isfinite(values).all():
                raise InvalidRequestError(
                    f"{attribute} of morphable model {self.name!r} has values that are not finite", field=attribute
                )
            # Fits divide by the deviations.
            if attribute in deviations and not (values > 0).all():
                raise InvalidRequestError(
                    f"{attribute} of morphable model {self.name!r} has values that are not positive", field=attribute
                )

    @property
    def num_vertices(self) -> int:
        """Number of vertices, V."""
        return len(self.mean_shape)

    @property
    def num_identity(self) -> int:
        """Number of identity coefficients, I."""
        return len(self.identity_deviation)

    @property
    def num_expression(self) -> int:
        """Number of expression coefficients, E."""
        return len(self.expression_deviation)

    @property
    def num_albedo(self) -> int:
        """Number of albedo coefficients, A."""
        return len(self.albedo_deviation)

    def shape(self, identity: Array, expression: Array, offset: Array | None = None) -> Array:
        """Return the vertices [..., V, 3] for given coefficients.

        float32 coefficients are faster for large models, because the bases are not copied.

        Args:
            identity: float [..., I]; leading axes broadcast against `expression`, so that one identity serves a whole clip.
            expression: float [..., E].
            offset: float [V, 3], difference between the actor's own neutral shape and the shape from the identity basis.
        """
        base = constant(self.mean_shape, identity) + _combine(self.identity_basis, identity)
        moved = base + _combine(self.expression_basis, expression)
        return moved if offset is None else moved + offset

    def albedo(self, coefficients: Array) -> Array:
        """Return the albedo of the vertices, [..., V, 3] RGB in about [0, 1] (not clipped), from coefficients [..., A].

        Raises:
            InvalidRequestError: the model has no albedo.
        """
        if self.albedo_mean is None:
            raise InvalidRequestError(f"morphable model {self.name!r} has no albedo; choose one that has", field="morphable_model")
        return constant(self.albedo_mean, coefficients) + _combine(self.albedo_basis, coefficients)

    def landmark_set(self, name: str) -> LandmarkSet:
        """Return the landmarks of one layout.

        Raises:
            InvalidRequestError: the model has no landmarks of that layout.
        """
        if name not in self.landmarks:
            raise InvalidRequestError(
                f"morphable model {self.name!r} has no {name!r} landmarks, only {sorted(self.landmarks)}; "
                "give its loader a correspondence file",
                field="landmarks",
            )
        return self.landmarks[name]

    def with_neutral_shape(self, neutral: npt.NDArray[np.floating]) -> MorphableModel:
        """Return the model of one person: the mean shape is `neutral` [V, 3] and there are no identity coefficients."""
        empty = np.zeros((self.num_vertices, 3, 0), np.float32)
        return dataclasses.replace(
            self, mean_shape=np.asarray(neutral, np.float32), identity_basis=empty, identity_deviation=np.zeros(0, np.float32)
        )

    def truncated(self, *, identity: int | None = None, expression: int | None = None, albedo: int | None = None) -> MorphableModel:
        """Return the model with only the first coefficients of each basis; None keeps all (the papers keep 80 + 64 + 80)."""
        return dataclasses.replace(
            self,
            identity_basis=np.ascontiguousarray(self.identity_basis[..., :identity]),
            identity_deviation=self.identity_deviation[:identity],
            expression_basis=np.ascontiguousarray(self.expression_basis[..., :expression]),
            expression_deviation=self.expression_deviation[:expression],
            albedo_basis=np.ascontiguousarray(self.albedo_basis[..., :albedo]),
            albedo_deviation=self.albedo_deviation[:albedo],
        )

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the content (hex). Fits and networks that use the model store this digest."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the model as safetensors bytes. Equal models give equal bytes."""
        arrays: dict[str, npt.NDArray[Any]] = {
            key: value
            for key in (
                "mean_shape", "identity_basis", "expression_basis", "identity_deviation", "expression_deviation", "triangles",
                "uv", "uv_triangles", "albedo_mean", "albedo_basis", "albedo_deviation",
            )
            if (value := getattr(self, key)) is not None
        }  # fmt: skip
        for name, landmarks in self.landmarks.items():
            arrays |= {f"landmarks.{name}.{part}": getattr(landmarks, part) for part in ("vertices", "weights", "mediapipe")}
        arrays |= {f"regions.{name}": triangles for name, triangles in self.regions.items()}
        return encode_arrays(arrays, {"format": FORMAT, "name": self.name, "licence": self.licence, "unit": self.unit})

    @classmethod
    def from_bytes(cls, data: bytes) -> MorphableModel:
        """Return the model from bytes that `to_bytes` wrote. float16 arrays become float32.

        Raises:
            InvalidRequestError: the bytes are not a model of this format.
        """
        stored = decode_arrays(data)
        if stored.metadata.get("format") != FORMAT:
            raise InvalidRequestError(f"this is not a morphable model: its format is not {FORMAT!r}", field="morphable_model")
        arrays: dict[str, Any] = {
            key: np.array(value, np.float32 if value.dtype.kind == "f" else np.int32) for key, value in stored.arrays.items()
        }
        names = {key.split(".")[1] for key in arrays if key.startswith("landmarks.")}
        try:
            landmarks = {
                name: LandmarkSet(*(arrays.pop(f"landmarks.{name}.{part}") for part in ("vertices", "weights", "mediapipe")))
                for name in sorted(names)
            }
            regions = {key.removeprefix("regions."): arrays.pop(key) for key in sorted(arrays) if key.startswith("regions.")}
            fields: dict[str, Any] = {**arrays, **{key: stored.metadata[key] for key in ("name", "licence", "unit")}}
            return cls(**fields, landmarks=MappingProxyType(landmarks), regions=MappingProxyType(regions))
        except (KeyError, TypeError) as error:
            raise InvalidRequestError(f"this morphable model is incomplete: {error}", field="morphable_model") from error

    def save(self, path: Path) -> None:
        """Write the model to a safetensors file."""
        path.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> MorphableModel:
        """Return the model from a file that `save` wrote.

        Raises:
            InvalidRequestError: there is no such file, or the file is not a model.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidRequestError(
                f"cannot read the morphable model {path}: {error.strerror}", field="morphable_model"
            ) from error
        return cls.from_bytes(data)

    def __repr__(self) -> str:
        sizes = {
            "vertices": self.num_vertices,
            "identity": self.num_identity,
            "expression": self.num_expression,
            "albedo": self.num_albedo,
        }
        return f"MorphableModel({self.name!r}, {json.dumps(sizes)})"


def _combine(basis: Float32, coefficients: Array) -> Array:
    """Return the product of basis [V, 3, K] and coefficients [..., K], [..., V, 3]."""
    flat = constant(basis.reshape(3 * len(basis), basis.shape[-1]), coefficients)
    return (coefficients @ flat.T).reshape(*coefficients.shape[:-1], basis.shape[0], 3)


@cache
def default_model() -> MorphableModel:
    """Return the committed model, in head space: vertex i is point i of the face mesh. The file is read once per process."""
    return MorphableModel.load(WEIGHTS)
