"""Messages of BuildBank to and from the stage's own types, with validation."""

from __future__ import annotations

from typing import Final

import numpy as np

from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2 as pb
from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.common.face.actor_geometry import ActorGeometry
from services.common.face.crops import BOX_SIZE, MAX_HEAD_PX
from services.common.face.mouth_bank import MAX_BANK_FRAMES, MAX_EXPRESSION, SPEECH_SHAPE
from services.common.face.native_pictures import MAX_SCALE, NativeFile, encoded
from services.common.store.artefacts import ArtefactRef
from services.common.wire.arrays import from_image, from_tensor, to_tensor
from services.common.wire.artefact_messages import ref_to_proto
from services.common.wire.face_messages import face_from_proto
from services.texture.build_bank import DEFAULT_FRAMES
from services.texture.types import BankFrame

_LARGEST_PROBABILITY: Final = 1.001
_BOX: Final = (BOX_SIZE, BOX_SIZE)


def max_frames_from_proto(request: pb.BuildBankRequest) -> int:
    """Return the largest number of frames of the bank, from a BuildBank stream's first message.

    Raises:
        InvalidRequest: the message is no config, or the number is too large.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    wanted = request.config.max_frames or DEFAULT_FRAMES
    if wanted > MAX_BANK_FRAMES:
        raise InvalidRequest(
            f"config.max_frames: a bank keeps at most {MAX_BANK_FRAMES} frames, not {wanted}", field="config.max_frames"
        )
    return wanted


def bank_frame_from_proto(request: pb.BuildBankRequest) -> BankFrame:
    """Return a frame of footage.

    Raises:
        InvalidRequest: the message is no frame, or its picture, landmarks or pose cannot be used.
    """
    if not request.HasField("frame"):
        raise InvalidRequest("after the config every message must be a frame", field="frame")
    frame = request.frame
    speech, expression = None, None
    if frame.HasField("speech"):
        speech = from_tensor(frame.speech, "frame.speech", dtype=np.float32, shape=SPEECH_SHAPE, limit=_LARGEST_PROBABILITY)
    if frame.HasField("expression"):
        expression = _expression_from_proto(frame.expression)
    landmarks, pose = face_from_proto(frame.landmarks, frame.pose, "frame")
    return BankFrame(
        frame_index=frame.frame_index,
        box=from_image(frame.box, "frame.box", channels=3, size=_BOX),
        landmarks=landmarks,
        pose=pose,
        speech=speech,
        expression=expression,
        native=_native_from_proto(frame.native) if frame.HasField("native") else None,
    )


def _native_from_proto(message: common_pb2.Image) -> NativeFile:
    field, side = "frame.native", message.width
    if side % BOX_SIZE or not 2 <= side // BOX_SIZE <= MAX_SCALE:
        sides = ", ".join(str(scale * BOX_SIZE) for scale in range(2, MAX_SCALE + 1))
        raise InvalidRequest(f"{field}: a native picture has {sides} pixels a side, not {side}", field=field)
    return encoded(from_image(message, field, channels=1, size=(side, side)))


def _expression_from_proto(message: common_pb2.Tensor) -> Float32:
    field = "frame.expression"
    coefficients: Float32 = from_tensor(message, field, dtype=np.float32, shape=(None,), limit=MAX_HEAD_PX)
    if not 1 <= len(coefficients) <= MAX_EXPRESSION:
        raise InvalidRequest(f"{field}: {len(coefficients)} coefficients, not 1 to {MAX_EXPRESSION}", field=field)
    return coefficients


def bank_to_proto(ref: ArtefactRef, num_frames: int, geometry: ActorGeometry) -> pb.BuildBankResponse:
    """Return the answer of BuildBank."""
    return pb.BuildBankResponse(
        bank=ref_to_proto(ref),
        num_frames=num_frames,
        geometry=pb.ActorGeometry(
            mean_mouth=to_tensor(geometry.mean_mouth),
            closed_mouth=to_tensor(geometry.closed_mouth),
            jaw_envelope=to_tensor(geometry.jaw_envelope),
            anchors=to_tensor(geometry.anchors),
        ),
    )
