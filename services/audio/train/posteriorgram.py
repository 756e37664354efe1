"""Training of the phonetic posteriorgram network on labelled recordings of a training set."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from services.audio.models import WEIGHTS
from services.audio.networks.ppg import PpgConfig, PpgNetwork
from services.audio.train.augment import AugmentConfig, augment, no_speech
from services.audio.train.exported_ppg import load_exported
from services.audio.train.network_file import save_network
from services.audio.train.recordings import IGNORED, chances, drawn, evenly, excerpt, grouped, long_enough, read_recording
from services.audio.train.windows import (
    ANSWERED,
    Windows,
    feature_scale,
    row_weights,
    served_windows,
    soft_targets,
    windows_of,
    with_hidden_spans,
)
from services.audio.types import ROWS_PER_SECOND
from services.common.wire.phones import SILENCE
from services.training.loop_settings import LoopSettings
from services.training.networks import Opening
from services.training.training import Check, OptimiserSettings, Supervised
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import BoundedCache

_LEAST_ROWS: Final = ROWS_PER_SECOND // 2
_NO_SPEECH_ROWS: Final = 300
_SCALE_WINDOWS: Final = 512
"""Windows from which the scale of the features is measured."""
_CACHE_BYTES: Final = 256 << 20
"""Memory that each worker process keeps of recordings: two hours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PosteriorgramConfig:
    """Configuration of a training of the posteriorgram network.

    Attributes:
        loop: length, pace and machinery.
        optimiser: rates.
        network: sizes of the network.
        augmentation: recording conditions that are drawn anew for each draw of a recording.
        batch_windows: windows of a batch.
        windows_of_a_recording: windows that a batch takes from one augmented recording.
        no_speech_share: share of windows of noise and music-like sound.
        excerpt_s: longest part of a recording that is augmented at once, seconds.
        speaker_exponent: share of a speaker by the length of the speaker's speech (services.audio.train.recordings.chances).
        guessed_weight: weight of clips whose labels no words support, relative to other clips.
        neighbour_target: share of the target for the label of either neighbouring row.
        label_smoothing: share of the target that all phones have alike.
        past_weight: weight of the rows before the answered rows.
        fine_tune: begin with the network that comes with dubstage, and not with random weights. The configuration
            must state the sizes of that network.
        check_clips: held-out clips of a check.
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
        InvalidRequest: the set has no labelled clips of half a second in `train` or in `val`.
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
        place = self.device.torch_device
        labels = torch.from_numpy(batch.labels).to(place).long()
        targets = soft_targets(labels, self._config.neighbour_target, self._config.label_smoothing)
        log_probabilities: Tensor = self.module(torch.from_numpy(batch.cepstra).to(place))
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
            right, known, speech = guess.cpu().numpy() == labels, labels != IGNORED, (labels != IGNORED) & (labels != SILENCE)
            found = np.array([(right & known).sum(), known.sum(), (right & speech).sum(), speech.sum()])
            counts[row.speaker] = counts.get(row.speaker, np.zeros(4, np.int64)) + found
        learned = {row.speaker for row in self._rows}
        values = []
        for speaker, (right, known, right_speech, speech) in counts.items():
            if known:
                group = "accuracy_known" if speaker in learned else "accuracy_new"
                values += [("accuracy", right / known), (group, right / known)]
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
