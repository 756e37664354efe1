"""A predictor that is trained in several ways and scored on speakers whom it has not seen (research.motion.left_out)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from research.motion.left_out import FOLDS, left_out_scores, mean_over_speakers
from research.motion.protocol import Scores
from research.reproduce.run import Material, Measured
from research.training.networks import network_named
from research.training.trainset import TrainSet

_QUICK_STEPS: Final = 40


def left_out(material: Material, network: str, ways: Mapping[str, tuple[Any, TrainSet]]) -> Measured:
    """Train a predictor in several ways, with speakers left out in turn, and return the scores on these speakers.

    With `quick`, only the first speakers are left out, and the trainings are a few steps long.

    Args:
        network: name of the network (`dubstage train list`).
        ways: configuration and training set by the row of the claim.

    Returns:
        `r_opening`, `r_width` and `lmd_ratio` of each row, means over speakers.

    Raises:
        InvalidRequestError: the set has fewer than two speakers of free speech.
    """
    trained = network_named(network)
    by_row: dict[str, Scores] = {}
    trainings = 1 if material.quick else FOLDS
    done = 0
    for row, (config, data) in ways.items():
        short = replace(config, loop=replace(config.loop, steps=_QUICK_STEPS)) if material.quick else config
        own: Scores = {}
        for scores, _ in left_out_scores(trained, short, data, FOLDS):
            own |= scores
            done += 1
            material.progress("trainings", done, trainings * len(ways))
            if material.quick:
                break
        by_row[row] = own
    speakers = sorted({speaker for own in by_row.values() for speaker in own})
    return Measured(
        {row: mean_over_speakers(own) for row, own in by_row.items()},
        f"mouths of {len(speakers)} people who were left out of the training ({', '.join(speakers)})",
    )
