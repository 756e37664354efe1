"""Trains the predictor of `headpose`: `python -m services.motion.train.head_motion --trainset DIR`.

The four losses of headpose Eq. 2, with its weights:

    L = mean (beta - beta~)^2 + .2 mean (p - p~)^2 + .01 mean (p~(t+1) - p~(t))^2 + .0001 mean (beta~(t+1) - beta~(t))^2

over usable frames alone. The closed-form filter is fitted first and is the baseline that the network must beat. Steps are selected
on `val` clips; `dev` is only shown.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from services.common.geometry.default_model import default_model
from services.motion.basis import LandmarkBasis
from services.motion.cepstra import NUM_COEFFICIENTS
from services.motion.expression import expressed, expression_basis, expression_spread
from services.motion.features import NUM_CONTENT
from services.motion.models import MotionModels
from services.motion.networks.audio_to_head_motion import (
    AudioToHeadMotionConfig,
    AudioToHeadMotionNetwork,
    HeadMotionOutput,
)
from services.motion.style import Style
from services.motion.train.clips import TrainingClip, by_speaker
from services.motion.train.command import clip_sets, training_parser
from services.motion.train.expression_data import speaker_weights
from services.motion.train.head_motion_constants import head_motion_constants
from services.motion.train.head_motion_data import (
    HeadMotionBatch,
    HeadMotionSampler,
    clip_poses,
    fit_filter,
    padded_rows,
    prepare,
)
from services.motion.train.loop import LoopConfig, TrainingRun
from services.motion.train.metrics import pearson
from services.motion.train.protocol import evaluate_clip
from services.motion.train.style import describe, groups_of, selection_score, summary
from services.motion.types import Bool, Float32, SpeechFeatures

HEARD = {"mfcc": (False, True), "phones": (True, False), "both": (True, True)}
"""Ablation: whether content rows (phones and energies) and cepstra are heard."""

POSE_AXES = ("r_pitch", "r_yaw", "r_roll")
POSE_SHARE = 0.25
"""Of r of head poses in what is selected on, beside the mouth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadMotionTraining:
    """Everything that decides the result."""

    network: AudioToHeadMotionConfig = field(default_factory=AudioToHeadMotionConfig)
    heard: str = "both"
    batch: int = 12
    length: int = 150
    speaker_exponent: float = 0.4
    filter_strength: float = 0.03
    pose: float = 0.2
    pose_step: float = 0.01
    expression_step: float = 0.0001
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=600, evaluate_every=100, learning_rate=1.5e-3, seed=1))


class HeadMotionLosses(NamedTuple):
    """Parts of the loss, scalars."""

    total: Tensor
    expression: Tensor
    pose: Tensor
    pose_step: Tensor
    expression_step: Tensor


def head_motion_loss(predicted: HeadMotionOutput, batch: HeadMotionBatch, config: HeadMotionTraining) -> HeadMotionLosses:
    """Eq. 2: squared errors, and squared changes from frame to frame of what is predicted; usable frames alone."""
    one, both = batch.usable[..., None], (batch.usable[:, 1:] * batch.usable[:, :-1])[..., None]

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        return (values * weight).sum() / (weight.sum() * values.shape[-1]).clamp(min=1.0)

    expression = mean((predicted.expression - batch.expression) ** 2, one)
    pose = mean((predicted.pose - batch.pose) ** 2, one)
    pose_step = mean(predicted.pose.diff(dim=1) ** 2, both)
    expression_step = mean(predicted.expression.diff(dim=1) ** 2, both)
    total = expression + config.pose * pose + config.pose_step * pose_step + config.expression_step * expression_step
    return HeadMotionLosses(total, expression, pose, pose_step, expression_step)


def heard_channels(heard: str) -> Bool:
    """bool [64]: channels that an ablation leaves."""
    content, cepstra = HEARD[heard]
    return np.repeat([content, cepstra], [NUM_CONTENT, NUM_COEFFICIENTS])


class TorchHeadMotionPredictor:
    """The network in PyTorch over whole clips, in the shape that the evaluation protocol asks for, before constraints."""

    def __init__(self, network: AudioToHeadMotionNetwork, mouth: LandmarkBasis, expression: LandmarkBasis, channels: Bool) -> None:
        self._network, self._mouth, self._expression, self._channels = network, mouth, expression, channels

    @torch.no_grad()
    def raw(self, features: SpeechFeatures) -> HeadMotionOutput:
        """The network's own answer for a clip of T frames: [1, T, ...]."""
        config = self._network.config
        rows = padded_rows(features, config) * self._channels
        zero = torch.zeros(1, config.hidden)
        answer: HeadMotionOutput = self._network(torch.from_numpy(rows.astype(np.float32))[None], zero, zero)
        return answer

    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """See protocol.Predict."""
        coefficients = self.raw(features).expression[0].numpy()
        spread = expression_spread(style.spread, self._mouth, self._expression)
        return expressed(coefficients * spread, self._expression, style)


def pose_correlation(predictor: TorchHeadMotionPredictor, clips: list[TrainingClip]) -> dict[str, float]:
    """Mean r of predicted and true pitch, yaw and roll over clips."""
    found: dict[str, list[float]] = {name: [] for name in POSE_AXES}
    for clip in clips:
        predicted, truth = predictor.raw(clip.features).pose[0].numpy(), clip_poses(clip)
        for axis, name in enumerate(found):
            found[name].append(pearson(predicted[clip.usable, axis], truth[clip.usable, axis]))
    return {name: fmean(values) for name, values in found.items()}


def train(
    config: HeadMotionTraining, models: MotionModels, clips: list[TrainingClip], selection: list[TrainingClip], folder: Path
) -> None:
    """Trains, and keeps the best averaged weights in `folder/best.pt`, the filter's own scores in `folder/filter.json`."""
    torch.manual_seed(config.loop.seed)
    torch.set_num_threads(config.loop.threads)
    face = default_model()
    expression = expression_basis(face, models.basis, config.network.num_expression)
    channels, weights = heard_channels(config.heard), speaker_weights(clips, config.speaker_exponent)
    prepared = prepare(clips, models.basis, expression)
    network = AudioToHeadMotionNetwork(config.network)
    # Cepstra in the filter lower r on new speakers (.81 to .76): they are left to the encoder, unless nothing else is heard.
    filtered = channels if config.heard == "mfcc" else heard_channels("phones")
    linear = fit_filter(prepared, weights, config.filter_strength, config.network, filtered)
    network.set_filter(torch.from_numpy(linear.weight), torch.from_numpy(linear.bias))
    averaged = AudioToHeadMotionNetwork(config.network).eval()
    sampler = HeadMotionSampler(prepared, weights, config.network)
    mask = torch.from_numpy(channels.astype(np.float32))
    groups = groups_of(selection, set(by_speaker(clips)))
    run = TrainingRun(folder, network, config.loop, asdict(config))
    run.resume()

    def consider() -> dict[str, dict[str, float]]:
        """Evaluates the averaged weights and keeps them where they are the best so far on `val`."""
        averaged.load_state_dict(run.averaged.state)
        predictor = TorchHeadMotionPredictor(averaged, models.basis, expression, channels)
        scores = {
            name: summary([evaluate_clip(clip, models.basis, models, predictor, control=False) for clip in members])
            | pose_correlation(predictor, members)
            for name, members in groups.items()
            if members
        }
        on_val = {name: score for name, score in scores.items() if name != "dev"}
        value = selection_score(on_val) + POSE_SHARE * fmean(score[axis] for score in on_val.values() for axis in POSE_AXES)
        if run.record(scores, value):
            kept = {"config": asdict(config), "state": averaged.state_dict(), "scores": scores, "step": run.step}
            face_of = {"basis": expression, "face_model": face.digest, "num_expression": face.num_expression}
            torch.save({**kept, **face_of}, folder / "best.pt")
        run.save()
        return scores

    if run.step == 0:
        baseline = consider()
        (folder / "filter.json").write_text(json.dumps(baseline, indent=1))
        print("the filter: " + describe(baseline), flush=True)
    zero = torch.zeros(config.batch, config.network.hidden)

    def losses_of_step() -> dict[str, Tensor]:
        batch = sampler.draw(run.rng, config.batch, config.length)
        return head_motion_loss(network(batch.window * mask, zero, zero), batch, config)._asdict()

    def line(means: list[float]) -> str:
        return "loss " + " ".join(f"{mean:.3f}" for mean in means) + " " + describe(consider())

    run.train("audio to head motion", losses_of_step, line)
    finish(folder, clips, models)


def finish(folder: Path, clips: list[TrainingClip], models: MotionModels) -> None:
    """Measures the constants of the best network: how the training speakers' heads and its signals move."""
    kept = torch.load(folder / "best.pt", weights_only=False)
    network = AudioToHeadMotionNetwork(AudioToHeadMotionConfig(**kept["config"]["network"]))
    network.load_state_dict(kept["state"])
    predictor = TorchHeadMotionPredictor(network.eval(), models.basis, kept["basis"], heard_channels(kept["config"]["heard"]))
    kept["constants"] = head_motion_constants(clips, models.basis, predictor.raw)
    torch.save(kept, folder / "best.pt")


def main() -> None:
    """Command line."""
    defaults = HeadMotionTraining()
    parser = training_parser(__doc__, "build/motion/head_motion", defaults.loop)
    parser.add_argument("--heard", choices=tuple(HEARD), default=defaults.heard, help="what the network hears (ablation)")
    parser.add_argument("--ahead", type=int, default=defaults.network.ahead, help="frames of look-ahead (ablation)")
    arguments = parser.parse_args()
    config = replace(
        defaults,
        heard=arguments.heard,
        network=replace(defaults.network, ahead=arguments.ahead),
        loop=replace(defaults.loop, steps=arguments.steps, seed=arguments.seed),
    )
    train(config, MotionModels(), *clip_sets(arguments.trainset, arguments.lags), arguments.out)


if __name__ == "__main__":
    main()
