"""Fit of one person's identities to frames of a training set. Landmarks come from the set, pictures from the films."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from services.common.array_types import UInt8
from services.common.errors import DubstageError
from services.common.face.crops import HeadPose
from services.common.geometry.default_model import default_model
from services.common.store.exported_network import write_whole
from services.common.store.tensor_bytes import encode_arrays
from services.face.fitting.identity import IdentityFitter
from services.face.fitting.model_landmarks import model_landmarks
from services.face.train.film import read_frames
from services.face.train.people import Person, identity_paths
from services.face.types import Reason, TrackedFace
from services.training.trainset.reader import TrainSet

FOOTAGE: Final = "footage"
"""Metadata of an identity: `Person.footage` of the person when the identity was fitted."""
FRAMES_A_PERSON: Final = 32
ENROLMENT_SHARE: Final = 0.6
"""Share of a held-out clip's usable frames, from its beginning, that identities may be fitted to. Checks draw the rest."""
MAX_ENROLMENT: Final = 300
"""Most usable frames of a held-out clip that identities may be fitted to."""
_NAMES: Final = ("landmarks", "scale", "rotation", "translation", "mouth_landmarks", "usable")


def fit_person(data: TrainSet, clips: Path, person: Person) -> str:
    """Fit and write both identities of a person; return why that is not possible, or an empty text.

    Args:
        data: the training set.
        clips: folder of the films.
        person: the person.
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


def _frames(data: TrainSet, clips: Path, person: Person, problems: list[str]) -> Iterator[tuple[UInt8, TrackedFace]]:
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
