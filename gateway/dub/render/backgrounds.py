"""Background videos of dubs with a timeline of their own. A background video is written first and then dubbed in place.

The background of a still picture is the picture, with its head turned to the predicted poses.

| dub                        | background of a frame                                                | RPC of the texture stage |
|----------------------------|----------------------------------------------------------------------|--------------------------|
| `--fit retime`             | footage frames in their order, some repeated, some left out          | SelectFrames             |
| other fits but `cut`       | footage frames by their time (fit.py)                                |                          |
| predicted head motion      | the footage frame whose head pose is near the predicted one          | MatchBackgrounds         |
| the same, of a still       | the picture, with its head turned to the predicted pose              | RotatePortrait           |
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.client.calls import Requests
from dubstage.common.v1 import common_pb2
from dubstage.texture.v1 import texture_pb2
from gateway.async_utilities import close, entered_in_threads, in_thread
from gateway.dub.analyse.face_records import TrackedVideo, cut_box, read_index
from gateway.dub.analyse.frame_plan import SILENT_BELOW
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.state.disk import job_folder
from gateway.dub.state.records import FACE_RECORD, pose_of
from gateway.media.background import BACKGROUND_SUFFIX, background_writer, open_background, own_timeline, write_frames
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.stills import frame_of_picture
from gateway.media.types import MediaInfo
from gateway.media.writer import VideoWriter
from gateway.stages.calls import CallTime, until_done
from services.common.array_types import Bool, Float32, Float64, UInt8
from services.common.errors import ContractBrokenError
from services.common.face.crops import POSE_SIZE, fit_head_pose, pose_of_vector, pose_vectors, to_head_space
from services.common.face.landmarks import MOUTH_AREA, NUM_LANDMARKS
from services.common.wire.convert import from_image, from_tensor, pose_to_proto

MAX_MATCHED_FRAMES: Final = 750
"""Most footage frames that may be backgrounds of predicted head motion: the first usable ones. They are stored decoded, 1.4 MB each
at 1280 x 720."""
_BLOCK: Final = 64
_NOSE_TIP: Final = 1
_FAST_QUANTILE: Final = 0.95
_EYES_SHUT: Final = 0.5

OnFrame = Callable[[int, int], None]
"""Called with the number of finished frames and the number of all frames."""


async def retime(analysis: FootageAnalysis, speech_probability: Float32) -> list[int]:
    """Return footage frames for a video as long as the speech. The head moves while the person speaks.

    Args:
        analysis: the footage and the face to dub.
        speech_probability: float32 [T], of every frame of the video.

    Raises:
        InvalidRequestError: the footage is shorter than half the speech.
        DubstageError: from the texture stage.
    """
    motion, blink = _head_motion(analysis)
    request = texture_client.select_frames.request(head_motion=motion, blink=blink, silent=speech_probability < SILENT_BELOW)
    reply = await analysis.stages.unary(rpcs.texture.SELECT_FRAMES, request)
    return _checked(reply, len(speech_probability), analysis.info.video.num_frames)


async def match_head_motion(analysis: FootageAnalysis, predicted: Float64, about: Float64) -> list[int]:
    """Return footage frames whose head poses follow predicted head poses.

    The actor may be enrolled from other footage with another framing. The prediction is moved and scaled to this footage.

    Args:
        analysis: the footage and the face to dub.
        predicted: float64 [T, 6], predicted head-pose vectors.
        about: float64 [6], head-pose vector that the prediction is relative to.

    Raises:
        NoUsableFootageError: no stretch of the footage shows the face long enough.
        DubstageError: from the texture stage.
    """
    poses, usable = _poses(analysis)
    request = texture_client.match_backgrounds.request(
        footage_poses=poses,
        usable=usable,
        shot_cuts=analysis.index.shot_cuts,
        predicted_poses=rebased(predicted, about, np.median(poses[usable], axis=0) if usable.any() else about),
    )
    reply = await analysis.stages.unary(rpcs.texture.MATCH_BACKGROUNDS, request)
    return _checked(reply, len(predicted), analysis.info.video.num_frames)


def rebased(poses: Float64, about: Float64, target: Float64) -> Float64:
    """Return head-pose vectors [T, 6] that are relative to the pose `about`, moved to be relative to the pose `target`.

    Angles are added. Positions are measured in units of the pose's scale.
    """
    ratio = target[5] / about[5]
    moved = poses - about
    moved[:, 3:5] *= ratio
    moved[:, 5] *= ratio
    return np.asarray(moved + target)


async def show_chosen(
    analysis: FootageAnalysis, chosen: Sequence[int], on_frame: OnFrame, cuts: Sequence[int] = ()
) -> TrackedVideo:
    """Return the background video that shows the chosen footage frames, with the records of the face. Written once per job.

    Args:
        analysis: the footage and the face to dub.
        chosen: a footage frame for every frame of the video.
        on_frame: called with every written frame.
        cuts: frames of the video that begin a shot.

    Raises:
        StorageFullError: the disk is full.
        MediaUnsupportedError: the footage breaks off.
    """
    workspace, path = analysis.workspace, background_path(analysis)
    if await in_thread(workspace.finished, "background", path, workspace.backgrounds) is None:
        await in_thread(check_disk_space, analysis, len(chosen))
        with job_folder(workspace.folder):
            await in_thread(
                write_frames,
                path,
                analysis.info,
                chosen,
                threads=analysis.threads,
                on_frame=lambda done: on_frame(done, len(chosen)),
            )
        rows = analysis.rows

        def record() -> None:
            workspace.backgrounds.clear()
            for begin in range(0, len(chosen), _BLOCK):
                there = [(n, int(rows[chosen[n]])) for n in range(begin, min(begin + _BLOCK, len(chosen))) if rows[chosen[n]] >= 0]
                records = workspace.faces.read_rows([row for _, row in there]).copy()
                records["frame"] = [number for number, _ in there]
                workspace.backgrounds.append(records)
            workspace.backgrounds.sync()

        await in_thread(record)
        await in_thread(workspace.finish, "background", {}, path, workspace.backgrounds)
    return background_video(analysis, len(chosen), cuts)


def background_path(analysis: FootageAnalysis) -> Path:
    """Return where the background video of a job lies."""
    return analysis.workspace.folder / f"background{BACKGROUND_SUFFIX}"


def check_disk_space(analysis: FootageAnalysis, num_frames: int) -> None:
    """Raise an error if a background video and its records do not fit on the disk. FFV1 takes at least one bit per luma sample."""
    video = num_frames * analysis.info.video.width * analysis.info.video.height // 8
    analysis.workspace.allowance.check(video + num_frames * FACE_RECORD.itemsize, f"a background video of {num_frames} frames")


def background_video(analysis: FootageAnalysis, num_frames: int, cuts: Sequence[int] = ()) -> TrackedVideo:
    """Return the finished background video of a job, with its face records. `cuts` are the frames that begin a shot."""
    backgrounds = analysis.workspace.backgrounds
    info = open_background(background_path(analysis), own_timeline(analysis.info, num_frames))
    return TrackedVideo(info, read_index(backgrounds, list(cuts), num_frames), backgrounds)


def _checked(
    reply: texture_pb2.SelectFramesResponse | texture_pb2.MatchBackgroundsResponse, wanted: int, available: int
) -> list[int]:
    chosen = list(reply.frame_indices)
    if len(chosen) != wanted or not all(0 <= frame < available for frame in chosen):
        raise ContractBrokenError(f"the texture stage chose {len(chosen)} frames where {wanted} were due, or one that is not there")
    return chosen


def _head_motion(analysis: FootageAnalysis) -> tuple[Float64, Bool]:
    """Return the speed of the nose tip, and whether the eyes are shut, of every frame.

    The speed is 0 to 1; 1 is the speed that one frame in twenty exceeds.
    """
    rows = analysis.rows
    nose = np.full((len(rows), 2), np.nan)
    blink = np.zeros(len(rows), np.bool_)
    for begin in range(0, len(rows), _BLOCK):
        (there,) = np.nonzero(rows[begin : begin + _BLOCK] >= 0)
        records = analysis.workspace.faces.read_rows(rows[begin + there].tolist())
        nose[begin + there] = records["landmarks"][:, _NOSE_TIP, :2] / records["scale"][:, None]
        blink[begin + there] = records["blink"] > _EYES_SHUT
    speed = np.nan_to_num(np.linalg.norm(np.diff(nose, axis=0, prepend=nose[:1]), axis=1))
    fast = float(np.quantile(speed, _FAST_QUANTILE))
    return np.clip(speed / fast, 0.0, 1.0) if fast > 0.0 else speed, blink


def _poses(analysis: FootageAnalysis) -> tuple[Float64, Bool]:
    """Return the head-pose vectors of every frame, and which frames may be backgrounds."""
    rows = analysis.rows
    poses, usable = np.zeros((len(rows), POSE_SIZE)), np.zeros(len(rows), np.bool_)
    poses[:, POSE_SIZE - 1] = 1.0
    for begin in range(0, len(rows), _BLOCK):
        (there,) = np.nonzero(rows[begin : begin + _BLOCK] >= 0)
        records = analysis.workspace.faces.read_rows(rows[begin + there].tolist())
        poses[begin + there] = pose_vectors([pose_of(record) for record in records])
        usable[begin + there] = analysis.index.reason[rows[begin + there]] == common_pb2.FRAME_REASON_DUBBED
    usable &= np.cumsum(usable) <= MAX_MATCHED_FRAMES
    return poses, usable


def own_pose(still: FootageAnalysis) -> Float64:
    """Return the head-pose vector of a still, float64 [6]."""
    (record,) = still.workspace.faces.read_rows([int(still.rows[0])])
    return np.asarray(pose_vectors([pose_of(record)])[0])


async def show_rotated(
    analysis: FootageAnalysis, identity: common_pb2.ArtefactRef, poses: Float64, blink: Float32, on_frame: OnFrame
) -> TrackedVideo:
    """Return the background video of a still whose head is turned to `poses` and blinks. Written once per job.

    Args:
        analysis: the still and the face to dub.
        identity: the person on the morphable model.
        poses: float64 [T, 6], head-pose vectors of the video.
        blink: float32 [T], how far the eyes are shut, 0 to 1.
        on_frame: called with every written frame.

    Raises:
        StorageFullError: the disk is full.
        DubstageError: from the texture stage.
    """
    workspace, path = analysis.workspace, background_path(analysis)
    video = own_timeline(analysis.info, len(poses))
    if await in_thread(workspace.finished, "background", path, workspace.backgrounds) is None:
        await in_thread(check_disk_space, analysis, len(poses))
        await _rotate(_Portrait.of(analysis, identity), analysis, video, poses, blink, on_frame)
        workspace.backgrounds.sync()
        await in_thread(workspace.finish, "background", {}, path, workspace.backgrounds)
    return background_video(analysis, len(poses))


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
    def of(cls, analysis: FootageAnalysis, identity: common_pb2.ArtefactRef) -> _Portrait:
        """Return the portrait of a still picture."""
        (record,) = analysis.workspace.faces.read_rows([int(analysis.rows[0])])
        with VideoReader(analysis.info) as reader:
            picture = to_rgb(next(iter(reader)))
        requests = texture_client.rotate_portrait.requests(
            portrait=picture, landmarks=record["landmarks"], pose=pose_to_proto(pose_of(record)), identity=identity
        )
        return cls(picture, record, requests)


async def _rotate(
    portrait: _Portrait, analysis: FootageAnalysis, video: MediaInfo, poses: Float64, blink: Float32, on_frame: OnFrame
) -> None:
    """Write the video of a turned portrait and its face records."""
    backgrounds, path = analysis.workspace.backgrounds, background_path(analysis)
    size = (portrait.picture.shape[1], portrait.picture.shape[0])

    number = 0

    async def requests() -> AsyncIterator[texture_pb2.RotatePortraitRequest]:
        yield portrait.requests.config
        for frame in range(number, len(poses)):
            pose = pose_to_proto(pose_of_vector(poses[frame]))
            yield portrait.requests.item(texture_client.PortraitFrame(frame, pose, float(blink[frame])))

    def take(writer: VideoWriter, reply: texture_pb2.RotatePortraitResponse) -> None:
        if number == len(poses) or reply.frame_index != number:
            raise ContractBrokenError("the texture stage answered other frames than it was asked for")
        turned = from_image(reply.picture, "picture", channels=3, size=size)
        writer.write(frame_of_picture(turned, number, video.video))
        backgrounds.append(_portrait_record(portrait.record, number, reply, turned))

    async def rotate() -> None:
        # Each frame is answered by itself, so a call that comes near the deadline is ended, and the next call goes on.
        nonlocal number
        ended = False
        while not ended:
            ended, call = True, CallTime(analysis.stages.call_deadline_s)
            replies = analysis.stages.stream(rpcs.texture.ROTATE_PORTRAIT, requests())
            try:
                async for reply in replies:
                    await in_thread(take, writer, reply)
                    number += 1
                    on_frame(number, len(poses))
                    if call.nearly_over and number < len(poses):
                        ended = False
                        break
            finally:
                await close(replies)

    backgrounds.clear()
    async with entered_in_threads(background_writer(path, video, analysis.threads)) as writer:
        await until_done(rotate, progress=lambda: number)
        if number != len(poses):
            raise ContractBrokenError(f"the texture stage answered {number} of {len(poses)} frames")
        await in_thread(writer.finish)


def _portrait_record(still: Any, number: int, reply: texture_pb2.RotatePortraitResponse, picture: UInt8) -> npt.NDArray[np.void]:
    row = np.zeros(1, dtype=FACE_RECORD)
    row[0] = still
    row["frame"] = number
    landmarks = from_tensor(reply.landmarks, "landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3))
    # A picture can be turned by a limited angle, so the pose is that of the answer and not the target pose.
    pose = fit_head_pose(landmarks)
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    row["box"] = [*low, *(high - low)]
    row["landmarks"], row["scale"], row["rotation"], row["translation"] = landmarks, pose.scale, pose.rotation, pose.translation
    row["mouth"] = to_head_space(landmarks[list(MOUTH_AREA)], pose)
    row["pixels"] = cut_box(picture, pose)
    return row
