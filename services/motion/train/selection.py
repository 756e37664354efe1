"""The choice of a training's best step: scores of held-out clips by group, and one number to select on."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Final

import numpy as np

from services.common.errors import InvalidRequest
from services.motion.basis import LandmarkBasis
from services.motion.style import MIN_FRAMES, StyleCode, StyleNetwork
from services.motion.train.clips import Clips, TrainingClip, clips_of_rows, shows_the_mouth
from services.motion.train.protocol import ClipResult, Predict, encoded_mouths, evaluate_clip, folds, mean_scores
from services.training.trainset.reader import TrainSet

Groups = dict[str, Clips]
"""Held-out clips by group: of the split `val` the groups `known` (speakers of the training) and `new` (other speakers), then one
group for each further split, such as `dev`. Further groups are only shown, never selected on."""
Scores = dict[str, dict[str, float]]
"""Group of clips -> name of a score -> mean over the clips of the group."""

SELECTED_ON: Final = ("known", "new")
"""Groups that the best step is selected on."""
MAX_CLIPS: Final = 24
"""Most clips of a group in a check."""
_MIN_TEST_FRAMES: Final = 10


class NoStyleCode:
    """Style encoder for predictors that read no style code."""

    def encode(self, coefficients: np.ndarray) -> StyleCode:
        """Return an empty code and an empty modulation."""
        return StyleCode(np.zeros(0, np.float32), np.zeros(0, np.float32))


def groups_of(data: TrainSet, extra: Sequence[str] = ()) -> Groups:
    """Return the held-out clips by group. Empty groups are left out.

    Args:
        data: the training set. Each split besides `train` and `val` has a group.
        extra: further tensors of the sound to read (types.EXTRA_FEATURES).
    """
    trained = {row.speaker for row in data.rows if row.split == "train"}
    held_out = clips_of_rows(
        data, [row for row in data.rows if row.split != "train" and row.has_face and shows_the_mouth(row)], extra
    )
    val = [row for row in held_out.rows if row.split == "val"]
    groups = {
        "known": held_out.only(row for row in val if row.speaker in trained),
        "new": held_out.only(row for row in val if row.speaker not in trained),
    }
    for split in sorted({row.split for row in held_out.rows} - {"val"}):
        groups[split] = held_out.only(row for row in held_out.rows if row.split == split)
    return {name: clips for name, clips in groups.items() if len(clips)}


def checked_groups(data: TrainSet, extra: Sequence[str] = ()) -> Groups:
    """Return the groups for the checks of a training: few clips, all of which can be scored.

    A set without clips of the split `val` has no group to select on; its training keeps the last step (may_choose).

    Raises:
        InvalidRequest: there are clips of the split `val`, and none of them can be scored.
    """
    few = {name: clips.evenly(MAX_CLIPS) for name, clips in groups_of(data, extra).items()}
    groups = {name: found for name, clips in few.items() if len(found := _scorable(clips))}
    if any(row.split == "val" and row.has_face for row in data.rows) and not set(groups) & set(SELECTED_ON):
        raise InvalidRequest(
            f"{data.folder}: no clip of split 'val' shows the mouth long enough to be scored; add clips of at least 2 s",
            field="data",
        )
    return groups


def may_choose(groups: Groups) -> bool:
    """Return whether groups of clips may choose the best step: they hold a clip that is not of a narrow corpus.

    What holds in a narrow corpus alone is learned apart and not served. So the served network's scores on such clips do not say
    which step is best for other footage, and the last step is as good a choice.
    """
    return any(not row.narrow for name in SELECTED_ON if name in groups for row in groups[name].rows)


def _scorable(clips: Clips) -> Clips:
    """Return the clips that show the mouth long enough in both parts of each fold."""

    def fits(clip: TrainingClip) -> bool:
        return all(
            clip.usable[fold.enrolment].sum() >= MIN_FRAMES and clip.usable[fold.test].sum() >= _MIN_TEST_FRAMES
            for fold in folds(len(clip))
        )

    return clips.only(row for row, clip in zip(clips.rows, clips, strict=True) if fits(clip))


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
    """Return the summary of each group.

    Args:
        groups: clips by group.
        basis: landmark basis of the style.
        encoder: style encoder.
        predict: the predictor under test.
    """
    encode = encoded_mouths(basis, encoder)
    return {
        name: summary([evaluate_clip(clip, encode, predict, control=False) for clip in members]) for name, members in groups.items()
    }


def selection_score(scores: Scores) -> float:
    """Return the number to select on: r of opening and of width, less the excess of distance, mean over groups."""
    return fmean(s["r_opening"] + 0.5 * s["r_width"] - 0.5 * s["lmd_ratio"] for s in scores.values())


def selected_on(scores: Scores) -> Scores:
    """Return the scores of the groups that the best step is selected on."""
    return {name: score for name, score in scores.items() if name in SELECTED_ON}


def figures(scores: Scores) -> dict[str, float]:
    """Return the scores as figures by name: `GROUP SCORE`."""
    return {f"{group} {name}": value for group, values in scores.items() for name, value in values.items()}
