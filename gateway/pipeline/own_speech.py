"""What the footage's own sound explains of the person's mouth: the motion that is predicted from it, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from fractions import Fraction
from typing import Any

from dubstage.common.v1alpha1 import common_pb2
from gateway.media.sound import SoundReader
from gateway.pipeline.messages import timeline_of
from gateway.pipeline.motion_clip import clip_of, enrolment_rows
from gateway.pipeline.plan import SILENT_BELOW
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.records import FEATURE_RECORD, MOTION_RECORD, RecordFile
from gateway.pipeline.shot import Shot
from gateway.pipeline.speech import MotionRequest, extract_features, motion_frames_for, predict_motion
from gateway.pipeline.workspace import Workspace
from services.common.errors import NoUsableFootage
from services.common.wire.timeline import MOTION_RATE

_READ_ROWS = 512


@asynccontextmanager
async def own_motion(shot: Shot, style: common_pb2.ArtefactRef, on_step: OnProgress) -> AsyncIterator[RecordFile | None]:
    """Yield MOTION_RECORDs that are predicted from all of the footage's own sound, one per frame. The records end with the context.

    The sound is moved by its lag, so that sound and picture agree. None: the footage has no sound, the lag cannot be measured, the
    voice is another person's, or nobody is heard.

    Args:
        shot: the footage, tracked, with its face selected.
        style: speaking style of the person.
        on_step: called with the number of frames that were heard, then with the number of frames that were predicted.

    Raises:
        InvalidRequest, StorageFull: the records would take more disk space than they may.
        DubstageError: from the stages, or from reading the sound.
    """
    lag = await _lag(shot)
    if lag is None:
        yield None
        return
    info, predictor = shot.info, shot.method.motion
    speech = SoundReader(info.path, origin=info.video.start + Fraction(lag) / MOTION_RATE).speech()
    duration, frames = info.video.duration, motion_frames_for(info.video.duration)
    size = frames * FEATURE_RECORD.itemsize + info.video.num_frames * MOTION_RECORD.itemsize
    await asyncio.to_thread(shot.workspace.allowance.check, size, f"the features of {float(duration):,.0f} s of own sound")
    with _passing(shot.workspace, ".own_motion", MOTION_RECORD) as motion:
        with _passing(shot.workspace, ".own_features", FEATURE_RECORD) as features:
            kinds = predictor.features

            def heard(done: int) -> None:
                on_step("own speech", done, frames)

            await extract_features(shot.stages, speech, features, frames, duration, kinds, on_frames=heard)
            request = MotionRequest(predictor=predictor, style=style, timeline=timeline_of(info), num_frames=info.video.num_frames)

            def predicted(done: int) -> None:
                on_step("own motion", done, request.num_frames)

            await predict_motion(shot.stages, request, features, motion, on_frames=predicted)
        yield motion if await asyncio.to_thread(_speaks, motion) else None


async def _lag(shot: Shot) -> int | None:
    """Return the lag of the footage's sound, frames of 40 ms; None: it cannot be measured, or the voice is another person's."""
    if not shot.info.audio:
        return None
    try:
        rows = await asyncio.to_thread(enrolment_rows, shot.workspace.faces, shot.rows, shot.seconds)
    except NoUsableFootage:
        return None
    clip, frames = await asyncio.to_thread(clip_of, shot.workspace.faces, rows, shot.seconds)
    sound = await shot.hear()
    return (await shot.lag(rows, clip, sound.read_rows(frames))).frames


def _speaks(motion: RecordFile) -> bool:
    """Return whether anybody is heard in any frame."""
    parts = (motion.read(begin, begin + _READ_ROWS) for begin in range(0, motion.num_rows, _READ_ROWS))
    return any(bool((part["speech_probability"] >= SILENT_BELOW).any()) for part in parts)


@contextmanager
def _passing(workspace: Workspace, name: str, dtype: Any) -> Iterator[RecordFile]:
    """Open a file of records, which is removed when the context ends.

    The name of the file is hidden. If the run is killed, the next run removes hidden files when it opens the workspace.
    """
    path = workspace.folder / name
    try:
        with RecordFile(path, dtype, workspace.allowance) as records:
            try:
                yield records
            finally:
                records.clear()
    finally:
        path.unlink(missing_ok=True)
