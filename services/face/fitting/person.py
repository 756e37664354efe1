"""The shape of one person from the landmarks of a clip: identity coefficients, and an offset outside the identity basis.

An identity basis learned from few speakers has a low rank, and a joint fit of identity and expression lets features of an unknown
person leak into the expressions. The fit therefore measures the person's neutral face as the model defines the neutral face: the
mean of the frames with the most closed lips and with open eyes, each brought to head space by the frame's pose. The identity is the
projection of the neutral face on the basis, under the prior. The rest is the actor's own shape (`offset`). If there are too few
frames (a still picture), the joint closed form (`coefficients_from_landmarks`) gives identity and expression, and a part of the
residual becomes the offset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, Float64
from services.common.face.landmarks import INNER_LOWER_MIDDLE, INNER_UPPER_MIDDLE, LEFT_EYE_LIDS, RIGHT_EYE_LIDS
from services.common.geometry.alignment import similarity
from services.common.geometry.coefficients import coefficients_from_landmarks
from services.face.fitting.frames import DEPTH_WEIGHT, MIN_RIGID, FrameFits, fit_frames, start_cameras
from services.face.fitting.model import ModelLandmarks

MIN_FRAMES_TO_MEASURE: Final = 25
"""Least number of frames to measure the neutral face. One second of speech has frames with closed lips."""
_ROUNDS: Final = 2
_CLOSED_SHARE: Final = 0.25
_IDENTITY_RIDGE: Final = 8.0
_JOINT_RIDGE: Final = 8.0
_OFFSET_RIDGE: Final = 0.5
"""Weight of a zero offset for a still picture, in frames: the residual also holds the tracker's error."""


@dataclass(frozen=True, slots=True)
class PersonShape:
    """Neutral face of a person.

    Attributes:
        identity: float32 [I].
        offset: float32 [V, 3], head space, the part of the shape outside the identity basis. Zeros if the tracker does not measure
            the whole mesh of the model.
    """

    identity: Float32
    offset: Float32


@dataclass(frozen=True, slots=True)
class ClipFit:
    """Result of the fit to a clip.

    Attributes:
        person: shape that all frames share.
        frames: fits of the T frames.
        is_measured: True: the neutral face was measured; False: inferred by the joint closed form.
    """

    person: PersonShape
    frames: FrameFits
    is_measured: bool


def fit_clip(face: ModelLandmarks, tracked: npt.NDArray[np.floating]) -> ClipFit:
    """Return one person's shape, shared by T frames, and the expression and pose of each frame.

    Args:
        face: the model's landmarks.
        tracked: float [T, 478, 3], T >= 1, frame pixels, z negative towards the camera.
    """
    image = face.measured(tracked)
    camera = start_cameras(face, face.mean, image)
    for _ in range(_ROUNDS):  # a new identity moves the points from which poses are computed
        joint = coefficients_from_landmarks(
            face.model,
            image,
            camera,
            landmarks=face.landmarks,
            weights=face.trust,
            depth_weight=DEPTH_WEIGHT,
            ridge=_JOINT_RIDGE,
        )
        camera = fit_frames(face, face.base(joint.identity), image, camera, joint.expression).camera
    expression = joint.expression
    measured = len(image) >= MIN_FRAMES_TO_MEASURE
    chosen = neutral_frames(tracked, camera.scale) if measured else np.ones(len(image), bool)
    for _ in range(_ROUNDS):
        shapes = np.asarray(camera.unproject(image))  # tracked landmarks in head space
        if measured:
            person = _measured_person(face, shapes[chosen], camera.rotation[chosen])
        else:
            person = _with_rest(face, joint.identity, expression, shapes)
        frames = fit_frames(face, face.base(person.identity, person.offset), image, camera, expression)
        camera, expression = frames.camera, frames.expression
    return ClipFit(person, frames, is_measured=measured)


def neutral_frames(tracked: npt.NDArray[np.floating], scale: Float64) -> npt.NDArray[np.bool_]:
    """Return bool [T]: True for the quarter with the smallest mouth opening of the frames with open eyes.

    Args:
        tracked: [T, 478, 3], frame pixels.
        scale: [T], frame pixels per crop pixel.
    """
    eyes = _gap(tracked, RIGHT_EYE_LIDS + LEFT_EYE_LIDS) / scale
    opening = _gap(tracked, tuple(zip(INNER_UPPER_MIDDLE, INNER_LOWER_MIDDLE, strict=True))) / scale
    awake = eyes >= np.quantile(eyes, _CLOSED_SHARE)
    return np.asarray(awake & (opening <= np.quantile(opening[awake], _CLOSED_SHARE)))


def _measured_person(face: ModelLandmarks, shapes: Float64, rotation: Float64) -> PersonShape:
    """Return the person whose neutral face the shapes [T, N, 3] show."""
    # Frames that show a point from the front have the largest weight.
    weights = face.facing(rotation)[..., None]
    neutral = (shapes * weights).sum(0) / weights.sum(0)
    # Align to head space: a rotation, shift or scale left in a person's shape would be missing from the person's poses.
    rigid = face.stable if face.stable.sum() >= MIN_RIGID else np.ones(len(neutral), bool)
    residual = similarity(neutral[rigid], face.mean[rigid]).apply(neutral) - face.mean
    basis, trust = face.identity.reshape(-1, face.identity.shape[-1]), np.repeat(face.trust, 3)
    normal = basis.T @ (trust[:, None] * basis) + _IDENTITY_RIDGE * np.eye(basis.shape[1])
    alpha = np.linalg.solve(normal, basis.T @ (trust * residual.ravel()))
    rest = residual - (basis @ alpha).reshape(-1, 3)
    return PersonShape((alpha * face.model.identity_deviation).astype(np.float32), _offset(face, rest))


def _with_rest(face: ModelLandmarks, identity: Float32, expression: Float32, shapes: Float64) -> PersonShape:
    """Return the person with this identity. The own shape is a part of the mean residual of shapes [T, N, 3] and expressions."""
    moved = np.einsum("ndk,tk->tnd", face.expression, expression / face.model.expression_deviation)
    rest = (shapes - face.base(identity) - moved).mean(0)
    return PersonShape(identity, _offset(face, rest * (len(shapes) / (len(shapes) + _OFFSET_RIDGE))))


def _offset(face: ModelLandmarks, rest: Float64) -> Float32:
    if not face.is_whole_mesh:
        return np.zeros((face.model.num_vertices, 3), np.float32)
    return rest.astype(np.float32)


def _gap(points: npt.NDArray[np.floating], pairs: tuple[tuple[int, int], ...]) -> Float64:
    one, other = np.array(pairs).T
    return np.asarray(np.linalg.norm(points[:, one, :2] - points[:, other, :2], axis=-1).mean(1), np.float64)
