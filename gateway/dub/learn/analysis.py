"""Analysis of one person in one footage, from opening the file to what the stages learn of the person.

The first passes find all faces of the video and the features of the speech. Each pass is done once per job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from dubstage.common.v1 import common_pb2
from gateway.async_utilities import cancel_all
from gateway.consent.subject import Face
from gateway.dub.analyse.face_boxes import follow_boxes
from gateway.dub.analyse.face_choice import ChosenFace, FaceChoice, check_one_face, choose_face, main_faces
from gateway.dub.analyse.face_records import FaceIndex, FaceMeans, TrackedVideo, embed_every, faces_note, faces_of_note, read_index
from gateway.dub.analyse.footage import analyse_footage
from gateway.dub.analyse.motion_clip import (
    FEW_SECONDS,
    MIN_ENROLMENT_FRAMES,
    MotionClip,
    SoundLag,
    bank_rows,
    clip_of,
    credible_lag,
    enrolment_rows,
    frame_seconds,
    measured_lag,
    still_row,
)
from gateway.dub.analyse.shot_looks import ShotLooks
from gateway.dub.analyse.tracking_point import TrackingCheckpoint
from gateway.dub.choices import EnrolOptions
from gateway.dub.learn.coefficients import TrackedPerson
from gateway.dub.learn.enrol import EnrolledActor, Enrolment, OnArtefact, unnoted
from gateway.dub.progress import OnProgress
from gateway.dub.sound.speech import AlignedSpeech, SpeechExtent, extract_features, motion_frames_for
from gateway.dub.state.records import FACE_RECORD, FEATURE_RECORD, RecordFile
from gateway.dub.state.workspace import CHECKPOINT, Workspace
from gateway.media.sound import SoundReader, Speech
from gateway.media.stills import is_still, open_footage
from gateway.media.types import MediaInfo
from gateway.stages.interface import Stages
from services.common.array_types import Array, Float64, Int64
from services.common.errors import ContractBrokenError, NoUsableFootageError
from services.common.methods import FeatureKinds, Method
from services.common.wire.timeline import MOTION_RATE

T = TypeVar("T")
U = TypeVar("U")
_COMPARED_ROWS: Final = 1500
"""Most records of each other face that are compared with the sound: a minute tells a voice, and a record takes 90 kB to read."""
_SPEAKER_S: Final = 2.4
"""Seconds that tell who speaks (docs/models/lag.md: 60 frames)."""
SOUND_SECONDS = 420
"""Seconds of the footage's own sound, from its beginning, that lag and enrolment use at most."""


async def gather_both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Return both results. If one coroutine fails, the other is cancelled and awaited before the error is raised."""
    tasks = (asyncio.create_task(first), asyncio.create_task(second))
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel_all(tasks)


async def track_footage(
    stages: Stages, info: MediaInfo, workspace: Workspace, *, threads: int, on_frame: Callable[[int], None], embed: bool = False
) -> FaceIndex:
    """Find all faces of a video, and return where their records are. What an earlier process has tracked is not tracked again.

    Args:
        workspace: gets the records.
        threads: threads of the decoder.
        on_frame: called with the number of tracked frames.
        embed: whether embeddings of the faces are computed, for comparisons with other videos. Faces that an earlier run tracked
            without embeddings are tracked again.

    Raises:
        InvalidRequestError, StorageFullError: the records would take more disk space than they may.
        DubstageError: from the face stage.
    """
    note = await asyncio.to_thread(workspace.finished, "faces", workspace.faces)
    embeddings = faces_of_note(note.get("embeddings")) if note is not None else None
    if note is not None and not (embed and embeddings is None):
        try:
            index = await asyncio.to_thread(read_index, workspace.faces, note.get("shot_cuts"), info.video.num_frames)
            return replace(index, embeddings=embeddings or {})
        except ContractBrokenError as problem:
            workspace.redo("faces", problem.message)
    # This allows for one face per frame: the number of faces is not known yet.
    least = info.video.num_frames * FACE_RECORD.itemsize
    await asyncio.to_thread(workspace.allowance.check, least, f"the face records of {info.video.num_frames} frames")
    every, means = embed_every(info.video.num_frames) if embed else 0, FaceMeans()
    checkpoint = TrackingCheckpoint(workspace.folder / CHECKPOINT, every, workspace.faces, means)
    cuts = await analyse_footage(
        stages,
        info,
        workspace.faces,
        threads=threads,
        on_progress=on_frame,
        embed_every=every,
        on_face=means.add,
        checkpoint=checkpoint,
        luma=workspace.luma,
    )
    index = await asyncio.to_thread(read_index, workspace.faces, cuts, info.video.num_frames)
    index = replace(index, embeddings=means.faces())
    measured = {"embeddings": faces_note(index.embeddings)} if embed else {}
    workspace.finish("faces", {"shot_cuts": cuts, **measured}, workspace.faces)
    checkpoint.remove()
    return index


async def extract_speech(
    stages: Stages,
    duration: Fraction,
    speech: Speech,
    workspace: Workspace,
    kinds: FeatureKinds,
    *,
    end: Fraction | None = None,
) -> SpeechExtent:
    """Extract the features of the new speech for a video of `duration` seconds, and return how the speech fits the video.

    Args:
        end: as for `extract_features`.

    Raises:
        InvalidRequestError, StorageFullError: the records would take more disk space than they may.
        DubstageError: from the audio stage, or from reading the sound.
    """
    frames = motion_frames_for(duration)
    note = await asyncio.to_thread(workspace.finished, "speech", workspace.speech)
    match note:
        case {"used_s": float(used_s), "longer": bool(longer)} if workspace.speech.num_rows == frames:
            return SpeechExtent(used_s, longer)
        case dict():
            workspace.redo("speech", "speech.bin")
    what = f"the features of {float(duration):,.0f} s of speech"
    await asyncio.to_thread(workspace.allowance.check, frames * FEATURE_RECORD.itemsize, what)
    workspace.speech.clear()
    extent = await extract_features(stages, speech, workspace.speech, frames, duration, kinds, end=end)
    workspace.finish("speech", asdict(extent), workspace.speech)
    return extent


def folder_of(jobs: Path, key: str) -> Path:
    """Return the workspace folder of the job with this key."""
    return jobs / key[:32]


class FootageAnalysis:
    """One person in one footage: `open`, `track`, `select` and `enrol`, in this order. What is done once is kept in the workspace.

    Attributes:
        method: method that the person is enrolled for.
        info: the footage. Of a still picture: the video of one frame that `open` writes.
        workspace: record files of the job.
        threads: threads of the decoder.
        scale: pixels of the given file per pixel of `info`, in x and y: a large still picture is reduced. Users name and read
            places in pixels of the file, and `index` has them.
        chosen: the selected face, and why; None: none is selected.
        tracked_ids: ids by which the tracker knows the selected face, if boxes put it together; empty: it is the tracked face.
    """

    def __init__(
        self,
        stages: Stages,
        method: Method,
        info: MediaInfo,
        workspace: Workspace,
        *,
        threads: int,
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        self.stages = stages
        self.method = method
        self.info = info
        self.workspace = workspace
        self.threads = threads
        self.scale = scale
        self._index: FaceIndex | None = None
        self.chosen: ChosenFace | None = None
        self.tracked_ids: tuple[int, ...] = ()

    @classmethod
    async def open(cls, stages: Stages, method: Method, info: MediaInfo, workspace: Workspace, *, threads: int) -> FootageAnalysis:
        """Return an analysis of footage that was inspected. A still picture becomes a video of one frame in the workspace.

        Raises:
            MediaUnsupportedError: a picture that cannot be read.
            InvalidRequestError: a picture that is too small.
        """
        opened = await asyncio.to_thread(open_footage, info, workspace.folder, threads=threads)
        (given_x, given_y), (x, y) = info.video.orientation.upright_size, opened.video.orientation.upright_size
        return cls(stages, method, opened, workspace, threads=threads, scale=(given_x / x, given_y / y))

    async def track(self, on_frame: Callable[[int], None], *, embed: bool = False) -> FaceIndex:
        """Find all faces of the footage, and return where their records are.

        Args:
            on_frame: called with the number of tracked frames.
            embed: whether embeddings of the faces are computed, for comparisons with other videos.

        Raises:
            InvalidRequestError, StorageFullError: the records would take more disk space than they may.
            DubstageError: from the face stage.
        """
        index = await track_footage(self.stages, self.info, self.workspace, threads=self.threads, on_frame=on_frame, embed=embed)
        self._index = index.scaled(self.scale)
        return self._index

    def beside(self) -> FootageAnalysis:
        """Return an analysis of the same tracked footage, in which another face can be selected."""
        other = FootageAnalysis(self.stages, self.method, self.info, self.workspace, threads=self.threads, scale=self.scale)
        other._index, other.tracked_ids = self._index, self.tracked_ids
        return other

    async def select(self, choice: FaceChoice, frames: range | None = None) -> int | None:
        """Choose the face to dub, and return its id; None: the footage has no face.

        The choice `speaker` takes the face whose mouth fits the footage's own sound best. `auto` takes this face where the sound
        tells for certain who speaks, and otherwise the largest face. After the choice `boxes`, the index has the followed face
        under one id.

        Args:
            choice: the choice; not of the kind `actor`.
            frames: frames in which the speaker, a point or a box is looked for; None: all.

        Raises:
            InvalidRequestError: the chosen face is not in the footage, or a still picture shows several faces and the choice names
                none.
        """
        if is_still(self.info):
            check_one_face(self.index, choice)

        async def measure(face_id: int) -> SoundLag:
            return await self._first_lag(face_id, None if frames is None else self._around(frames))

        if choice.kind == "boxes":
            if not len(self.index.face_id):
                return None
            followed = follow_boxes(self.index, choice.boxes, frames or range(self.index.num_frames))
            self._index, self.tracked_ids = followed.index, followed.tracked_ids
            self.chosen = ChosenFace(followed.face_id, "chosen by boxes")
            return followed.face_id
        first = frames.start if frames is not None else 0
        self.chosen = await choose_face(self.index, choice, measure if self.info.audio else None, first=first)
        return self.chosen.face_id if self.chosen is not None else None

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
            NoUsableFootageError: too few frames show the face.
            DubstageError: from the stages.
        """
        if self.method.takes_still and is_still(self.info):
            rows = first = still_row(self.workspace.faces, self.rows)
        else:
            usable = partial(enrolment_rows, self.rows, self.index.reason, self.seconds, frames)
            rows = await asyncio.to_thread(usable)
            first = await asyncio.to_thread(usable, most_s=FEW_SECONDS)
        clip, grid = await asyncio.to_thread(clip_of, self.workspace.faces, rows, self.seconds)
        features: Array | None = None
        spoken: AlignedSpeech | None = None
        lag = SoundLag()
        if self.info.audio:
            sound = await self.extract_sound()
            features = sound.read_rows(grid)
            lag = await self.lag(rows, clip, features)
            # A renderer does not learn from a foreign voice either.
            spoken = AlignedSpeech(sound, self.seconds) if self.method.renderer.speech and not lag.doubt else None
        person = await asyncio.to_thread(self._bank_person, first[:most] if self.method.adapts_neural_texture else rows[:most])
        enrolment = Enrolment(
            stages=self.stages,
            method=self.method,
            bank_person=person,
            bank_positions=self._bank_positions(person, grid),
            workspace=self.workspace,
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

    def _bank_positions(self, person: TrackedPerson, grid: list[int]) -> Float64:
        """Return the positions of a person's frames in a clip of the motion grid, float64 [N].

        Args:
            grid: frames of the motion grid that the clip shows (motion_clip.clip_of).
        """
        shown_s = self.seconds[self.index.frame[person.rows]]
        return np.interp(shown_s * float(MOTION_RATE), grid, np.arange(len(grid)))

    async def extract_sound(self, *, whole: bool = False) -> RecordFile:
        """Return the features of the footage's own sound, at most SOUND_SECONDS.

        Args:
            whole: return the features of all seconds.

        Raises:
            InvalidRequestError, StorageFullError: the records would take more disk space than they may.
            DubstageError: from the audio stage, or from reading the sound.
        """
        workspace, info = self.workspace, self.info
        wanted, most = motion_frames_for(info.video.duration), int(SOUND_SECONDS * MOTION_RATE)
        name, sound = "sound", workspace.sound
        if whole and wanted > most:
            name, sound = "whole_sound", workspace.further("whole_sound.bin", FEATURE_RECORD)
        else:
            wanted = min(wanted, most)
        said = {"features": list(self.method.footage_features)}
        if await asyncio.to_thread(workspace.finished, name, sound) != said:
            # Another method has other features.
            workspace.forget(name)
            sound.clear()
            what = f"the features of {float(wanted / MOTION_RATE):,.0f} s of own sound"
            await asyncio.to_thread(workspace.allowance.check, wanted * FEATURE_RECORD.itemsize, what)
            own = SoundReader(info.path, origin=info.video.start).speech()
            await extract_features(self.stages, own, sound, wanted, wanted / MOTION_RATE, self.method.footage_features)
            workspace.finish(name, said, sound)
        return sound

    async def lag(self, rows: list[int], clip: MotionClip, features: Array) -> SoundLag:
        """Return the lag of the footage's sound. The lag is not applied if the voice is not shown to be that of the selected face.

        Args:
            rows: record rows of the selected face.
            features: FEATURE_RECORDs of the footage's own sound, of the frames of the clip.

        Raises:
            DubstageError: from the stages.
        """
        own = await measured_lag(self.stages, clip, features)
        others = {face: await self._lag_of(face, rows) for face in main_faces(self.index) if face != self.face_id}
        return credible_lag(own, {face: lag for face, lag in others.items() if lag.frames is not None})

    async def _lag_of(self, face_id: int, rows: list[int]) -> SoundLag:
        """Return the lag of the sound against another face, in the first frames of the rows that show the other face too."""
        other_rows = self.index.rows_of(face_id)[self.index.frame[rows]]
        together = [int(row) for row in other_rows if row >= 0 and self.index.reason[row] == common_pb2.FRAME_REASON_DUBBED]
        if len(together) < MIN_ENROLMENT_FRAMES:
            return SoundLag()
        clip, grid = await asyncio.to_thread(clip_of, self.workspace.faces, together[:_COMPARED_ROWS], self.seconds)
        return await measured_lag(self.stages, clip, (await self.extract_sound()).read_rows(grid))

    @property
    def index(self) -> FaceIndex:
        """Index of the records of all faces. `track` has to be done."""
        assert self._index is not None, "the footage is not tracked"
        return self._index

    @property
    def face_id(self) -> int:
        """Id of the selected face. `select` has to have found a face."""
        assert self.chosen is not None, "no face is selected"
        return self.chosen.face_id

    @property
    def face(self) -> Face | None:
        """Mean embedding of the selected face; None: no embeddings were computed."""
        return self.index.embeddings.get(self.face_id)

    @property
    def faces(self) -> list[Face | None]:
        """Mean embedding of each tracked face that the selected face is put together from; None: no embeddings were computed."""
        return [self.index.embeddings.get(number) for number in self.tracked_ids or (self.face_id,)]

    @property
    def rows(self) -> Int64:
        """Record row of the selected face in each frame, int64 [T]; -1: the frame does not show the face."""
        return self.index.rows_of(self.face_id)

    @property
    def seconds(self) -> Float64:
        """Presentation time of every frame from the first frame, seconds, float64 [T]."""
        return frame_seconds(self.info)

    @property
    def video(self) -> TrackedVideo:
        """The footage as a video that can be dubbed in place."""
        return TrackedVideo(self.info, self.index, self.workspace.faces)

    def looks(self) -> ShotLooks:
        """Return the looks of the selected face."""
        return ShotLooks(self.workspace.faces, self.rows, self.index.free_frames(self.rows), self.index.shot_cuts)

    def _bank_person(self, rows: list[int]) -> TrackedPerson:
        """Return the frames for a bank that is made from face records."""
        looks = self.looks()
        faces, cuts = self.workspace.faces, self.index.shot_cuts
        chosen = bank_rows(faces, looks.clearest(rows), self.seconds, cuts)
        return TrackedPerson(self.info, faces, chosen.rows, chosen.max_frames, cuts, looks, self.workspace.luma)

    def _around(self, frames: range) -> range:
        """Return the frames and, if they are too few to tell who speaks, the frames around them."""
        middle = (self.seconds[frames.start] + self.seconds[frames.stop - 1]) / 2
        first, stop = np.searchsorted(self.seconds, [middle - _SPEAKER_S / 2, middle + _SPEAKER_S / 2]).tolist()
        return range(min(frames.start, first), max(frames.stop, stop))

    async def _first_lag(self, face_id: int, frames: range | None) -> SoundLag:
        """Return the lag of the footage's sound in the first usable seconds of a face; unknown if too few frames show the face."""
        sound, faces = await self.extract_sound(whole=frames is not None), self.workspace.faces
        try:
            shown = self.index.rows_of(face_id)
            rows = enrolment_rows(shown, self.index.reason, self.seconds, frames, most_s=FEW_SECONDS)
        except NoUsableFootageError:
            return SoundLag()
        clip, grid = await asyncio.to_thread(clip_of, faces, rows, self.seconds)
        return await measured_lag(self.stages, clip, sound.read_rows(grid))
