"""The generator of `hetero` in PyTorch over whole clips, and the vectors of the mean speaker."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from services.common.array_types import Float32
from services.motion.basis import LandmarkBasis
from services.motion.predictors.hetero.inputs import heard_clip
from services.motion.predictors.hetero.model import REFERENCE_FRAMES
from services.motion.predictors.hetero.network import HeteroNetwork
from services.motion.predictors.hetero.style import POSE, REFERENCE, person_of
from services.motion.style import Style, encode_style
from services.motion.train.clips import TrainingClip
from services.motion.train.protocol import Fold, evaluate_clip
from services.motion.train.selection import Groups, NoStyleCode, Scores, summary
from services.motion.types import SpeechFeatures

PoseOf = Callable[[TrainingClip], Float32]
"""Function that returns the mean pose landmarks of a clip, float32 [99, 3]."""


class TorchHetero:
    """The generator in PyTorch as protocol.Predict, all frames of a clip at once.

    Args:
        network: the generator.
        basis: landmark basis of the style.
        pose_of: returns the pose landmarks of a clip.
    """

    def __init__(self, network: HeteroNetwork, basis: LandmarkBasis, pose_of: PoseOf) -> None:
        self._network, self._basis, self._pose_of = network, basis, pose_of
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def person(self, mouths: Float32, pose: Float32) -> tuple[Float32, Float32]:
        """Return the vectors of reference mouths [T, 59, 3] and of pose landmarks [99, 3], float32 [C] each."""
        chosen = mouths[np.linspace(0, len(mouths) - 1, min(len(mouths), REFERENCE_FRAMES)).round().astype(np.intp)]
        given = (torch.from_numpy(np.ascontiguousarray(each))[None].to(self._device) for each in (chosen, pose))
        reference, upper = self._network.person(*given)
        return reference[0].cpu().numpy(), upper[0].cpu().numpy()

    def encode(self, clip: TrainingClip, fold: Fold) -> Style:
        """Return the style of a fold's enrolment part, see protocol.Encode."""
        mouths, usable = clip.mouth_landmarks[fold.enrolment], clip.usable[fold.enrolment]
        style = encode_style(mouths, usable, self._basis, NoStyleCode())
        reference, pose = self.person(mouths[usable], self._pose_of(clip))
        return style.adding(**{REFERENCE: reference, POSE: pose})

    @torch.no_grad()
    def coefficients(self, features: SpeechFeatures, person: tuple[Float32, Float32]) -> Float32:
        """Return the generator's answer to a clip, float32 [T, K] in units of the spread; `person` is as `person` returns it."""
        inputs = (heard_clip(features, self._network.config.heard), *person)
        speech, reference, pose = (torch.from_numpy(each)[None].to(self._device) for each in inputs)
        answer: Float32 = self._network(speech, reference, pose)[0].cpu().numpy()
        return answer

    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """Predict mouths before the gain and the constraints, see protocol.Predict."""
        offsets = self._basis.reconstruct(self.coefficients(features, person_of(style)) * style.spread)
        return np.asarray(style.rest_mouth + offsets, np.float32)

    def scores(self, groups: Groups) -> Scores:
        """Return the summary of each group of clips."""
        return {
            name: summary([evaluate_clip(clip, self.encode, self, control=False) for clip in members])
            for name, members in groups.items()
        }
