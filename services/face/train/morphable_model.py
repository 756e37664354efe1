"""Learn the default face model: `python -m services.face.train.morphable_model --trainset DIR --clips CLIPS --output FILE`.

The model is learned from the tracks of `dubstage trainset` (only clips of use `train`). Every frame's mesh is brought to head space
by the frame's head pose. A speaker's neutral shape is the mean of the frames with the most closed lips and with open eyes. The
identity basis holds principal components of the neutral shapes. The expression basis holds principal components of the frames'
offsets from the speaker's neutral shape. Both use the data and the mirror images, so every mode is symmetric or antisymmetric.
albedo.py learns the albedo from the pictures of the clips. The held-out figures of the model card come from clips of use `val`
(other speakers) and `dev`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from services.common.array_types import Float32, Float64
from services.common.face.correspondences import IBUG_68
from services.common.face.crops import HeadPose, head_template
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.neutral import neutral_shape, own_shape
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.landmark_set import LandmarkSet
from services.common.geometry.morphable_model import MorphableModel
from services.face.train.albedo import AlbedoModel, learn_albedo
from services.face.train.face_mesh_topology import NUM_VERTICES, FaceMeshTopology, face_mesh_topology, mirror_map

LICENCE: Final = (
    "Learned in dubstage from the clips named in docs/models/morphable_model.md (GRID, CC BY 4.0; ls_demo2, Apache-2.0). "
    "Mesh connectivity: MediaPipe face mesh, (c) The MediaPipe Authors, Apache-2.0."
)
DEPTH_WEIGHT: Final = 0.5
"""Weight of z in the principal components: the tracker's depth is the least certain."""
BALANCE: Final = 0.35
"""Exponent of a speaker's number of frames in the speaker's weight for expressions: one speaker has 90 % of the frames."""
MAX_YAW_DEGREES: Final = 30.0
MAX_FRAMES_A_SPEAKER: Final = 6000
ERROR_COUNTS: Final = (8, 16, 29, 64)
"""Numbers of expression coefficients for which the report has landmark errors."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Tracks of one clip.

    Attributes:
        name: path of the film under the clips folder.
        use: train, val or dev.
        speaker: name of the speaker.
        shapes: float32 [T, 468, 3], head space.
        frames: int [T], numbers of the frames in the film.
        poses: T head poses.
    """

    name: str
    use: str
    speaker: str
    shapes: Float32
    frames: npt.NDArray[np.intp]
    poses: tuple[HeadPose, ...]


@dataclass(frozen=True, slots=True)
class Basis:
    """Principal components.

    Attributes:
        directions: float64 [K, 468, 3], one standard deviation each.
        variances: float64 [all], variance of every component, largest first.
    """

    directions: Float64
    variances: Float64


def read_clips(trainset: Path, uses: frozenset[str]) -> Iterator[Clip]:
    """Return the clips of the given uses with usable, not strongly turned frames. Clips without such frames are left out."""
    for path in sorted((trainset / "clips").glob("*.safetensors")):
        with safe_open(path, "numpy") as stored:
            metadata = stored.metadata()
            if metadata["use"] not in uses:
                continue
            landmarks, scale, rotation, translation, usable = (
                stored.get_tensor(key) for key in ("landmarks", "scale", "rotation", "translation", "usable")
            )
        yaw = np.degrees(np.arctan2(-rotation[:, 0, 2], rotation[:, 2, 2]))
        kept = np.flatnonzero(usable & (np.abs(yaw) < MAX_YAW_DEGREES))
        if len(kept) == 0:
            continue
        points = landmarks[kept, :NUM_VERTICES].astype(np.float64) - translation[kept, None]
        shapes = (points @ rotation[kept] / scale[kept, None, None]).astype(np.float32)
        poses = tuple(HeadPose(float(scale[t]), rotation[t], translation[t]) for t in kept)
        yield Clip(metadata["clip"], metadata["use"], metadata["speaker"], shapes, kept, poses)


def mirrored(shapes: npt.NDArray[np.floating], mirror: npt.NDArray[np.int32]) -> Float64:
    """Return shapes [..., 468, 3] of the faces seen in a mirror."""
    return np.asarray((np.asarray(shapes, np.float64) * [-1.0, 1.0, 1.0])[..., mirror, :])


def principal_components(rows: Float64, keep: int) -> Basis:
    """Return the leading principal components of rows [R, 468, 3] about zero, under the metric of DEPTH_WEIGHT.

    Args:
        rows: offsets. A row counts with the square of its length, so weights are factors of the rows (`weighted_rows`).
        keep: number of components to keep; at most R are returned.
    """
    root = np.tile(np.sqrt([1.0, 1.0, DEPTH_WEIGHT]), NUM_VERTICES)
    data = rows.reshape(len(rows), -1) * root
    few = len(data) < data.shape[1]
    # Both products have the same non-zero eigenvalues. With few rows the product of size R is much smaller.
    values, vectors = np.linalg.eigh(data @ data.T if few else data.T @ data)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1][:, :keep]
    if few:
        vectors = data.T @ vectors / np.sqrt(np.maximum(values[:keep], 1e-12))
    directions = (vectors * np.sqrt(values[:keep]) / root[:, None]).T.reshape(-1, NUM_VERTICES, 3)
    # The solver's sign is arbitrary. Choose the sign by which the point that moves most moves down, otherwise to the right.
    peak = np.abs(directions[:, :, :2]).sum(-1).argmax(1)
    lead = directions[np.arange(len(directions)), peak]
    sign = np.sign(np.where(np.abs(lead[:, 1]) > 0.3 * np.abs(lead[:, 0]), lead[:, 1], lead[:, 0]))
    return Basis(directions * sign[:, None, None], values)


def weighted_rows(blocks: list[tuple[float, Float64]], mirror: npt.NDArray[np.int32]) -> Float64:
    """Return the offsets [T, 468, 3] of all blocks and of the mirror images, one after the other, scaled by the blocks' weights.

    The mean square of the result, summed over the rows, is the weighted mean of the blocks' variances.
    """
    total = sum(weight for weight, _ in blocks)
    scaled = [offsets * np.sqrt(weight / (total * 2 * len(offsets))) for weight, offsets in blocks]
    return np.concatenate([both for offsets in scaled for both in (offsets, mirrored(offsets, mirror))])


def explained(offsets: Float64, basis: Basis, counts: list[int]) -> list[float]:
    """Return, for each number in `counts`, the share of variance (metric of DEPTH_WEIGHT) that so many components explain."""
    root = np.sqrt([1.0, 1.0, DEPTH_WEIGHT])
    data = (offsets * root).reshape(len(offsets), -1)
    directions = (basis.directions * root).reshape(len(basis.directions), -1)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    energy = np.concatenate([[0.0], np.cumsum(((data @ directions.T) ** 2).sum(0))])
    return [float(energy[min(count, len(directions))] / (data**2).sum()) for count in counts]


def landmark_errors(model: MorphableModel, shapes: Float32) -> dict[str, list[float]]:
    """Return the mean distance between one person's fitted and tracked landmarks, crop pixels of a frontal view.

    Args:
        model: the model.
        shapes: float32 [T, 468, 3], head space.

    Returns:
        "basis": identity from the basis alone; "own_shape": with the person's neutral shape too. Each list has one value per number
        of expression coefficients in ERROR_COUNTS.
    """
    frames = len(shapes)
    frontal = WeakPerspective(np.ones(frames), np.broadcast_to(np.eye(3), (frames, 3, 3)), np.zeros((frames, 3)))
    errors: dict[str, list[float]] = {"basis": [], "own_shape": []}
    for count in ERROR_COUNTS:
        short = model.truncated(expression=count)
        fitted = coefficients_from_landmarks(short, shapes, frontal)
        own = own_shape(short, fitted.identity, neutral_shape(shapes))
        better = coefficients_from_landmarks(short, shapes, frontal, identity=fitted.identity, offset=own)
        errors["basis"].append(float(fitted.error.mean()))
        errors["own_shape"].append(float(better.error.mean()))
    return errors


@dataclass(frozen=True, slots=True)
class Learned:
    """Learned model. Attributes: the model, the topology, and the figures of the model card by name."""

    model: MorphableModel
    topology: FaceMeshTopology
    report: dict[str, Any]


def learn(trainset: Path, clips: Path | None, *, num_identity: int, num_expression: int, num_albedo: int) -> Learned:
    """Learn the whole model. Without a folder of clips the model has no albedo."""
    by_speaker: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in read_clips(trainset, frozenset({"train", "val", "dev"})):
        by_speaker[clip.use, clip.speaker].append(clip)
    trained = {speaker for use, speaker in by_speaker if use == "train"}
    neutral = {
        key: neutral_shape(np.concatenate([clip.shapes for clip in found])).astype(np.float64) for key, found in by_speaker.items()
    }

    mirror = mirror_map(head_template().astype(np.float64))
    own = np.stack([neutral["train", speaker] for speaker in sorted(trained)])
    both = np.concatenate([own, mirrored(own, mirror)])
    mean = both.mean(0)
    identity = principal_components(weighted_rows([(1.0, own - mean)], mirror), min(num_identity, 2 * len(own) - 1))

    sizes = {key: sum(len(clip.shapes) for clip in found) for key, found in by_speaker.items()}
    offsets = {
        key: np.concatenate([clip.shapes for clip in found])[:: max(1, sizes[key] // MAX_FRAMES_A_SPEAKER)] - neutral[key]
        for key, found in by_speaker.items()
    }
    blocks = [(float(sizes[key] ** BALANCE), offsets[key].astype(np.float64)) for key in offsets if key[0] == "train"]
    expression = principal_components(weighted_rows(blocks, mirror), num_expression)

    topology = face_mesh_topology(mean)
    albedo = None
    if clips is not None:
        training = {speaker: by_speaker["train", speaker] for speaker in sorted(trained)}
        sampled = {s: [(clips / c.name, c.frames, c.poses) for c in found] for s, found in training.items()}
        albedo = learn_albedo(sampled, {s: neutral["train", s] for s in training}, topology.triangles, mirror, num_albedo)

    strangers = {key for key in neutral if key[0] in {"val", "dev"} and key[1] not in trained}
    counts = [1, 2, 4, 8, 16, 20, 29, 48, 64]
    model = _assemble(mean, identity, expression, topology, albedo)
    others = [key for key in sorted(by_speaker) if key[0] != "train"]
    held_out = {" ".join(key): np.concatenate([clip.shapes for clip in by_speaker[key]]) for key in others}
    report: dict[str, Any] = {
        "speakers": sorted(trained),
        "training_frames": sum(size for key, size in sizes.items() if key[0] == "train"),
        "counts": counts,
        "landmark_error": {name: landmark_errors(model, shapes) for name, shapes in held_out.items()},
        "identity_variances": identity.variances[: 2 * len(own)].tolist(),
        "expression_variances": expression.variances[:128].tolist(),
        "identity_explained": {
            "train": explained(own - mean, identity, counts),
            "strangers": explained(np.stack([neutral[key] for key in sorted(strangers)]) - mean, identity, counts),
        },
        "expression_explained": {
            "train": [float(expression.variances[:count].sum() / expression.variances.sum()) for count in counts],
            **{" ".join(key): explained(offsets[key], expression, counts) for key in others},
        },
    }
    return Learned(model, topology, report)


def _assemble(
    mean: Float64, identity: Basis, expression: Basis, topology: FaceMeshTopology, albedo: AlbedoModel | None
) -> MorphableModel:
    def stacked(basis: Basis) -> Float32:
        return np.ascontiguousarray(np.moveaxis(basis.directions, 0, -1), np.float32)

    everything = np.arange(NUM_VERTICES)
    landmarks = {
        "mediapipe": LandmarkSet.of_vertices(everything, everything),
        "mouth_area": LandmarkSet.of_vertices(MOUTH_AREA, MOUTH_AREA),
        "ibug_68": LandmarkSet.of_vertices(IBUG_68, IBUG_68),
    }
    colours = {}
    if albedo is not None:
        colours = {
            "albedo_mean": albedo.mean.astype(np.float32),
            "albedo_basis": np.ascontiguousarray(np.moveaxis(albedo.directions, 0, -1), np.float32),
            "albedo_deviation": np.ones(len(albedo.directions), np.float32),
        }
    return MorphableModel(
        name="mediapipe_468",
        licence=LICENCE,
        unit="crop pixel",
        mean_shape=mean.astype(np.float32),
        identity_basis=stacked(identity),
        expression_basis=stacked(expression),
        identity_deviation=np.ones(len(identity.directions), np.float32),
        expression_deviation=np.ones(len(expression.directions), np.float32),
        triangles=topology.triangles,
        uv=topology.uv,
        uv_triangles=topology.triangles,
        landmarks=MappingProxyType(landmarks),
        regions=MappingProxyType(topology.regions),
        **colours,
    )


def main() -> None:
    """Run the command line, which writes the model and the figures of the model card."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--trainset", type=Path, required=True, help="training set made by `dubstage trainset`: a folder with clips/"
    )
    parser.add_argument(
        "--clips", type=Path, help="folder of the films that the set was made from; without the films no albedo is learned"
    )
    parser.add_argument("--output", type=Path, required=True, help="safetensors file of the model")
    parser.add_argument("--report", type=Path, help="JSON file of the figures")
    parser.add_argument("--identity", type=int, default=20)
    parser.add_argument("--expression", type=int, default=64)
    parser.add_argument("--albedo", type=int, default=12)
    arguments = parser.parse_args()
    learned = learn(
        arguments.trainset,
        arguments.clips,
        num_identity=arguments.identity,
        num_expression=arguments.expression,
        num_albedo=arguments.albedo,
    )
    learned.model.save(arguments.output)
    if arguments.report:
        figures = {"digest": learned.model.digest, **learned.report}
        arguments.report.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
