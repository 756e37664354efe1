"""Evaluate a served predictor by language: `python -m research.motion.evaluate_languages --predictor NAME --data SET`.

The command prints three tables of the predictor as it is served, with constraints and personalised:

1. one row for each clip that shows a mouth, of every split. Each clip enrols its person on one part and predicts the other part
   (protocol.folds). The predictor has learned from clips of the split `train`, so these rows look better than new people;
2. one row for each language: means over its people, apart for people with a clip in `train` and for other people;
3. one row for each recording without a picture and for each person of the set with another voice: share of p, b, m on which the
   predicted lips close, and opening in silence. There is no true mouth to compare with.

p, b, m are those of the posteriorgram. A predictor that closes the lips by the same posteriorgram closes on nearly all of them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from research.motion.clips import TrainingClip, read_clip, read_sound, shows_the_mouth, with_lag_fraction
from research.motion.evaluate import evaluation_parser, extra_features, personalized
from research.motion.protocol import (
    ClipFold,
    ClipScores,
    Predict,
    ServedPredictor,
    closed_threshold,
    evaluate_clip,
    people_and_means,
)
from research.training.command import command_line
from research.training.trainset import ClipRow, TrainSet
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import mouth_opening
from services.common.methods import PREDICTORS
from services.common.runs import runs
from services.common.wire.mouth_curves import MOTION_FRAME_S, SPOKEN_FROM, rest_and_range, silence_opening
from services.motion.constraints import WHOLE
from services.motion.features import bilabial_probability
from services.motion.models import MotionModels
from services.motion.predictors.registry import predictor_named
from services.motion.style import Style
from services.motion.types import SpeechFeatures

UNKNOWN: Final = "unknown"
"""Language of clips whose language nothing states."""
_MIN_FRAMES: Final = 50
"""Fewest frames of a clip and of a recording: 2 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorMetrics:
    """Metrics of a predictor on one clip, or means over the people of a language.

    Attributes:
        name: name of the clip or of the language.
        language: language of the sound (BCP 47), or UNKNOWN.
        split: split of the clip; of a language: its splits.
        people: number of people.
        seconds: length of what is measured, seconds.
        r_opening: Pearson's r of the mouth opening.
        r_width: Pearson's r of the lip width.
        lmd_ratio: error of the lips over that of the person's mean mouth.
        spread: spread of the opening over the true opening's.
        width_spread: spread of the lip width without its slow part over the true lips'.
        fastest_step: largest change of the opening from frame to frame over the true opening's.
        vowel_shift_ms, closure_shift_ms: how late the predicted extremes are, milliseconds; NaN: too few phones.
        closure: share of p, b, m with closed true lips on which the predicted lips close too; NaN: there are none.
        closures: number of these p, b, m.
    """

    name: str
    language: str
    split: str
    people: int
    seconds: float
    r_opening: float
    r_width: float
    lmd_ratio: float
    spread: float
    width_spread: float
    fastest_step: float
    vowel_shift_ms: float
    closure_shift_ms: float
    closure: float
    closures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechMetrics:
    """Metrics of a predictor on a recording without a picture.

    Attributes:
        language: language of the recording (BCP 47), or UNKNOWN.
        person: speaker of the clip that the style was learned from.
        seconds: length of the recording, seconds.
        closure: share of p, b, m on which the predicted lips close; NaN: there are none.
        closures: number of p, b, m.
        silence_opening: opening in silence, as a share of the person's range (mouth_curves.silence_opening); NaN: no silence.
        spread: spread of the predicted opening over the person's own.
    """

    name: str
    language: str
    person: str
    seconds: float
    closure: float
    closures: int
    silence_opening: float
    spread: float


def mean_metrics(results: Sequence[tuple[ClipRow, ClipScores]], name: str, language: str) -> PredictorMetrics:
    """Return the metrics of clips (at least one): the clips of a person count by their frames, people count equally."""
    people, means = people_and_means([result for _, result in results])
    closures = sum(each.closure_events for each in people)
    return PredictorMetrics(
        name=name,
        language=language,
        split=" ".join(sorted({row.split for row, _ in results})),
        people=len(people),
        seconds=sum(each.frames for each in people) * MOTION_FRAME_S,
        closure=sum(each.closure_hits for each in people) / closures if closures else math.nan,
        closures=closures,
        **means,
    )


def by_language(results: Sequence[tuple[ClipRow, ClipScores]], trained: Collection[str]) -> Iterator[PredictorMetrics]:
    """Yield the metrics of each language, ordered by name: other people, then the people whom the predictor learned from.

    Args:
        trained: speakers with a clip in `train`. Their clips of other splits count as theirs too.
    """

    def group_of(row: ClipRow) -> tuple[str, bool]:
        return language_of(row), row.speaker in trained

    for group in sorted({group_of(row) for row, _ in results}):
        yield mean_metrics([each for each in results if group_of(each[0]) == group], group[0], group[0])


def language_of(row: ClipRow) -> str:
    """Return the language of a clip, or UNKNOWN."""
    return row.language or UNKNOWN


def spoken(row: ClipRow, sound: SpeechFeatures, person: TrainingClip, style: Style, predict: Predict) -> SpeechMetrics:
    """Return the metrics of a recording that a person speaks.

    Args:
        row: the recording's row.
        sound: features of the recording.
        predict: the predictor.
    """
    own = mouth_opening(person.mouth_landmarks[person.usable])
    opening = mouth_opening(predict(sound, style))
    threshold = closed_threshold(own)
    closures = runs(bilabial_probability(sound) > 0.5)
    closed = [opening[max(0, run.start - 1) : run.stop + 1].min() < threshold for run in closures]
    voiced = sound.speech_probability >= SPOKEN_FROM
    rest, extent = rest_and_range(own)
    return SpeechMetrics(
        name=row.name,
        language=language_of(row),
        person=person.speaker,
        seconds=len(sound) * MOTION_FRAME_S,
        closure=float(np.mean(closed)) if closed else math.nan,
        closures=len(closed),
        silence_opening=silence_opening(opening, voiced, MOTION_FRAME_S, rest=rest, extent=extent),
        spread=float(opening.std() / own.std()),
    )


def people_of(data: TrainSet, names: Sequence[str], extra: Sequence[str]) -> list[TrainingClip]:
    """Return the longest clip of each of some people.

    Args:
        names: speakers; empty: every speaker outside of the split `train`.
        extra: further tensors of the sound to read.

    Raises:
        InvalidRequestError: the set shows no such speaker.
    """
    shown = [row for row in data.rows if row.has_face and shows_the_mouth(row)]
    wanted = list(names) or sorted({row.speaker for row in shown if row.split != "train"})
    people = []
    for name in wanted:
        of_person = [row for row in shown if row.speaker == name]
        if not of_person:
            speakers = ", ".join(sorted({row.speaker for row in shown}))
            raise InvalidRequestError(
                f"{data.folder}: no clip shows the mouth of speaker {name!r}; there are: {speakers}", field="person"
            )
        longest = max(of_person, key=lambda row: row.usable_frames)
        people.append(read_clip(data, longest, extra))
    return people


def table(rows: Sequence[PredictorMetrics] | Sequence[SpeechMetrics]) -> str:
    """Return rows as a table in Markdown; `-` for a metric that could not be measured."""
    names = list(asdict(rows[0]))
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(_cell(name, value) for name, value in asdict(row).items())} |" for row in rows]
    return "\n".join(lines)


def _cell(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if name.endswith("_ms") else f"{value:.1f}" if name == "seconds" else f"{value:.3f}"


def _plain(rows: Sequence[PredictorMetrics] | Sequence[SpeechMetrics]) -> list[dict[str, object]]:
    """Return rows for JSON, which has no NaN."""
    return [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in asdict(row).items()}
        for row in rows
    ]


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = evaluation_parser(__doc__)
    parser.add_argument("--predictor", choices=tuple(PREDICTORS), required=True, help="Predictor to judge.")
    parser.add_argument(
        "--person",
        action="append",
        default=[],
        metavar="SPEAKER",
        help="Speaker of the set who speaks the recordings. Repeatable. Default: every speaker outside of the split `train`.",
    )
    parser.add_argument("--live", action="store_true", help="Constrain the mouths as for live speech. Default: as for files.")
    arguments = parser.parse_args()
    data, predictor = TrainSet(arguments.data), predictor_named(arguments.predictor)
    extra = extra_features(predictor)
    models = MotionModels(arguments.weights)
    encode, predict = personalized(predictor, models), ServedPredictor(predictor, models, None if arguments.live else WHOLE)
    report: dict[str, list[dict[str, object]]] = {"clips": [], "languages": [], "speech": []}

    def show(part: str, title: str, rows: Sequence[PredictorMetrics] | Sequence[SpeechMetrics]) -> None:
        if rows:
            report[part] = _plain(rows)
            print(f"\n{title}\n\n{table(rows)}", flush=True)

    results, trained = [], {row.speaker for row in data.rows if row.split == "train"}
    for row in data.rows:
        if row.has_face and shows_the_mouth(row) and row.frames >= _MIN_FRAMES:
            clip = with_lag_fraction(read_clip(data, row, extra), models.lag)
            results.append((row, evaluate_clip(clip, encode, predict, control=False)))
    show("clips", "Clips", [mean_metrics([each], each[0].name, language_of(each[0])) for each in results])
    show("languages", "Languages, means over people", list(by_language(results, trained)))
    recordings = [row for row in data.rows if not row.has_face and row.frames >= _MIN_FRAMES]
    people = people_of(data, arguments.person, extra) if recordings else []
    # A fold whose parts differ is personalised.
    styles = [(person, encode(person, ClipFold(slice(0, len(person)), slice(0, 0)))) for person in people]
    sounds = ((row, read_sound(data, row, extra)) for row in recordings)
    figures = [
        spoken(row, sound, person, style, predict)
        for row, sound in sounds
        for person, style in styles
        if person.speaker != row.speaker
    ]
    show("speech", "Recordings without a picture", figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
