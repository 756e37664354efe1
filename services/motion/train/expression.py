"""The preparation `expression` of a training set.

It writes the targets of the joint training of the Audio ID-Removing Network and expression (Everybody's Talkin', Sec.
3.2.2). That network belongs to the audio stage, and these files are all that its training needs of faces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from services.common.array_types import Array
from services.common.errors import DubstageError
from services.common.store.exported_network import write_whole
from services.common.store.tensor_bytes import encode_arrays
from services.motion.style import MIN_FRAMES
from services.motion.train.basis import committed_basis
from services.motion.train.expression_space import ExpressionSpace
from services.training.networks import Preparation
from services.training.trainset.layout import FORMAT_VERSION, part_path
from services.training.trainset.manifest import ClipRow
from services.training.trainset.reader import TrainSet

SHAPE_FILE: Final = "expression.safetensors"
"""File of the training set with the shape of the coefficients."""
_METADATA: Final = {"format": f"dubstage.expression/{FORMAT_VERSION}"}


def prepare_expression(folder: Path, _clips: Path, processes: int, progress: Callable[[int, int], None]) -> Mapping[str, str]:
    """Write the expression of all clips with a face, and the shape of the coefficients (layout, part `expression`).

    Coefficients belong to the frames of the picture: a reader takes out the lag.

    Args:
        folder: folder of the training set.
        processes: threads. NumPy and the file system do the work.
        progress: called with the number of clips done and of all clips.

    Returns:
        Reasons by clip for what is missing.
    """
    data = TrainSet(folder)
    space = ExpressionSpace.of(committed_basis())
    expression = space.expression
    moved = expression.components * expression.typical_spread[:, None, None]
    _write(folder / SHAPE_FILE, {"shape": np.ascontiguousarray(moved.reshape(len(moved), -1).T)})
    rows = [row for row in data.rows if row.has_face]
    missing: dict[str, str] = {}
    write = partial(_write_clip, data, space)
    with ThreadPoolExecutor(max(1, processes)) as threads:
        for done, (row, reason) in enumerate(zip(rows, threads.map(write, rows), strict=True), 1):
            if reason:
                missing[row.name] = reason
            progress(done, len(rows))
    return missing


def _write_clip(data: TrainSet, space: ExpressionSpace, row: ClipRow) -> str:
    """Write the expression of a clip if it is not there; return why it cannot be measured, or an empty text."""
    path = part_path(data.folder, row.shard, row.name, "expression")
    if path.is_file():
        return ""
    try:
        track = data.arrays(row, "track", ("mouth_landmarks", "usable"))
    except DubstageError as problem:
        return str(problem)
    usable = track["usable"].astype(np.bool_)
    if int(usable.sum()) < MIN_FRAMES:
        return f"expression needs {MIN_FRAMES} usable frames, the clip has {int(usable.sum())}"
    _write(path, {"coefficients": space.target(track["mouth_landmarks"], usable).coefficients})
    return ""


def _write(path: Path, arrays: Mapping[str, Array]) -> None:
    write_whole(path, encode_arrays(arrays, _METADATA))


EXPRESSION: Final = Preparation(
    name="expression",
    summary="expression coefficients of all clips with a face, for the joint training of the audio stage",
    prepare=prepare_expression,
)
