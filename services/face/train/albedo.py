"""Albedo of the default face model: colours at the vertices of training speakers' faces, with the light taken out.

A speaker's colours are the median over frames of the picture at the projected vertices, blurred to the mesh's own detail, where
the surface faces the camera. Two alternating steps then separate light and albedo. The light of each speaker (spherical harmonics
of three bands, as in Yi et al., Sec. 3.1) best explains the speaker's colours by the mean albedo. The albedo of each speaker is the
colours divided by the shading. A common factor, and light that all clips share, cannot be separated: both stay in the mean albedo,
which is made symmetric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import Float64, Int32
from services.common.face.crops import HeadPose, to_frame
from services.common.face.landmarks import FACE_OVAL, LEFT_EYE_LIDS, RIGHT_EYE_LIDS
from services.common.geometry.lighting import estimate_light, normalise_light, shading
from services.common.geometry.normals import vertex_face_table, vertex_normals
from services.face.train.film import read_frames

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
        tracks: by speaker, at least one clip as (film, frame numbers, head poses). Every clip is read.
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
    """Return the colours of one speaker's vertices over some frames of the films.

    `neutral` [V, 3] and its normals [V, 3] are in head space.
    """
    seen, facing, turned = [], [], []
    for film, frames, poses in tracks:
        rows = np.unique(np.linspace(0, len(frames) - 1, FRAMES_A_CLIP).astype(int))
        pictures = read_frames(film, {int(frames[row]) for row in rows})
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
        # Harmonic: every hidden vertex is the mean of its neighbours.
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
