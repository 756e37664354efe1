"""Fit of the lag's filters: `python -m research.motion.lag --data SET --output WEIGHTS/motion`.

The filters are a canonical correlation analysis with a ridge over the clips of the split `train`, without their lags and with
balanced speakers. Clips of a narrow corpus are left out. The solution has a closed form.

**Zero.** Filters learn the zero of their clips, whose lags were measured by earlier filters. So the command first measures how much
later than real people's the mouths of all clips are: by the times of phones (research.motion.timing, which knows no filters) and,
with --in-sync, by the lags of clips whose sound and picture are known to agree. The mouths are then moved by this time.

Before writing, the command measures the filters on speakers whom the filters have not seen: each speaker is left out in turn, and
the filters are fitted on the others.

* Lags of -8 to 8 frames are put into clips of four seconds and more, and measured.
* Pieces of clips get their own voice, and voices of other speakers. The strength of a lag is the confidence times the root of the
  number of usable frames; the gateway applies a lag by its strength (gateway/dub/analyse/motion_clip.py).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Final

import numpy as np

from research.motion.basis import SHARED_CONSTANTS
from research.motion.clips import (
    Clips,
    TrainingClip,
    clips_of,
    frame_weights,
    held_out_splits,
    on_time,
    read_clip,
    shifted,
    speakers_of_free_speech,
    with_lag_fraction,
)
from research.motion.protocol import SHORT_CLIP_FRAMES
from research.motion.ridge import SPEAKER_EXPONENT
from research.motion.timing import Lateness, clips_of_set, joined, lateness, measured, report_lines
from research.training.command import command_line, data_parser
from research.training.run_folder import write_fitted
from research.training.trainset import TrainSet
from services.common.array_types import Float64
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.wire.mouth_curves import MOTION_FRAME_S
from services.motion.basis import LandmarkBasis
from services.motion.lag import LAG_FILE, LAG_STATES, MIN_FRAMES, MOUTH_AROUND, SOUND_AROUND, LagModel, estimate_lag, standardised
from services.motion.models import WEIGHTS
from services.motion.runtime import read_constants
from services.motion.speech_states import neighbours
from services.motion.types import LagEstimate, SpeechFeatures

MOTION_FRAME_MS: Final = 1e3 * MOTION_FRAME_S
QUARTERS: Final = 4
"""Steps of a frame in which mouths are moved: a lag is measured to a quarter of a frame."""
PAIRS: Final = 16
"""D, pairs of filters."""
SOUND_RIDGE: Final = 0.3
MOUTH_RIDGE: Final = 0.01
"""Ridge of the filters, in units of the mean variance of an input."""
LARGEST_PLANTED: Final = 8
"""Largest lag that is put into a clip, frames."""
LENGTHS: Final = (30, 60, 90, 120, 250)
"""Frames of the pieces that get own and foreign voices."""
_FOREIGN: Final = 8
"""Foreign voices of a piece."""
Judged = Sequence[tuple[LagModel, TrainingClip]]
"""Clips, each with the filters that measure the clip's lag."""


class LagSums:
    """Covariances of speech and mouth over clips, float64: of sound with sound, sound with mouth, and mouth with mouth."""

    def __init__(self, clips: Clips, weights: Float64, basis: LandmarkBasis) -> None:
        """Read the clips. Each clip is measured about its own mean.

        Args:
            weights: weight of a frame of each clip, float64 [N].
            basis: landmark basis of the coefficients.
        """
        sums: list[Float64] = []
        for clip, weight in zip(clips, weights, strict=True):
            coefficients = standardised(clip.mouth_landmarks, clip.usable, basis)
            sound, mouth = (
                neighbours(rows, reach, reach)[clip.usable].reshape(int(clip.usable.sum()), -1).astype(np.float64)
                for rows, reach in ((clip.features.extra[LAG_STATES], SOUND_AROUND), (coefficients, MOUTH_AROUND))
            )
            sound, mouth = sound - sound.mean(axis=0), mouth - mouth.mean(axis=0)
            own = [weight * product for product in (sound.T @ sound, sound.T @ mouth, mouth.T @ mouth)]
            sums = [held + new for held, new in zip(sums, own, strict=True)] if sums else own
        self.sound, self.both, self.mouth = sums

    def without(self, part: LagSums) -> LagSums:
        """Return the sums without those of a part of the clips."""
        rest = LagSums.__new__(LagSums)
        rest.sound, rest.both, rest.mouth = self.sound - part.sound, self.both - part.both, self.mouth - part.mouth
        return rest

    def fit(self, basis: LandmarkBasis) -> LagModel:
        """Return the filters."""
        sound, mouth = _root(self.sound, SOUND_RIDGE), _root(self.mouth, MOUTH_RIDGE)
        whitened = np.linalg.solve(mouth, np.linalg.solve(sound, self.both).T).T
        left, rho, right = np.linalg.svd(whitened, full_matrices=False)
        left, rho, right = left[:, :PAIRS], rho[:PAIRS], right[:PAIRS].T
        weight = rho / (1.0 - rho**2)
        sound_filter, mouth_filter = (
            np.linalg.solve(root.T, side).T.astype(np.float32) for root, side in ((sound, left), (mouth, right))
        )
        # Scores do not depend on the scale of a filter's output. This scale gives outputs of about 1 for any number of clips.
        scales = (np.sqrt(np.trace(own) / len(own)) for own in (self.sound, self.mouth))
        sound_filter, mouth_filter = (
            np.asarray(side * scale, np.float32) for side, scale in zip((sound_filter, mouth_filter), scales, strict=True)
        )
        return LagModel(
            basis,
            np.ascontiguousarray(sound_filter),
            np.ascontiguousarray(mouth_filter),
            np.asarray(weight / weight.sum(), np.float32),
        )


def _root(covariance: Float64, ridge: float) -> Float64:
    """Return the Cholesky factor of a covariance with a ridge, in units of the mean variance."""
    size = len(covariance)
    return np.asarray(np.linalg.cholesky(covariance + ridge * np.trace(covariance) / size * np.eye(size)))


def fit_lag(clips: Clips, basis: LandmarkBasis) -> LagModel:
    """Fit the filters on clips that hold the states of the speech encoder."""
    return LagSums(clips, frame_weights(clips.rows, SPEAKER_EXPONENT), basis).fit(basis)


def left_out(clips: Clips, basis: LandmarkBasis) -> Judged:
    """Return the clips, each with filters that have not seen the clip's speaker.

    Raises:
        InvalidRequestError: fewer than two speakers.
    """
    speakers_of_free_speech(clips.rows)
    weights = dict(zip(clips.rows, frame_weights(clips.rows, SPEAKER_EXPONENT), strict=True))
    every = LagSums(clips, np.array(list(weights.values())), basis)
    pairs = []
    for own in clips.by_speaker().values():
        model = every.without(LagSums(own, np.array([weights[row] for row in own.rows]), basis)).fit(basis)
        pairs += [(model, clip) for clip in own]
    return pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """Measurement of lags that were put into clips of at least four seconds.

    Attributes:
        clips: number of clips.
        lags: number of lags.
        within_one: share of lags that are found within one frame.
    """

    clips: int
    lags: int
    within_one: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Voices:
    """Measurement of pieces of one length with their own voice and with foreign voices.

    Attributes:
        frames: frames of a piece.
        own: number of pieces with their own voice.
        foreign: number of pieces with a foreign voice.
        within_one: share of own voices whose lag is found within one frame.
        own_5: strength that 95 % of own voices exceed.
        foreign_95: strength that 5 % of foreign voices exceed.
        foreign_99: strength that 1 % of foreign voices exceed.
        told_apart: probability that a random own voice is stronger than a random foreign voice.
    """

    frames: int
    own: int
    foreign: int
    within_one: float
    own_5: float
    foreign_95: float
    foreign_99: float
    told_apart: float


def planted(clips: Judged) -> Planted:
    """Put lags of -8 to 8 frames into clips without a lag, and measure the lags."""
    long = [(model, clip) for model, clip in clips if len(clip) >= SHORT_CLIP_FRAMES]
    hits = []
    for model, clip in long:
        for lag in range(-LARGEST_PLANTED, LARGEST_PLANTED + 1):
            late = shifted(clip, -lag)
            estimate = estimate_lag(late.features, late.mouth_landmarks, late.usable, model)
            hits.append(abs(estimate.lag_frames - lag) <= 1)
    return Planted(clips=len(long), lags=len(hits), within_one=float(np.mean(hits)) if hits else math.nan)


def voices(clips: Judged, frames: int) -> Voices | None:
    """Measure pieces with their own voice and with foreign voices; None: no piece is as long, or there is no foreign voice."""
    parts = [
        (model, clip, slice(begin, begin + frames)) for model, clip in clips for begin in range(0, len(clip) - frames + 1, frames)
    ]
    rng = np.random.default_rng(0)
    own, near, foreign = [], [], []
    for model, clip, part in parts:
        if (estimate := _measured(clip.features[part], clip, part, model)) is not None:
            own.append(_strength(estimate, clip, part))
            near.append(abs(estimate.lag_frames) <= 1)
        for index in rng.integers(len(parts), size=_FOREIGN):
            _, other, other_part = parts[index]
            if other.speaker != clip.speaker and (estimate := _measured(other.features[other_part], clip, part, model)) is not None:
                foreign.append(_strength(estimate, clip, part))
    if not own or not foreign:
        return None
    return Voices(
        frames=frames,
        own=len(own),
        foreign=len(foreign),
        within_one=float(np.mean(near)),
        own_5=float(np.quantile(own, 0.05)),
        foreign_95=float(np.quantile(foreign, 0.95)),
        foreign_99=float(np.quantile(foreign, 0.99)),
        told_apart=float((np.array(own)[:, None] > np.array(foreign)).mean()),
    )


def _measured(features: SpeechFeatures, clip: TrainingClip, part: slice, model: LagModel) -> LagEstimate | None:
    if clip.usable[part].sum() < MIN_FRAMES:
        return None
    try:
        return estimate_lag(features, clip.mouth_landmarks[part], clip.usable[part], model)
    except NoUsableFootageError:
        return None


def _strength(estimate: LagEstimate, clip: TrainingClip, part: slice) -> float:
    return estimate.confidence * math.sqrt(clip.usable[part].sum())


def _report(groups: Iterator[tuple[str, Judged]]) -> dict[str, dict[str, float]]:
    report: dict[str, dict[str, float]] = {}
    for group, clips in groups:
        report[f"{group}: planted lags"] = asdict(planted(clips))
        for frames in LENGTHS:
            if (measured := voices(clips, frames)) is not None:
                report[f"{group}: pieces of {frames} frames"] = asdict(measured)
    for name, figures in report.items():
        print(f"{name:46s} {json.dumps({key: round(value, 3) for key, value in figures.items()})}", flush=True)
    return report


def zero_of(data: TrainSet, in_sync: TrainSet | None, filters: LagModel) -> Lateness:
    """Return how much later than real people's the mouths of free speech in a set are, with their lags taken out.

    Two independent estimates are joined: the times of phones in the set, and the lags of clips whose sound and picture are known to
    agree, by the filters that the lags of the set were measured with.

    Args:
        data: training set with phone labels.
        in_sync: training set of clips whose sound and picture are known to agree; None: there is none.
        filters: the filters that measured the lags of both sets.

    Raises:
        InvalidRequestError: the set has too few phones, and no clip is known to be in sync.
    """
    groups = measured(replace(clip, group="free speech") for clip in clips_of_set(data) if not clip.narrow)
    for line in report_lines(groups):
        print(line, flush=True)
    estimates = [lateness(times) for times in groups.values()]
    if in_sync is not None:
        lags = lags_in_sync(in_sync, filters)
        estimates.append(Lateness(MOTION_FRAME_MS * fmean(lags), MOTION_FRAME_MS * stdev(lags) / math.sqrt(len(lags))))
        print(f"{len(lags)} clips in sync: {estimates[-1].ms:+.1f} ms, standard error {estimates[-1].error_ms:.1f} ms", flush=True)
    mean = joined(estimates)
    if math.isnan(mean.ms):
        raise InvalidRequestError(
            "the clips have too few p, b, m and open vowels to find zero by; complete the set with `dubstage trainset`, which "
            "labels phones, add clips, or give clips in sync (--in-sync)",
            field="data",
        )
    return mean


def lags_in_sync(in_sync: TrainSet, filters: LagModel) -> list[float]:
    """Return the lag of each clip of a set as filmed, frames, to a quarter of a frame.

    Raises:
        InvalidRequestError: fewer than two clips have a lag.
    """
    lags = []
    for row in in_sync.rows:
        if row.has_face and row.lag_confidence >= 0.0:
            clip = with_lag_fraction(read_clip(in_sync, row, (LAG_STATES,)), filters)
            lags.append(row.lag_frames + clip.lag_fraction)
    if len(lags) < 2:
        raise InvalidRequestError(f"{in_sync.folder}: {len(lags)} clips have a lag; at least two are needed", field="in_sync")
    return lags


def write_model(model: LagModel, folder: Path, clips: Clips, report: dict[str, dict[str, float]], late_frames: float) -> list[Path]:
    """Write lag.safetensors, lag.json and the card with the data, and return their paths.

    Args:
        late_frames: frames by which the mouths of the clips were moved.
    """
    settings = {
        "moved_frames": round(late_frames, 3),
        "pairs": PAIRS,
        "sound_ridge": SOUND_RIDGE,
        "mouth_ridge": MOUTH_RIDGE,
        "speaker_exponent": SPEAKER_EXPONENT,
    }
    scores = {name: {key: round(value, 4) for key, value in each.items()} for name, each in report.items()}
    return write_fitted(folder / LAG_FILE, model.arrays(), settings, clips.rows, scores)


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = data_parser(__doc__)
    parser.add_argument(
        "--weights",
        type=Path,
        default=WEIGHTS,
        help="folder of the motion stage's weights: the landmark basis, and the filters of the set's lags",
    )
    parser.add_argument(
        "--in-sync",
        type=Path,
        help="training set of clips whose sound and picture are known to agree; nothing else is learned from them",
    )
    parser.add_argument("--output", type=Path, help="folder to write lag.safetensors to; without it, nothing is written")
    arguments = parser.parse_args()
    data = TrainSet(arguments.data, any_zero=True)
    basis = LandmarkBasis.named(read_constants(arguments.weights / SHARED_CONSTANTS))
    in_sync = TrainSet(arguments.in_sync, any_zero=True) if arguments.in_sync is not None else None
    late_frames = round(QUARTERS * zero_of(data, in_sync, LagModel.read(arguments.weights)).ms / MOTION_FRAME_MS) / QUARTERS
    print(f"mouths are moved earlier by {late_frames:g} frames", flush=True)
    every = clips_of(data, "train", (LAG_STATES,))
    clips = every.only(row for row in every.rows if not row.narrow).moved(lambda clip: on_time(clip, late_frames))
    judged = left_out(clips, basis)
    model = fit_lag(clips, basis)

    def groups() -> Iterator[tuple[str, Judged]]:
        yield "leave one speaker out", judged
        for split in held_out_splits(data):
            held_out = clips_of(data, split, (LAG_STATES,)).moved(lambda clip: on_time(clip, late_frames))
            yield split, [(model, clip) for clip in held_out]

    report = _report(groups())
    if arguments.output is not None:
        for path in write_model(model, arguments.output, clips, report, late_frames):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
