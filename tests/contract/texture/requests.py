"""Requests of the texture stage from the stage's own types, and answers back, for tests."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from dubstage.client import to_image, to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.texture.v1 import texture_pb2 as pb
from services.common.face.crops import BOX_SIZE, HeadPose
from services.common.face.landmarks import NUM_MOUTH_AREA
from services.common.wire.convert import from_image, from_tensor, pose_to_proto
from services.texture.types import BankFrame, PortraitFrame, TargetFrame, WarpedFrame, WarpMode


def bank_frame_to_proto(frame: BankFrame) -> pb.BuildBankRequest:
    return pb.BuildBankRequest(
        frame=pb.BankFrame(
            frame_index=frame.frame_index,
            box=to_image(frame.box),
            landmarks=to_tensor(frame.landmarks),
            pose=pose_to_proto(frame.pose),
            speech=None if frame.speech is None else to_tensor(frame.speech),
            expression=None if frame.expression is None else to_tensor(frame.expression),
            spoken_mouth=None if frame.spoken_mouth is None else to_tensor(frame.spoken_mouth),
        )
    )


def warp_config_to_proto(
    bank: common_pb2.ArtefactRef | None, mode: WarpMode, identity: common_pb2.ArtefactRef | None = None
) -> pb.RetrieveWarpRequest:
    return pb.RetrieveWarpRequest(
        config=pb.RetrieveWarpConfig(bank=bank, mode=pb.WarpMode.Value(f"WARP_MODE_{mode.name}"), identity=identity)
    )


def target_to_proto(frame: TargetFrame) -> pb.RetrieveWarpRequest:
    motion = motion_pb2.MotionFrame(frame_index=frame.frame_index, mouth_landmarks=to_tensor(frame.mouth))
    return pb.RetrieveWarpRequest(
        frame=pb.TargetFrame(
            frame_index=frame.frame_index,
            motion=motion,
            pose=pose_to_proto(frame.pose),
            context_only=frame.context_only,
            inside_frame_index=frame.inside_frame_index,
        )
    )


def warped_from_proto(response: pb.RetrieveWarpResponse) -> WarpedFrame:
    return WarpedFrame(
        frame_index=response.frame_index,
        texture=from_image(response.warped, "warped", channels=3, size=(BOX_SIZE, BOX_SIZE)),
        box_landmarks=from_tensor(response.box_landmarks, "box_landmarks", dtype=np.float32, shape=(NUM_MOUTH_AREA, 2)),
        bank_frame_index=response.bank_frame_index,
        distance=response.distance,
        fitting_error=response.fitting_error,
        bending_energy=response.bending_energy,
        inside_frame_index=response.inside_frame_index,
    )


def portrait_to_proto(
    picture: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.float32], pose: HeadPose, identity: common_pb2.ArtefactRef
) -> pb.RotatePortraitRequest:
    return pb.RotatePortraitRequest(
        config=pb.RotatePortraitConfig(
            portrait=to_image(picture), landmarks=to_tensor(landmarks), pose=pose_to_proto(pose), identity=identity
        )
    )


def portrait_frame_to_proto(frame: PortraitFrame) -> pb.RotatePortraitRequest:
    return pb.RotatePortraitRequest(
        frame=pb.PortraitFrame(frame_index=frame.frame_index, pose=pose_to_proto(frame.pose), blink=frame.blink)
    )


def face_stream(
    mode: WarpMode, identity: common_pb2.ArtefactRef | None, frames: Iterable[TargetFrame] = ()
) -> list[pb.RetrieveWarpRequest]:
    """The requests of RetrieveWarp that draw a person's face, without a bank."""
    return [warp_config_to_proto(None, mode, identity), *map(target_to_proto, frames)]


def portrait_stream(
    picture: npt.NDArray[np.uint8],
    landmarks: npt.NDArray[np.float32],
    pose: HeadPose,
    identity: common_pb2.ArtefactRef,
    frames: Iterable[PortraitFrame] = (),
) -> list[pb.RotatePortraitRequest]:
    """The requests of RotatePortrait that turn a portrait."""
    return [portrait_to_proto(picture, landmarks, pose, identity), *map(portrait_frame_to_proto, frames)]
