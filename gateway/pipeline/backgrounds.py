"""Films with a timeline of their own: which background each new frame has, written as a film that is then dubbed in place.

| who asks          | backgrounds                                                                        | stage's RPC      |
|-------------------|------------------------------------------------------------------------------------|------------------|
| `--retime`        | footage frames in their order, repeated and left out                               | SelectFrames     |
| head motion       | footage frames whose head pose follows the predicted one; the film has their poses | MatchBackgrounds |
| ... from a still  | the picture itself, its head turned to the predicted pose                          | RotatePortrait   |
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.ahead import close, in_thread
from gateway.media.background_film import FILM_SUFFIX, background_writer, open_background, own_timeline, write_chosen
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.stills import frame_of_picture
from gateway.media.types import MediaInfo
from gateway.media.writer import VideoWriter
from gateway.pipeline.disk import job_folder
from gateway.pipeline.footage import FaceIndex, cut_box, read_index
from gateway.pipeline.messages import pose_message
from gateway.pipeline.plan import SILENT_BELOW
from gateway.pipeline.records import FACE_RECORD, RecordFile, pose_of
from gateway.pipeline.workspace import Workspace
from gateway.stages.attempts import until_done
from gateway.stages.interface import Stages
from services.common.arrays import from_image, from_tensor, to_rgb_image, to_tensor
from services.common.crops import fit_head_pose, to_head_space
from services.common.errors import ContractBroken
from services.common.head_pose_vectors import POSE_SIZE, pose_of_vector, pose_vectors
from services.common.landmarks import MOUTH_AREA, NUM_LANDMARKS

Float64 = npt.NDArray[np.float64]

MAX_MATCHED_FRAMES: Final = 750
"""Usable footage frames that may be backgrounds of predicted head motion, the first ones: they lie decoded on disk, 1.4 MB each at
1280 x 720."""
_BLOCK: Final = 64
_NOSE_TIP: Final = 1
_FAST_QUANTILE: Final = 0.95
_EYES_SHUT: Final = 0.5

OnFrame = Callable[[int, int], None]
"""Called with frames done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Film:
    """What is dubbed in place: the footage, or the background film.

    Attributes:
        info: the film.
        index: of its faces.
        faces: their records.
    """

    info: MediaInfo
    index: FaceIndex
    faces: RecordFile


async def retime(stages: Stages, footage: Film, face_id: int, speech_probability: npt.NDArray[np.float32]) -> list[int]:
    """Footage frames for a film as long as the speech, whose head moves while somebody speaks.

    Raises:
        InvalidRequest: the footage is shorter than half the speech.
    """
    motion, blink = _head_motion(footage, face_id)
    request = texture_pb2.SelectFramesRequest(
        head_motion=to_tensor(motion.astype(np.float32)),
        blink=to_tensor(blink),
        silent=to_tensor(speech_probability < SILENT_BELOW),
    )
    return _checked(await stages.select_frames(request), len(speech_probability), footage.info.video.num_frames)


async def match(stages: Stages, footage: Film, face_id: int, predicted: Float64, about: Float64) -> list[int]:
    """Footage frames whose head poses follow the predicted ones, float64 [T, 6], which are about the pose vector `about`.

    Footage other than the actor was enrolled from has another framing: the prediction is moved and scaled to it.

    Raises:
        NoUsableFootage: no stretch of the footage shows the face long enough.
    """
    poses, usable = _poses(footage, face_id)
    request = texture_pb2.MatchBackgroundsRequest(
        footage_poses=to_tensor(poses),
        usable=to_tensor(usable),
        shot_cuts=footage.index.shot_cuts,
        predicted_poses=to_tensor(rebased(predicted, about, np.median(poses[usable], axis=0) if usable.any() else about)),
    )
    return _checked(await stages.match_backgrounds(request), len(predicted), footage.info.video.num_frames)


def rebased(poses: Float64, about: Float64, target: Float64) -> Float64:
    """Head-pose vectors [T, 6] that are about one pose, moved to be about another: angles added, places in units of scale."""
    ratio = target[5] / about[5]
    moved = poses - about
    moved[:, 3:5] *= ratio
    moved[:, 5] *= ratio
    return np.asarray(moved + target)


async def show_chosen(
    footage: Film, face_id: int, chosen: Sequence[int], workspace: Workspace, *, threads: int, on_frame: OnFrame
) -> Film:
    """The background film that shows these footage frames, with the face's records, once a job."""
    path = workspace.folder / f"background{FILM_SUFFIX}"
    if await in_thread(workspace.finished, "background", path, workspace.backgrounds) is None:
        await in_thread(_check_room, workspace, footage.info, len(chosen))
        with job_folder(workspace.folder):
            await in_thread(
                write_chosen, path, footage.info, chosen, threads=threads, on_frame=lambda done: on_frame(done, len(chosen))
            )
        rows = footage.index.rows_of(face_id)

        def record() -> None:
            workspace.backgrounds.clear()
            for begin in range(0, len(chosen), _BLOCK):
                there = [(n, int(rows[chosen[n]])) for n in range(begin, min(begin + _BLOCK, len(chosen))) if rows[chosen[n]] >= 0]
                records = footage.faces.read_rows([row for _, row in there]).copy()
                records["frame"] = [number for number, _ in there]
                workspace.backgrounds.append(records)
            workspace.backgrounds.sync()

        await in_thread(record)
        await in_thread(workspace.finish, "background", {}, path, workspace.backgrounds)
    return _film(open_background(path, own_timeline(footage.info, len(chosen))), workspace)


async def show_rotated(
    stages: Stages,
    still: Film,
    face_id: int,
    identity: common_pb2.ArtefactRef,
    poses: Float64,
    blink: npt.NDArray[np.float32],
    workspace: Workspace,
    *,
    threads: int,
    on_frame: OnFrame,
) -> Film:
    """The background film of a still whose head is turned to `poses` (vectors, float64 [T, 6]) and blinks, once a job."""
    path = workspace.folder / f"background{FILM_SUFFIX}"
    film = own_timeline(still.info, len(poses))
    if await in_thread(workspace.finished, "background", path, workspace.backgrounds) is None:
        await in_thread(_check_room, workspace, still.info, len(poses))
        (record,) = still.faces.read_rows([int(still.index.rows_of(face_id)[0])])
        with VideoReader(still.info) as reader:
            picture = to_rgb(next(iter(reader)))
        config = texture_pb2.RotatePortraitConfig(
            portrait=to_rgb_image(picture),
            landmarks=to_tensor(np.ascontiguousarray(record["landmarks"])),
            pose=pose_message(pose_of(record)),
            identity=identity,
        )

        async def requests() -> AsyncIterator[texture_pb2.RotatePortraitRequest]:
            yield texture_pb2.RotatePortraitRequest(config=config)
            for number, vector in enumerate(poses):
                frame = texture_pb2.PortraitFrame(
                    frame_index=number, pose=pose_message(pose_of_vector(vector)), blink=float(blink[number])
                )
                yield texture_pb2.RotatePortraitRequest(frame=frame)

        def take(writer: VideoWriter, number: int, reply: texture_pb2.RotatePortraitResponse) -> None:
            if number == len(poses):
                raise ContractBroken("the texture stage answered more frames than it was asked for")
            turned = from_image(reply.picture, "picture", channels=3, size=(picture.shape[1], picture.shape[0]))
            writer.write(frame_of_picture(turned, number, film.video))
            workspace.backgrounds.append(_portrait_record(record, number, reply, turned))

        async def rotate() -> None:
            workspace.backgrounds.clear()
            number = 0
            replies = stages.rotate_portrait(requests())
            try:
                with background_writer(path, film, threads) as writer:
                    async for reply in replies:
                        await in_thread(take, writer, number, reply)
                        number += 1
                        on_frame(number, len(poses))
            finally:
                await close(replies)

        await until_done(rotate)
        workspace.backgrounds.sync()
        await in_thread(workspace.finish, "background", {}, path, workspace.backgrounds)
    return _film(open_background(path, film), workspace)


def _portrait_record(
    still: Any, number: int, reply: texture_pb2.RotatePortraitResponse, picture: npt.NDArray[np.uint8]
) -> npt.NDArray[np.void]:
    row = np.zeros(1, dtype=FACE_RECORD)
    row[0] = still
    row["frame"] = number
    landmarks = from_tensor(reply.landmarks, "landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3))
    # A picture turns only so far: the pose is that of the answer, not the wanted one.
    pose = fit_head_pose(landmarks)
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    row["box"] = [*low, *(high - low)]
    row["landmarks"], row["scale"], row["rotation"], row["translation"] = landmarks, pose.scale, pose.rotation, pose.translation
    row["mouth"] = to_head_space(landmarks[list(MOUTH_AREA)], pose)
    row["pixels"] = cut_box(picture, pose)
    return row


def _check_room(workspace: Workspace, info: MediaInfo, num_frames: int) -> None:
    """Look whether a background film and its records fit on the disk; FFV1 takes at least a bit per luma sample."""
    film = num_frames * info.video.width * info.video.height // 8
    workspace.allowance.check(film + num_frames * FACE_RECORD.itemsize, f"a background film of {num_frames} frames")


def _film(info: MediaInfo, workspace: Workspace) -> Film:
    return Film(info, read_index(workspace.backgrounds, [], info.video.num_frames), workspace.backgrounds)


def _checked(
    reply: texture_pb2.SelectFramesResponse | texture_pb2.MatchBackgroundsResponse, wanted: int, available: int
) -> list[int]:
    chosen = list(reply.frame_indices)
    if len(chosen) != wanted or not all(0 <= frame < available for frame in chosen):
        raise ContractBroken(f"the texture stage chose {len(chosen)} frames where {wanted} were due, or one that is not there")
    return chosen


def _head_motion(footage: Film, face_id: int) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Speed of the nose tip, 0 to 1 (the fastest twentieth of the frames), and whether the eyes are shut, of every frame."""
    rows = footage.index.rows_of(face_id)
    place = np.full((len(rows), 2), np.nan)
    blink = np.zeros(len(rows), np.bool_)
    for begin in range(0, len(rows), _BLOCK):
        (there,) = np.nonzero(rows[begin : begin + _BLOCK] >= 0)
        records = footage.faces.read_rows(rows[begin + there].tolist())
        place[begin + there] = records["landmarks"][:, _NOSE_TIP, :2] / records["scale"][:, None]
        blink[begin + there] = records["blink"] > _EYES_SHUT
    speed = np.nan_to_num(np.linalg.norm(np.diff(place, axis=0, prepend=place[:1]), axis=1))
    fast = float(np.quantile(speed, _FAST_QUANTILE))
    return np.clip(speed / fast, 0.0, 1.0) if fast > 0.0 else speed, blink


def _poses(footage: Film, face_id: int) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Head-pose vectors of every frame, and which of them may be backgrounds."""
    rows = footage.index.rows_of(face_id)
    poses, usable = np.zeros((len(rows), POSE_SIZE)), np.zeros(len(rows), np.bool_)
    poses[:, POSE_SIZE - 1] = 1.0
    for begin in range(0, len(rows), _BLOCK):
        (there,) = np.nonzero(rows[begin : begin + _BLOCK] >= 0)
        records = footage.faces.read_rows(rows[begin + there].tolist())
        poses[begin + there] = pose_vectors([pose_of(record) for record in records])
        usable[begin + there] = records["reason"] == common_pb2.FRAME_REASON_DUBBED
    usable &= np.cumsum(usable) <= MAX_MATCHED_FRAMES
    return poses, usable


def own_pose(still: Film, face_id: int) -> Float64:
    """The head-pose vector of a still, float64 [6]."""
    (record,) = still.faces.read_rows([int(still.index.rows_of(face_id)[0])])
    return np.asarray(pose_vectors([pose_of(record)])[0])
