"""Fit of `speech_map`: `python -m services.motion.predictors.speech_map.train.fit --data SET --output WEIGHTS/motion`.

Each map is the mean of two ridge regressions over the clips of the split `train` with balanced speakers, one from the states of
the encoder's block 2 and one from those of block 3. The solution has a closed form. Before writing, the command measures the maps
on speakers whom they have not seen: each speaker of free speech is left out in turn, and the maps are fitted on the others. This is
the figure to choose features and settings on: clips of other splits are few, and are only shown.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

import numpy as np

from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.common.store.exported_network import card_of, write_whole
from services.common.store.tensor_bytes import encode_arrays
from services.motion.basis import LandmarkBasis
from services.motion.constraints import LIVE as LIVE_CONSTRAINTS
from services.motion.constraints import WHOLE, ConstraintConfig
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predictors.speech_map.grid import SpeechMapGrid
from services.motion.predictors.speech_map.personalize import personalized
from services.motion.speech_map import (
    FILES,
    HEARINGS,
    MODEL_FILE,
    Hearing,
    LinearMap,
    SpeechMapModel,
)
from services.motion.style import Style, encode_style, measure_mouth
from services.motion.train.clips import Clips, TrainingClip, clips_of, footage_of
from services.motion.train.evaluate import OFF
from services.motion.train.metrics import MotionScores
from services.motion.train.protocol import Fold, evaluate_clip, mean_scores
from services.motion.train.served import served_mouths
from services.motion.train.states_filter import SPEAKER_EXPONENT, STRENGTH, fit_states_filter
from services.motion.types import SpeechFeatures
from services.training.card import licence_table
from services.training.tools import command_line, data_parser
from services.training.trainset.reader import TrainSet

FEATURES: Final = tuple(hearing.feature for hearing in HEARINGS)


def fit_map(clips: Clips, basis: LandmarkBasis, hearing: Hearing) -> LinearMap:
    """Fit a map on clips. What holds in a narrow corpus alone is learned apart and left out (RidgeSums)."""

    def target(clip: TrainingClip) -> Float32:
        mouth = measure_mouth(clip.mouth_landmarks[clip.usable], basis)
        return np.asarray(basis.project(clip.mouth_landmarks - mouth.rest_mouth) / mouth.spread, np.float32)

    num_coefficients = len(basis.typical_spread)
    fitted = fit_states_filter(
        clips, target, num_coefficients, past=hearing.past, ahead=hearing.ahead, feature=hearing.feature
    ).shared
    return LinearMap(fitted.weight, fitted.bias, hearing)


def fit_model(clips: Clips, basis: LandmarkBasis) -> SpeechMapModel:
    """Fit both maps on clips that hold the states of both."""
    return SpeechMapModel.made_of(basis, {hearing.feature: fit_map(clips, basis, hearing) for hearing in HEARINGS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Scores of a way to predict, means over people.

    Attributes:
        people: number of people.
        r_opening: Pearson's r of the mouth opening.
        r_width: Pearson's r of the lip width.
        lmd_ratio: error of the lips over that of the person's mean mouth.
        spread: standard deviation of the opening over the true opening's.
        closure: share of p, b, m with closed lips on which the prediction closes too.
    """

    people: int
    r_opening: float
    r_width: float
    lmd_ratio: float
    spread: float
    closure: float


@dataclass(frozen=True, slots=True)
class Way:
    """A way to predict: a map, with or without a person's correction, with constraints."""

    hearing: Hearing
    personal: bool
    constraints: ConstraintConfig

    @property
    def name(self) -> str:
        """Name in the report."""
        constrained = "" if self.constraints == OFF else ", constraints"
        return f"{self.hearing.feature}{', personalised' if self.personal else ''}{constrained}"


WAYS: Final = tuple(
    Way(hearing, personal, constraints)
    for hearing in HEARINGS
    for personal in (False, True)
    for constraints in (OFF, WHOLE if hearing == FILES else LIVE_CONSTRAINTS)
)


def judged(clips: Sequence[tuple[SpeechMapModel, TrainingClip]], way: Way, models: MotionModels) -> Judgement:
    """Return the scores of clips, each with the model that it is predicted by. The clips of a person count by their frames."""
    by_person: dict[str, list[tuple[SpeechMapModel, TrainingClip]]] = {}
    for model, clip in clips:
        by_person.setdefault(clip.speaker, []).append((model, clip))
    scores = [mean_scores([_scores(model, clip, way, models) for model, clip in own]) for own in by_person.values()]
    return Judgement(
        people=len(scores),
        r_opening=fmean(each.opening_correlation for each in scores),
        r_width=fmean(each.width_correlation for each in scores),
        lmd_ratio=fmean(each.lip_distance / each.mean_mouth_distance for each in scores),
        spread=fmean(each.spread_ratio for each in scores),
        closure=sum(each.closure_hits for each in scores) / max(1, sum(each.closure_events for each in scores)),
    )


def _scores(model: SpeechMapModel, clip: TrainingClip, way: Way, models: MotionModels) -> MotionScores:
    def encode(clip: TrainingClip, fold: Fold) -> Style:
        part = fold.enrolment
        style = encode_style(clip.mouth_landmarks[part], clip.usable[part], models.basis, models)
        if not way.personal or part == fold.test:
            return style
        # The correction is learned from the states of files, also that of live speech.
        *_, last = personalized(model, FILES, style, clip.features[part], footage_of(clip, part), models)
        assert last.style is not None
        return last.style

    def predict(features: SpeechFeatures, style: Style) -> Float32:
        return served_mouths(SpeechMapGrid(model, way.hearing, models, style, way.constraints), features)

    return evaluate_clip(clip, encode, predict, control=False).scores


def left_out(clips: Clips, basis: LandmarkBasis) -> list[tuple[SpeechMapModel, TrainingClip]]:
    """Return the clips that are not of a narrow corpus, each with a model that has not seen the clip's speaker.

    Raises:
        InvalidRequest: fewer than two speakers.
    """
    free = [row for row in clips.rows if not row.narrow]
    speakers = sorted({row.speaker for row in free})
    if len(speakers) < 2:
        raise InvalidRequest(f"{len(speakers)} speakers of free speech in the split 'train'; at least two are needed", field="data")
    found = []
    for speaker in speakers:
        model = fit_model(clips.only(row for row in clips.rows if row.speaker != speaker), basis)
        found += [(model, clip) for clip in clips.only(row for row in free if row.speaker == speaker)]
    return found


def write_model(model: SpeechMapModel, folder: Path, clips: Clips, report: dict[str, Judgement]) -> list[Path]:
    """Write speech_map.safetensors, speech_map.json and the card with the data, and return their paths."""
    content = encode_arrays(model.arrays())
    facts = {
        "files": {MODEL_FILE: {"sha256": hashlib.sha256(content).hexdigest()}},
        "strength": STRENGTH,
        "speaker_exponent": SPEAKER_EXPONENT,
        "clips": len(clips),
        "speakers": len({row.speaker for row in clips.rows}),
        "minutes": round(sum(row.seconds for row in clips.rows) / 60, 1),
        "scores": {name: {key: round(value, 4) for key, value in asdict(each).items()} for name, each in report.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = write_whole(folder / MODEL_FILE, content)
    card = "\n".join(["# speech_map", "", *licence_table(clips.rows)])
    sheet = json.dumps(facts, indent=1) + "\n"
    return [path, write_whole(path.with_suffix(".json"), sheet.encode()), write_whole(card_of(path), card.encode())]


def _report(
    clips: Iterable[tuple[str, Sequence[tuple[SpeechMapModel, TrainingClip]]]], models: MotionModels
) -> dict[str, Judgement]:
    found = {}
    for group, members in clips:
        for way in WAYS:
            found[f"{group}: {way.name}"] = judgement = judged(members, way, models)
            line = json.dumps({name: round(value, 3) for name, value in asdict(judgement).items()})
            print(f"{group:24s} {way.name:50s} {line}", flush=True)
    return found


def _others(data: TrainSet, model: SpeechMapModel) -> Iterator[tuple[str, Sequence[tuple[SpeechMapModel, TrainingClip]]]]:
    for split in sorted({row.split for row in data.rows} - {"train"}):
        yield split, [(model, clip) for clip in clips_of(data, split, FEATURES)]


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = data_parser(__doc__)
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="folder of the motion stage's weights, for the landmark basis"
    )
    parser.add_argument("--output", type=Path, help="folder to write speech_map.safetensors to; without it, nothing is written")
    arguments = parser.parse_args()
    data, models = TrainSet(arguments.data), MotionModels(arguments.weights)
    clips = clips_of(data, "train", FEATURES)
    model = fit_model(clips, models.basis)
    report = _report([("leave one speaker out", left_out(clips, models.basis)), *_others(data, model)], models)
    if arguments.output is not None:
        for path in write_model(model, arguments.output, clips, report):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
