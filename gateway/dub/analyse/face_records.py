"""Face records of a video: the tracker's data and the render box of each face, their index, and each face's mean embedding.

Consent checks compare people by the mean embeddings.
"""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from gateway.consent.record import EMBEDDING_SIZE, embedding_text
from gateway.consent.subject import ENOUGH_FRAMES, Face
from gateway.dub.analyse.shot_looks import MEASURED, ShotLooks, explains
from gateway.dub.state.records import FACE_RECORD, RecordFile, pose_of
from gateway.media.types import MediaInfo, VideoInfo
from services.common.array_types import Bool, Float32, Float64, Int32, Int64, UInt8
from services.common.errors import ContractBrokenError
from services.common.face.crops import BOX_SIZE, HeadPose, apply_affine, box_from_frame, region_around_box
from services.common.face.hands import MAX_HANDS, NUM_HAND_LANDMARKS
from services.common.face.landmarks import NUM_LANDMARKS, NUM_MOUTH_AREA
from services.common.face.sampling import sample_patch
from services.common.runs import runs
from services.common.wire.convert import from_tensor

_COMES_AND_GOES: Final = 12
"""Frames in which something comes before a face and goes again."""
_MOST_COVERED: Final = 0.6
"""Largest share of the mouth that may look covered in a frame whose mouth is replaced. A mouth half of which is covered looks .5
to .58 covered."""
_SHORTEST: Final = 5
"""Frames of the shortest stretch of replaced mouths between frames that pass through. Shorter ones would only fade in and out."""
_WANTED: Final = 32
"""Embeddings of a face that shows in the whole video, about: videos have more frames between two embeddings the longer they are."""
_MOST_BETWEEN: Final = 25
"""Most frames of a face from one embedding to the next, so that a face that shows for seconds only has several."""
_MOST_WINDOWS: Final = 512
"""Most windows of a face. With more, two windows become one: windows of two hours have 20 s at most."""


def face_records(frame: face_pb2.FrameFaces, cut: Callable[[HeadPose], UInt8], scale: float) -> npt.NDArray[np.void]:
    """Return the FACE_RECORDs of a frame.

    Args:
        frame: answer of the tracker.
        cut: returns the render box of a face in the frame, as `cut_box`.
        scale: pixels of the frame per pixel of the picture that the tracker saw.
    """
    rows = np.zeros(len(frame.faces), dtype=FACE_RECORD)
    for row, face in zip(rows, frame.faces, strict=True):
        row["frame"], row["face_id"], row["reason"] = frame.frame_index, face.face_id, face.reason
        row["confidence"], row["visibility"], row["blink"] = face.confidence, face.mouth_visibility, face.blink
        row["box"] = np.array(face.box, dtype=np.float32) * scale
        # The centre of pixel x of a reduced picture is at scale * (x + 0.5) - 0.5 of the full picture.
        offset = 0.5 * (scale - 1.0)
        landmarks = from_tensor(face.landmarks, "landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3)) * scale
        landmarks[:, :2] += offset
        row["landmarks"] = landmarks
        row["scale"] = face.pose.scale * scale
        row["rotation"] = np.array(face.pose.rotation).reshape(3, 3)
        row["translation"] = np.array(face.pose.translation) * scale + np.array([offset, offset, 0.0])
        row["mouth"] = from_tensor(face.mouth_landmarks, "mouth_landmarks", dtype=np.float32, shape=(NUM_MOUTH_AREA, 3))
        row["covered_share"], row["hands"] = face.covered_share, np.nan
        if face.HasField("hands"):
            hands = from_tensor(face.hands, "hands", dtype=np.float32, shape=(None, NUM_HAND_LANDMARKS, 2))[:MAX_HANDS]
            row["hands"][: len(hands)] = apply_affine(box_from_frame(pose_of(row)), hands * scale + offset)
        row["pixels"] = cut(pose_of(row))
    return rows


def cut_box(rgb: UInt8, pose: HeadPose) -> UInt8:
    """Return the render box of a face, uint8 [160, 160, 3], from the upright frame uint8 [H, W, 3].

    Pixels outside the frame repeat the edge of the frame. If the face is larger than in the box, the picture is low-pass filtered
    first, against aliasing.
    """
    return sample_patch(rgb, box_from_frame(pose), (BOX_SIZE, BOX_SIZE))


def region_of_box(pose: HeadPose) -> tuple[int, int, int, int]:
    """Return the left, top, right and bottom edge of the pixels that `cut_box` reads; the edges may lie outside of the frame."""
    # The low-pass filter of a face that is larger than in the box reads further pixels.
    return region_around_box(pose, 8.0 * max(1.0, pose.scale) + 8.0)


@dataclass(frozen=True, slots=True)
class FaceIndex:
    """Index of the face records of a video.

    Attributes:
        frame, face_id, reason: int32 [R], one entry per record. Of a span of a video: all records of the video.
        area: float32 [R], box area in frame pixels, or as `scaled`.
        centre: float32 [R, 2], box centre in the same pixels.
        size: float32 [R, 2], width and height of the box in the same pixels.
        shot_cuts: frames that begin a shot.
        embeddings: mean embedding of each face by face id, if the faces were measured.
        with_hands: int64, records with hands before the face.
        partly_covered: int64, records of covered mouths that can be replaced all the same: at most half of the mouth is covered,
            and the pixels of what covers the mouth are known (ShotLooks.covers).
        first: frame of the records that is frame 0; 0, unless this is the index of a span.
    """

    frame: Int32
    face_id: Int32
    reason: Int32
    area: Float32
    centre: Float32
    shot_cuts: tuple[int, ...]
    num_frames: int
    embeddings: Mapping[int, Face] = field(default_factory=dict)
    with_hands: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    partly_covered: Int64 = field(default_factory=lambda: np.empty(0, np.int64))
    size: Float32 = field(default_factory=lambda: np.empty((0, 2), np.float32))
    first: int = 0

    def free_frames(self, rows: Int64) -> Bool:
        """Return the frames in which the mouth of a face can be replaced and nothing covers a part of the face, bool [num_frames].

        What covers a mouth shows in some frames before and after, in which it covers too little for the face stage to tell.

        Args:
            rows: int64 [num_frames], record of the face in each frame; -1: none.
        """
        (frames,) = np.nonzero(rows >= 0)
        reason, hands = self.reason[rows[frames]], np.isin(rows[frames], self.with_hands)
        free, covered = np.zeros((2, self.num_frames), np.bool_)
        free[frames] = (reason == common_pb2.FRAME_REASON_DUBBED) & ~hands
        covered[frames] = (reason == common_pb2.FRAME_REASON_OCCLUDED_MOUTH) | hands
        near = np.pad(covered, _COMES_AND_GOES)
        return free & ~np.lib.stride_tricks.sliding_window_view(near, 2 * _COMES_AND_GOES + 1).any(axis=1)

    def span(self, frames: range) -> FaceIndex:
        """Return the index of consecutive frames, which count from 0. The records keep their rows."""
        cuts = tuple(cut - frames.start for cut in self.shot_cuts if cut in frames)
        return replace(self, shot_cuts=cuts, num_frames=len(frames), first=self.first + frames.start)

    def scaled(self, scale: tuple[float, float]) -> FaceIndex:
        """Return the index with areas, centres and sizes in other pixels.

        Args:
            scale: other pixels per frame pixel, in x and y.
        """
        area, centre, size = self.area * np.prod(scale), self.centre * scale, self.size * scale
        return replace(self, area=area.astype(np.float32), centre=centre.astype(np.float32), size=size.astype(np.float32))

    def with_faces(self) -> Bool:
        """Return the frames that show any face, bool [num_frames]."""
        shown = np.zeros(self.num_frames, np.bool_)
        shown[self.frame[self._inside()] - self.first] = True
        return shown

    def rows_of(self, face_id: int) -> Int64:
        """Return the record row of a face in each frame, int64 [num_frames]; -1: the frame does not show the face."""
        rows = np.full(self.num_frames, -1, dtype=np.int64)
        (mine,) = np.nonzero((self.face_id == face_id) & self._inside())
        rows[self.frame[mine] - self.first] = mine
        return rows

    def _inside(self) -> Bool:
        """Return the records of these frames, bool [R]."""
        return np.asarray((self.frame >= self.first) & (self.frame < self.first + self.num_frames), np.bool_)


@dataclass(frozen=True, slots=True)
class TrackedVideo:
    """A video that is dubbed in place, and its faces: the footage, or a background video.

    Attributes:
        index: where the records of its faces are.
        faces: FACE_RECORDs of its faces.
    """

    info: MediaInfo
    index: FaceIndex
    faces: RecordFile

    def span(self, shown: VideoInfo) -> TrackedVideo:
        """Return a span of the video.

        Args:
            shown: the span (VideoInfo.span).
        """
        first = len(shown.before)
        return TrackedVideo(replace(self.info, video=shown), self.index.span(range(first, first + shown.num_frames)), self.faces)

    def halved(self) -> TrackedVideo:
        """Return the video with frames of half the width and height, if these are large enough (VideoInfo.halved). The records and
        their index stay those of the footage.
        """
        return replace(self, info=replace(self.info, video=self.info.video.halved()))


def numbers_of_shots(frames: Int32 | Int64, shot_cuts: Sequence[int]) -> Int64:
    """Return numbers that are consecutive only for consecutive frames of one shot, int64 [N]: each cut leaves one number out.

    Stages take frames for a run if their numbers are consecutive.

    Args:
        frames: int32 or int64 [N], or one number: frames of a video.
        shot_cuts: frames that begin a shot, in order.
    """
    return np.asarray(frames + np.searchsorted(np.array(shot_cuts, np.int64), frames, side="right"), np.int64)


def read_index(faces: RecordFile, shot_cuts: object, num_frames: int) -> FaceIndex:
    """Return the index of a finished first pass. The file is read in pieces.

    Args:
        faces: FACE_RECORDs in the order of their frames.
        shot_cuts: list of the frames that begin a shot, in order.

    Raises:
        ContractBrokenError: the records or the shot cuts do not fit such footage.
    """
    columns: list[Float64] = []
    for begin in range(0, faces.num_rows, 64):
        rows = faces.read(begin, begin + 64)
        box = rows["box"].astype(np.float64)
        centre = box[:, :2] + box[:, 2:] / 2
        area = box[:, 2] * box[:, 3]
        hands = np.isfinite(rows["hands"]).all(axis=(2, 3)).any(axis=1)
        parts = [rows["frame"], rows["face_id"], rows["reason"], area, centre[:, 0], centre[:, 1], box[:, 2], box[:, 3], hands]
        columns.append(np.stack([np.asarray(part, np.float64) for part in parts], axis=1))
    table = np.concatenate(columns) if columns else np.empty((0, 9))
    _check_index(table, shot_cuts, num_frames)
    assert isinstance(shot_cuts, list)
    index = FaceIndex(
        frame=table[:, 0].astype(np.int32),
        face_id=table[:, 1].astype(np.int32),
        reason=table[:, 2].astype(np.int32),
        area=table[:, 3].astype(np.float32),
        centre=table[:, 4:6].astype(np.float32),
        shot_cuts=tuple(shot_cuts),
        num_frames=num_frames,
        size=table[:, 6:8].astype(np.float32),
        with_hands=np.flatnonzero(table[:, 8]).astype(np.int64),
    )
    return _with_covers(faces, index)


def _with_covers(faces: RecordFile, index: FaceIndex) -> FaceIndex:
    """Return the index with the reasons of faces behind static things, and with the records of partly covered mouths."""
    reason = index.reason.copy()
    partly = [np.empty(0, np.int64)]
    for face_id in np.unique(index.face_id).tolist():
        rows = index.rows_of(face_id)
        looks = ShotLooks(faces, rows, index.free_frames(rows), index.shot_cuts)
        measured = (rows >= 0) & np.isin(index.reason[rows], MEASURED)
        for row in rows[measured & looks.with_static()].tolist():
            reason[row] = _reason_behind_static(faces, looks, row, int(reason[row]))
        corrected = replace(index, reason=reason)
        if (reason[rows[rows >= 0]] == common_pb2.FRAME_REASON_OCCLUDED_MOUTH).any():
            partly.append(_partly_covered(faces, corrected, rows, looks.learned_from(corrected.free_frames(rows))))
    return replace(index, reason=reason, partly_covered=np.sort(np.concatenate(partly)))


def _reason_behind_static(faces: RecordFile, looks: ShotLooks, row: int, reason: int) -> int:
    """Return the reason of a record in whose shot a static thing stands before the face.

    The face stage knows no static things: it overlooks them, or it takes a face that moves behind them for a face that something
    comes before.
    """
    (record,) = faces.read_rows([row])
    cover = looks.behind_static(record)
    if cover is None:
        return reason
    if cover.mouth_share > _MOST_COVERED:
        return int(common_pb2.FRAME_REASON_OCCLUDED_MOUTH)
    return int(common_pb2.FRAME_REASON_DUBBED) if explains(cover, record) else reason


def _partly_covered(faces: RecordFile, index: FaceIndex, rows: Int64, looks: ShotLooks) -> Int64:
    """Return the records of covered mouths of a face that can be replaced all the same.

    Args:
        rows: int64 [T], record of the face in each frame; -1: none.
        looks: looks of the face.
    """
    covered = index.reason == common_pb2.FRAME_REASON_OCCLUDED_MOUTH
    replaced = (rows >= 0) & (index.reason[rows] == common_pb2.FRAME_REASON_DUBBED)
    (frames,) = np.nonzero((rows >= 0) & covered[rows])
    for frame in frames.tolist():
        (cover,) = looks.covers(faces.read_rows([int(rows[frame])]))
        replaced[frame] = cover is not None and cover.mouth_share <= _MOST_COVERED
    for run in runs(replaced):
        if len(run) < _SHORTEST:
            replaced[run.start : run.stop] = False
    records: Int64 = rows[frames[replaced[frames]]]
    return records


def _check_index(table: Float64, shot_cuts: object, num_frames: int) -> None:
    frame, face_id = table[:, 0], table[:, 1]
    if not isinstance(shot_cuts, list) or not all(type(cut) is int and 0 <= cut < num_frames for cut in shot_cuts):
        raise ContractBrokenError("the shot cuts are no frames of the footage")
    if sorted(set(shot_cuts)) != shot_cuts:
        raise ContractBrokenError("the shot cuts are out of order")
    if not np.isfinite(table).all() or (len(table) and (frame.min() < 0 or frame.max() >= num_frames or face_id.min() < 0)):
        raise ContractBrokenError("face records of frames that the footage does not have")
    order = np.diff(frame)
    if (order < 0).any() or len(np.unique(table[:, :2], axis=0)) != len(table):
        raise ContractBrokenError("face records out of order, or a face twice in one frame")


def embed_every(num_frames: int) -> int:
    """Return how many frames of a face lie between two embeddings in a video."""
    return min(max(num_frames // _WANTED, 1), _MOST_BETWEEN)


@dataclass(slots=True)
class _Window:
    """Sum of consecutive embeddings, float64 [128], and their number."""

    total: Float64
    count: int


class FaceMeans:
    """Mean embedding of each face of a video, and of windows of consecutive embeddings.

    The mean is over the frames that can be dubbed, or over all frames if fewer than ENOUGH_FRAMES can be dubbed.
    """

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[int, bool], Float64] = defaultdict(lambda: np.zeros(EMBEDDING_SIZE))
        self._counts: Counter[tuple[int, bool]] = Counter()
        self._windows: defaultdict[tuple[int, bool], list[_Window]] = defaultdict(list)
        self._network = ""

    def add(self, face: face_pb2.FaceTrack, face_id: int | None = None) -> None:
        """Count a face of a frame, if its embedding was asked for.

        Args:
            face_id: whose face it is; None: the tracker's id says so.

        Raises:
            ContractBrokenError: the stage changed its network within the video.
            InvalidRequestError: the embedding is not as the contract says.
        """
        if not face.HasField("embedding"):
            return
        if self._network not in ("", face.embedding.network):
            raise ContractBrokenError(f"face embeddings of two networks for one video: {self._network}, {face.embedding.network}")
        self._network = face.embedding.network
        vector = from_tensor(face.embedding.vector, "embedding.vector", dtype=np.float32, shape=(EMBEDDING_SIZE,))
        key = (face.face_id if face_id is None else face_id, face.reason == common_pb2.FRAME_REASON_DUBBED)
        self._sums[key] = self._sums[key] + vector
        self._counts[key] += 1
        windows = self._windows[key]
        size = windows[0].count if len(windows) > 1 else ENOUGH_FRAMES
        if not windows or windows[-1].count >= size:
            if len(windows) == _MOST_WINDOWS:
                pairs = zip(windows[::2], windows[1::2], strict=True)
                windows[:] = [_Window(first.total + second.total, first.count + second.count) for first, second in pairs]
            windows.append(_Window(np.zeros(EMBEDDING_SIZE), 0))
        windows[-1].total = windows[-1].total + vector
        windows[-1].count += 1

    def faces(self) -> dict[int, Face]:
        """Return the mean of each face by face id."""
        return {face_id: self._mean(face_id) for face_id in sorted({face_id for face_id, _ in self._counts})}

    def note(self) -> dict[str, object]:
        """Return all sums as JSON values, from which `resume` goes on."""
        sums = [
            [*key, self._counts[key], _sum_text(total), [[window.count, _sum_text(window.total)] for window in self._windows[key]]]
            for key, total in self._sums.items()
        ]
        return {"network": self._network, "sums": sums}

    def resume(self, note: object) -> None:
        """Take the sums of a note of `note`.

        Raises:
            ValueError: the note is damaged. Nothing was taken.
        """
        match note:
            case {"network": str(network), "sums": list(sums)}:
                read = [
                    (int(face_id), bool(usable), int(count), _sum_of(text), [_Window(_sum_of(part), int(n)) for n, part in windows])
                    for face_id, usable, count, text, windows in sums
                ]
            case _:
                raise ValueError("no sums of embeddings")
        self._network = network
        for face_id, usable, count, vector, windows in read:
            key = face_id, usable
            self._sums[key], self._counts[key], self._windows[key] = vector, count, windows

    def _mean(self, face_id: int) -> Face:
        usable, other = (face_id, True), (face_id, False)
        keys = [usable] if self._counts[usable] >= ENOUGH_FRAMES else [key for key in (usable, other) if self._counts[key]]
        count = sum(self._counts[key] for key in keys)
        total = np.sum([self._sums[key] for key in keys], axis=0)
        windows = [mean for key in keys for mean in _window_means(self._windows[key])]
        return Face(self._network, np.asarray(total / count, np.float32), count, tuple(windows))


def _window_means(windows: Sequence[_Window]) -> list[Float32]:
    """Return the means of windows. The last one goes into the window before, if the last one has too few frames."""
    whole = list(windows)
    if whole and whole[-1].count < ENOUGH_FRAMES:
        last = whole.pop()
        if not whole:
            return []
        whole[-1] = _Window(whole[-1].total + last.total, whole[-1].count + last.count)
    return [np.asarray(window.total / window.count, np.float32) for window in whole]


def _sum_text(total: Float64) -> str:
    return base64.b64encode(total.astype("<f8").tobytes()).decode()


def _sum_of(text: str) -> Float64:
    total = np.frombuffer(base64.b64decode(text), "<f8").astype(np.float64)
    if total.shape != (EMBEDDING_SIZE,):
        raise ValueError("embeddings of another size")
    return total


def faces_note(faces: Mapping[int, Face]) -> list[list[object]]:
    """Return faces as JSON values, for the note of a finished pass."""
    return [
        [face_id, face.network, embedding_text(face.vector), face.frames, [embedding_text(part) for part in face.windows]]
        for face_id, face in sorted(faces.items())
    ]


def faces_of_note(note: object) -> dict[int, Face] | None:
    """Return the faces that a note of `faces_note` describes; None: the note is missing or damaged."""
    faces: dict[int, Face] = {}
    try:
        for face_id, network, text, frames, windows in note:  # type: ignore[attr-defined]
            vector, *parts = (
                np.frombuffer(base64.b64decode(part, validate=True), "<f4").astype(np.float32) for part in (text, *windows)
            )
            faces[int(face_id)] = Face(str(network), vector, int(frames), tuple(parts))
    except (TypeError, ValueError):
        return None
    return faces
