"""The identity artefact, there and back."""

import dataclasses

import numpy as np
import pytest

from services.common.errors import InvalidRequestError
from services.common.face.identity import FaceIdentity, identity_from_arrays, model_of_identity
from services.common.store.tensor_bytes import NamedArrays, decode_arrays, encode_arrays
from tests.refusals import raised
from tests.unit.common.geometry.small_models import small_model

MODEL = small_model()
RANDOM = np.random.default_rng(4)


def identity():
    return FaceIdentity(
        model="mine",
        model_digest=MODEL.digest,
        identity=RANDOM.normal(size=3).astype(np.float32),
        offset=RANDOM.normal(size=(60, 3)).astype(np.float32),
        albedo=RANDOM.normal(size=2).astype(np.float32),
        light=RANDOM.normal(size=(9, 3)).astype(np.float32),
        texture=RANDOM.integers(0, 255, (8, 8, 3)).astype(np.uint8),
        seen=np.full((8, 8), 255, np.uint8),
        num_frames=31,
        landmark_error=0.25,
        photometric_error=12.5,
    )


def stored(given, **changes):
    arrays = {**given.arrays(), **changes}
    return decode_arrays(encode_arrays({key: value for key, value in arrays.items() if value is not None}, given.metadata()))


def test_it_comes_back_unchanged():
    given = identity()
    assert model_of_identity(stored(given)) == "mine"
    found = identity_from_arrays(stored(given), MODEL)
    for field in dataclasses.fields(FaceIdentity):
        assert np.array_equal(getattr(found, field.name), getattr(given, field.name)), field.name


def test_neutral_face_of_personal_model():
    """The neutral face is that of the personal model."""
    given = identity()
    neutral = MODEL.shape(given.identity, np.zeros(4, np.float32)) + given.offset
    assert given.neutral(MODEL) == pytest.approx(neutral, abs=1e-4)
    personal = given.personal(MODEL)
    expression = np.array([1.0, 0.0, -1.0, 0.5], np.float32)
    assert personal.shape(np.zeros(0, np.float32), expression) == pytest.approx(
        MODEL.shape(given.identity, expression, given.offset), abs=1e-4
    )


@pytest.mark.parametrize(
    "changes",
    [{"identity": np.zeros(7, np.float32)}, {"offset": None}, {"light": np.full((9, 3), np.nan, np.float32)}, {"texture": None}],
)
def test_a_damaged_one_is_refused(changes):
    with raised(InvalidRequestError, field="identity"):
        identity_from_arrays(stored(identity(), **changes), MODEL)


def test_foreign_identity_refused():
    """An identity of another model or of another kind is refused."""
    with pytest.raises(InvalidRequestError, match="another"):
        identity_from_arrays(stored(identity()), small_model(identity=5))
    other = decode_arrays(encode_arrays({"boxes": np.zeros(3, np.float32)}, {"format": "dubstage.mouth_bank/1"}))
    assert isinstance(other, NamedArrays)
    with pytest.raises(InvalidRequestError, match="no face identity"):
        model_of_identity(other)
