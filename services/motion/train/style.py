"""Trains the Style Translation Network: `python -m services.motion.train.style --trainset DIR`.

Selected on `val` clips (other sentences, and speakers that were never trained on) and `dev` clips by correlation of opening and lip
width; only `train` clips are learned from.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from services.motion.basis import LandmarkBasis, fit_basis
from services.motion.features import content_before, content_rows, silence
from services.motion.networks.style_translation import StyleTranslationConfig, StyleTranslationNetwork
from services.motion.style import Style, StyleCode, measure_mouth
from services.motion.train.batches import BatchConfig, BatchSampler
from services.motion.train.clips import TrainingClip, by_speaker
from services.motion.train.command import clip_sets, training_parser
from services.motion.train.loop import LoopConfig, TrainingRun, progress
from services.motion.train.losses import LossWeights, MotionLoss
from services.motion.train.prior import PriorConfig, fit_prior
from services.motion.train.protocol import ClipResult, evaluate_clip, mean_scores
from services.motion.types import WINDOW, WINDOW_AHEAD, WINDOW_PAST, Float32, SpeechFeatures


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleTrainingConfig:
    """Everything that decides the result."""

    network: StyleTranslationConfig = field(default_factory=StyleTranslationConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    prior: PriorConfig = field(default_factory=PriorConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1200, evaluate_every=200, learning_rate=1.5e-3))


class TorchPredictor:
    """The network in PyTorch, in the shape that the evaluation protocol asks for (all windows of a clip in one batch)."""

    def __init__(self, network: StyleTranslationNetwork, basis: LandmarkBasis) -> None:
        self._network, self._basis = network, basis

    @torch.no_grad()
    def encode(self, coefficients: Float32) -> StyleCode:
        """See style.StyleNetwork."""
        code = self._network.style.encode(torch.from_numpy(coefficients[None]))
        return StyleCode(code[0].numpy(), self._network.style.modulate(code)[0].numpy())

    @torch.no_grad()
    def __call__(self, features: SpeechFeatures, style: Style) -> Float32:
        """See protocol.Predict."""
        after = content_rows(SpeechFeatures.joined([features, silence(WINDOW_AHEAD)]))
        windows = torch.from_numpy(np.concatenate([content_before(WINDOW_PAST), after])).unfold(0, WINDOW, 1).permute(0, 3, 1, 2)
        modulation = torch.from_numpy(style.modulation.copy())[None].expand(len(windows), -1, -1, -1)
        coefficients = self._network(windows, modulation)
        offsets = self._basis.reconstruct(coefficients[:, WINDOW_PAST].numpy() * style.spread)
        return np.asarray(style.rest_mouth + offsets, dtype=np.float32)


def basis_of(clips: list[TrainingClip], num_coefficients: int) -> LandmarkBasis:
    """Landmark basis of the training speakers, each clip about its own mean."""
    offsets = [
        np.concatenate([clip.mouth_landmarks[clip.usable] - clip.mouth_landmarks[clip.usable].mean(0) for clip in group])
        for group in by_speaker(clips).values()
    ]
    basis = fit_basis(offsets, num_coefficients)
    # Two passes: the spread of a clip is measured along the basis, then its mean over speakers is the typical one.
    spreads = [
        np.mean([measure_mouth(clip.mouth_landmarks[clip.usable], basis).spread for clip in group], axis=0)
        for group in by_speaker(clips).values()
    ]
    return replace(basis, typical_spread=np.mean(spreads, axis=0).astype(np.float32))


def summary(results: list[ClipResult]) -> dict[str, float]:
    """Means over clips."""
    scores = mean_scores([result.scores for result in results], by_frames=False)
    return {
        "r_opening": scores.opening_correlation,
        "r_width": scores.width_correlation,
        "lmd_ratio": scores.lip_distance / scores.mean_mouth_distance,
        "spread": scores.spread_ratio,
        "step": scores.step_ratio,
        "closure": scores.closure_hits / max(1, scores.closure_events),
    }


def groups_of(clips: list[TrainingClip], trained: set[str]) -> dict[str, list[TrainingClip]]:
    """Selection clips by kind: other sentences of trained speakers, new speakers, dev footage."""
    return {
        "known": [clip for clip in clips if clip.use == "val" and clip.speaker in trained],
        "new": [clip for clip in clips if clip.use == "val" and clip.speaker not in trained],
        "dev": [clip for clip in clips if clip.use == "dev"],
    }


def train(
    config: StyleTrainingConfig, clips: list[TrainingClip], selection: list[TrainingClip], folder: Path
) -> dict[str, dict[str, float]]:
    """Trains, keeps the best averaged weights in `folder/best.pt`, returns their summary a group."""
    torch.manual_seed(config.loop.seed)
    torch.set_num_threads(config.loop.threads)
    basis = basis_of(clips, config.network.num_coefficients)
    network = StyleTranslationNetwork(config.network)
    prior = fit_prior(clips, basis, config.prior)
    network.set_prior(torch.from_numpy(prior.weight), torch.from_numpy(prior.bias))
    sampler, loss = BatchSampler(clips, basis, config.batches), MotionLoss(basis, config.losses)
    groups = groups_of(selection, set(by_speaker(clips)))
    averaged = StyleTranslationNetwork(config.network).eval()
    run = TrainingRun(folder, network, config.loop, asdict(config))
    run.resume()

    def consider() -> dict[str, dict[str, float]]:
        """Evaluates the averaged weights and keeps them where they are the best so far."""
        averaged.load_state_dict(run.averaged.state)
        scores = evaluate(averaged, basis, groups)
        if run.record(scores, selection_score(scores)):
            keep = {"config": asdict(config), "state": averaged.state_dict(), "scores": scores, "step": run.step}
            torch.save({**keep, "code": typical_code(averaged, clips, basis), "basis": basis}, folder / "best.pt")
        run.save()
        return scores

    if run.step == 0:
        print("the prior: " + describe(consider()))
    with progress() as bar:
        task = bar.add_task("style translation", total=config.loop.steps, completed=run.step, note="")
        while run.step < config.loop.steps:
            network.train()
            batch = sampler.draw(run.rng)
            code = network.style.encode(batch.style)
            code = code + 0.1 * torch.randn_like(code)
            coefficients = network(batch.content, network.style.modulate(code))
            losses = loss(coefficients, batch)
            run.update(losses.total)
            bar.update(task, completed=run.step)
            if run.step % config.loop.evaluate_every == 0 or run.step == config.loop.steps:
                run.curves.add(run.step, **{f"loss {name}": value.item() for name, value in losses._asdict().items()})
                bar.console.print(f"{run.step:5d} " + describe(consider()))
    best: dict[str, dict[str, float]] = torch.load(folder / "best.pt", weights_only=False)["scores"]
    (folder / "scores.json").write_text(json.dumps(best, indent=1))
    return best


def selection_score(scores: dict[str, dict[str, float]]) -> float:
    """What is selected on: r of opening and of width, less the excess of distance, mean over groups."""
    return fmean(s["r_opening"] + 0.5 * s["r_width"] - 0.5 * s["lmd_ratio"] for s in scores.values())


def describe(scores: dict[str, dict[str, float]]) -> str:
    """One line of figures."""
    return " | ".join(
        f"{group} " + " ".join(f"{name} {value:.2f}" for name, value in values.items()) for group, values in scores.items()
    )


def evaluate(
    network: StyleTranslationNetwork, basis: LandmarkBasis, groups: dict[str, list[TrainingClip]]
) -> dict[str, dict[str, float]]:
    """Summary a group of clips, before constraints."""
    predictor = TorchPredictor(network, basis)
    return {
        name: summary([evaluate_clip(clip, basis, predictor, predictor, control=False) for clip in clips])
        for name, clips in groups.items()
        if clips
    }


@torch.no_grad()
def typical_code(network: StyleTranslationNetwork, clips: list[TrainingClip], basis: LandmarkBasis) -> Tensor:
    """Mean style code of the training speakers, [S]."""
    codes = []
    for group in by_speaker(clips).values():
        for clip in group[:5]:
            mouths = clip.mouth_landmarks[clip.usable]
            coefficients = basis.project(mouths - measure_mouth(mouths, basis).rest_mouth) / basis.typical_spread
            codes.append(network.style.encode(torch.from_numpy(coefficients[None].astype(np.float32)))[0] / min(5, len(group)))
    return torch.stack(codes).sum(0) / len(by_speaker(clips))


def main() -> None:
    """Command line."""
    defaults = StyleTrainingConfig()
    parser = training_parser(__doc__, "build/motion/style", defaults.loop)
    parser.add_argument("--threads", type=int, default=defaults.loop.threads)
    arguments = parser.parse_args()
    loop = replace(defaults.loop, steps=arguments.steps, seed=arguments.seed, threads=arguments.threads)
    train(replace(defaults, loop=loop), *clip_sets(arguments.trainset, arguments.lags), arguments.out)


if __name__ == "__main__":
    main()
