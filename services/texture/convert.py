"""Messages of dubstage.texture.v1alpha1 to and from the stage's own types, with validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2 as pb
from services.common.array_types import Float32
from services.common.errors import InvalidRequest
from services.common.face.actor_geometry import ActorGeometry
from services.common.face.crops import BOX_SIZE, MAX_HEAD_PX
from services.common.face.mouth_bank import MAX_BANK_FRAMES, MAX_EXPRESSION, SPEECH_SHAPE
from services.common.face.native_pictures import MAX_SCALE, NativeFile, encoded
from services.common.store.artefacts import ArtefactRef
from services.common.wire.arrays import from_image, from_tensor, to_gray_image, to_rgb_image, to_tensor
from services.common.wire.artefact_messages import ref_from_proto, ref_to_proto
from services.common.wire.face_messages import face_from_proto
from services.texture.build_bank import DEFAULT_FRAMES
from services.texture.targets.convert import wanted_mouth_from_proto
from services.texture.types import ALBEDO_MODES, BankFrame, TargetFrame, WarpConfig, WarpedFrame, WarpMode

_LARGEST_PROBABILITY: Final = 1.001
_WITHOUT_SPLINE: Final = ALBEDO_MODES | {WarpMode.RETRIEVAL_ONLY}
_BOX: Final = (BOX_SIZE, BOX_SIZE)
_MODES: Final = {
    pb.WARP_MODE_UNSPECIFIED: WarpMode.TEMPORAL_WARP_NETWORK,
    **{pb.WarpMode.Value(f"WARP_MODE_{mode.name}"): mode for mode in WarpMode},
}


@dataclass(frozen=True, slots=True)
class FootageAndSpeech:
    """Input of SelectFrames: head_motion float64 [F], blink bool [F], silent bool [T]."""

    head_motion: npt.NDArray[np.float64]
    blink: npt.NDArray[np.bool_]
    silent: npt.NDArray[np.bool_]


def footage_and_speech_from_proto(request: pb.SelectFramesRequest) -> FootageAndSpeech:
    """Return the request's arrays.

    Raises:
        InvalidRequest: an array is missing, not finite or out of range, or the lengths do not fit together.
    """
    motion = from_tensor(request.head_motion, "head_motion", dtype=np.float32, shape=(None,))
    blink = from_tensor(request.blink, "blink", dtype=np.bool_, shape=(len(motion),))
    silent = from_tensor(request.silent, "silent", dtype=np.bool_, shape=(None,))
    if len(motion) and not (motion.min() >= 0.0 and motion.max() <= 1.0):
        raise InvalidRequest("head_motion: speeds are normalised to 0..1", field="head_motion")
    return FootageAndSpeech(motion.astype(np.float64), blink, silent)


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


def warp_config_from_proto(request: pb.RetrieveWarpRequest) -> WarpConfig:
    """Return the wish of a RetrieveWarp stream's first message.

    Raises:
        InvalidRequest: the message is no config, names an unknown mode, lacks the bank or identity of its mode, or wants detail
            that the mode does not give.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    config = request.config
    if config.mode not in _MODES:
        raise InvalidRequest(f"config.mode: no mode has the number {config.mode}", field="config.mode")
    mode = _MODES[config.mode]
    scale = config.detail_scale
    if scale > MAX_SCALE or (scale and mode in _WITHOUT_SPLINE):
        reason = f"is 0 to {MAX_SCALE}" if scale > MAX_SCALE else f"needs a mode that warps by splines, not {mode.value}"
        raise InvalidRequest(f"config.detail_scale {reason}", field="config.detail_scale")
    if mode in ALBEDO_MODES:
        return WarpConfig(mode, None, ref_from_proto(config.identity, "config.identity"))
    return WarpConfig(mode, ref_from_proto(config.bank, "config.bank"), None, scale)


def target_from_proto(request: pb.RetrieveWarpRequest) -> TargetFrame:
    """Return a target frame.

    Raises:
        InvalidRequest: the message is no frame, has no mouth landmarks, or its landmarks or pose cannot be used.
    """
    if not request.HasField("frame"):
        raise InvalidRequest("after the config every message must be a frame", field="frame")
    return wanted_mouth_from_proto(request.frame, "frame")


def warped_to_proto(warped: WarpedFrame) -> pb.RetrieveWarpResponse:
    """Return the answer for one frame."""
    return pb.RetrieveWarpResponse(
        frame_index=warped.frame_index,
        warped=to_rgb_image(warped.texture),
        box_landmarks=to_tensor(warped.box_landmarks),
        bank_frame_index=warped.bank_frame_index,
        distance=warped.distance,
        fitting_error=warped.fitting_error,
        bending_energy=warped.bending_energy,
        detail=None if warped.detail is None else to_gray_image(warped.detail),
    )
