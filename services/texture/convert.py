"""Messages of dubstage.texture.v1alpha1 to and from the stage's own types, with validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.texture.v1alpha1 import texture_pb2 as pb
from services.common.actor_geometry import ActorGeometry
from services.common.arrays import from_image, from_tensor, to_rgb_image, to_tensor
from services.common.artefact_messages import ref_from_proto, ref_to_proto
from services.common.artefacts import ArtefactRef
from services.common.crops import BOX_SIZE, MAX_FRAME_PX, MAX_HEAD_PX, HeadPose, face_shape_problem, fit_head_pose, to_head_space
from services.common.errors import InvalidRequest
from services.common.head_pose_vectors import POSE_SIZE, check_pose_vectors
from services.common.landmarks import JAW, NUM_LANDMARKS, NUM_MOUTH_AREA
from services.common.mouth_bank import MAX_BANK_FRAMES, NUM_ANCHORS
from services.common.pose_messages import pose_from_proto, pose_to_proto
from services.texture.build_bank import DEFAULT_FRAMES
from services.texture.match_backgrounds import Backgrounds
from services.texture.types import ALBEDO_MODES, BankFrame, PortraitFrame, TargetFrame, TurnedPortrait, WarpedFrame, WarpMode

MIN_PORTRAIT_SIDE: Final = 64
MAX_PORTRAIT_SIDE: Final = 8192
"""Pixels of a side of a portrait; smaller ones hold no face that could be dubbed."""
_OUTSIDE_SHARE: Final = 1.0
"""Of the portrait's sides, by which a landmark may lie outside: a chin or a forehead that is cut off."""
_OTHER_SCALE: Final = 10.0
"""Factor between the scale of a pose and that of its landmarks: smoothing makes a few per cent."""
_BOX: Final = (BOX_SIZE, BOX_SIZE)
_MODES: Final = {
    pb.WARP_MODE_UNSPECIFIED: WarpMode.TEMPORAL_WARP_NETWORK,
    pb.WARP_MODE_TEMPORAL_WARP_NETWORK: WarpMode.TEMPORAL_WARP_NETWORK,
    pb.WARP_MODE_RETRIEVAL_ONLY: WarpMode.RETRIEVAL_ONLY,
    pb.WARP_MODE_THIN_PLATE_SPLINE: WarpMode.THIN_PLATE_SPLINE,
    pb.WARP_MODE_MEAN_MOUTH: WarpMode.MEAN_MOUTH,
    pb.WARP_MODE_SINGLE_FRAME: WarpMode.SINGLE_FRAME,
    pb.WARP_MODE_LOW_FREQUENCY_ALBEDO: WarpMode.LOW_FREQUENCY_ALBEDO,
    pb.WARP_MODE_DETAILED_ALBEDO: WarpMode.DETAILED_ALBEDO,
}
_NUMBERS: Final = {mode: number for number, mode in _MODES.items()}


@dataclass(frozen=True, slots=True)
class WarpConfig:
    """What a RetrieveWarp stream asks for: the bank, or in an albedo mode the identity, is there."""

    mode: WarpMode
    bank: ArtefactRef | None
    identity: ArtefactRef | None


@dataclass(frozen=True, slots=True)
class FootageAndPoses:
    """What MatchBackgrounds works on: footage float64 [F, 6], usable bool [F], shot_cuts int64 [C], predicted float64 [T, 6]."""

    footage: npt.NDArray[np.float64]
    usable: npt.NDArray[np.bool_]
    shot_cuts: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Portrait:
    """What RotatePortrait works on: picture uint8 [H, W, 3], landmarks float32 [478, 3] and pose in it, the identity."""

    picture: npt.NDArray[np.uint8]
    landmarks: npt.NDArray[np.float32]
    pose: HeadPose
    identity: ArtefactRef


@dataclass(frozen=True, slots=True)
class FootageAndSpeech:
    """What SelectFrames works on: head_motion float64 [F], blink bool [F], silent bool [T]."""

    head_motion: npt.NDArray[np.float64]
    blink: npt.NDArray[np.bool_]
    silent: npt.NDArray[np.bool_]


def footage_and_speech_from_proto(request: pb.SelectFramesRequest) -> FootageAndSpeech:
    """The request's arrays.

    Raises:
        InvalidRequest: one is missing, not finite, out of range, or they do not fit together.
    """
    motion = from_tensor(request.head_motion, "head_motion", dtype=np.float32, shape=(None,))
    blink = from_tensor(request.blink, "blink", dtype=np.bool_, shape=(len(motion),))
    silent = from_tensor(request.silent, "silent", dtype=np.bool_, shape=(None,))
    if len(motion) and not (motion.min() >= 0.0 and motion.max() <= 1.0):
        raise InvalidRequest("head_motion: speeds are normalised to 0..1", field="head_motion")
    return FootageAndSpeech(motion.astype(np.float64), blink, silent)


def max_frames_from_proto(request: pb.BuildBankRequest) -> int:
    """The number of frames that a BuildBank stream's first message wants kept.

    Raises:
        InvalidRequest: it is not a config, or the number is too large.
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
    """A frame of footage.

    Raises:
        InvalidRequest: not a frame, or its picture, landmarks or pose cannot be used.
    """
    if not request.HasField("frame"):
        raise InvalidRequest("after the config every message must be a frame", field="frame")
    frame = request.frame
    landmarks, pose = _face(frame.landmarks, frame.pose, "frame")
    return BankFrame(
        frame_index=frame.frame_index,
        box=from_image(frame.box, "frame.box", channels=3, size=_BOX),
        landmarks=landmarks,
        pose=pose,
    )


def bank_frame_to_proto(frame: BankFrame) -> pb.BuildBankRequest:
    """The message of a frame of footage."""
    return pb.BuildBankRequest(
        frame=pb.BankFrame(
            frame_index=frame.frame_index,
            box=to_rgb_image(frame.box),
            landmarks=to_tensor(frame.landmarks),
            pose=pose_to_proto(frame.pose),
        )
    )


def bank_to_proto(ref: ArtefactRef, num_frames: int, geometry: ActorGeometry) -> pb.BuildBankResponse:
    """The answer of BuildBank."""
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


def geometry_from_proto(message: pb.ActorGeometry) -> ActorGeometry:
    """The geometry in an answer of BuildBank.

    Raises:
        InvalidRequest: an array has another shape or type.
    """
    shapes = {"mean_mouth": NUM_MOUTH_AREA, "closed_mouth": NUM_MOUTH_AREA, "jaw_envelope": len(JAW), "anchors": NUM_ANCHORS}
    return ActorGeometry(
        **{
            name: from_tensor(getattr(message, name), f"geometry.{name}", dtype=np.float32, shape=(count, 3))
            for name, count in shapes.items()
        }
    )


def warp_config_from_proto(request: pb.RetrieveWarpRequest) -> WarpConfig:
    """What a RetrieveWarp stream's first message asks for.

    Raises:
        InvalidRequest: it is not a config, names an unknown mode, or lacks the bank or the identity that its mode needs.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    config = request.config
    if config.mode not in _MODES:
        raise InvalidRequest(f"config.mode: no mode has the number {config.mode}", field="config.mode")
    mode = _MODES[config.mode]
    if mode in ALBEDO_MODES:
        return WarpConfig(mode, None, ref_from_proto(config.identity, "config.identity"))
    return WarpConfig(mode, ref_from_proto(config.bank, "config.bank"), None)


def warp_config_to_proto(
    bank: common_pb2.ArtefactRef | None, mode: WarpMode, identity: common_pb2.ArtefactRef | None = None
) -> pb.RetrieveWarpRequest:
    """The first message of a RetrieveWarp stream."""
    return pb.RetrieveWarpRequest(config=pb.RetrieveWarpConfig(bank=bank, mode=_NUMBERS[mode], identity=identity))


def target_from_proto(request: pb.RetrieveWarpRequest) -> TargetFrame:
    """A target frame.

    Raises:
        InvalidRequest: not a frame, no mouth landmarks, or landmarks or pose cannot be used.
    """
    if not request.HasField("frame"):
        raise InvalidRequest("after the config every message must be a frame", field="frame")
    frame = request.frame
    if not frame.motion.HasField("mouth_landmarks"):
        raise InvalidRequest("frame.motion: mouth_landmarks are needed", field="frame.motion.mouth_landmarks")
    field = "frame.motion.mouth_landmarks"
    mouth = from_tensor(frame.motion.mouth_landmarks, field, dtype=np.float32, shape=(NUM_MOUTH_AREA, 3), limit=MAX_HEAD_PX)
    return TargetFrame(frame.frame_index, mouth, pose_from_proto(frame.pose, "frame.pose"), frame.context_only)


def target_to_proto(frame: TargetFrame) -> pb.RetrieveWarpRequest:
    """The message of a target frame."""
    motion = motion_pb2.MotionFrame(frame_index=frame.frame_index, mouth_landmarks=to_tensor(frame.mouth))
    return pb.RetrieveWarpRequest(
        frame=pb.TargetFrame(
            frame_index=frame.frame_index,
            motion=motion,
            pose=pose_to_proto(frame.pose),
            context_only=frame.context_only,
        )
    )


def warped_to_proto(warped: WarpedFrame) -> pb.RetrieveWarpResponse:
    """The answer for one frame."""
    return pb.RetrieveWarpResponse(
        frame_index=warped.frame_index,
        warped=to_rgb_image(warped.texture),
        box_landmarks=to_tensor(warped.box_landmarks),
        bank_frame_index=warped.bank_frame_index,
        distance=warped.distance,
        fitting_error=warped.fitting_error,
        bending_energy=warped.bending_energy,
    )


def warped_from_proto(response: pb.RetrieveWarpResponse) -> WarpedFrame:
    """An answer of RetrieveWarp; arrays are read-only.

    Raises:
        InvalidRequest: the picture's or the landmarks' shape or type is not the contract's.
    """
    return WarpedFrame(
        frame_index=response.frame_index,
        texture=from_image(response.warped, "warped", channels=3, size=_BOX),
        box_landmarks=from_tensor(response.box_landmarks, "box_landmarks", dtype=np.float32, shape=(NUM_MOUTH_AREA, 2)),
        bank_frame_index=response.bank_frame_index,
        distance=response.distance,
        fitting_error=response.fitting_error,
        bending_energy=response.bending_energy,
    )


def matching_from_proto(request: pb.MatchBackgroundsRequest) -> FootageAndPoses:
    """The request's arrays.

    Raises:
        InvalidRequest: one is missing or of another shape or type, or a pose of a usable frame is out of range.
    """
    footage = from_tensor(request.footage_poses, "footage_poses", dtype=np.float64, shape=(None, POSE_SIZE), finite=False)
    usable = from_tensor(request.usable, "usable", dtype=np.bool_, shape=(len(footage),))
    predicted = from_tensor(request.predicted_poses, "predicted_poses", dtype=np.float64, shape=(None, POSE_SIZE))
    # Poses of frames that are not usable may be anything.
    check_pose_vectors(np.where(usable[:, None], footage, np.eye(POSE_SIZE)[-1]), "footage_poses")
    check_pose_vectors(predicted, "predicted_poses")
    return FootageAndPoses(footage, usable, np.array(request.shot_cuts, np.int64), predicted)


def backgrounds_to_proto(backgrounds: Backgrounds) -> pb.MatchBackgroundsResponse:
    """The answer of MatchBackgrounds."""
    return pb.MatchBackgroundsResponse(frame_indices=backgrounds.frame_indices.tolist(), keyframes=backgrounds.keyframes.tolist())


def portrait_from_proto(request: pb.RotatePortraitRequest) -> Portrait:
    """What a RotatePortrait stream's first message holds.

    Raises:
        InvalidRequest: it is not a config, or its picture, landmarks, pose or identity cannot be used.
    """
    if not request.HasField("config"):
        raise InvalidRequest("the first message of the stream must be the config", field="config")
    config = request.config
    size = (config.portrait.width, config.portrait.height)
    if min(size) < MIN_PORTRAIT_SIDE or max(size) > MAX_PORTRAIT_SIDE:
        raise InvalidRequest(
            f"config.portrait: {size[0]} x {size[1]} pixels; a side has {MIN_PORTRAIT_SIDE} to {MAX_PORTRAIT_SIDE}",
            field="config.portrait",
        )
    landmarks, pose = _face(config.landmarks, config.pose, "config")
    low, high = -_OUTSIDE_SHARE * np.array(size), (1.0 + _OUTSIDE_SHARE) * np.array(size)
    if not ((landmarks[:, :2] >= low) & (landmarks[:, :2] <= high)).all():
        raise InvalidRequest(
            f"config.landmarks: they lie outside the portrait of {size[0]} x {size[1]} pixels by more than its own size",
            field="config.landmarks",
        )
    return Portrait(
        picture=from_image(config.portrait, "config.portrait", channels=3),
        landmarks=landmarks,
        pose=pose,
        identity=ref_from_proto(config.identity, "config.identity"),
    )


def portrait_to_proto(
    picture: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.float32], pose: HeadPose, identity: common_pb2.ArtefactRef
) -> pb.RotatePortraitRequest:
    """The first message of a RotatePortrait stream."""
    return pb.RotatePortraitRequest(
        config=pb.RotatePortraitConfig(
            portrait=to_rgb_image(picture), landmarks=to_tensor(landmarks), pose=pose_to_proto(pose), identity=identity
        )
    )


def portrait_frame_from_proto(request: pb.RotatePortraitRequest) -> PortraitFrame:
    """A wanted pose.

    Raises:
        InvalidRequest: not a frame, a pose that cannot be used, or a blink outside 0..1.
    """
    if not request.HasField("frame"):
        raise InvalidRequest("after the config every message must be a frame", field="frame")
    frame = request.frame
    if not 0.0 <= frame.blink <= 1.0:
        raise InvalidRequest(f"frame.blink: must lie in 0..1, got {frame.blink}", field="frame.blink")
    return PortraitFrame(frame.frame_index, pose_from_proto(frame.pose, "frame.pose"), frame.blink)


def portrait_frame_to_proto(frame: PortraitFrame) -> pb.RotatePortraitRequest:
    """The message of a wanted pose."""
    return pb.RotatePortraitRequest(
        frame=pb.PortraitFrame(frame_index=frame.frame_index, pose=pose_to_proto(frame.pose), blink=frame.blink)
    )


def turned_to_proto(frame_index: int, turned: TurnedPortrait) -> pb.RotatePortraitResponse:
    """The answer for one frame."""
    return pb.RotatePortraitResponse(
        frame_index=frame_index, picture=to_rgb_image(turned.picture), landmarks=to_tensor(turned.landmarks)
    )


def _face(points: common_pb2.Tensor, place: common_pb2.HeadPose, field: str) -> tuple[npt.NDArray[np.float32], HeadPose]:
    """Landmarks of a whole face, float32 [478, 3], frame pixels, and the head pose that belongs to them."""
    where = f"{field}.landmarks"
    landmarks: npt.NDArray[np.float32] = from_tensor(points, where, dtype=np.float32, shape=(NUM_LANDMARKS, 3), limit=MAX_FRAME_PX)
    if problem := face_shape_problem(landmarks):
        raise InvalidRequest(f"{where}: these points are no face: {problem}", field=where)
    pose = pose_from_proto(place, f"{field}.pose")
    own = fit_head_pose(landmarks)
    if not 1.0 / _OTHER_SCALE <= own.scale / pose.scale <= _OTHER_SCALE:
        raise InvalidRequest(
            f"{field}.pose: its scale is {pose.scale:g}, that of the landmarks is {own.scale:g}: they are not of one face",
            field=f"{field}.pose.scale",
        )
    if not np.abs(to_head_space(landmarks, pose)).max() <= MAX_HEAD_PX:
        raise InvalidRequest(
            f"{field}.pose: the landmarks lie more than {MAX_HEAD_PX:g} head-space pixels from it: they are not of one face",
            field=f"{field}.pose.translation",
        )
    return landmarks, pose
