"""Whether mouths rest in pauses: `python -m research.motion.pauses --data SET --voices FILE... [--sounds FILE...] [--json FILE]`.

Pauses of silence or of room tone are planted into speeches, at quiet moments between words. With --sounds, the pauses hold sounds
that are no speech, such as laughter, as loud as the speech. The target mouths of people of a training set are predicted from these
speeches as in a dub of a file, with the person's slow expression and without. The mouth rests in a pause if it opens by at most
REST_SHARE of the person's range above the person's rest, from SETTLE_FRAMES after the voice ends to ATTACK_FRAMES before the voice
begins. Rest is the 5th percentile of the person's opening in the footage, the range is the 95th less the 5th percentile.

The slow expression is that of the footage, shown forwards and backwards until the speech ends. A dub shows the filmed mouth in a
pause through which the person holds the mouth open (gateway/dub/learn/target_mouths.py); here the predicted mouth is measured.

The command prints one line per length of pause, room tone (or sound) and expression, and one per expression with all pauses.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from gateway.dub.analyse.frame_plan import REST_SHARE
from gateway.dub.learn.slow_expression import FootageMouths, SlowExpression, slow_expression, with_slow_expression
from gateway.media.sound import SoundReader
from gateway.settings import GatewaySettings
from gateway.stages.opening import open_stage
from research.motion.clips import TrainingClip, clips_of
from research.motion.evaluate import evaluation_parser, extra_features, personalized
from research.motion.protocol import ClipFold, served_mouths
from research.training.command import command_line
from research.training.trainset import TrainSet
from research.trainset.clip import FULL_SCALE, SAMPLE_RATE_HZ, SAMPLES_A_FRAME, ClipFeatures, extract_features, read_pieces
from services.common.array_types import Float32, Float64, Int64
from services.common.errors import InvalidRequestError
from services.common.face.landmarks import mouth_opening
from services.common.methods import PREDICTORS
from services.common.wire.mouth_curves import MOTION_FRAME_S, rest_and_range
from services.motion.constraints import WHOLE
from services.motion.models import MotionModels
from services.motion.predictor import Predictor
from services.motion.predictors.registry import predictor_named
from services.motion.style import Style
from services.motion.types import SpeechFeatures

SETTLE_FRAMES: Final = 5
"""Frames of 40 ms after the end of the voice from which the mouth must rest."""
ATTACK_FRAMES: Final = 5
"""Frames of 40 ms before the voice until which the mouth must rest."""
LENGTHS_S: Final = (0.5, 1.0, 2.0)
TONES_DB: Final[tuple[float | None, ...]] = (None, -60.0, -45.0)
"""Levels of white noise under the whole speech, dB of full scale; None: the pause is digital silence."""

_ROW: Final = SAMPLE_RATE_HZ // 100
"""Samples of a row of 10 ms."""
_LEVEL_DB: Final = -20.0
"""Level that speeches are brought to, dB of full scale: mean power of the rows within _SPOKEN_DB of the loudest."""
_SPOKEN_DB: Final = 30.0
_QUIET_DB: Final = 22.0
"""A quiet row is quieter than the loudest rows by this much, on average over _QUIET_ROWS."""
_QUIET_ROWS: Final = 8
_SILENT_DB: Final = 32.0
"""Rows that are quieter than the loudest rows by this much are no voice."""
_AROUND_S: Final = 0.2
"""Silence between the speech and a planted sound, seconds."""
_APART_ROWS: Final = 80
"""Rows between two planted pauses, and between a planted pause and either end of the speech."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A planted pause.

    Attributes:
        length_s: length of what was planted, seconds.
        voice_ends_s, voice_begins_s: end of the voice before the pause, and beginning of the voice after the pause, seconds.
    """

    length_s: float
    voice_ends_s: float
    voice_begins_s: float

    def frames(self) -> slice:
        """Return the frames of the motion grid in which the mouth must rest."""
        first = int(np.ceil(self.voice_ends_s / MOTION_FRAME_S)) + SETTLE_FRAMES
        last = int(np.floor(self.voice_begins_s / MOTION_FRAME_S)) - ATTACK_FRAMES
        return slice(first, max(first, last + 1))


@dataclass(frozen=True, slots=True)
class PausedSpeech:
    """Speech with planted pauses: float32 samples at 16 kHz."""

    samples: Float32
    pauses: tuple[Pause, ...]


@dataclass(frozen=True, slots=True)
class PauseOpening:
    """Result of one pause.

    Attributes:
        person: name of the speaker whose mouth is predicted.
        voice: name of the file of the speech.
        tone_db: level of the room tone; None: digital silence.
        sound: name of the file in the pause; empty: no sound.
        kept: whether the slow expression is in the mouths.
        begins_s, length_s: where the voice ends before the pause, and the planted length, seconds.
        mean, largest: opening above rest, share of the person's range, in the frames in which the mouth must rest.
    """

    person: str
    voice: str
    tone_db: float | None
    sound: str
    kept: bool
    begins_s: float
    length_s: float
    mean: float
    largest: float


@dataclass(frozen=True, slots=True)
class PauseSummary:
    """Figures of a group of pauses.

    Attributes:
        count: number of pauses.
        rested: share of the pauses whose largest opening is at most REST_SHARE.
        mean: mean opening above rest, share of the range.
        high: 95th percentile of the largest openings.
    """

    count: int
    rested: float
    mean: float
    high: float


@dataclass(frozen=True, slots=True)
class Person:
    """A person whose mouths are predicted.

    Attributes:
        name: name of the speaker.
        style: style, personalised on the clip.
        clip: the clip.
        rest, extent: rest and range of the opening, crop pixels.
    """

    name: str
    style: Style
    clip: TrainingClip
    rest: float
    extent: float


def rows_db(samples: Float32) -> Float64:
    """Return the power of each row of 10 ms, dB of full scale, float64 [R]."""
    count = len(samples) // _ROW
    power = (samples[: count * _ROW].reshape(count, _ROW).astype(np.float64) ** 2).mean(axis=1)
    return np.asarray(10.0 * np.log10(power + 1e-12), np.float64)


def levelled(samples: Float32) -> Float32:
    """Return speech at _LEVEL_DB, float32 [N]."""
    power = 10.0 ** (rows_db(samples) / 10.0)
    loud = power[power >= np.percentile(power, 95) * 10.0 ** (-_SPOKEN_DB / 10.0)]
    return samples * np.float32(10.0 ** (_LEVEL_DB / 20.0) / np.sqrt(loud.mean()))


def quiet_rows(samples: Float32) -> list[int]:
    """Return the quiet rows of 10 ms between words, ascending, at least _APART_ROWS apart."""
    power = 10.0 ** (rows_db(samples) / 10.0)
    smooth = np.convolve(power, np.full(_QUIET_ROWS, 1.0 / _QUIET_ROWS), mode="same")
    rows: list[int] = []
    for row in np.argsort(smooth, kind="stable").tolist():
        if smooth[row] > np.percentile(power, 95) * 10.0 ** (-_QUIET_DB / 10.0):
            break
        inside = _APART_ROWS <= row < len(power) - _APART_ROWS
        if inside and all(abs(row - other) >= _APART_ROWS for other in rows):
            rows.append(row)
    return sorted(rows)


def with_pauses(samples: Float32, rows: Sequence[int], lengths_s: Sequence[float]) -> PausedSpeech:
    """Return speech with digital silence planted at rows, of each length in turn.

    The voice ends and begins where the sound next to the row is within _SILENT_DB of the loudest rows.

    Args:
        samples: float32 [N], 16 kHz mono.
        rows: rows of 10 ms at which pauses are planted, ascending.
        lengths_s: lengths of the pauses, seconds.
    """
    power = rows_db(samples)
    (voiced,) = np.nonzero(power > np.percentile(power, 95) - _SILENT_DB)
    parts: list[Float32] = []
    pauses: list[Pause] = []
    taken, planted_s = 0, 0.0
    for number, row in enumerate(rows):
        length_s = lengths_s[number % len(lengths_s)]
        before, after = voiced[voiced < row], voiced[voiced >= row]
        ends = (int(before[-1]) + 1 if len(before) else 0) / 100
        begins = (int(after[0]) if len(after) else len(power)) / 100
        pauses.append(Pause(length_s, planted_s + ends, planted_s + length_s + begins))
        parts += [samples[taken : row * _ROW], np.zeros(round(length_s * SAMPLE_RATE_HZ), np.float32)]
        taken, planted_s = row * _ROW, planted_s + length_s
    return PausedSpeech(np.concatenate([*parts, samples[taken:]]), tuple(pauses))


def with_tone(speech: PausedSpeech, level_db: float | None, seed: int = 0) -> PausedSpeech:
    """Return speech with white noise under all of its samples. None: the speech as it is."""
    if level_db is None:
        return speech
    noise = np.random.default_rng(seed).normal(0.0, 10.0 ** (level_db / 20.0), len(speech.samples))
    return PausedSpeech(speech.samples + noise.astype(np.float32), speech.pauses)


def with_sound(samples: Float32, rows: Sequence[int], sound: Float32) -> PausedSpeech:
    """Return speech in whose planted pauses a sound begins and ends _AROUND_S beside the pause's ends.

    Args:
        samples: float32 [N], 16 kHz mono.
        rows: rows of 10 ms at which pauses are planted, ascending.
        sound: float32 [M], 16 kHz mono.
    """
    around, length_s = round(_AROUND_S * SAMPLE_RATE_HZ), len(sound) / SAMPLE_RATE_HZ + 2.0 * _AROUND_S
    paused = with_pauses(samples, rows, (length_s,))
    filled = paused.samples.copy()
    for number, row in enumerate(rows):
        begin = row * _ROW + number * round(length_s * SAMPLE_RATE_HZ) + around
        filled[begin : begin + len(sound)] += sound
    return PausedSpeech(filled, paused.pauses)


def opening_in_pause(opening: Float32, pause: Pause, person: Person) -> tuple[float, float] | None:
    """Return mean and largest opening above rest in a pause, shares of the range; None: the pause has no frame that must rest.

    Args:
        opening: float32 [T], opening of the target mouths at 25 frames per second, crop pixels.
    """
    shares = np.maximum(opening[pause.frames()] - person.rest, 0.0) / person.extent
    return (float(shares.mean()), float(shares.max())) if len(shares) else None


def summary(pauses: Sequence[PauseOpening]) -> PauseSummary:
    """Return the figures of at least one pause."""
    largest = np.array([each.largest for each in pauses])
    return PauseSummary(
        len(pauses),
        float((largest <= REST_SHARE).mean()),
        float(np.mean([each.mean for each in pauses])),
        float(np.percentile(largest, 95)),
    )


def forwards_and_backwards(num_shown: int, num_frames: int) -> Int64:
    """Return the frame of footage of T >= 1 frames that each frame of a video shows, int64 [num_shown]."""
    steps = np.arange(num_shown) % max(2 * num_frames - 2, 1)
    return np.asarray(np.where(steps < num_frames, steps, 2 * num_frames - 2 - steps), np.int64)


def people_of(data: TrainSet, splits: Iterable[str], predictor: Predictor, models: MotionModels) -> list[Person]:
    """Return the people of splits, each with the longest clip, and with a style that is personalised on the whole clip."""
    encode, shown = personalized(predictor, models), []
    for split in splits:
        for name, clips in clips_of(data, split, extra_features(predictor)).by_speaker().items():
            clip = max(clips, key=lambda each: int(each.usable.sum()))
            rest, extent = rest_and_range(mouth_opening(clip.mouth_landmarks[clip.usable]))
            style = encode(clip, ClipFold(slice(0, len(clip)), slice(0, 0)))
            shown.append(Person(name, style, clip, rest, extent))
    return shown


class Prediction:
    """Target mouths of people, as a dub of a file predicts them.

    Args:
        predictor: the motion predictor.
        models: its networks.
    """

    def __init__(self, predictor: Predictor, models: MotionModels) -> None:
        self._predictor, self._models = predictor, models

    def mouths(self, person: Person, features: SpeechFeatures) -> Float32:
        """Return the predicted mouths of T frames of speech, float32 [T, 59, 3]."""
        return served_mouths(self._predictor.open(self._models, person.style, WHOLE), features)

    def expression(self, person: Person) -> SlowExpression:
        """Return the slow expression of every frame of the person's clip."""
        clip, explained = person.clip, self.mouths(person, person.clip.features)
        seconds = np.asarray(np.arange(len(clip)) * MOTION_FRAME_S, np.float64)
        footage = FootageMouths(clip.mouth_landmarks, explained, clip.usable, seconds, np.zeros(len(clip), np.int64))
        return slow_expression(footage, rest_opening=person.rest)

    def openings(self, person: Person, features: SpeechFeatures, slow: SlowExpression) -> tuple[Float32, Float32]:
        """Return the openings of the target mouths without the slow expression and with it, float32 [T] each, crop pixels."""
        mouths = self.mouths(person, features)
        shown = forwards_and_backwards(len(mouths), len(slow.gain))
        kept = with_slow_expression(mouths, SlowExpression(slow.offset[shown], slow.gain[shown], slow.still[shown]))
        return mouth_opening(mouths), mouth_opening(kept)


def read_voice(path: Path) -> Float32:
    """Return the first minute of a sound file at _LEVEL_DB, float32 [N], 16 kHz mono.

    Raises:
        MediaUnsupportedError: the file cannot be read.
    """
    return levelled(next(read_pieces(SoundReader(path))).astype(np.float32) / np.float32(FULL_SCALE))


async def features_of_speeches(speeches: Sequence[Float32]) -> list[ClipFeatures]:
    """Return the features of speeches, float32 [N] each, 16 kHz mono, from an audio stage in this process."""
    features = []
    async with open_stage(GatewaySettings(), "audio") as stages:
        for samples in speeches:
            whole = samples[: len(samples) // SAMPLES_A_FRAME * SAMPLES_A_FRAME]
            features.append(await extract_features(stages, np.round(np.clip(whole, -1.0, 1.0) * FULL_SCALE).astype(np.int16)))
    return features


def speech_features(features: ClipFeatures) -> SpeechFeatures:
    """Return features as the motion stage takes them."""
    extra = {name: getattr(features, name) for name in ("speech_states", "speech_states_live", "identity_removed")}
    return SpeechFeatures(features.posteriorgram, features.mel, features.speech_probability, extra)


@dataclass(frozen=True, slots=True)
class Planted:
    """A speech with planted pauses, and what they hold.

    Attributes:
        voice: name of the file of the speech.
        tone_db: level of the room tone; None: digital silence.
        sound: name of the file of the sound; empty: no sound.
        speech: the speech.
    """

    voice: str
    tone_db: float | None
    sound: str
    speech: PausedSpeech


def planted(voices: Sequence[Path], at_s: Sequence[float], sounds: Sequence[Path]) -> Iterator[Planted]:
    """Yield each voice with each sound in its pauses; without sounds, with each room tone and the lengths in each order.

    Args:
        voices: sound files of speech.
        at_s: times at which pauses are planted, seconds; empty: quiet rows.
        sounds: sound files without speech.

    Raises:
        InvalidRequestError: a speech has no quiet row.
        MediaUnsupportedError: a file cannot be read.
    """
    for path in voices:
        samples = read_voice(path)
        rows = sorted(round(100 * second) for second in at_s) or quiet_rows(samples)
        if not rows:
            raise InvalidRequestError(f"{path} has no quiet moment between words: give times with --at", field="voices")
        for sound in sounds:
            yield Planted(path.name, None, sound.name, with_sound(samples, rows, read_voice(sound)))
        # Each row gets each length in turn, so that lengths do not differ by their rows.
        for turn in range(len(LENGTHS_S) if not sounds else 0):
            paused = with_pauses(samples, rows, LENGTHS_S[turn:] + LENGTHS_S[:turn])
            for tone in TONES_DB:
                yield Planted(path.name, tone, "", with_tone(paused, tone))


def measured(
    people: Sequence[Person], speeches: Sequence[Planted], predictor: Predictor, models: MotionModels
) -> Iterator[PauseOpening]:
    """Yield the result of each pause of each speech and person, without the slow expression and with it.

    Args:
        people: people whose mouths are predicted.
        speeches: speeches with planted pauses.
    """
    prediction = Prediction(predictor, models)
    inputs = [speech_features(each) for each in asyncio.run(features_of_speeches([each.speech.samples for each in speeches]))]
    for person in people:
        slow = prediction.expression(person)
        for each, features in zip(speeches, inputs, strict=True):
            for kept, opening in enumerate(prediction.openings(person, features, slow)):
                for pause in each.speech.pauses:
                    shares = opening_in_pause(opening, pause, person)
                    if shares is not None:
                        timing = pause.voice_ends_s, pause.length_s
                        yield PauseOpening(person.name, each.voice, each.tone_db, each.sound, bool(kept), *timing, *shares)


def groups_of(pauses: Sequence[PauseOpening]) -> dict[str, PauseSummary]:
    """Return the figures by expression, and by expression and sound, or length and room tone."""
    groups: dict[str, list[PauseOpening]] = {}
    for each in pauses:
        expression = "kept expression" if each.kept else "neutral"
        tone = "digital silence" if each.tone_db is None else f"noise at {each.tone_db:g} dB"
        held = each.sound or f"{each.length_s:g} s, {tone}"
        for name in (expression, f"{expression}, {held}"):
            groups.setdefault(name, []).append(each)
    return {name: summary(members) for name, members in sorted(groups.items())}


@command_line
def main() -> int:
    """Run the command line, and return the exit code."""
    parser = evaluation_parser(__doc__)
    parser.add_argument("--voices", nargs="+", type=Path, required=True, help="Sound files of speech.")
    parser.add_argument("--splits", nargs="+", default=["dev", "dev_people"], help="Splits of the people. Default: dev dev_people.")
    parser.add_argument("--predictor", choices=tuple(PREDICTORS), default="dubstage", help="Predictor. Default: dubstage.")
    parser.add_argument(
        "--at", nargs="+", type=float, default=[], help="Times of the pauses, seconds. Default: all quiet moments between words."
    )
    parser.add_argument(
        "--sounds",
        nargs="+",
        type=Path,
        default=[],
        help="Sound files without speech, planted into the pauses. Default: silence, and two levels of noise.",
    )
    arguments = parser.parse_args()
    models, predictor = MotionModels(arguments.weights), predictor_named(arguments.predictor)
    people = people_of(TrainSet(arguments.data), arguments.splits, predictor, models)
    pauses = list(measured(people, list(planted(arguments.voices, arguments.at, arguments.sounds)), predictor, models))
    if not pauses:
        raise InvalidRequestError("no planted pause is long enough to be measured: leave out --at", field="at")
    for name, each in groups_of(pauses).items():
        print(f"{name:42s} {each.count:5d} pauses, rested {each.rested:.3f}, mean {each.mean:.3f}, 95th percentile {each.high:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in pauses], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
