"""A morphable-model face as a picture: its albedo under spherical-harmonics light (headpose, Sec. 3.1 and 3.3.1).

Colours follow C = albedo * shading(normal), computed at the vertices as the paper has it and interpolated on the surface; a
detailed albedo is a texture, shaded by the interpolated shading.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.geometry.camera import Camera
from services.common.geometry.lighting import shading
from services.common.geometry.morphable_model import MorphableModel
from services.common.geometry.normals import vertex_face_table, vertex_normals
from services.common.geometry.rasterise import interpolate, rasterise
from services.common.geometry.rasterise_uv import UvMap, sample_texture, uv_map

Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating]
Int32 = npt.NDArray[np.int32]

HOLES: Final = ("mouth_interior",)
"""Regions that close a model's mesh where a face has no skin to show: never drawn, never fitted to colours."""


class FacePicture(NamedTuple):
    """A drawn face.

    Attributes:
        picture: float32 [H, W, 3], RGB 0..255; background 0.
        covered: bool [H, W].
    """

    picture: Float32
    covered: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FaceMesh:
    """The surface of a model that is drawn.

    Attributes:
        model: the model.
        triangles: int32 [F', 3], without the holes.
        corners: int32 [F', 3], their rows of the model's `uv`; empty where it has none.
        table: faces around each vertex of the whole mesh.
    """

    model: MorphableModel
    triangles: Int32
    corners: Int32
    table: Int32

    @classmethod
    def of(cls, model: MorphableModel, without: tuple[str, ...] = HOLES) -> FaceMesh:
        """The mesh without the named regions (those that the model has)."""
        keep = np.ones(len(model.triangles), bool)
        for region in without:
            keep[model.regions.get(region, np.zeros(0, np.int32))] = False
        corners = model.uv_triangles[keep] if len(model.uv) else np.zeros((0, 3), np.int32)
        return cls(model, model.triangles[keep], corners, vertex_face_table(model.triangles, model.num_vertices))

    def camera_normals(self, shape: Floats, camera: Camera) -> Floats:
        """Unit normals [..., V, 3] in camera axes of shapes [..., V, 3]."""
        normals: Floats = vertex_normals(shape, self.model.triangles, self.table) @ np.asarray(camera.rotation).mT
        return normals

    def layout(self, size: int) -> UvMap:
        """The unwrapped surface, size x size texels; kept for the last size."""
        kept: dict[int, UvMap] = self._layouts
        if size not in kept:
            kept.clear()
            kept[size] = uv_map(self.model.uv, self.corners, self.triangles, size, size)
        return kept[size]

    @cached_property
    def _layouts(self) -> dict[int, UvMap]:
        return {}


def draw_face(mesh: FaceMesh, shape: Floats, camera: Camera, albedo: Floats, light: Floats, size: tuple[int, int]) -> FacePicture:
    """One face in its albedo of vertices (the low-frequency albedo of headpose).

    Args:
        mesh: of the model.
        shape: [V, 3], head space.
        camera: of one frame, without leading axes.
        albedo: [V, 3], RGB 0..1.
        light: [9, 3], camera axes.
        size: height and width of the picture.
    """
    colours = albedo * shading(mesh.camera_normals(shape, camera), light)
    return _drawn(mesh, camera.project(shape), 255.0 * np.clip(colours, 0.0, 1.0), camera, size)


def draw_detailed_face(
    mesh: FaceMesh, shape: Floats, camera: Camera, texture: npt.NDArray[Any], light: Floats, size: tuple[int, int]
) -> FacePicture:
    """One face in a texture of albedo (the detailed albedo of headpose).

    Args:
        mesh: of the model.
        shape: [V, 3], head space.
        camera: of one frame, without leading axes.
        texture: [S, S, 3], albedo, 0..255.
        light: [9, 3], camera axes.
        size: height and width of the picture.
    """
    shaded = np.clip(shading(mesh.camera_normals(shape, camera), light), 0.0, None)
    points = camera.project(shape)[None]
    fragments = rasterise(points[..., :2], points[..., 2], mesh.triangles, *size, perspective=camera.is_perspective, cull="back")
    covered = fragments.covered[0]
    uv = interpolate(fragments, mesh.model.uv[None], mesh.corners)[0]
    brightness = interpolate(fragments, shaded[None], mesh.triangles)[0]
    picture = np.zeros((*size, 3), np.float32)
    picture[covered] = np.clip(sample_texture(texture, uv[covered]) * brightness[covered], 0.0, 255.0)
    return FacePicture(picture, covered)


def _drawn(mesh: FaceMesh, points: Floats, colours: Floats, camera: Camera, size: tuple[int, int]) -> FacePicture:
    placed = points[None]
    fragments = rasterise(placed[..., :2], placed[..., 2], mesh.triangles, *size, perspective=camera.is_perspective, cull="back")
    return FacePicture(interpolate(fragments, colours[None], mesh.triangles)[0], fragments.covered[0])
