"""The tracker: takes pictures and returns finished faces a bounded number of frames later."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from services.common.array_types import Array, Float32, UInt8
from services.common.face.crops import numbers_of_poses, poses_of_numbers, to_frame, to_head_space
from services.common.face.hands import NUM_HAND_LANDMARKS
from services.common.face.landmarks import MOUTH_AREA, NUM_LANDMARKS, NUM_LIPS
from services.face.detection import (
    FaceDetector,
    FaceRegion,
    MeshNetwork,
    MeshReading,
    overlap,
    read_mesh,
    region_of_detection,
    region_of_pose,
)
from services.face.embedding import EMBEDDING_SIZE, NETWORK, EmbeddingNetwork
from services.face.fitting.streaming import StreamFitter
from services.face.hands import LOOK_FROM, HandNetwork, hands_before
from services.face.identities import IdentityBook
from services.face.quality import (
    LOWER,
    UPPER,
    AppearanceMemory,
    FrameVerdict,
    MouthView,
    decide,
    eye_closure,
    mouth_in_picture,
    sample_appearance,
    visibility,
)
from services.face.shots import ShotDetector
from services.face.smoothing import RawFace, raw_face, smooth
from services.face.types import FaceEmbedding, FrameFaces, Reason, TrackedFace, TrackOptions

_KEEP: Final = 0.5
"""Confidence of the mesh network below which a followed face is lost."""
_ENTER: Final = 0.9
"""Confidence of the mesh network above which a new face is followed."""
_SAME_FACE: Final = 0.4
"""Overlap of boxes above which two readings are of one face."""
_LOOK_EVERY: Final = 5
"""Frames between two searches for further faces while at least one face is followed."""
_LOOK_FAR_EVERY: Final = 25
_REASONS: Final = tuple(Reason)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reading of a face, kept until its frame is finished."""

    raw: RawFace
    view: MouthView
    foreign_colours: float
    embedding: FaceEmbedding | None
    hands: Float32 | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    index: int
    shot_cut: bool
    readings: dict[int, _Reading]
    picture: UInt8


class Networks:
    """Networks of trackers. Loading takes 0.2 s. The networks have no state: trackers in any thread may share them."""

    def __init__(self) -> None:
        self.detector = FaceDetector()
        self.mesh = MeshNetwork()
        self.embedding = EmbeddingNetwork()

    @cached_property
    def hands(self) -> HandNetwork:
        """The networks of hands, which few streams need: loaded when they are first used."""
        return HandNetwork()

    def close(self) -> None:
        """Free the networks."""
        self.detector.close()
        self.mesh.close()
        if "hands" in self.__dict__:
            self.hands.close()


@dataclass(frozen=True, slots=True)
class TrackerState:
    """State of a tracker after it has finished a frame, without pictures.

    Attributes:
        next_frame: the next frame to finish. Pictures are given again from this frame on.
        size: width and height of the pictures, pixels.
        arrays: all else, by the names of `state_columns`.
    """

    next_frame: int
    size: tuple[int, int]
    arrays: Mapping[str, Array]


def _numbers_of_view(reading: _Reading) -> tuple[float, float, float, float]:
    return reading.view.confidence, reading.view.seen, reading.view.foreign, reading.foreign_colours


class FaceTracker:
    """Tracker of the faces of one stream. The result depends on the pictures alone, not on timing or on earlier streams."""

    def __init__(
        self, networks: Networks, options: TrackOptions, *, first_frame: int = 0, fitter: StreamFitter | None = None
    ) -> None:
        """Begin a stream. `first_frame` is the absolute index of the first picture. `fitter` belongs only to this stream."""
        self._fitter = fitter
        self._networks = networks
        self._options = options
        self._shots = ShotDetector()
        self._people = IdentityBook()
        self._looks: dict[int, AppearanceMemory] = {}
        self._verdicts: dict[int, FrameVerdict] = {}
        self._active: dict[int, FaceRegion] = {}
        self._times_read: Counter[int] = Counter()
        self._window: deque[_Frame] = deque()
        self._next_in = first_frame
        self._next_out = first_frame
        self._shot = 0
        self._size = (0, 0)
        # Frames of the window whose pictures are still to come, after `resumed`.
        self._without_picture: deque[int] = deque()

    def push(self, picture: npt.NDArray[np.uint8]) -> list[FrameFaces]:
        """Take the next frame, uint8 RGB [H, W, 3]. Return the completed frames: none, or the frame `half_width` earlier."""
        if self._without_picture:
            row = self._without_picture.popleft()
            self._window[row] = replace(self._window[row], picture=picture)
            return []
        index = self._next_in
        self._next_in += 1
        self._size = picture.shape[1], picture.shape[0]
        cut = self._shots.push(picture)
        if cut:
            self._active.clear()
            self._looks.clear()  # a new shot has a different light
            if self._fitter is not None:
                self._fitter.cut()
            self._shot += 1
        readings = self._read(picture, index)
        if self._fitter is not None:
            for face_id, reading in readings.items():
                self._fitter.see(face_id, index, reading.raw, picture)
        self._window.append(_Frame(index, cut, readings, picture))
        self._find_hands()
        return [self._emit()] if index - self._next_out >= self._options.half_width else []

    def finish(self) -> list[FrameFaces]:
        """Return the frames still outstanding, after the last push."""
        return [self._emit() for _ in range(self._next_in - self._next_out - len(self._without_picture))]

    def state(self) -> TrackerState:
        """Return the state after a `push` that returned a frame."""
        frames = list(self._window)
        entries = [(index, face_id, reading) for index, frame in enumerate(frames) for face_id, reading in frame.readings.items()]
        readings = [reading for _, _, reading in entries]
        looks = {face_id: look.arrays() for face_id, look in sorted(self._looks.items())}
        verdicts = sorted(self._verdicts.items())
        hands = [(row, hand) for row, reading in enumerate(readings) if reading.hands is not None for hand in reading.hands]
        measured = [(row, reading.embedding) for row, reading in enumerate(readings) if reading.embedding is not None]
        width, height = self._size
        people = self._people.arrays()
        arrays: dict[str, Array] = {
            "stream": np.array([self._next_out, self._shot, width, height], np.int64),
            **{f"shots.{name}": array for name, array in self._shots.arrays().items()},
            **{f"people.{name}": array for name, array in people.items()},
            "people.read": np.array([self._times_read[face_id] for face_id in range(len(people["scale"]))], np.int64),
            "looks.face": np.array(list(looks), np.int64),
            "looks.lower": np.array([look[0] for look in looks.values()], np.float64).reshape(-1, len(LOWER), 3),
            "looks.seen": np.array([look[1] for look in looks.values()], np.bool_).reshape(-1, len(LOWER)),
            "looks.upper": np.array([look[2] for look in looks.values()], np.float64).reshape(-1, len(UPPER), 3),
            "looks.variance": np.array([look[3] for look in looks.values()], np.float64).reshape(-1, len(LOWER), 3),
            "looks.yaw": np.array([look[4] for look in looks.values()], np.float64),
            "looks.readings": np.array([look[5] for look in looks.values()], np.int64),
            "verdicts.face": np.array([face_id for face_id, _ in verdicts], np.int64),
            "verdicts.reason": np.array([_REASONS.index(verdict.reason) for _, verdict in verdicts], np.int64),
            "verdicts.covered": np.array([verdict.covered for _, verdict in verdicts], np.bool_),
            "active.face": np.array(list(self._active), np.int64),
            "active.region": np.array(list(self._active.values()), np.float64).reshape(-1, 4),
            "frames.cut": np.array([frame.shot_cut for frame in frames], np.bool_),
            "readings.frame": np.array([index for index, _, _ in entries], np.int64),
            "readings.face": np.array([face_id for _, face_id, _ in entries], np.int64),
            "readings.pose": numbers_of_poses([reading.raw.pose for reading in readings]),
            "readings.landmarks": np.array([reading.raw.head_landmarks for reading in readings], np.float32).reshape(
                -1, NUM_LANDMARKS, 3
            ),
            "readings.view": np.array([_numbers_of_view(reading) for reading in readings], np.float64).reshape(-1, 4),
            "readings.lips": np.array([reading.view.lips_seen for reading in readings], np.bool_),
            "embeddings.reading": np.array([row for row, _ in measured], np.int64),
            "embeddings.vector": np.array([each.vector for _, each in measured], np.float32).reshape(-1, EMBEDDING_SIZE),
            "hands.reading": np.array([row for row, _ in hands], np.int64),
            "hands.points": np.array([hand for _, hand in hands], np.float32).reshape(-1, NUM_HAND_LANDMARKS, 2),
        }
        if self._fitter is not None:
            arrays |= self._fitter.arrays()
        return TrackerState(self._next_out, self._size, arrays)

    @classmethod
    def resumed(cls, networks: Networks, options: TrackOptions, state: TrackerState, fitter: StreamFitter | None = None) -> Self:
        """Return a tracker that goes on from the state of a tracker with the same options.

        The next picture is that of frame `state.next_frame`. The tracker has read this frame and the `half_width` - 1 frames after
        it already, and needs their pictures to look for hands.
        """
        tracker, arrays = cls(networks, options, first_frame=state.next_frame, fitter=fitter), state.arrays
        tracker._shot, tracker._size = int(arrays["stream"][1]), state.size
        tracker._shots.set_arrays(*(arrays[f"shots.{name}"] for name in ("picture", "colours", "changes")))
        tracker._people.set_arrays(*(arrays[f"people.{name}"] for name in ("shape", "readings", "place", "scale", "shot")))
        tracker._times_read.update(dict(enumerate(arrays["people.read"].tolist())))
        looks = [arrays[f"looks.{name}"] for name in ("lower", "seen", "upper", "variance", "yaw", "readings")]
        for face_id, lower, seen, upper, variance, yaw, count in zip(arrays["looks.face"].tolist(), *looks, strict=True):
            tracker._looks[face_id] = AppearanceMemory.of_arrays(lower, seen, upper, variance, float(yaw), int(count))
        verdicts = zip(*(arrays[f"verdicts.{name}"].tolist() for name in ("face", "reason", "covered")), strict=True)
        tracker._verdicts = {face_id: FrameVerdict(_REASONS[reason], covered) for face_id, reason, covered in verdicts}
        regions = zip(arrays["active.face"].tolist(), arrays["active.region"].tolist(), strict=True)
        tracker._active = {face_id: FaceRegion(*region) for face_id, region in regions}
        tracker._restore_window(arrays)
        if fitter is not None:
            fitter.set_arrays(arrays)
        return tracker

    def _restore_window(self, arrays: Mapping[str, Array]) -> None:
        cuts = arrays["frames.cut"].tolist()
        self._next_in = self._next_out + self._options.half_width
        vectors = dict(zip(arrays["embeddings.reading"].tolist(), arrays["embeddings.vector"], strict=True))
        hands: dict[int, list[Float32]] = {}
        for row, hand in zip(arrays["hands.reading"].tolist(), arrays["hands.points"], strict=True):
            hands.setdefault(row, []).append(hand)
        readings: list[dict[int, _Reading]] = [{} for _ in cuts]
        poses = poses_of_numbers(arrays["readings.pose"])
        columns = (arrays[f"readings.{name}"].tolist() for name in ("frame", "face", "view", "lips"))
        for row, (index, face_id, view, lips) in enumerate(zip(*columns, strict=True)):
            confidence, seen, foreign, foreign_colours = view
            readings[index][face_id] = _Reading(
                RawFace(poses[row], arrays["readings.landmarks"][row]),
                MouthView(confidence, poses[row], seen, lips, foreign),
                foreign_colours,
                FaceEmbedding(NETWORK, vectors[row]) if row in vectors else None,
                np.stack(hands[row]) if row in hands else None,
            )
        first = self._next_in - len(cuts)
        nothing = np.empty((0, 0, 3), np.uint8)
        self._window.extend(_Frame(first + index, cuts[index], readings[index], nothing) for index in range(len(cuts)))
        self._without_picture.extend(index for index in range(len(cuts)) if first + index >= self._next_out)

    def _read(self, picture: npt.NDArray[np.uint8], index: int) -> dict[int, _Reading]:
        meshes: dict[int, MeshReading] = {}
        for face_id, region in self._active.items():
            reading = read_mesh(self._networks.mesh, picture, region)
            if reading.score >= _KEEP and not _is_among(reading, meshes):
                meshes[face_id] = reading
        lost = len(meshes) < len(self._active)
        room = len(meshes) < self._options.max_faces
        if not meshes or (room and (lost or index % _LOOK_EVERY == 0)):
            self._look(picture, meshes, thorough=not meshes or index % _LOOK_FAR_EVERY == 0)
        self._active = {face_id: region_of_pose(reading.pose) for face_id, reading in sorted(meshes.items())}
        return {face_id: self._remember(picture, face_id, meshes[face_id]) for face_id in self._active}

    def _look(self, picture: npt.NDArray[np.uint8], meshes: dict[int, MeshReading], *, thorough: bool) -> None:
        """Add faces that the detector finds and that are not followed yet, the largest first."""
        detections = self._networks.detector.detect(picture, thorough=thorough)
        for detection in sorted(detections, key=lambda item: -item.box[2] * item.box[3]):
            if len(meshes) >= self._options.max_faces:
                return
            if any(overlap(detection.box, _box(reading.landmarks)) > _SAME_FACE for reading in meshes.values()):
                continue
            reading = read_mesh(self._networks.mesh, picture, region_of_detection(detection))
            if reading.score < _ENTER or _is_among(reading, meshes) or not self._networks.detector.confirm(picture, detection):
                continue
            whole = bool(mouth_in_picture(reading.landmarks, picture.shape[1], picture.shape[0]).all())
            face_id = self._people.recognise(raw_face(reading.landmarks), self._shot, set(meshes), whole=whole)
            meshes[face_id] = reading

    def _remember(self, picture: npt.NDArray[np.uint8], face_id: int, reading: MeshReading) -> _Reading:
        raw = RawFace(reading.pose, to_head_space(reading.landmarks, reading.pose))
        inside = mouth_in_picture(reading.landmarks, picture.shape[1], picture.shape[0])
        whole, foreign = bool(inside.all()), 0.0
        self._people.observe(face_id, raw, self._shot, whole=whole)
        if whole:
            look = self._looks.setdefault(face_id, AppearanceMemory())
            appearance = sample_appearance(picture, reading.landmarks, reading.pose)
            foreign = look.measure(appearance, reading.pose)
        seen, lips_seen = float(inside.mean()), bool(inside[:NUM_LIPS].all())
        view = MouthView(reading.score, reading.pose, seen, lips_seen, foreign)
        return _Reading(raw, view, foreign, self._embedding(picture, face_id, reading))

    def _find_hands(self) -> None:
        """Look for hands before the faces of the newest frame.

        A hand that was not there before may have come unseen: the frames that are not finished are looked at too. A hand that is
        there in one frame only is none.
        """
        for face_id, reading in self._window[-1].readings.items():
            span, _ = self._span(face_id, len(self._window) - 1)
            frames = list(self._window)[-len(span) :]
            followed = len(span) > 1 and span[-2].hands is not None
            has_hands = (followed or reading.view.foreign >= LOOK_FROM) and self._look_for_hands(face_id, frames[-1])
            if has_hands and not followed:
                for frame in reversed([frame for frame in frames[:-1] if frame.index >= self._next_out]):
                    if not self._look_for_hands(face_id, frame):
                        break
            elif followed and not has_hands and (len(span) < 3 or span[-3].hands is None):
                alone = span[-2]
                colours = replace(alone.view, foreign=alone.foreign_colours)
                frames[-2].readings[face_id] = replace(alone, view=colours, hands=None)

    def _look_for_hands(self, face_id: int, frame: _Frame) -> bool:
        """Add the hands before a face to the face's reading in a frame, and return whether there is any."""
        reading = frame.readings[face_id]
        landmarks = to_frame(reading.raw.head_landmarks, reading.raw.pose)
        hands, share = hands_before(self._networks.hands, frame.picture, landmarks, reading.raw.pose)
        if not len(hands):
            return False
        view = replace(reading.view, foreign=max(reading.view.foreign, share))
        frame.readings[face_id] = replace(reading, view=view, hands=hands)
        return True

    def _embedding(self, picture: npt.NDArray[np.uint8], face_id: int, reading: MeshReading) -> FaceEmbedding | None:
        every = self._options.embed_every
        before = self._times_read[face_id]
        self._times_read[face_id] += 1
        if not every or before % every:
            return None
        return self._networks.embedding(picture, reading.landmarks, reading.pose)

    def _emit(self) -> FrameFaces:
        position = next(index for index, frame in enumerate(self._window) if frame.index == self._next_out)
        frame = self._window[position]
        self._verdicts = {
            face_id: decide(None if frame.shot_cut else self._verdicts.get(face_id), self._views_ahead(face_id, position))
            for face_id in frame.readings
        }
        faces = tuple(self._face(face_id, position) for face_id in frame.readings)
        self._next_out += 1
        while self._window and self._window[0].index < self._next_out - self._options.half_width:
            self._window.popleft()
        return FrameFaces(frame.index, frame.shot_cut, faces)

    def _face(self, face_id: int, position: int) -> TrackedFace:
        span, centre = self._span(face_id, position)
        reading = span[centre]
        smoothed = smooth([item.raw for item in span], centre, self._options.half_width)
        verdict = self._verdicts[face_id]
        coefficients = None
        if self._fitter is not None:
            first_frame = self._next_out - centre
            raw = [item.raw for item in span]
            coefficients = self._fitter.coefficients(face_id, first_frame, raw, centre, self._options.half_width)
        return TrackedFace(
            face_id=face_id,
            box=_box(smoothed.landmarks),
            landmarks=smoothed.landmarks,
            pose=smoothed.pose,
            mouth_landmarks=smoothed.head_landmarks[list(MOUTH_AREA)],
            confidence=reading.view.confidence,
            mouth_visibility=visibility(reading.view, verdict.covered),
            blink=eye_closure(smoothed.head_landmarks),
            reason=verdict.reason,
            coefficients=coefficients,
            embedding=reading.embedding,
            hands=reading.hands,
            covered_share=min(reading.view.foreign, 1.0),
        )

    def _views_ahead(self, face_id: int, position: int) -> list[MouthView]:
        span, centre = self._span(face_id, position)
        return [reading.view for reading in span[centre:]]

    def _span(self, face_id: int, position: int) -> tuple[list[_Reading], int]:
        """Return readings of a face around a frame, without a gap and within the shot, and the frame's position in the span."""
        frames = list(self._window)
        begin = end = position
        while begin > 0 and not frames[begin].shot_cut and face_id in frames[begin - 1].readings:
            begin -= 1
        while end + 1 < len(frames) and not frames[end + 1].shot_cut and face_id in frames[end + 1].readings:
            end += 1
        return [frame.readings[face_id] for frame in frames[begin : end + 1]], position - begin


def _is_among(reading: MeshReading, meshes: dict[int, MeshReading]) -> bool:
    box = _box(reading.landmarks)
    return any(overlap(box, _box(other.landmarks)) > _SAME_FACE for other in meshes.values())


def _box(landmarks: npt.NDArray[np.float32]) -> tuple[float, float, float, float]:
    low, high = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])
