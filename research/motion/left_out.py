"""Judge a network on speakers whom it has not seen: `python -m research.motion.left_out NETWORK --data SET`.

The speakers of free speech in the split `train` (of no narrow corpus) are left out in turn, one or several at a time. The network
is trained on the others and scored on those left out: mouths before constraints and before personalisation. Choose inputs and
settings on these figures. `--config states` and `--config phones` take another input for a network.
Clips of other splits are not read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from statistics import fmean
from typing import Any, Final

from research.motion.clips import speakers_of_free_speech
from research.motion.networks import NETWORKS
from research.motion.protocol import Scores
from research.motion.training import PredictorTraining
from research.training.command import DEFAULT, command_line, configuration, data_parser
from research.training.device import CPU
from research.training.networks import Opening, TrainableNetwork
from research.training.trainset import TrainSet
from services.common.errors import InvalidRequestError

FOLDS: Final = 6
"""Default number of trainings."""


def left_out_sets(data: TrainSet, folds: int) -> Iterator[tuple[list[str], TrainSet]]:
    """Yield the speakers of each fold, and the training set in which their clips are the split `val`.

    Args:
        folds: number of folds, 2 or more. More than there are speakers count as one a speaker.

    Raises:
        InvalidRequestError: fewer than two folds, or fewer than two speakers of free speech.
    """
    if folds < 2:
        raise InvalidRequestError(
            f"--folds {folds}: at least 2 are needed, one is left out and the others are learned from", field="folds"
        )
    rows = [row for row in data.rows if row.split == "train"]
    speakers = speakers_of_free_speech(rows)
    count = min(folds, len(speakers))
    for first in range(count):
        out = speakers[first::count]
        part = copy(data)
        part.rows = tuple(replace(row, split="val") if row.speaker in out else row for row in rows)
        yield out, part


def left_out_scores(network: TrainableNetwork, config: Any, data: TrainSet, folds: int) -> Iterator[tuple[Scores, Scores]]:
    """Train a network for each fold; yield the scores of the network and of its closed-form part, by speaker left out.

    A network without a closed-form part has no scores of it.

    Raises:
        InvalidRequestError: the network is no predictor of mouths, or there are fewer than two speakers of free speech.
    """
    for out, part in left_out_sets(data, folds):
        training = network.open(Opening(config, part, CPU, {}))
        if not isinstance(training, PredictorTraining):
            raise InvalidRequestError(f"{network.name} predicts no mouths; give another network", field="network")
        clips = training.groups["new"]
        by_speaker = {speaker: clips.only(row for row in clips.rows if row.speaker == speaker) for speaker in out}
        training.groups = {speaker: group for speaker, group in by_speaker.items() if len(group)}
        for step in range(config.loop.steps):
            training.learn(step, [training.batch(step, index) for index in range(config.loop.batches)])
        yield training.scores(), training.baseline()


def mean_over_speakers(scores: Scores) -> dict[str, float]:
    """Return the mean of each score over speakers."""
    names = next(iter(scores.values()), {})
    return {name: fmean(each[name] for each in scores.values()) for name in names}


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    networks = {network.name: network for network in NETWORKS}
    parser = data_parser(__doc__)
    parser.add_argument("network", choices=tuple(networks), help="Network to train and to score.")
    parser.add_argument("--config", default=DEFAULT, help="Preset or TOML file, as for `dubstage train`. Default: default.")
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"Number of trainings. Default: {FOLDS}.")
    arguments = parser.parse_args()
    network = networks[arguments.network]
    config = configuration(network.configs, arguments.config)
    own: Scores = {}
    closed_form: Scores = {}
    for scores, baseline in left_out_scores(network, config, TrainSet(arguments.data), arguments.folds):
        for speaker, figures in scores.items():
            print(f"{speaker:24s}", json.dumps({name: round(value, 3) for name, value in figures.items()}), flush=True)
        own |= scores
        closed_form |= baseline
    for title, by_speaker in (("closed form alone", closed_form), ("network", own)):
        if by_speaker:
            line = {name: round(value, 3) for name, value in mean_over_speakers(by_speaker).items()}
            print(f"{title:24s}", json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
