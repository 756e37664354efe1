"""Fit of `speech_map`: `python -m research.methods.speech_map.motion --data SET --output WEIGHTS/motion`.

Each map is the mean of two ridge regressions over the clips of the split `train` with balanced speakers, one from the states of
the encoder's block 2 and one from the states of block 3. The solution has a closed form. Closed lips and, in live speech, voice
activity are logistic regressions (logistic.py).

Before writing, the command measures the maps on speakers whom they have not seen: each speaker of free speech is left out in turn,
and the maps are fitted on the others. This is the figure to choose features and settings on: clips of other splits are few, and are
only shown.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from research.methods.speech_map.logistic import (
    CLOSED_STRENGTH,
    SOUND_WEIGHT,
    SPEECH_STRENGTH,
    Sounds,
    balanced,
    fit_logistic,
    lips_of_clips,
    read_sounds,
    speech_of_clips,
)
from research.motion.clips import (
    Clips,
    TrainingClip,
    clips_of,
    heard_footage_of,
    held_out_splits,
    speakers_of_free_speech,
    with_lag_fraction,
)
from research.motion.evaluate import OFF
from research.motion.protocol import ClipFold, ClipScores, evaluate_clip, people_and_means, served_mouths
from research.motion.ridge import SPEAKER_EXPONENT, STRENGTH, fit_states_filter, mouth_target
from research.training.command import command_line, data_parser
from research.training.run_folder import write_fitted
from research.training.trainset import TrainSet
from services.common.array_types import Float32
from services.motion.basis import LandmarkBasis
from services.motion.constraints import WHOLE, ConstraintConfig
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predictors.speech_map.predictor import CONSTRAINTS, SpeechMapPredictor, personalized
from services.motion.speech_map import FILES, HEARINGS, MODEL_FILE, Hearing, LinearMap, SpeechMapModel, VoiceActivity
from services.motion.style import Style, encode_style
from services.motion.types import SpeechFeatures

FEATURES: Final = tuple(hearing.feature for hearing in HEARINGS)


def fit_map(clips: Clips, basis: LandmarkBasis, hearing: Hearing, sounds: Sounds | None = None) -> LinearMap:
    """Fit a map.

    Args:
        clips: the clips. What holds in a narrow corpus alone is learned apart and left out (RidgeSums).
        basis: landmark basis of the coefficients.
        hearing: input of the map.
        sounds: frames of sound without a picture, for the logistic regressions.
    """
    weight, bias = fit_coefficients(clips, basis, hearing)
    lips = [lips_of_clips(clips, hearing), *([sounds.lips] if sounds else [])]
    activity: VoiceActivity | None = None
    if hearing.live:
        speech = [speech_of_clips(clips, hearing), *(sounds.speech if sounds else [])]
        activity = VoiceActivity(*fit_logistic(balanced(speech), SPEECH_STRENGTH))
    return LinearMap(weight, bias, *fit_logistic(lips, CLOSED_STRENGTH), hearing, activity)


def fit_coefficients(clips: Clips, basis: LandmarkBasis, hearing: Hearing) -> tuple[Float32, Float32]:
    """Return W, float32 [K, width * 192], and w, float32 [K], of the map to coefficients. Arguments: see fit_map."""
    num_coefficients = len(basis.typical_spread)
    fitted = fit_states_filter(
        clips, partial(mouth_target, basis=basis), num_coefficients, past=hearing.past, ahead=hearing.ahead, feature=hearing.feature
    ).shared
    return fitted.weight, fitted.bias


def fit_model(clips: Clips, basis: LandmarkBasis, sounds: Mapping[str, Sounds]) -> SpeechMapModel:
    """Fit both maps on clips that hold the states of both. `sounds` is by feature."""
    maps = {hearing.feature: fit_map(clips, basis, hearing, sounds.get(hearing.feature)) for hearing in HEARINGS}
    return SpeechMapModel.made_of(basis, maps)


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
        width_spread: standard deviation of the lip width without its slow part over the true lips'.
        fastest_step: largest change of the opening from frame to frame over the true opening's.
        vowel_shift_ms: how much later than the true mouths the predicted ones are widest about open vowels, milliseconds.
        closure_shift_ms: how much later the predicted lips are closest about p, b, m.
    """

    people: int
    r_opening: float
    r_width: float
    lmd_ratio: float
    spread: float
    closure: float
    width_spread: float
    fastest_step: float
    vowel_shift_ms: float
    closure_shift_ms: float


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
    for constraints in (OFF, CONSTRAINTS if hearing.live else WHOLE)
)


def judged(clips: Sequence[tuple[SpeechMapModel, TrainingClip]], way: Way, models: MotionModels) -> Judgement:
    """Return the scores of clips, each with the model that it is predicted by. The clips of a person count by their frames."""
    results = [_result(model, clip, way, models) for model, clip in clips]
    people, means = people_and_means(results)
    return Judgement(
        people=len(people),
        closure=sum(each.closure_hits for each in people) / max(1, sum(each.closure_events for each in people)),
        **means,
    )


def _result(model: SpeechMapModel, clip: TrainingClip, way: Way, models: MotionModels) -> ClipScores:
    def encode(clip: TrainingClip, fold: ClipFold) -> Style:
        part = fold.enrolment
        style = encode_style(clip.mouth_landmarks[part], clip.usable[part], models.basis, models)
        if not way.personal or part == fold.test:
            return style
        # The correction is learned from the states of files, also that of live speech.
        *_, last = personalized(model, FILES, style, clip.features[part], heard_footage_of(clip, part), models)
        assert last.style is not None
        return last.style

    def predict(features: SpeechFeatures, style: Style) -> Float32:
        return served_mouths(SpeechMapPredictor(model, way.hearing, models, style, way.constraints), features)

    return evaluate_clip(with_lag_fraction(clip, models.lag), encode, predict, control=False)


def left_out(clips: Clips, basis: LandmarkBasis, sounds: Mapping[str, Sounds]) -> list[tuple[SpeechMapModel, TrainingClip]]:
    """Return the clips that are not of a narrow corpus, each with a model that has not seen the clip's speaker.

    Raises:
        InvalidRequestError: fewer than two speakers.
    """
    free = [row for row in clips.rows if not row.narrow]
    found = []
    for speaker in speakers_of_free_speech(clips.rows):
        model = fit_model(clips.only(row for row in clips.rows if row.speaker != speaker), basis, sounds)
        found += [(model, clip) for clip in clips.only(row for row in free if row.speaker == speaker)]
    return found


def write_model(model: SpeechMapModel, folder: Path, clips: Clips, report: dict[str, Judgement]) -> list[Path]:
    """Write speech_map.safetensors, speech_map.json and the card with the data, and return their paths."""
    settings = {
        "strength": STRENGTH,
        "speaker_exponent": SPEAKER_EXPONENT,
        "closed_strength": CLOSED_STRENGTH,
        "speech_strength": SPEECH_STRENGTH,
        "sound_weight": SOUND_WEIGHT,
    }
    scores = {name: _rounded(each, 4) for name, each in report.items()}
    return write_fitted(folder / MODEL_FILE, model.arrays(), settings, clips.rows, scores)


def _rounded(judgement: Judgement, digits: int) -> dict[str, float | None]:
    """Return the figures of a judgement; None for a figure that could not be measured."""
    return {name: round(value, digits) if math.isfinite(value) else None for name, value in asdict(judgement).items()}


def _report(
    clips: Iterable[tuple[str, Sequence[tuple[SpeechMapModel, TrainingClip]]]], models: MotionModels
) -> dict[str, Judgement]:
    found = {}
    for group, members in clips:
        for way in WAYS:
            found[f"{group}: {way.name}"] = judgement = judged(members, way, models)
            line = json.dumps(_rounded(judgement, 3))
            print(f"{group:24s} {way.name:50s} {line}", flush=True)
    return found


def _others(data: TrainSet, model: SpeechMapModel) -> Iterator[tuple[str, Sequence[tuple[SpeechMapModel, TrainingClip]]]]:
    for split in held_out_splits(data):
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
    sounds = {hearing.feature: found for hearing in HEARINGS if (found := read_sounds(data, hearing)) is not None}
    model = fit_model(clips, models.basis, sounds)
    report = _report([("leave one speaker out", left_out(clips, models.basis, sounds)), *_others(data, model)], models)
    if arguments.output is not None:
        for path in write_model(model, arguments.output, clips, report):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
