"""Trains the Audio-to-Expression network: `python -m services.motion.train.expression --trainset DIR`.

    L = L_exp + L_shape (Eq. 3) + w_velocity L_velocity

L_exp is the squared error of coefficients, L_shape that of the mouth landmarks which they move, L_velocity that of the landmarks'
change from frame to frame (ours). The closed-form filter is fitted first: half of what is served, and the baseline that the whole
must beat. Steps are selected on `val` clips; `dev` is only shown.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from services.common.geometry.default_model import default_model
from services.motion.basis import LandmarkBasis, point_weights
from services.motion.expression import expressed, expression_basis, expression_spread
from services.motion.models import MotionModels
from services.motion.networks.audio_to_expression import AudioToExpressionConfig, AudioToExpressionNetwork
from services.motion.predict_expression import heard_clip
from services.motion.style import Style
from services.motion.train.clips import TrainingClip, by_speaker
from services.motion.train.command import clip_sets, training_parser
from services.motion.train.expression_data import (
    ExpressionSampler,
    ExpressionWindows,
    Filter,
    fit_filter,
    prepare,
    silent_row,
    speaker_weights,
    windows_of,
)
from services.motion.train.loop import LoopConfig, TrainingRun
from services.motion.train.protocol import evaluate_clip
from services.motion.train.style import describe, groups_of, selection_score, summary
from services.motion.types import Float32, SpeechFeatures


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpressionTraining:
    """Everything that decides the result."""

    network: AudioToExpressionConfig = field(default_factory=AudioToExpressionConfig)
    batch: int = 64
    speaker_exponent: float = 0.4
    filter_strength: float = 0.01
    noise: float = 0.2
    level: float = 0.15
    shape: float = 1.0
    velocity: float = 1.0
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1000, evaluate_every=250, learning_rate=1.5e-3, seed=1))


class ExpressionLosses(NamedTuple):
    """Parts of the loss, scalars."""

    total: Tensor
    expression: Tensor
    shape: Tensor
    velocity: Tensor


class ExpressionLoss:
    """L_exp + L_shape (Eq. 3) and the change from frame to frame.

    The projection of the paper is a linear map here, since head space is the face's own: pose and identity drop out of the
    difference of landmarks. Lips count twice as much as the jaw.
    """

    def __init__(self, expression: LandmarkBasis, config: ExpressionTraining) -> None:
        root = np.sqrt(point_weights() / point_weights().mean())
        root[:, 2] = 0.0  # the picture plane
        self._components = torch.from_numpy((expression.components * root).astype(np.float32))
        self._typical = float(np.linalg.norm(expression.components * expression.typical_spread[:, None, None]))
        self._config = config

    def __call__(self, predicted: Tensor, batch: ExpressionWindows) -> ExpressionLosses:
        """Predicted coefficients [N, 2, E] in units of the person's spread."""
        error = predicted - batch.expression
        moved = torch.einsum("nfe,epd->nfpd", error * batch.spread[:, None], self._components)
        size = torch.linalg.vector_norm(batch.spread, dim=1)[:, None, None, None] * self._typical
        size = size / torch.linalg.vector_norm(batch.spread, dim=1).mean()
        relative = moved / size
        expression = (error**2).mean()
        shape = (relative**2).sum(dim=(2, 3)).mean()
        velocity = ((relative[:, 1] - relative[:, 0]) ** 2).sum(dim=(1, 2)).mean()
        total = expression + self._config.shape * shape + self._config.velocity * velocity
        return ExpressionLosses(total, expression, shape, velocity)


class TorchExpressionPredictor:
    """A network of windows in PyTorch, in the shape that the evaluation protocol asks for, before constraints."""

    def __init__(self, network: nn.Module, mouth: LandmarkBasis, expression: LandmarkBasis, silence: Float32) -> None:
        self._network, self._mouth, self._expression, self._silence = network, mouth, expression, silence

    @torch.no_grad()
    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """See protocol.Predict."""
        windows = windows_of(heard_clip(features, self._silence))
        coefficients = self._network(torch.from_numpy(np.ascontiguousarray(windows))).numpy()
        spread = expression_spread(style.spread, self._mouth, self._expression)
        return expressed(coefficients * spread, self._expression, style)


def filter_of(linear: Filter) -> nn.Module:
    """The closed-form filter as a network of windows."""
    layer = nn.Linear(linear.weight.shape[1], linear.weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(linear.weight))
        layer.bias.copy_(torch.from_numpy(linear.bias))
    return nn.Sequential(nn.Flatten(1), layer)


def train(
    config: ExpressionTraining, models: MotionModels, clips: list[TrainingClip], selection: list[TrainingClip], folder: Path
) -> None:
    """Trains, and keeps the best averaged weights in `folder/best.pt`, the filter's own scores in `folder/filter.json`."""
    torch.manual_seed(config.loop.seed)
    torch.set_num_threads(config.loop.threads)
    face = default_model()
    expression = expression_basis(face, models.basis, config.network.num_expression)
    silence, weights = silent_row(clips), speaker_weights(clips, config.speaker_exponent)
    prepared = prepare(clips, models.basis, expression, silence)
    network = AudioToExpressionNetwork(config.network)
    linear = fit_filter(prepared, weights, config.filter_strength)
    network.set_filter(torch.from_numpy(linear.weight), torch.from_numpy(linear.bias))
    averaged = AudioToExpressionNetwork(config.network).eval()
    sampler = ExpressionSampler(prepared, weights, config.noise, config.level)
    loss = ExpressionLoss(expression, config)
    groups = groups_of(selection, set(by_speaker(clips)))
    run = TrainingRun(folder, network, config.loop, asdict(config))
    run.resume()

    def scores_of(module: nn.Module) -> dict[str, dict[str, float]]:
        predictor = TorchExpressionPredictor(module, models.basis, expression, silence)
        return {
            name: summary([evaluate_clip(clip, models.basis, models, predictor, control=False) for clip in members])
            for name, members in groups.items()
            if members
        }

    def consider() -> dict[str, dict[str, float]]:
        """Evaluates the averaged weights and keeps them where they are the best so far on `val`."""
        averaged.load_state_dict(run.averaged.state)
        scores = scores_of(averaged)
        if run.record(scores, selection_score({name: score for name, score in scores.items() if name != "dev"})):
            kept = {"config": asdict(config), "state": averaged.state_dict(), "scores": scores, "step": run.step}
            constants = {"basis": expression, "silence": silence, "face_model": face.digest, "num_expression": face.num_expression}
            torch.save({**kept, **constants}, folder / "best.pt")
        run.save()
        return scores

    if run.step == 0:
        baseline = scores_of(filter_of(linear))
        (folder / "filter.json").write_text(json.dumps(baseline, indent=1))
        print("the filter: " + describe(baseline), flush=True)

    def losses_of_step() -> dict[str, Tensor]:
        batch = sampler.draw(run.rng, config.batch)
        return loss(network(batch.window.flatten(0, 1)).unflatten(0, (-1, 2)), batch)._asdict()

    run.train("audio to expression", losses_of_step, lambda means: f"loss {means[0]:.3f} {describe(consider())}")


def main() -> None:
    """Command line."""
    defaults = ExpressionTraining()
    parser = training_parser(__doc__, "build/motion/expression", defaults.loop)
    arguments = parser.parse_args()
    config = replace(defaults, loop=replace(defaults.loop, steps=arguments.steps, seed=arguments.seed))
    train(config, MotionModels(), *clip_sets(arguments.trainset, arguments.lags), arguments.out)


if __name__ == "__main__":
    main()
