"""Identities of the people of a training set: a preparation of the set.

Each person gets two artefacts of FitIdentity in SET/identities: SPEAKER.safetensors, fitted to frames of several clips, and
SPEAKER.still.safetensors, fitted to a single frame as for a still picture. Landmarks come from the training set, pictures from
the videos.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from threadpoolctl import threadpool_limits

from research.face.footage import read_frames
from research.training.networks import Preparation
from research.training.trainset import ClipRow, TrainSet, all_identities, by_speaker, identity_path
from services.common.array_types import UInt8
from services.common.errors import DubstageError
from services.common.face.crops import HeadPose
from services.common.files import write_whole
from services.common.geometry.morphable_model import default_model
from services.common.store.tensor_bytes import encode_arrays
from services.face.fitting.identity import IdentityFitter
from services.face.fitting.model import model_landmarks
from services.face.types import Reason, TrackedFace

CLIPS_A_PERSON: Final = 4
FOOTAGE: Final = "footage"
"""Metadata of an identity: `Person.footage` of the person when the identity was fitted."""
FRAMES_A_PERSON: Final = 32
ENROLMENT_SHARE: Final = 0.6
"""Share of a held-out clip's usable frames, from its beginning, that identities may be fitted to. Checks draw the rest."""
MAX_ENROLMENT: Final = 300
"""Most usable frames of a held-out clip that identities may be fitted to."""
_NAMES: Final = ("landmarks", "scale", "rotation", "translation", "mouth_landmarks", "usable")


@dataclass(frozen=True, slots=True)
class IdentityPerson:
    """A person, and the clips that the identities are fitted to.

    Attributes:
        name: the speaker.
        rows: clips with pixels, at least one, at most CLIPS_A_PERSON.
        is_held_out: whether no clip of the person is in the split `train`.
    """

    name: str
    rows: tuple[ClipRow, ...]
    is_held_out: bool

    @property
    def footage(self) -> str:
        """Clips that the identities are fitted to, as JSON: SHA-256, first frame, and whether the clip is held out."""
        return json.dumps([[row.sha256, row.first_frame, self.is_held_out] for row in self.rows])


def people_of(rows: Sequence[ClipRow]) -> list[IdentityPerson]:
    """Return the people of a training set whose pixels may be learned from, ordered by name.

    A person in the split `train` is fitted to clips of this split. All other people are held out.
    """
    people = []
    for name, clips in by_speaker(row for row in rows if row.has_face and row.has_pixels and row.usable_frames).items():
        training = [row for row in clips if row.split == "train"]
        usable = training or clips
        indices = np.unique(np.linspace(0, len(usable) - 1, CLIPS_A_PERSON).astype(int))
        people.append(IdentityPerson(name, tuple(usable[at] for at in indices), not training))
    return people


def identity_paths(folder: Path, person: IdentityPerson) -> tuple[Path, Path]:
    """Return the paths of a person's identity from many frames, and from one, in a training set."""
    return identity_path(folder, person.name, still=False), identity_path(folder, person.name, still=True)


def fit_person(data: TrainSet, clips: Path, person: IdentityPerson) -> str:
    """Fit and write both identities of a person; return why that is not possible, or an empty text.

    Args:
        clips: folder of the videos.
    """
    problems: list[str] = []
    model = model_landmarks(default_model())
    many, still = IdentityFitter(model), IdentityFitter(model)
    for number, (picture, face) in enumerate(_frames(data, clips, person, problems)):
        many.push(picture, face)
        if number == 0:
            still.push(picture, face)
    try:
        for path, fitter in zip(identity_paths(data.folder, person), (many, still), strict=True):
            identity = fitter.finish()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, encode_arrays(identity.arrays(), {**identity.metadata(), FOOTAGE: person.footage}))
    except DubstageError as problem:
        problems.append(problem.message)
        return "; ".join(problems)
    return ""


def spread(usable: npt.NDArray[np.bool_], count: int, *, is_held_out: bool) -> npt.NDArray[np.intp]:
    """Return at most `count` usable frames, evenly spread over a clip, or over the first part of a held-out clip.

    Args:
        usable: bool [T].
        count: number of frames.
        is_held_out: whether only the first part may be taken.
    """
    first = np.flatnonzero(usable)
    if is_held_out:
        first = first[: max(1, min(int(len(first) * ENROLMENT_SHARE), MAX_ENROLMENT))]
    return np.asarray(first[np.unique(np.linspace(0, len(first) - 1, count).round().astype(int))] if len(first) else first, np.intp)


def _frames(data: TrainSet, clips: Path, person: IdentityPerson, problems: list[str]) -> Iterator[tuple[UInt8, TrackedFace]]:
    """Yield the frames to fit: picture and face. Add to `problems` why a clip cannot be used."""
    for row in person.rows:
        try:
            track = data.arrays(row, "track", _NAMES)
            wanted = spread(track["usable"], FRAMES_A_PERSON // len(person.rows), is_held_out=person.is_held_out)
            pictures = read_frames(clips / row.file, {row.first_frame + int(frame) for frame in wanted})
        except DubstageError as problem:
            problems.append(problem.message)
            continue
        for number, picture in sorted(pictures.items()):
            frame = number - row.first_frame
            landmarks = track["landmarks"][frame]
            left_top = landmarks[:, :2].min(axis=0)
            width, height = landmarks[:, :2].max(axis=0) - left_top
            face = TrackedFace(
                face_id=0,
                box=(float(left_top[0]), float(left_top[1]), float(width), float(height)),
                landmarks=landmarks,
                pose=HeadPose(float(track["scale"][frame]), track["rotation"][frame], track["translation"][frame]),
                mouth_landmarks=track["mouth_landmarks"][frame],
                confidence=1.0,
                mouth_visibility=1.0,
                blink=0.0,
                reason=Reason.DUBBED,
            )
            yield picture, face


def prepare(folder: Path, clips: Path, processes: int, progress: Callable[[int, int], None]) -> Mapping[str, str]:
    """Fit the identities of all people that have none of the clips that the manifest names for them.

    Identities of other clips are removed first: of people who have no pixels to learn from any more, and of people who have other
    clips, another split or another name now.

    Args:
        folder: folder of the training set.
        clips: folder of the videos.
        processes: people that are fitted at the same time.
        progress: called with the number of people done and of all people.

    Returns:
        By name of a person: why the person has no identity.

    Raises:
        InvalidRequestError: the folder holds no training set.
    """
    data = TrainSet(folder)
    people = people_of(data.rows)
    waiting = [person for person in people if not _is_fitted(folder, person)]
    kept = {path for person in people if person not in waiting for path in identity_paths(folder, person)}
    for path in all_identities(folder):
        if path not in kept:
            path.unlink()
    done = len(people) - len(waiting)
    progress(done, len(people))
    reasons: dict[str, str] = {}
    for person, reason in zip(waiting, _fitted(data, clips, waiting, processes), strict=True):
        done += 1
        progress(done, len(people))
        if reason:
            reasons[person.name] = reason
    return reasons


def _is_fitted(folder: Path, person: IdentityPerson) -> bool:
    return all(_footage_of(path) == person.footage for path in identity_paths(folder, person))


def _footage_of(path: Path) -> str:
    """Return what an identity was fitted to; an empty text if that is unknown."""
    try:
        with safe_open(path, "numpy") as file:
            return str((file.metadata() or {}).get(FOOTAGE, ""))
    except (OSError, SafetensorError):
        return ""


def _fitted(data: TrainSet, clips: Path, people: Sequence[IdentityPerson], processes: int) -> Iterator[str]:
    if processes <= 1 or len(people) <= 1:
        yield from (fit_person(data, clips, person) for person in people)
        return
    # A forked process would inherit the threads of OpenCV and numba in an unknown state.
    workers = ProcessPoolExecutor(min(processes, len(people)), get_context("spawn"), _one_thread)
    with workers:
        yield from workers.map(partial(_fit_again, data.folder, clips), people)


def _fit_again(folder: Path, clips: Path, person: IdentityPerson) -> str:
    return fit_person(_set_of(folder), clips, person)


@cache
def _set_of(folder: Path) -> TrainSet:
    """Return a training set, read once in a process."""
    return TrainSet(folder)


def _one_thread() -> None:
    cv2.setNumThreads(1)
    threadpool_limits(1)


IDENTITIES: Final = Preparation(
    name="identities",
    summary="fits a 3D face, albedo and light to each person, for the renderers that draw the person's face",
    prepare=prepare,
)
