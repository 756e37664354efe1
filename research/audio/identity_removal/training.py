"""The Audio ID-Removing Network (Everybody's Talkin', Sec. 3.2.1, Eq. 1, Fig. 3): network, training against critics, and export.

    x' = (I + sum_j lambda_j W_j) (x; 1)

x is a row of normalised cepstra, I the identity padded by a column of zeros, W_j [C, C + 1] are components that all speakers
share (parameters of the network), and an LSTM with a fully connected layer infers the weights lambda_j from the rows so far. As
in the paper the output is again a row of cepstra, of a "global speaker".

Departures: the weights are inferred for each row, they are a choice (one lambda is 1, the others 0), and the linear part of every
W_j removes the row (-I), so that the chosen component's column is the result. With free weights and components, trained as in the
paper, new classifiers still recognised the speakers: a weighted sum passes differences that are small, but the same in every row
(docs/models/id_removal.md has the figures; `hard=False` is that network).

Shapes: N windows, W rows of a window, S = W / 4 steps, C = 20 cepstra, J components.

The training minimises

    L = w_phone CE(phone | lambda) + w_global |x' - global speaker's row|^2 + w_norm L_norm + w_trans L_trans

L_norm is Eq. 2 of Everybody's Talkin' against critics. Critics and network learn in turns. The global speaker's row is the mean
row of the phone that sounds. L_trans (Eq. 3) is used if the training set has the expression of its faces: a small predictor
computes expression coefficients and mouth landmarks from one second of x', and L_trans is the predictor's loss. The network and
the predictor are trained jointly.

The expression of a clip is the part `expression` of the training set, because the face belongs to another stage. A set without
this part is trained without L_trans. The paper's critic is VGGVox, trained on thousands of speakers. Here the critic is trained
on the project's speech and keeps learning while the network learns to confuse the critic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from research.audio.export import AudioExportSpec, WindowNetwork, export_network, load_network, save_network
from research.audio.identity_removal.speech import SegmentSampler, SpeechBatch, SpeechPart, TrainingSpeech, divided, global_speaker
from research.audio.recordings import IGNORED, evenly, grouped
from research.training.networks import Opening
from research.training.run_folder import read_config
from research.training.training import Check, LoopSettings, OptimiserSettings, Stateful, Training
from research.training.trainset import BoundedCache, ClipRow, TrainSet, part_path
from services.audio.identity_removal import IDENTITY_PAST_ROWS, IDENTITY_WINDOW_ROWS
from services.audio.types import NUM_CEPSTRA, ROWS_PER_SECOND, ROWS_PER_VIDEO_FRAME
from services.common.array_types import Bool, Float32
from services.common.errors import InvalidRequestError
from services.common.wire.phones import NUM_PHONES

ROWS_PER_STEP: Final = 4
"""Four 10 ms rows make one LSTM step."""
DELAY_STEPS: Final = 1
"""Steps that the LSTM reads beyond the rows of its weights."""

TEMPERATURE: Final = 1.0
"""Temperature of the softmax through which a choice is learned."""
PAST_FRAMES: Final = 20
"""Frames before the frame itself that a second of sound covers: 0.8 s."""
WINDOW_FRAMES: Final = 25
"""Number of frames in a second of sound: PAST_FRAMES, the frame itself, and four later frames."""
WARM_ROWS: Final = 28
"""Number of rows at the start of a segment that count in no loss, because the LSTM has read too little."""
_SEGMENT_ROWS: Final = WARM_ROWS + WINDOW_FRAMES * ROWS_PER_VIDEO_FRAME + DELAY_STEPS * ROWS_PER_STEP
_BEFORE_FRAMES: Final = WARM_ROWS // ROWS_PER_VIDEO_FRAME + PAST_FRAMES
"""Frames of a segment before the frame whose expression is predicted."""
_CACHE_BYTES: Final = 64 << 20
_MAX_TRIES: Final = 1000
_NUM_CRITICS: Final = 2
_WEIGHT_DECAY: Final = 1e-3
_LAST_SHARE: Final = 0.05
"""Learning rate of the last step as a share of the largest."""
_CHECK_ROWS: Final = 12 * ROWS_PER_SECOND
_CHECK_SEGMENTS: Final = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class IdRemovalConfig:
    """Sizes of the network."""

    components: int = 2 * NUM_PHONES
    """J, matrices that a row's transformation is chosen or mixed from: two variants of each phone."""
    hard: bool = True
    """True: one component per row, without the row itself. False: a weighted sum of free components."""
    projection: int = 128
    hidden: int = 128
    layers: int = 2
    dropout: float = 0.1
    """Dropout between layers, in training only."""


class IdRemovalNetwork(nn.Module):
    """Normalised cepstra of any speaker -> cepstra of the global speaker."""

    def __init__(self, config: IdRemovalConfig) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(NUM_CEPSTRA * ROWS_PER_STEP, config.projection)
        self.recurrent = nn.LSTM(
            config.projection, config.hidden, num_layers=config.layers, batch_first=True, dropout=config.dropout
        )
        self.weigh = nn.Linear(config.hidden, ROWS_PER_STEP * config.components)
        self.linear = nn.Parameter(torch.randn(config.components, NUM_CEPSTRA, NUM_CEPSTRA) * 0.05)
        self.column = nn.Parameter(torch.randn(config.components, NUM_CEPSTRA) * 0.05)
        if config.hard:
            self.linear.requires_grad_(False)
            self.linear.data.copy_(-torch.eye(NUM_CEPSTRA).expand_as(self.linear))

    def scores(self, cepstra: Tensor) -> Tensor:
        """Return the scores that give lambda, [N, W, C] -> [N, W - 4 DELAY_STEPS, J]: the last rows are look-ahead."""
        batch, rows = cepstra.shape[0], cepstra.shape[1]
        steps = cepstra.reshape(batch, rows // ROWS_PER_STEP, NUM_CEPSTRA * ROWS_PER_STEP)
        hidden, _ = self.recurrent(torch.relu(self.project(steps)))
        scores: Tensor = self.weigh(hidden[:, DELAY_STEPS:])
        return scores.reshape(batch, rows - DELAY_STEPS * ROWS_PER_STEP, self.config.components)

    def weights(self, scores: Tensor) -> Tensor:
        """Return lambda, [N, R, J]: the scores, or 1 for the highest one and 0 for the others.

        In training the choice is drawn by the scores (Gumbel), and its gradient is that of the softmax (straight through).
        """
        if not self.config.hard:
            return scores
        if self.training:
            return functional.gumbel_softmax(scores, tau=TEMPERATURE, hard=True)
        chosen: Tensor = functional.one_hot(scores.argmax(dim=-1), self.config.components).to(scores.dtype)
        return chosen

    def transform(self, cepstra: Tensor, weights: Tensor) -> Tensor:
        """Return eq. 1 with the weights [N, R, J] on the first R rows of [N, W, 20]: [N, R, 20]."""
        x = cepstra[:, : weights.shape[1]]
        if self.config.hard:  # (I - I) x + the chosen column, without the rounding of x - x
            return weights @ self.column
        # sum_j lambda_j W_j (x; 1) without a matrix per row: all W_j (x; 1) at once, then their weighted sum.
        moved = functional.linear(x, self.linear.flatten(0, 1), self.column.flatten())
        mixed: Tensor = (weights[..., None] * moved.reshape(*weights.shape, NUM_CEPSTRA)).sum(dim=2)
        return x + mixed

    def forward(self, cepstra: Tensor) -> Tensor:
        """Return [N, W, 20] float32, normalised by `RunningNormaliser` -> [N, W - 4, 20]."""
        return self.transform(cepstra, self.weights(self.scores(cepstra)))


class ServedIdRemoval(nn.Module):
    """Network for export: windows of 64 rows -> the four answered rows of each window."""

    def __init__(self, network: IdRemovalNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, cepstra: Tensor) -> Tensor:
        """Return [N, 64, 20] float32 -> [N, 4, 20] float32."""
        removed: Tensor = self.network(cepstra)
        return removed[:, IDENTITY_PAST_ROWS : IDENTITY_PAST_ROWS + ROWS_PER_VIDEO_FRAME]


class _Face(NamedTuple):
    """Expression float32 [T, E] and usable bool [T] of a clip."""

    expression: Float32
    usable: Bool


class ExpressionBatch(NamedTuple):
    """N seconds of speech: rows float32 [N, W, 20] and, for each second, the frame's expression float32 [N, E]."""

    rows: Float32
    expression: Float32


def expression_shape(data: TrainSet) -> Float32 | None:
    """Return the pixels by which each mouth coordinate moves with a coefficient, float32 [P, E]; None: the set has no expression.

    Raises:
        InvalidRequestError: the file is damaged.
    """
    path = data.folder / "expression.safetensors"
    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            return np.asarray(file.get_tensor("shape"), np.float32)
    except (OSError, SafetensorError) as problem:
        raise InvalidRequestError(
            f"{path}: {problem}; delete the file and call `dubstage trainset` again", field="data"
        ) from problem


def expressive_clips(data: TrainSet, rows: Sequence[ClipRow]) -> list[ClipRow]:
    """Return the clips with an expression that are long enough for a second of sound."""
    return [
        row
        for row in rows
        if row.has_face
        and row.frames - abs(row.lag_frames) > _SEGMENT_ROWS // ROWS_PER_VIDEO_FRAME + 1
        and part_path(data.folder, row.shard, row.name, "expression").is_file()
    ]


class ExpressionSampler:
    """Sampler of seconds of speech with the expression.

    Args:
        speech: rows of the clips.
        clips: clips with an expression, at least one.
    """

    def __init__(self, data: TrainSet, speech: TrainingSpeech, clips: Sequence[ClipRow]) -> None:
        self._data, self._speech, self._clips = data, speech, tuple(clips)
        weights = np.array([max(row.weight, 1e-9) for row in clips])
        self._cumulative = np.cumsum(weights) / weights.sum()
        self._faces = BoundedCache(self._face, lambda face: face.expression.nbytes + face.usable.nbytes, _CACHE_BYTES)

    def draw(self, rng: np.random.Generator, count: int) -> ExpressionBatch:
        """Return `count` segments. Clips are drawn by their weight.

        Raises:
            InvalidRequestError: hardly any frame shows the mouth well.
        """
        rows: list[Float32] = []
        expressions: list[Float32] = []
        for _ in range(_MAX_TRIES * count):
            index = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
            row = self._clips[min(index, len(self._clips) - 1)]
            face, speech = self._faces[row], self._speech.of_clip(row)
            frame = int(rng.integers(len(face.expression)))
            # The sound of frame n + lag belongs to the picture of frame n.
            first = (frame + row.lag_frames - _BEFORE_FRAMES) * ROWS_PER_VIDEO_FRAME
            if first < 0 or first + _SEGMENT_ROWS > len(speech) or not face.usable[frame]:
                continue
            rows.append(speech[first : first + _SEGMENT_ROWS])
            expressions.append(face.expression[frame])
            if len(rows) == count:
                return ExpressionBatch(np.stack(rows), np.stack(expressions))
        raise InvalidRequestError(
            f"{self._data.folder}: hardly any frame of the clips with an expression shows the mouth well; give other clips",
            field="data",
        )

    def _face(self, row: ClipRow) -> _Face:
        coefficients = self._data.arrays(row, "expression", ["coefficients"])["coefficients"].astype(np.float32)
        usable = self._data.arrays(row, "track", ["usable"])["usable"].astype(np.bool_)
        frames = min(len(coefficients), len(usable))
        return _Face(coefficients[:frames], usable[:frames])


class ExpressionHead(nn.Module):
    """Small predictor of expression from a second of cepstra. Only the gradient is used; serving has another network.

    Args:
        shape: pixels by which each mouth coordinate moves with a coefficient, float32 [P, E].
        channels: width of the hidden layer.
    """

    def __init__(self, shape: Float32, channels: int = 32) -> None:
        super().__init__()
        self.frames = nn.Conv1d(NUM_CEPSTRA, channels, 8, stride=4, padding=2)
        self.out = nn.Linear(channels * WINDOW_FRAMES, shape.shape[1])
        largest = max(float(np.linalg.norm(shape, axis=0).max()), 1e-6)
        self.register_buffer("shape", torch.from_numpy(shape / np.float32(largest)))

    def loss(self, removed: Tensor, expression: Tensor) -> Tensor:
        """Return L_exp + L_shape (Eq. 3), both as mean squares. `removed` is [N, W - 4, 20], `expression` [N, E]."""
        window = removed[:, WARM_ROWS:].transpose(1, 2)
        predicted = self.out(torch.relu(self.frames(window)).flatten(1))
        error = predicted.float() - expression
        moved = error @ self.get_buffer("shape").T
        total: Tensor = (error**2).mean() + (moved**2).sum(dim=-1).mean()
        return total


class SpeakerLogits(NamedTuple):
    """Scores of S speakers by three views of a segment."""

    rows: Tensor
    """Scores [N, R, S] from nine rows around every fourth row."""
    pooled: Tensor
    """Scores [N, S] from mean and standard deviation of learned features over the segment."""
    statistics: Tensor
    """Scores [N, S], linear in mean and standard deviation of the cepstra over the segment."""


def moments(x: Tensor, dim: int) -> Tensor:
    """Return mean and standard deviation along `dim`, concatenated in the last remaining axis."""
    mean = x.mean(dim=dim, keepdim=True)
    deviation = torch.sqrt(((x - mean) ** 2).mean(dim=dim) + 1e-3)
    return torch.cat([mean.squeeze(dim), deviation], dim=-1)


class SpeakerClassifier(nn.Module):
    """Classifier of the speaker by three views: single moments, the whole segment, statistics of the cepstra."""

    def __init__(self, num_speakers: int, width: int = NUM_CEPSTRA, channels: int = 64) -> None:
        super().__init__()
        self.near = nn.Conv1d(width, channels, 5, padding=2)
        self.wide = nn.Conv1d(channels, channels, 3, padding=2, dilation=2)
        self.dropout = nn.Dropout(0.2)
        self.rows = nn.Linear(channels, num_speakers)
        self.pooled = nn.Linear(2 * channels, num_speakers)
        self.statistics = nn.Linear(2 * width, num_speakers)

    def forward(self, rows: Tensor) -> SpeakerLogits:
        """Return the scores of segments [N, W, 20]."""
        hidden = torch.relu(self.near(rows.transpose(1, 2)))
        hidden = self.dropout(torch.relu(self.wide(hidden)).transpose(1, 2))
        return SpeakerLogits(self.rows(hidden[:, ::4]), self.pooled(moments(hidden, 1)), self.statistics(moments(rows, 1)))


def recognition_loss(logits: SpeakerLogits, speakers: Tensor) -> Tensor:
    """Return the cross-entropy of the true speakers [N], mean over the views. The critic minimises this loss."""
    per_row = nn.functional.cross_entropy(logits.rows.flatten(0, 1), speakers.repeat_interleave(logits.rows.shape[1]))
    pooled = nn.functional.cross_entropy(logits.pooled, speakers)
    return (per_row + pooled + nn.functional.cross_entropy(logits.statistics, speakers)) / 3.0


def confusion_loss(logits: SpeakerLogits) -> Tensor:
    """Return Eq. 2, L_norm = - sum_c 1/N log p(c | x'), mean over the views, minus the smallest possible value log N."""
    parts = [-torch.log_softmax(scores, dim=-1).mean(dim=-1).mean() for scores in logits]
    return torch.stack(parts).mean() - float(np.log(logits.pooled.shape[-1]))


@dataclass(frozen=True, kw_only=True, slots=True)
class IdRemovalTrainingConfig:
    """Configuration of a training of the Audio ID-Removing Network.

    Attributes:
        loop: length, pace and machinery.
        network: sizes of the network.
        speeds: speeds of the copies of the speech. Each copy counts as speech of another speaker.
        content_steps: number of first steps without L_norm. Critics learn from half of these steps on.
        ramp_steps: steps in which the weight of L_norm rises.
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
        InvalidRequestError: the set has no labelled clips in `train`, or all of them are shorter than a segment.
    """

    def __init__(self, opening: Opening) -> None:
        config: IdRemovalTrainingConfig = opening.config
        data, device = opening.data, opening.device.torch_device
        rows = data.of("train", phones=True)
        super().__init__(config.loop, opening.device, rows)
        self._config = config
        self._speech = TrainingSpeech(data)
        parts = divided(rows, config.speeds)
        learned = [part for part in parts if part.half == "train" and part.num_rows >= config.segment_rows]
        if not learned:
            raise InvalidRequestError(
                f"{data.folder}: a speaker's part for training (every clip but each third; the first 60 % of a lone clip) needs "
                f"{config.segment_rows / ROWS_PER_SECOND} s of sound, and no speaker has so much; add longer clips",
                field="data",
            )
        self._segments = SegmentSampler(self._speech, learned, config.segment_rows, config.speaker_exponent)
        self._held_out_sampler = _sampler([part for part in parts if part.half == "held_out"], self._segments, self._speech, config)
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
        self._learner = nn.ModuleDict(learner).to(device)
        self._critics = nn.ModuleList(self._new_critic() for _ in range(_NUM_CRITICS)).to(device)
        self._table = torch.from_numpy(table).to(device)
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
        device = self.device.torch_device
        values: list[tuple[str, float]] = []
        for row in self._held_out:
            rows, labels = self._speech.of(SpeechPart(row, "held_out"))
            rows = rows[: min(len(rows), _CHECK_ROWS) // 4 * 4]
            if len(rows) <= WARM_ROWS:
                continue
            scores = self.network.scores(torch.from_numpy(rows[None]).to(device))[0, WARM_ROWS:]
            guess = _of_phone(scores).argmax(dim=-1).cpu().numpy()
            truth = labels[WARM_ROWS : WARM_ROWS + len(guess)]
            if (truth != IGNORED).any():
                values.append((row.speaker, float((guess == truth)[truth != IGNORED].mean())))
        figures: dict[str, float] = {}
        if values:
            figures["phone_accuracy"] = float(np.mean([np.mean(some) for some in grouped(values).values()]))
        if self._held_out_sampler is not None:
            held = self._held_out_sampler.draw(np.random.default_rng(self.settings.seed), _CHECK_SEGMENTS)
            recognised = self._critics[0](self.network(torch.from_numpy(held.rows).to(device))[:, WARM_ROWS:]).pooled.argmax(dim=-1)
            names = np.asarray(self._held_out_sampler.speakers)[held.speakers]
            figures["speaker_told"] = float((np.asarray(self._segments.speakers)[recognised.cpu().numpy()] == names).mean())
            figures["speaker_chance"] = 1.0 / len(self._segments.speakers)
        return Check(figures)

    def write(self, folder: Path) -> None:
        """Write the network."""
        save_network(self.network, folder)

    def _new_critic(self) -> SpeakerClassifier:
        return SpeakerClassifier(len(self._segments.speakers))

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
        config, device = self._config, self.device.torch_device
        rows = torch.from_numpy(batch.speech.rows).to(device)
        labels = torch.from_numpy(batch.speech.labels).to(device)
        scores = self.network.scores(rows).float()
        removed = self.network.transform(rows, self.network.weights(scores)).float()
        inner = (removed + config.output_noise * torch.randn_like(removed))[:, WARM_ROWS:]
        labels = labels[:, WARM_ROWS : removed.shape[1]]
        labelled = (labels >= 0).float()
        error = ((inner - self._table[labels.clamp(min=0)]) ** 2).mean(dim=-1)
        far = (error * labelled).sum() / labelled.sum().clamp(min=1.0)
        phones = _of_phone(scores[:, WARM_ROWS:]).flatten(0, 1)
        # A mean over no labelled row would be 0 / 0.
        phone = nn.functional.cross_entropy(phones, labels.flatten(), ignore_index=-1, reduction="sum") / labelled.sum().clamp(
            min=1.0
        )
        total = config.pull * far + config.phone * phone
        losses = {"global": far.detach(), "phone": phone.detach()}
        if ramp > 0.0:
            norm = torch.stack([confusion_loss(critic(inner)) for critic in self._critics]).mean()
            total = total + config.norm * ramp * norm
            losses["norm"] = norm.detach()
        if self._head is not None and batch.moving is not None:
            clean = self.network(torch.from_numpy(batch.moving.rows).to(device))
            trans = self._head.loss(clean, torch.from_numpy(batch.moving.expression).to(device))
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
    parts: Sequence[SpeechPart], learned: SegmentSampler, speech: TrainingSpeech, config: IdRemovalTrainingConfig
) -> SegmentSampler | None:
    """Return the sampler of held-out speech of the learned speakers; None: there is none that is long enough."""
    speakers = set(learned.speakers)
    some = [part for part in parts if part.speaker in speakers and part.num_rows >= config.segment_rows]
    return SegmentSampler(speech, some, config.segment_rows, config.speaker_exponent) if some else None


def load_served(run: Path) -> ServedIdRemoval:
    """Return the network of a training run, in its form for serving.

    Raises:
        InvalidRequestError: the folder holds no run of this network.
    """
    network = IdRemovalNetwork(IdRemovalConfig(**read_config(run, "id_removal")["network"]))
    load_network(network, run)
    return ServedIdRemoval(network)


def random_windows(rng: np.random.Generator, count: int) -> Float32:
    """Return windows of normalised cepstra."""
    return rng.standard_normal((count, IDENTITY_WINDOW_ROWS, NUM_CEPSTRA)).astype(np.float32)


ID_REMOVAL: Final = WindowNetwork(
    name="id_removal",
    served=load_served,
    windows=random_windows,
    spec=AudioExportSpec(outputs=("removed",), tolerance=5e-5),
)


def export(run: Path, folder: Path) -> Sequence[Path]:
    """Write `folder`/id_removal.onnx, id_removal.json and id_removal.card.md; see export_network for the errors."""
    return export_network(ID_REMOVAL, run, folder)
