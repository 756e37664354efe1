"""One person in one footage, from opening the file to what the stages learn of the person."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from dubstage.common.v1alpha1 import common_pb2
from gateway.consent.subject import Face
from gateway.media.sound import SoundReader
from gateway.media.stills import is_still, open_footage
from gateway.media.types import MediaInfo
from gateway.methods import Method
from gateway.pipeline.analysis import track_footage
from gateway.pipeline.bank_extras import Seen
from gateway.pipeline.bank_rows import bank_rows
from gateway.pipeline.enrol import EnrolledActor, Enrolment, EnrolOptions, OnArtefact, unnoted
from gateway.pipeline.face_index import FaceIndex
from gateway.pipeline.faces import FaceChoice, check_one_face, choose_face, main_faces
from gateway.pipeline.film import Film
from gateway.pipeline.lag import SoundLag, believed, measured_lag
from gateway.pipeline.motion_clip import (
    FEW_SECONDS,
    MIN_ENROLMENT_FRAMES,
    MotionClip,
    clip_of,
    enrolment_rows,
    frame_seconds,
    still_row,
)
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.records import RecordFile
from gateway.pipeline.speech import extract_features, motion_frames_for
from gateway.pipeline.spoken import Spoken
from gateway.pipeline.workspace import Workspace
from gateway.stages.interface import Stages
from services.common.array_types import Array, Float64, Int64
from services.common.errors import NoUsableFootage
from services.common.wire.timeline import MOTION_RATE

_COMPARED_ROWS: Final = 1500
"""Most records of each other face that are compared with the sound: a minute tells a voice, and a record takes 90 kB to read."""
SOUND_SECONDS = 420
"""Seconds of the footage's own sound, from its beginning, that lag and enrolment use at most."""


class Shot:
    """One person in one footage: `open`, `track`, `select` and `enrol`, in this order. What is done once is kept in the workspace.

    Attributes:
        stages: the stages.
        method: method that the person is enrolled for.
        info: the footage. Of a still picture: the film of one frame that `open` writes.
        workspace: record files of the job.
        threads: threads of the decoder.
    """

    def __init__(self, stages: Stages, method: Method, info: MediaInfo, workspace: Workspace, *, threads: int) -> None:
        self.stages = stages
        self.method = method
        self.info = info
        self.workspace = workspace
        self.threads = threads
        self._index: FaceIndex | None = None
        self._face_id: int | None = None

    @classmethod
    async def open(cls, stages: Stages, method: Method, info: MediaInfo, workspace: Workspace, *, threads: int) -> Shot:
        """Return a shot of footage that was inspected. A still picture becomes a film of one frame in the workspace.

        Raises:
            MediaUnsupported: a picture that cannot be read.
            InvalidRequest: a picture that is too small.
        """
        opened = await asyncio.to_thread(open_footage, info, workspace.folder, threads=threads)
        return cls(stages, method, opened, workspace, threads=threads)

    async def track(self, on_frame: Callable[[int], None], *, embed: bool = False) -> FaceIndex:
        """Find all faces of the footage, and return where their records are.

        Args:
            on_frame: called with the number of tracked frames.
            embed: whether the faces are measured for comparisons with other films.

        Raises:
            InvalidRequest, StorageFull: the records would take more disk space than they may.
            DubstageError: from the face stage.
        """
        self._index = await track_footage(
            self.stages, self.info, self.workspace, threads=self.threads, on_frame=on_frame, embed=embed
        )
        return self._index

    async def select(self, choice: FaceChoice) -> int | None:
        """Choose the face to dub, and return its id; None: the footage has no face.

        The choice `speaker` takes the face whose mouth fits the footage's own sound best.

        Raises:
            InvalidRequest: the chosen face is not in the footage, or a still picture shows several faces and the choice names none.
        """
        if is_still(self.info):
            check_one_face(self.index, choice)
        self._face_id = await choose_face(self.index, choice, self._fit_to_sound if self.info.audio else None)
        return self._face_id

    async def enrol(
        self,
        options: EnrolOptions,
        on_step: OnProgress,
        frames: range | None = None,
        on_artefact: OnArtefact = unnoted,
        *,
        most: int | None = None,
    ) -> EnrolledActor:
        """Learn the selected person from the first usable seconds of the footage (motion_clip.enrolment_rows).

        Args:
            options: which parts of the enrolment are done.
            on_step: called with every step.
            frames: frames of the footage to learn from; None: all.
            on_artefact: awaited with every artefact that the enrolment makes; see Enrolment.
            most: usable frames, the first ones, that bank, identity and renderer are made from; None: all. Style and lag are
                always learned from all.

        Raises:
            NoUsableFootage: too few frames show the face.
            DubstageError: from the stages.
        """
        if self.method.takes_still and is_still(self.info):
            rows = first = still_row(self.workspace.faces, self.rows)
        else:
            faces, seconds = self.workspace.faces, self.seconds
            rows = await asyncio.to_thread(enrolment_rows, faces, self.rows, seconds, frames)
            first = await asyncio.to_thread(enrolment_rows, faces, self.rows, seconds, frames, most_s=FEW_SECONDS)
        clip, heard = await asyncio.to_thread(clip_of, self.workspace.faces, rows, self.seconds)
        features: Array | None = None
        spoken: Spoken | None = None
        lag = SoundLag()
        if self.info.audio:
            sound = await self.hear()
            features = sound.read_rows(heard)
            lag = await self.lag(rows, clip, features)
            # A renderer does not learn from a foreign voice either.
            spoken = Spoken(sound, self.seconds) if self.method.renderer.speech and not lag.doubt else None
        enrolment = Enrolment(
            stages=self.stages,
            method=self.method,
            seen=await asyncio.to_thread(self._seen, first[:most] if self.method.adapts_neural_texture else rows[:most]),
            first=first[:most],
            num_frames=len(rows[:most]),
            clip=clip,
            features=features,
            options=options,
            on_step=on_step,
            on_artefact=on_artefact,
            lag=lag,
            spoken=spoken,
        )
        return await enrolment.run()

    async def hear(self) -> RecordFile:
        """Return the features of the footage's own sound, at most SOUND_SECONDS.

        Raises:
            DubstageError: from the audio stage, or from reading the sound.
        """
        workspace, info = self.workspace, self.info
        said = {"features": list(self.method.footage_features)}
        if await asyncio.to_thread(workspace.finished, "sound", workspace.sound) != said:
            workspace.sound.clear()
            own = SoundReader(info.path, origin=info.video.start).speech()
            wanted = min(motion_frames_for(info.video.duration), int(SOUND_SECONDS * MOTION_RATE))
            await extract_features(self.stages, own, workspace.sound, wanted, wanted / MOTION_RATE, self.method.footage_features)
            workspace.finish("sound", said, workspace.sound)
        return workspace.sound

    async def lag(self, rows: list[int], clip: MotionClip, features: Array) -> SoundLag:
        """Return the lag of the footage's sound. The lag is not applied if the voice is not shown to be that of the selected face.

        Args:
            rows: record rows of the selected face.
            clip: motion of these rows.
            features: FEATURE_RECORDs of the footage's own sound, of the frames of the clip.

        Raises:
            DubstageError: from the stages.
        """
        own = await measured_lag(self.stages, clip, features)
        others = {face: await self._lag_of(face, rows) for face in main_faces(self.index) if face != self.face_id}
        return believed(own, {face: lag for face, lag in others.items() if lag.frames is not None})

    async def _lag_of(self, face_id: int, rows: list[int]) -> SoundLag:
        """Return the lag of the sound against another face, in the first frames of the rows that show the other face too."""
        found = self.index.rows_of(face_id)[self.index.frame[rows]]
        together = [int(row) for row in found if row >= 0 and self.index.reason[row] == common_pb2.FRAME_REASON_DUBBED]
        if len(together) < MIN_ENROLMENT_FRAMES:
            return SoundLag()
        clip, heard = await asyncio.to_thread(clip_of, self.workspace.faces, together[:_COMPARED_ROWS], self.seconds)
        return await measured_lag(self.stages, clip, (await self.hear()).read_rows(heard))

    @property
    def index(self) -> FaceIndex:
        """Where the records of all faces are. `track` has to be done."""
        assert self._index is not None, "the footage is not tracked"
        return self._index

    @property
    def face_id(self) -> int:
        """Id of the selected face. `select` has to have found a face."""
        assert self._face_id is not None, "no face is selected"
        return self._face_id

    @property
    def face(self) -> Face | None:
        """Mean embedding of the selected face; None: the faces were not measured."""
        return self.index.embeddings.get(self.face_id)

    @property
    def rows(self) -> Int64:
        """Record row of the selected face in each frame, int64 [T]; -1: the frame does not show the face."""
        return self.index.rows_of(self.face_id)

    @property
    def seconds(self) -> Float64:
        """Presentation time of every frame from the first frame, seconds, float64 [T]."""
        return frame_seconds(self.info)

    @property
    def film(self) -> Film:
        """The footage as a film that can be dubbed in place."""
        return Film(self.info, self.index, self.workspace.faces)

    def _seen(self, rows: list[int]) -> Seen:
        """Return the frames for a bank that is made from face records."""
        chosen = bank_rows(self.workspace.faces, rows, self.seconds)
        return Seen(self.info, self.workspace.faces, chosen.rows, chosen.max_frames)

    async def _fit_to_sound(self, face_id: int) -> float:
        """Return how well the mouth of a face fits the footage's sound; higher is better, -inf: unknown."""
        sound, faces = await self.hear(), self.workspace.faces
        try:
            rows = enrolment_rows(faces, self.index.rows_of(face_id), self.seconds, most_s=FEW_SECONDS)
        except NoUsableFootage:
            return float("-inf")
        clip, heard = await asyncio.to_thread(clip_of, faces, rows, self.seconds)
        lag = await measured_lag(self.stages, clip, sound.read_rows(heard))
        return float("-inf") if lag.frames is None else lag.confidence
