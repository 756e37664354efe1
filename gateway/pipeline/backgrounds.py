"""Background films of dubs with a timeline of their own. A background film is written first and then dubbed in place.

| dub                        | background of a frame                                                | RPC of the texture stage |
|----------------------------|----------------------------------------------------------------------|--------------------------|
| `--retime`                 | footage frames in their order, some repeated, some left out          | SelectFrames             |
| predicted head motion      | the footage frame whose head pose is near the predicted one          | MatchBackgrounds         |
| the same, of a still       | the picture, with its head turned to the predicted pose              | RotatePortrait           |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.common.v1alpha1 import common_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.ahead import in_thread
from gateway.media.background_film import FILM_SUFFIX, open_background, own_timeline, write_chosen
from gateway.pipeline.disk import job_folder
from gateway.pipeline.face_index import read_index
from gateway.pipeline.film import Film
from gateway.pipeline.plan import SILENT_BELOW
from gateway.pipeline.records import FACE_RECORD, pose_of
from gateway.pipeline.shot import Shot
from services.common.array_types import Bool, Float32, Float64
from services.common.errors import ContractBroken
from services.common.face.head_pose_vectors import POSE_SIZE, pose_vectors

MAX_MATCHED_FRAMES: Final = 750
"""Most footage frames that may be backgrounds of predicted head motion: the first usable ones. They are stored decoded, 1.4 MB each
at 1280 x 720."""
_BLOCK: Final = 64
_NOSE_TIP: Final = 1
_FAST_QUANTILE: Final = 0.95
_EYES_SHUT: Final = 0.5

OnFrame = Callable[[int, int], None]
"""Called with the number of finished frames and the number of all frames."""


async def retime(shot: Shot, speech_probability: Float32) -> list[int]:
    """Return footage frames for a film as long as the speech. The head moves while the person speaks.

    Args:
        shot: the footage and the face to dub.
        speech_probability: float32 [T], of every frame of the film.

    Raises:
        InvalidRequest: the footage is shorter than half the speech.
        DubstageError: from the texture stage.
    """
    motion, blink = _head_motion(shot)
    request = texture_client.select_frames.request(head_motion=motion, blink=blink, silent=speech_probability < SILENT_BELOW)
    reply = await shot.stages.unary(rpcs.texture.SELECT_FRAMES, request)
    return _checked(reply, len(speech_probability), shot.info.video.num_frames)


async def match(shot: Shot, predicted: Float64, about: Float64) -> list[int]:
    """Return footage frames whose head poses follow predicted head poses.

    The actor may be enrolled from other footage with another framing. The prediction is moved and scaled to this footage.

    Args:
        shot: the footage and the face to dub.
        predicted: float64 [T, 6], predicted head-pose vectors.
        about: float64 [6], head-pose vector that the prediction is relative to.

    Raises:
        NoUsableFootage: no stretch of the footage shows the face long enough.
        DubstageError: from the texture stage.
    """
    poses, usable = _poses(shot)
    request = texture_client.match_backgrounds.request(
        footage_poses=poses,
        usable=usable,
        shot_cuts=shot.index.shot_cuts,
        predicted_poses=rebased(predicted, about, np.median(poses[usable], axis=0) if usable.any() else about),
    )
    reply = await shot.stages.unary(rpcs.texture.MATCH_BACKGROUNDS, request)
    return _checked(reply, len(predicted), shot.info.video.num_frames)


def rebased(poses: Float64, about: Float64, target: Float64) -> Float64:
    """Return head-pose vectors [T, 6] that are relative to the pose `about`, moved to be relative to the pose `target`.

    Angles are added. Places are measured in units of the pose's scale.
    """
    ratio = target[5] / about[5]
    moved = poses - about
    moved[:, 3:5] *= ratio
    moved[:, 5] *= ratio
    return np.asarray(moved + target)


async def show_chosen(shot: Shot, chosen: Sequence[int], on_frame: OnFrame) -> Film:
    """Return the background film that shows the chosen footage frames, with the records of the face. Written once per job.

    Args:
        shot: the footage and the face to dub.
        chosen: a footage frame for every frame of the film.
        on_frame: called with every written frame.

    Raises:
        StorageFull: the disk is full.
        MediaUnsupported: the footage breaks off.
    """
    workspace, path = shot.workspace, background_path(shot)
    if await in_thread(workspace.finished, "background", path, workspace.backgrounds) is None:
        await in_thread(check_room, shot, len(chosen))
        with job_folder(workspace.folder):
            await in_thread(
                write_chosen, path, shot.info, chosen, threads=shot.threads, on_frame=lambda done: on_frame(done, len(chosen))
            )
        rows = shot.rows

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
    return background_film(shot, len(chosen))


def background_path(shot: Shot) -> Path:
    """Return where the background film of a job lies."""
    return shot.workspace.folder / f"background{FILM_SUFFIX}"


def check_room(shot: Shot, num_frames: int) -> None:
    """Raise an error if a background film and its records do not fit on the disk. FFV1 takes at least one bit per luma sample."""
    film = num_frames * shot.info.video.width * shot.info.video.height // 8
    shot.workspace.allowance.check(film + num_frames * FACE_RECORD.itemsize, f"a background film of {num_frames} frames")


def background_film(shot: Shot, num_frames: int) -> Film:
    """Return the finished background film of a job, with its face records."""
    backgrounds = shot.workspace.backgrounds
    info = open_background(background_path(shot), own_timeline(shot.info, num_frames))
    return Film(info, read_index(backgrounds, [], num_frames), backgrounds)


def _checked(
    reply: texture_pb2.SelectFramesResponse | texture_pb2.MatchBackgroundsResponse, wanted: int, available: int
) -> list[int]:
    chosen = list(reply.frame_indices)
    if len(chosen) != wanted or not all(0 <= frame < available for frame in chosen):
        raise ContractBroken(f"the texture stage chose {len(chosen)} frames where {wanted} were due, or one that is not there")
    return chosen


def _head_motion(shot: Shot) -> tuple[Float64, Bool]:
    """Return the speed of the nose tip, and whether the eyes are shut, of every frame.

    The speed is 0 to 1; 1 is the speed that one frame in twenty exceeds.
    """
    rows = shot.rows
    place = np.full((len(rows), 2), np.nan)
    blink = np.zeros(len(rows), np.bool_)
    for begin in range(0, len(rows), _BLOCK):
        (there,) = np.nonzero(rows[begin : begin + _BLOCK] >= 0)
        records = shot.workspace.faces.read_rows(rows[begin + there].tolist())
        place[begin + there] = records["landmarks"][:, _NOSE_TIP, :2] / records["scale"][:, None]
        blink[begin + there] = records["blink"] > _EYES_SHUT
    speed = np.nan_to_num(np.linalg.norm(np.diff(place, axis=0, prepend=place[:1]), axis=1))
    fast = float(np.quantile(speed, _FAST_QUANTILE))
    return np.clip(speed / fast, 0.0, 1.0) if fast > 0.0 else speed, blink


def _poses(shot: Shot) -> tuple[Float64, Bool]:
    """Return the head-pose vectors of every frame, and which frames may be backgrounds."""
    rows = shot.rows
    poses, usable = np.zeros((len(rows), POSE_SIZE)), np.zeros(len(rows), np.bool_)
    poses[:, POSE_SIZE - 1] = 1.0
    for begin in range(0, len(rows), _BLOCK):
        (there,) = np.nonzero(rows[begin : begin + _BLOCK] >= 0)
        records = shot.workspace.faces.read_rows(rows[begin + there].tolist())
        poses[begin + there] = pose_vectors([pose_of(record) for record in records])
        usable[begin + there] = records["reason"] == common_pb2.FRAME_REASON_DUBBED
    usable &= np.cumsum(usable) <= MAX_MATCHED_FRAMES
    return poses, usable
