"""All windows of a film, a few at a time, each rendered or taken from the journal."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from gateway.pipeline.journal import Journal, step_key
from gateway.pipeline.plan import Plan
from gateway.pipeline.records import RecordFile
from gateway.pipeline.windows import WINDOW_FRAMES, RenderedWindow, WindowConfig, render_window
from gateway.stages.interface import Stages
from services.common.actor_geometry import ActorGeometry
from services.common.tensor_bytes import NamedArrays

WINDOWS_AHEAD = 3
"""Windows in work at once: while one is warped, another is rendered and a third is encoded."""


@dataclass(frozen=True, slots=True)
class FilmInputs:
    """What windows are rendered from."""

    config: WindowConfig
    geometry: ActorGeometry
    plan: Plan
    faces: RecordFile
    motion: RecordFile


async def rendered_windows(
    stages: Stages, inputs: FilmInputs | None, plan: Plan, journal: Journal, job_key: str
) -> AsyncIterator[tuple[range, RenderedWindow]]:
    """Windows in order, covering every frame of `plan`; at most WINDOWS_AHEAD are in work or wait to be taken.

    `inputs` is None where nothing is dubbed: the windows are empty.
    """
    spans = [range(begin, min(begin + WINDOW_FRAMES, plan.num_frames)) for begin in range(0, plan.num_frames, WINDOW_FRAMES)]
    if inputs is None:
        for span in spans:
            yield span, _joined([])
        return
    pending: deque[tuple[range, asyncio.Task[RenderedWindow]]] = deque()
    try:
        for span in spans:
            pending.append((span, asyncio.create_task(_window(stages, inputs, journal, job_key, span))))
            if len(pending) > WINDOWS_AHEAD:
                done, task = pending.popleft()
                yield done, await task
        while pending:
            done, task = pending.popleft()
            yield done, await task
    finally:
        for _, task in pending:
            task.cancel()
        await asyncio.gather(*(task for _, task in pending), return_exceptions=True)


async def _window(stages: Stages, inputs: FilmInputs, journal: Journal, job_key: str, span: range) -> RenderedWindow:
    key = step_key("window", job=job_key, begin=span.start, end=span.stop)
    found = await asyncio.to_thread(journal.find, key, lambda stored: _journalled(stored, inputs.plan, span))
    if found is not None:
        return found
    parts = [await _render_run(stages, inputs, run) for run in runs_of(inputs.plan.rendered(), span)]
    window = _joined(parts)
    arrays = {field.name: getattr(window, field.name) for field in fields(RenderedWindow)}
    await asyncio.to_thread(journal.record, key, arrays)
    return window


def _journalled(stored: NamedArrays, plan: Plan, span: range) -> RenderedWindow:
    """The window of a journal's arrays.

    Raises:
        ValueError: they are not those of this window.
    """
    wanted = _joined([])
    frames = np.asarray(span)[plan.rendered()[span.start : span.stop]]
    for field in fields(RenderedWindow):
        array, like = stored.arrays.get(field.name), getattr(wanted, field.name)
        if array is None or array.dtype != like.dtype or array.shape != (len(frames), *like.shape[1:]):
            raise ValueError(f"the arrays are not those of a window: {field.name}")
    if not np.array_equal(stored["frame"], frames):
        raise ValueError("the arrays are those of other frames")
    return RenderedWindow(**{field.name: stored[field.name] for field in fields(RenderedWindow)})


def runs_of(rendered: npt.NDArray[np.bool_], span: range) -> list[range]:
    """Unbroken runs of rendered frames within a span."""
    runs: list[range] = []
    begin: int | None = None
    for frame in (*span, span.stop):
        inside = frame < span.stop and bool(rendered[frame])
        if inside and begin is None:
            begin = frame
        if not inside and begin is not None:
            runs.append(range(begin, frame))
            begin = None
    return runs


async def _render_run(stages: Stages, inputs: FilmInputs, run: range) -> RenderedWindow:
    rendered = inputs.plan.rendered()
    first = run.start
    while first > max(0, run.start - inputs.config.context_frames) and rendered[first - 1]:
        first -= 1
    rows = inputs.plan.row[first : run.stop].tolist()
    records = await asyncio.to_thread(inputs.faces.read_rows, rows)
    mouths = await asyncio.to_thread(inputs.motion.read, first, run.stop)
    wanted = np.arange(first, run.stop) >= run.start
    return await render_window(stages, inputs.config, inputs.geometry, records, mouths["mouth"], wanted)


def _joined(parts: list[RenderedWindow]) -> RenderedWindow:
    if not parts:
        return RenderedWindow(
            frame=np.empty(0, np.int64),
            box=np.empty((0, 160, 160, 3), np.uint8),
            mask=np.empty((0, 160, 160), np.uint8),
            fitting_error=np.empty(0, np.float32),
            bending_energy=np.empty(0, np.float32),
            landmarks=np.empty((0, 59, 2), np.float32),
        )
    return RenderedWindow(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(RenderedWindow)}
    )
