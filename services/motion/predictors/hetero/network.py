"""Network of `hetero`: the landmark generator (Xie et al. 2021, Sec. 3.2.1, Fig. 3).

    mel [N, W, 4, 80]               -> MelEncoder        -> one vector a frame     (or: states [N, W, 192] -> StatesEncoder)
    pose landmarks  [N, 99, 3]      -> PoseEncoder       -> one vector, repeated
    reference mouths [N, R, 59, 3]  -> ReferenceEncoder  -> one vector, mean over the R frames, repeated
    softmax(W) . the three vectors  -> LandmarkDecoder   -> lips [40, 3] and jaw [19, 3] a frame
    states of 7 frames              -> linear filter (closed form, fixed: the teacher)
    coefficients = filter + share * decoded

The generator that takes states learns what the filter leaves. The generator that takes the spectrogram answers alone, as in the
paper.
All convolutions over time are without padding. So a frame is a function of its window alone, and long stretches give the same
frames as single windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from services.common.face.landmarks import NUM_LIPS, NUM_UPPER
from services.motion.predictors.hetero.predictor import SERVED, WINDOW_AHEAD, WINDOW_PAST, SpeechInput
from services.motion.speech_states import NUM_STATES, STATES_AHEAD, STATES_PAST
from services.motion.types import NUM_MELS, NUM_PHONES, NUM_POINTS, ROWS_PER_FRAME

PIXELS: Final = 10.0
"""Crop pixels that one unit inside the network stands for."""
SHRINKS: Final = 18
"""Frames that the answer has fewer than the spectrogram: 4 of a step of 200 ms, 8 of the blocks over frames, 6 of the decoder."""
PHONES_BEFORE: Final = 5
PHONES_AFTER: Final = 1
"""Frames before the first and after the last answered frame whose phones the mel encoder names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeteroConfig:
    """Sizes of the network."""

    heard: SpeechInput = SERVED
    """Input."""
    num_coefficients: int = 16
    channels: tuple[int, int, int] = (16, 32, 64)
    embedding: int = 128
    decoder_channels: int = 16
    dropout: float = 0.2
    noise: float = 0.7
    """Noise on states in training, in units of the spread of a component."""
    share: float = 0.3
    """Share of the decoder's answer that is added to the filter's outside of training, if states are the input."""


class SpectrumBlock(nn.Module):
    """Residual block over bands and rows. Rows are not padded: the block answers two rows fewer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, (3, 3), padding=(1, 0), bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, F, R] -> [N, C, F, R - 2]."""
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(y)) + x[..., 1:-1])


class FrameBlock(nn.Module):
    """Residual block over frames, without padding: the block answers four frames fewer, two at each end."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, channels, 3, bias=False)
        self.first_norm = nn.BatchNorm1d(channels)
        self.second = nn.Conv1d(channels, channels, 3, bias=False)
        self.second_norm = nn.BatchNorm1d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, T] -> [N, C, T - 4]."""
        y = self.dropout(torch.relu(self.first_norm(self.first(x))))
        return torch.relu(self.second_norm(self.second(y)) + x[..., 2:-2])


class MelEncoder(nn.Module):
    """Residual convolutions over steps of 20 rows, then over frames; beside them a head that names the phones."""

    def __init__(self, config: HeteroConfig) -> None:
        super().__init__()
        first, second, third = config.channels
        size = config.embedding
        self.steps = nn.Sequential(
            nn.Conv2d(1, first, (8, 4), stride=(4, 2), padding=(2, 0), bias=False),  # 80 bands, 20 rows of 10 ms -> 20, 9 of 20 ms
            nn.BatchNorm2d(first),
            nn.ReLU(),
            SpectrumBlock(first),  # -> 20, 7
            nn.Conv2d(first, second, (3, 1), stride=(2, 1), padding=(1, 0), bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            SpectrumBlock(second),  # -> 10, 5
            nn.Conv2d(second, third, (3, 1), stride=(2, 1), padding=(1, 0), bias=False),
            nn.BatchNorm2d(third),
            nn.ReLU(),
            SpectrumBlock(third),  # -> 5, 3
            nn.Dropout2d(config.dropout),
            nn.Conv2d(third, size, (NUM_MELS // 16, 3), stride=(1, 2), bias=False),  # -> one step of 40 ms
            nn.BatchNorm2d(size),
            nn.ReLU(),
        )
        self.context = nn.Sequential(FrameBlock(size, config.dropout), FrameBlock(size, config.dropout))
        self.phones = nn.Conv1d(size, ROWS_PER_FRAME * NUM_PHONES, 1)

    def forward(self, mel: Tensor) -> Tensor:
        """Return a vector a frame: [N, W, 4, 80] -> [N, C, W - 12]."""
        # The layout of the memory is for speed: convolutions of few channels take half the time.
        rows = mel.flatten(1, 2).transpose(1, 2)[:, None].contiguous(memory_format=torch.channels_last)
        steps = self.steps(rows)[:, :, 0]
        encoded: Tensor = self.context(steps)
        return encoded

    def phone_logits(self, encoded: Tensor) -> Tensor:
        """Return the logits of phones: [N, C, T] -> [N, T, 4, 40]."""
        return _phone_logits(self.phones, encoded)


class StatesEncoder(nn.Module):
    """A convolution over five frames of states, then residual convolutions over frames; a head beside them names the phones."""

    def __init__(self, config: HeteroConfig) -> None:
        super().__init__()
        size = config.embedding
        self.noise = config.noise
        self.measure = nn.BatchNorm1d(NUM_STATES, affine=False)
        self.enter = nn.Sequential(nn.Conv1d(NUM_STATES, size, 5, bias=False), nn.BatchNorm1d(size), nn.ReLU())
        self.context = nn.Sequential(FrameBlock(size, config.dropout), FrameBlock(size, config.dropout))
        self.phones = nn.Conv1d(size, ROWS_PER_FRAME * NUM_PHONES, 1)

    def forward(self, states: Tensor) -> Tensor:
        """Return a vector a frame: [N, W, 192] -> [N, C, W - 12]."""
        measured = self.measure(states.transpose(1, 2))
        if self.training:
            measured = measured + self.noise * torch.randn_like(measured)
        encoded: Tensor = self.context(self.enter(measured))
        return encoded

    def phone_logits(self, encoded: Tensor) -> Tensor:
        """Return the logits of phones: [N, C, T] -> [N, T, 4, 40]."""
        return _phone_logits(self.phones, encoded)


def _phone_logits(head: nn.Conv1d, encoded: Tensor) -> Tensor:
    logits: Tensor = head(encoded)
    return logits.transpose(1, 2).reshape(len(encoded), -1, ROWS_PER_FRAME, NUM_PHONES)


class PoseEncoder(nn.Module):
    """Convolutions over the points of the upper face."""

    def __init__(self, config: HeteroConfig) -> None:
        super().__init__()
        self.layers = _point_encoder(NUM_UPPER, config)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(NUM_UPPER, 3))

    def forward(self, pose: Tensor) -> Tensor:
        """Return the vector of pose landmarks in head space: [N, 99, 3] -> [N, C]."""
        vector: Tensor = self.layers((pose - self.mean).transpose(1, 2) / PIXELS)
        return vector


class ReferenceEncoder(nn.Module):
    """Convolutions over the points of each reference mouth, then the mean over the mouths."""

    def __init__(self, config: HeteroConfig) -> None:
        super().__init__()
        self.layers = _point_encoder(NUM_POINTS, config)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(NUM_POINTS, 3))

    def forward(self, mouths: Tensor) -> Tensor:
        """Return the vector of reference mouths in head space: [N, R, 59, 3] -> [N, C]."""
        points = (mouths - self.mean).transpose(2, 3) / PIXELS
        vectors: Tensor = self.layers(points.flatten(0, 1))
        return vectors.reshape(*points.shape[:2], -1).mean(dim=1)


class LandmarkDecoder(nn.Module):
    """Transposed convolutions from a vector a frame to landmarks; lips and jaw apart; then smoothing over time and over points."""

    def __init__(self, config: HeteroConfig) -> None:
        super().__init__()
        self.lips = _PartDecoder(config, NUM_LIPS, doublings=3)
        self.jaw = _PartDecoder(config, NUM_POINTS - NUM_LIPS, doublings=2)

    def forward(self, fused: Tensor) -> Tensor:
        """Return offsets from the rest mouth in crop pixels: [N, C, T] -> [N, T - 6, 59, 3]."""
        points = torch.cat([self.lips(fused), self.jaw(fused)], dim=2)
        return PIXELS * points.permute(0, 3, 2, 1)


class _PartDecoder(nn.Module):
    """Decoder of one part of the face: every layer doubles the points, kernels of the first two layers span three frames each."""

    def __init__(self, config: HeteroConfig, num_points: int, doublings: int) -> None:
        super().__init__()
        channels = config.decoder_channels
        self._points, self._first = num_points, math.ceil(num_points / 2**doublings)
        self.enter = nn.Conv1d(config.embedding, channels * self._first, 1)
        self.doubling = nn.ModuleList(
            # A transposed convolution over time with this padding answers only the frames whose kernels are whole.
            nn.ConvTranspose2d(channels, channels, (4, 3 if layer < 2 else 1), stride=(2, 1), padding=(1, 2 if layer < 2 else 0))
            for layer in range(doublings)
        )
        self.smooth_time = nn.Conv2d(channels, channels, (1, 3))
        self.smooth_points = nn.Conv2d(channels, 3, (3, 1), padding=(1, 0))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, fused: Tensor) -> Tensor:
        """Return [N, C, T] -> [N, 3, P, T - 6]."""
        points = self.dropout(torch.relu(self.enter(fused)))
        points = points.reshape(len(fused), -1, self._first, points.shape[-1])
        for layer in self.doubling:
            points = torch.relu(layer(points))
        answer: Tensor = self.smooth_points(self.smooth_time(points[:, :, : self._points]))
        return answer


def _point_encoder(num_points: int, config: HeteroConfig) -> nn.Sequential:
    quarter = math.ceil(num_points / 4)
    return nn.Sequential(
        nn.Conv1d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv1d(16, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv1d(24, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * quarter, config.embedding),
        nn.Tanh(),
    )


class Conditions(nn.Module):
    """The two encoders of the person: what a style holds."""

    def __init__(self, config: HeteroConfig) -> None:
        super().__init__()
        self.pose = PoseEncoder(config)
        self.reference = ReferenceEncoder(config)

    def forward(self, mouths: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of the reference mouths [N, R, 59, 3] and of the pose landmarks [N, 99, 3], [N, C] each."""
        return self.reference(mouths), self.pose(pose)


class Generated(NamedTuple):
    """Answer of the generator for T frames.

    Attributes:
        coefficients: [N, T, K], landmark coefficients in units of the person's spread.
        phones: [N, T + 6, 4, 40], logits of the phones of the T frames, of five frames before and of one frame after.
    """

    coefficients: Tensor
    phones: Tensor


class HeteroNetwork(nn.Module):
    """Landmark generator: encoders, fusion and decoder, trained together (Eq. 2)."""

    def __init__(self, config: HeteroConfig) -> None:
        super().__init__()
        self.config = config
        self.speech = MelEncoder(config) if config.heard == "mel" else StatesEncoder(config)
        self.filter: nn.Linear | None = None
        if config.heard != "mel":
            self.filter = nn.Linear((STATES_PAST + 1 + STATES_AHEAD) * NUM_STATES, config.num_coefficients)
            self.filter.requires_grad_(False)
        self.person = Conditions(config)
        self.fusion = nn.Parameter(torch.tensor([1.0, -1.0, -1.0]))
        self.decoder = LandmarkDecoder(config)
        self.projection: Tensor
        self.register_buffer("projection", torch.zeros(config.num_coefficients, NUM_POINTS, 3))

    def set_constants(self, projection: Tensor, mean_mouth: Tensor, mean_face: Tensor) -> None:
        """Set what is not learned.

        Args:
            projection: [K, 59, 3], from offsets in crop pixels to coefficients in units of the typical spread.
            mean_mouth: [59, 3], mean mouth of the training speakers, head space.
            mean_face: [99, 3], mean pose landmarks of the training speakers, head space.
        """
        self.projection.copy_(projection)
        self.person.reference.mean.copy_(mean_mouth)
        self.person.pose.mean.copy_(mean_face)

    def set_filter(self, weight: Tensor, bias: Tensor) -> None:
        """Set the closed-form part of a generator that takes states, [K, 7 * 192] and [K]."""
        assert self.filter is not None
        with torch.no_grad():
            self.filter.weight.copy_(weight)
            self.filter.bias.copy_(bias)

    def filtered(self, speech: Tensor) -> Tensor:
        """Return the filter's answers: states [N, W, 192] -> [N, W - 18, K]."""
        assert self.filter is not None
        near = speech[:, WINDOW_PAST - STATES_PAST : speech.shape[1] - WINDOW_AHEAD + STATES_AHEAD]
        windows = near.unfold(1, STATES_PAST + 1 + STATES_AHEAD, 1).transpose(2, 3)
        answer: Tensor = self.filter(windows.flatten(2))
        return answer

    def shares(self) -> Tensor:
        """Return the shares of speech, reference and pose in the fused vector, [3] with the sum 1 (W of the paper)."""
        return torch.softmax(self.fusion, dim=0)

    def generate(self, speech: Tensor, reference: Tensor, pose: Tensor) -> Generated:
        """Return the motion of all frames whose window lies inside the speech. In training, the decoder's share is 1.

        Args:
            speech: [N, W, 192], states of the speech encoder, or [N, W, 4, 80], see predictor.relative_mel.
            reference: [N, C], vector of the reference mouths.
            pose: [N, C], vector of the pose landmarks.
        """
        encoded = self.speech(speech)
        shares = self.shares()
        person = shares[1] * reference + shares[2] * pose
        offsets = self.decoder(shares[0] * encoded + person[..., None])
        coefficients = torch.einsum("ntpd,kpd->ntk", offsets, self.projection)
        if self.filter is not None:
            coefficients = self.filtered(speech) + (1.0 if self.training else self.config.share) * coefficients
        return Generated(coefficients, self.speech.phone_logits(encoded))

    def forward(self, speech: Tensor, reference: Tensor, pose: Tensor) -> Tensor:
        """Return the coefficients of `generate`, [N, T, K]."""
        return self.generate(speech, reference, pose).coefficients
