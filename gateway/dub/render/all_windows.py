"""All windows of a video, a few at a time, each rendered or taken from the journal."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.texture.v1 import texture_pb2
from gateway.async_utilities import cancel_all, close, in_thread
from gateway.dub.analyse.face_records import numbers_of_shots
from gateway.dub.analyse.frame_plan import FramePlan
from gateway.dub.analyse.shot_looks import ShotLooks
from gateway.dub.render.windows import (
    TEXTURE_CONTEXT_FRAMES,
    WINDOW_FRAMES,
    FrameSpan,
    RenderedWindow,
    WindowConfig,
    render_window,
    with_context,
)
from gateway.dub.state.journal import Journal, step_key
from gateway.dub.state.records import RecordFile
from gateway.stages.calls import CallTime, until_done
from gateway.stages.interface import Stages
from services.common.array_types import Bool, Float32, Int64
from services.common.errors import BackendUnavailableError, ContractBrokenError
from services.common.face.crops import BOX_SIZE
from services.common.runs import runs
from services.common.store.tensor_bytes import NamedArrays

WINDOWS_AHEAD = 3
"""Most spans in work behind the next one, so that warping, rendering and encoding go on at the same time."""


@dataclass(frozen=True, slots=True)
class VideoInputs:
    """Inputs that the windows of a video are rendered from.

    Attributes:
        config: what the windows are rendered with.
        usable: bool [T], frames whose mouth can be rendered.
        rows: int64 [T], face record of the target in each frame; -1: none.
        faces: FACE_RECORDs of the video.
        looks: looks of the target in each shot.
        shot_cuts: frames that begin a shot, in order. No window sees the pictures of two shots.
        mouths: returns the target mouths of frames begin to end - 1, float32 [end - begin, 59, 3], head space.
        speech: returns the speech features of frames, int64 [N] to float32 [N, 20, 40]; None: the renderer takes none.
        first: see FrameSpan.
        insides: int64 [T], see FrameSpan; -1 where no mouth is rendered; None: not chosen.
        on_frame: called with each frame that the render stage has answered; after a retry, again.
    """

    stages: Stages
    config: WindowConfig
    usable: Bool
    rows: Int64
    faces: RecordFile
    looks: ShotLooks
    shot_cuts: tuple[int, ...]
    mouths: Callable[[int, int], Float32]
    speech: Callable[[Int64], Float32] | None = None
    first: int = 0
    insides: Int64 | None = None
    on_frame: Callable[[int], None] = lambda _: None

    async def with_insides(self, on_frames: Callable[[int], None] = lambda _: None) -> VideoInputs:
        """Return the same inputs with the bank frames that show the insides of the mouths, a path through the whole video.

        Args:
            on_frames: called with the number of frames that are done.

        Raises:
            ContractBrokenError: the texture stage answered other frames.
            DubstageError: from the stage.
        """
        if not self.config.shows_bank:
            return self
        frames = np.flatnonzero(self.usable)

        choice = _InsideChoice(self, frames, on_frames)
        await until_done(choice.choose, progress=lambda: len(choice.decided))
        answers = np.array(choice.decided, np.int64).reshape(-1, 2)
        if not np.array_equal(answers[:, 0], choice.numbers[frames]):
            raise ContractBrokenError(
                f"the texture stage chose {len(answers)} insides for {len(frames)} frames, or for other frames"
            )
        insides = np.full(len(self.usable), -1, np.int64)
        insides[frames] = answers[:, 1]
        return replace(self, insides=insides)

    def runs(self, frames: range) -> list[range]:
        """Return the runs of consecutive usable frames of one shot among some frames, in order."""
        return runs(self.usable[frames.start : frames.stop], first=frames.start, cuts=self.shot_cuts)

    async def targets(self, frames: range) -> FrameSpan:
        """Return a run of usable frames of one shot, all of them targets."""
        records = await asyncio.to_thread(self.faces.read_rows, self.rows[frames.start : frames.stop].tolist())
        mouths = await asyncio.to_thread(self.mouths, frames.start, frames.stop)
        return FrameSpan(records, mouths, np.ones(len(frames), np.bool_), first=self.first)

    async def render_run(self, run: range) -> RenderedWindow:
        """Return the rendered frames of a run of usable frames of one shot.

        Raises:
            DubstageError: from the stages.
        """
        context = with_context(run, self.usable, self.config, self.shot_cuts)
        frames = np.arange(context.start, context.stop)
        span = await self.targets(context)
        span = replace(
            span,
            targets=(frames >= run.start) & (frames < run.stop),
            speech=await asyncio.to_thread(self.speech, frames) if self.speech is not None else None,
            insides=None if self.insides is None else self.insides[context.start : context.stop],
            movable=await asyncio.to_thread(self.looks.movable, span.records),
            covers=await asyncio.to_thread(self.looks.covers, span.records),
        )
        return await render_window(self.stages, self.config, span, self.on_frame)

    async def render_span(self, span: range) -> RenderedWindow:
        """Return the rendered frames of a span, whose usable frames may have gaps and cuts.

        Raises:
            DubstageError: from the stages.
        """
        return joined_windows([await self.render_run(run) for run in self.runs(span)], self.config.detail_scale)


class _InsideChoice:
    """Choice of the bank frames that show the insides of the mouths of a video, over as many calls as it takes.

    Attributes:
        numbers: int64 [T], number of each frame of the video in the calls: a number is left out at each cut, so that the path
            begins anew there.
        decided: numbers of the frames that are decided, in order, and the bank frame of each.

    Args:
        frames: int64 [N], frames whose mouth is rendered.
        on_frames: called with the number of decided frames.
    """

    def __init__(self, inputs: VideoInputs, frames: Int64, on_frames: Callable[[int], None]) -> None:
        self._inputs, self._frames, self._on_frames = inputs, frames, on_frames
        self.numbers = numbers_of_shots(np.arange(len(inputs.usable)), inputs.shot_cuts)
        self.decided: list[tuple[int, int]] = []

    async def choose(self) -> None:
        """Decide the frames that are left. A call that comes near the deadline is ended, and the next call goes on.

        Raises:
            BackendUnavailableError: the texture stage began anew and did not go on. The next attempt begins anew too.
            DubstageError: from the texture stage.
        """
        before = -1
        while before < len(self.decided) < len(self._frames):
            before = len(self.decided)
            await self._one_call()

    async def _one_call(self) -> None:
        time_of_call = CallTime(self._inputs.stages.call_deadline_s)
        replies = self._inputs.stages.stream(rpcs.texture.SELECT_INSIDES, self._requests())
        try:
            async for reply in replies:
                if self.decided and reply.frame_index <= self.decided[-1][0]:
                    self.decided.clear()
                    raise BackendUnavailableError("the texture stage began anew and did not go on from the frames that were sent")
                self.decided.append((reply.frame_index, reply.bank_frame_index))
                self._on_frames(len(self.decided))
                if time_of_call.nearly_over:
                    return
        finally:
            await close(replies)

    async def _requests(self) -> AsyncIterator[texture_pb2.SelectInsidesRequest]:
        """Yield the frames that are not decided. A few decided frames go before, so that the path goes on from them."""
        inputs, answered = self._inputs, dict(self.decided[-TEXTURE_CONTEXT_FRAMES:])
        call = texture_client.select_insides.requests(bank=inputs.config.bank)
        yield call.config
        first = int(self._frames[len(self.decided)])
        before = max(0, first - TEXTURE_CONTEXT_FRAMES)
        for run in inputs.runs(range(before, len(inputs.usable))):
            for begin in range(run.start, run.stop if run.stop > first else run.start, WINDOW_FRAMES):
                span = await inputs.targets(range(begin, min(begin + WINDOW_FRAMES, run.stop)))
                span = replace(span, first=span.first - int(self.numbers[begin]) + begin)
                for index in range(len(span)):
                    inside = answered.get(span.frame(index))
                    yield call.item(replace(span.target(index, context_only=inside is not None), inside_frame_index=inside))


class DubbedMouth:
    """The mouth of one face in the frames of a dub or of a line, rendered window by window or taken from the journal.

    Attributes:
        plan: what happens to every frame.
        frames: frames of the dub or of the line.
        key: key of what all windows depend on.

    Args:
        inputs: what the windows are rendered from, without the insides of the mouths.
        journal: finished windows of the job.
        on_insides: called with the number of frames whose insides are chosen.
    """

    def __init__(
        self,
        inputs: VideoInputs,
        plan: FramePlan,
        frames: range,
        journal: Journal,
        key: str,
        on_insides: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.plan = plan
        self.frames = frames
        self._inputs = inputs
        self._journal = journal
        self.key = key
        self._on_insides = on_insides
        self._choosing = asyncio.Lock()
        self._ready: VideoInputs | None = None

    async def window(self, span: range) -> RenderedWindow:
        """Return the rendered frames of a span.

        Raises:
            DubstageError: from the stages.
        """
        inputs = self._inputs
        key = step_key("window", job=self.key, begin=span.start, end=span.stop)
        earlier = await asyncio.to_thread(
            self._journal.find, key, lambda stored: journalled_window(stored, inputs.usable, span, inputs.config.detail_scale)
        )
        if earlier is not None:
            return earlier
        window = await (await self._with_insides()).render_span(span)
        arrays = {field.name: getattr(window, field.name) for field in fields(RenderedWindow)}
        # Where the job is cancelled, the record is whole before anybody removes the folder.
        await in_thread(self._journal.record, key, arrays)
        return window

    async def _with_insides(self) -> VideoInputs:
        # A dub or a line whose windows are all in the journal needs no insides.
        async with self._choosing:
            if self._ready is None:
                self._ready = await self._inputs.with_insides(self._on_insides)
            return self._ready


async def rendered_windows(
    mouths: Sequence[DubbedMouth], num_frames: int, frames: Sequence[range] | None = None
) -> AsyncGenerator[tuple[range, Sequence[tuple[FramePlan, RenderedWindow]]], None]:
    """Yield the spans of a video in order, each with the windows of the mouths that are dubbed there, in the order of `mouths`.

    At most WINDOWS_AHEAD spans are in work or wait to be taken, besides the next one. Closing the generator ends their work.

    Args:
        mouths: the mouths that are dubbed.
        num_frames: frames of the video.
        frames: frames to render, in order, each beginning with a multiple of WINDOW_FRAMES; None: all.

    Raises:
        DubstageError: from the stages.
    """
    wanted = [range(num_frames)] if frames is None else frames
    begins = [begin for part in wanted for begin in range(part.start, part.stop, WINDOW_FRAMES)]
    pending: deque[tuple[range, list[tuple[FramePlan, asyncio.Task[RenderedWindow]]]]] = deque()

    async def first() -> tuple[range, list[tuple[FramePlan, RenderedWindow]]]:
        span, tasks = pending[0]
        windows = [(plan, await task) for plan, task in tasks]
        pending.popleft()
        return span, windows

    try:
        for begin in begins:
            span = range(begin, min(begin + WINDOW_FRAMES, num_frames))
            shown = [(mouth, common) for mouth in mouths if (common := _common(mouth.frames, span))]
            pending.append((span, [(mouth.plan, asyncio.create_task(mouth.window(common))) for mouth, common in shown]))
            if len(pending) > WINDOWS_AHEAD:
                yield await first()
        while pending:
            yield await first()
    finally:
        await cancel_all([task for _, tasks in pending for _, task in tasks])


def _common(frames: range, span: range) -> range:
    return range(max(frames.start, span.start), min(frames.stop, span.stop))


def journalled_window(stored: NamedArrays, usable: Bool, span: range, detail_scale: int) -> RenderedWindow:
    """Return the window that a journal's arrays hold.

    Args:
        usable: bool [T], frames of the video that can be rendered.
        detail_scale: pixels of the detail per box pixel; 0: the windows have no detail.

    Raises:
        ValueError: the arrays are not those of the window of `span`.
    """
    wanted = joined_windows([], detail_scale)
    frames = np.asarray(span)[usable[span.start : span.stop]]
    for field in fields(RenderedWindow):
        array, like = stored.arrays.get(field.name), getattr(wanted, field.name)
        if array is None or array.dtype != like.dtype or array.shape != (len(frames), *like.shape[1:]):
            raise ValueError(f"the arrays are not those of a window: {field.name}")
    if not np.array_equal(stored["frame"], frames):
        raise ValueError("the arrays are those of other frames")
    return RenderedWindow(**{field.name: stored[field.name] for field in fields(RenderedWindow)})


def joined_windows(parts: list[RenderedWindow], detail_scale: int = 0) -> RenderedWindow:
    """Return one window with the frames of all parts.

    Args:
        parts: windows with the same scale of detail.
        detail_scale: pixels of the detail per box pixel, of the window without frames.
    """
    if not parts:
        side = detail_scale * BOX_SIZE
        return RenderedWindow(
            frame=np.empty(0, np.int64),
            box=np.empty((0, 160, 160, 3), np.uint8),
            mask=np.empty((0, 160, 160), np.uint8),
            shift=np.empty((0, 160, 160, 2), np.int16),
            fitting_error=np.empty(0, np.float32),
            bending_energy=np.empty(0, np.float32),
            landmarks=np.empty((0, 59, 2), np.float32),
            filmed=np.empty((0, 59, 2), np.float32),
            detail=np.empty((0, side, side), np.uint8),
        )
    return RenderedWindow(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(RenderedWindow)}
    )
