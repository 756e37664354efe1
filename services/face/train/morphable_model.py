"""Learn the default face model: `python -m services.face.train.morphable_model --data SET --clips CLIPS --output FILE`.

The model is learned from the tracks of `dubstage trainset` (only clips of the split `train`). Every frame's mesh is brought to head
space by the frame's head pose. A speaker's neutral shape is the mean of the frames with the most closed lips and with open eyes.
The identity basis holds principal components of the neutral shapes. The expression basis holds principal components of the frames'
offsets from the speaker's neutral shape. Both use the data and the mirror images, so every mode is symmetric or antisymmetric.
albedo.py learns the albedo from the pictures of the clips that have pixels to learn from. The held-out figures of the model card
come from the clips of all other splits.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.errors import DubstageError, InvalidRequest
from services.common.face.correspondences import IBUG_68
from services.common.face.crops import head_template
from services.common.face.landmarks import MOUTH_AREA
from services.common.geometry.landmark_set import LandmarkSet
from services.common.geometry.morphable_model import MorphableModel
from services.face.train.albedo import AlbedoModel, learn_albedo
from services.face.train.face_mesh_topology import NUM_VERTICES, FaceMeshTopology, face_mesh_topology, mirror_map
from services.face.train.morphable_figures import DEPTH_WEIGHT, Basis, explained, landmark_errors
from services.face.train.people_shapes import licence_of, read_people
from services.training.trainset.reader import TrainSet

LEAST_SPEAKERS: Final = 2
BALANCE: Final = 0.35
"""Exponent of a speaker's number of frames in the speaker's weight for expressions: one speaker may have most of the frames."""


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


@dataclass(frozen=True, slots=True)
class Learned:
    """Learned model. Attributes: the model, the topology, and the figures of the model card by name."""

    model: MorphableModel
    topology: FaceMeshTopology
    report: dict[str, Any]


def learn(data: TrainSet, clips: Path | None, *, num_identity: int, num_expression: int, num_albedo: int) -> Learned:
    """Learn the whole model from the split `train`. Without a folder of clips the model has no albedo.

    Raises:
        InvalidRequest: the training set has too few speakers, or is damaged.
        MediaUnsupported: a film is missing or cannot be read.
    """
    people = {(one.split, one.speaker): one for one in read_people(data, clips or Path())}
    trained = {key[1]: one for key, one in people.items() if key[0] == "train"}
    if len(trained) < LEAST_SPEAKERS:
        raise InvalidRequest(
            f"{data.folder}: {len(trained)} speakers of split 'train' show their faces well; a face model needs {LEAST_SPEAKERS} "
            "speakers or more",
            field="data",
        )
    mirror = mirror_map(head_template().astype(np.float64))
    own = np.stack([one.neutral for one in trained.values()])
    mean = np.concatenate([own, mirrored(own, mirror)]).mean(0)
    identity = principal_components(weighted_rows([(1.0, own - mean)], mirror), min(num_identity, 2 * len(own) - 1))
    blocks = [(float(one.num_frames**BALANCE), one.shapes - one.neutral) for one in trained.values()]
    expression = principal_components(weighted_rows(blocks, mirror), num_expression)
    topology = face_mesh_topology(mean)
    albedo = None
    if clips is not None:
        shown = {name: one for name, one in trained.items() if one.tracks}
        if not shown:
            raise InvalidRequest(f"{data.folder}: no clip of split 'train' has pixels to learn the albedo from", field="data")
        neutral = {name: one.neutral for name, one in shown.items()}
        albedo = learn_albedo({name: one.tracks for name, one in shown.items()}, neutral, topology.triangles, mirror, num_albedo)
    model = _assemble(mean, identity, expression, topology, albedo, licence_of(data.of("train", face=True)))
    others = {" ".join(key): one for key, one in sorted(people.items()) if key[0] != "train"}
    strangers = [one.neutral for one in others.values() if one.speaker not in trained]
    counts = [1, 2, 4, 8, 16, 20, 29, 48, 64]
    report: dict[str, Any] = {
        "speakers": sorted(trained),
        "training_frames": sum(one.num_frames for one in trained.values()),
        "counts": counts,
        "landmark_error": {name: landmark_errors(model, one.shapes) for name, one in others.items()},
        "identity_variances": identity.variances[: 2 * len(own)].tolist(),
        "expression_variances": expression.variances[:128].tolist(),
        "identity_explained": {
            "train": explained(own - mean, identity, counts),
            **({"strangers": explained(np.stack(strangers) - mean, identity, counts)} if strangers else {}),
        },
        "expression_explained": {
            "train": [float(expression.variances[:count].sum() / expression.variances.sum()) for count in counts],
            **{name: explained(one.shapes - one.neutral, expression, counts) for name, one in others.items()},
        },
    }
    return Learned(model, topology, report)


def _assemble(
    mean: Float64, identity: Basis, expression: Basis, topology: FaceMeshTopology, albedo: AlbedoModel | None, licence: str
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
        licence=licence,
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


def main() -> int:
    """Run the command line, which writes the model and the figures of the model card; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="training set made by `dubstage trainset`")
    parser.add_argument(
        "--clips", type=Path, help="folder of the films that the set was made from; without the films no albedo is learned"
    )
    parser.add_argument("--output", type=Path, required=True, help="safetensors file of the model")
    parser.add_argument("--report", type=Path, help="JSON file of the figures")
    parser.add_argument("--identity", type=int, default=20)
    parser.add_argument("--expression", type=int, default=64)
    parser.add_argument("--albedo", type=int, default=12)
    given = parser.parse_args()
    try:
        data = TrainSet(given.data)
        learned = learn(data, given.clips, num_identity=given.identity, num_expression=given.expression, num_albedo=given.albedo)
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    learned.model.save(given.output)
    if given.report:
        figures = {"digest": learned.model.digest, **learned.report}
        given.report.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
