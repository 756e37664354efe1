"""Messages of dubstage.texture.v1 to and from the stage's own types, with validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.client import to_image, to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.texture.v1 import texture_pb2 as pb
from services.common.array_types import Bool, Float32, Float64, Int64, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.actor_geometry import ActorGeometry
from services.common.face.crops import BOX_SIZE, MAX_HEAD_PX, POSE_SIZE, HeadPose, check_pose_vectors
from services.common.face.landmarks import NUM_MOUTH_AREA
from services.common.face.mouth_bank import MAX_BANK_FRAMES, MAX_EXPRESSION, SPEECH_SHAPE
from services.common.face.native_pictures import MAX_SCALE, NativeFile, encoded
from services.common.store.artefacts import ArtefactRef
from services.common.wire.convert import face_from_proto, from_image, from_tensor, pose_from_proto, ref_from_proto, ref_to_proto
from services.texture.backgrounds import Backgrounds
from services.texture.bank import DEFAULT_FRAMES
from services.texture.types import (
    ALBEDO_MODES,
    BankFrame,
    PortraitFrame,
    SampledFrame,
    TargetFrame,
    TextureConfig,
    TurnedPortrait,
    UvFrame,
    WarpConfig,
    WarpedFrame,
    WarpMode,
    check_order,
)

_LARGEST_PROBABILITY: Final = 1.001
_BOX: Final = (BOX_SIZE, BOX_SIZE)
MAX_UV_SIDE: Final = 3 * BOX_SIZE
"""Largest side of a UV map, pixels. An answer of this size takes 15 MB."""
MIN_PORTRAIT_SIDE: Final = 64
MAX_PORTRAIT_SIDE: Final = 8192
"""Largest side of a portrait, pixels. A side below MIN_PORTRAIT_SIDE holds no face that can be dubbed."""
_OUTSIDE_SHARE: Final = 1.0
"""Share of the portrait's sides by which landmarks may lie outside, as those of a cut-off chin or forehead."""
_WITHOUT_SPLINE: Final = ALBEDO_MODES | {WarpMode.RETRIEVAL_ONLY}
_MODES: Final = {
    pb.WARP_MODE_UNSPECIFIED: WarpMode.TEMPORAL_WARP_NETWORK,
    **{pb.WarpMode.Value(f"WARP_MODE_{mode.name}"): mode for mode in WarpMode},
}


def target_mouth_from_proto(frame: pb.TargetFrame, field: str) -> TargetFrame:
    """Return a target frame.

    Args:
        field: name of the message in the request.

    Raises:
        InvalidRequestError: the frame has no mouth landmarks, or its landmarks or pose cannot be used.
    """
    where = f"{field}.motion.mouth_landmarks"
    if not frame.motion.HasField("mouth_landmarks"):
        raise InvalidRequestError(f"{field}.motion: mouth_landmarks are needed", field=where)
    mouth = _mouth_from_proto(frame.motion.mouth_landmarks, where)
    inside = frame.inside_frame_index if frame.HasField("inside_frame_index") else None
    return TargetFrame(frame.frame_index, mouth, pose_from_proto(frame.pose, f"{field}.pose"), frame.context_only, inside)


def _mouth_from_proto(message: common_pb2.Tensor, field: str) -> Float32:
    mouth: Float32 = from_tensor(message, field, dtype=np.float32, shape=(NUM_MOUTH_AREA, 3), limit=MAX_HEAD_PX)
    return mouth


def max_frames_from_proto(request: pb.BuildBankRequest) -> int:
    """Return the largest number of frames of the bank, from a BuildBank stream's first message.

    Raises:
        InvalidRequestError: the message is no config, or the number is too large.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    requested = request.config.max_frames or DEFAULT_FRAMES
    if requested > MAX_BANK_FRAMES:
        raise InvalidRequestError(
            f"config.max_frames: a bank keeps at most {MAX_BANK_FRAMES} frames, not {requested}", field="config.max_frames"
        )
    return requested


def bank_frame_from_proto(request: pb.BuildBankRequest) -> BankFrame:
    """Return a frame of footage.

    Raises:
        InvalidRequestError: the message is no frame, or a picture, landmarks or the pose cannot be used.
    """
    if not request.HasField("frame"):
        raise InvalidRequestError("after the config every message must be a frame", field="frame")
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
        spoken_mouth=_mouth_from_proto(frame.spoken_mouth, "frame.spoken_mouth") if frame.HasField("spoken_mouth") else None,
    )


def _native_from_proto(message: common_pb2.Image) -> NativeFile:
    field, side = "frame.native", message.width
    if side % BOX_SIZE or not 2 <= side // BOX_SIZE <= MAX_SCALE:
        sides = ", ".join(str(scale * BOX_SIZE) for scale in range(2, MAX_SCALE + 1))
        raise InvalidRequestError(f"{field}: a native picture has {sides} pixels a side, not {side}", field=field)
    return encoded(from_image(message, field, channels=1, size=(side, side)))


def _expression_from_proto(message: common_pb2.Tensor) -> Float32:
    field = "frame.expression"
    coefficients: Float32 = from_tensor(message, field, dtype=np.float32, shape=(None,), limit=MAX_HEAD_PX)
    if not 1 <= len(coefficients) <= MAX_EXPRESSION:
        raise InvalidRequestError(f"{field}: {len(coefficients)} coefficients, not 1 to {MAX_EXPRESSION}", field=field)
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


@dataclass(frozen=True, slots=True)
class FootageAndPoses:
    """Input of MatchBackgrounds: footage float64 [F, 6], usable bool [F], shot_cuts int64 [C], predicted float64 [T, 6]."""

    footage: Float64
    usable: Bool
    shot_cuts: Int64
    predicted: Float64


def matching_from_proto(request: pb.MatchBackgroundsRequest) -> FootageAndPoses:
    """Return the request's arrays.

    Raises:
        InvalidRequestError: an array is missing or has another shape or type, or a pose of a usable frame is out of range.
    """
    footage = from_tensor(request.footage_poses, "footage_poses", dtype=np.float64, shape=(None, POSE_SIZE), finite=False)
    usable = from_tensor(request.usable, "usable", dtype=np.bool_, shape=(len(footage),))
    predicted = from_tensor(request.predicted_poses, "predicted_poses", dtype=np.float64, shape=(None, POSE_SIZE))
    # Poses of frames that are not usable may have any numbers.
    check_pose_vectors(np.where(usable[:, None], footage, np.eye(POSE_SIZE)[-1]), "footage_poses")
    check_pose_vectors(predicted, "predicted_poses")
    return FootageAndPoses(footage, usable, np.array(request.shot_cuts, np.int64), predicted)


def backgrounds_to_proto(backgrounds: Backgrounds) -> pb.MatchBackgroundsResponse:
    """Return the answer of MatchBackgrounds."""
    return pb.MatchBackgroundsResponse(frame_indices=backgrounds.frame_indices.tolist(), keyframes=backgrounds.keyframes.tolist())


def texture_config_from_proto(request: pb.SampleNeuralTextureRequest) -> TextureConfig:
    """Return the config of a SampleNeuralTexture stream, its first message.

    Raises:
        InvalidRequestError: the message is no config, or a reference is missing or malformed.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    config = request.config
    return TextureConfig(
        texture=ref_from_proto(config.texture, "config.texture"),
        identity=ref_from_proto(config.identity, "config.identity") if config.HasField("identity") else None,
    )


def texture_frame_from_proto(request: pb.SampleNeuralTextureRequest) -> UvFrame | TargetFrame:
    """Return a frame.

    Raises:
        InvalidRequestError: the message is no frame; or the UV map has another type or shape, is too large, or has a number outside
            -1..1; or the landmarks or the pose of the target cannot be used.
    """
    if request.HasField("target"):
        return target_mouth_from_proto(request.target, "target")
    if not request.HasField("uv"):
        raise InvalidRequestError("after the config every message must be a UV map or a target frame", field="uv")
    uv: Float32 = from_tensor(request.uv.uv, "uv.uv", dtype=np.float32, shape=(None, None, 2), limit=1.0)
    height, width = uv.shape[:2]
    if not (1 <= height <= MAX_UV_SIDE and 1 <= width <= MAX_UV_SIDE):
        raise InvalidRequestError(f"uv.uv: {width} x {height} pixels; a side has 1 to {MAX_UV_SIDE}", field="uv.uv")
    return UvFrame(request.uv.frame_index, uv)


def sampled_to_proto(sampled: SampledFrame) -> pb.SampleNeuralTextureResponse:
    """Return the answer for one frame."""
    return pb.SampleNeuralTextureResponse(frame_index=sampled.frame_index, features=to_tensor(sampled.features))


@dataclass(frozen=True, slots=True)
class Portrait:
    """Input of RotatePortrait: picture uint8 [H, W, 3], landmarks float32 [478, 3] and head pose in the picture, identity."""

    picture: UInt8
    landmarks: Float32
    pose: HeadPose
    identity: ArtefactRef


def portrait_from_proto(request: pb.RotatePortraitRequest) -> Portrait:
    """Return the portrait of a RotatePortrait stream's first message.

    Raises:
        InvalidRequestError: the message is no config, or its picture, landmarks, pose or identity cannot be used.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    config = request.config
    size = (config.portrait.width, config.portrait.height)
    if min(size) < MIN_PORTRAIT_SIDE or max(size) > MAX_PORTRAIT_SIDE:
        raise InvalidRequestError(
            f"config.portrait: {size[0]} x {size[1]} pixels; a side has {MIN_PORTRAIT_SIDE} to {MAX_PORTRAIT_SIDE}",
            field="config.portrait",
        )
    landmarks, pose = face_from_proto(config.landmarks, config.pose, "config")
    low, high = -_OUTSIDE_SHARE * np.array(size), (1.0 + _OUTSIDE_SHARE) * np.array(size)
    if not ((landmarks[:, :2] >= low) & (landmarks[:, :2] <= high)).all():
        raise InvalidRequestError(
            f"config.landmarks: points lie outside the portrait of {size[0]} x {size[1]} pixels by more than the portrait's size",
            field="config.landmarks",
        )
    return Portrait(
        picture=from_image(config.portrait, "config.portrait", channels=3),
        landmarks=landmarks,
        pose=pose,
        identity=ref_from_proto(config.identity, "config.identity"),
    )


def portrait_frame_from_proto(request: pb.RotatePortraitRequest, last: int | None) -> PortraitFrame:
    """Return a target pose.

    Args:
        last: index of the frame before; None: there was none.

    Raises:
        InvalidRequestError: the message is no frame, its index does not increase, the pose cannot be used, or blink is outside
            0..1.
    """
    if not request.HasField("frame"):
        raise InvalidRequestError("after the config every message must be a frame", field="frame")
    frame = request.frame
    check_order(frame.frame_index, last)
    if not 0.0 <= frame.blink <= 1.0:
        raise InvalidRequestError(f"frame.blink: must lie in 0..1, got {frame.blink}", field="frame.blink")
    return PortraitFrame(frame.frame_index, pose_from_proto(frame.pose, "frame.pose"), frame.blink)


def turned_to_proto(frame_index: int, turned: TurnedPortrait) -> pb.RotatePortraitResponse:
    """Return the answer for one frame."""
    return pb.RotatePortraitResponse(
        frame_index=frame_index, picture=to_image(turned.picture), landmarks=to_tensor(turned.landmarks)
    )


@dataclass(frozen=True, slots=True)
class FootageAndSpeech:
    """Input of SelectFrames: head_motion float64 [F], blink bool [F], silent bool [T]."""

    head_motion: npt.NDArray[np.float64]
    blink: npt.NDArray[np.bool_]
    silent: npt.NDArray[np.bool_]


def footage_and_speech_from_proto(request: pb.SelectFramesRequest) -> FootageAndSpeech:
    """Return the request's arrays.

    Raises:
        InvalidRequestError: an array is missing, not finite or out of range, or the lengths do not fit together.
    """
    motion = from_tensor(request.head_motion, "head_motion", dtype=np.float32, shape=(None,))
    blink = from_tensor(request.blink, "blink", dtype=np.bool_, shape=(len(motion),))
    silent = from_tensor(request.silent, "silent", dtype=np.bool_, shape=(None,))
    if len(motion) and not (motion.min() >= 0.0 and motion.max() <= 1.0):
        raise InvalidRequestError("head_motion: speeds are normalised to 0..1", field="head_motion")
    return FootageAndSpeech(motion.astype(np.float64), blink, silent)


def warp_config_from_proto(request: pb.RetrieveWarpRequest) -> WarpConfig:
    """Return the config of a RetrieveWarp stream, its first message.

    Raises:
        InvalidRequestError: the message is no config, names an unknown mode, lacks the bank or identity of its mode, or wants
            detail that the mode does not give.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    config = request.config
    if config.mode not in _MODES:
        raise InvalidRequestError(f"config.mode: no mode has the number {config.mode}", field="config.mode")
    mode = _MODES[config.mode]
    scale = config.detail_scale
    if scale > MAX_SCALE or (scale and mode in _WITHOUT_SPLINE):
        reason = f"is 0 to {MAX_SCALE}" if scale > MAX_SCALE else f"needs a mode that warps by splines, not {mode.value}"
        raise InvalidRequestError(f"config.detail_scale {reason}", field="config.detail_scale")
    if mode in ALBEDO_MODES:
        return WarpConfig(mode, None, ref_from_proto(config.identity, "config.identity"))
    return WarpConfig(mode, ref_from_proto(config.bank, "config.bank"), None, scale)


def inside_bank_from_proto(request: pb.SelectInsidesRequest) -> ArtefactRef:
    """Return the bank of a SelectInsides stream's first message.

    Raises:
        InvalidRequestError: the message is no config, or the bank is missing or malformed.
    """
    if not request.HasField("config"):
        raise InvalidRequestError("the first message of the stream must be the config", field="config")
    return ref_from_proto(request.config.bank, "config.bank")


def target_from_proto(request: pb.RetrieveWarpRequest | pb.SelectInsidesRequest) -> TargetFrame:
    """Return a target frame.

    Raises:
        InvalidRequestError: the message is no frame, has no mouth landmarks, or its landmarks or pose cannot be used.
    """
    if not request.HasField("frame"):
        raise InvalidRequestError("after the config every message must be a frame", field="frame")
    return target_mouth_from_proto(request.frame, "frame")


def warped_to_proto(warped: WarpedFrame) -> pb.RetrieveWarpResponse:
    """Return the answer for one frame."""
    return pb.RetrieveWarpResponse(
        frame_index=warped.frame_index,
        warped=to_image(warped.texture),
        box_landmarks=to_tensor(warped.box_landmarks),
        bank_frame_index=warped.bank_frame_index,
        distance=warped.distance,
        fitting_error=warped.fitting_error,
        bending_energy=warped.bending_energy,
        inside_frame_index=warped.inside_frame_index,
        detail=None if warped.detail is None else to_image(warped.detail),
    )
