"""Background films of a still picture: the picture, with its head turned to the predicted poses by the texture stage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.client.calls import Requests
from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.ahead import close, in_thread
from gateway.media.background_film import background_writer, own_timeline
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.stills import frame_of_picture
from gateway.media.types import MediaInfo
from gateway.media.writer import VideoWriter
from gateway.pipeline.backgrounds import OnFrame, background_film, background_path, check_room
from gateway.pipeline.face_records import cut_box
from gateway.pipeline.film import Film
from gateway.pipeline.records import FACE_RECORD, pose_of
from gateway.pipeline.shot import Shot
from gateway.stages.attempts import until_done
from services.common.array_types import Float32, Float64, UInt8
from services.common.errors import ContractBroken
from services.common.face.crops import fit_head_pose, to_head_space
from services.common.face.head_pose_vectors import pose_of_vector, pose_vectors
from services.common.face.landmarks import MOUTH_AREA, NUM_LANDMARKS
from services.common.wire.arrays import from_image, from_tensor
from services.common.wire.pose_messages import pose_to_proto


def own_pose(still: Shot) -> Float64:
    """Return the head-pose vector of a still, float64 [6]."""
    (record,) = still.workspace.faces.read_rows([int(still.rows[0])])
    return np.asarray(pose_vectors([pose_of(record)])[0])


async def show_rotated(shot: Shot, identity: common_pb2.ArtefactRef, poses: Float64, blink: Float32, on_frame: OnFrame) -> Film:
    """Return the background film of a still whose head is turned to `poses` and blinks. Written once per job.

    Args:
        shot: the still and the face to dub.
        identity: the person on the morphable model.
        poses: float64 [T, 6], head-pose vectors of the film.
        blink: float32 [T], how far the eyes are shut, 0 to 1.
        on_frame: called with every written frame.

    Raises:
        StorageFull: the disk is full.
        DubstageError: from the texture stage.
    """
    workspace, path = shot.workspace, background_path(shot)
    film = own_timeline(shot.info, len(poses))
    if await in_thread(workspace.finished, "background", path, workspace.backgrounds) is None:
        await in_thread(check_room, shot, len(poses))
        await _rotate(_Portrait.of(shot, identity), shot, film, poses, blink, on_frame)
        workspace.backgrounds.sync()
        await in_thread(workspace.finish, "background", {}, path, workspace.backgrounds)
    return background_film(shot, len(poses))


@dataclass(frozen=True, slots=True)
class _Portrait:
    """A still picture to turn.

    Attributes:
        picture: uint8 [H, W, 3], RGB.
        record: FACE_RECORD of the face.
        requests: makes the messages to the texture stage.
    """

    picture: UInt8
    record: Any
    requests: Requests[texture_client.PortraitFrame, texture_pb2.RotatePortraitRequest]

    @classmethod
    def of(cls, shot: Shot, identity: common_pb2.ArtefactRef) -> _Portrait:
        """Return the portrait of a shot of one frame."""
        (record,) = shot.workspace.faces.read_rows([int(shot.rows[0])])
        with VideoReader(shot.info) as reader:
            picture = to_rgb(next(iter(reader)))
        requests = texture_client.rotate_portrait.requests(
            portrait=picture, landmarks=record["landmarks"], pose=pose_to_proto(pose_of(record)), identity=identity
        )
        return cls(picture, record, requests)


async def _rotate(portrait: _Portrait, shot: Shot, film: MediaInfo, poses: Float64, blink: Float32, on_frame: OnFrame) -> None:
    """Write the film of a turned portrait and its face records."""
    backgrounds, path = shot.workspace.backgrounds, background_path(shot)
    size = (portrait.picture.shape[1], portrait.picture.shape[0])

    async def requests() -> AsyncIterator[texture_pb2.RotatePortraitRequest]:
        yield portrait.requests.config
        for number, vector in enumerate(poses):
            pose = pose_to_proto(pose_of_vector(vector))
            yield portrait.requests.item(texture_client.PortraitFrame(number, pose, float(blink[number])))

    def take(writer: VideoWriter, number: int, reply: texture_pb2.RotatePortraitResponse) -> None:
        if number == len(poses):
            raise ContractBroken("the texture stage answered more frames than it was asked for")
        turned = from_image(reply.picture, "picture", channels=3, size=size)
        writer.write(frame_of_picture(turned, number, film.video))
        backgrounds.append(_portrait_record(portrait.record, number, reply, turned))

    async def rotate() -> None:
        backgrounds.clear()
        number = 0
        replies = shot.stages.stream(rpcs.texture.ROTATE_PORTRAIT, requests())
        try:
            with background_writer(path, film, shot.threads) as writer:
                async for reply in replies:
                    await in_thread(take, writer, number, reply)
                    number += 1
                    on_frame(number, len(poses))
                await in_thread(writer.finish)
        finally:
            await close(replies)

    await until_done(rotate)


def _portrait_record(still: Any, number: int, reply: texture_pb2.RotatePortraitResponse, picture: UInt8) -> npt.NDArray[np.void]:
    row = np.zeros(1, dtype=FACE_RECORD)
    row[0] = still
    row["frame"] = number
    landmarks = from_tensor(reply.landmarks, "landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3))
    # A picture can be turned by a limited angle, so the pose is that of the answer and not the wanted pose.
    pose = fit_head_pose(landmarks)
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    row["box"] = [*low, *(high - low)]
    row["landmarks"], row["scale"], row["rotation"], row["translation"] = landmarks, pose.scale, pose.rotation, pose.translation
    row["mouth"] = to_head_space(landmarks[list(MOUTH_AREA)], pose)
    row["pixels"] = cut_box(picture, pose)
    return row
