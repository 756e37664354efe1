"""Likeness of generated and real head motion: HS (Yi et al. 2020, Sec. 4.4, Eq. 6), and the same score of angular velocity.

    HS = 1 - W1(P_real, P_gen) / normaliser,    W1 = sum over bins |CDF_real - CDF_gen| * width

P is a histogram of pitch, yaw or roll. HS is the mean over the three. Many head motions fit the same sound, so distributions are
compared and not frames.

The paper gives neither range nor bins. Here, angles have bins of 1 degree from -45 to 45 degrees, and angular velocities have bins
of 2 from -100 to 100 degrees per second. Values outside count in the outermost bin. The normaliser is the width of the range, which
is the largest distance of two histograms. **So wide a range makes every score high**: the angles of a speaking head vary by 10 or
20 degrees. Therefore each score is also given with the real video's own range (largest minus smallest value, at least one bin) as
normaliser; that score is never below 0.

Compare each score with those of two controls: a still head (the person's mean pose), and the person's own poses shuffled in time.
The shuffled angles have exactly the real distribution, but the shuffled velocities do not.

The scores are computed for a method over the folds of a clip, and for the two controls.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from research.evaluation.types import HeadMotion, HeadMotionResult
from services.common.array_types import Bool, Float64
from services.common.errors import InvalidRequestError
from services.common.store.tensor_bytes import decode_arrays

AXES: Final = ("pitch", "yaw", "roll")
CONTROL_SEED: Final = 0
_VECTOR_SIZE: Final = 6
HEAD_ROWS: Final = ("output", "predicted", "still", "shuffled")
"""Head motions that are scored against the real motion.

    output     motion that the video shows: poses of the chosen backgrounds
    predicted  motion that the motion stage predicted
    still      control: the mean pose of the enrolment part in every frame
    shuffled   control: the poses of the enrolment part in random order
"""
HEAD_FIGURES: Final = ("hs", "hs_own_range", "hs_velocity", "hs_velocity_own_range")
"""HS of angles and of angular velocities, normalised by the range of the binning and by the real motion's own range."""


@dataclass(frozen=True, slots=True)
class Binning:
    """Bins of a histogram: `num_bins` of equal width from `low` to `high`."""

    low: float
    high: float
    num_bins: int

    @property
    def width(self) -> float:
        """Width of one bin."""
        return (self.high - self.low) / self.num_bins

    @property
    def span(self) -> float:
        """Width of all bins: the largest distance of two histograms, and the usual normaliser."""
        return self.high - self.low


ANGLES: Final = Binning(-45.0, 45.0, 90)
"""Degrees."""
VELOCITIES: Final = Binning(-100.0, 100.0, 100)
"""Degrees per second."""


def histogram(values: Float64, binning: Binning) -> Float64:
    """Return the shares of values [N] in each bin, float64 [num_bins], sum 1. Values outside count in the outermost bin."""
    index = np.clip(np.floor((values - binning.low) / binning.width).astype(np.intp), 0, binning.num_bins - 1)
    return np.asarray(np.bincount(index, minlength=binning.num_bins) / len(values), np.float64)


def histogram_distance(first: Float64, second: Float64, binning: Binning) -> float:
    """Return the first Wasserstein distance of two histograms, in the unit of their bins."""
    return float(np.abs(np.cumsum(first - second)).sum() * binning.width)


@dataclass(frozen=True, slots=True)
class Likeness:
    """HS of one kind of value.

    Attributes:
        score: mean over pitch, yaw and roll, normalised by the binning's whole range.
        own_range: the same, normalised by the real video's own range.
        axes: `score` of pitch, yaw and roll.
        axes_own_range: `own_range` of pitch, yaw and roll.
    """

    score: float
    own_range: float
    axes: tuple[float, float, float]
    axes_own_range: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class HeadMotionScore:
    """HS of head poses and of angular velocities."""

    pose: Likeness
    velocity: Likeness


def likeness(generated: Float64, real: Float64, binning: Binning) -> Likeness:
    """Return the HS of generated values, float64 [N, 3], against real values, float64 [M, 3]."""
    distances, spans = [], []
    for axis in range(len(AXES)):
        first, second = histogram(real[:, axis], binning), histogram(generated[:, axis], binning)
        distances.append(histogram_distance(first, second, binning))
        inside = np.clip(real[:, axis], binning.low, binning.high)
        spans.append(max(float(inside.max() - inside.min()), binning.width))
    scores = [1.0 - distance / binning.span for distance in distances]
    own = [max(0.0, 1.0 - distance / span) for distance, span in zip(distances, spans, strict=True)]
    return Likeness(float(np.mean(scores)), float(np.mean(own)), (scores[0], scores[1], scores[2]), (own[0], own[1], own[2]))


def angles(poses: Float64) -> Float64:
    """Return pitch, yaw and roll of head-pose vectors float64 [T, 6]: float64 [T, 3], degrees."""
    return np.asarray(np.degrees(poses[:, :3]), np.float64)


def angular_velocities(poses: Float64, usable: Bool, frame_rate: float) -> Float64:
    """Return the angular velocities between neighbouring usable frames, float64 [N, 3], degrees per second."""
    together = usable[1:] & usable[:-1]
    change = np.remainder(np.diff(angles(poses), axis=0) + 180.0, 360.0) - 180.0
    return np.asarray(change[together] * frame_rate, np.float64)


def head_motion_score(
    generated: Float64,
    real: Float64,
    *,
    frame_rate: float = 25.0,
    generated_usable: Bool | None = None,
    real_usable: Bool | None = None,
) -> HeadMotionScore:
    """Return the HS of generated head poses against the head poses of a real person.

    Args:
        generated: float64 [N, 6], head-pose vectors (docs/coordinates.md).
        real: float64 [M, 6]; M may differ from N.
        frame_rate: frames per second of both.
        generated_usable: bool [N]; None: all.
        real_usable: bool [M]; None: all.

    Raises:
        InvalidRequestError: the arrays are no head-pose vectors, or one of them has no two neighbouring usable frames.
    """
    sides = []
    for name, poses, usable in (("generated", generated, generated_usable), ("real", real, real_usable)):
        if poses.ndim != 2 or poses.shape[1] != _VECTOR_SIZE or not np.isfinite(poses).all():
            raise InvalidRequestError(f"{name}: finite head-pose vectors [T, 6] are needed, not {list(poses.shape)}", field=name)
        kept = np.ones(len(poses), np.bool_) if usable is None else usable
        velocities = angular_velocities(poses, kept, frame_rate)
        if not len(velocities):
            raise InvalidRequestError(f"{name}: two neighbouring usable frames are needed", field=name)
        sides.append((angles(poses[kept]), velocities))
    (output, output_velocity), (true, true_velocity) = sides
    return HeadMotionScore(likeness(output, true, ANGLES), likeness(output_velocity, true_velocity, VELOCITIES))


def still_head(poses: Float64) -> Float64:
    """Return the control with the mean pose in every frame, float64 [T, 6]."""
    return np.repeat(poses.mean(axis=0)[None], len(poses), axis=0)


def shuffled_head(poses: Float64, seed: int = CONTROL_SEED) -> Float64:
    """Return the control with the person's own poses in random order, float64 [T, 6]."""
    return np.asarray(poses[np.random.default_rng(seed).permutation(len(poses))])


def score_heads(motions: Sequence[HeadMotion], frame_rate: float, first_frame: int) -> HeadMotionResult:
    """Return HEAD_FIGURES of HEAD_ROWS: means over folds, weighted by frames.

    Args:
        motions: one per fold, at least one.
        frame_rate: frames per second.
        first_frame: first frame of the first fold's test part.

    Raises:
        InvalidRequestError: too few frames of a fold show the face.
    """
    weights = np.array([len(motion.real) for motion in motions], np.float64)
    per_fold = [_rows(motion, frame_rate) for motion in motions]
    scores = {
        row: {name: float(np.average([metrics[row][name] for metrics in per_fold], weights=weights)) for name in HEAD_FIGURES}
        for row in HEAD_ROWS
    }
    return HeadMotionResult(scores, motions[0], first_frame)


def _rows(motion: HeadMotion, frame_rate: float) -> dict[str, dict[str, float]]:
    tracked = np.asarray(np.isfinite(motion.real).all(axis=1), np.bool_)
    real = np.where(tracked[:, None], motion.real, 0.0)

    def metrics(poses: Float64) -> dict[str, float]:
        score: HeadMotionScore = head_motion_score(poses, real, frame_rate=frame_rate, real_usable=tracked)
        values = (score.pose.score, score.pose.own_range, score.velocity.score, score.velocity.own_range)
        return dict(zip(HEAD_FIGURES, values, strict=True))

    heads = {
        "output": motion.output,
        "predicted": motion.predicted,
        "still": still_head(motion.enrolled),
        "shuffled": shuffled_head(motion.enrolled),
    }
    return {row: metrics(heads[row]) for row in HEAD_ROWS}


def main() -> None:
    """Print the scores of every clip of a file of poses: arrays `<clip>/real` and `<clip>/known`, and generated heads
    `<clip>/NAME`.
    """
    parser = argparse.ArgumentParser(
        description="Print HS of the head poses in a file that the evaluation of a trained head predictor wrote."
    )
    parser.add_argument("poses", type=Path, help="file (.safetensors)")
    named = decode_arrays(parser.parse_args().poses.read_bytes())
    rate = float(named.metadata.get("frame_rate", "25"))
    for clip in sorted({name.rsplit("/", 1)[0] for name in named.arrays}):
        real, enrolled = named[f"{clip}/real"], named[f"{clip}/known"]
        heads = {name.rsplit("/", 1)[1]: named[name] for name in named.arrays if name.startswith(f"{clip}/")}
        generated = {name: poses for name, poses in heads.items() if name not in {"real", "known"}}
        for name, poses in {
            **generated,
            "known": enrolled,
            "still": still_head(enrolled),
            "shuffled": shuffled_head(enrolled),
        }.items():
            score = head_motion_score(poses, real, frame_rate=rate)
            print(
                f"{clip:24s} {name:16s} HS {score.pose.score:.3f} (own range {score.pose.own_range:.3f})   "
                f"velocity {score.velocity.score:.3f} (own range {score.velocity.own_range:.3f})"
            )


if __name__ == "__main__":
    main()
