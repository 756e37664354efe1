"""Learn the default face model: `python -m research.face.morphable_model --data SET --clips CLIPS --output FILE`.

The model is learned from the tracks of `dubstage trainset` (only clips of the split `train`). Every frame's mesh is brought to
head space by the frame's head pose. A speaker's neutral shape is the mean of the frames with the most closed lips and with open
eyes. The identity basis holds principal components of the neutral shapes. The expression basis holds principal components of the
frames' offsets from the speaker's neutral shape. Both use the data and the mirror images, so every mode is symmetric or
antisymmetric. The albedo is learned from the pictures of the clips that have pixels to learn from. The held-out figures of the
model card come from the clips of all other splits.

A speaker's colours are the median over frames of the picture at the projected vertices, blurred to the mesh's own detail, where
the surface faces the camera. Two alternating steps then separate light and albedo. The light of each speaker (spherical harmonics
of three bands, as in Yi et al., Sec. 3.1) best explains the speaker's colours by the mean albedo. The albedo of each speaker is
the colours divided by the shading. A common factor, and light that all clips share, cannot be separated: both stay in the mean
albedo, which is made symmetric.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from research.face.footage import read_frames
from research.face.mesh_topology import NUM_VERTICES, FaceMeshTopology, face_mesh_topology, mirror_map
from research.face.neutral_shape import neutral_shape, own_shape
from research.training.command import command_line
from research.training.trainset import ClipRow, TrainSet
from services.common.array_types import Float32, Float64, Int32
from services.common.errors import InvalidRequestError
from services.common.face.crops import HeadPose, head_template, to_frame
from services.common.face.landmarks import FACE_OVAL, LEFT_EYE_LIDS, MOUTH_AREA, RIGHT_EYE_LIDS
from services.common.face.loaders.files import IBUG_68
from services.common.geometry.camera import WeakPerspective
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.common.geometry.lighting import estimate_light, normalise_light, shading, vertex_face_table, vertex_normals
from services.common.geometry.morphable_model import LandmarkSet, MorphableModel

FRAMES_A_CLIP: Final = 8
CLIPS_A_SPEAKER: Final = 3
ROUNDS: Final = 8
FACING: Final = 0.35
"""Least cosine between normal and line of sight at which a vertex's colour counts."""
BLUR_CROP_PIXELS: Final = 1.5
LEAST_SEEN: Final = 0.3
"""Share of frames that must show a vertex for its colour to count."""
LEAST_SHADING: Final = 0.25

Track = tuple[Path, npt.NDArray[np.intp], tuple[HeadPose, ...]]
MESH_LICENCE: Final = "Mesh connectivity: MediaPipe face mesh, (c) The MediaPipe Authors, Apache-2.0."
MAX_YAW_DEGREES: Final = 30.0
MAX_FRAMES_A_SPEAKER: Final = 6000
MAX_FRAMES: Final = 50_000
"""Most frames of all speakers together that are held, 6 kB each."""
MAX_READ_FRAMES: Final = 40_000
"""About the most frames of one speaker that are read."""
DEPTH_WEIGHT: Final = 0.5
"""Weight of z in the principal components: the tracker's depth is the least certain."""
ERROR_COUNTS: Final = (8, 16, 29, 64)
"""Numbers of expression coefficients for which the report has landmark errors."""
LEAST_SPEAKERS: Final = 2
BALANCE: Final = 0.35
"""Exponent of a speaker's number of frames in the speaker's weight for expressions: one speaker may have most of the frames."""


@dataclass(frozen=True, slots=True)
class AlbedoModel:
    """Albedo basis. Attributes: mean float64 [V, 3]; directions float64 [K, V, 3], one standard deviation each; variances float64
    [all]."""

    mean: Float64
    directions: Float64
    variances: Float64


def learn_albedo(
    tracks: Mapping[str, Sequence[Track]], neutral: Mapping[str, Float64], triangles: Int32, mirror: Int32, keep: int
) -> AlbedoModel:
    """Return the albedo basis of all speakers.

    Args:
        tracks: by speaker, at least one clip as (video, frame numbers, head poses). Every clip is read.
        neutral: by speaker, float64 [V, 3] in head space.
        triangles: int32 [F, 3].
        mirror: int32 [V].
        keep: number of components to keep.
    """
    speakers = sorted(tracks)
    table = vertex_face_table(triangles, len(mirror))
    measured: list[SpeakerColours] = []
    for speaker in speakers:
        measured.append(speaker_colours(tracks[speaker], neutral[speaker], vertex_normals(neutral[speaker], triangles, table)))
    colour_S, normal_S, weight_S = (np.stack(values) for values in zip(*measured, strict=True))
    colour_S = filled_from_seen(colour_S, weight_S, triangles)
    albedo_S = separate_light(colour_S, normal_S, weight_S, mirror)
    both = np.concatenate([albedo_S, albedo_S[:, mirror]])
    mean = both.mean(0)
    flat = (both - mean).reshape(len(both), -1)
    _, singular, directions = np.linalg.svd(flat, full_matrices=False)
    variances = singular**2 / len(both)
    scaled = (directions * np.sqrt(variances)[:, None])[:keep].reshape(-1, *mean.shape)
    return AlbedoModel(mean, scaled * np.sign(scaled.mean((1, 2)))[:, None, None], variances)


class SpeakerColours(NamedTuple):
    """Measurements of each vertex in the frames of one speaker: float64 arrays."""

    colour: Float64
    """Colours [V, 3] in [0, 1], median over the frames that show the vertex."""
    normal: Float64
    """Mean normals [V, 3], camera axes."""
    weight: Float64
    """Shares of frames that show the vertex [V]."""


def speaker_colours(tracks: Sequence[Track], neutral: Float64, normals: Float64) -> SpeakerColours:
    """Return the colours of one speaker's vertices over some frames of the videos.

    `neutral` [V, 3] and its normals [V, 3] are in head space.
    """
    seen, facing, turned = [], [], []
    for video, frames, poses in tracks:
        rows = np.unique(np.linspace(0, len(frames) - 1, FRAMES_A_CLIP).astype(int))
        pictures = read_frames(video, {int(frames[row]) for row in rows})
        for row in rows:
            if int(frames[row]) not in pictures:
                continue
            seen.append(sample_colours(pictures[int(frames[row])], neutral, poses[row]))
            camera_normals = normals @ poses[row].rotation.T
            facing.append(-camera_normals[:, 2])
            turned.append(camera_normals)
    visible = np.array(facing) > FACING
    colour = np.ma.median(np.ma.array(seen, mask=np.repeat(~visible[..., None], 3, -1)), axis=0)  # type: ignore[no-untyped-call]
    return SpeakerColours(np.asarray(colour.filled(0.0), np.float64), np.mean(turned, axis=0), visible.mean(0))


def sample_colours(picture: npt.NDArray[np.uint8], shape: Float64, pose: HeadPose) -> Float64:
    """Return the colours of a posed shape's vertices, float64 [V, 3] in [0, 1], from the picture blurred by BLUR_CROP_PIXELS."""
    points = to_frame(shape, pose)
    blurred: npt.NDArray[Any] = cv2.GaussianBlur(picture, (0, 0), max(BLUR_CROP_PIXELS * pose.scale, 0.3))
    x, y = points[:, :1].astype(np.float32), points[:, 1:2].astype(np.float32)
    return np.asarray(cv2.remap(blurred, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0] / 255.0, np.float64)


def filled_from_seen(colours: Float64, weights: Float64, triangles: Int32) -> Float64:
    """Return colours [S, V, 3] with smooth values at the face oval and at vertices that too few frames show.

    The values continue the neighbours' colours. The face oval is replaced because its points lie on hair and backdrop.
    """
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    near = np.zeros((colours.shape[1], colours.shape[1]))
    near[sides[:, 0], sides[:, 1]] = near[sides[:, 1], sides[:, 0]] = 1.0
    near /= near.sum(1, keepdims=True)
    filled = colours.copy()
    for colour, weight in zip(filled, weights, strict=True):
        hidden = weight < LEAST_SEEN
        hidden[list(FACE_OVAL)] = True
        # The fill is harmonic: every hidden vertex is the mean of its neighbours.
        inside = np.eye(hidden.sum()) - near[np.ix_(hidden, hidden)]
        colour[hidden] = np.linalg.solve(inside, near[np.ix_(hidden, ~hidden)] @ colour[~hidden])
    return filled


def separate_light(colours: Float64, normals: Float64, weights: Float64, mirror: Int32) -> Float64:
    """Return the albedo [S, V, 3] for speakers' colours [S, V, 3], normals [S, V, 3] and weights [S, V], without light.

    Eyelids move and the whites of the eyes shine, so the eyes have no weight in the estimate of the light.
    """
    trusted = weights * (weights > LEAST_SEEN)
    trusted[:, np.unique([RIGHT_EYE_LIDS, LEFT_EYE_LIDS])] = 0.0
    mean = np.broadcast_to(np.median(colours, axis=(0, 1)), colours.shape[1:])
    albedo = colours
    for _ in range(ROUNDS):
        light = estimate_light(colours, np.broadcast_to(mean, colours.shape), normals, trusted, ridge=0.02)
        # A light of mean shading 1 leaves each speaker's own skin tone in the albedo.
        split = normalise_light(light, np.ones_like(colours))
        albedo = colours / np.maximum(shading(normals, split.light), LEAST_SHADING)
        mean = np.median(np.concatenate([albedo, albedo[:, mirror]]), axis=0)
    return np.clip(albedo, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class SpeakerShapes:
    """Shapes of one speaker in one split.

    Attributes:
        speaker: name of the speaker.
        neutral: float64 [468, 3], head space.
        num_frames: number of frames that were read.
        shapes: float32 [T, 468, 3], head space: some of the frames, evenly spread.
        tracks: clips with pixels, evenly spread: video, frame numbers, head poses.
    """

    split: str
    speaker: str
    neutral: Float64
    num_frames: int
    shapes: Float32
    tracks: tuple[Track, ...]


def read_people(data: TrainSet, clips: Path) -> Iterator[SpeakerShapes]:
    """Yield each speaker of each split. Speakers without usable, not strongly turned frames are left out.

    Args:
        clips: folder of the videos.

    Raises:
        InvalidRequestError: a file of the training set is missing or damaged.
    """
    groups: dict[tuple[str, str], list[ClipRow]] = defaultdict(list)
    for row in data.rows:
        if row.has_face and row.usable_frames:
            groups[row.split, row.speaker].append(row)
    wanted = sum(min(MAX_FRAMES_A_SPEAKER, sum(row.usable_frames for row in rows)) for rows in groups.values())
    share = min(1.0, MAX_FRAMES / max(1, wanted))
    for (split, speaker), rows in sorted(groups.items()):
        some = _evenly(rows, max(1, MAX_READ_FRAMES * len(rows) // sum(row.usable_frames for row in rows)))
        with_pixels = {row.name for row in _evenly([row for row in some if row.has_pixels], CLIPS_A_SPEAKER)}
        parts: list[Float32] = []
        tracks: list[Track] = []
        for row in some:
            shapes, frames, poses = read_shapes(data, row)
            if len(frames):
                parts.append(shapes)
            if len(frames) and row.name in with_pixels:
                tracks.append((clips / row.file, frames + row.first_frame, poses))
        if parts:
            every = np.concatenate(parts)
            neutral = neutral_shape(every).astype(np.float64)
            step = max(1, int(len(every) / (share * min(MAX_FRAMES_A_SPEAKER, len(every)))))
            yield SpeakerShapes(split, speaker, neutral, len(every), every[::step].copy(), tuple(tracks))


def read_shapes(data: TrainSet, row: ClipRow) -> tuple[Float32, npt.NDArray[np.intp], tuple[HeadPose, ...]]:
    """Return the usable, not strongly turned frames of a clip.

    Returns:
        Shapes float32 [T, 468, 3] in head space, frame numbers [T], and T head poses.
    """
    arrays = data.arrays(row, "track", ("landmarks", "scale", "rotation", "translation", "usable"))
    scale, rotation, translation = arrays["scale"], arrays["rotation"], arrays["translation"]
    yaw = np.degrees(np.arctan2(-rotation[:, 0, 2], rotation[:, 2, 2]))
    kept = np.flatnonzero(arrays["usable"] & (np.abs(yaw) < MAX_YAW_DEGREES))
    points = arrays["landmarks"][kept, :NUM_VERTICES].astype(np.float64) - translation[kept, None]
    shapes = (points @ rotation[kept] / scale[kept, None, None]).astype(np.float32)
    return shapes, kept, tuple(HeadPose(float(scale[t]), rotation[t], translation[t]) for t in kept)


def _evenly(rows: Sequence[ClipRow], most: int) -> list[ClipRow]:
    """Return at most `most` rows, evenly spread."""
    if len(rows) <= most:
        return list(rows)
    return [rows[at] for at in np.unique(np.linspace(0, len(rows) - 1, most).astype(int))]


def licence_of(rows: Sequence[ClipRow]) -> str:
    """Return the model's statement on where it comes from: sources and licences of the clips, and of the mesh."""
    sources = sorted({f"{row.source} ({row.licence or 'licence unknown'})" for row in rows})
    return f"Learned in dubstage from {', '.join(sources)}. {MESH_LICENCE}"


@dataclass(frozen=True, slots=True)
class Basis:
    """Principal components.

    Attributes:
        directions: float64 [K, 468, 3], one standard deviation each.
        variances: float64 [all], variance of every component, largest first.
    """

    directions: Float64
    variances: Float64


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
        InvalidRequestError: the training set has too few speakers, or is damaged.
        MediaUnsupportedError: a video is missing or cannot be read.
    """
    people = {(one.split, one.speaker): one for one in read_people(data, clips or Path())}
    trained = {key[1]: one for key, one in people.items() if key[0] == "train"}
    if len(trained) < LEAST_SPEAKERS:
        raise InvalidRequestError(
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
            raise InvalidRequestError(f"{data.folder}: no clip of split 'train' has pixels to learn the albedo from", field="data")
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


@command_line
def main() -> int:
    """Run the command line, which writes the model and the figures of the model card; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="training set made by `dubstage trainset`")
    parser.add_argument(
        "--clips", type=Path, help="folder of the videos that the set was made from; without the videos no albedo is learned"
    )
    parser.add_argument("--output", type=Path, required=True, help="safetensors file of the model")
    parser.add_argument("--report", type=Path, help="JSON file of the figures")
    parser.add_argument("--identity", type=int, default=20)
    parser.add_argument("--expression", type=int, default=64)
    parser.add_argument("--albedo", type=int, default=12)
    given = parser.parse_args()
    data = TrainSet(given.data)
    learned = learn(data, given.clips, num_identity=given.identity, num_expression=given.expression, num_albedo=given.albedo)
    learned.model.save(given.output)
    if given.report:
        figures = {"digest": learned.model.digest, **learned.report}
        given.report.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
