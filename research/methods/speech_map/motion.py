"""Fit of `speech_map`: `python -m research.methods.speech_map.motion --data SET --output WEIGHTS/motion`.

Each map is the mean of two ridge regressions over the clips of the split `train` with balanced speakers, one from the states of
the encoder's block 2 and one from those of block 3. The solution has a closed form. The map of closed lips is a logistic
regression. The map learns from lips that touch in the clips. More voices are recorded than faces were filmed, so the map also
learns from sound without a picture: sure p, b, m and sure vowels of the posteriorgram.

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

import numpy as np
from scipy.optimize import minimize

from research.motion.clips import (
    Clips,
    TrainingClip,
    clips_of,
    frame_weights,
    heard_footage_of,
    held_out_splits,
    read_sound,
    speakers_of_free_speech,
    with_lag_fraction,
)
from research.motion.evaluate import OFF
from research.motion.protocol import ClipFold, ClipScores, closed_threshold, evaluate_clip, people_and_means, served_mouths
from research.motion.ridge import SPEAKER_EXPONENT, STRENGTH, fit_states_filter, mouth_target
from research.training.command import command_line, data_parser
from research.training.run_folder import write_fitted
from research.training.trainset import TrainSet
from services.common.array_types import Float32, Float64
from services.common.face.landmarks import mouth_opening
from services.common.wire.phones import PHONES
from services.motion.basis import LandmarkBasis
from services.motion.constraints import LIVE as LIVE_CONSTRAINTS
from services.motion.constraints import WHOLE, ConstraintConfig
from services.motion.features import bilabial_probability
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predictors.speech_map.predictor import SpeechMapPredictor, personalized
from services.motion.speech_map import FILES, HEARINGS, MODEL_FILE, Hearing, LinearMap, SpeechMapModel
from services.motion.speech_states import neighbours, states_of
from services.motion.style import Style, encode_style
from services.motion.types import SpeechFeatures

FEATURES: Final = tuple(hearing.feature for hearing in HEARINGS)
CLOSED_STRENGTH: Final = 0.4
"""Strength of the logistic regression of closed lips, per frame, in units of the mean square of an input."""
SOUND_WEIGHT: Final = 0.3
"""Weight of a frame of sound without a picture; a frame of a clip has weight 1 on average."""
MAX_SOUNDS: Final = 400
"""Most recordings without a picture that are read."""
_SURE_BILABIAL: Final = 0.9
_SURE_VOWEL: Final = 0.95
_NO_BILABIAL: Final = 0.02
"""Probabilities of the posteriorgram from which a frame of sound counts as p, b, m or as a vowel, and below which as no p, b, m."""
_VOWELS: Final = [PHONES.index(name) for name in ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "UW")]


@dataclass(frozen=True, slots=True)
class LipFrames:
    """Windows of states at which the lips are known to be closed or open.

    Attributes:
        windows: float32 [N, width * 192].
        closed: float32 [N], 1 where the lips are closed, else 0.
        weight: float64 [N].
    """

    windows: Float32
    closed: Float32
    weight: Float64


def fit_map(clips: Clips, basis: LandmarkBasis, hearing: Hearing, sounds: LipFrames | None = None) -> LinearMap:
    """Fit a map.

    Args:
        clips: the clips. What holds in a narrow corpus alone is learned apart and left out (RidgeSums).
        basis: landmark basis of the coefficients.
        hearing: input of the map.
        sounds: sure frames of sound without a picture, for the map of closed lips.
    """
    weight, bias = fit_coefficients(clips, basis, hearing)
    closed_weight, closed_bias = _fit_closed([lips_of_clips(clips, hearing), *([sounds] if sounds else [])])
    return LinearMap(weight, bias, closed_weight, closed_bias, hearing)


def fit_coefficients(clips: Clips, basis: LandmarkBasis, hearing: Hearing) -> tuple[Float32, Float32]:
    """Return W, float32 [K, width * 192], and w, float32 [K], of the map to coefficients. Arguments: see fit_map."""
    num_coefficients = len(basis.typical_spread)
    fitted = fit_states_filter(
        clips, partial(mouth_target, basis=basis), num_coefficients, past=hearing.past, ahead=hearing.ahead, feature=hearing.feature
    ).shared
    return fitted.weight, fitted.bias


def fit_model(clips: Clips, basis: LandmarkBasis, sounds: Mapping[str, LipFrames]) -> SpeechMapModel:
    """Fit both maps on clips that hold the states of both. `sounds` is by feature."""
    maps = {hearing.feature: fit_map(clips, basis, hearing, sounds.get(hearing.feature)) for hearing in HEARINGS}
    return SpeechMapModel.made_of(basis, maps)


def lips_of_clips(clips: Clips, hearing: Hearing) -> LipFrames:
    """Return all usable frames of clips. The lips are closed below a sixth of the clip's range of openings."""
    windows, closed, weight = [], [], []
    for clip, share in zip(clips, frame_weights(clips.rows, SPEAKER_EXPONENT), strict=True):
        opening = mouth_opening(clip.mouth_landmarks[clip.usable])
        windows.append(_flat(neighbours(states_of(clip.features, hearing.feature), hearing.past, hearing.ahead)[clip.usable]))
        closed.append((opening < closed_threshold(opening)).astype(np.float32))
        weight.append(np.full(len(opening), share))
    weights = np.concatenate(weight)
    return LipFrames(np.concatenate(windows), np.concatenate(closed), weights / weights.mean())


def lips_of_sounds(data: TrainSet, hearing: Hearing) -> LipFrames | None:
    """Return the sure p, b, m and the sure vowels of the sounds without a picture in the split `train`. None: there are none."""
    rows = [row for row in data.rows if row.split == "train" and not row.has_face]
    windows, closed = [], []
    for place in np.linspace(0, len(rows) - 1, min(len(rows), MAX_SOUNDS)).round():
        features = read_sound(data, rows[int(place)], (hearing.feature,))
        bilabial = bilabial_probability(features)
        vowel = features.posteriorgram[..., _VOWELS].sum(axis=-1).min(axis=-1)
        found = neighbours(states_of(features, hearing.feature), hearing.past, hearing.ahead)
        for flags, value in ((bilabial > _SURE_BILABIAL, 1.0), ((vowel > _SURE_VOWEL) & (bilabial < _NO_BILABIAL), 0.0)):
            windows.append(_flat(found[flags]))
            closed.append(np.full(int(flags.sum()), value, np.float32))
    if not windows:
        return None
    together = np.concatenate(closed)
    return LipFrames(np.concatenate(windows), together, np.full(len(together), SOUND_WEIGHT))


def _fit_closed(parts: Sequence[LipFrames]) -> tuple[Float32, Float32]:
    """Return weight float32 [width * 192] and bias float32 [1] of the logistic regression."""
    inputs = np.concatenate([part.windows for part in parts]).astype(np.float64)
    closed = np.concatenate([part.closed for part in parts]).astype(np.float64)
    weight = np.concatenate([part.weight for part in parts])
    weight /= weight.sum()
    scale = float(np.sqrt((inputs**2).mean()))
    inputs /= scale

    def loss(solution: Float64) -> tuple[float, Float64]:
        slopes = solution[:-1]
        score = inputs @ slopes + solution[-1]
        missed = weight * (1.0 / (1.0 + np.exp(-score)) - closed)
        value = float(weight @ (np.logaddexp(0.0, score) - closed * score)) + 0.5 * CLOSED_STRENGTH * float(slopes @ slopes)
        return value, np.append(inputs.T @ missed + CLOSED_STRENGTH * slopes, missed.sum())

    start = np.zeros(inputs.shape[1] + 1)
    solution = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200, "gtol": 1e-4, "ftol": 1e-9}).x
    return (solution[:-1] / scale).astype(np.float32), solution[-1:].astype(np.float32)


def _flat(windows: Float32) -> Float32:
    return np.ascontiguousarray(windows).reshape(len(windows), windows.shape[1] * windows.shape[2])


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
    for constraints in (OFF, WHOLE if hearing == FILES else LIVE_CONSTRAINTS)
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


def left_out(clips: Clips, basis: LandmarkBasis, sounds: Mapping[str, LipFrames]) -> list[tuple[SpeechMapModel, TrainingClip]]:
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
    sounds = {hearing.feature: found for hearing in HEARINGS if (found := lips_of_sounds(data, hearing)) is not None}
    model = fit_model(clips, models.basis, sounds)
    report = _report([("leave one speaker out", left_out(clips, models.basis, sounds)), *_others(data, model)], models)
    if arguments.output is not None:
        for path in write_model(model, arguments.output, clips, report):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
