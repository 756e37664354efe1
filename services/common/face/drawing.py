"""A morphable-model face as a picture: its albedo under spherical-harmonics light (Yi et al., Sec. 3.1 and 3.3.1).

Colours follow C = albedo * shading(normal), computed at the vertices as in the paper and interpolated on the surface. A detailed
albedo is a texture, multiplied by the interpolated shading.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Floating, Int32
from services.common.geometry.camera import Camera
from services.common.geometry.fragments import Fragments
from services.common.geometry.lighting import shading
from services.common.geometry.morphable_model import MorphableModel
from services.common.geometry.normals import vertex_face_table, vertex_normals
from services.common.geometry.rasterise import Backend, interpolate, rasterise
from services.common.geometry.rasterise_uv import UvMap, sample_texture, uv_map

HOLES: Final = ("mouth_interior",)
"""Regions that close a model's mesh where a face shows no skin. They are neither drawn nor fitted to colours."""


class FacePicture(NamedTuple):
    """Drawn face.

    Attributes:
        picture: float32 [H, W, 3], RGB 0..255; background 0.
        covered: bool [H, W].
    """

    picture: Float32
    covered: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FaceMesh:
    """Drawn surface of a model.

    Attributes:
        model: the model.
        triangles: int32 [F', 3], without the holes.
        corners: int32 [F', 3], rows of the model's `uv` for the triangles; empty where the model has no `uv`.
        table: faces around each vertex of the whole mesh.
    """

    model: MorphableModel
    triangles: Int32
    corners: Int32
    table: Int32

    @classmethod
    def of(cls, model: MorphableModel, without: tuple[str, ...] = HOLES) -> FaceMesh:
        """Return the mesh of a model without the named regions. Regions that the model lacks are ignored."""
        keep = np.ones(len(model.triangles), bool)
        for region in without:
            keep[model.regions.get(region, np.zeros(0, np.int32))] = False
        corners = model.uv_triangles[keep] if len(model.uv) else np.zeros((0, 3), np.int32)
        return cls(model, model.triangles[keep], corners, vertex_face_table(model.triangles, model.num_vertices))

    def camera_normals(self, shape: Floating, camera: Camera) -> Floating:
        """Return unit normals [..., V, 3] in camera axes of shapes [..., V, 3]."""
        normals: Floating = vertex_normals(shape, self.model.triangles, self.table) @ np.asarray(camera.rotation).mT
        return normals

    def layout(self, size: int, backend: Backend = "numba") -> UvMap:
        """Return the unwrapped surface, size x size texels, by a rasteriser. The last result is cached."""
        kept: dict[tuple[int, Backend], UvMap] = self._layouts
        if (size, backend) not in kept:
            kept.clear()
            kept[size, backend] = uv_map(self.model.uv, self.corners, self.triangles, size, size, backend=backend)
        return kept[size, backend]

    @cached_property
    def _layouts(self) -> dict[tuple[int, Backend], UvMap]:
        return {}


def draw_face(
    mesh: FaceMesh,
    shape: Floating,
    camera: Camera,
    albedo: Floating,
    light: Floating,
    size: tuple[int, int],
    *,
    backend: Backend = "numba",
) -> FacePicture:
    """Draw a face with an albedo per vertex (the low-frequency albedo of Yi et al.).

    Args:
        mesh: drawn surface of the model.
        shape: [V, 3], head space.
        camera: camera of one frame, without leading axes.
        albedo: [V, 3], RGB 0..1.
        light: [9, 3], camera axes.
        size: height and width of the picture.
        backend: rasteriser.

    Raises:
        BackendUnavailable: the rasteriser is not installed.
    """
    colours = albedo * shading(mesh.camera_normals(shape, camera), light)
    return _drawn(mesh, camera.project(shape), 255.0 * np.clip(colours, 0.0, 1.0), camera, size, backend)


def draw_detailed_face(
    mesh: FaceMesh,
    shape: Floating,
    camera: Camera,
    texture: npt.NDArray[Any],
    light: Floating,
    size: tuple[int, int],
    *,
    backend: Backend = "numba",
) -> FacePicture:
    """Draw a face with a texture of albedo (the detailed albedo of Yi et al.): float [S, S, 3], 0..255.

    Other arguments and errors: see `draw_face`.
    """
    shaded = np.clip(shading(mesh.camera_normals(shape, camera), light), 0.0, None)
    fragments = _fragments(mesh, camera.project(shape), camera, size, backend)
    covered = fragments.covered[0]
    uv = interpolate(fragments, mesh.model.uv[None], mesh.corners)[0]
    brightness = interpolate(fragments, shaded[None], mesh.triangles)[0]
    picture = np.zeros((*size, 3), np.float32)
    picture[covered] = np.clip(sample_texture(texture, uv[covered]) * brightness[covered], 0.0, 255.0)
    return FacePicture(picture, covered)


def _drawn(
    mesh: FaceMesh, points: Floating, colours: Floating, camera: Camera, size: tuple[int, int], backend: Backend
) -> FacePicture:
    fragments = _fragments(mesh, points, camera, size, backend)
    return FacePicture(interpolate(fragments, colours[None], mesh.triangles)[0], fragments.covered[0])


def _fragments(mesh: FaceMesh, points: Floating, camera: Camera, size: tuple[int, int], backend: Backend) -> Fragments:
    placed = points[None]
    return rasterise(
        placed[..., :2], placed[..., 2], mesh.triangles, *size, perspective=camera.is_perspective, cull="back", backend=backend
    )
