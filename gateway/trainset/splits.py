"""Clips held out for validation: whole speakers where there are enough, and single clips where there are few speakers."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from gateway.trainset.catalogue import BY_SPEAKER, TRAIN, VALIDATION, ClipEntry
from services.training.trainset.manifest import ClipRow

_HELD_OUT_SHARE: Final = 0.15
_FEWEST_SPEAKERS: Final = 3
_KINDS: Final[tuple[tuple[str, Callable[[ClipRow], bool]], ...]] = (
    ("pixels to learn from", lambda row: row.has_face and row.has_pixels),
    ("a face", lambda row: row.has_face),
    ("sound", lambda _: True),
)
"""What trainings ask of clips, from the rarest kind to the most common."""


def held_out(speakers: Collection[str], *, spared: Collection[str] = ()) -> set[str]:
    """Return the speakers held out for validation: about one in seven, none of fewer than three. Equal names give equal results.

    Args:
        speakers: names of all speakers.
        spared: speakers that are not held out. They count as speakers.
    """
    if len(speakers) < _FEWEST_SPEAKERS:
        return set()
    ranked = sorted(set(speakers) - set(spared), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(ranked[: math.ceil(_HELD_OUT_SHARE * len(speakers))])


def split_by_speaker(entries: Sequence[ClipEntry]) -> dict[str, str]:
    """Return the split of each clip, by file: what is stated, otherwise `val` for all clips of a speaker who is held out.

    Speakers of films are chosen apart from speakers of recordings alone, so that clips with a face are held out too. A speaker with
    a clip that is stated to be of the training split is not held out, nor is a speaker of more than half of the clips.
    """
    stated = {entry.speaker for entry in entries if entry.split == TRAIN}
    filmed = {entry.speaker for entry in entries if entry.is_film}
    held: set[str] = set()
    for group in (
        [entry.speaker for entry in entries if entry.split == BY_SPEAKER and entry.speaker in filmed],
        [entry.speaker for entry in entries if entry.split == BY_SPEAKER and entry.speaker not in filmed],
    ):
        counts = Counter(group)
        spared = stated | {speaker for speaker, count in counts.items() if 2 * count > len(group)}
        held |= held_out(counts, spared=spared)
    return {entry.file: entry.split or (VALIDATION if entry.speaker in held else TRAIN) for entry in entries}


def with_validation(rows: Iterable[ClipRow], movable: Callable[[ClipRow], bool]) -> tuple[list[ClipRow], list[str]]:
    """Return the rows with at least one clip of each kind (pixels, face, sound) held out, and what a user should know of that.

    If a kind has no clip of the split `val`, the last clip of the largest speaker is held out.

    Args:
        rows: rows of the manifest.
        movable: whether nothing states the split of a row.
    """
    found, notes = list(rows), []
    told: list[list[int]] = []
    for kind, is_of in _KINDS:
        chosen = [index for index, row in enumerate(found) if is_of(row) and row.split in (TRAIN, VALIDATION)]
        if not chosen or any(found[index].split == VALIDATION for index in chosen):
            continue
        free = [index for index in chosen if movable(found[index])] if len(chosen) > 1 else []
        if not free:
            if chosen in told:
                continue
            told.append(chosen)
            why = "there is only one" if len(chosen) == 1 else f"all are stated to be {TRAIN}"
            notes.append(
                f"no clip with {kind} is held out, because {why}: "
                f"add clips of split {VALIDATION}, since trainings choose their best step on them"
            )
            continue
        counts = Counter(found[index].speaker for index in free)
        largest = min(counts, key=lambda speaker: (-counts[speaker], speaker))
        last = max((index for index in free if found[index].speaker == largest), key=lambda index: found[index].name)
        found[last] = replace(found[last], split=VALIDATION)
        notes.append(
            f"{found[last].name} is held out: there are too few speakers with {kind} to hold out a whole one; figures on a known "
            "speaker look better than figures on new ones"
        )
    return found, notes
