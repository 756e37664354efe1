"""Target mouths of a dub: predicted mouths with the slow expression of the footage, and with mouths that the person holds open.

A predicted mouth rests in a pause of the new speech. A person who listens with an open mouth, or who laughs without a voice, may
hold the mouth open through the whole pause without speaking: there the mouth stays as filmed. If the person of the footage speaks
or rests in any frame of the pause, the pause has the predicted mouth, so that no opening of the old words is seen. Frames that do
not show the mouth part a pause in two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from gateway.dub.analyse.frame_plan import SILENT_BELOW
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.learn.slow_expression import SlowExpression, filmed_mouths, with_slow_expression
from gateway.dub.state.records import RecordFile, RecordSpan
from services.common.array_types import Array, Bool, Float32, Float64
from services.common.runs import runs

SHORTEST_S: Final = 0.25
"""Shortest pause in which a mouth is held open, seconds. In shorter pauses lips do not come to rest."""
FADE_S: Final = 0.16
"""Time from the predicted to the filmed mouth at the beginning of a pause, and back at the end, seconds. Predicted mouths come to
rest as fast (services/motion/constraints.py)."""
_BLOCK: Final = 512
"""Frames that are read at once."""


def filmed_share(pauses: Bool, held_open: Bool, seconds: Float64, *, first: bool = True, last: bool = True) -> Float32:
    """Return the share of the filmed mouth in the target mouth of each frame.

    Args:
        pauses: bool [T], frames in which the new speech pauses and the mouth is seen.
        held_open: bool [T], frames in which the person of the footage holds the mouth open without speaking.
        seconds: float64 [T], presentation times, ascending.
        first: whether the video begins with the first of these frames: a pause there has no fade at its beginning.
        last: whether the video ends with the last of these frames.

    Returns:
        float32 [T], 0 to 1: 1 in pauses through which the mouth is held open, less within FADE_S of their ends, 0 elsewhere.
    """
    share = np.zeros(len(pauses), np.float32)
    for pause in runs(pauses):
        begin, end = pause.start, pause.stop
        if not held_open[begin:end].all() or seconds[end - 1] - seconds[begin] < SHORTEST_S:
            continue
        since = np.full(end - begin, np.inf) if first and begin == 0 else seconds[begin:end] - seconds[begin]
        until = np.full(end - begin, np.inf) if last and end == len(pauses) else seconds[end - 1] - seconds[begin:end]
        passed = np.minimum(np.minimum(since, until) / FADE_S, 1.0)
        share[begin:end] = passed * passed * (3.0 - 2.0 * passed)
    return share


@dataclass(frozen=True, slots=True)
class TargetMouths:
    """Target mouths of the frames of a dub, or of a line of a scene.

    Attributes:
        motion: MOTION_RECORDs of the frames.
        first: first of the frames.
        expression: EXPRESSION_RECORDs of all frames of the video; None: the dub keeps no expression.
        share: float32 [T], share of the filmed mouth in each frame (`filmed_share`); None: no mouth stays as filmed.
        filmed: returns the filmed mouths of the frames begin to end - 1 of the video, float32 [N, 59, 3], head space; None: as
            `share`.
        counted_from: frame of the video that is frame 0 of a call.
    """

    motion: RecordFile | RecordSpan
    first: int = 0
    expression: RecordFile | None = None
    share: Float32 | None = None
    filmed: Callable[[int, int], Float32] | None = None
    counted_from: int = 0

    def span(self, frames: range) -> TargetMouths:
        """Return the target mouths of some of the frames of a dub without lines. These frames count from 0."""
        assert isinstance(self.motion, RecordFile), "only a dub without lines is cut to a span"
        return replace(
            self,
            motion=RecordSpan(self.motion, frames.start, len(frames)),
            first=frames.start,
            share=None if self.share is None else self.share[frames.start : frames.stop],
            counted_from=frames.start,
        )

    def __call__(self, begin: int, end: int) -> Float32:
        """Return the target mouths of frames of the video, as far as they exist, float32 [N, 59, 3], head space."""
        begin, end = begin + self.counted_from, end + self.counted_from
        rows = self.motion.read(begin - self.first, end - self.first)
        mouths: Float32 = np.asarray(rows["mouth"])
        if self.expression is None:
            return mouths
        end = begin + len(rows)
        kept: Array = self.expression.read(begin, end)
        mouths = with_slow_expression(mouths, SlowExpression(kept["offset"], kept["gain"], kept["still"]))
        if self.share is None or self.filmed is None:
            return mouths
        share = self.share[begin - self.first : end - self.first]
        (held,) = np.nonzero(share)
        if len(held):
            low, high = int(held[0]), int(held[-1]) + 1
            part = share[low:high, None, None]
            mouths[low:high] += part * (self.filmed(begin + low, begin + high) - mouths[low:high])
        return mouths


async def expressive_mouths(
    analysis: FootageAnalysis, motion: RecordFile | RecordSpan, frames: range, expression: RecordFile
) -> TargetMouths:
    """Return the target mouths of frames that keep the expression of the footage.

    Args:
        analysis: the footage, tracked, with its face selected.
        motion: MOTION_RECORDs of the frames, all of them.
        frames: frames of the video.
        expression: EXPRESSION_RECORDs of all frames of the footage.
    """
    share = await asyncio.to_thread(_share, motion, expression, frames, analysis.seconds)
    if not share.any():
        return TargetMouths(motion, frames.start, expression)

    def filmed(begin: int, end: int) -> Float32:
        return filmed_mouths(analysis, begin, end)[0]

    return TargetMouths(motion, frames.start, expression, share, filmed)


def _share(motion: RecordFile | RecordSpan, expression: RecordFile, frames: range, seconds: Float64) -> Float32:
    pauses, held = [np.zeros(0, np.bool_)], [np.zeros(0, np.bool_)]
    for begin in range(0, len(frames), _BLOCK):
        end = min(begin + _BLOCK, len(frames))
        kept = expression.read(frames.start + begin, frames.start + end)
        pauses.append((motion.read(begin, end)["speech_probability"] < SILENT_BELOW) & kept["seen"])
        held.append(kept["held_open"])
    ends = {"first": frames.start == 0, "last": frames.stop == len(seconds)}
    return filmed_share(np.concatenate(pauses), np.concatenate(held), seconds[frames.start : frames.stop], **ends)
