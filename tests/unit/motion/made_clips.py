"""Made-up training clips."""

from __future__ import annotations

import numpy as np

from services.motion.features import content_rows, sync_rows
from services.motion.train.clips import TrainingClip
from tests.unit.motion.synthesised import mouths, random_features

SPEAKERS = ("anna", "anna", "ben")


def made_clip(index: int, use: str = "train", num_frames: int = 90) -> TrainingClip:
    """A clip whose mouth opens with the probability of 'AA', two frames wide."""
    features = random_features(num_frames, seed=index)
    drive = np.convolve(features.posteriorgram[..., 1].mean(axis=1), [0.5, 0.5], mode="same")
    mouth = mouths((40.0 * drive).astype(np.float32))
    return TrainingClip(
        f"clip{index}",
        use,
        SPEAKERS[index % 3],
        "",
        mouth,
        np.ones(num_frames, np.bool_),
        features,
        content_rows(features),
        sync_rows(features),
    )
