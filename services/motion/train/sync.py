"""Train the sync network: `python -m services.motion.train.sync --trainset DIR`.

The loss contrasts shifts: in a stretch of one clip, the sound at the right lag must score above the sound at all other lags. The
command also writes `lags.json`, the lag of every clip, for the training of motion. --lags takes the lags of an earlier round.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from services.common.array_types import Float32
from services.common.errors import NoUsableFootage
from services.motion.basis import LandmarkBasis
from services.motion.features import ARTICULATIONS
from services.motion.lag import estimate_lag, standardised
from services.motion.networks.sync import SyncConfig, SyncNetwork, lag_scores
from services.motion.train.basis import basis_of
from services.motion.train.clips import TrainingClip, by_speaker, load_clips
from services.motion.train.command import loop_of, training_parser
from services.motion.train.loop import LoopConfig, Scores, TrainingRun, set_up
from services.motion.train.selection import describe
from services.motion.types import MAX_LAG


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncTrainingConfig:
    """Everything that decides the result of the training."""

    network: SyncConfig = field(default_factory=SyncConfig)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1500, learning_rate=2e-3, evaluate_every=150, averaging=0.99))
    batch_size: int = 32
    frames: int = 68
    speaker_exponent: float = 0.35
    noise: float = 0.15
    """Standard deviation of the noise on coefficients, in units of the spread."""


class TorchSync:
    """The network in PyTorch as a lag.SyncModel."""

    def __init__(self, network: SyncNetwork) -> None:
        self._network = network

    @torch.no_grad()
    def embed_audio(self, heard: Float32) -> Float32:
        """Embed, see lag.SyncModel."""
        embedded: Float32 = self._network.audio(torch.from_numpy(heard[None]))[0].numpy()
        return embedded

    @torch.no_grad()
    def embed_mouth(self, coefficients: Float32) -> Float32:
        """Embed, see lag.SyncModel."""
        embedded: Float32 = self._network.mouth(torch.from_numpy(coefficients[None]))[0].numpy()
        return embedded


@dataclass(frozen=True, slots=True)
class RecoveryRate:
    """Share of inserted shifts that are found within one frame, and the mean confidence of right and of foreign sound."""

    within_one: float
    confidence_own: float
    confidence_foreign: float


def recovery(clips: list[TrainingClip], basis: LandmarkBasis, model: TorchSync) -> RecoveryRate:
    """Put shifts of +-1..6 frames into clips and find them again, relative to the lag in the untouched clip."""
    hits, own, foreign = [], [], []
    for index, clip in enumerate(clips):
        found = estimate_lag(clip.features, clip.mouth_landmarks, clip.usable, basis, model)
        own.append(found.confidence)
        other = clips[(index + 1) % len(clips)]
        shared = min(len(clip), len(other))
        cut = slice(0, shared)
        foreign.append(estimate_lag(other.features[cut], clip.mouth_landmarks[cut], clip.usable[cut], basis, model).confidence)
        for shift in (-6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6):
            picture = slice(max(0, shift), len(clip) + min(0, shift))
            sound = slice(max(0, -shift), len(clip) + min(0, -shift))
            again = estimate_lag(clip.features[sound], clip.mouth_landmarks[picture], clip.usable[picture], basis, model)
            hits.append(abs(again.lag_frames - (found.lag_frames + shift)) <= 1 and abs(found.lag_frames) <= 3)
    return RecoveryRate(float(np.mean(hits)), float(np.mean(own)), float(np.mean(foreign)))


@dataclass(frozen=True, slots=True)
class _Prepared:
    content: Float32
    mouth: Float32
    usable: Float32


class SyncSampler:
    """Sampler of stretches of clips with balanced speakers."""

    def __init__(self, clips: list[TrainingClip], basis: LandmarkBasis, config: SyncTrainingConfig) -> None:
        self._config = config
        self._groups = [
            [
                _Prepared(clip.heard, standardised(clip.mouth_landmarks, clip.usable, basis), clip.usable.astype(np.float32))
                for clip in group
                if len(clip) >= config.frames
            ]
            for group in by_speaker(clips).values()
        ]
        self._groups = [group for group in self._groups if group]
        weights = np.array([len(group) for group in self._groups], np.float64) ** config.speaker_exponent
        self._probability = weights / weights.sum()

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw network inputs [N, T, 4, 25], coefficients [N, T, K] and usable [N, T]."""
        contents, mouths, usables = [], [], []
        for _ in range(self._config.batch_size):
            group = self._groups[rng.choice(len(self._groups), p=self._probability)]
            clip = group[rng.integers(len(group))]
            begin = int(rng.integers(len(clip.usable) - self._config.frames + 1))
            part = slice(begin, begin + self._config.frames)
            content = clip.content[part].copy()
            split = len(ARTICULATIONS)
            content[..., split:] += rng.normal(0.0, 0.7, content.shape[-1] - split)
            sharp = np.maximum(content[..., :split], 1e-4) ** rng.uniform(0.7, 1.5)
            content[..., :split] = sharp / sharp.sum(-1, keepdims=True)
            mouth = clip.mouth[part] * rng.uniform(0.8, 1.25)
            mouth = mouth + self._config.noise * rng.normal(size=mouth.shape)
            contents.append(content)
            mouths.append(mouth.astype(np.float32))
            usables.append(clip.usable[part])
        return torch.from_numpy(np.stack(contents)), torch.from_numpy(np.stack(mouths)), torch.from_numpy(np.stack(usables))


def contrastive_loss(network: SyncNetwork, content: Tensor, mouth: Tensor, usable: Tensor) -> Tensor:
    """Return the cross entropy of lag 0 among all lags of a stretch, plus that of each frame's own sound among all sounds."""
    audio, seen = network.audio(content), network.mouth(mouth)
    scale = network.log_scale.exp()
    scores = lag_scores(audio, seen, usable, MAX_LAG)
    target = torch.full((len(scores),), MAX_LAG)
    whole = functional.cross_entropy(scores * scale * 4.0, target)
    pairs = torch.einsum("nte,nse->nts", seen, audio) * scale
    # Neighbouring frames sound alike: their pairs count neither as right nor as wrong.
    steps = torch.arange(pairs.shape[1])
    near = ((steps[:, None] - steps[None]).abs() == 1).to(pairs.dtype)
    own = functional.cross_entropy((pairs - 1e4 * near).flatten(0, 1), steps.repeat(len(pairs)), reduction="none")
    frames = (own * usable.flatten()).sum() / usable.sum().clamp(min=1.0)
    return whole + 0.3 * frames


def train(config: SyncTrainingConfig, clips: list[TrainingClip], held_out: list[TrainingClip], folder: Path) -> None:
    """Train, and keep the averaged weights with the best held-out recovery in `folder/best.pt`."""
    set_up(config.loop)
    basis = basis_of(clips, config.network.num_coefficients)
    network, averaged = SyncNetwork(config.network), SyncNetwork(config.network).eval()
    sampler = SyncSampler(clips, basis, config)
    run = TrainingRun(folder, network, config.loop, asdict(config))
    run.resume()

    def evaluate() -> Scores:
        return {"recovery": asdict(recovery(held_out, basis, TorchSync(averaged)))}

    def value(scores: Scores) -> float:
        rate = scores["recovery"]
        return rate["within_one"] + 0.1 * (rate["confidence_own"] - rate["confidence_foreign"])

    def consider() -> Scores:
        return run.consider(averaged, evaluate, value, lambda: {"basis": basis})

    def losses_of_step() -> dict[str, Tensor]:
        return {"total": contrastive_loss(network, *sampler.draw(run.rng))}

    run.train("sync", losses_of_step, lambda means: f"loss {means[0]:.3f} {describe(consider())}")


def write_lags(clips: list[TrainingClip], basis: LandmarkBasis, model: TorchSync, path: Path) -> None:
    """Write the lag of every clip. One set-up recorded all clips of a speaker, so all get the speaker's median lag."""
    lags: dict[str, int] = {}
    for group in by_speaker(clips).values():
        found = []
        for clip in group:
            try:
                found.append(estimate_lag(clip.features, clip.mouth_landmarks, clip.usable, basis, model).lag_frames)
            except NoUsableFootage:
                continue
        common = round(float(np.median(found))) if found else 0
        lags.update({clip.name: common for clip in group})
    path.write_text(json.dumps(dict(sorted(lags.items())), indent=0))


def main() -> None:
    """Run the command line."""
    defaults = SyncTrainingConfig()
    arguments = training_parser(__doc__, "build/motion/sync", defaults.loop).parse_args()
    config = replace(defaults, loop=loop_of(arguments, defaults.loop))
    clips = load_clips(arguments.trainset, uses=frozenset({"train"}), lags=arguments.lags)
    held_out = load_clips(arguments.trainset, uses=frozenset({"val"}), lags=arguments.lags)
    train(config, clips, held_out, arguments.out)
    kept = torch.load(arguments.out / "best.pt", weights_only=False)
    network = SyncNetwork(SyncConfig(**kept["config"]["network"])).eval()
    network.load_state_dict(kept["state"])
    everything = load_clips(arguments.trainset, uses=frozenset({"train", "val", "dev"}))
    write_lags(everything, kept["basis"], TorchSync(network), arguments.out / "lags.json")


if __name__ == "__main__":
    main()
