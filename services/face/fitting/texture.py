"""The detailed albedo of a person: colours of the most neutral, least turned frames, divided by the shading.

The source is Yi et al., Sec. 3.3.1. The paper assigns a colour from one frame to each vertex. This module fills a texture, so that
a mesh of few vertices keeps the skin's detail, and takes the weighted median of the best frames, which leaves out highlights and
blur of single frames.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float64, UInt8
from services.common.face.drawing import FaceMesh
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.lighting import shading
from services.common.geometry.rasterise import Backend
from services.common.geometry.rotations import geodesic_angle
from services.common.geometry.textures import Texture, fill, merge, unwrap

TEXTURE_SIZE: Final = 256
_MOST_FRAMES: Final = 7
_DEGREES_A_PIXEL: Final = 4.0
"""Rotation of the head, degrees, that counts as much as one crop pixel of expression."""
_DARKEST: Final = 0.15


class DetailedAlbedo(NamedTuple):
    """Albedo texture. Attributes: texture uint8 [S, S, 3], 0..255 for albedo 0..1; seen uint8 [S, S], 0 for texels filled in."""

    texture: UInt8
    seen: UInt8


def best_frames(displacement: Float64, rotation: Float64) -> npt.NDArray[np.intp]:
    """Return the rows of the most neutral, least turned frames, best first, at most seven.

    Args:
        displacement: [T], root mean square movement of the mesh by the expression, crop pixels.
        rotation: [T, 3, 3].
    """
    turn = np.degrees(geodesic_angle(rotation, np.broadcast_to(np.eye(3), rotation.shape)))
    return np.argsort(displacement + turn / _DEGREES_A_PIXEL, kind="stable")[:_MOST_FRAMES]


def detailed_albedo(
    mesh: FaceMesh, shapes: Float64, camera: WeakPerspective, light: Float64, crops: UInt8, *, backend: Backend = "numba"
) -> DetailedAlbedo:
    """Return the albedo texture that the frames show.

    Args:
        mesh: mesh of a model with texture coordinates.
        shapes: [T, V, 3], head space, T >= 1.
        camera: T cameras, crop pixels.
        light: [T, 9, 3], camera axes.
        crops: uint8 [T, 256, 256, 3].
        backend: rasteriser.
    """
    layout = mesh.layout(TEXTURE_SIZE, backend)
    found = []
    for t, shape in enumerate(shapes):
        posed = WeakPerspective(camera.scale[t], camera.rotation[t], camera.translation[t])
        seen = unwrap(crops[t], posed.project(shape), layout, perspective=False, backend=backend)
        shade = np.maximum(shading(mesh.camera_normals(shape, posed), light[t]), _DARKEST)
        found.append(Texture(seen.colours / np.maximum(layout.positions(shade[None])[0], _DARKEST), seen.weight))
    merged = merge(found)
    return DetailedAlbedo(
        np.clip(np.rint(fill(merged)), 0, 255).astype(np.uint8), np.where(merged.weight > 0.0, 255, 0).astype(np.uint8)
    )
