"""Draw a face model's modes for the model card: `python -m research.face.morphable_report MODEL --output PNG`."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt  # the backend must be chosen first
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from services.common.array_types import Float64
from services.common.geometry.lighting import ambient, face_normals, shading, vertex_normals
from services.common.geometry.morphable_model import MorphableModel
from services.common.geometry.rotations import matrix_from_euler

mpl.use("Agg")


AMOUNT = 2.5
"""Standard deviations shown on either side of the mean."""
GREY = 0.75


def draw_face(
    axes: Axes, model: MorphableModel, shape: Float64, albedo: Float64 | None = None, *, yaw_degrees: float = 0.0
) -> None:
    """Draw a shape [V, 3] by filled triangles from back to front, grey under a soft light or in its albedo [V, 3]."""
    rotation = matrix_from_euler(np.radians([0.0, yaw_degrees, 0.0]))
    triangles = np.delete(model.triangles, model.regions.get("mouth_interior", []), axis=0)
    points = shape @ rotation.T
    light = ambient().astype(np.float64) * 0.7
    light[1:4] -= np.array([[0.45], [0.75], [-0.35]])
    shaded = shading(vertex_normals(points, triangles), light)
    colours = np.clip((np.full_like(points, GREY) if albedo is None else albedo) * (shaded if albedo is None else 1.0), 0, 1)
    order = np.argsort(-points[triangles, 2].mean(1))
    front = order[face_normals(points, triangles)[order, 2] < 0]
    faces = points[triangles[front], :2]
    axes.add_collection(PolyCollection(faces, facecolors=colours[triangles[front]].mean(1), edgecolors="face", linewidths=0.3))
    axes.set_xlim(-110, 110)
    axes.set_ylim(75, -185)
    axes.set_aspect("equal")
    axes.axis("off")


def plot_modes(model: MorphableModel, path: Path, columns: int = 8) -> None:
    """Draw the means, then the first modes of each basis at minus and plus AMOUNT standard deviations."""
    rows: list[tuple[str, int]] = [("identity", -1), ("identity", 1), ("expression", -1), ("expression", 1)]
    rows += [("albedo", -1), ("albedo", 1)] if model.num_albedo else []
    figure, axes = plt.subplots(len(rows), columns + 1, figsize=(1.55 * (columns + 1), 1.8 * len(rows)))
    zero = {kind: np.zeros(getattr(model, f"num_{kind}")) for kind in ("identity", "expression", "albedo")}
    for row, (kind, sign) in enumerate(rows):
        deviation = getattr(model, f"{kind}_deviation")
        for column in range(columns + 1):
            value = {name: coefficients.copy() for name, coefficients in zero.items()}
            if 0 < column <= len(deviation):
                value[kind][column - 1] = sign * AMOUNT * deviation[column - 1]
            colour = model.albedo(value["albedo"]) if kind == "albedo" else None
            turn = 35.0 if column == 0 and sign > 0 else 0.0
            draw_face(axes[row, column], model, model.shape(value["identity"], value["expression"]), colour, yaw_degrees=turn)
            axes[row, column].set_title("mean" if column == 0 else f"{kind} {column} {'+' if sign > 0 else '−'}", fontsize=7, pad=1)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.98, 0.02, 0.08)
    figure.savefig(path, dpi=60)
    plt.close(figure)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    plot_modes(MorphableModel.load(arguments.model), arguments.output)


if __name__ == "__main__":
    main()
