"""The faces that consent checks compare, and the check that a dub shows the people of its consent records."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

import numpy as np

from gateway.consent.record import Consent
from gateway.consent.subject import OTHER_FROM, SAME_BELOW, Face, Shown, check_shown
from gateway.dub.analyse.face_choice import ChosenFace, FaceChoice
from gateway.dub.analyse.face_records import FaceMeans
from gateway.dub.analyse.footage import tracked_frames
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.request.dub_request import ActorRecord, DubRequest
from gateway.dub.state.workspace import Workspace
from gateway.media.inspection import inspect_in_child, inspect_video
from gateway.media.stills import open_footage
from gateway.media.types import MediaInfo
from gateway.stages.calls import until_done
from gateway.stages.interface import Stages
from services.common.array_types import Array
from services.common.errors import ConsentFaceUncertainError, InvalidRequestError, NoUsableFootageError
from services.common.methods import DEFAULT_METHOD, method_named
from services.common.store.artefacts import ArtefactStore
from services.common.texts import Option, Text

_ACTOR_FRAMES: Final = 75
"""Frames of the actor, the first of the stored footage, in which the actor's face is measured: 15 embeddings."""
_ACTOR_EVERY: Final = 5
_SAME_BOX: Final = 0.5
"""Intersection over union above which a tracked face is the face of a record of the same frame."""


@dataclass(frozen=True, slots=True)
class DubSubjects:
    """Whom a dub shows.

    Attributes:
        digests: SHA-256 of the files of the request, hexadecimal.
        face: face that is dubbed; None: it was not measured.
        reference: face of the reference picture; None: it was not measured, or there is none.
    """

    digests: Mapping[Path, str]
    face: Face | None
    reference: Face | None


async def check_subjects(request: DubRequest, people: DubSubjects, stages: Stages, store: ArtefactStore, folder: Path) -> None:
    """Check that the consent records of a dub are about the people whom the dub shows.

    The actor's own record holds for the actor, because the enrolment has checked that. A record of the request must be about the
    actor and about the footage. A record without a face is about the footage if the footage shows the actor. Records without a
    subject are allowed only where no record is required, and are not compared.

    Args:
        people: whom the dub shows.
        folder: folder for temporary files.

    Raises:
        ConsentOtherSubjectError: a record is about another person, actor or footage.
        ConsentFaceUncertainError: a person has to decide.
        DubstageError: from the face stage, or from the store.
    """
    if not compares_people(request):
        return
    stored, actor_id = request.actor_record, request.actor_record.actor_id if request.actor_record is not None else ""
    actor = await face_of_actor(stages, store, stored, folder, request.threads) if stored is not None else None
    subject = actor_id or str(request.footage)
    shown = Shown(f"the footage {request.footage}", people.digests[request.footage], people.face)
    if _own_is_compared(request):
        assert request.own_consent is not None, "there is an own record to compare"
        check_shown(request.own_consent, shown, subject, actor=actor)
    if _names_subject(given := request.consent):
        if stored is not None and given.names_person:
            check_shown(given, Shown(f"the actor {actor_id}", stored.footage_sha256, actor), subject)
        check_shown(given, shown, subject, actor=actor)
    if request.reference is not None and _names_subject(record := request.reference_consent):
        name = str(request.reference)
        picture = Shown(f"the reference {name}", people.digests[request.reference], people.reference)
        check_shown(record, picture, name, actor=actor if record.actor is not None else None)


def compares_people(request: DubRequest) -> bool:
    """Return whether a consent record of a dub says whom the footage or the reference must show."""
    return _own_is_compared(request) or _names_subject(request.consent) or _names_subject(request.reference_consent)


def finds_actors(request: DubRequest) -> bool:
    """Return whether a line of a scene names its face by the actor alone, so that the faces of the footage are compared."""
    return any(line.dub.face.kind == "actor" for line in request.lines)


def face_like(faces: Mapping[int, Face], actor: Face, actor_id: str) -> ChosenFace:
    """Return the face of the footage that is an actor's.

    Args:
        faces: mean embeddings of the faces of the footage.
        actor: mean embedding of the actor.

    Raises:
        InvalidRequestError: no face is the actor's.
    """
    distances = {face: actor.distance(embedding) for face, embedding in faces.items() if embedding.network == actor.network}
    nearest = min(distances, key=lambda face: distances[face], default=None)
    if nearest is None or distances[nearest] >= SAME_BELOW:
        listed = ", ".join(f"face {face} {distance:.2f}" for face, distance in sorted(distances.items())) or "none"
        raise InvalidRequestError(
            f"no face of the footage is that of the actor {actor_id} (distances: {listed}; less than {SAME_BELOW:.2f} is needed): "
            "name the face by its number",
            field="face",
        )
    return ChosenFace(nearest, f"the face of the actor {actor_id} (distance {distances[nearest]:.2f})")


def _own_is_compared(request: DubRequest) -> bool:
    """Return whether the footage is compared with the actor's own record.

    An own record without a subject holds for the actor: the actor's row of the database binds it. So the
    footage must show the actor, in an installation that requires records.
    """
    return request.own_consent is not None and (request.consent_required or request.own_consent.names_subject)


def _names_subject(record: Consent | None) -> TypeGuard[Consent]:
    return record is not None and record.names_subject


async def face_of_videos(stages: Stages, files: Sequence[Path], choice: FaceChoice, *, threads: int) -> Face:
    """Return the face of the person whom videos or pictures show: the mean over the files.

    Args:
        stages: the stages, or only the face stage if the choice needs no sound.
        files: the videos, at least one.
        choice: face to take in each of them.
        threads: threads of the decoder.

    Raises:
        MediaUnsupportedError: a file is no video and no picture.
        NoUsableFootageError: a file shows no face.
        InvalidRequestError: the chosen face is not in a file, or the files show different people.
        DubstageError: from the stages.
    """
    faces = [await _face_of_video(stages, file, choice, threads) for file in files]
    for file, face in zip(files[1:], faces[1:], strict=True):
        if (distance := faces[0].distance(face)) >= SAME_BELOW:
            raise InvalidRequestError(
                Text(
                    "{one} and {other} do not show one person, or show the person too differently: the distance of the faces is "
                    "{distance:.2f}, and must be less than {limit:.2f}. Choose the face with {face}, or give one file",
                    one=files[0],
                    other=file,
                    distance=distance,
                    limit=SAME_BELOW,
                    face=Option("face"),
                ),
                field="footage",
            )
    for file, face in zip(files, faces, strict=True):
        if (distance := face.spread) >= OTHER_FROM:
            raise InvalidRequestError(
                f"the face in {file} is of different people in parts of the video: their distance is {distance:.2f}, and "
                f"{OTHER_FROM:.2f} or more is the distance of two people. Give a video of one person",
                field="footage",
            )
    mean = np.mean([face.vector for face in faces], axis=0, dtype=np.float64)
    return Face(faces[0].network, np.asarray(mean, np.float32), sum(face.frames for face in faces))


async def _face_of_video(stages: Stages, file: Path, choice: FaceChoice, threads: int) -> Face:
    info = await inspect_in_child(file)
    with tempfile.TemporaryDirectory(prefix="dubstage-face-") as folder, Workspace(Path(folder) / "job") as workspace:
        analysis = await FootageAnalysis.open(stages, method_named(DEFAULT_METHOD), info, workspace, threads=threads)
        await analysis.track(lambda _: None, embed=True)
        face = analysis.face if await analysis.select(choice) is not None else None
    if face is None:
        raise NoUsableFootageError(f"{file} shows no face", subject=str(file))
    return face


async def face_of_actor(stages: Stages, store: ArtefactStore, actor: ActorRecord, folder: Path, threads: int) -> Face:
    """Return the face of an enrolled actor, measured in the footage that the store keeps of the actor."""
    if actor.faces is None or actor.footage is None:
        raise ConsentFaceUncertainError(
            f"nothing shows the face of the actor {actor.actor_id}, who was enrolled by a version that kept no footage: erase the "
            "actor and enrol the person again",
            subject=actor.actor_id,
        )
    records = (await asyncio.to_thread(store.get_arrays, actor.faces)).arrays
    # The file has no name: a process that is killed leaves nothing of the person.
    with tempfile.TemporaryFile(dir=folder) as video, tempfile.TemporaryDirectory(prefix="actor-", dir=folder) as scratch:
        await asyncio.to_thread(lambda ref: video.write(store.get_bytes(ref)), actor.footage)
        video.flush()
        info = await asyncio.to_thread(inspect_video, Path(f"/proc/self/fd/{video.fileno()}"))
        opened = await asyncio.to_thread(open_footage, info, Path(scratch), threads=threads)
        face = await until_done(lambda: _measured(stages, opened, records, threads))
    if face is None:
        raise ConsentFaceUncertainError(
            f"the footage of the actor {actor.actor_id} shows no face to compare", subject=actor.actor_id
        )
    return face


async def _measured(stages: Stages, info: MediaInfo, records: Mapping[str, Array], threads: int) -> Face | None:
    """Return the mean embedding of the person whom face records of a video's first frames show; None: no frame shows the person."""
    boxes = dict(zip(records["frame"].tolist(), records["box"], strict=True))
    first, last, means = min(boxes), max(boxes), FaceMeans()
    seen = 0
    async with aclosing(tracked_frames(stages, info, threads, first=first, embed_every=_ACTOR_EVERY)) as frames:
        async for tracked in frames:
            for face in tracked.faces.faces:
                box = boxes.get(tracked.index)
                if box is not None and _overlap(np.array(face.box) * tracked.scale, box) > _SAME_BOX:
                    # The boxes say who it is, whatever the tracker calls the person.
                    means.add(face, 0)
                    seen += 1
            if seen >= _ACTOR_FRAMES or tracked.index >= last:
                break
    return means.faces().get(0)


def _overlap(box: Any, other: Any) -> float:
    """Return intersection over union of two boxes (left, top, width, height)."""
    low = np.maximum(box[:2], other[:2])
    high = np.minimum(box[:2] + box[2:], other[:2] + other[2:])
    shared = float(np.prod(np.maximum(high - low, 0.0)))
    return shared / (float(np.prod(box[2:])) + float(np.prod(other[2:])) - shared)
