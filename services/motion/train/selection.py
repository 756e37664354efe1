"""The choice of a training's best step: scores of selection clips by group, and one number to select on."""

from __future__ import annotations

from statistics import fmean

from services.motion.basis import LandmarkBasis
from services.motion.style import StyleNetwork
from services.motion.train.clips import TrainingClip
from services.motion.train.loop import Scores
from services.motion.train.protocol import ClipResult, Predict, encoded_mouths, evaluate_clip, mean_scores

Groups = dict[str, list[TrainingClip]]


def groups_of(clips: list[TrainingClip], trained: set[str]) -> Groups:
    """Return `val` and `dev` clips by kind: other sentences of trained speakers, new speakers, dev footage.

    Args:
        clips: the clips.
        trained: speakers of the training clips.
    """
    return {
        "known": [clip for clip in clips if clip.use == "val" and clip.speaker in trained],
        "new": [clip for clip in clips if clip.use == "val" and clip.speaker not in trained],
        "dev": [clip for clip in clips if clip.use == "dev"],
    }


def summary(results: list[ClipResult]) -> dict[str, float]:
    """Return the means over clips."""
    scores = mean_scores([result.scores for result in results], by_frames=False)
    return {
        "r_opening": scores.opening_correlation,
        "r_width": scores.width_correlation,
        "lmd_ratio": scores.lip_distance / scores.mean_mouth_distance,
        "spread": scores.spread_ratio,
        "step": scores.step_ratio,
        "closure": scores.closure_hits / max(1, scores.closure_events),
    }


def scores_by_group(groups: Groups, basis: LandmarkBasis, encoder: StyleNetwork, predict: Predict) -> Scores:
    """Return the summary of each group that has clips.

    Args:
        groups: clips by group.
        basis: landmark basis of the style.
        encoder: style encoder.
        predict: the predictor under test.
    """
    encode = encoded_mouths(basis, encoder)
    return {
        name: summary([evaluate_clip(clip, encode, predict, control=False) for clip in members])
        for name, members in groups.items()
        if members
    }


def selection_score(scores: Scores) -> float:
    """Return the number to select on: r of opening and of width, less the excess of distance, mean over groups."""
    return fmean(s["r_opening"] + 0.5 * s["r_width"] - 0.5 * s["lmd_ratio"] for s in scores.values())


def without_dev(scores: Scores) -> Scores:
    """Return the scores without the group `dev`, which is only shown."""
    return {name: score for name, score in scores.items() if name != "dev"}


def describe(scores: Scores) -> str:
    """Return the scores as one line of text."""
    return " | ".join(
        f"{group} " + " ".join(f"{name} {value:.2f}" for name, value in values.items()) for group, values in scores.items()
    )
