"""Faces of the contract as the client gives them: arrays, and coefficients where a model was fitted."""

from __future__ import annotations

import numpy as np

from dubstage.client.arrays import to_tensor
from dubstage.client.face import _face
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2 as pb


def tracked() -> pb.FaceTrack:
    return pb.FaceTrack(
        face_id=3,
        box=[10.0, 20.0, 30.0, 40.0],
        landmarks=to_tensor(np.ones((478, 3), np.float32)),
        mouth_landmarks=to_tensor(np.zeros((59, 3), np.float32)),
        confidence=0.75,
        mouth_visibility=0.5,
        blink=0.25,
        reason=common_pb2.FRAME_REASON_DUBBED,
    )


def test_a_face_without_a_model_has_no_coefficients() -> None:
    face = _face(tracked())
    assert (face.face_id, face.box, face.reason) == (3, (10.0, 20.0, 30.0, 40.0), "DUBBED")
    assert (face.confidence, face.mouth_visibility, face.blink) == (0.75, 0.5, 0.25)
    assert face.landmarks.shape == (478, 3)
    assert face.coefficients is None
    assert face.message == tracked(), "what FitIdentity takes back"


def test_coefficients_and_optional_albedo() -> None:
    """Coefficients come as arrays and albedo and light only with an identity."""
    message = tracked()
    message.landmark_error = 0.125
    message.coefficients.model = "mediapipe_468"
    message.coefficients.identity.CopyFrom(to_tensor(np.arange(20, dtype=np.float32)))
    message.coefficients.expression.CopyFrom(to_tensor(np.arange(64, dtype=np.float32)))
    message.coefficients.pose.scale = 2.0
    found = _face(message).coefficients
    assert found is not None
    assert (found.model, found.pose.scale, _face(message).landmark_error) == ("mediapipe_468", 2.0, 0.125)
    np.testing.assert_array_equal(found.expression, np.arange(64))
    np.testing.assert_array_equal(found.identity, np.arange(20))
    assert found.albedo is None
    assert found.light is None
    message.coefficients.albedo.CopyFrom(to_tensor(np.zeros(12, np.float32)))
    message.coefficients.light.CopyFrom(to_tensor(np.ones((9, 3), np.float32)))
    known = _face(message).coefficients
    assert known is not None
    assert known.albedo is not None
    assert known.light is not None
    assert (known.albedo.shape, known.light.shape) == ((12,), (9, 3))
