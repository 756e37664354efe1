"""An identity without footage, and its portrait: every pixel of it tells where it was."""

from __future__ import annotations

import cv2
import numpy as np

from services.common.face.crops import HeadPose, head_template, to_frame
from services.common.face.identity import FaceIdentity
from services.common.face.landmarks import NUM_LANDMARKS
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rotations import matrix_from_euler
from services.texture.portrait import LOWER_LIDS, UPPER_LIDS
from tests.unit.common.face.people import mean_person

MODEL = default_model()
SIZE = 256
WHITE_OF_EYES = 255
HEAD = np.concatenate([head_template(), np.zeros((NUM_LANDMARKS - 468, 3), np.float32)])
HEAD[468:473], HEAD[473:478] = (HEAD[[a, b]].mean(0) for a, b in ((159, 145), (386, 374)))


def turned(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """A rotation of so many degrees."""
    return np.asarray(matrix_from_euler(np.radians([pitch, yaw, roll])), np.float64)


POSE = HeadPose(0.6, turned(), np.array([128.0, 150.0, 0.0]))
LANDMARKS = to_frame(HEAD, POSE)


def a_person(**changes: object) -> FaceIdentity:
    offset = (head_template() - MODEL.mean_shape).astype(np.float32)
    return mean_person(**{"offset": offset, **changes})


def a_portrait() -> np.ndarray:
    """uint8 [256, 256, 3]: red is x, green is y, blue is 255 in the eyes."""
    across, down = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    picture = np.dstack([across, down, np.zeros_like(across)]).astype(np.uint8)
    blue = np.zeros((SIZE, SIZE), np.uint8)
    for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        outline = LANDMARKS[[*upper, *lower[-2:0:-1]], :2]
        cv2.fillPoly(blue, [np.rint(outline * 16).astype(np.int32)], WHITE_OF_EYES, cv2.LINE_AA, 4)
    picture[..., 2] = blue
    return picture
