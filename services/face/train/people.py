"""The people of a training set whose identities are fitted, and the clips that they are fitted to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from services.training.trainset.layout import identity_path
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import by_speaker

CLIPS_A_PERSON: Final = 4


@dataclass(frozen=True, slots=True)
class Person:
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


def people_of(rows: Sequence[ClipRow]) -> list[Person]:
    """Return the people of a training set whose pixels may be learned from, ordered by name.

    A person in the split `train` is fitted to clips of this split. All other people are held out.
    """
    people = []
    for name, clips in by_speaker(row for row in rows if row.has_face and row.has_pixels and row.usable_frames).items():
        training = [row for row in clips if row.split == "train"]
        usable = training or clips
        places = np.unique(np.linspace(0, len(usable) - 1, CLIPS_A_PERSON).astype(int))
        people.append(Person(name, tuple(usable[at] for at in places), not training))
    return people


def identity_paths(folder: Path, person: Person) -> tuple[Path, Path]:
    """Return the paths of a person's identity from many frames, and from one, in a training set."""
    return identity_path(folder, person.name, still=False), identity_path(folder, person.name, still=True)
