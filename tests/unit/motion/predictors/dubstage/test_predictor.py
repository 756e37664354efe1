"""The predictors `dubstage` and `dubstage_live`: motion of streams, and what a person's footage teaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from research.methods.dubstage.motion import fit_map, model_of_maps
from research.motion.clips import TrainingClip
from research.motion.evaluate import OFF
from services.common.errors import ArtefactCorruptError, InvalidRequestError, NoUsableFootageError
from services.common.face.landmarks import NUM_LIPS, lip_gaps, lip_width, mouth_opening
from services.common.store.tensor_bytes import encode_arrays
from services.common.wire.phones import PHONES
from services.common.wire.timeline import Timeline
from services.motion.basis import LandmarkBasis
from services.motion.constraints import LIVE as LIVE_CONSTRAINTS
from services.motion.constraints import WHOLE, ConstraintConfig
from services.motion.features import silence
from services.motion.models import WEIGHTS, MotionModels
from services.motion.person_predictor import AMPLITUDE
from services.motion.predictors.dubstage.predictor import (
    CORRECTION,
    GAINS,
    LARGEST_GAIN,
    MIN_FRAMES,
    SpeechMapPredictor,
    personalized,
    spread_gain,
)
from services.motion.speech_map import (
    FILES,
    INPUT_WINDOWS,
    LIVE,
    LIVE_INPUT_WINDOWS,
    LIVE_STATES,
    MODEL_FILE,
    VOICE_ACTIVITY_PAST,
    InputWindow,
    SpeechMapModel,
    correction_inputs,
    num_correction_inputs,
)
from services.motion.speech_states import neighbours
from services.motion.stream import MotionStream
from services.motion.style import Style, encode_style
from services.motion.types import Footage, SpeechFeatures
from tests.refusals import raised
from tests.unit.motion.made_clips import in_memory, made_clip
from tests.unit.motion.streams import NTSC, PAL, mouths_of
from tests.unit.motion.synthesised import mouths, random_features, speech, with_states

BOTH = (FILES.feature, LIVE_STATES)
CASES = pytest.mark.parametrize("input_window", INPUT_WINDOWS, ids=[input_window.name for input_window in INPUT_WINDOWS])


@pytest.fixture(scope="module")
def model() -> SpeechMapModel:
    return SpeechMapModel(WEIGHTS)


@pytest.fixture(scope="module")
def personal(style: Style) -> Style:
    correction = np.random.default_rng(3).normal(0.0, 0.2, (len(style.spread), num_correction_inputs(len(style.spread))))
    return style.adding(**{CORRECTION: correction.astype(np.float32)})


def heard(num_frames: int, seed: int = 0) -> SpeechFeatures:
    return with_states(random_features(num_frames, seed), *BOTH, seed=seed)


def moved(
    models: MotionModels,
    model: SpeechMapModel,
    input_window: InputWindow,
    style: Style,
    features: SpeechFeatures,
    *,
    timeline: Timeline = PAL,
    cut: int = 1000,
    constraints: object = None,
) -> np.ndarray:
    opened = SpeechMapPredictor(model, input_window, models, style, constraints)  # type: ignore[arg-type]
    return mouths_of(MotionStream(opened, timeline), features, cut)


@CASES
@pytest.mark.parametrize("timeline", [PAL, NTSC], ids=["25", "29.97"])
@pytest.mark.parametrize("cut", [1, 7])
def test_other_pieces_give_the_same_bytes(
    models: MotionModels, model: SpeechMapModel, personal: Style, input_window: InputWindow, timeline: Timeline, cut: int
) -> None:
    whole, pieces = (
        moved(models, model, input_window, personal, heard(45), timeline=timeline, cut=size).tobytes() for size in (1000, cut)
    )
    assert whole == pieces


@pytest.mark.parametrize("cut", [1, 7])
def test_quiet_pause_in_pieces(models: MotionModels, model: SpeechMapModel, personal: Style, cut: int) -> None:
    """A pause far below the voice rests the mouth in the same bytes, in whatever pieces the speech comes."""
    features = replace(heard(45), speech_probability=np.ones(45, np.float32))
    loud = np.where((np.arange(45) < 15) | (np.arange(45) >= 30), np.float32(6.0), np.float32(-7.0))
    features = replace(features, mel=np.broadcast_to(loud[:, None, None], features.mel.shape))
    whole, pieces = (moved(models, model, FILES, personal, features, cut=size, constraints=WHOLE) for size in (1000, cut))
    assert whole.tobytes() == pieces.tobytes()
    np.testing.assert_allclose(whole[19:26], np.broadcast_to(personal.closed_mouth, whole[19:26].shape), atol=1e-3)


@CASES
def test_look_ahead_bound(models: MotionModels, model: SpeechMapModel, personal: Style, input_window: InputWindow) -> None:
    """Nothing later than the look ahead moves a frame."""
    features, other = heard(50), heard(50, seed=1)
    mixed = SpeechFeatures.joined([features[:35], other[35:]])
    first, second = (moved(models, model, input_window, personal, each) for each in (features, mixed))
    np.testing.assert_array_equal(first[: 35 - input_window.ahead], second[: 35 - input_window.ahead])
    assert not np.array_equal(first[35 - input_window.ahead], second[35 - input_window.ahead])


@pytest.mark.parametrize("ahead", LIVE_INPUT_WINDOWS)
def test_live_frame_waits_its_look_ahead(models: MotionModels, model: SpeechMapModel, personal: Style, ahead: int) -> None:
    """Live speech with a look-ahead of d frames answers each frame exactly d frames later."""
    opened = SpeechMapPredictor(model, LIVE_INPUT_WINDOWS[ahead], models, personal, None)
    features = heard(ahead + 4)
    answered = [opened.push(features[frame : frame + 1]) for frame in range(ahead + 4)]
    assert [len(motion.mouth_landmarks) for motion in answered] == [0] * ahead + [1] * 4
    assert [motion.first_frame for motion in answered[ahead:]] == [0, 1, 2, 3]


def test_look_aheads_have_their_own_maps(models: MotionModels, model: SpeechMapModel, style: Style) -> None:
    """Each look-ahead has a map of its own, and all share one voice activity."""
    names = {name for name in model.arrays() if name.startswith(LIVE_STATES)}
    heads = ("weight", "bias", "closed_weight", "closed_bias")
    assert names == {
        *(f"{LIVE_STATES}.{ahead}.{head}" for ahead in (0, 1, 2, 3) for head in heads),
        *(f"{LIVE_STATES}.voice_activity.{head}" for head in ("weight", "bias")),
    }
    features = heard(30)
    pieces = {moved(models, model, input_window, style, features).tobytes() for input_window in LIVE_INPUT_WINDOWS.values()}
    assert len(pieces) == len(LIVE_INPUT_WINDOWS)


@CASES
def test_a_frame_is_the_map_of_its_neighbours(
    models: MotionModels, model: SpeechMapModel, style: Style, input_window: InputWindow
) -> None:
    """The stream against the formula of the model, also at both ends, where silence surrounds the speech."""
    features = heard(20)
    each = model.maps[input_window]
    windows = neighbours(features.extra[input_window.feature], input_window.past, input_window.ahead)
    coefficients = windows.reshape(20, -1) @ each.weight.T + each.bias
    expected = style.rest_mouth + model.basis.reconstruct(coefficients * model.spread(style.spread, models))
    expected = style.mean_mouth + AMPLITUDE * (expected - style.mean_mouth)
    found = moved(models, model, input_window, style, features, constraints=OFF)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.abs(expected - style.rest_mouth).max() > 1.0


@CASES
def test_correction_in_spread_units(models: MotionModels, model: SpeechMapModel, style: Style, input_window: InputWindow) -> None:
    """A correction is added in units of the spread."""
    features = heard(20)
    shift = np.linspace(-0.5, 0.5, len(style.spread)).astype(np.float32)
    correction = np.zeros((len(shift), num_correction_inputs(len(shift))), np.float32)
    correction[:, -1] = shift
    plain, shifted = (
        moved(models, model, input_window, each, features, constraints=OFF)
        for each in (style, style.adding(**{CORRECTION: correction}))
    )
    offset = AMPLITUDE * model.basis.reconstruct(shift * model.spread(style.spread, models))
    np.testing.assert_allclose(shifted - plain, np.broadcast_to(offset, plain.shape), atol=1e-3)


@CASES
def test_silence_is_the_closed_mouth(
    models: MotionModels, model: SpeechMapModel, personal: Style, input_window: InputWindow
) -> None:
    still = moved(models, model, input_window, personal, with_states(silence(40), *BOTH))
    np.testing.assert_allclose(still, np.broadcast_to(personal.closed_mouth, still.shape), atol=1e-4)


@CASES
def test_sure_closed_lips_close(models: MotionModels, model: SpeechMapModel, style: Style, input_window: InputWindow) -> None:
    """The states open the mouth, and those of one frame lie along the weights of the map of closed lips at that frame."""
    features = with_states(speech(["AA"], 20), *BOTH)
    opens = model.maps[input_window].weight[0].reshape(input_window.width, -1).sum(axis=0)
    own = model.maps[input_window].closed_weight.reshape(input_window.width, -1)[input_window.past]
    states = np.tile(1.5 * opens / float(opens @ opens), (20, 1)).astype(np.float32)
    states[10] += 18.0 * own / float(own @ own)
    loud = replace(features, extra=dict.fromkeys(BOTH, states))
    opening = mouth_opening(moved(models, model, input_window, style, loud))
    assert opening[10] < 0.4 * opening[[2, 18]].min()


@CASES
def test_bilabials_of_the_posteriorgram_close_no_lips(
    models: MotionModels, model: SpeechMapModel, style: Style, input_window: InputWindow
) -> None:
    """The states alone say where the lips close: the posteriorgram closes lips that stay open."""
    features = heard(60)
    phones = features.posteriorgram.copy()
    phones[30:34] = 0.0
    phones[30:34, :, PHONES.index("M")] = 1.0
    changed = moved(models, model, input_window, style, replace(features, posteriorgram=phones))
    assert changed.tobytes() == moved(models, model, input_window, style, features).tobytes()


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_speech_start_is_not_shut(models: MotionModels, model: SpeechMapModel, style: Style, cut: int) -> None:
    """Sound that begins within speech does not begin with a shut mouth; sound that begins with a short silence does."""
    features = replace(heard(60), speech_probability=np.ones(60, np.float32))
    features = replace(features, mel=np.full_like(features.mel, 1.0))
    # Voice activity has not noticed the speech yet.
    unnoticed = replace(features, speech_probability=np.where(np.arange(60) < 4, np.float32(0.0), np.float32(1.0)))
    quiet = features.mel.copy()
    quiet[:5] = -8.0

    def first_mouth(
        features: SpeechFeatures, input_window: InputWindow = FILES, constraints: ConstraintConfig = WHOLE
    ) -> np.ndarray:
        return moved(models, model, input_window, style, features, cut=cut, constraints=constraints)[0]

    np.testing.assert_array_equal(first_mouth(unnoticed), first_mouth(features))
    assert not np.allclose(first_mouth(features), style.closed_mouth, atol=0.5)
    np.testing.assert_allclose(first_mouth(replace(unnoticed, mel=quiet)), style.closed_mouth, atol=0.6)
    np.testing.assert_allclose(first_mouth(unnoticed, LIVE, LIVE_CONSTRAINTS), style.closed_mouth, atol=1e-3)


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_live_speech_begins_where_the_states_hear_it(models: MotionModels, model: SpeechMapModel, style: Style, cut: int) -> None:
    """The detector of speech is late: the mouth of live speech moves before, and rests where the states hear no speech either."""
    activity = model.voice_activity
    assert activity is not None
    each = activity.weight.reshape(VOICE_ACTIVITY_PAST + 1, -1).sum(axis=0)
    features = heard(60)
    states = features.extra[LIVE_STATES].copy()
    states[:30] -= (states[:30] @ each)[:, None] / float(each @ each) * each + 8.0 * each / float(each @ each)
    states[30:] += 20.0 * each / float(each @ each)
    late = replace(
        features,
        speech_probability=np.where(np.arange(60) < 40, np.float32(0.0), np.float32(0.9)),
        extra={**features.extra, LIVE_STATES: states},
    )
    mouths = moved(models, model, LIVE, style, late, cut=cut)
    moving = np.abs(np.diff(mouths, axis=0)).max(axis=(1, 2))
    assert moving[12:27].max() < 1e-3
    assert moving[31:38].min() > 0.1


def test_features_without_states_are_refused_by_name(models: MotionModels, model: SpeechMapModel, style: Style) -> None:
    opened = SpeechMapPredictor(model, FILES, models, style, None)
    with raised(InvalidRequestError, match=r"features\.speech_states: missing", field="features.speech_states"):
        opened.push(random_features(5))


def talking(num_frames: int, seed: int) -> tuple[SpeechFeatures, Footage]:
    """Speech, and a mouth that opens with one component of the states of block 3, which the committed map does not know."""
    features = heard(num_frames, seed)
    states = features.extra[FILES.feature].copy()
    states[:, 100] = np.convolve(states[:, 100], np.ones(3) / 1.7, mode="same")
    opening = np.maximum(8.0 + 5.0 * states[:, 100], 0.0).astype(np.float32)
    heard_too = replace(features, extra=dict.fromkeys(BOTH, states))
    return heard_too, Footage(mouths(opening), np.ones(num_frames, np.bool_))


def test_correction_generalises_also_live(models: MotionModels, model: SpeechMapModel) -> None:
    """A correction holds on other speech of the person, also live."""
    features, footage = talking(400, 1)
    style = encode_style(footage.mouth_landmarks, footage.usable, models.basis, models)
    steps = list(personalized(model, FILES, style, features, footage, models))
    assert [step.index for step in steps] == sorted({step.index for step in steps})
    refined = steps[-1].style
    assert refined is not None
    assert steps[-1].loss < 0.8
    other, truth = talking(200, 2)
    expected = mouth_opening(truth.mouth_landmarks)
    for input_window in INPUT_WINDOWS:
        before, after = (
            np.corrcoef(mouth_opening(moved(models, model, input_window, each, other, constraints=OFF)), expected)[0, 1]
            for each in (style, refined)
        )
        assert after > before + 0.3
        assert after > 0.6


def test_one_second_is_enough(models: MotionModels, model: SpeechMapModel) -> None:
    """A correction is learned from a second of footage; less is refused."""
    features, footage = talking(MIN_FRAMES, 1)
    style = encode_style(footage.mouth_landmarks, footage.usable, models.basis, models)
    *_, last = personalized(model, FILES, style, features, footage, models)
    assert last.style is not None
    assert {CORRECTION, GAINS} <= set(last.style.added)
    footage.usable[0] = False
    with pytest.raises(NoUsableFootageError, match=r"needs 25 usable frames \(1 s\), the footage has 24"):
        list(personalized(model, FILES, style, features, footage, models))


@CASES
def test_gain_scales_opening(models: MotionModels, model: SpeechMapModel, style: Style, input_window: InputWindow) -> None:
    """A gain scales the opening about the mean mouth and never presses lips together."""
    features = heard(60)
    one, more, most = (
        moved(models, model, input_window, style.adding(**{GAINS: np.array([gain, 1.0], np.float32)}), features, constraints=OFF)
        for gain in (1.0, 1.3, 9.0)
    )
    plain = moved(models, model, input_window, style, features, constraints=OFF)
    # A gain takes the place of the amplitude of all predictors.
    np.testing.assert_allclose(style.mean_mouth + AMPLITUDE * (one - style.mean_mouth), plain, atol=1e-4)
    plain = one
    spread = model.spread(style.spread, models)
    before, after = (model.basis.project(each - style.mean_mouth) / spread for each in (plain, more))
    # The gain stops where lips touch.
    parted = np.array([lip_gaps(mouth)[:, 1].mean() for mouth in more]) > 0.05
    assert parted.sum() > 50
    np.testing.assert_allclose(after[parted, 0], 1.3 * before[parted, 0], atol=1e-3)
    np.testing.assert_allclose(after[:, 1:], before[:, 1:], atol=1e-3)
    gap = np.array([lip_gaps(mouth)[:, 1].mean() for mouth in most])
    assert -0.1 < gap.min() < 0.1
    assert mouth_opening(more).std() > 1.03 * mouth_opening(plain).std()


def test_gain_matches_held_out_spread(models: MotionModels, model: SpeechMapModel) -> None:
    """The gain gives held out speech the spread of the person."""
    features, footage = talking(400, 1)
    style = encode_style(footage.mouth_landmarks, footage.usable, models.basis, models)
    *_, last = personalized(model, FILES, style, features, footage, models)
    assert last.style is not None
    gain = float(last.style.added[GAINS][0])
    assert 1.02 < gain < LARGEST_GAIN + 1e-6
    other, truth = talking(400, 2)
    without = last.style.adding(**{GAINS: np.ones(2, np.float32)})
    before, after = (
        mouth_opening(moved(models, model, FILES, each, other, constraints=OFF)).std() / mouth_opening(truth.mouth_landmarks).std()
        for each in (without, last.style)
    )
    assert abs(after - 1.0) < abs(before - 1.0)


def test_gain_is_bounded_ratio() -> None:
    """A gain is a ratio of spreads within its range and small for seconds of footage."""
    wave = np.sin(np.arange(5000) * 0.7).astype(np.float32)
    never = np.zeros(5000, np.float32)
    seen, narrow = 10.0 + 4.0 * wave, 10.0 + 4.0 / 1.2 * wave
    assert spread_gain(seen, narrow, 10.0, never) == pytest.approx(1.2, abs=3e-3)
    assert spread_gain(seen[:50], narrow[:50], 10.0, never[:50]) == pytest.approx(1.1, abs=1e-2)
    assert spread_gain(seen, 10.0 + 8.0 * wave, 10.0, never) == 1.0
    assert spread_gain(seen, 10.0 + 0.1 * wave, 10.0, never) == pytest.approx(LARGEST_GAIN, rel=0.01)
    assert spread_gain(seen, np.full(5000, 10.0, np.float32), 10.0, never) == 1.0


@CASES
@pytest.mark.parametrize("gain", [1.0, 1.2, 1.5])
def test_width_gain_scales_lips(
    models: MotionModels, model: SpeechMapModel, style: Style, input_window: InputWindow, gain: float
) -> None:
    """A width gain spreads the lip width about the mean mouth."""
    plain, wide = (
        moved(models, model, input_window, each, heard(60), constraints=OFF)
        for each in (style.adding(**{GAINS: np.array([1.0, width], np.float32)}) for width in (1.0, gain))
    )
    mean = float(lip_width(style.mean_mouth))
    np.testing.assert_allclose(lip_width(wide) - mean, gain * (lip_width(plain) - mean), atol=0.6)
    np.testing.assert_array_equal(wide[:, NUM_LIPS:], plain[:, NUM_LIPS:])
    np.testing.assert_allclose(mouth_opening(wide), mouth_opening(plain), atol=0.6)
    assert lip_width(plain).std() > 0.5


def test_the_gain_counts_how_far_the_lips_close() -> None:
    """With the gain, and with the lips closed where they close, the spread is the person's."""
    wave = np.sin(np.arange(5000) * 0.7).astype(np.float32)
    seen, narrow = 10.0 + 7.5 * wave, 10.0 + 5.5 * wave
    closing = np.clip(-2.0 * wave - 1.2, 0.0, 1.0).astype(np.float32)
    gain = spread_gain(seen, narrow, 10.0, closing)
    assert 1.0 < gain < spread_gain(seen, narrow, 10.0, np.zeros(5000, np.float32))
    assert ((1.0 - closing) * (10.0 + gain * (narrow - 10.0))).std() == pytest.approx(seen.std(), rel=0.01)


def test_the_correction_hears_the_predicted_frame(model: SpeechMapModel) -> None:
    """States that differ at one frame alone move the pooled speech of the frames about it, most of all its own."""
    for input_window in INPUT_WINDOWS:
        states = np.zeros((21, 192), np.float32)
        states[10, 96] = 1.0
        answer = np.arange(4, dtype=np.float32)
        windows = neighbours(states, input_window.past, input_window.ahead)
        pooled = np.array([correction_inputs(window, answer, input_window) for window in windows])
        assert pooled.shape == (21, num_correction_inputs(4))
        assert int(pooled[:, 0].argmax()) == 10
        assert not pooled[:8, 0].any()
        assert not pooled[13:, 0].any()
        np.testing.assert_array_equal(pooled[:, -5:], np.tile(np.append(answer / 2.0, 1.0), (21, 1)))


def with_clip_states(clip: TrainingClip) -> TrainingClip:
    """The clip with states of which one tells the opening of the mouth."""
    features = with_states(clip.features, *BOTH, seed=len(clip.name) + ord(clip.name[-1]))
    states = 0.2 * features.extra[LIVE_STATES]
    states[:, 7] = mouth_opening(clip.mouth_landmarks) / 3.0
    return replace(clip, features=replace(features, extra=dict.fromkeys(BOTH, states)))


@CASES
def test_map_generalises_to_new_speaker(models: MotionModels, input_window: InputWindow) -> None:
    """A map learns what moves the mouth and predicts a speaker it has not seen."""
    train = in_memory([with_clip_states(made_clip(index, num_frames=300)) for index in range(6)])
    fitted = fit_map(train, models.basis, input_window)
    stranger = with_clip_states(made_clip(9, num_frames=100, speaker="carl"))
    style = encode_style(stranger.mouth_landmarks, stranger.usable, models.basis, models)
    windows = neighbours(stranger.features.extra[input_window.feature], input_window.past, input_window.ahead)
    model = model_of_maps(models.basis, {input_window: fitted})
    predicted = np.stack([fitted.predict(window) for window in windows]) * models.basis.typical_spread
    opening = mouth_opening(style.rest_mouth + model.basis.reconstruct(predicted.astype(np.float32)))
    assert np.corrcoef(opening, mouth_opening(stranger.mouth_landmarks))[0, 1] > 0.7


def test_a_damaged_file_is_named(tmp_path: Path, model: SpeechMapModel) -> None:
    folder = tmp_path
    arrays = model.arrays()
    short = {**arrays, "speech_states.weight": arrays["speech_states.weight"][:, :-1]}
    (folder / MODEL_FILE).write_bytes(encode_arrays(short))
    with pytest.raises(ArtefactCorruptError, match=r"speech_map\.safetensors is damaged: speech_states\.weight .* \[16, 1344\]"):
        SpeechMapModel(folder)
    for name in ("speech_states_live.voice_activity.bias", "speech_states_live.2.closed_weight"):
        lacking = {each: values for each, values in arrays.items() if each != name}
        (folder / MODEL_FILE).write_bytes(encode_arrays(lacking))
        with pytest.raises(ArtefactCorruptError, match=rf"{name} is missing"):
            SpeechMapModel(folder)


def test_other_basis_same_spread(model: SpeechMapModel, models: MotionModels, style: Style) -> None:
    """The components of the other basis are the same ones in another order: the maps go on working beside another basis."""
    basis = models.basis
    other = LandmarkBasis(basis.components[::-1], basis.dual[::-1], basis.typical_spread[::-1])
    found = model.spread(style.spread[::-1].copy(), SimpleNamespace(basis=other))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, style.spread, rtol=1e-4)
    assert style.spread.max() > 2.0 * style.spread.min()
