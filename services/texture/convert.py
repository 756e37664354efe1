"""Messages of dubstage.texture.v1alpha1 to and from the stage's own types, with validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.texture.v1alpha1 import texture_pb2 as pb
from services.common.errors import InvalidRequest
from services.common.face.native_pictures import MAX_SCALE
from services.common.wire.arrays import from_tensor, to_gray_image, to_rgb_image, to_tensor
from services.common.wire.artefact_messages import ref_from_proto
from services.texture.targets.convert import wanted_mouth_from_proto
from services.texture.types import ALBEDO_MODES, TargetFrame, WarpConfig, WarpedFrame, WarpMode

_WITHOUT_SPLINE: Final = ALBEDO_MODES | {WarpMode.RETRIEVAL_ONLY}
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
