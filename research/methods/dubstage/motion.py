"""Fit of `speech_map`: `python -m research.methods.dubstage.motion --data SET --output WEIGHTS/motion`.

Files have one map, and live speech has a map for each look-ahead. Each map is the mean of two ridge regressions over the clips of
the split `train` with balanced speakers, one from the states of the encoder's block 2 and one from the states of block 3. The
solution has a closed form. The closed lips of each map and the voice activity of live speech are logistic regressions
(logistic.py).

Before writing, the command measures the maps on speakers whom they have not seen: each speaker of free speech is left out in turn,
and the maps are fitted on the others. This is the figure to choose features and settings on: clips of other splits are few, and are
only shown.

`--curve FOLDER` also writes `live-look-ahead.csv` and `live-look-ahead.png`: what each frame of look-ahead brings live speech, and
the delay that it costs.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Final

from research.methods.dubstage.logistic import (
    CLOSED_STRENGTH,
    SOUND_WEIGHT,
    SPEECH_STRENGTH,
    Sounds,
    balanced,
    fit_logistic,
    lips_of_clips,
    read_sounds,
    sound_rows,
    speech_of_clips,
)
from research.motion.clips import (
    Clips,
    TrainingClip,
    clips_of,
    footage_of,
    held_out_splits,
    speakers_of_free_speech,
    synced_footage_of,
    with_lag_fraction,
)
from research.motion.evaluate import OFF
from research.motion.protocol import ClipFold, ClipScores, evaluate_clip, people_and_means, served_mouths
from research.motion.ridge import SPEAKER_EXPONENT, STRENGTH, fit_states_filter, mouth_target
from research.training.command import command_line, data_parser
from research.training.run_folder import write_fitted
from research.training.trainset import ClipRow, TrainSet
from services.audio.speech_encoder import LIVE as LIVE_WINDOWS
from services.common.array_types import Float32
from services.common.files import write_whole
from services.motion.basis import LandmarkBasis
from services.motion.constraints import WHOLE, ConstraintConfig
from services.motion.models import WEIGHTS, MotionModels
from services.motion.predictor import encode_mouths
from services.motion.predictors.dubstage.predictor import SpeechMapPredictor, live_constraints, personalized
from services.motion.speech_map import (
    FILES,
    INPUT_WINDOWS,
    LIVE_INPUT_WINDOWS,
    MODEL_FILE,
    InputWindow,
    LinearMap,
    SpeechMapModel,
    VoiceActivity,
)
from services.motion.style import Style
from services.motion.types import SpeechFeatures

FEATURES: Final = tuple(dict.fromkeys(input_window.feature for input_window in INPUT_WINDOWS))
LEFT_OUT: Final = "leave one speaker out"
DEV: Final = "dev"
"""Beginning of the names of the splits with people who are only shown: nothing is to be chosen on them."""
ALL_DEV: Final = "all dev splits"
CURVE: Final = "live-look-ahead.csv"
PICTURE: Final = "live-look-ahead.png"


def fit_map(clips: Clips, basis: LandmarkBasis, input_window: InputWindow, sounds: Sounds | None = None) -> LinearMap:
    """Fit a map.

    Args:
        clips: the clips. What holds in a narrow corpus alone is learned apart and left out (RidgeSums).
        basis: landmark basis of the coefficients.
        input_window: input of the map.
        sounds: frames of sound without a picture, for the logistic regressions. None: there are none.
    """
    weight, bias = fit_coefficients(clips, basis, input_window)
    lips = [lips_of_clips(clips, input_window), *([sounds.lips[input_window]] if sounds else [])]
    return LinearMap(weight, bias, *fit_logistic(lips, CLOSED_STRENGTH), input_window)


def fit_voice_activity(clips: Clips, sounds: Sounds | None = None) -> VoiceActivity:
    """Fit the voice activity of live speech. Arguments: see fit_map."""
    speech = [speech_of_clips(clips), *(sounds.speech if sounds else [])]
    return VoiceActivity(*fit_logistic(balanced(speech), SPEECH_STRENGTH))


def fit_coefficients(clips: Clips, basis: LandmarkBasis, input_window: InputWindow) -> tuple[Float32, Float32]:
    """Return W, float32 [K, width * 192], and w, float32 [K], of the map to coefficients. Arguments: see fit_map."""
    num_coefficients = len(basis.typical_spread)
    fitted = fit_states_filter(
        clips,
        partial(mouth_target, basis=basis),
        num_coefficients,
        past=input_window.past,
        ahead=input_window.ahead,
        feature=input_window.feature,
    ).shared
    return fitted.weight, fitted.bias


def model_of_maps(
    basis: LandmarkBasis, maps: Mapping[InputWindow, LinearMap], voice_activity: VoiceActivity | None = None
) -> SpeechMapModel:
    """Return a model of maps that are not in a file."""
    model = SpeechMapModel.__new__(SpeechMapModel)
    model.basis, model.maps, model.voice_activity = basis, dict(maps), voice_activity
    return model


def fit_model(clips: Clips, basis: LandmarkBasis, sounds: Sounds | None) -> SpeechMapModel:
    """Fit all maps on clips that hold the states of files and of live speech. Arguments: see fit_map."""
    maps = {input_window: fit_map(clips, basis, input_window, sounds) for input_window in INPUT_WINDOWS}
    return model_of_maps(basis, maps, fit_voice_activity(clips, sounds))


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

    input_window: InputWindow
    personal: bool
    constraints: ConstraintConfig

    @property
    def name(self) -> str:
        """Name in the report."""
        constrained = "" if self.constraints == OFF else ", constraints"
        return f"{self.input_window.name}{', personalised' if self.personal else ''}{constrained}"


WAYS: Final = tuple(
    Way(input_window, personal, constraints)
    for input_window in INPUT_WINDOWS
    for personal in (False, True)
    for constraints in (OFF, live_constraints(input_window) if input_window.live else WHOLE)
)


def judged(clips: Sequence[tuple[SpeechMapModel, TrainingClip]], way: Way, models: MotionModels) -> Judgement:
    """Return the scores of clips, each with the model that it is predicted by. The clips of a person count by their frames."""
    return judgement([_result(model, clip, way, models) for model, clip in clips])


def judgement(results: Sequence[ClipScores]) -> Judgement:
    """Return the scores of the results of clips, at least one. The clips of a person count by their frames."""
    people, means = people_and_means(results)
    return Judgement(
        people=len(people),
        closure=sum(each.closure_hits for each in people) / max(1, sum(each.closure_events for each in people)),
        **means,
    )


def _result(model: SpeechMapModel, clip: TrainingClip, way: Way, models: MotionModels) -> ClipScores:
    def encode(clip: TrainingClip, fold: ClipFold) -> Style:
        part = fold.enrolment
        style = encode_mouths(footage_of(clip, part), models)
        if not way.personal or part == fold.test:
            return style
        # The correction is learned from the states of files, also that of live speech.
        *_, last = personalized(model, FILES, style, clip.features[part], synced_footage_of(clip, part), models)
        assert last.style is not None
        return last.style

    def predict(features: SpeechFeatures, style: Style) -> Float32:
        return served_mouths(SpeechMapPredictor(model, way.input_window, models, style, way.constraints), features)

    return evaluate_clip(with_lag_fraction(clip, models.lag), encode, predict, control=False)


def left_out(clips: Clips, basis: LandmarkBasis, sounds: Sounds | None) -> list[tuple[SpeechMapModel, TrainingClip]]:
    """Return the clips that are not of a narrow corpus, each with a model that has not seen the clip's speaker.

    Raises:
        InvalidRequestError: fewer than two speakers.
    """
    free = [row for row in clips.rows if not row.narrow]
    pairs = []
    for speaker in speakers_of_free_speech(clips.rows):
        print(f"fitting without {speaker}", flush=True)
        model = fit_model(clips.only(row for row in clips.rows if row.speaker != speaker), basis, sounds)
        pairs += [(model, clip) for clip in clips.only(row for row in free if row.speaker == speaker)]
    return pairs


def write_model(model: SpeechMapModel, folder: Path, clips: Clips, sounds: Sequence[ClipRow], report: Report) -> list[Path]:
    """Write speech_map.safetensors, speech_map.json and the card with the data, and return their paths."""
    settings = {
        "strength": STRENGTH,
        "speaker_exponent": SPEAKER_EXPONENT,
        "closed_strength": CLOSED_STRENGTH,
        "speech_strength": SPEECH_STRENGTH,
        "sound_weight": SOUND_WEIGHT,
    }
    scores = {f"{group}: {way.name}": _rounded(each, 4) for (group, way), each in report.items()}
    return write_fitted(folder / MODEL_FILE, model.arrays(), settings, clips.rows, scores, sounds)


def _rounded(judgement: Judgement, digits: int) -> dict[str, float | None]:
    """Return the figures of a judgement; None for a figure that could not be measured."""
    return {name: round(value, digits) if math.isfinite(value) else None for name, value in asdict(judgement).items()}


Report = dict[tuple[str, Way], Judgement]
"""Scores by group of clips and way to predict."""


def report_of(clips: Iterable[tuple[str, Sequence[tuple[SpeechMapModel, TrainingClip]]]], models: MotionModels) -> Report:
    """Return the scores of each group, and of the clips of all dev splits together. Prints each score.

    Args:
        clips: name of each group, and its clips with the model that each clip is predicted by.
        models: the motion stage's networks, for styles.
    """
    report: Report = {}
    dev: dict[Way, list[ClipScores]] = {way: [] for way in WAYS}

    def add(group: str, way: Way, results: Sequence[ClipScores]) -> None:
        report[group, way] = judgement(results)
        print(f"{group:24s} {way.name:50s} {json.dumps(_rounded(report[group, way], 3))}", flush=True)

    for group, members in clips:
        for way in WAYS:
            results = [_result(model, clip, way, models) for model, clip in members]
            add(group, way, results)
            if group.startswith(DEV):
                dev[way] += results
    for way, results in dev.items():
        if results:
            add(ALL_DEV, way, results)
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAhead:
    """Figures of personalised live speech with constraints at one look-ahead, and the delay of the look-ahead.

    Attributes:
        frames: frames of speech after a frame that the map reads.
        group: group of clips, LEFT_OUT or ALL_DEV.
        least_delay_ms: time from the end of a frame's own sound to the sound that its mouth needs, for the second frame of a window
            of the speech encoder; milliseconds.
        most_delay_ms: the same for the first frame of a window.
        r_opening: see Judgement, as are the other figures.
    """

    frames: int
    group: str
    least_delay_ms: int
    most_delay_ms: int
    r_opening: float
    lmd_ratio: float
    vowel_shift_ms: float
    closure_shift_ms: float


def look_aheads(report: Report) -> list[LookAhead]:
    """Return the curve of the look-ahead of live speech from the scores, by group, then by frames."""
    # The encoder reads some rows of 10 ms after a window, and 10 ms for its analysis window and the resampler. The first frames
    # of a window also wait for the last one.
    encoder_ms = 10 * LIVE_WINDOWS.rows_ahead + 10
    curve = []
    for group in (LEFT_OUT, ALL_DEV):
        for frames, input_window in LIVE_INPUT_WINDOWS.items():
            scores = report.get((group, Way(input_window, personal=True, constraints=live_constraints(input_window))))
            if scores is None:
                continue
            curve.append(
                LookAhead(
                    frames=frames,
                    group=group,
                    least_delay_ms=40 * frames + encoder_ms,
                    most_delay_ms=40 * (frames + LIVE_WINDOWS.answered - 1) + encoder_ms,
                    r_opening=round(scores.r_opening, 4),
                    lmd_ratio=round(scores.lmd_ratio, 4),
                    vowel_shift_ms=round(scores.vowel_shift_ms, 1),
                    closure_shift_ms=round(scores.closure_shift_ms, 1),
                )
            )
    return curve


def write_look_aheads(curve: Sequence[LookAhead], folder: Path) -> None:
    """Write the curve as CSV and as PNG, 1100 pixels wide, into a folder, and print the CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(each.name for each in fields(LookAhead))
    writer.writerows(map(astuple, curve))
    print(text.getvalue(), end="", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CURVE, text.getvalue().encode())
    _draw(curve, folder / PICTURE)


def _draw(curve: Sequence[LookAhead], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    titles = {
        "r_opening": "r of the opening\n(higher is better)",
        "lmd_ratio": "LMD ratio\n(lower is better)",
        "vowel_shift_ms": "open vowels late, ms\n(0 is best)",
        "closure_shift_ms": "p, b, m late, ms\n(0 is best)",
    }
    figure, grid = pyplot.subplots(1, len(titles), layout="constrained", figsize=(11.0, 3.2))
    for plot, (score, title) in zip(grid, titles.items(), strict=True):
        for group in dict.fromkeys(each.group for each in curve):
            shown = [each for each in curve if each.group == group]
            plot.plot([each.frames for each in shown], [getattr(each, score) for each in shown], "-o", label=group, lw=1.8, ms=5)
        plot.set_xticks([each.frames for each in shown], [f"{each.frames}\n{each.most_delay_ms} ms" for each in shown])
        plot.set_title(title, fontsize=9)
        plot.grid(alpha=0.3)
    figure.supxlabel("frames of look-ahead, and the longest wait for sound after a frame's own", fontsize=9)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _others(data: TrainSet, model: SpeechMapModel) -> Iterator[tuple[str, Sequence[tuple[SpeechMapModel, TrainingClip]]]]:
    for split in held_out_splits(data):
        yield split, [(model, clip) for clip in clips_of(data, split, FEATURES)]


@command_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    parser = data_parser(__doc__)
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, help="folder of the motion stage's weights, for the landmark basis"
    )
    parser.add_argument("--output", type=Path, help="folder to write speech_map.safetensors to; without it, nothing is written")
    parser.add_argument("--curve", type=Path, help=f"folder for {CURVE} and {PICTURE}; without it, they are not written")
    given = parser.parse_args(arguments)
    data, models = TrainSet(given.data), MotionModels(given.weights)
    clips = clips_of(data, "train", FEATURES)
    sounds = read_sounds(data, INPUT_WINDOWS)
    model = fit_model(clips, models.basis, sounds)
    report = report_of([(LEFT_OUT, left_out(clips, models.basis, sounds)), *_others(data, model)], models)
    if given.output is not None:
        for path in write_model(model, given.output, clips, sound_rows(data), report):
            print(path)
    if given.curve is not None:
        write_look_aheads(look_aheads(report), given.curve)
    return 0


if __name__ == "__main__":
    sys.exit(main())
