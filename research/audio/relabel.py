"""Label clips by a network: `python -m research.audio.relabel --data SET --weights FOLDER`.

Free phone recognition labels the clips whose words are unknown (origin `allphone`). A trained posteriorgram network tells phones
better. The command replaces these labels by the most probable phones of the network (origin `network`). Rows of which the network
is not sure become unknown. A network that is trained with these labels can label the clips once more.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from research.audio.labelling import PhoneLabels, write_labels
from research.audio.posteriorgram import served_windows
from research.audio.recordings import GUESSED, IGNORED, LabelledSignal, read_sound
from research.training.command import command_line
from research.training.trainset import TrainSet, write_manifest
from services.audio.models import WEIGHTS
from services.audio.posteriorgram import PosteriorgramModel
from services.common.wire.phones import NUM_PHONES

PROBABILITY: Final = 0.5
"""Least probability of a phone that becomes a label."""


def relabel(data: TrainSet, weights: Path) -> int:
    """Label the clips whose labels are guessed, and return their number.

    Args:
        weights: folder with ppg.onnx.

    Raises:
        ModelNotFoundError: there is no ppg.onnx.
        InvalidRequestError: a file of the set is missing or damaged.
    """
    model = PosteriorgramModel(weights)
    rows = [row for row in data.rows if row.phones in GUESSED]
    for row in rows:
        free_phones = data.arrays(row, "phones", ["heard"])["heard"].astype(np.uint8)
        windows = served_windows(LabelledSignal(read_sound(data.folder, row).samples, free_phones))
        probabilities = model.run(windows.cepstra).reshape(-1, NUM_PHONES)[: len(free_phones)]
        sure = probabilities.max(axis=1) >= PROBABILITY
        labels = np.where(sure, probabilities.argmax(axis=1), IGNORED).astype(np.uint8)
        write_labels(data.folder, row, PhoneLabels(labels, free_phones, "network", ""))
    write_manifest(data.folder, [replace(row, phones="network") if row.phones in GUESSED else row for row in data.rows])
    return len(rows)


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set with phones, made by `dubstage trainset`")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder with ppg.onnx")
    arguments = parser.parse_args()
    print(f"{relabel(TrainSet(arguments.data), arguments.weights)} clips")
    return 0


if __name__ == "__main__":
    sys.exit(main())
