"""Looks of one face in each shot of a video: colours, the free face, and what stands before the face through the shot.

`ShotLooks` measures the looks of a shot when a caller asks for the first frame of this shot.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from dubstage.common.v1 import common_pb2
from gateway.compositing.cover import LOOK_FRAMES, Cover, FaceLooks, cover_of, find_cover, learn_looks
from gateway.compositing.movable import LEARNED_FRAMES, FaceColours, evenly_spread, learn_colours
from gateway.compositing.static_cover import STATIC_FRAMES, FaceBehind, StaticCover, find_static_cover
from gateway.dub.state.records import RecordFile, mouth_in_box, pose_of
from services.common.array_types import Array, Bool, Float32, Int64, UInt8
from services.common.face.crops import BOX_SIZE, head_template, head_to_box
from services.common.face.landmarks import MOUTH_AREA

_SHOTS: Final = 8
"""Shots whose looks are kept: more than the windows in work can show at once, as a rule."""
MEASURED: Final = (common_pb2.FRAME_REASON_DUBBED, common_pb2.FRAME_REASON_OCCLUDED_MOUTH)
"""Reasons of frames whose head pose is good."""
_PART_FRAMES: Final = 500
"""Frames of a part of a shot, about, in which static things are looked for."""
_CLEAR: Final = 0.05
"""Largest share of the mouth behind a static thing in a frame that shows the whole mouth."""
_CLEAR_FRAMES: Final = 75
"""Frames of the mouth that are kept at least, if there are as many."""
_NEAREST: Final = 3
"""Parts of a shot, the nearest ones, whose static things are compared with a frame."""
T = TypeVar("T")


class ShotLooks:
    """Looks of one face in each shot of a video. Windows ask in several threads: one thread learns, and the others wait.

    Args:
        faces: FACE_RECORDs of the video.
        rows: int64 [T], record of the face in each frame; -1: none.
        free: bool [T], frames in which nothing covers the face, to learn from (FaceIndex.free_frames).
        shot_cuts: frames that begin a shot.
    """

    def __init__(self, faces: RecordFile, rows: Int64, free: Bool, shot_cuts: Sequence[int]) -> None:
        self._faces, self._rows, self._free = faces, rows, free
        self._edges = np.unique([0, *shot_cuts, len(rows)])
        self._colours: dict[int, FaceColours] = {}
        self._looks: dict[int, tuple[FaceLooks, Float32]] = {}
        self._static: dict[int, list[tuple[int, StaticCover]]] = {}
        # Colours need static things, in the same thread.
        self._learning = threading.RLock()

    def learned_from(self, free: Bool) -> ShotLooks:
        """Return the looks of the face, learned from other frames. Static things stay as they are known: all frames show them.

        Args:
            free: as for the class.
        """
        other = ShotLooks(self._faces, self._rows, free, self._edges.tolist())
        other._static, other._learning = self._static, self._learning
        return other

    def movable(self, records: Array) -> Bool:
        """Return the pixels that may move and change, bool [N, 160, 160].

        Args:
            records: FACE_RECORDs [N] of the face.
        """
        pixels = np.empty((len(records), BOX_SIZE, BOX_SIZE), np.bool_)
        for index, record in enumerate(records):
            pixels[index] = self._colours_of(self._shot(record)).movable(record["pixels"], mouth_in_box(record))
        return pixels

    def covers(self, records: Array) -> list[Cover | None]:
        """Return what covers the face in each frame; None: the face is free.

        Args:
            records: FACE_RECORDs [N] of the face.
        """
        return [self._cover(record) for record in records]

    def with_static(self) -> Bool:
        """Return the frames of the shots in which a static thing stands before the face, bool [T]."""
        frames = np.zeros(len(self._rows), np.bool_)
        for shot, (begin, end) in enumerate(itertools.pairwise(self._edges.tolist())):
            frames[begin:end] = bool(self._static_of(shot))
        return frames

    def behind_static(self, record: Any) -> Cover | None:
        """Return how a static thing covers the face of one FACE_RECORD; None: no static thing covers the face."""
        static = self._static_in(record)
        return None if static is None else cover_of(static[1], self._usual_mouth(record))

    def behind(self, record: Any) -> FaceBehind | None:
        """Return the face behind a static thing in the frame of one FACE_RECORD; None: no static thing covers the face."""
        static = self._static_in(record)
        return None if static is None else static[0].behind(static[1], mouth_in_box(record))

    def clearest(self, rows: list[int]) -> list[int]:
        """Return the record rows that show the whole mouth beside a static thing; if they are few, the rows that show most of it.

        The tracker guesses the lips behind a thing, so that a bank would not show what its landmarks say.

        Args:
            rows: record rows of the face, in the order of the footage.
        """
        if not self.with_static().any():
            return rows
        covers = [self.behind_static(self._faces.read(row, row + 1)[0]) for row in rows]
        shares = np.array([0.0 if cover is None else cover.mouth_share for cover in covers])
        most = max(_CLEAR, float(np.sort(shares)[min(_CLEAR_FRAMES, len(rows)) - 1]))
        return [row for row, share in zip(rows, shares, strict=True) if share <= most]

    def _cover(self, record: Any) -> Cover | None:
        if self._free[int(record["frame"])]:
            return self.behind_static(record)
        looks, _ = self._looks_of(self._shot(record))
        static, share = self._static_in(record), float(record["covered_share"])
        thing = None if static is None else static[1]
        cover = find_cover(looks, record["pixels"], hands_of(record), self._usual_mouth(record), share, thing)
        if cover is not None or thing is None:
            return cover
        behind = cover_of(thing, self._usual_mouth(record))
        return behind if explains(behind, record) else None

    def _usual_mouth(self, record: Any) -> Float32:
        """Return the mean mouth in the pose of a record, float32 [59, 2], box pixels.

        The tracker guesses the position of a covered mouth. The head pose says it better.
        """
        _, mouth = self._looks_of(self._shot(record))
        return head_to_box(mouth, pose_of(record))

    def _static_in(self, record: Any) -> tuple[StaticCover, UInt8] | None:
        """Return the static thing before the face of a record, and where the thing is (StaticCover.in_box); None: there is none."""
        things, frame = self._static_of(self._shot(record)), int(record["frame"])
        for _, static in sorted(things, key=lambda middle: abs(middle[0] - frame))[:_NEAREST]:
            thing = static.in_box(record["pixels"], pose_of(record))
            if thing is not None:
                return static, thing
        return None

    def _shot(self, record: Any) -> int:
        return int(np.searchsorted(self._edges, int(record["frame"]), side="right")) - 1

    def _learned(self, learned: dict[int, T], shot: int, learn: Callable[[int], T]) -> T:
        """Return what `learn` returns for a shot, learned once for the last shots that were asked for."""
        with self._learning:
            if shot not in learned:
                what = learn(shot)
                for oldest in list(learned)[: -_SHOTS + 1]:
                    del learned[oldest]
                learned[shot] = what
            return learned[shot]

    def _colours_of(self, shot: int) -> FaceColours:
        return self._learned(self._colours, shot, self._learn_colours)

    def _learn_colours(self, shot: int) -> FaceColours:
        records = self._learned_from(shot, LEARNED_FRAMES)
        mouths = [mouth_in_box(record) for record in records]
        static = [self._static_in(record) for record in records]
        covered = [None if thing is None else cover_of(thing[1], mouth).pixels for thing, mouth in zip(static, mouths, strict=True)]
        return learn_colours(list(records["pixels"]), mouths, covered)

    def _looks_of(self, shot: int) -> tuple[FaceLooks, Float32]:
        """Return the looks of the face in a shot, and the mean mouth, float32 [59, 3], head space."""
        return self._learned(self._looks, shot, self._learn_looks)

    def _learn_looks(self, shot: int) -> tuple[FaceLooks, Float32]:
        records = self._learned_from(shot, LOOK_FRAMES)
        mouth = records["mouth"].mean(axis=0) if len(records) else head_template()[list(MOUTH_AREA)]
        mouths = [mouth_in_box(record) for record in records]
        return learn_looks(list(records["pixels"]), mouths), np.asarray(mouth, np.float32)

    def _static_of(self, shot: int) -> list[tuple[int, StaticCover]]:
        """Return the static things of the parts of a shot, with the middle frames of the parts.

        A microphone moves now and then, and the camera a little. Where the head rests in one part, the parts beside it tell.
        """
        return self._learned(self._static, shot, self._find_static)

    def _find_static(self, shot: int) -> list[tuple[int, StaticCover]]:
        begin, end = self._edges[shot : shot + 2].tolist()
        edges = np.linspace(begin, end, max(1, round((end - begin) / _PART_FRAMES)) + 1).round().astype(int).tolist()
        return [
            (sum(part) // 2, static) for part in itertools.pairwise(edges) if (static := self._static_between(*part)) is not None
        ]

    def _static_between(self, begin: int, end: int) -> StaticCover | None:
        records = self._spread(begin, end, self._rows >= 0, STATIC_FRAMES)
        records = records[np.isin(records["reason"], MEASURED)]
        if not len(records):
            return None
        return find_static_cover(list(records["pixels"]), [pose_of(record) for record in records], records["mouth"].mean(axis=0))

    def _learned_from(self, shot: int, most: int) -> Array:
        """Return at most `most` records of free frames of a shot, evenly spread."""
        begin, end = self._edges[shot : shot + 2]
        return self._spread(begin, end, self._free, most)

    def _spread(self, begin: int, end: int, chosen: Bool, most: int) -> Array:
        """Return at most `most` records of the chosen frames, bool [T], from `begin` to `end` - 1, evenly spread."""
        frames = evenly_spread(begin + np.flatnonzero(chosen[begin:end]), most)
        return self._faces.read_rows(self._rows[frames].tolist())


def explains(static: Cover, record: Any) -> bool:
    """Return whether a static thing is all that the face stage tells of before the face of one FACE_RECORD.

    Args:
        static: how the thing covers the face (ShotLooks.behind_static).
    """
    if record["reason"] == common_pb2.FRAME_REASON_DUBBED:
        return True
    return static.face_share >= float(record["covered_share"]) and not len(hands_of(record))


def hands_of(record: Any) -> Float32:
    """Return the hands before the face of one FACE_RECORD, float32 [N, 21, 2], box pixels."""
    hands: Float32 = record["hands"]
    return hands[np.isfinite(hands).all(axis=(1, 2))]
