"""Training of the Audio ID-Removing Network against critics.

    L = w_phone CE(phone | lambda) + w_global |x' - global speaker's row|^2 + w_norm L_norm + w_trans L_trans

L_norm is Eq. 2 of Everybody's Talkin' against critics. Critics and network learn in turns. The global speaker's row is the mean row
of the phone that sounds. L_trans (Eq. 3) is used if the training set has the expression of its faces: a small predictor computes
expression coefficients and mouth landmarks from one second of x', and L_trans is the predictor's loss. The network and the
predictor are trained jointly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from services.audio.identity_removal.network import IdRemovalConfig, IdRemovalNetwork
from services.audio.identity_removal.train.expression import (
    WARM_ROWS,
    ExpressionBatch,
    ExpressionHead,
    ExpressionSampler,
    expression_shape,
    expressive_clips,
)
from services.audio.identity_removal.train.speaker_critic import SpeakerCritic, confusion_loss, recognition_loss
from services.audio.identity_removal.train.speech import SegmentSampler, Speech, SpeechBatch, SpeechPart, divided, global_speaker
from services.audio.train.network_file import save_network
from services.audio.train.recordings import IGNORED, evenly, grouped
from services.audio.types import ROWS_PER_SECOND
from services.common.errors import InvalidRequest
from services.common.wire.phones import NUM_PHONES
from services.training.loop_settings import LoopSettings
from services.training.networks import Opening
from services.training.training import Check, OptimiserSettings, Stateful, Training

_NUM_CRITICS: Final = 2
_WEIGHT_DECAY: Final = 1e-3
_LAST_SHARE: Final = 0.05
"""Learning rate of the last step as a share of the largest."""
_CHECK_ROWS: Final = 12 * ROWS_PER_SECOND
_CHECK_SEGMENTS: Final = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class IdRemovalTrainingConfig:
    """Configuration of a training of the Audio ID-Removing Network.

    Attributes:
        loop: length, pace and machinery.
        network: sizes of the network.
        speeds: speeds of the copies of the speech. Each copy counts as speech of another speaker.
        content_steps: number of first steps without L_norm. Critics learn from half of these steps on.
        ramp_steps: steps in which the weight of L_norm rises.
        batch_segments: segments of a batch.
        segment_rows: rows of 10 ms of a segment, a multiple of 4.
        speaker_exponent: share of a speaker by the length of the speaker's speech: 1 draws every minute alike, 0 every speaker.
        learning_rate: the network's largest learning rate.
        critic_rate: learning rate of the critics.
        critic_updates: updates of the critics in a step.
        critic_lifetime: steps after which a new critic replaces the oldest critic, so that the network cannot rely on one critic's
            weakness.
        gradient_norm: largest norm of the network's gradient.
        phone: weight of the phone's cross-entropy.
        pull: weight of the distance to the global speaker's row.
        norm: weight of L_norm.
        trans: weight of L_trans.
        expression_segments: seconds of speech with expression in a batch.
        output_noise: standard deviation of noise on x' in training, so that the network cannot beat critics by very small
            differences.
        table_parts: parts of recordings from which the global speaker is measured.
        check_clips: held-out clips of a check.
    """

    loop: LoopSettings
    network: IdRemovalConfig = field(default_factory=IdRemovalConfig)
    speeds: tuple[float, ...] = (1.0, 0.89, 1.12)
    content_steps: int = 400
    ramp_steps: int = 400
    batch_segments: int = 32
    segment_rows: int = 160
    speaker_exponent: float = 0.3
    learning_rate: float = 2e-3
    critic_rate: float = 2e-3
    critic_updates: int = 1
    critic_lifetime: int = 500
    gradient_norm: float = 1.0
    phone: float = 1.0
    pull: float = 0.5
    norm: float = 3.0
    trans: float = 0.3
    expression_segments: int = 12
    output_noise: float = 0.1
    table_parts: int = 900
    check_clips: int = 30


DEFAULT: Final = IdRemovalTrainingConfig(loop=LoopSettings(steps=1600, seed=4, check_every=200))
LARGE: Final = IdRemovalTrainingConfig(
    loop=LoopSettings(steps=40_000, seed=4, check_every=1000, workers=8, bfloat16=True),
    # The paper gives no sizes of its LSTM. Three layers of 421 cells are the deep LSTM of one direction of Graves, Mohamed and
    # Hinton, "Speech recognition with deep recurrent neural networks" (ICASSP 2013), Table 1.
    network=IdRemovalConfig(components=4 * NUM_PHONES, projection=421, hidden=421, layers=3),
    content_steps=4000,
    ramp_steps=4000,
    batch_segments=256,
    learning_rate=1e-3,
    critic_rate=1e-3,
    critic_lifetime=5000,
    expression_segments=96,
    table_parts=3000,
    check_clips=120,
)


class IdRemovalBatch(NamedTuple):
    """Segments of speech, and seconds of speech with expression where the set has any."""

    speech: SpeechBatch
    moving: ExpressionBatch | None


class IdRemovalTraining(Training[IdRemovalBatch]):
    """Training of the Audio ID-Removing Network.

    The last step is kept, because no figure of a check shows what new critics would tell.

    Raises:
        InvalidRequest: the set has no labelled clips in `train`, or all of them are shorter than a segment.
    """

    def __init__(self, opening: Opening) -> None:
        config: IdRemovalTrainingConfig = opening.config
        data, place = opening.data, opening.device.torch_device
        rows = data.of("train", phones=True)
        super().__init__(config.loop, opening.device, rows)
        self._config = config
        self._speech = Speech(data)
        parts = divided(rows, config.speeds)
        learned = [part for part in parts if part.half == "train" and part.num_rows >= config.segment_rows]
        if not learned:
            raise InvalidRequest(
                f"{data.folder}: a speaker's part for training (every clip but each third; the first 60 % of a lone clip) needs "
                f"{config.segment_rows / ROWS_PER_SECOND} s of sound, and no speaker has so much; add longer clips",
                field="data",
            )
        self._segments = SegmentSampler(self._speech, learned, config.segment_rows, config.speaker_exponent)
        self._told = _sampler([part for part in parts if part.half == "held_out"], self._segments, self._speech, config)
        self._held_out = evenly([row for row in data.rows if row.split == "val" and row.phones], config.check_clips)
        table = global_speaker(self._speech.some_of(self._segments.parts, config.table_parts))
        shape, expressive = expression_shape(data), expressive_clips(data, rows)
        self._moves = ExpressionSampler(data, self._speech, expressive) if shape is not None and expressive else None
        torch.manual_seed(config.loop.seed)
        self.network = IdRemovalNetwork(config.network)
        if config.network.hard:
            with torch.no_grad():
                self.network.column.add_(torch.from_numpy(table).repeat_interleave(config.network.components // NUM_PHONES, dim=0))
        learner: dict[str, nn.Module] = {"network": self.network}
        self._head = None if self._moves is None or shape is None else ExpressionHead(shape)
        if self._head is not None:
            learner["head"] = self._head
        self._learner = nn.ModuleDict(learner).to(place)
        self._critics = nn.ModuleList(self._new_critic() for _ in range(_NUM_CRITICS)).to(place)
        self._table = torch.from_numpy(table).to(place)
        self._rates = OptimiserSettings(learning_rate=config.learning_rate, last_share=_LAST_SHARE)
        self._optimiser = torch.optim.AdamW(self._learner.parameters(), lr=config.learning_rate, weight_decay=_WEIGHT_DECAY)
        self._critic_optimisers = [
            torch.optim.AdamW(critic.parameters(), lr=config.critic_rate, weight_decay=_WEIGHT_DECAY) for critic in self._critics
        ]
        self._objective = opening.device.parallel(self._learner, self._losses)
        self._critic_objective = opening.device.parallel(self._critics, self._recognition)

    def parts(self) -> Mapping[str, Stateful]:
        """Return the network with the predictor of expression, the critics, and their optimisers."""
        named: dict[str, Stateful] = {"learner": self._learner, "critics": self._critics, "optimiser": self._optimiser}
        return named | {f"critic_optimiser_{number}": each for number, each in enumerate(self._critic_optimisers)}

    def batch(self, step: int, index: int) -> IdRemovalBatch:
        """Return random segments of speech, and seconds of speech with expression."""
        rng = np.random.default_rng((self.settings.seed, step, index))
        speech = self._segments.draw(rng, self._config.batch_segments)
        return IdRemovalBatch(speech, None if self._moves is None else self._moves.draw(rng, self._config.expression_segments))

    def learn(self, step: int, batches: Sequence[IdRemovalBatch]) -> Mapping[str, float]:
        """Make one step of the network, and then of the critics on the same segments."""
        self._renew(step)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rates.at(step, self.settings.steps)
        self._learner.train()
        self._critics.train()
        self._critics.requires_grad_(requires_grad=False)
        self._optimiser.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        removed: list[Tensor] = []
        for number, batch in enumerate(batches):
            self.seed_pass(step, number)
            with self.device.without_exchange(self._objective, last=number == len(batches) - 1):
                with self.device.autocast(bfloat16=self.settings.bfloat16):
                    losses: dict[str, Tensor] = self._objective(batch, self._ramp(step))
                torch.autograd.backward(losses["total"] / len(batches))
            removed.append(losses.pop("removed"))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(batches)
        nn.utils.clip_grad_norm_(self._learner.parameters(), self._config.gradient_norm)
        self._optimiser.step()
        self._critics.requires_grad_(requires_grad=True)
        if step >= self._config.content_steps // 2:
            sums["critic"] = self._teach_critics(step, batches, removed)
        return sums

    @torch.no_grad()
    def check(self, step: int, folder: Path) -> Check:
        """Return the share of rows of `val` whose phone the choice names, and the share of segments whose speaker a critic tells.

        The segments are held-out speech of the speakers in training. `speaker_chance` is the share that guessing reaches.
        """
        self._learner.eval()
        self._critics.eval()
        place = self.device.torch_device
        values: list[tuple[str, float]] = []
        for row in self._held_out:
            rows, labels = self._speech.of(SpeechPart(row, "held_out"))
            rows = rows[: min(len(rows), _CHECK_ROWS) // 4 * 4]
            if len(rows) <= WARM_ROWS:
                continue
            scores = self.network.scores(torch.from_numpy(rows[None]).to(place))[0, WARM_ROWS:]
            guess = _of_phone(scores).argmax(dim=-1).cpu().numpy()
            truth = labels[WARM_ROWS : WARM_ROWS + len(guess)]
            if (truth != IGNORED).any():
                values.append((row.speaker, float((guess == truth)[truth != IGNORED].mean())))
        figures: dict[str, float] = {}
        if values:
            figures["phone_accuracy"] = float(np.mean([np.mean(some) for some in grouped(values).values()]))
        if self._told is not None:
            held = self._told.draw(np.random.default_rng(self.settings.seed), _CHECK_SEGMENTS)
            told = self._critics[0](self.network(torch.from_numpy(held.rows).to(place))[:, WARM_ROWS:]).pooled.argmax(dim=-1)
            names = np.asarray(self._told.speakers)[held.speakers]
            figures["speaker_told"] = float((np.asarray(self._segments.speakers)[told.cpu().numpy()] == names).mean())
            figures["speaker_chance"] = 1.0 / len(self._segments.speakers)
        return Check(figures)

    def write(self, folder: Path) -> None:
        """Write the network."""
        save_network(self.network, folder)

    def _new_critic(self) -> SpeakerCritic:
        return SpeakerCritic(len(self._segments.speakers))

    def _renew(self, step: int) -> None:
        """Let the younger critic take the older critic's place, and begin a new one, where a lifetime ends."""
        if step <= self._config.content_steps or step % self._config.critic_lifetime:
            return
        for number in range(_NUM_CRITICS - 1):
            self._critics[number].load_state_dict(self._critics[number + 1].state_dict())
            self._critic_optimisers[number].load_state_dict(self._critic_optimisers[number + 1].state_dict())
        torch.manual_seed(self.settings.seed * 1_000_003 + step)
        self._critics[-1].load_state_dict(self._new_critic().state_dict())
        self._critic_optimisers[-1].state.clear()

    def _ramp(self, step: int) -> float:
        config = self._config
        return min(1.0, max(0.0, (step - config.content_steps) / max(1, config.ramp_steps)))

    def _losses(self, batch: IdRemovalBatch, ramp: float) -> dict[str, Tensor]:
        """Return the parts of the loss, their `total`, and `removed`: rows [N, R, 20] for the critics."""
        config, place = self._config, self.device.torch_device
        rows = torch.from_numpy(batch.speech.rows).to(place)
        labels = torch.from_numpy(batch.speech.labels).to(place)
        scores = self.network.scores(rows).float()
        removed = self.network.transform(rows, self.network.weights(scores)).float()
        inner = (removed + config.output_noise * torch.randn_like(removed))[:, WARM_ROWS:]
        labels = labels[:, WARM_ROWS : removed.shape[1]]
        known = (labels >= 0).float()
        error = ((inner - self._table[labels.clamp(min=0)]) ** 2).mean(dim=-1)
        far = (error * known).sum() / known.sum().clamp(min=1.0)
        phones = _of_phone(scores[:, WARM_ROWS:]).flatten(0, 1)
        # A mean over no known row would be 0 / 0.
        phone = nn.functional.cross_entropy(phones, labels.flatten(), ignore_index=-1, reduction="sum") / known.sum().clamp(min=1.0)
        total = config.pull * far + config.phone * phone
        losses = {"global": far.detach(), "phone": phone.detach()}
        if ramp > 0.0:
            norm = torch.stack([confusion_loss(critic(inner)) for critic in self._critics]).mean()
            total = total + config.norm * ramp * norm
            losses["norm"] = norm.detach()
        if self._head is not None and batch.moving is not None:
            clean = self.network(torch.from_numpy(batch.moving.rows).to(place))
            trans = self._head.loss(clean, torch.from_numpy(batch.moving.expression).to(place))
            total = total + config.trans * trans
            losses["trans"] = trans.detach()
        return {**losses, "total": total, "removed": inner.detach()}

    def _recognition(self, removed: Tensor, speakers: Tensor) -> Tensor:
        return torch.stack([recognition_loss(critic(removed), speakers) for critic in self._critics]).sum()

    def _teach_critics(self, step: int, batches: Sequence[IdRemovalBatch], removed: Sequence[Tensor]) -> float:
        """Update the critics, and return the mean of their losses before the last update."""
        mean = 0.0
        for update in range(self._config.critic_updates):
            mean = 0.0
            for optimiser in self._critic_optimisers:
                optimiser.zero_grad(set_to_none=True)
            for number, (batch, rows) in enumerate(zip(batches, removed, strict=True)):
                # Other noise than that of the network's pass, which has seeds up to the number of steps.
                self.seed_pass(self.settings.steps * (1 + update) + step, number)
                speakers = torch.from_numpy(batch.speech.speakers).to(self.device.torch_device)
                with self.device.without_exchange(self._critic_objective, last=number == len(batches) - 1):
                    with self.device.autocast(bfloat16=self.settings.bfloat16):
                        loss: Tensor = self._critic_objective(rows, speakers)
                    torch.autograd.backward(loss / len(batches))
                mean += float(loss.detach()) / (len(batches) * _NUM_CRITICS)
            for optimiser in self._critic_optimisers:
                optimiser.step()
        return mean


def _of_phone(scores: Tensor) -> Tensor:
    """Return the score of each phone, [..., J] -> [..., 40]: the probability of a phone is the sum over the phone's variants."""
    return scores.reshape(*scores.shape[:-1], NUM_PHONES, -1).logsumexp(dim=-1)


def _sampler(
    parts: Sequence[SpeechPart], learned: SegmentSampler, speech: Speech, config: IdRemovalTrainingConfig
) -> SegmentSampler | None:
    """Return the sampler of held-out speech of the learned speakers; None: there is none that is long enough."""
    known = set(learned.speakers)
    some = [part for part in parts if part.speaker in known and part.num_rows >= config.segment_rows]
    return SegmentSampler(speech, some, config.segment_rows, config.speaker_exponent) if some else None
