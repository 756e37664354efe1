"""The slow expression of a person in footage (a smile, tension), kept on disk for every frame and added to the predicted mouth.

A predictor takes the speech only, so a smiling person would lose the smile. What the footage's mouth shows beyond the prediction
from the footage's own sound is averaged over about a second, and added to the mouth that is predicted from the new speech:

    wanted(t)  = new(t) + offset(t) + (gain(t) - 1) * part of new(t) that opens the lips
    offset(t)  = average around t, EXPRESSION_S wide, of shut_lips(footage mouth) - shut_lips(explained mouth)
    gain(t)    = opening of the footage's mouth / opening of the explained mouth, averages around t, OPENING_S wide

Both mouths of the offset are shut, so the offset moves corners, lips and jaw, and opens no lips. The opening itself is scaled,
not moved, and only what exceeds SHUT_PX and the person's opening at rest: lips that the prediction shuts stay shut, and a mouth at
rest stays at rest.

The averages are normalised convolutions with Gaussian weights (Knutsson and Westin 1993): frames without a usable face have no
weight, and frames of other shots have none. The averages look into past and future alike, so the expression has no delay.

The explained mouth is the motion that is predicted from the footage's own sound, frame by frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from dubstage.common.v1 import common_pb2
from gateway.dub.analyse.frame_plan import DUBBED, SILENT_BELOW, at_rest
from gateway.dub.analyse.motion_clip import clip_of, enrolment_rows
from gateway.dub.convert import timeline_of
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.progress import OnProgress
from gateway.dub.sound.speech import MotionRequest, predict_motion
from gateway.dub.state.records import EXPRESSION_RECORD, MOTION_RECORD, RecordFile
from services.common.array_types import Bool, Float32, Float64, Int64
from services.common.errors import NoUsableFootageError
from services.common.face.landmarks import NUM_MOUTH_AREA, mouth_opening, shut_lips
from services.common.wire.mouth_curves import SpeakingMotion
from services.common.wire.timeline import MOTION_RATE

EXPRESSION_S: Final = 1.0
"""Width of the average of the offset, seconds (full width at half of the largest weight). .42 of a change at .5 Hz passes, .03 of a
change at 1 Hz, and less than a millionth of one at 2 Hz, the rate of words."""
OPENING_S: Final = 4.0
"""Width of the average of the openings, seconds. How wide a person opens the mouth differs between words and pauses, so that a
shorter average would carry the old words' rhythm into the new words."""
SHUT_PX: Final = 2.0
"""Opening up to which lips count as shut, crop pixels. No such opening is scaled."""
LARGEST_GAIN: Final = 1.4
"""Largest gain of the opening; the smallest is its inverse. With 1.6 in place of 1.4, hardly any clip is better."""
REACH_S: Final = 5.1
"""Frames further away than this, seconds, have no weight in any average: three standard deviations of the widest average."""

_WIDTH_PER_DEVIATION: Final = 2.3548
"""Full width at half maximum of a Gaussian of standard deviation 1."""
_CALM_PX: Final = 1.0
"""Opening that is added to both openings of a gain, crop pixels: a person who hardly speaks has a gain near 1."""
_ENOUGH: Final = 0.5
"""Share of the weights around a frame that usable frames of the frame's shot must have. With less, the expression fades, because an
average of a few frames would be their own mouths and not their expression. At a shot cut the share is one half."""
_READ_ROWS = 512
_BLOCK: Final = 512
"""Frames whose expression is computed at once."""
_READ: Final = 64
"""Face records that are read at once: 5 MB, most of it pixels that are not needed here."""


@dataclass(frozen=True, slots=True)
class SlowExpression:
    """Slow expression of N frames.

    Attributes:
        offset: float32 [N, 59, 3], head space (crop pixels): what is added to a mouth. The offset opens no lips.
        gain: float32 [N], 1 / LARGEST_GAIN to LARGEST_GAIN: factor of the mouth's opening.
        still: float32 [N], opening up to which a mouth keeps its opening, crop pixels, at least SHUT_PX.
    """

    offset: Float32
    gain: Float32
    still: Float32


@dataclass(frozen=True, slots=True)
class FootageMouths:
    """Mouths of M consecutive frames of footage.

    Attributes:
        filmed: float32 [M, 59, 3], mouth-area landmarks of the footage, head space; any numbers where not usable.
        explained: float32 [M, 59, 3], mouths that the person's own sound explains; or [59, 3], the mean mouth: there is no sound.
        usable: bool [M], frames whose face can be used.
        seconds: float64 [M], presentation times, ascending.
        shot: int64 [M], number of the shot of each frame.
    """

    filmed: Float32
    explained: Float32
    usable: Bool
    seconds: Float64
    shot: Int64


def slow_expression(mouths: FootageMouths, answered: slice = slice(None), rest_opening: float = 0.0) -> SlowExpression:
    """Return the slow expression of the frames `answered`.

    Without sound, the openings of the footage cannot be distinguished from the opening of its words: the gain is 1.

    Args:
        mouths: the target frames, and all frames at most REACH_S before and after them.
        answered: frames to answer.
        rest_opening: opening of the person's mouth at rest, crop pixels.
    """
    explained = np.broadcast_to(mouths.explained, mouths.filmed.shape)
    usable = mouths.usable
    beyond: Float64 = np.zeros(mouths.filmed.shape, np.float64)
    beyond[usable] = _shut(mouths.filmed[usable]) - _shut(explained[usable])
    weights, total = _weights(mouths, answered, EXPRESSION_S)
    seen = weights.sum(axis=1)
    # With few usable frames the expression fades.
    enough = np.minimum(seen / total / _ENOUGH, 1.0)
    average = np.tensordot(weights, beyond, axes=1) / np.maximum(seen, 1e-12)[:, None, None]
    gain: Float64 = np.ones(len(average), np.float64)
    if mouths.explained.ndim == mouths.filmed.ndim:
        gain = _gain(mouths, answered)
    still = np.full(len(average), max(SHUT_PX, rest_opening), np.float32)
    return SlowExpression(np.asarray(average * enough[:, None, None], np.float32), np.asarray(gain, np.float32), still)


def with_slow_expression(mouths: Float32, slow: SlowExpression) -> Float32:
    """Return mouths with a slow expression. Mouths whose opening is at most `slow.still` keep their opening.

    Args:
        mouths: float32 [N, 59, 3], head space.
        slow: slow expression of N frames.

    Returns:
        float32 [N, 59, 3].
    """
    opening = mouth_opening(mouths)
    scaled = (slow.gain - 1.0) * np.maximum(opening - slow.still, 0.0) / np.maximum(opening, slow.still)
    opens = mouths - _shut(mouths)
    return np.asarray(mouths + slow.offset + scaled[:, None, None] * opens, np.float32)


def _gain(mouths: FootageMouths, answered: slice) -> Float64:
    """Return the gain of the opening, float64 [N]. Frames on which the sound explains shut lips do not count."""
    filmed, explained = (np.asarray(mouth_opening(each), np.float64) for each in (mouths.filmed, mouths.explained))
    weights, total = _weights(mouths, answered, OPENING_S)
    speaks = mouths.usable & (explained > SHUT_PX)
    # Sums, and not averages over the speaking frames, so that a frame amid silence has a gain near 1.
    before, after = ((weights / total[:, None]) @ np.where(speaks, each, 0.0) for each in (explained, filmed))
    return np.clip((after + _CALM_PX) / (before + _CALM_PX), 1.0 / LARGEST_GAIN, LARGEST_GAIN)


def _weights(mouths: FootageMouths, answered: slice, width_s: float) -> tuple[Float64, Float64]:
    """Return the weight of every frame in the averages around the target frames, and the sums if all frames could be used.

    Args:
        mouths: see `slow_expression`.
        answered: frames to answer.
        width_s: width of the averages, seconds.

    Returns:
        float64 [N, M], 0 for frames that are not usable and for other shots; and float64 [N], at least 1.
    """
    seconds, shot = mouths.seconds, mouths.shot
    apart = np.abs(seconds[answered, None] - seconds[None])
    around = np.exp(-0.5 * np.square(apart * (_WIDTH_PER_DEVIATION / width_s))) * (apart <= REACH_S)
    weights = around * (mouths.usable[None] & (shot[answered, None] == shot[None]))
    return weights, around.sum(axis=1)


def _shut(mouths: Float32) -> Float32:
    """Return the mouths with touching lips, float32 [N, 59, 3]."""
    return np.stack([shut_lips(mouth) for mouth in mouths]) if len(mouths) else np.empty_like(mouths)


@asynccontextmanager
async def own_motion(
    analysis: FootageAnalysis, style: common_pb2.ArtefactRef, on_step: OnProgress
) -> AsyncIterator[RecordFile | None]:
    """Yield MOTION_RECORDs that are predicted from all of the footage's own sound, one per frame. The records end with the context.

    A frame gets the motion that is predicted for its time plus the lag of the sound, so that sound and picture agree. None: the
    footage has no sound, the lag cannot be measured, the voice is another person's, or nobody speaks.

    Args:
        analysis: the footage, tracked, with its face selected.
        style: speaking style of the person.
        on_step: called with the number of frames that were predicted.

    Raises:
        InvalidRequestError, StorageFullError: the records would take more disk space than they may.
        DubstageError: from the stages, or from reading the sound.
    """
    lag = await _lag(analysis)
    if lag is None:
        yield None
        return
    info, features = analysis.info, await analysis.extract_sound(whole=True)
    request = MotionRequest(
        predictor=analysis.method.motion,
        style=style,
        timeline=timeline_of(info, later=lag / MOTION_RATE),
        num_frames=info.video.num_frames,
    )
    what = f"the motion of {request.num_frames} frames"
    await asyncio.to_thread(analysis.workspace.allowance.check, request.num_frames * MOTION_RECORD.itemsize, what)

    def predicted(done: int) -> None:
        on_step("own motion", done, request.num_frames)

    with analysis.workspace.passing("own_motion", MOTION_RECORD) as motion:
        await predict_motion(analysis.stages, request, features, motion, on_frames=predicted)
        yield motion if await asyncio.to_thread(_speaks, motion) else None


async def _lag(analysis: FootageAnalysis) -> Fraction | None:
    """Return the lag of the footage's sound, frames of 40 ms, to a quarter of a frame.

    None: the lag cannot be measured, or the voice is another person's.
    """
    if not analysis.info.audio:
        return None
    try:
        rows = await asyncio.to_thread(enrolment_rows, analysis.rows, analysis.index.reason, analysis.seconds)
    except NoUsableFootageError:
        return None
    clip, frames = await asyncio.to_thread(clip_of, analysis.workspace.faces, rows, analysis.seconds)
    sound = await analysis.extract_sound()
    lag = await analysis.lag(rows, clip, sound.read_rows(frames))
    return None if lag.frames is None else lag.frames + Fraction(lag.fraction)


def _speaks(motion: RecordFile) -> bool:
    """Return whether anybody speaks in any frame."""
    parts = (motion.read(begin, begin + _READ_ROWS) for begin in range(0, motion.num_rows, _READ_ROWS))
    return any(bool((part["speech_probability"] >= SILENT_BELOW).any()) for part in parts)


async def find_expression(
    analysis: FootageAnalysis, actor: EnrolledActor, on_step: OnProgress, *, name: str = "expression"
) -> RecordFile:
    """Return the EXPRESSION_RECORDs of a person, one per frame of the footage. Done once per job and actor.

    The mouths of the footage are compared with those that the footage's own sound explains. If nobody speaks, they are compared
    with the mean mouth of the person.

    Args:
        analysis: the footage, tracked, with its face selected.
        on_step: called with the number of finished frames of each step: own motion, expression.
        name: of the workspace's file and of the pass: people of one job have files of their own.

    Raises:
        InvalidRequestError, StorageFullError: the records would take more disk space than they may.
        DubstageError: from the stages, or from reading the sound.
    """
    workspace, total = analysis.workspace, analysis.info.video.num_frames
    said = {"style": actor.style.sha256}
    kept = workspace.expression if name == "expression" else workspace.further(f"{name}.bin", EXPRESSION_RECORD)
    if await asyncio.to_thread(workspace.finished, name, kept) == said:
        return kept
    size = total * EXPRESSION_RECORD.itemsize
    await asyncio.to_thread(workspace.allowance.check, size, f"the expression of {total} frames")
    kept.clear()
    async with own_motion(analysis, actor.style, on_step) as motion:
        for begin in range(0, total, _BLOCK):
            explained = motion if motion is not None else actor.geometry.mean_mouth
            kept.append(await asyncio.to_thread(_block, analysis, begin, explained, actor.speaking))
            on_step("expression", min(begin + _BLOCK, total), total)
    await asyncio.to_thread(kept.sync)
    workspace.finish(name, said, kept)
    return kept


def footage_mouths(analysis: FootageAnalysis, begin: int, end: int, explained: Float32) -> FootageMouths:
    """Return the mouths of the selected face in the frames begin to end - 1.

    Args:
        analysis: the footage, tracked, with its face selected.
        begin: first frame.
        end: frame after the last one.
        explained: float32 [end - begin, 59, 3], what the footage's sound explains; or [59, 3], the mean mouth.
    """
    filmed, usable = filmed_mouths(analysis, begin, end)
    shots = np.searchsorted(np.array(analysis.index.shot_cuts, np.int64), np.arange(begin, end), side="right")
    return FootageMouths(filmed, explained, usable, analysis.seconds[begin:end], np.asarray(shots, np.int64))


def filmed_mouths(analysis: FootageAnalysis, begin: int, end: int) -> tuple[Float32, Bool]:
    """Return the filmed mouths of the selected face in the frames begin to end - 1, and whether each can be used.

    Returns:
        float32 [N, 59, 3], head space, zeros where not usable; bool [N].
    """
    rows, faces = analysis.rows[begin:end], analysis.workspace.faces
    usable = np.asarray((rows >= 0) & (analysis.index.reason[rows] == DUBBED), np.bool_)
    filmed = np.zeros((len(rows), NUM_MOUTH_AREA, 3), np.float32)
    (indices,) = np.nonzero(usable)
    for first in range(0, len(indices), _READ):
        some = indices[first : first + _READ]
        filmed[some] = faces.read_rows(rows[some].tolist())["mouth"]
    return filmed, usable


def _block(analysis: FootageAnalysis, begin: int, explained: RecordFile | Float32, own: SpeakingMotion | None) -> Any:
    """Return the EXPRESSION_RECORDs of the frames from `begin` on, at most _BLOCK.

    Without sound that explains the mouths, nothing tells an open mouth that is held from one that speaks.
    """
    seconds = analysis.seconds
    end = min(begin + _BLOCK, len(seconds))
    first = int(np.searchsorted(seconds, seconds[begin] - REACH_S))
    last = int(np.searchsorted(seconds, seconds[end - 1] + REACH_S, side="right"))
    answered = slice(begin - first, end - first)
    rows = explained.read(first, last) if isinstance(explained, RecordFile) else None
    mouths = footage_mouths(analysis, first, last, rows["mouth"] if rows is not None else np.asarray(explained))
    slow = slow_expression(mouths, answered, own.rest_opening if own is not None else 0.0)
    records = np.zeros(end - begin, EXPRESSION_RECORD)
    records["offset"], records["gain"], records["still"] = slow.offset, slow.gain, slow.still
    if rows is not None:
        silent = rows["speech_probability"] < SILENT_BELOW
        records["held_open"] = (silent & mouths.usable & ~at_rest(mouth_opening(mouths.filmed), own))[answered]
    records["seen"] = mouths.usable[answered]
    return records
