"""Logistic regressions of a speech map from states of the speech encoder: closed lips, and voice activity of live speech.

The lips learn from lips that touch in the clips. More voices are recorded than faces were filmed, so they also learn from sound
without a picture: sure p, b, m and sure vowels of the posteriorgram.

Voice activity learns when the audio stage's detector is about to report speech: that detector notices the beginning of speech some
frames late. It also learns from noise and music that are synthesised here, which are no speech.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.optimize import minimize

from research.motion.clips import Clips, frame_weights, read_sound
from research.motion.protocol import closed_threshold
from research.motion.ridge import SPEAKER_EXPONENT
from research.training.trainset import ClipRow, TrainSet
from services.audio.settings import AudioSettings
from services.audio.speech_encoder import SPEECH_STATES_LIVE
from services.audio.types import SAMPLE_RATE_HZ, SoundRows
from services.common.array_types import Bool, Float32, Float64
from services.common.face.landmarks import mouth_opening
from services.common.wire.phones import PHONES
from services.motion.features import bilabial_probability
from services.motion.speech_map import LIVE_STATES, VOICE_ACTIVITY_PAST, InputWindow
from services.motion.speech_states import neighbours, states_of
from services.motion.types import SpeechFeatures

CLOSED_STRENGTH: Final = 0.4
"""Strength of the regression of closed lips, per frame, in units of the mean square of an input."""
SPEECH_STRENGTH: Final = 0.005
"""Strength of the regression of voice activity."""
SOUND_WEIGHT: Final = 0.3
"""Weight of a frame of sound without a picture; a frame of a clip has weight 1 on average."""
MAX_SOUNDS: Final = 400
"""Most recordings without a picture that are read."""
_SURE_BILABIAL: Final = 0.9
_SURE_VOWEL: Final = 0.95
_NO_BILABIAL: Final = 0.02
"""Probabilities of the posteriorgram from which a frame of sound counts as p, b, m or as a vowel, and below which as no p, b, m."""
_VOWELS: Final = [PHONES.index(name) for name in ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "UW")]
_SPEECH_WITHIN: Final = 5
"""Frames after a frame within which the audio stage's detector reports speech, if the frame is speech."""
_QUIET_BEFORE, _QUIET_AFTER = 3, 9
"""Frames around a frame in which that detector reports no speech, if the frame is no speech."""
_SURE_SPEECH, _SURE_QUIET = 0.5, 0.1
_NOISE_SECONDS: Final = 12
_NOISE_LEVELS_DB: Final = (-18.0, -26.0, -36.0)
"""Levels of full scale. Each has its own random numbers."""
_NOISE_BEGINS: Final = 20
"""Frames at the beginning of a noise that are left out: the encoder still reads the silence before."""


@dataclass(frozen=True, slots=True)
class LabelledFrames:
    """Windows of states with what is true of each.

    Attributes:
        windows: float32 [N, width * 192].
        label: float32 [N], 1 where the lips are closed, or somebody speaks, else 0.
        weight: float64 [N].
    """

    windows: Float32
    label: Float32
    weight: Float64


@dataclass(frozen=True, slots=True)
class Sounds:
    """Frames of sound without a picture.

    Attributes:
        lips: sure p, b, m and sure vowels, with SOUND_WEIGHT, for each input of a map.
        speech: recordings of people, and noise, as live speech.
    """

    lips: Mapping[InputWindow, LabelledFrames]
    speech: list[LabelledFrames]


def lips_of_clips(clips: Clips, input_window: InputWindow) -> LabelledFrames:
    """Return all usable frames of clips. The lips are closed below a sixth of the clip's range of openings."""
    parts = []
    for clip, share in zip(clips, frame_weights(clips.rows, SPEAKER_EXPONENT), strict=True):
        opening = mouth_opening(clip.mouth_landmarks[clip.usable])
        windows = _flat(_windows(clip.features, input_window)[clip.usable])
        closed = (opening < closed_threshold(opening)).astype(np.float32)
        parts.append(LabelledFrames(windows, closed, np.full(len(opening), share)))
    frames = _joined(parts)
    return replace(frames, weight=frames.weight / frames.weight.mean())


def speech_of_clips(clips: Clips) -> LabelledFrames:
    """Return the frames of clips of free speech that are surely speech, or surely none, as live speech."""
    free = clips.only(row for row in clips.rows if not row.narrow)
    return _joined([_speech_of(clip.features) for clip in free])


def sound_rows(data: TrainSet) -> list[ClipRow]:
    """Return the sounds without a picture that are learned from: at most MAX_SOUNDS of the split `train`."""
    rows = [row for row in data.rows if row.split == "train" and not row.has_face]
    return [rows[int(index)] for index in np.linspace(0, len(rows) - 1, min(len(rows), MAX_SOUNDS)).round()]


def read_sounds(data: TrainSet, input_windows: Sequence[InputWindow]) -> Sounds | None:
    """Return the sounds of `sound_rows`, and noise. None: there are no such sounds.

    Args:
        input_windows: inputs of the maps that learn closed lips.
    """
    rows = sound_rows(data)
    if not rows:
        return None
    tensors = sorted({LIVE_STATES, *(input_window.feature for input_window in input_windows)})
    lips: dict[InputWindow, list[LabelledFrames]] = {input_window: [] for input_window in input_windows}
    speech = []
    for row in rows:
        features = read_sound(data, row, tensors)
        for input_window, parts in lips.items():
            parts.append(_lips_of(features, input_window))
        speech.append(_speech_of(features))
    noise = _joined([_no_speech(states) for states in noise_states()])
    return Sounds({input_window: _joined(parts) for input_window, parts in lips.items()}, [_joined(speech), noise])


def balanced(parts: Sequence[LabelledFrames]) -> list[LabelledFrames]:
    """Return the parts with weights with which speech counts as much as no speech."""
    label = np.concatenate([part.label for part in parts])
    share = {value: 0.5 / max(int((label == value).sum()), 1) for value in (0.0, 1.0)}
    return [replace(part, weight=np.where(part.label > 0.0, share[1.0], share[0.0])) for part in parts]


def fit_logistic(parts: Sequence[LabelledFrames], strength: float) -> tuple[Float32, Float32]:
    """Return weight, float32 [width * 192], and bias, float32 [1], of a logistic regression.

    Args:
        parts: frames to learn from.
        strength: penalty on the weight, per frame, in units of the mean square of an input.
    """
    inputs = np.concatenate([part.windows for part in parts]).astype(np.float64)
    label = np.concatenate([part.label for part in parts]).astype(np.float64)
    weight = np.concatenate([part.weight for part in parts])
    weight /= weight.sum()
    scale = float(np.sqrt((inputs**2).mean()))
    inputs /= scale

    def loss(solution: Float64) -> tuple[float, Float64]:
        slopes = solution[:-1]
        score = inputs @ slopes + solution[-1]
        missed = weight * (1.0 / (1.0 + np.exp(-score)) - label)
        value = float(weight @ (np.logaddexp(0.0, score) - label * score)) + 0.5 * strength * float(slopes @ slopes)
        return value, np.append(inputs.T @ missed + strength * slopes, missed.sum())

    start = np.zeros(inputs.shape[1] + 1)
    solution = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200, "gtol": 1e-4, "ftol": 1e-9}).x
    return (solution[:-1] / scale).astype(np.float32), solution[-1:].astype(np.float32)


def _lips_of(features: SpeechFeatures, input_window: InputWindow) -> LabelledFrames:
    bilabial = bilabial_probability(features)
    vowel = features.posteriorgram[..., _VOWELS].sum(axis=-1).min(axis=-1)
    closed, opened = bilabial > _SURE_BILABIAL, (vowel > _SURE_VOWEL) & (bilabial < _NO_BILABIAL)
    # Lips close and open some 40 ms before the sound (mouth_curves.REAL_MS): a frame shows the mouth of the next frame's sound.
    closed, opened = (np.append(each[1:], np.False_) for each in (closed, opened))
    windows = _windows(features, input_window)
    chosen = np.concatenate([windows[closed], windows[opened]])
    label = np.concatenate([np.ones(int(closed.sum()), np.float32), np.zeros(int(opened.sum()), np.float32)])
    return LabelledFrames(_flat(chosen), label, np.full(len(label), SOUND_WEIGHT))


def _speech_of(features: SpeechFeatures) -> LabelledFrames:
    speech, quiet = speech_and_quiet(features.speech_probability)
    sure = speech | quiet
    windows = _flat(neighbours(states_of(features, LIVE_STATES), VOICE_ACTIVITY_PAST, 0)[sure])
    return LabelledFrames(windows, speech[sure].astype(np.float32), np.ones(int(sure.sum())))


def speech_and_quiet(speech_probability: Float32) -> tuple[Bool, Bool]:
    """Return which frames are speech, as the audio stage's detector finds within some frames, and which surely are none: [T] each.

    Args:
        speech_probability: float32 [T], of the detector.
    """
    count, padded = len(speech_probability), np.pad(speech_probability, (_QUIET_BEFORE, _QUIET_AFTER))
    around = np.stack([padded[step : step + count] for step in range(_QUIET_BEFORE + 1 + _QUIET_AFTER)])
    return around[_QUIET_BEFORE : _QUIET_BEFORE + _SPEECH_WITHIN + 1].max(axis=0) > _SURE_SPEECH, around.max(axis=0) < _SURE_QUIET


def _no_speech(states: Float32) -> LabelledFrames:
    windows = _flat(neighbours(states, VOICE_ACTIVITY_PAST, 0)[_NOISE_BEGINS:])
    return LabelledFrames(windows, np.zeros(len(windows), np.float32), np.ones(len(windows)))


def noise_states() -> Iterator[Float32]:
    """Yield states of live speech, float32 [T, 192], of each kind of noise and music at each level."""
    model = SPEECH_STATES_LIVE.load(AudioSettings().audio_weights, 1)
    for make in NOISES:
        for seed, level in enumerate(_NOISE_LEVELS_DB):
            noise = make(np.random.default_rng(seed), np.arange(_NOISE_SECONDS * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)
            loud = noise / np.sqrt((noise**2).mean()) * 10.0 ** (level / 20.0)
            source = model.new_source()
            nothing = np.zeros((0, 0), np.float32)
            source.push(SoundRows(loud.astype(np.float32), nothing, nothing))
            yield source.take(source.num_ready // 4).mean(axis=1)


def _coloured(exponent: float) -> Callable[[np.random.Generator, Float64], Float64]:
    """Return a maker of noise whose power falls with frequency to this power."""

    def make(rng: np.random.Generator, seconds: Float64) -> Float64:
        spectrum = np.fft.rfft(rng.normal(size=len(seconds)))
        frequency = np.fft.rfftfreq(len(seconds), 1.0 / SAMPLE_RATE_HZ)
        return np.fft.irfft(spectrum * np.maximum(frequency, 20.0) ** (-exponent / 2.0), len(seconds))

    return make


def _wind(rng: np.random.Generator, seconds: Float64) -> Float64:
    gusts = np.interp(seconds, np.arange(0.0, _NOISE_SECONDS, 0.4), rng.random(30))
    return _coloured(2.0)(rng, seconds) * gusts


def _tones(phases: Iterable[Float64], harmonics: int) -> Float64:
    return np.asarray(sum(np.sin(phase * k) / k for phase in phases for k in range(1, harmonics + 1)))


def _hum(rng: np.random.Generator, seconds: Float64) -> Float64:
    return _tones([2.0 * np.pi * 50.0 * seconds], 8) + 0.05 * rng.normal(size=len(seconds))


def _melody(rng: np.random.Generator, seconds: Float64) -> Float64:
    """Return one voice with vibrato, two notes a second."""
    notes = 220.0 * 2.0 ** (rng.integers(0, 20, 2 * _NOISE_SECONDS)[(2.0 * seconds).astype(int)] / 12.0)
    vibrato = 1.0 + 0.01 * np.sin(2.0 * np.pi * 5.0 * seconds)
    return _tones([2.0 * np.pi * np.cumsum(notes * vibrato) / SAMPLE_RATE_HZ], 7)


def _chords(decay: float) -> Callable[[np.random.Generator, Float64], Float64]:
    """Return a maker of major chords, two a second, that fade with this rate per second."""

    def make(rng: np.random.Generator, seconds: Float64) -> Float64:
        sound = np.zeros(len(seconds))
        for begin in np.arange(0.0, _NOISE_SECONDS, 0.5):
            root, after = 110.0 * 2.0 ** (rng.integers(0, 24) / 12.0), seconds[seconds >= begin] - begin
            tones = _tones((2.0 * np.pi * root * 2.0 ** (step / 12.0) * after for step in (0, 4, 7, 12)), 8)
            sound[len(sound) - len(after) :] += np.exp(-decay * after) * tones
        return sound

    return make


def _beats(rate: float, fade: float, pitch: float) -> Callable[[np.random.Generator, Float64], Float64]:
    """Return a maker of beats: `rate` a second at random times, that fade in `fade` seconds; hits of noise, some of a low pitch."""

    def make(rng: np.random.Generator, seconds: Float64) -> Float64:
        sound = np.zeros(len(seconds))
        for begin in rng.uniform(0.0, _NOISE_SECONDS, round(rate * _NOISE_SECONDS)):
            after = seconds[seconds >= begin] - begin
            hit = rng.normal(size=len(after)) if not pitch or rng.random() < 0.6 else np.sin(2.0 * np.pi * pitch * after)
            sound[len(sound) - len(after) :] += np.exp(-after / fade) * hit
        return sound

    return make


def _synthesizer(rate: float, ratios: tuple[float, ...], fade: float) -> Callable[[np.random.Generator, Float64], Float64]:
    """Return a maker of notes by frequency modulation (Chowning 1973), `rate` a second, that fade in `fade` seconds."""

    def make(rng: np.random.Generator, seconds: Float64) -> Float64:
        sound = np.zeros(len(seconds))
        for begin in np.arange(0.0, _NOISE_SECONDS, 1.0 / rate):
            after = seconds[seconds >= begin] - begin
            pitch, ratio, depth = 55.0 * 2.0 ** (rng.integers(0, 40) / 12.0), rng.choice(ratios), rng.uniform(0.5, 8.0)
            modulation = depth * np.exp(-after / fade) * np.sin(2.0 * np.pi * pitch * ratio * after)
            sound[len(sound) - len(after) :] += np.exp(-after / fade) * np.sin(2.0 * np.pi * pitch * after + modulation)
        return sound

    return make


def _whooshes(rng: np.random.Generator, seconds: Float64) -> Float64:
    """Return noise in a moving band, in swells of some tenths of a second."""
    sound = np.zeros(len(seconds))
    for begin in np.arange(0.0, _NOISE_SECONDS, 0.7):
        after = seconds[seconds >= begin] - begin
        length, low, high = rng.uniform(0.1, 0.6), *rng.uniform(200.0, 5000.0, 2)
        swell = np.sin(np.pi * np.minimum(after / length, 1.0)) ** 2
        carrier = 2.0 * np.pi * np.cumsum(low + (high - low) * np.minimum(after / length, 1.0)) / SAMPLE_RATE_HZ
        slow = np.convolve(rng.normal(size=len(after)), np.ones(30) / 30.0, mode="same")
        sound[len(sound) - len(after) :] += swell * slow * np.sin(carrier)
    return sound


def _band(rng: np.random.Generator, seconds: Float64) -> Float64:
    return _chords(3.0)(rng, seconds) + 0.5 * _beats(4.0, 0.05, 80.0)(rng, seconds) + 0.5 * _melody(rng, seconds)


NOISES: Final = (
    _coloured(0.0),
    _coloured(1.0),
    _coloured(2.0),
    _wind,
    _hum,
    _melody,
    _chords(3.0),
    _chords(0.3),
    _beats(4.0, 0.05, 80.0),
    _beats(5.0, 0.002, 0.0),
    _beats(7.0, 0.008, 0.0),
    _synthesizer(2.0, (1.0, 2.0, 3.0), 0.6),
    _synthesizer(8.0, (0.5, 1.0, 1.41, 3.5), 0.1),
    _whooshes,
    _band,
)
"""Kinds of sound that are no speech: noise of three colours, wind, hum, melody, chords, drums, clicks, keys, synthesizers, whooshes
and music of several.
Each is a function of random numbers and times in seconds, float64 [N]."""


def _windows(features: SpeechFeatures, input_window: InputWindow) -> Float32:
    """Return the input window of the map for each frame, float32 [T, width, 192]."""
    return neighbours(states_of(features, input_window.feature), input_window.past, input_window.ahead)


def _joined(parts: Sequence[LabelledFrames]) -> LabelledFrames:
    return LabelledFrames(
        np.concatenate([part.windows for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.weight for part in parts]),
    )


def _flat(windows: Float32) -> Float32:
    return np.ascontiguousarray(windows).reshape(len(windows), windows.shape[1] * windows.shape[2])
