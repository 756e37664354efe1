"""The faces of a video, listed before anybody is dubbed: when each is seen, a picture of each, and who speaks when.

Who speaks is found as the choices `auto` and `speaker` find it: by the lag between the video's own sound and the mouth of each face
(docs/models/lag.md), here in pieces of PIECE_FRAMES. A piece counts for the face whose lag may be applied there
(motion_clip.credible_lag). The speaker of a frame with speech is the face that the pieces around the frame count for most.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np

from dubstage.common.v1 import common_pb2
from gateway.async_utilities import in_thread
from gateway.dub.analyse.face_choice import AUTOMATIC, ChosenFace, by_presence, main_faces
from gateway.dub.analyse.motion_clip import MotionClip, SoundLag, credible_lag, measured_lag, on_motion_grid, tracked_motion
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.progress import OnProgress
from gateway.dub.state.records import RecordFile
from gateway.dub.state.workspace import Workspace
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo
from gateway.stages.interface import Stages
from services.common.array_types import Bool, Float32, Float64, Int64, UInt8
from services.common.methods import DEFAULT_METHOD, method_named
from services.common.runs import runs
from services.common.wire.timeline import MOTION_RATE

MOST_FACES: Final = 100
"""Most faces that a list has, the largest ones."""
PICTURE_SIDE: Final = 256
"""Most pixels of a side of a face's picture."""
_QUALITY: Final = 88
"""Quality of JPEG pictures, as OpenCV counts it."""
_AROUND: Final = 1.8
"""Side of a picture, in sides of the face's box."""
PIECE_FRAMES: Final = 60
"""Frames of 40 ms of a piece: of 60 frames, no listener passes for the speaker, and 98 % of speakers do (docs/models/lag.md)."""
_STEP_FRAMES: Final = 12
_BLOCK_FRAMES: Final = 125 * _STEP_FRAMES
"""Frames of the motion grid whose mouths are in memory at once: a minute."""
_SPEECH: Final = 0.5
"""Speech probability from which on a frame has speech."""
_JOINED_FRAMES: Final = 12
"""Pauses of one speaker that are shorter than this, frames of 40 ms, do not divide a span."""
_LEAST_FRAMES: Final = 8
"""Least frames of 40 ms of a span."""


@dataclass(frozen=True, slots=True)
class SpeakingSpan:
    """Seconds of a video in which a face speaks, from the first frame, to about half a second.

    Attributes:
        confidence: mean confidence of the lags that the span was found by (EstimateLagResponse.confidence).
    """

    begin_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class ListedFace:
    """One face of a video.

    Attributes:
        face_id: number of the face, which a dub takes as its face.
        first_s, last_s: times of the first and of the last frame that show the face, seconds from the first frame of the video.
        num_frames: frames that show the face.
        num_usable: frames of these whose mouth can be dubbed.
        frame: the frame in which the face is clearest.
        box: left, top, width and height of the face in `frame`, pixels of the upright picture, which is not reduced.
        picture: the face in `frame`, uint8 [H, W, 3], RGB.
        speaks: when the face speaks in the video's own sound; empty: never, or the video has no sound.
    """

    face_id: int
    first_s: float
    last_s: float
    num_frames: int
    num_usable: int
    frame: int
    box: tuple[float, float, float, float]
    picture: UInt8
    speaks: tuple[SpeakingSpan, ...] = ()

    @property
    def usable_share(self) -> float:
        """Share of the frames that show the face whose mouth can be dubbed, 0 to 1."""
        return self.num_usable / self.num_frames

    def jpeg(self) -> bytes:
        """Return the picture as a JPEG file."""
        return _jpeg(self.picture)


@dataclass(frozen=True, slots=True)
class FaceList:
    """The faces of a video, the largest first.

    Attributes:
        num_frames: frames of the video.
        duration_s: length of the video, seconds.
        omitted: number of faces beyond MOST_FACES.
        default: face that a dub without a choice takes; None: the video has no face, or is a picture with several faces.
        why: why a dub without a choice takes this face.
        speaker: face that speaks for certain, or the only face; None: there is none.
    """

    num_frames: int
    duration_s: float
    faces: tuple[ListedFace, ...]
    omitted: int = 0
    default: int | None = None
    why: str = ""
    speaker: int | None = None


async def list_faces(stages: Stages, info: MediaInfo, workspace: Workspace, *, threads: int, on_progress: OnProgress) -> FaceList:
    """Return the faces of a video.

    Args:
        info: the video, or a single picture.
        workspace: an empty folder for the records of the faces.
        threads: threads of the decoder.
        on_progress: called with the number of finished frames of each step: track, speakers, pictures.

    Raises:
        MediaUnsupportedError: the file breaks off.
        InvalidRequestError, StorageFullError: the records would take more disk space than they may.
        DubstageError: from the stages.
    """
    analysis = await FootageAnalysis.open(stages, method_named(DEFAULT_METHOD), info, workspace, threads=threads)
    index = await analysis.track(lambda done: on_progress("track", done, info.video.num_frames))
    ids = by_presence(index)
    speaks: Mapping[int, Sequence[SpeakingSpan]] = {}
    default: ChosenFace | None = None
    if ids:
        if len(ids) == 1 or info.video.num_frames > 1:
            await analysis.select(AUTOMATIC)
            default = analysis.chosen
        if info.audio:
            speaks = await find_speakers(analysis, main_faces(index), lambda done, total: on_progress("speakers", done, total))
    clearest = {face: await in_thread(_clearest, workspace.faces, index.rows_of(face)) for face in ids[:MOST_FACES]}
    pictures = await in_thread(
        _pictures, analysis.info, clearest, threads, lambda done, total: on_progress("pictures", done, total)
    )
    seconds = analysis.seconds
    listed = []
    for face in ids[:MOST_FACES]:
        (mine,) = np.nonzero(index.face_id == face)
        frames = index.frame[mine]
        listed.append(
            ListedFace(
                face_id=face,
                first_s=float(seconds[frames[0]]),
                last_s=float(seconds[frames[-1]]),
                num_frames=len(mine),
                num_usable=int((index.reason[mine] == common_pb2.FRAME_REASON_DUBBED).sum()),
                frame=clearest[face].frame,
                box=_scaled(clearest[face].box, analysis.scale),
                picture=pictures[face],
                speaks=tuple(speaks.get(face, ())),
            )
        )
    return FaceList(
        num_frames=index.num_frames,
        duration_s=float(analysis.info.video.duration),
        faces=tuple(listed),
        omitted=max(0, len(ids) - MOST_FACES),
        default=default.face_id if default is not None else None,
        why=default.why if default is not None else "",
        speaker=default.face_id if default is not None and (default.speaks or len(ids) == 1) else None,
    )


def _scaled(box: tuple[float, float, float, float], scale: tuple[float, float]) -> tuple[float, float, float, float]:
    (left, top, width, height), (x, y) = box, scale
    return left * x, top * y, width * x, height * y


@dataclass(frozen=True, slots=True)
class _Clearest:
    frame: int
    box: tuple[float, float, float, float]


def _clearest(faces: RecordFile, rows: Int64) -> _Clearest:
    """Return the frame in which a face is clearest: usable, large, sharp, with the mouth visible and the eyes open."""
    best, clearest = -1.0, _Clearest(0, (0.0, 0.0, 0.0, 0.0))
    shown = rows[rows >= 0]
    # A few frames per second are enough for a picture, and a record takes 90 kB to read.
    for row in shown[:: max(1, len(shown) // 200)].tolist():
        (record,) = faces.read(row, row + 1)
        left, top, width, height = (float(side) for side in record["box"])
        sharp = float(np.sqrt(cv2.Laplacian(cv2.cvtColor(record["pixels"], cv2.COLOR_RGB2GRAY), cv2.CV_32F).var()))
        usable = 1.0 if record["reason"] == common_pb2.FRAME_REASON_DUBBED else 0.01
        open_eyes = 1.0 - 0.5 * float(record["blink"])
        score = usable * open_eyes * float(record["visibility"]) * np.sqrt(max(width * height, 0.0)) * sharp
        if score > best:
            best, clearest = score, _Clearest(int(record["frame"]), (left, top, width, height))
    return clearest


def clearest_picture(info: MediaInfo, faces: RecordFile, rows: Int64, threads: int) -> bytes:
    """Return the picture of a person in the clearest of some frames as a JPEG file. Blocks.

    Args:
        info: the video, or a single picture, which is decoded up to the chosen frame.
        faces: FACE_RECORDs of the video.
        rows: int [N], rows of the person; -1: none.
        threads: threads of the decoder.

    Raises:
        MediaUnsupportedError: the file breaks off.
    """
    return _jpeg(_pictures(info, {0: _clearest(faces, rows)}, threads, lambda *_: None)[0])


def _jpeg(picture: UInt8) -> bytes:
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes()


def _pictures(
    info: MediaInfo, clearest: Mapping[int, _Clearest], threads: int, on_frame: Callable[[int, int], None]
) -> dict[int, UInt8]:
    """Return the picture of each face in its clearest frame. The video is decoded once, up to the last of the frames."""
    wanted: defaultdict[int, list[int]] = defaultdict(list)
    for face, each in clearest.items():
        wanted[each.frame].append(face)
    pictures: dict[int, UInt8] = {}
    total = max(wanted, default=-1) + 1
    with VideoReader(info, threads=threads) as reader:
        for frame in reader.frames(0, total):
            if frame.index in wanted:
                rgb = to_rgb(frame)
                pictures |= {face: cut_face(rgb, clearest[face].box) for face in wanted[frame.index]}
            on_frame(frame.index + 1, total)
    return pictures


def cut_face(rgb: UInt8, box: tuple[float, float, float, float]) -> UInt8:
    """Return a face with its surroundings, uint8 [H, W, 3], at most PICTURE_SIDE pixels wide and high.

    Args:
        rgb: the frame, uint8 [H, W, 3].
        box: left, top, width and height of the face, pixels.
    """
    left, top, width, height = box
    half = _AROUND * max(width, height, 2.0) / 2
    x, y = left + width / 2, top + height / 2
    rows = slice(max(0, round(y - half)), max(1, round(y + half)))
    columns = slice(max(0, round(x - half)), max(1, round(x + half)))
    cut = rgb[rows, columns]
    if not cut.size:
        return rgb[:1, :1]
    scale = min(1.0, PICTURE_SIDE / max(cut.shape[:2]))
    size = (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale)))
    return np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(slots=True)
class _Votes:
    """Votes for each face as the speaker of each frame of the motion grid.

    Attributes:
        confidence: float32 [faces, frames], sum of the confidences of the pieces that count for the face.
        pieces: int32 [faces, frames], number of these pieces.
    """

    confidence: Float32
    pieces: Int64 = field(repr=False)


async def find_speakers(
    analysis: FootageAnalysis, faces: Sequence[int], on_frames: Callable[[int, int], None]
) -> dict[int, list[SpeakingSpan]]:
    """Return when each face speaks in the footage's own sound.

    Args:
        analysis: the footage, tracked, with sound.
        faces: the faces that are compared.
        on_frames: called with the number of finished frames of the motion grid, and of all of them.

    Raises:
        DubstageError: from the stages, or from reading the sound.
    """
    sound = await analysis.extract_sound(whole=True)
    total = sound.num_rows
    votes = _Votes(np.zeros((len(faces), total), np.float32), np.zeros((len(faces), total), np.int64))
    spoken = np.zeros(total, np.bool_)
    for begin in range(0, total, _BLOCK_FRAMES):
        end = min(begin + _BLOCK_FRAMES + PIECE_FRAMES - _STEP_FRAMES, total)
        features = await asyncio.to_thread(sound.read, begin, end)
        spoken[begin:end] = features["speech_probability"] >= _SPEECH
        clips = [await asyncio.to_thread(_mouths, analysis, face, begin, end) for face in faces]
        for first in range(begin, max(begin + 1, end - PIECE_FRAMES + 1), _STEP_FRAMES):
            piece = slice(first - begin, min(first - begin + PIECE_FRAMES, end - begin))
            lags = {
                index: await measured_lag(analysis.stages, _part(clip, piece), features[piece])
                for index, clip in enumerate(clips)
                if clip is not None
            }
            speaker = _who_speaks(lags)
            if speaker is not None:
                votes.confidence[speaker, begin + piece.start : begin + piece.stop] += lags[speaker].confidence
                votes.pieces[speaker, begin + piece.start : begin + piece.stop] += 1
            on_frames(begin + piece.stop, total)
    return {face: _spans_of(votes, spoken, index, float(analysis.info.video.duration)) for index, face in enumerate(faces)}


def _who_speaks(lags: Mapping[int, SoundLag]) -> int | None:
    """Return the face whose voice a piece of sound is; None: no face is shown to speak."""
    measured = {index: lag for index, lag in lags.items() if lag.frames is not None}
    if not measured:
        return None
    best = max(measured, key=lambda index: measured[index].strength)
    others = {index: lag for index, lag in measured.items() if index != best}
    return best if credible_lag(measured[best], others).frames is not None else None


def _mouths(analysis: FootageAnalysis, face: int, begin: int, end: int) -> MotionClip | None:
    """Return the motion of a face in the frames begin to end - 1 of the motion grid; None: the face is not usable there."""
    index, seconds = analysis.index, analysis.seconds
    step = 1.0 / float(MOTION_RATE)
    frames = slice(*np.searchsorted(seconds, [(begin - 1) * step, (end + 1) * step]).tolist())
    rows = index.rows_of(face)[frames]
    rows = rows[rows >= 0]
    rows = rows[index.reason[rows] == common_pb2.FRAME_REASON_DUBBED]
    if len(rows) < PIECE_FRAMES // 2:
        return None
    clip = on_motion_grid(tracked_motion(analysis.workspace.faces, rows.tolist()), seconds, begin * step)
    missing = end - begin - len(clip.mouth)
    if missing <= 0:
        return _part(clip, slice(0, end - begin))
    return MotionClip(
        np.concatenate([clip.mouth, np.repeat(clip.mouth[-1:], missing, axis=0)]),
        np.concatenate([clip.usable, np.zeros(missing, np.bool_)]),
        np.concatenate([clip.poses, np.repeat(clip.poses[-1:], missing, axis=0)]),
    )


def _part(clip: MotionClip, frames: slice) -> MotionClip:
    return MotionClip(clip.mouth[frames], clip.usable[frames], clip.poses[frames])


def _spans_of(votes: _Votes, spoken: Bool, index: int, duration_s: float) -> list[SpeakingSpan]:
    mine = votes.confidence[index]
    others = np.delete(votes.confidence, index, axis=0)
    speaks = spoken & (mine > 0.0) & (mine >= others.max(axis=0, initial=0.0))
    spans: list[range] = []
    for run in runs(speaks):
        if spans and run.start - spans[-1].stop < _JOINED_FRAMES and _is_free(votes, index, spoken, spans[-1].stop, run.start):
            spans[-1] = range(spans[-1].start, run.stop)
        else:
            spans.append(run)
    step = 1.0 / float(MOTION_RATE)
    mean: Float64 = mine / np.maximum(votes.pieces[index], 1)
    return [
        SpeakingSpan(run.start * step, min(run.stop * step, duration_s), float(mean[run.start : run.stop].mean()))
        for run in spans
        if len(run) >= _LEAST_FRAMES
    ]


def _is_free(votes: _Votes, index: int, spoken: Bool, begin: int, end: int) -> bool:
    """Return whether no other face speaks in the frames begin to end - 1."""
    others = np.delete(votes.confidence, index, axis=0)[:, begin:end].max(axis=0, initial=0.0)
    return not bool((spoken[begin:end] & (others > votes.confidence[index, begin:end])).any())
