"""Pictures that show how well a face was fitted, for reports."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from services.common.array_types import UInt8
from services.common.face.crops import CROP_SIZE, HeadPose, crop_from_frame
from services.common.face.drawing import FaceMesh, FacePicture, draw_detailed_face, draw_face
from services.common.face.identity import FaceIdentity
from services.common.face.sampling import sample_patch
from services.common.geometry.camera import WeakPerspective

_GREEN: Final = (0, 255, 0)
_SUBPIXEL_BITS: Final = 4


def camera_in_crop(pose: HeadPose, affine: npt.NDArray[np.float64]) -> WeakPerspective:
    """Return the camera of one frame for a picture that a similarity [2, 3] made of the frame."""
    size = float(np.sqrt(abs(np.linalg.det(affine[:, :2]))))
    turn = np.eye(3)
    turn[:2, :2] = affine[:, :2] / size
    place = affine[:, :2] @ pose.translation[:2] + affine[:, 2]
    return WeakPerspective(np.float64(pose.scale * size), turn @ pose.rotation, np.array([*place, 0.0]))


def fitting_row(
    picture: UInt8, pose: HeadPose, expression: npt.NDArray[np.floating], identity: FaceIdentity, mesh: FaceMesh
) -> UInt8:
    """Return five crops side by side, uint8 [256, 1280, 3]: the face, the mesh on the face, the face drawn into the picture with
    the low-frequency and with the detailed albedo, and the last face alone.

    Args:
        picture: uint8 [H, W, 3], RGB.
        pose: head pose of the fit.
        expression: float [E].
        identity: identity with albedo and texture.
        mesh: drawn surface of the identity's model.
    """
    affine = crop_from_frame(pose)
    crop = sample_patch(picture, affine, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_LINEAR)
    camera = camera_in_crop(pose, affine)
    shape = mesh.model.shape(identity.identity, np.asarray(expression, np.float32), identity.offset).astype(np.float64)
    size = (CROP_SIZE, CROP_SIZE)
    plain = draw_face(mesh, shape, camera, mesh.model.albedo(identity.albedo), identity.light, size)
    detailed = draw_detailed_face(mesh, shape, camera, identity.texture, identity.light, size)
    alone = np.rint(detailed.picture).astype(np.uint8)
    pictures = [crop, _with_mesh(crop, camera.project(shape), mesh), _laid_over(crop, plain), _laid_over(crop, detailed), alone]
    return np.concatenate(pictures, axis=1)


def _laid_over(crop: UInt8, face: FacePicture) -> UInt8:
    result = crop.copy()
    result[face.covered] = np.rint(face.picture[face.covered]).astype(np.uint8)
    return result


def _with_mesh(crop: UInt8, points: npt.NDArray[np.floating], mesh: FaceMesh) -> UInt8:
    large = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    corners = np.rint((2.0 * points[:, :2] + 0.5) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.polylines(large, list(corners[mesh.triangles]), True, _GREEN, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return np.asarray(cv2.resize(large, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA), np.uint8)
