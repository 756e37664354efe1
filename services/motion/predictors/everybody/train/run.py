"""Train the network of `everybody`: `python -m services.motion.predictors.everybody.train.run --trainset DIR`.

    L = L_exp + L_shape (Eq. 3) + w_velocity L_velocity

L_exp is the squared error of the coefficients. L_shape is the squared error of the mouth landmarks that the coefficients move.
L_velocity is the squared error of the landmarks' change from frame to frame (not in the paper). The closed-form filter is fitted
first: the filter is half of what is served, and the baseline that the whole must beat. The best step is selected on `val` clips;
`dev` clips are only shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from services.common.geometry.default_model import default_model
from services.motion.basis import LandmarkBasis, point_weights
from services.motion.expression import expression_basis
from services.motion.models import MotionModels
from services.motion.predictors.everybody.network import EverybodyConfig, EverybodyNetwork
from services.motion.predictors.everybody.train.data import (
    EverybodySampler,
    EverybodyWindows,
    fit_filter,
    prepare,
    silent_row,
)
from services.motion.predictors.everybody.train.torch_predictor import TorchEverybody, filter_of
from services.motion.train.clips import TrainingClip, by_speaker, speaker_weights
from services.motion.train.command import clip_sets, loop_of, training_parser
from services.motion.train.loop import LoopConfig, Scores, TrainingRun, set_up
from services.motion.train.selection import describe, groups_of, scores_by_group, selection_score, without_dev


@dataclass(frozen=True, kw_only=True, slots=True)
class EverybodyTraining:
    """Everything that decides the result of the training."""

    network: EverybodyConfig = field(default_factory=EverybodyConfig)
    batch: int = 64
    speaker_exponent: float = 0.4
    filter_strength: float = 0.01
    noise: float = 0.2
    level: float = 0.15
    shape: float = 1.0
    velocity: float = 1.0
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1000, evaluate_every=250, learning_rate=1.5e-3, seed=1))


class EverybodyLosses(NamedTuple):
    """Parts of the loss, scalars."""

    total: Tensor
    expression: Tensor
    shape: Tensor
    velocity: Tensor


class EverybodyLoss:
    """L_exp + L_shape (Eq. 3), and the squared error of the change from frame to frame.

    The paper's projection is a linear map here: head space is the face's own, so pose and identity drop out of the difference of
    landmarks. Lips count twice as much as the jaw.
    """

    def __init__(self, expression: LandmarkBasis, config: EverybodyTraining) -> None:
        root = np.sqrt(point_weights() / point_weights().mean())
        root[:, 2] = 0.0  # only the picture plane counts
        self._components = torch.from_numpy((expression.components * root).astype(np.float32))
        self._typical = float(np.linalg.norm(expression.components * expression.typical_spread[:, None, None]))
        self._config = config

    def __call__(self, predicted: Tensor, batch: EverybodyWindows) -> EverybodyLosses:
        """Return the loss of predicted coefficients [N, 2, E] in units of the person's spread."""
        error = predicted - batch.expression
        moved = torch.einsum("nfe,epd->nfpd", error * batch.spread[:, None], self._components)
        size = torch.linalg.vector_norm(batch.spread, dim=1)[:, None, None, None] * self._typical
        size = size / torch.linalg.vector_norm(batch.spread, dim=1).mean()
        relative = moved / size
        expression = (error**2).mean()
        shape = (relative**2).sum(dim=(2, 3)).mean()
        velocity = ((relative[:, 1] - relative[:, 0]) ** 2).sum(dim=(1, 2)).mean()
        total = expression + self._config.shape * shape + self._config.velocity * velocity
        return EverybodyLosses(total, expression, shape, velocity)


def train(
    config: EverybodyTraining, models: MotionModels, clips: list[TrainingClip], selection: list[TrainingClip], folder: Path
) -> None:
    """Train; keep the best averaged weights in `folder/best.pt`, and the filter's own scores in `folder/filter.json`."""
    set_up(config.loop)
    face = default_model()
    expression = expression_basis(face, models.basis, config.network.num_expression)
    silence, weights = silent_row(clips), speaker_weights(clips, config.speaker_exponent)
    prepared = prepare(clips, models.basis, expression, silence)
    network = EverybodyNetwork(config.network)
    linear = fit_filter(prepared, weights, config.filter_strength)
    network.set_filter(torch.from_numpy(linear.weight), torch.from_numpy(linear.bias))
    averaged = EverybodyNetwork(config.network).eval()
    sampler = EverybodySampler(prepared, weights, config.noise, config.level)
    loss = EverybodyLoss(expression, config)
    groups = groups_of(selection, set(by_speaker(clips)))
    run = TrainingRun(folder, network, config.loop, asdict(config))
    run.resume()

    def scores_of(module: nn.Module) -> Scores:
        return scores_by_group(groups, models.basis, models, TorchEverybody(module, models.basis, expression, silence))

    def beside() -> Mapping[str, Any]:
        return {"basis": expression, "silence": silence, "face_model": face.digest, "num_expression": face.num_expression}

    def consider() -> Scores:
        return run.consider(averaged, lambda: scores_of(averaged), lambda scores: selection_score(without_dev(scores)), beside)

    if run.step == 0:
        baseline = scores_of(filter_of(linear))
        (folder / "filter.json").write_text(json.dumps(baseline, indent=1))
        print("the filter: " + describe(baseline), flush=True)

    def losses_of_step() -> dict[str, Tensor]:
        batch = sampler.draw(run.rng, config.batch)
        return loss(network(batch.window.flatten(0, 1)).unflatten(0, (-1, 2)), batch)._asdict()

    run.train("everybody", losses_of_step, lambda means: f"loss {means[0]:.3f} {describe(consider())}")


def main() -> None:
    """Run the command line."""
    defaults = EverybodyTraining()
    arguments = training_parser(__doc__, "build/motion/expression", defaults.loop).parse_args()
    config = replace(defaults, loop=loop_of(arguments, defaults.loop))
    train(config, MotionModels(), *clip_sets(arguments.trainset, arguments.lags), arguments.out)


if __name__ == "__main__":
    main()
