"""Reader of Wavefront OBJ meshes: positions, texture coordinates and faces. Polygons are cut into triangles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.common.array_types import Float32, Int32


@dataclass(frozen=True, slots=True)
class ObjMesh:
    """Mesh from an OBJ file.

    Attributes:
        vertices: float32 [V, 3].
        uv: float32 [U, 2], v up; empty where the file has none.
        triangles: int32 [F, 3].
        uv_triangles: int32 [F, 3]; empty where the faces name no texture coordinates.
    """

    vertices: Float32
    uv: Float32
    triangles: Int32
    uv_triangles: Int32


def read_obj(path: Path) -> ObjMesh:
    """Return the mesh in an OBJ file. Groups, normals and materials are ignored.

    Raises:
        ValueError: a line cannot be read, or the file has no vertices.
    """
    vertices: list[list[float]] = []
    uv: list[list[float]] = []
    triangles: list[tuple[int, ...]] = []
    uv_triangles: list[tuple[int, ...]] = []
    with path.open(encoding="utf-8", errors="strict") as lines:
        for line in lines:
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(value) for value in rest.split()[:3]])
            elif kind == "vt":
                uv.append([float(value) for value in rest.split()[:2]])
            elif kind == "f":
                corners = [corner.split("/") for corner in rest.split()]
                places = [_place(corner[0], len(vertices)) for corner in corners]
                triangles += [(places[0], places[i], places[i + 1]) for i in range(1, len(places) - 1)]
                if all(len(corner) > 1 and corner[1] for corner in corners):
                    texture = [_place(corner[1], len(uv)) for corner in corners]
                    uv_triangles += [(texture[0], texture[i], texture[i + 1]) for i in range(1, len(texture) - 1)]
    if not vertices:
        raise ValueError("it has no vertices")
    complete = len(uv_triangles) == len(triangles) and uv
    return ObjMesh(
        np.array(vertices, np.float32),
        np.array(uv, np.float32).reshape(-1, 2) if complete else np.zeros((0, 2), np.float32),
        np.array(triangles, np.int32).reshape(-1, 3),
        np.array(uv_triangles, np.int32).reshape(-1, 3) if complete else np.zeros((0, 3), np.int32),
    )


def read_obj_vertices(path: Path) -> Float32:
    """Return only the positions, float32 [V, 3]. This is much faster for hundreds of shapes that share one topology."""
    with path.open(encoding="utf-8", errors="strict") as lines:
        rows = [line[2:] for line in lines if line.startswith("v ")]
    if not rows:
        raise ValueError("it has no vertices")
    return np.array([[float(value) for value in row.split()[:3]] for row in rows], np.float32)


def _place(number: str, count: int) -> int:
    """Return an index in the file (from 1, or negative from the end) as an index from 0."""
    value = int(number)
    return value - 1 if value > 0 else count + value
