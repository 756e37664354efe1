"""The landmark basis of training clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from services.motion.basis import LandmarkBasis, fit_basis
from services.motion.style import measure_mouth
from services.motion.train.clips import TrainingClip, by_speaker


def basis_of(clips: list[TrainingClip], num_coefficients: int) -> LandmarkBasis:
    """Return the landmark basis of the training speakers, each clip about its own mean.

    Args:
        clips: training clips.
        num_coefficients: K, number of components.
    """
    offsets = [
        np.concatenate([clip.mouth_landmarks[clip.usable] - clip.mouth_landmarks[clip.usable].mean(0) for clip in group])
        for group in by_speaker(clips).values()
    ]
    basis = fit_basis(offsets, num_coefficients)
    # Two passes: the spread of a clip is measured along the basis, then the mean over speakers is the typical spread.
    spreads = [
        np.mean([measure_mouth(clip.mouth_landmarks[clip.usable], basis).spread for clip in group], axis=0)
        for group in by_speaker(clips).values()
    ]
    return replace(basis, typical_spread=np.mean(spreads, axis=0).astype(np.float32))
