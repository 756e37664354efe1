"""Identities of the people of a training set: a preparation of the set.

Each person gets two artefacts of FitIdentity in SET/identities: SPEAKER.safetensors, fitted to frames of several clips, and
SPEAKER.still.safetensors, fitted to a single frame as for a still picture. Landmarks come from the training set, pictures from the
films.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import cv2
from safetensors import SafetensorError, safe_open
from threadpoolctl import threadpool_limits

from services.face.train.identity_fit import FOOTAGE, fit_person
from services.face.train.people import Person, identity_paths, people_of
from services.training.networks import Preparation
from services.training.trainset.layout import all_identities
from services.training.trainset.reader import TrainSet


def prepare(folder: Path, clips: Path, processes: int, progress: Callable[[int, int], None]) -> Mapping[str, str]:
    """Fit the identities of all people that have none of the clips that the manifest names for them.

    Identities of other clips are removed first: of people who have no pixels to learn from any more, and of people who have other
    clips, another split or another name now.

    Args:
        folder: folder of the training set.
        clips: folder of the films.
        processes: people that are fitted at the same time.
        progress: called with the number of people done and of all people.

    Returns:
        By name of a person: why the person has no identity.

    Raises:
        InvalidRequest: the folder holds no training set.
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


def _is_fitted(folder: Path, person: Person) -> bool:
    return all(_footage_of(path) == person.footage for path in identity_paths(folder, person))


def _footage_of(path: Path) -> str:
    """Return what an identity was fitted to; an empty text if that is unknown."""
    try:
        with safe_open(path, "numpy") as file:
            return str((file.metadata() or {}).get(FOOTAGE, ""))
    except (OSError, SafetensorError):
        return ""


def _fitted(data: TrainSet, clips: Path, people: Sequence[Person], processes: int) -> Iterator[str]:
    if processes <= 1 or len(people) <= 1:
        yield from (fit_person(data, clips, person) for person in people)
        return
    # A forked process would inherit the threads of OpenCV and numba in an unknown state.
    workers = ProcessPoolExecutor(min(processes, len(people)), get_context("spawn"), _one_thread)
    with workers:
        yield from workers.map(partial(_fit_again, data.folder, clips), people)


def _fit_again(folder: Path, clips: Path, person: Person) -> str:
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
