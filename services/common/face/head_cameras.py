"""Head poses to and from weak-perspective cameras of the geometry room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.common.face.crops import HeadPose
from services.common.geometry.camera import WeakPerspective


def weak_perspective_of(poses: Sequence[HeadPose]) -> WeakPerspective:
    """Return the camera of a clip of T frames, float64, from the clip's head poses."""
    return WeakPerspective(
        np.array([pose.scale for pose in poses], np.float64),
        np.array([pose.rotation for pose in poses], np.float64).reshape(-1, 3, 3),
        np.array([pose.translation for pose in poses], np.float64).reshape(-1, 3),
    )


def head_poses_of(camera: WeakPerspective) -> list[HeadPose]:
    """Return one HeadPose per frame of a camera with one leading axis T, or with none."""
    scale, rotation, translation = (
        np.asarray(_numpy(part), np.float64) for part in (camera.scale, camera.rotation, camera.translation)
    )
    rows = zip(np.atleast_1d(scale), rotation.reshape(-1, 3, 3), translation.reshape(-1, 3), strict=True)
    return [HeadPose(float(s), r, t) for s, r, t in rows]


def _numpy(value: Any) -> Any:
    return value if isinstance(value, np.ndarray | float) else value.detach().cpu().numpy()
