"""Types of the functions that work calls to report its progress, and the names of the steps for users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

OnProgress = Callable[[str, int, int], None]
"""Called with the name of the pass, the number of finished frames or steps, and the number of all of them."""

OnFootage = Callable[[int, float], None]
"""Called with the number of frames of the footage, and the million pixels of a frame, before the frames are read."""


def no_footage(frames: int, megapixels: float) -> None:
    """Do nothing: the `OnFootage` of callers that do not ask."""


STEP_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "start": "Start the stages",
        "fetch": "Copy the files",
        "read frames": "Read the picture files",
        "join": "Join the footage",
        "wait for a dub": "Wait for another dub",
        "reference": "Read the reference",
        "track": "Follow the faces",
        "speakers": "Compare mouths with the sound",
        "pictures": "Take pictures of the faces",
        "enrol style": "Learn the way of speaking",
        "enrol motion": "Learn the movement",
        "enrol identity": "Learn the face",
        "enrol coefficients": "Measure the expressions",
        "enrol bank": "Collect pictures of the mouth",
        "enrol renderer": "Learn the look",
        "own speech": "Analyse the sound",
        "own motion": "Compare with the footage",
        "expression": "Keep the expression",
        "motion": "Predict the mouths",
        "background": "Write the new timeline",
        "lines": "Prepare the lines",
        "insides": "Choose the inside of the mouth",
        "dub": "Render and write the video",
        "write frames": "Write the picture files",
        "measure": "Measure the video",
        "upload": "Deliver the video",
        "report": "Write the report",
        "watermark": "Read the watermark",
        "clips": "Read the clips",
        "parts": "Write the parts of the clips",
        "delivery": "Deliver the shots",
        "copying blobs": "Copy the stored files",
        "checking": "Check the stored files",
        "restoring blobs": "Restore the stored files",
    }
)
"""Name of each step in the user's words, by the name that work reports. Commands and pages show the same names."""
