"""The slow expression of the person in the footage, for every frame of the footage, kept on disk (slow_expression.py)."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import numpy as np

from gateway.pipeline.enrol import EnrolledActor
from gateway.pipeline.own_speech import own_motion
from gateway.pipeline.plan import DUBBED
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.records import EXPRESSION_RECORD, RecordFile
from gateway.pipeline.shot import Shot
from gateway.pipeline.slow_expression import REACH_S, Mouths, SlowExpression, carried, slow_expression
from gateway.pipeline.workspace import Workspace
from services.common.array_types import Float32

_BLOCK: Final = 512
"""Frames whose expression is computed at once."""
_READ: Final = 64
"""Face records that are read at once: 5 MB, most of it pixels that are not needed here."""


async def find_expression(shot: Shot, actor: EnrolledActor, on_step: OnProgress) -> None:
    """Fill the workspace's EXPRESSION_RECORDs, one per frame of the footage. Done once per job and actor.

    The mouths of the footage are compared with those that the footage's own sound explains. If nobody is heard, they are compared
    with the mean mouth of the person.

    Args:
        shot: the footage, tracked, with its face selected.
        actor: the person.
        on_step: called with the number of finished frames of each step: own speech, own motion, expression.

    Raises:
        InvalidRequest, StorageFull: the records would take more disk space than they may.
        DubstageError: from the stages, or from reading the sound.
    """
    workspace, total = shot.workspace, shot.info.video.num_frames
    said = {"style": actor.style.sha256}
    if await asyncio.to_thread(workspace.finished, "expression", workspace.expression) == said:
        return
    size = total * EXPRESSION_RECORD.itemsize
    await asyncio.to_thread(workspace.allowance.check, size, f"the expression of {total} frames")
    workspace.expression.clear()
    async with own_motion(shot, actor.style, on_step) as heard:
        for begin in range(0, total, _BLOCK):
            explained = heard if heard is not None else actor.geometry.mean_mouth
            workspace.expression.append(await asyncio.to_thread(_block, shot, begin, explained))
            on_step("expression", min(begin + _BLOCK, total), total)
    await asyncio.to_thread(workspace.expression.sync)
    workspace.finish("expression", said, workspace.expression)


def wanted_mouths(workspace: Workspace, begin: int, end: int) -> Float32:
    """Return the wanted mouths of the frames begin to end - 1 of the film, as far as they exist, float32 [N, 59, 3], head space.

    They are the predicted mouths, with the slow expression of the footage if the dub keeps the expression.
    """
    mouths = np.asarray(workspace.motion.read(begin, end)["mouth"])
    kept = workspace.expression.read(begin, end)
    return carried(mouths, SlowExpression(kept["offset"], kept["gain"])) if len(kept) else mouths


def footage_mouths(shot: Shot, begin: int, end: int, explained: Float32) -> Mouths:
    """Return the mouths of the selected face in the frames begin to end - 1.

    Args:
        shot: the footage, tracked, with its face selected.
        begin: first frame.
        end: frame after the last one.
        explained: float32 [end - begin, 59, 3], what the footage's sound explains; or [59, 3], the mean mouth.
    """
    rows, index, faces = shot.rows[begin:end], shot.index, shot.workspace.faces
    usable = (rows >= 0) & (index.reason[rows] == DUBBED)
    seen = np.zeros((len(rows), *explained.shape[-2:]), np.float32)
    (places,) = np.nonzero(usable)
    for first in range(0, len(places), _READ):
        some = places[first : first + _READ]
        seen[some] = faces.read_rows(rows[some].tolist())["mouth"]
    shots = np.searchsorted(np.array(index.shot_cuts, np.int64), np.arange(begin, end), side="right")
    return Mouths(seen, explained, usable, shot.seconds[begin:end], np.asarray(shots, np.int64))


def _block(shot: Shot, begin: int, explained: RecordFile | Float32) -> Any:
    """Return the EXPRESSION_RECORDs of the frames from `begin` on, at most _BLOCK."""
    seconds = shot.seconds
    end = min(begin + _BLOCK, len(seconds))
    first = int(np.searchsorted(seconds, seconds[begin] - REACH_S))
    last = int(np.searchsorted(seconds, seconds[end - 1] + REACH_S, side="right"))
    known = explained.read(first, last)["mouth"] if isinstance(explained, RecordFile) else explained
    slow = slow_expression(footage_mouths(shot, first, last, known), slice(begin - first, end - first))
    records = np.zeros(end - begin, EXPRESSION_RECORD)
    records["offset"], records["gain"] = slow.offset, slow.gain
    return records
