"""A drawn person whose mouth opens and whose head turns: boxes, landmarks and poses that belong together."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from services.common.face.crops import HeadPose, head_template, head_to_box, to_frame
from services.common.face.landmarks import LIPS_INNER, LIPS_OUTER, MOUTH_AREA, NUM_LANDMARKS
from services.texture.temporal_warp import WEIGHTS, TemporalWarpModel
from services.texture.types import BankFrame, TargetFrame

HEAD = np.concatenate([head_template(), np.zeros((NUM_LANDMARKS - 468, 3), np.float32)])
MOVED = np.array([index for index in MOUTH_AREA if HEAD[index, 1] > 0])


class DrawnPerson:
    """Frame n of this person, for any n: smooth, never the same twice."""

    def opening(self, frame: int) -> float:
        return 6.0 + 5.0 * float(np.sin(0.7 * frame) * np.cos(0.13 * frame))

    def pose(self, frame: int) -> HeadPose:
        yaw = np.radians(6.0 * np.sin(0.09 * frame))
        cos, sin = np.cos(yaw), np.sin(yaw)
        return HeadPose(1.4, np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]), np.array([300.0 + frame, 250.0, 0.0]))

    def head(self, frame: int) -> np.ndarray:
        head = HEAD.copy()
        head[MOVED, 1] += self.opening(frame)
        return head

    def mouth(self, frame: int) -> np.ndarray:
        return self.head(frame)[list(MOUTH_AREA)]

    def bank_frame(self, frame: int, gain: float = 1.0) -> BankFrame:
        head, pose = self.head(frame), self.pose(frame)
        box = np.empty((160, 160, 3), np.uint8)
        box[:] = np.clip(np.array([190, 140, 120]) * gain, 0, 255)
        for lips, colour in ((LIPS_OUTER, (150, 60, 70)), (LIPS_INNER, (40, 10, 10))):
            outline = np.round(head_to_box(head[list(lips)], pose) * 16).astype(np.int32)
            cv2.fillPoly(box, [outline], colour, lineType=cv2.LINE_AA, shift=4)
        return BankFrame(frame, box, to_frame(head, pose), pose)

    def target(self, frame: int, *, context_only: bool = False, index: int | None = None) -> TargetFrame:
        return TargetFrame(frame if index is None else index, self.mouth(frame), self.pose(frame), context_only)


@pytest.fixture(scope="session")
def person() -> DrawnPerson:
    return DrawnPerson()


@pytest.fixture(scope="session")
def model() -> TemporalWarpModel:
    return TemporalWarpModel(Path(WEIGHTS))
