"""Train the network of `headpose`: `python -m services.motion.predictors.headpose.train.run --trainset DIR`.

The four losses of headpose Eq. 2, with the paper's weights, over usable frames:

    L = mean (beta - beta~)^2 + .2 mean (p - p~)^2 + .01 mean (p~(t+1) - p~(t))^2 + .0001 mean (beta~(t+1) - beta~(t))^2

The closed-form filter is fitted first and is the baseline that the network must beat. The best step is selected on `val` clips;
`dev` clips are only shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from services.common.geometry.default_model import default_model
from services.motion.expression import expression_basis
from services.motion.models import MotionModels
from services.motion.predictors.headpose.network import HeadposeConfig, HeadposeNetwork, HeadposeOutput
from services.motion.predictors.headpose.train.constants import headpose_constants
from services.motion.predictors.headpose.train.data import HeadposeBatch, HeadposeSampler, fit_filter, prepare
from services.motion.predictors.headpose.train.torch_predictor import (
    HEARD,
    POSE_AXES,
    TorchHeadpose,
    heard_channels,
    pose_correlation,
)
from services.motion.train.clips import TrainingClip, by_speaker, speaker_weights
from services.motion.train.command import clip_sets, loop_of, training_parser
from services.motion.train.loop import LoopConfig, Scores, TrainingRun, set_up
from services.motion.train.selection import describe, groups_of, scores_by_group, selection_score, without_dev

POSE_SHARE = 0.25
"""Weight of r of head poses in the number to select on; the mouth has the weight 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadposeTraining:
    """Everything that decides the result of the training."""

    network: HeadposeConfig = field(default_factory=HeadposeConfig)
    heard: str = "both"
    batch: int = 12
    length: int = 150
    speaker_exponent: float = 0.4
    filter_strength: float = 0.03
    pose: float = 0.2
    pose_step: float = 0.01
    expression_step: float = 0.0001
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=600, evaluate_every=100, learning_rate=1.5e-3, seed=1))


class HeadposeLosses(NamedTuple):
    """Parts of the loss, scalars."""

    total: Tensor
    expression: Tensor
    pose: Tensor
    pose_step: Tensor
    expression_step: Tensor


def headpose_loss(predicted: HeadposeOutput, batch: HeadposeBatch, config: HeadposeTraining) -> HeadposeLosses:
    """Return the loss of Eq. 2: squared errors, and squared changes of the prediction from frame to frame, over usable frames."""
    one, both = batch.usable[..., None], (batch.usable[:, 1:] * batch.usable[:, :-1])[..., None]

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        return (values * weight).sum() / (weight.sum() * values.shape[-1]).clamp(min=1.0)

    expression = mean((predicted.expression - batch.expression) ** 2, one)
    pose = mean((predicted.pose - batch.pose) ** 2, one)
    pose_step = mean(predicted.pose.diff(dim=1) ** 2, both)
    expression_step = mean(predicted.expression.diff(dim=1) ** 2, both)
    total = expression + config.pose * pose + config.pose_step * pose_step + config.expression_step * expression_step
    return HeadposeLosses(total, expression, pose, pose_step, expression_step)


def train(
    config: HeadposeTraining, models: MotionModels, clips: list[TrainingClip], selection: list[TrainingClip], folder: Path
) -> None:
    """Train; keep the best averaged weights in `folder/best.pt`, and the filter's own scores in `folder/filter.json`."""
    set_up(config.loop)
    face = default_model()
    expression = expression_basis(face, models.basis, config.network.num_expression)
    channels, weights = heard_channels(config.heard), speaker_weights(clips, config.speaker_exponent)
    prepared = prepare(clips, models.basis, expression)
    network = HeadposeNetwork(config.network)
    # Cepstra in the filter lower r on new speakers (.81 to .76): the filter hears them only if the network hears nothing else.
    filtered = channels if config.heard == "mfcc" else heard_channels("phones")
    linear = fit_filter(prepared, weights, config.filter_strength, config.network, filtered)
    network.set_filter(torch.from_numpy(linear.weight), torch.from_numpy(linear.bias))
    averaged = HeadposeNetwork(config.network).eval()
    sampler = HeadposeSampler(prepared, weights, config.network)
    mask = torch.from_numpy(channels.astype(np.float32))
    groups = groups_of(selection, set(by_speaker(clips)))
    run = TrainingRun(folder, network, config.loop, asdict(config))
    run.resume()

    def evaluate() -> Scores:
        predictor = TorchHeadpose(averaged, models.basis, expression, channels)
        mouths = scores_by_group(groups, models.basis, models, predictor)
        return {name: scores | pose_correlation(predictor, groups[name]) for name, scores in mouths.items()}

    def value(scores: Scores) -> float:
        on_val = without_dev(scores)
        return selection_score(on_val) + POSE_SHARE * fmean(score[axis] for score in on_val.values() for axis in POSE_AXES)

    def beside() -> Mapping[str, Any]:
        return {"basis": expression, "face_model": face.digest, "num_expression": face.num_expression}

    def consider() -> Scores:
        return run.consider(averaged, evaluate, value, beside)

    if run.step == 0:
        baseline = consider()
        (folder / "filter.json").write_text(json.dumps(baseline, indent=1))
        print("the filter: " + describe(baseline), flush=True)
    zero = torch.zeros(config.batch, config.network.hidden)

    def losses_of_step() -> dict[str, Tensor]:
        batch = sampler.draw(run.rng, config.batch, config.length)
        return headpose_loss(network(batch.window * mask, zero, zero), batch, config)._asdict()

    def line(means: list[float]) -> str:
        return "loss " + " ".join(f"{mean:.3f}" for mean in means) + " " + describe(consider())

    run.train("headpose", losses_of_step, line)
    finish(folder, clips, models)


def finish(folder: Path, clips: list[TrainingClip], models: MotionModels) -> None:
    """Add the constants to the best network: how the training speakers' heads and the signals of their speech move."""
    kept = torch.load(folder / "best.pt", weights_only=False)
    network = HeadposeNetwork(HeadposeConfig(**kept["config"]["network"]))
    network.load_state_dict(kept["state"])
    predictor = TorchHeadpose(network.eval(), models.basis, kept["basis"], heard_channels(kept["config"]["heard"]))
    kept["constants"] = headpose_constants(clips, models.basis, predictor.raw)
    torch.save(kept, folder / "best.pt")


def main() -> None:
    """Run the command line."""
    defaults = HeadposeTraining()
    parser = training_parser(__doc__, "build/motion/head_motion", defaults.loop)
    parser.add_argument(
        "--heard", choices=tuple(HEARD), default=defaults.heard, help="Inputs of the network (ablation). Default: both."
    )
    parser.add_argument("--ahead", type=int, default=defaults.network.ahead, help="Frames of look-ahead (ablation). Default: 2.")
    arguments = parser.parse_args()
    config = replace(
        defaults,
        heard=arguments.heard,
        network=replace(defaults.network, ahead=arguments.ahead),
        loop=loop_of(arguments, defaults.loop),
    )
    train(config, MotionModels(), *clip_sets(arguments.trainset, arguments.lags), arguments.out)


if __name__ == "__main__":
    main()
