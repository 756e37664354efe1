"""The preparation `phones` of a training set: NAME.phones.safetensors for every clip with sound."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from services.audio.train.labelling import PhoneLabels, label
from services.audio.train.recordings import read_sound
from services.audio.train.sphinx import Sphinx, num_rows
from services.common.errors import DubstageError
from services.common.store.exported_network import write_whole
from services.common.store.tensor_bytes import encode_arrays
from services.training.trainset.layout import FORMAT_VERSION, part_path
from services.training.trainset.manifest import ClipRow, read_manifest

_CLIPS_AT_ONCE: Final = 1000
"""Clips that are handed to the processes together."""


def prepare_phones(folder: Path, _clips: Path, processes: int, progress: Callable[[int, int], None]) -> Mapping[str, str]:
    """Label the phones of all clips with sound. The manifest stays as it is: who calls notes the origin of the labels.

    Labels of an earlier call stay, unless the clip's footage or transcript has changed since.

    Args:
        folder: folder of the training set.
        _clips: folder of the clips; not needed, the sound lies in the set.
        processes: processes that label, at least one.
        progress: called with the number of clips done and of all clips.

    Returns:
        By name of the clip: why the clip has no labels, or why its transcript was not used.

    Raises:
        InvalidRequest: the folder is not a training set.
    """
    rows = list(read_manifest(folder))
    done = {row.name: found for row in rows if (found := _made_before(folder, row)) is not None}
    progress(len(done), len(rows))
    waiting = [row for row in rows if row.name not in done]
    for row, reason in zip(waiting, _label_all(folder, waiting, processes), strict=True):
        done[row.name] = reason
        progress(len(done), len(rows))
    return {row.name: done[row.name] for row in rows if done[row.name]}


def write_labels(folder: Path, row: ClipRow, found: PhoneLabels) -> None:
    """Write the labels of a clip. An interrupted call leaves the earlier file."""
    about = {**_made_from(row), "origin": found.origin, "reason": found.reason}
    content = encode_arrays({"labels": found.labels, "heard": found.heard}, about)
    write_whole(part_path(folder, row.shard, row.name, "phones"), content)


def _label_all(folder: Path, rows: Sequence[ClipRow], processes: int) -> Iterator[str]:
    if processes == 1 or len(rows) < 2:
        yield from (_label_clip(folder, row) for row in rows)
        _decoders.cache_clear()
        return
    # A forked process would share the decoders' state and the locks of threads that are not there.
    with ProcessPoolExecutor(min(processes, len(rows)), multiprocessing.get_context("spawn")) as pool:
        for first in range(0, len(rows), _CLIPS_AT_ONCE):
            yield from pool.map(functools.partial(_label_clip, folder), rows[first : first + _CLIPS_AT_ONCE])


@functools.cache
def _decoders() -> Sphinx:
    """Return the decoders of this process. Loading the model takes longer than aligning a sentence."""
    return Sphinx()


def _label_clip(folder: Path, row: ClipRow) -> str:
    """Label one clip and write its file. Return why labels are missing or weaker; empty: they are neither."""
    try:
        sound = read_sound(folder, row)
    except DubstageError as problem:
        return problem.message
    if not num_rows(sound.samples) or not sound.samples.any():
        return "no phones: the clip has no sound"
    found = label(_decoders(), sound.samples, row.transcript, sound.words)
    write_labels(folder, row, found)
    return found.reason


def _made_from(row: ClipRow) -> dict[str, str]:
    """Return the metadata by which a file is known to be of this footage and transcript."""
    place = {"first_frame": str(row.first_frame), "frames": str(row.frames)}
    return {"format": FORMAT_VERSION, "source_sha256": row.sha256, "transcript": row.transcript, **place}


def _made_before(folder: Path, row: ClipRow) -> str | None:
    """Return the reason that the file of an earlier call holds; None: there is no file, or not of this footage and transcript."""
    path = part_path(folder, row.shard, row.name, "phones")
    try:
        with safe_open(path, "numpy") as file:
            noted: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    wanted = _made_from(row)
    if {name: noted.get(name) for name in wanted} != wanted:
        return None
    return noted["reason"]
