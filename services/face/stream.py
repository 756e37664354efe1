"""The tracker: takes pictures and returns finished faces a bounded number of frames later."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.face.crops import to_head_space
from services.common.face.landmarks import MOUTH_AREA, NUM_LIPS
from services.face.appearance import AppearanceMemory, sample_appearance
from services.face.detect import FaceDetector, overlap
from services.face.embedding import EmbeddingNetwork
from services.face.fitting.streaming import StreamFitter
from services.face.identity import IdentityBook
from services.face.mediapipe_graphs import MeshNetwork
from services.face.mesh import FaceRegion, MeshReading, read_mesh, region_of_detection, region_of_pose
from services.face.reasons import MouthView, Verdict, decide, eye_closure, mouth_in_picture, visibility
from services.face.shots import ShotDetector
from services.face.smoothing import RawFace, raw_face, smooth
from services.face.types import FaceEmbedding, FrameFaces, TrackedFace, TrackOptions

_KEEP: Final = 0.5
"""Confidence of the mesh network below which a followed face is lost."""
_ENTER: Final = 0.9
"""Confidence of the mesh network above which a new face is followed."""
_SAME_FACE: Final = 0.4
"""Overlap of boxes above which two readings are of one face."""
_LOOK_EVERY: Final = 5
"""Frames between two searches for further faces while at least one face is followed."""
_LOOK_FAR_EVERY: Final = 25


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reading of a face, kept until its frame is finished."""

    raw: RawFace
    view: MouthView
    embedding: FaceEmbedding | None


@dataclass(frozen=True, slots=True)
class _Frame:
    index: int
    shot_cut: bool
    readings: dict[int, _Reading]


class Networks:
    """Networks of trackers. Loading takes 0.2 s. The networks have no state: trackers in any thread may share them."""

    def __init__(self) -> None:
        self.detector = FaceDetector()
        self.mesh = MeshNetwork()

    @cached_property
    def embedding(self) -> EmbeddingNetwork:
        """The network of face embeddings, which few streams need: loaded when it is first used, in another 0.1 s."""
        return EmbeddingNetwork()

    def close(self) -> None:
        """Free the networks."""
        self.detector.close()
        self.mesh.close()


class FaceTracker:
    """Tracker of the faces of one stream. The result depends on the pictures alone, not on timing or on earlier streams."""

    def __init__(
        self, networks: Networks, options: TrackOptions, *, first_frame: int = 0, fitter: StreamFitter | None = None
    ) -> None:
        """Begin a stream. `first_frame` is the absolute index of the first picture. `fitter` belongs to this stream alone."""
        self._fitter = fitter
        self._networks = networks
        self._options = options
        self._shots = ShotDetector()
        self._people = IdentityBook()
        self._looks: dict[int, AppearanceMemory] = {}
        self._verdicts: dict[int, Verdict] = {}
        self._active: dict[int, FaceRegion] = {}
        self._times_read: Counter[int] = Counter()
        self._window: deque[_Frame] = deque()
        self._next_in = first_frame
        self._next_out = first_frame
        self._shot = 0

    def push(self, picture: npt.NDArray[np.uint8]) -> list[FrameFaces]:
        """Take the next frame, uint8 RGB [H, W, 3]. Return the completed frames: none, or the frame `half_width` earlier."""
        index = self._next_in
        self._next_in += 1
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
        self._window.append(_Frame(index, cut, readings))
        return [self._emit()] if index - self._next_out >= self._options.half_width else []

    def finish(self) -> list[FrameFaces]:
        """Return the frames still outstanding, after the last push."""
        return [self._emit() for _ in range(self._next_in - self._next_out)]

    def _read(self, picture: npt.NDArray[np.uint8], index: int) -> dict[int, _Reading]:
        found: dict[int, MeshReading] = {}
        for face_id, region in self._active.items():
            reading = read_mesh(self._networks.mesh, picture, region)
            if reading.score >= _KEEP and not _known(reading, found):
                found[face_id] = reading
        lost = len(found) < len(self._active)
        room = len(found) < self._options.max_faces
        if not found or (room and (lost or index % _LOOK_EVERY == 0)):
            self._look(picture, found, thorough=not found or index % _LOOK_FAR_EVERY == 0)
        self._active = {face_id: region_of_pose(reading.pose) for face_id, reading in sorted(found.items())}
        return {face_id: self._remember(picture, face_id, found[face_id]) for face_id in self._active}

    def _look(self, picture: npt.NDArray[np.uint8], found: dict[int, MeshReading], *, thorough: bool) -> None:
        """Add faces that the detector finds and that are not followed yet, the largest first."""
        detections = self._networks.detector.detect(picture, thorough=thorough)
        for detection in sorted(detections, key=lambda item: -item.box[2] * item.box[3]):
            if len(found) >= self._options.max_faces:
                return
            if any(overlap(detection.box, _box(reading.landmarks)) > _SAME_FACE for reading in found.values()):
                continue
            reading = read_mesh(self._networks.mesh, picture, region_of_detection(detection))
            if reading.score < _ENTER or _known(reading, found) or not self._networks.detector.confirm(picture, detection):
                continue
            whole = bool(mouth_in_picture(reading.landmarks, picture.shape[1], picture.shape[0]).all())
            face_id = self._people.recognise(raw_face(reading.landmarks), self._shot, set(found), whole=whole)
            found[face_id] = reading

    def _remember(self, picture: npt.NDArray[np.uint8], face_id: int, reading: MeshReading) -> _Reading:
        raw = RawFace(reading.pose, to_head_space(reading.landmarks, reading.pose))
        inside = mouth_in_picture(reading.landmarks, picture.shape[1], picture.shape[0])
        whole, foreign = bool(inside.all()), 0.0
        self._people.observe(face_id, raw, self._shot, whole=whole)
        if whole:
            look = self._looks.setdefault(face_id, AppearanceMemory())
            appearance = sample_appearance(picture, reading.landmarks, reading.pose)
            foreign = look.measure(appearance, reading.pose.yaw_degrees)
        seen, lips_seen = float(inside.mean()), bool(inside[:NUM_LIPS].all())
        view = MouthView(reading.score, reading.pose, seen, lips_seen, foreign)
        return _Reading(raw, view, self._embedding(picture, face_id, reading))

    def _embedding(self, picture: npt.NDArray[np.uint8], face_id: int, reading: MeshReading) -> FaceEmbedding | None:
        every = self._options.embed_every
        before = self._times_read[face_id]
        self._times_read[face_id] += 1
        if not every or before % every:
            return None
        return self._networks.embedding(picture, reading.landmarks, reading.pose)

    def _emit(self) -> FrameFaces:
        position = next(place for place, frame in enumerate(self._window) if frame.index == self._next_out)
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


def _known(reading: MeshReading, found: dict[int, MeshReading]) -> bool:
    box = _box(reading.landmarks)
    return any(overlap(box, _box(other.landmarks)) > _SAME_FACE for other in found.values())


def _box(landmarks: npt.NDArray[np.float32]) -> tuple[float, float, float, float]:
    low, high = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])
