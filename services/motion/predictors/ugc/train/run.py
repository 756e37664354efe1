"""Train the networks of `ugc`: `python -m services.motion.predictors.ugc.train.run --trainset DIR`.

The best step is selected on `val` clips (other sentences, and speakers that were never trained on) and `dev` clips by the
correlation of opening and lip width. Only `train` clips are learned from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.motion.predictors.ugc.network import UgcConfig, UgcNetwork
from services.motion.predictors.ugc.train.batches import BatchConfig, BatchSampler
from services.motion.predictors.ugc.train.losses import LossWeights, UgcLoss
from services.motion.predictors.ugc.train.prior import PriorConfig, fit_prior
from services.motion.predictors.ugc.train.torch_predictor import TorchUgc, typical_code
from services.motion.train.basis import basis_of
from services.motion.train.clips import TrainingClip, by_speaker
from services.motion.train.command import clip_sets, loop_of, training_parser
from services.motion.train.loop import LoopConfig, Scores, TrainingRun, set_up
from services.motion.train.selection import describe, groups_of, scores_by_group, selection_score

CODE_NOISE = 0.1
"""Standard deviation of the noise on style codes in training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UgcTraining:
    """Everything that decides the result of the training."""

    network: UgcConfig = field(default_factory=UgcConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    prior: PriorConfig = field(default_factory=PriorConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1200, evaluate_every=200, learning_rate=1.5e-3))


def train(config: UgcTraining, clips: list[TrainingClip], selection: list[TrainingClip], folder: Path) -> Scores:
    """Train, keep the best averaged weights in `folder/best.pt`, and return their scores by group of clips."""
    set_up(config.loop)
    basis = basis_of(clips, config.network.num_coefficients)
    network = UgcNetwork(config.network)
    prior = fit_prior(clips, basis, config.prior)
    network.set_prior(torch.from_numpy(prior.weight), torch.from_numpy(prior.bias))
    sampler, loss = BatchSampler(clips, basis, config.batches), UgcLoss(basis, config.losses)
    groups = groups_of(selection, set(by_speaker(clips)))
    averaged = UgcNetwork(config.network).eval()
    run = TrainingRun(folder, network, config.loop, asdict(config))
    run.resume()

    def evaluate() -> Scores:
        predictor = TorchUgc(averaged, basis)
        return scores_by_group(groups, basis, predictor, predictor)

    def beside() -> Mapping[str, Any]:
        return {"code": typical_code(averaged, clips, basis), "basis": basis}

    def consider() -> str:
        return describe(run.consider(averaged, evaluate, selection_score, beside))

    def losses_of_step() -> dict[str, Tensor]:
        batch = sampler.draw(run.rng)
        code = network.style.encode(batch.style)
        code = code + CODE_NOISE * torch.randn_like(code)
        return loss(network(batch.content, network.style.modulate(code)), batch)._asdict()

    if run.step == 0:
        print("the prior: " + consider())
    run.train("ugc", losses_of_step, lambda _means: consider())
    best: Scores = torch.load(folder / "best.pt", weights_only=False)["scores"]
    (folder / "scores.json").write_text(json.dumps(best, indent=1))
    return best


def main() -> None:
    """Run the command line."""
    defaults = UgcTraining()
    arguments = training_parser(__doc__, "build/motion/style", defaults.loop).parse_args()
    config = replace(defaults, loop=loop_of(arguments, defaults.loop))
    train(config, *clip_sets(arguments.trainset, arguments.lags), arguments.out)


if __name__ == "__main__":
    main()
