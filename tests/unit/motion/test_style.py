from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from services.common.array_types import Array
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.face.landmarks import mouth_opening
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from services.motion.models import MotionModels
from services.motion.predictor import encode_mouths
from services.motion.predictors.registry import added_style_shapes
from services.motion.style import STYLE_FORMAT, Style, encode_style, measure_mouth
from services.motion.types import Footage
from tests.refusals import raised
from tests.unit.motion.synthesised import mouths


def test_style_survives_its_artefact(style: Style, models: MotionModels) -> None:
    named = decode_arrays(encode_arrays(style.arrays(), {"format": STYLE_FORMAT}))
    again = Style.from_arrays(named.arrays, named.metadata, expected=models.style_shapes, added={}, field="style")
    for name, array in style.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


@pytest.mark.parametrize("broken", ["format", "shape", "missing", "nan"])
def test_an_artefact_that_is_no_style_is_refused(style: Style, models: MotionModels, broken: str) -> None:
    arrays = dict(style.arrays())
    metadata = {"format": "something else" if broken == "format" else STYLE_FORMAT}
    if broken == "shape":
        arrays["spread"] = arrays["spread"][:-1]
    if broken == "missing":
        del arrays["code"]
    if broken == "nan":
        arrays["mean_mouth"] = np.full_like(arrays["mean_mouth"], np.nan)
    with raised(InvalidRequestError, field="config.style"):
        Style.from_arrays(arrays, metadata, expected=models.style_shapes, added={}, field="config.style")


def test_style_without_arrays_loads_nothing(style: Style, monkeypatch: pytest.MonkeyPatch) -> None:
    """A style without arrays of a predictor loads no network of it."""
    models = MotionModels()
    monkeypatch.setattr(models, "own", lambda load: pytest.fail(f"{load} is loaded in vain"))
    names = [*style.arrays(), "landmark_correction", "pose_steps"]
    assert set(added_style_shapes(names, models)) == {"landmark_correction", "pose_steps"}


def test_an_array_that_nobody_declares_is_left_out(style: Style, models: MotionModels) -> None:
    again = _read({**style.arrays(), "strange": np.ones(3, np.float32)}, models)
    assert set(again.arrays()) == set(style.arrays())


def _read(arrays: Mapping[str, Array], models: MotionModels) -> Style:
    added = added_style_shapes(arrays, models)
    return Style.from_arrays(arrays, {"format": STYLE_FORMAT}, expected=models.style_shapes, added=added, field="config.style")


def test_larger_motion_gives_larger_spread(models: MotionModels) -> None:
    wave = np.abs(np.sin(np.arange(200) * 0.5)).astype(np.float32)
    small, large = (measure_mouth(mouths(size * wave), models.basis) for size in (2.0, 10.0))
    assert np.linalg.norm(large.spread) > 1.5 * np.linalg.norm(small.spread)


def test_silence_does_not_move_rest(models: MotionModels) -> None:
    """Silence in the footage does not move the rest."""
    talk = mouths((8.0 * np.abs(np.sin(np.arange(120) * 0.5))).astype(np.float32))
    pause = mouths(np.zeros(80, np.float32))
    plain, padded = (measure_mouth(frames, models.basis) for frames in (talk, np.concatenate([talk, pause])))
    assert np.abs(plain.rest_mouth - padded.rest_mouth).max() < 1.0
    assert np.abs(plain.mean_mouth - padded.mean_mouth).max() > 1.5


def test_closed_mouth_is_the_smallest_opening_seen(models: MotionModels) -> None:
    opening = np.linspace(1.0, 12.0, 100).astype(np.float32)
    closed = measure_mouth(mouths(opening), models.basis).closed_mouth
    assert mouth_opening(closed) < np.percentile(mouth_opening(mouths(opening)), 10)


def test_unusable_frames_do_not_count(models: MotionModels) -> None:
    frames = mouths(np.full(60, 4.0, np.float32))
    frames[40:] += 500.0
    usable = np.arange(60) < 40
    np.testing.assert_allclose(encode_style(frames, usable, models.basis, models).mean_mouth, frames[0], atol=1e-3)


def test_too_little_footage_is_named(models: MotionModels) -> None:
    with pytest.raises(NoUsableFootageError, match="25 usable frames"):
        encode_style(mouths(np.ones(60, np.float32)), np.arange(60) < 20, models.basis, models)


def test_shut_mouth_person_moves_as_mean(models: MotionModels) -> None:
    """A person who is never seen with an open mouth moves as the mean speaker."""
    shut = Footage(mouths(np.zeros(100, np.float32)), np.ones(100, np.bool_))
    measured, style = encode_style(shut.mouth_landmarks, shut.usable, models.basis, models), encode_mouths(shut, models)
    np.testing.assert_array_equal(style.spread, models.basis.typical_spread)
    np.testing.assert_array_equal(style.code, models.mean_code)
    np.testing.assert_array_equal(style.rest_mouth, measured.rest_mouth)
    np.testing.assert_array_equal(style.closed_mouth, measured.closed_mouth)
