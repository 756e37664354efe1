"""The phonetic posteriorgram network: recording conditions, windows with labels, training, and export to weights/ppg.onnx.

The network is a bidirectional LSTM from cepstra to phone probabilities.

The paper's recurrent network (Song et al., Sec. III-A.1: MFCC -> DBLSTM -> phone posteriors), made for streaming: it sees fixed
windows laid on the acoustic grid, PAST_ROWS before the four rows it answers and LOOK_AHEAD_ROWS after them, so its answer for
a row never depends on how the signal was cut.

Shapes: N windows, W = 58 rows a window, S = W / 2 steps, C = 20 cepstra, K = 40 phone classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.signal
import soxr
import torch
from torch import Tensor, nn

from research.audio.export import WindowNetwork, export_network, load_network, save_network
from research.audio.recordings import (
    IGNORED,
    LabelledSignal,
    chances,
    drawn,
    evenly,
    excerpt,
    grouped,
    long_enough,
    read_recording,
    spectral_rows,
)
from research.training.networks import Opening
from research.training.run_folder import read_config
from research.training.training import Check, LoopSettings, OptimiserSettings, Supervised
from research.training.trainset import BoundedCache, ClipRow
from services.audio.models import WEIGHTS
from services.audio.posteriorgram import LOOK_AHEAD_ROWS, MEAN_CONTEXT_ROWS, PAST_ROWS, WINDOW_ROWS, normalise
from services.audio.spectral import HIGHEST_HZ, LOWEST_HZ, silent_rows
from services.audio.types import HOP_SAMPLES, NUM_CEPSTRA, NUM_MELS, ROWS_PER_SECOND, ROWS_PER_VIDEO_FRAME, SAMPLE_RATE_HZ
from services.common.array_types import Float32, Float64
from services.common.errors import InvalidRequestError
from services.common.wire.phones import NUM_PHONES, SILENCE

_ROWS_PER_STEP: Final = 2
"""Two 10 ms rows make one LSTM step: half the recurrence for the same context."""
_MU: Final = 255.0
ANSWERED: Final = slice(PAST_ROWS, PAST_ROWS + ROWS_PER_VIDEO_FRAME)
"""Rows of a window that the network answers in serving."""
_GATES_OF_ONNX: Final = (0, 2, 3, 1)
"""ONNX keeps the gates of an LSTM in the order input, output, forget, cell; PyTorch: input, forget, cell, output."""
_LEAST_ROWS: Final = ROWS_PER_SECOND // 2
_NO_SPEECH_ROWS: Final = 300
_SCALE_WINDOWS: Final = 512
"""Windows from which the scale of the features is measured."""
_CACHE_BYTES: Final = 256 << 20
"""Memory that each worker process keeps of recordings: two hours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PpgConfig:
    """Sizes of the network."""

    projection: int = 152
    """Width of the layer in front of the recurrence."""
    hidden: int = 152
    """Cells of each LSTM direction."""
    layers: int = 2
    dropout: float = 0.25
    """Dropout between layers, in training only."""


class PpgNetwork(nn.Module):
    """Normalised cepstra of windows -> phone log-probabilities of their inner rows."""

    feature_scale: Tensor
    delta_kernel: Tensor

    def __init__(self, config: PpgConfig) -> None:
        super().__init__()
        self.config = config
        # 1 / standard deviation of the cepstra and of their deltas, measured on the training set.
        self.register_buffer("feature_scale", torch.ones(2 * NUM_CEPSTRA))
        kernel = torch.tensor([-0.2, -0.1, 0.0, 0.1, 0.2]).repeat(NUM_CEPSTRA, 1, 1)
        self.register_buffer("delta_kernel", kernel, persistent=False)
        self.project = nn.Linear(2 * NUM_CEPSTRA * _ROWS_PER_STEP, config.projection)
        self.recurrent = nn.LSTM(
            config.projection,
            config.hidden,
            num_layers=config.layers,
            bidirectional=True,
            batch_first=True,
            dropout=config.dropout,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(2 * config.hidden, _ROWS_PER_STEP * NUM_PHONES)

    def inputs(self, cepstra: Tensor) -> Tensor:
        """Return cepstra and deltas, both scaled to deviation 1: [N, W, 20] -> [N, W / 2, 80], two rows a step."""
        # Deltas are taken inside the window, whose edge rows are repeated: the look-ahead of the deltas costs no further rows.
        padded = nn.functional.pad(cepstra.transpose(1, 2), (2, 2), mode="replicate")
        delta = nn.functional.conv1d(padded, self.delta_kernel, groups=NUM_CEPSTRA).transpose(1, 2)
        features = torch.cat([cepstra, delta], dim=2) * self.feature_scale
        return features.reshape(cepstra.shape[0], cepstra.shape[1] // _ROWS_PER_STEP, -1)

    def forward(self, cepstra: Tensor) -> Tensor:
        """Return phone log-probabilities.

        Args:
            cepstra: [N, W, 20] float32, W even, normalised (services.audio.posteriorgram.normalise). Served with W = 58; training
                also uses wider windows.

        Returns:
            [N, W, 40] float32, natural logarithm, every row's exponentials sum to 1.
        """
        batch, rows = cepstra.shape[0], cepstra.shape[1]
        hidden, _ = self.recurrent(torch.relu(self.project(self.inputs(cepstra))))
        logits = self.classify(self.dropout(hidden)).reshape(batch, rows, NUM_PHONES)
        return torch.log_softmax(logits, dim=2)


class ServedPpg(nn.Module):
    """Network for export: windows of 58 rows -> probabilities of the four answered rows of each window."""

    def __init__(self, network: PpgNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, cepstra: Tensor) -> Tensor:
        """Return [N, 58, 20] float32 -> [N, 4, 40] float32, rows sum to 1."""
        log_probabilities: Tensor = self.network(cepstra)
        return log_probabilities[:, PAST_ROWS : PAST_ROWS + ROWS_PER_VIDEO_FRAME].exp()


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Probabilities and ranges of the augmentation. Every draw of a recording is augmented anew."""

    speed: tuple[float, float] = (0.85, 1.2)
    gain_db: tuple[float, float] = (-18.0, 8.0)
    room_chance: float = 0.35
    band_limit_chance: float = 0.25
    noise_chance: float = 0.6
    snr_db: tuple[float, float] = (5.0, 35.0)
    clean_chance: float = 0.2
    """Probability that the sound keeps its recording: only level, vocal tract and hidden spans change."""
    telephone_chance: float = 0.1
    """Probability of a telephone's band and 8-bit mu-law samples."""
    vocal_tract: tuple[float, float] = (0.85, 1.15)
    """Length of the vocal tract relative to the speaker's own. The frequencies of the spectrum are divided by this factor
    (windows_of), so formants and pitch move and the speed of the speech stays. See Jaitly and Hinton, "Vocal tract length
    perturbation improves speech recognition" (ICML workshop 2013)."""
    mask_chance: float = 0.2
    """Probability that a span of a window is hidden (with_hidden_spans)."""


def noise(random: np.random.Generator, count: int) -> Float32:
    """Return `count` samples of unit-power noise: coloured noise, hum, or chords with a beat (a stand-in for music)."""
    kind = random.integers(4)
    if kind <= 1:
        points = scipy.fft.next_fast_len(count, real=True)
        spectrum = scipy.fft.rfft(random.standard_normal(points))
        hz = np.maximum(scipy.fft.rfftfreq(points, 1 / SAMPLE_RATE_HZ), 20.0)
        signal = scipy.fft.irfft(spectrum * hz ** (-random.uniform(0.0, 1.2)), points)[:count]
    elif kind == 2:
        time_s = np.arange(count) / SAMPLE_RATE_HZ
        base_hz = random.choice([50.0, 60.0, 100.0, 120.0])
        signal = _harmonics(2 * np.pi * base_hz * time_s, [1.0 / k for k in range(1, 6)])
        signal = signal + 0.2 * random.standard_normal(count)
    else:
        signal = chords(random, count)
    return np.asarray(signal / max(float(np.sqrt(np.mean(signal**2))), 1e-9), dtype=np.float32)


def chords(random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Return plucked or sustained harmonic notes with a steady beat, and hiss on the off-beats."""
    signal = np.zeros(count)
    beat = int(SAMPLE_RATE_HZ * random.uniform(0.2, 0.6))
    root_hz = random.uniform(80.0, 330.0)
    decay_s = random.uniform(0.1, 1.0)
    for start in range(0, count, beat):
        time_s = np.arange(min(2 * beat, count - start)) / SAMPLE_RATE_HZ
        note = np.zeros(len(time_s))
        for step in random.choice([0, 2, 4, 5, 7, 9, 12, 16], size=3):
            hz = root_hz * 2.0 ** (step / 12.0)
            levels = [np.exp(1j * random.uniform(0, 6)) / k**1.3 for k in range(1, 8)]
            note += _harmonics(2 * np.pi * hz * time_s, levels)
        signal[start : start + len(time_s)] += note * np.exp(-time_s / decay_s)
        if random.random() < 0.5:
            hiss = random.standard_normal(len(time_s)) * np.exp(-time_s / 0.04)
            signal[start : start + len(time_s)] += 1.5 * hiss
    return signal


def _harmonics(angle: npt.NDArray[np.float64], levels: Sequence[complex]) -> npt.NDArray[np.float64]:
    """Return sum over k = 1, 2, ... of Im(levels[k - 1] exp(i k angle)): one exponential, then products (Horner's rule)."""
    turned = np.exp(1j * angle)
    total = np.zeros(len(angle), np.complex128)
    for level in reversed(levels):
        total += level
        total *= turned
    return np.asarray(total.imag)


def no_speech(random: np.random.Generator, rows: int) -> LabelledSignal:
    """Return noise, music-like sound or near silence at a random level, every row labelled silence."""
    level = 10.0 ** (random.uniform(-90.0, -15.0) / 20.0)
    return LabelledSignal(noise(random, rows * HOP_SAMPLES) * np.float32(level), np.full(rows, SILENCE, np.uint8))


def augment(signal: LabelledSignal, config: AugmentConfig, random: np.random.Generator) -> LabelledSignal:
    """Return the signal as another device in another room might record the signal. Labels follow a change of speed."""
    samples, labels = signal.samples, signal.labels
    if random.random() >= config.clean_chance:
        speed = random.uniform(*config.speed)
        samples = soxr.resample(samples, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ, quality="MQ")
        rows = len(samples) // HOP_SAMPLES
        labels = labels[np.minimum(((np.arange(rows) + 0.5) * speed).astype(np.int64), len(labels) - 1)]
        if random.random() < config.room_chance:
            samples = _in_a_room(samples, random)
        samples = scipy.signal.lfilter([1.0, random.uniform(-0.6, 0.5)], [1.0, random.uniform(-0.3, 0.3)], samples)
        if random.random() < config.band_limit_chance:
            low_hz, high_hz = random.uniform(20.0, 300.0), random.uniform(3200.0, 7500.0)
            sections = scipy.signal.butter(4, [low_hz, high_hz], "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
            samples = scipy.signal.sosfilt(sections, samples)
        if random.random() < config.telephone_chance:
            samples = _by_telephone(samples, random)
        if random.random() < config.noise_chance:
            power = float(np.sqrt(np.mean(samples**2)))
            samples = samples + noise(random, len(samples)) * power * 10.0 ** (-random.uniform(*config.snr_db) / 20.0)
    samples = samples * 10.0 ** (random.uniform(*config.gain_db) / 20.0)
    return LabelledSignal(np.clip(samples, -1.0, 1.0).astype(np.float32), labels)


def _by_telephone(samples: Float32, random: np.random.Generator) -> Float32:
    """Return the samples in a telephone's band, with each sample rounded to 8 bits of mu-law (ITU-T G.711, continuous form)."""
    band_hz = [random.uniform(200.0, 350.0), random.uniform(3000.0, 3800.0)]
    samples = scipy.signal.sosfilt(scipy.signal.butter(4, band_hz, "bandpass", fs=SAMPLE_RATE_HZ, output="sos"), samples)
    peak = max(float(np.abs(samples).max()), 1e-9) / random.uniform(0.1, 1.0)
    compressed = np.sign(samples) * np.log1p(_MU * np.abs(samples) / peak) / np.log1p(_MU)
    rounded = np.round(compressed * 127.0) / 127.0
    return np.asarray(np.sign(rounded) * np.expm1(np.abs(rounded) * np.log1p(_MU)) / _MU * peak, dtype=np.float32)


def _in_a_room(samples: Float32, random: np.random.Generator) -> Float32:
    """Return the samples convolved with a direct path and an exponentially decaying tail of noise."""
    seconds = random.uniform(0.05, 0.35)
    length = int(seconds * SAMPLE_RATE_HZ)
    tail = random.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail *= 10.0 ** (-random.uniform(4.0, 16.0) / 20.0) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    return np.asarray(scipy.signal.fftconvolve(samples, tail)[: len(samples)], dtype=np.float32)


class Windows(NamedTuple):
    """Training or evaluation examples.

    Attributes:
        cepstra: float32 [N, 58, 20], normalised.
        labels: uint8 [N, 58], phone classes, IGNORED where unknown or beyond the recording.
    """

    cepstra: Float32
    labels: npt.NDArray[np.uint8]


def windows_of(signal: LabelledSignal, starts: npt.NDArray[np.int64], *, vocal_tract: float = 1.0) -> Windows:
    """Return some windows of a signal.

    Args:
        starts: first answered row of each window, int64 [N], each below the signal's number of rows.
        vocal_tract: factor by which the frequencies of the spectrum are divided.
    """
    rows = _cepstra(spectral_rows(signal.samples), vocal_tract)
    count = len(rows)
    padded = np.concatenate([silent_rows(MEAN_CONTEXT_ROWS), rows, silent_rows(ROWS_PER_VIDEO_FRAME + LOOK_AHEAD_ROWS)])
    labels = np.full(len(padded), IGNORED, np.uint8)
    labels[MEAN_CONTEXT_ROWS : MEAN_CONTEXT_ROWS + count] = signal.labels[:count]
    if not len(starts):
        return Windows(np.zeros((0, WINDOW_ROWS, NUM_CEPSTRA), np.float32), np.zeros((0, WINDOW_ROWS), np.uint8))
    ends = starts + ROWS_PER_VIDEO_FRAME + LOOK_AHEAD_ROWS + MEAN_CONTEXT_ROWS
    return Windows(
        np.stack([normalise(padded[end - MEAN_CONTEXT_ROWS : end]) for end in ends]),
        np.stack([labels[end - WINDOW_ROWS : end] for end in ends]),
    )


def _cepstra(mel: Float32, vocal_tract: float) -> Float32:
    """Return cepstra of log-mel rows, [rows, 80] -> [rows, 20] float32: services.audio.spectral.cepstra, up to rounding."""
    spectra = mel.astype(np.float64)
    if vocal_tract != 1.0:
        spectra = spectra @ _warp(vocal_tract)
    return np.asarray(scipy.fft.dct(spectra, type=2, norm="ortho", axis=1)[:, :NUM_CEPSTRA], dtype=np.float32)


def _warp(vocal_tract: float) -> Float64:
    """Return the matrix [80, 80] that reads log-mel bands at `vocal_tract` times their frequency, linearly between bands."""
    edges = _mel(np.array([LOWEST_HZ, HIGHEST_HZ]))
    spacing = (edges[1] - edges[0]) / (NUM_MELS + 1)
    centres_hz = 700.0 * np.expm1((edges[0] + spacing * np.arange(1, NUM_MELS + 1)) / 1127.0)
    positions = np.clip((_mel(centres_hz * vocal_tract) - edges[0]) / spacing - 1.0, 0.0, NUM_MELS - 1.0)
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(positions[None, :] - np.arange(NUM_MELS)[:, None])))


def _mel(hz: Float64) -> Float64:
    return 1127.0 * np.log1p(hz / 700.0)


def with_hidden_spans(windows: Float32, chance: float, rng: np.random.Generator) -> Float32:
    """Return windows [N, 58, 20] in which one span of 4 to 12 rows shows the window's mean row, each window with a probability.

    See Park et al., "SpecAugment" (Interspeech 2019), time masking.
    """
    hidden = windows.copy()
    for number in np.flatnonzero(rng.random(len(windows)) < chance):
        length = int(rng.integers(4, 13))
        first = int(rng.integers(WINDOW_ROWS - length + 1))
        hidden[number, first : first + length] = windows[number].mean(axis=0)
    return hidden


def served_windows(signal: LabelledSignal) -> Windows:
    """Return the windows that answer every row of the signal once, as in serving."""
    return windows_of(signal, np.arange(0, len(signal.labels), ROWS_PER_VIDEO_FRAME))


def soft_targets(labels: Tensor, neighbour: float, smoothing: float) -> Tensor:
    """Return targets float32 [N, W, 40] from labels int64 [N, W]: a share `neighbour` for the label of either neighbouring row.

    An aligner's boundaries are right to about one row, so hard targets would be too precise. Rows with the label IGNORED get zeros.
    """
    labelled = (labels != IGNORED)[..., None].float()
    own = nn.functional.one_hot(labels.where(labels != IGNORED, 0), NUM_PHONES) * labelled
    before = torch.cat([own[:, :1], own[:, :-1]], dim=1)
    after = torch.cat([own[:, 1:], own[:, -1:]], dim=1)
    mixed = own * (1.0 - 2.0 * neighbour) + neighbour * (before + after)
    mixed = mixed / mixed.sum(dim=2, keepdim=True).clamp(min=1e-9)
    return labelled * ((1.0 - smoothing) * mixed + smoothing / NUM_PHONES)


def row_weights(past_weight: float) -> Float32:
    """Return the loss weights of a window's rows, [58]: 1 on the answered rows, `past_weight` on the 24 rows before.

    The earlier rows have more look-ahead than in serving, so they only help the recurrence to learn.
    """
    weights = np.zeros(WINDOW_ROWS, np.float32)
    weights[PAST_ROWS - 24 : PAST_ROWS] = past_weight
    weights[ANSWERED] = 1.0
    return weights


def feature_scale(windows: Windows) -> Tensor:
    """Return 1 / standard deviation of the 20 cepstra and of their deltas, float32 [40]."""
    rows = windows.cepstra.astype(np.float64)
    delta = 0.2 * (rows[:, 4:] - rows[:, :-4]) + 0.1 * (rows[:, 3:-1] - rows[:, 1:-3])
    deviation = np.concatenate([rows.reshape(-1, NUM_CEPSTRA).std(axis=0), delta.reshape(-1, NUM_CEPSTRA).std(axis=0)])
    return torch.from_numpy((1.0 / np.maximum(deviation, 1e-3)).astype(np.float32))


def load_exported(network: PpgNetwork, path: Path) -> None:
    """Load the weights of an exported network.

    Args:
        network: module of the same sizes.
        path: the exported file, ppg.onnx.

    Raises:
        InvalidRequestError: the file is missing or damaged, or holds a network of other sizes.
    """
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(path).graph
        held = {tensor.name: np.array(numpy_helper.to_array(tensor), np.float32) for tensor in graph.initializer}
        linear = [held[node.input[1]] for node in graph.node if node.op_type == "MatMul"]
        state = {
            "feature_scale": held["network.feature_scale"],
            "project.weight": linear[0].T,
            "project.bias": held["network.project.bias"],
            "classify.weight": linear[1].T,
            "classify.bias": held["network.classify.bias"],
        }
        for layer, node in enumerate(node for node in graph.node if node.op_type == "LSTM"):
            weights, recurrent, biases = (held[name] for name in node.input[1:4])
            for direction, ending in enumerate(("", "_reverse")):
                own, fed_back = np.split(biases[direction], 2)
                parts = {"weight_ih": weights[direction], "weight_hh": recurrent[direction], "bias_ih": own, "bias_hh": fed_back}
                state |= {f"recurrent.{name}_l{layer}{ending}": _in_torch_order(values) for name, values in parts.items()}
        network.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in state.items()})
    except (OSError, ValueError, IndexError, KeyError, RuntimeError) as problem:
        first = str(problem).splitlines()[0]
        raise InvalidRequestError(
            f"{path} cannot be trained further: {first}; set fine_tune = false, or the sizes of this network", field="config"
        ) from problem


def _in_torch_order(values: Float32) -> Float32:
    gates = np.split(values, 4)
    return np.concatenate([gates[index] for index in _GATES_OF_ONNX])


@dataclass(frozen=True, kw_only=True, slots=True)
class PosteriorgramConfig:
    """Configuration of a training of the posteriorgram network.

    Attributes:
        loop: length, pace and machinery.
        optimiser: rates.
        network: sizes of the network.
        augmentation: recording conditions that are drawn anew for each draw of a recording.
        windows_of_a_recording: windows that a batch takes from one augmented recording.
        no_speech_share: share of windows of noise and music-like sound.
        excerpt_s: longest part of a recording that is augmented at once, seconds.
        speaker_exponent: share of a speaker by the length of the speaker's speech (research.audio.recordings.chances).
        guessed_weight: weight of clips whose labels no words support, relative to other clips.
        neighbour_target: share of the target for the label of either neighbouring row.
        label_smoothing: share of the target that all phones have alike.
        past_weight: weight of the rows before the answered rows.
        fine_tune: begin with the network that comes with dubstage, and not with random weights. The configuration
            must state the sizes of that network.
        check_s: seconds of each of these clips.
    """

    loop: LoopSettings
    optimiser: OptimiserSettings
    network: PpgConfig = field(default_factory=PpgConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    batch_windows: int = 192
    windows_of_a_recording: int = 16
    no_speech_share: float = 0.04
    excerpt_s: float = 10.0
    speaker_exponent: float = 0.5
    guessed_weight: float = 0.25
    neighbour_target: float = 0.12
    label_smoothing: float = 0.05
    past_weight: float = 0.3
    fine_tune: bool = False
    check_clips: int = 60
    check_s: float = 12.0


DEFAULT: Final = PosteriorgramConfig(
    # The 234 000 windows that the first network learned from, before it was trained further (docs/models/ppg.md).
    loop=LoopSettings(steps=1220, seed=20240, check_every=120),
    optimiser=OptimiserSettings(learning_rate=2e-3, warm_up_steps=200, weight_decay=1e-4, gradient_norm=2.0),
)
LARGE: Final = PosteriorgramConfig(
    loop=LoopSettings(steps=60_000, seed=20240, check_every=1000, workers=8, bfloat16=True),
    optimiser=OptimiserSettings(learning_rate=1e-3, warm_up_steps=1000, weight_decay=1e-4, gradient_norm=2.0, averaging=0.999),
    # The UGC paper gives no sizes of its DBLSTM. Five bidirectional layers of 250 cells are the deep bidirectional LSTM of Graves,
    # Mohamed and Hinton, "Speech recognition with deep recurrent neural networks" (ICASSP 2013), Table 1.
    network=PpgConfig(projection=250, hidden=250, layers=5),
    batch_windows=1024,
    check_clips=240,
)


class PosteriorgramTraining(Supervised[Windows]):
    """Training of the posteriorgram network: weighted cross-entropy of soft targets, averaged weights.

    Raises:
        InvalidRequestError: the set has no labelled clips of half a second in `train` or in `val`.
    """

    def __init__(self, opening: Opening) -> None:
        config: PosteriorgramConfig = opening.config
        self._config, self._data = config, opening.data
        self._rows = self._labelled("train", "training")
        self._held_out = evenly(self._labelled("val", "the check"), config.check_clips)
        self._chances = chances(self._rows, speaker_exponent=config.speaker_exponent, guessed_weight=config.guessed_weight)
        self._recordings = BoundedCache(self._read, lambda held: held.samples.nbytes + held.labels.nbytes, _CACHE_BYTES)
        torch.manual_seed(config.loop.seed)
        network = PpgNetwork(config.network)
        if config.fine_tune:
            load_exported(network, WEIGHTS / "ppg.onnx")
        else:
            num_batches = -(-_SCALE_WINDOWS // config.batch_windows)
            seen = [self._drawn_batch(np.random.default_rng((config.loop.seed, number))) for number in range(num_batches)]
            network.feature_scale.copy_(feature_scale(Windows(*map(np.concatenate, zip(*seen, strict=True)))))
        super().__init__(config.loop, opening.device, self._rows, network, config.optimiser)
        self._row_weights = torch.from_numpy(row_weights(config.past_weight)).to(opening.device.torch_device)

    def batch(self, step: int, index: int) -> Windows:
        """Return windows of random recordings, each augmented anew, and of sound without speech."""
        return self._drawn_batch(np.random.default_rng((self.settings.seed, step, index)))

    def losses(self, batch: Windows) -> dict[str, Tensor]:
        """Return the cross-entropy, weighted mean over labelled rows."""
        device = self.device.torch_device
        labels = torch.from_numpy(batch.labels).to(device).long()
        targets = soft_targets(labels, self._config.neighbour_target, self._config.label_smoothing)
        log_probabilities: Tensor = self.module(torch.from_numpy(batch.cepstra).to(device))
        weights = self._row_weights * (labels != IGNORED).float()
        per_row = -(targets * log_probabilities.float()).sum(dim=2) * weights
        return {"total": per_row.sum() / weights.sum().clamp(min=1.0)}

    @torch.no_grad()
    def check(self, step: int, folder: Path) -> Check:
        """Return the accuracy on held-out clips: means over speakers of the share of rows whose most probable class is the label.

        Figures are given for all speakers, for those with other clips in training (`known`) and for the others (`new`), and for the
        rows with speech. The score is the mean over all speakers.
        """
        counts: dict[str, npt.NDArray[np.int64]] = {}
        for row in self._held_out:
            held = self._recordings[row]
            windows = served_windows(excerpt(held.samples, held.labels, int(self._config.check_s * ROWS_PER_SECOND)))
            guess = self.average(torch.from_numpy(windows.cepstra).to(self.device.torch_device))[:, ANSWERED].argmax(dim=2)
            labels = windows.labels[:, ANSWERED]
            right, labelled, speech = guess.cpu().numpy() == labels, labels != IGNORED, (labels != IGNORED) & (labels != SILENCE)
            sums = np.array([(right & labelled).sum(), labelled.sum(), (right & speech).sum(), speech.sum()])
            counts[row.speaker] = counts.get(row.speaker, np.zeros(4, np.int64)) + sums
        learned = {row.speaker for row in self._rows}
        values = []
        for speaker, (right, labelled, right_speech, speech) in counts.items():
            if labelled:
                group = "accuracy_known" if speaker in learned else "accuracy_new"
                values += [("accuracy", right / labelled), (group, right / labelled)]
            if speech:
                values.append(("accuracy_speech", right_speech / speech))
        figures = {name: float(np.mean(some)) for name, some in grouped(values).items()}
        return Check(figures, figures.get("accuracy"))

    def write(self, folder: Path) -> None:
        """Write the averaged network."""
        save_network(self.average, folder)

    def _labelled(self, split: str, purpose: str) -> list[ClipRow]:
        return long_enough(self._data.of(split, phones=True), _LEAST_ROWS, folder=self._data.folder, purpose=purpose)

    def _read(self, row: ClipRow) -> _Held:
        return _Held(*read_recording(self._data, row))

    def _drawn_batch(self, rng: np.random.Generator) -> Windows:
        config = self._config
        num_silent = round(config.no_speech_share * config.batch_windows)
        parts = [windows_of(no_speech(rng, _NO_SPEECH_ROWS), rng.integers(_NO_SPEECH_ROWS, size=num_silent))]
        missing = config.batch_windows - num_silent
        while missing:
            held = self._recordings[self._rows[drawn(self._chances, rng)]]
            signal = augment(
                excerpt(held.samples, held.labels, int(config.excerpt_s * ROWS_PER_SECOND), rng), config.augmentation, rng
            )
            count = min(missing, config.windows_of_a_recording)
            starts = rng.integers(len(signal.labels), size=count)
            parts.append(windows_of(signal, starts, vocal_tract=rng.uniform(*config.augmentation.vocal_tract)))
            missing -= count
        drawn_windows = Windows(*map(np.concatenate, zip(*parts, strict=True)))
        hidden = with_hidden_spans(drawn_windows.cepstra, config.augmentation.mask_chance, rng)
        return drawn_windows._replace(cepstra=hidden)


class _Held(NamedTuple):
    samples: npt.NDArray[np.int16]
    labels: npt.NDArray[np.uint8]


def load_served(run: Path) -> ServedPpg:
    """Return the network of a training run, as it is served.

    Raises:
        InvalidRequestError: the folder holds no run of this network.
    """
    network = PpgNetwork(PpgConfig(**read_config(run, "posteriorgram")["network"]))
    load_network(network, run)
    return ServedPpg(network)


def random_windows(rng: np.random.Generator, count: int) -> Float32:
    """Return windows of a speech-like scale."""
    windows = (rng.standard_normal((count, WINDOW_ROWS, NUM_CEPSTRA)) * 8.0).astype(np.float32)
    windows[..., 0] -= 35.0
    return windows


PPG: Final = WindowNetwork(name="ppg", served=load_served, windows=random_windows)


def export(run: Path, folder: Path) -> Sequence[Path]:
    """Write `folder`/ppg.onnx, ppg.json and ppg.card.md; see research.audio.export.export_network for the errors."""
    return export_network(PPG, run, folder)
