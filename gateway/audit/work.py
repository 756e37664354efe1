"""Work that the audit log records from its beginning to its end: dubs of commands and of batches, and live streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from gateway.async_utilities import in_thread
from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.log import AuditLog
from gateway.provenance.binding import media_sha256
from gateway.provenance.claim import VideoWatermark
from services.common.errors import DubstageError, WorkCancelledError
from services.common.server import error_status

_log = structlog.stdlib.get_logger("dubstage.audit")

_ENDS: Final[Mapping[EventKind, tuple[EventKind, EventKind, EventKind]]] = {
    EventKind.DUB_BEGUN: (EventKind.DUB_ENDED, EventKind.DUB_FAILED, EventKind.DUB_CANCELLED),
    EventKind.LIVE_BEGUN: (EventKind.LIVE_ENDED, EventKind.LIVE_FAILED, EventKind.LIVE_CANCELLED),
}
"""How work that begins with an entry ends: well, with an error, cancelled."""


@dataclass(slots=True)
class WorkRecord:
    """Content of the entry for the end of a piece of work.

    Attributes:
        outputs: digests of what was made, hexadecimal.
        details: further facts.
    """

    outputs: tuple[str, ...]
    details: dict[str, str | int | bool]

    async def video(self, video: Path, watermark: VideoWatermark) -> None:
        """Note the digest of a video without its manifest, as `dubstage inspect` prints it, and the watermark of the video."""
        self.outputs = (await in_thread(media_sha256, video),)
        self.details |= watermark_details(watermark)


@asynccontextmanager
async def recorded(log: AuditLog, begun: AuditEvent, *, continues: str = "") -> AsyncIterator[WorkRecord]:
    """Record the beginning of the work of the context, and its end. Work whose beginning cannot be recorded does not begin.

    Args:
        log: the audit log.
        begun: the beginning: DUB_BEGUN or LIVE_BEGUN, with a name of the work that no other work has.
        continues: as for `AuditLog.append`.

    Raises:
        DubstageError: the database cannot be used, before the work or after work that succeeded.
    """
    ended, failed, cancelled = _ENDS[begun.event]
    await in_thread(lambda: log.record(begun, continues=continues))
    end = replace(begun, event=ended, actor_ids=(), consents=(), details={})
    note = WorkRecord((), {})
    try:
        yield note
    except BaseException as problem:
        if isinstance(problem, asyncio.CancelledError | GeneratorExit | WorkCancelledError):
            last = replace(end, event=cancelled)
        else:
            error = error_status.domain_error(problem) if isinstance(problem, Exception) else None
            last = replace(end, event=failed, details={"reason": error.reason if error is not None else ""})
        try:
            await in_thread(lambda: log.record(replace(last, details={**note.details, **last.details}), continues=begun.work))
        except DubstageError as unwritten:
            # The caller learns why the work failed. The beginning without an end shows what is missing.
            _log.error("audit_entry_not_written", audit_event=str(last.event), work=begun.work, message=unwritten.message)
        raise
    last = replace(end, outputs=note.outputs, details=note.details)
    await in_thread(lambda: log.record(last, continues=begun.work))


def watermark_details(watermark: VideoWatermark) -> dict[str, str | int | bool]:
    """Return what the entry of a finished video says of its watermark: whether the setting was on, and what the watermark says."""
    payload = {"watermark_payload": watermark.payload} if watermark.payload else {}
    return {"watermark": watermark.on, **payload}
