"""The exported networks of `hetero` in ONNX Runtime, with their constants."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.store.network_session import open_network
from services.motion.models import PredictorModel
from services.motion.runtime import read_constants, run

GENERATOR: Final = "hetero_generator"
"""Name of the network from speech and person to landmark coefficients."""
PERSON: Final = "hetero_person"
"""Name of the network of the reference encoder and the pose encoder."""
CONSTANTS_FILE: Final = "hetero_constants.safetensors"
REFERENCE_FRAMES: Final = 64
"""Most mouths that the reference encoder averages over, evenly spaced over the enrolment."""


class HeteroModel(PredictorModel):
    """Landmark generator and its constants. The networks' basis is MotionModels.basis.

    Attributes:
        mean_reference: float32 [C], mean vector of the training speakers' reference mouths.
        mean_pose: float32 [C], mean vector of the training speakers' pose landmarks.
        mean_face: float32 [99, 3], mean pose landmarks of the training speakers, head space.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Load the networks; see PredictorModel."""
        super().__init__(folder, threads)
        constants = read_constants(folder / CONSTANTS_FILE)
        self.version = constants.metadata.get("version", "")
        self.mean_reference: Float32 = constants["mean_reference"]
        self.mean_pose: Float32 = constants["mean_pose"]
        self.mean_face: Float32 = constants["mean_face"]
        self._generator, self._person = (open_network(folder / f"{name}.onnx", threads) for name in (GENERATOR, PERSON))

    def encode(self, mouths: Float32, pose_landmarks: Float32 | None) -> tuple[Float32, Float32]:
        """Return the vectors of a person's reference mouths and of the pose landmarks, float32 [C] each.

        Args:
            mouths: float32 [T, 59, 3], usable mouths of the enrolment, T >= 1. At most 64 of them are read.
            pose_landmarks: float32 [T, 99, 3], pose landmarks of the same frames; None: the mean face.
        """
        chosen = mouths[np.linspace(0, len(mouths) - 1, min(len(mouths), REFERENCE_FRAMES)).round().astype(np.intp)]
        pose = self.mean_face if pose_landmarks is None else pose_landmarks.mean(axis=0, dtype=np.float64).astype(np.float32)
        reference, upper = run(self._person, mouths=chosen[None], pose=pose[None])
        return reference[0], upper[0]

    def predict(self, speech: Float32, reference: Float32, pose: Float32) -> Float32:
        """Return the motion of one window's frame: coefficients float32 [K] in units of the person's spread.

        Each call runs one window: the bits of a batched matrix product may depend on the size of the batch.

        Args:
            speech: float32 [19, 192], see inputs.heard_clip.
            reference: float32 [C], vector of the person's reference mouths.
            pose: float32 [C], vector of the person's pose landmarks.
        """
        coefficients: Float32 = run(self._generator, speech=speech[None], reference=reference[None], pose=pose[None])[0][0, 0]
        return coefficients
