"""How far the mouths of predictors agree: `python -m research.motion.agreement --data SET --split dev_people`.

Each clip enrols and personalises every predictor on its first 60 %, and the predictors move the mouth for the rest of the clip's
sound. The command prints the correlation of the openings of each pair of predictors, as a mean over the clips, and with the real
opening. Two methods whose mouths agree beyond .95 speak with one mouth.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from research.motion.clips import TrainingClip, clips_of, synced_footage_of
from research.motion.evaluate import extra_features
from research.motion.protocol import pearson, served_mouths
from research.training.command import command_line, data_parser
from research.training.trainset import TrainSet
from services.common.array_types import Float32, Float64
from services.common.face.landmarks import mouth_opening
from services.common.methods import DEFAULT_METHOD, METHODS, PAPERS
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predictor import Predictor
from services.motion.predictors.registry import predictor_named

ENROLMENT: Final = 0.6
"""Share of a clip that predictors are enrolled and personalised on."""
PREDICTORS_COMPARED: Final = tuple(METHODS[name].motion.name for name in (DEFAULT_METHOD, *PAPERS))
REAL: Final = "real"
"""Name of the row of the real openings."""


def openings(clip: TrainingClip, predictors: Sequence[Predictor], models: MotionModels) -> dict[str, Float32]:
    """Return the openings of the last part of a clip by predictor, and the real ones: float32 [T] each, crop pixels.

    Frames at which the real mouth cannot be used are left out.

    Raises:
        NoUsableFootageError: the first part is too short to personalise on.
    """
    cut = int(len(clip) * ENROLMENT)
    seen = clip.usable[cut:]
    by_predictor = {REAL: mouth_opening(clip.mouth_landmarks[cut:])[seen]}
    footage = synced_footage_of(clip, slice(0, cut))
    for predictor in predictors:
        style = predictor.encode_style(footage, models)
        *_, last = predictor.personalize(style, clip.features[:cut], footage, models)
        assert last.style is not None
        mouths = served_mouths(predictor.open(models, last.style, None), clip.features)
        by_predictor[predictor.spec.name] = mouth_opening(mouths[cut:])[seen]
    return by_predictor


def agreement(clips: Iterable[TrainingClip], predictors: Sequence[Predictor], models: MotionModels) -> tuple[list[str], Float64]:
    """Return the names of the rows, and the mean correlation of the openings of each pair over the clips, float64 [N, N]."""
    matrices: list[Float64] = []
    names: list[str] = []
    for clip in clips:
        by_predictor = openings(clip, predictors, models)
        names = list(by_predictor)
        matrices.append(
            np.array([[pearson(by_predictor[one], by_predictor[other]) for other in names] for one in names], np.float64)
        )
    return names, np.asarray(np.mean(matrices, axis=0), np.float64)


def table(names: Sequence[str], matrix: Float64) -> str:
    """Return the matrix as a table in Markdown."""
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| `{name}` | {' | '.join(f'{value:.2f}' for value in row)} |" for name, row in zip(names, matrix, strict=True)]
    return "\n".join(lines)


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = data_parser(__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help=f"Folder of exported models. Default: {WEIGHTS}.")
    parser.add_argument("--split", default="dev_people", help="Split of the clips. Default: dev_people.")
    parser.add_argument("--json", type=Path, help="File for the matrix. Default: the matrix is only printed.")
    arguments = parser.parse_args()
    predictors = [predictor_named(name) for name in PREDICTORS_COMPARED]
    extra = sorted({name for predictor in predictors for name in extra_features(predictor)})
    clips = clips_of(TrainSet(arguments.data), arguments.split, extra)
    names, matrix = agreement(clips, predictors, MotionModels(arguments.weights))
    print(table(names, matrix))
    if arguments.json:
        arguments.json.write_text(json.dumps({"names": names, "correlation": matrix.tolist()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
