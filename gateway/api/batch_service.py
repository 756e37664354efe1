"""RPCs of BatchService: their messages, their pages, the rows that callers submit, and the files of reports in pieces."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from google.protobuf import empty_pb2

from dubstage.client.arrays import rational
from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import batch_pb2 as pb
from dubstage.gateway.v1 import batch_pb2_grpc, gateway_pb2
from dubstage.gateway.v1.dub_pb2 import LineSpec
from gateway.api.batches import Batches, BatchView
from gateway.api.context import TenantContext
from gateway.api.operations import page_number_from, page_size_from, request_identity
from gateway.api.resources import BATCHES, duration_message, id_of, optional_duration, seconds_of, time_message
from gateway.async_utilities import in_thread
from gateway.batch import changes
from gateway.batch.lists import ListedShot, Order, ShotQuery
from gateway.batch.manifest import ActorLookup, Mistake, batch_name, in_order, lines_at, row_mistakes, shot_of, shots_by_line
from gateway.batch.records import Progress
from gateway.batch.report import row_of, write_json, write_report, writing_csv
from gateway.batch.reviews import Decision, ReviewState, Verdict, decision_of, region_from
from gateway.batch.risk import reasons_of, risk_of
from gateway.batch.store import BatchStore, risk_number
from gateway.batch.types import (
    BatchFacts,
    Manifest,
    Quality,
    ShotFinish,
    ShotMotion,
    ShotRecord,
    ShotSpec,
    ShotState,
    manifest_of,
    options_in,
)
from gateway.dub.request.spec_text import LINE, ROW, ROWS, options_of, plain
from gateway.settings import GatewaySettings
from gateway.tenants.long_calls import LongCalls
from gateway.times import now_ms
from services.common.errors import InvalidRequestError
from services.common.server.call_context import current_caller

ForCaller = Callable[[str], str]
"""Returns a text without the server's folders and without words of the command line."""

_ENGINES: Final = {
    "gateway": pb.BATCH_ENGINE_GATEWAY,
    "kubernetes": pb.BATCH_ENGINE_KUBERNETES,
    "local": pb.BATCH_ENGINE_LOCAL,
    "farm": pb.BATCH_ENGINE_FARM,
}
_STATES: Final = {
    ShotState.WAITING: pb.SHOT_STATE_WAITING,
    ShotState.RUNNING: pb.SHOT_STATE_RUNNING,
    ShotState.DONE: pb.SHOT_STATE_DONE,
    ShotState.UNDUBBED: pb.SHOT_STATE_UNDUBBED,
    ShotState.FAILED: pb.SHOT_STATE_FAILED,
    ShotState.CANCELLED: pb.SHOT_STATE_CANCELLED,
}


_REVIEWS: Final = {
    ReviewState.UNDECIDED: pb.REVIEW_STATE_UNDECIDED,
    ReviewState.APPROVED: pb.REVIEW_STATE_APPROVED,
    ReviewState.REJECTED: pb.REVIEW_STATE_REJECTED,
    ReviewState.ASSIGNED: pb.REVIEW_STATE_ASSIGNED,
}
_DECISIONS: Final = {number: state for state, number in _REVIEWS.items()}
_ROW_DIGITS: Final = 9
"""Most digits of the numbers in page tokens of shots."""
_ORDERS: Final[Mapping[int, Order]] = {
    pb.SHOT_ORDER_UNSPECIFIED: "row",
    pb.SHOT_ORDER_ROW: "row",
    pb.SHOT_ORDER_RISK: "risk",
    pb.SHOT_ORDER_NAME: "name",
}
PIECE_BYTES: Final = 256 << 10
"""Most bytes of one piece."""
MOST_REPORTS: Final = 2
"""Most reports that one gateway writes at once for a tenant. Further calls wait."""
MOST_MISTAKES: Final = 10_000
"""Most mistakes of one answer."""


def batch_message(
    facts: BatchFacts,
    progress: Progress | None = None,
    notes: Sequence[str] = (),
    reviews: Mapping[ReviewState, int] | None = None,
) -> pb.Batch:
    """Return the message of a batch.

    Args:
        facts: what the batch is.
        progress: its progress; None: not asked for.
        notes: why something waits, for a person.
        reviews: number of shots by state of review.
    """
    return pb.Batch(
        name=f"{BATCHES}/{facts.name}",
        engine=_ENGINES[facts.engine],
        num_shots=facts.rows,
        create_time=time_message(facts.created_at),
        rows_sha256=facts.manifest_sha256,
        progress=None if progress is None else _progress_message(progress, reviews or {}),
        notes=notes,
    )


def shot_message(batch: str, row: int, record: ShotRecord, for_caller: ForCaller, review: Decision | None = None) -> pb.Shot:
    """Return the message of a shot.

    Args:
        batch: id of the batch.
        row: row of the shot, from 0.
        record: facts about the shot.
        for_caller: returns a text as callers may see it.
        review: decision about the present video; None: undecided.
    """
    reasons = common_pb2.FrameReason.items()
    by_name = {name.removeprefix("FRAME_REASON_"): value for name, value in reasons}
    return pb.Shot(
        row=row,
        name=f"{BATCHES}/{batch}/shots/{record.id}",
        state=_STATES[record.state],
        attempts=record.attempts,
        worker=record.worker,
        begin_time=time_message(record.begun_at),
        end_time=time_message(record.ended_at),
        try_duration=duration_message(record.seconds) if record.ended_at else None,
        num_frames=record.frames,
        num_dubbed=record.frames_dubbed,
        reasons=[
            gateway_pb2.ReasonCount(reason=by_name[name.upper()], num_frames=count)
            for name, count in sorted(record.frames_by_reason.items())
        ],
        output_uri=for_caller(record.output),
        output_sha256=record.output_sha256,
        method=record.method,
        r_opening=record.r_opening,
        warnings=map(for_caller, record.warnings),
        look=map(for_caller, record.look),
        error=for_caller(record.error),
        motion=_motion_message(record.motion) if record.motion is not None else None,
        appearance=pb.DubAppearance(**record.appearance.model_dump()) if record.appearance is not None else None,
        risk=risk_of(record),
        review=_review_message(review) if review is not None else None,
        frame_rate=rational(Fraction(record.frame_rate)) if record.frame_rate else None,
        finish=_finish_message(record.finish) if record.finish is not None else None,
    )


def _review_message(decision: Decision) -> pb.ShotReview:
    return pb.ShotReview(
        state=_REVIEWS[decision.state],
        note=decision.note,
        frame=decision.frame,
        region=pb.ReviewRegion(**decision.region.model_dump()) if decision.region is not None else None,
        reviewer=decision.reviewer,
        caller=decision.caller,
        assignee=decision.assignee,
        decide_time=time_message(decision.decided_at),
        output_sha256=decision.output_sha256,
        number=decision.number,
    )


def _finish_message(finish: ShotFinish) -> pb.DubFinish:
    facts = finish.model_dump()
    lateness = facts.pop("lateness_ms")
    return pb.DubFinish(**facts, lateness=None if lateness is None else duration_message(lateness / 1000))


def shown_shot(store: BatchStore, batch: str, shot_id: str, for_caller: ForCaller) -> pb.Shot:
    """Return the message of one shot with all that GetShot tells. Blocks.

    Args:
        store: store of batches.
        batch: id of the batch.
        shot_id: id of the shot.
        for_caller: returns a text as callers may see it.

    Raises:
        BatchNotFoundError: there is no such batch or shot.
        DubstageError: the store of batches cannot be used.
    """
    changes.ask_cluster(store, store.facts(batch))
    listed = store.shot_in_list(batch, shot_id)
    shot, message = listed.shot, listed_message(batch, listed, for_caller)
    message.quality.CopyFrom(_quality_message(shot.quality))
    message.options.CopyFrom(options_of(shot.with_options(options_in(store.options(batch, shot_id))).dub))
    if (earlier := store.earlier(batch, [shot_id]).get(shot_id)) is not None:
        options = options_of(shot.with_options(options_in(earlier.options)).dub)
        message.earlier.CopyFrom(
            pb.EarlierVideo(output_uri=for_caller(earlier.place), output_sha256=earlier.sha256, options=options)
        )
    message.reviews.extend(map(_review_message, store.decisions(batch, shot_id)))
    message.risk_reasons.extend(map(for_caller, reasons_of(listed.record)))
    return message


def listed_message(batch: str, listed: ListedShot, for_caller: ForCaller) -> pb.Shot:
    """Return the message of a shot as lists tell it.

    Args:
        batch: id of the batch.
        listed: the shot.
        for_caller: returns a text as callers may see it.
    """
    message = shot_message(batch, listed.row, listed.record, for_caller, listed.decision)
    message.footage_uri = for_caller(listed.shot.dub.footage_uri)
    return message


def _quality_message(quality: Quality) -> pb.BatchQuality:
    limits = quality.model_dump(exclude_none=True)
    shift = limits.pop("max_shift_ms", None)
    return pb.BatchQuality(**limits, max_shift=None if shift is None else duration_message(shift / 1000))


def _motion_message(motion: ShotMotion) -> pb.DubMotion:
    facts = motion.model_dump()
    for name in ("vowel_shift", "closure_shift"):
        shift = facts.pop(f"{name}_ms")
        facts[name] = None if shift is None else duration_message(shift / 1000)
    return pb.DubMotion(**facts)


def query_of(store: BatchStore, batch: str, request: pb.ListShotsRequest) -> ShotQuery:
    """Return the shots that a request lists. Blocks.

    The list begins behind the shot that the page before ended with, so that a page may have other shots if risks change meanwhile,
    and none is shown twice.

    Raises:
        BatchNotFoundError: there is no such batch, or no shot with the id that the list begins behind.
        InvalidRequestError: this gateway gave no such page token.
    """
    behind: tuple[int, int] | None = None
    if request.page_token:
        is_risk = request.order_by == pb.SHOT_ORDER_RISK
        behind = risk_from(request.page_token) if is_risk else (page_number_from(request.page_token, _ROW_DIGITS), 0)
    elif request.after_shot:
        listed = store.shot_in_list(batch, request.after_shot)
        behind = listed.row, risk_number(listed.record)
    return ShotQuery(
        states=[state for state, number in _STATES.items() if number in request.states],
        to_look_at=request.to_look_at,
        reviews=[state for state, number in _REVIEWS.items() if number in request.review_states],
        assignee=request.assignee or None,
        order=_ORDERS[request.order_by],
        behind=behind,
    )


def page_token_of(shot: ListedShot, order: int) -> str:
    """Return the token of the page behind a shot."""
    return f"{risk_number(shot.record)}-{shot.row}" if order == pb.SHOT_ORDER_RISK else str(shot.row)


def risk_from(page_token: str) -> tuple[int, int]:
    """Return the row, and the risk in ten thousandths, of the shot that the page before ended with.

    Raises:
        InvalidRequestError: this gateway gave no such token.
    """
    risk, dash, row = page_token.partition("-")
    if not dash:
        raise InvalidRequestError("give the next_page_token of an earlier answer of the same order", field="page_token", named=True)
    return page_number_from(row, _ROW_DIGITS), page_number_from(risk, _ROW_DIGITS)


def _for_caller(listed: ListedShot, for_caller: ForCaller) -> ListedShot:
    """Return a shot as callers may see it: files have the names that callers use."""
    record = listed.record.model_copy(
        update={
            "output": for_caller(listed.record.output),
            "error": for_caller(listed.record.error),
            "warnings": tuple(map(for_caller, listed.record.warnings)),
            "look": tuple(map(for_caller, listed.record.look)),
        }
    )
    uris = {field: for_caller(uri) for field, uri in listed.shot.uris.items()}
    return listed._replace(shot=listed.shot.with_uris(uris), record=record)


def _progress_message(progress: Progress, reviews: Mapping[ReviewState, int]) -> pb.BatchProgress:
    return pb.BatchProgress(
        num_waiting=progress.waiting,
        num_running=progress.running,
        num_done=progress.done,
        num_undubbed=progress.undubbed,
        num_failed=progress.failed,
        num_cancelled=progress.cancelled,
        num_to_look_at=progress.look,
        num_frames=progress.frames,
        frames_per_second=progress.frames_per_second,
        remaining=optional_duration(progress.seconds_left),
        fraction=progress.ended_share,
        num_approved=reviews.get(ReviewState.APPROVED, 0),
        num_rejected=reviews.get(ReviewState.REJECTED, 0),
        num_assigned=reviews.get(ReviewState.ASSIGNED, 0),
    )


class RowReader:
    """Checks the rows of requests.

    Args:
        context: what the operations work with.
    """

    def __init__(self, context: TenantContext) -> None:
        self._actors = context.engine.actors
        self._locations = context.media.locations
        self._names = context.names

    def read(self, request: pb.SubmitBatchRequest) -> Manifest | tuple[Mistake, ...]:
        """Return the manifest of a request, or all mistakes of its rows. Blocks.

        Lines and fields of the mistakes are those of RowMistake.

        Raises:
            InvalidRequestError: the name of the batch is not allowed, or the request has no rows, or rows of both kinds.
            StorageRefusedError, BackendUnavailableError: the database of actors, or the store of a URL, cannot be used.
        """
        name = checked_batch_id(request.batch_id, "batch_id")
        if bool(request.rows) == bool(request.manifest):
            raise InvalidRequestError("give either rows or a manifest, with one shot or more", field="rows", named=True)
        shots, mistakes = self._of_manifest(request.manifest) if request.manifest else _of_rows(request.rows)
        placed: dict[int, ShotSpec] = {}
        for line, shot in shots.items():
            absolute_shot, wrong = self._placed(line, shot)
            mistakes += wrong
            if not wrong:
                placed[line] = absolute_shot
        people = ActorLookup(self._actors)
        mistakes += row_mistakes(placed, people.method_of, check_files=True)
        if mistakes:
            return tuple(self._mistake_for_caller(mistake, of_rows=bool(request.rows)) for mistake in in_order(mistakes))
        if not placed:
            raise InvalidRequestError(
                "there are no rows: write one JSON object a line, one for each shot", field="manifest", named=True
            )
        return manifest_of(name, placed.values())

    def _placed(self, line: int, shot: ShotSpec) -> tuple[ShotSpec, list[Mistake]]:
        """Return a shot whose files are absolute paths and URLs that callers may name, or the mistakes."""
        locations: dict[str, str] = {}
        mistakes = []
        if shot.words is not None:
            mistakes.append(Mistake(line, "say", "a gateway starts no command that speaks: give the speech as a file"))
        for field, uri in shot.uris.items():
            try:
                if field == "output":  # the worker makes the folder
                    locations[field] = self._locations.output(uri, field, new_folder=True)
                else:
                    locations[field] = self._locations.source(uri, field)
            except InvalidRequestError as error:
                mistakes.append(Mistake(line, field, error.said(ROWS)))
        return shot.with_uris(locations), mistakes

    def _of_manifest(self, content: bytes) -> tuple[dict[int, ShotSpec], list[Mistake]]:
        def read(uri: str) -> list[LineSpec]:
            return lines_at(self._locations.source(uri, "lines"))

        return shots_by_line(content.removeprefix(b"\xef\xbb\xbf"), shown_name="manifest", read=read)

    def _mistake_for_caller(self, mistake: Mistake, *, of_rows: bool) -> Mistake:
        field = _field_of_row(mistake.field) if of_rows else mistake.field
        return replace(mistake, field=field, text=self._names.for_caller(mistake.text))


def _field_of_row(word: str) -> str:
    """Return the field of BatchRow, or of its DubSpec, for a field of a manifest's row."""
    first, dot, rest = word.partition(".")
    if word == "id":
        return "shot_id"
    if first in ("quality", "row"):
        return word.removesuffix("_ms")
    name = rest if dot else first
    if name in ("consent", "reference_consent"):
        name = f"{name}_uri"
    elif name not in ("face", "start"):  # fields that a oneof holds
        name = (LINE if dot else ROW).get(name, name)
    return f"{first}.{name}" if dot else name


def rows_error(mistakes: Sequence[Mistake], *, of_rows: bool) -> InvalidRequestError:
    """Return the error for a batch whose rows have mistakes.

    Args:
        mistakes: one mistake or more, as RowMistake tells them.
        of_rows: whether they are mistakes of `rows`; False: of lines of `manifest`.
    """
    fields = [f"rows[{one.line - 1}].{one.field}" if of_rows else f"manifest[{one.line}].{one.field}" for one in mistakes]
    count = f" ({len(mistakes)} mistakes in all, this is the first; nothing was started)" if len(mistakes) > 1 else ""
    kind = "row" if of_rows else "line"
    first = mistakes[0]
    return InvalidRequestError(
        f"{kind} {first.line}: {first.field}: {first.text[:300]}{count}",
        field=fields[0],
        violations=[(field, one.text[:300]) for field, one in zip(fields, mistakes, strict=True)],
        reasons=[one.reason for one in mistakes],
    )


def _of_rows(rows: Sequence[pb.BatchRow]) -> tuple[dict[int, ShotSpec], list[Mistake]]:
    shots: dict[int, ShotSpec] = {}
    mistakes: list[Mistake] = []
    for line, message in enumerate(rows, 1):
        limits = {field.name: value for field, value in message.quality.ListFields()}
        if (shift := limits.pop("max_shift", None)) is not None:
            limits["max_shift_ms"] = 1000 * seconds_of(shift)
        named = {"footage": message.dub.footage_uri, "output": message.dub.output_uri}
        shot, wrong = shot_of(line, {"id": message.shot_id or None, "quality": limits, **{k: v or None for k, v in named.items()}})
        mistakes += wrong
        if shot is not None:
            shots[line] = replace(shot, dub=plain(message.dub))
    return shots, mistakes


def write_files(store: BatchStore, facts: BatchFacts, wanted: int, for_caller: ForCaller, folder: Path) -> None:
    """Write the files of a report. Blocks.

    Args:
        store: store of batches.
        facts: the batch.
        wanted: number of ReportFormat.
        for_caller: returns a text as callers may see it.
        folder: an empty folder.

    Raises:
        StorageFullError: no space is left.
        DubstageError: the store of batches cannot be used.
    """
    shots = (_for_caller(listed, for_caller) for listed in store.each_shot(facts.name))
    rows = (row_of(shot, None) for shot in shots)
    match wanted:
        case pb.REPORT_FORMAT_CSV:
            deque(writing_csv(rows, folder / "shots.csv"), maxlen=0)
        case pb.REPORT_FORMAT_JSON:
            write_json(facts, rows, folder / "shots.json")
        case _:
            write_report(facts, shots, partial(store.thumbnails, facts.name), folder)


async def pieces(folder: Path) -> AsyncGenerator[pb.GetReportResponse, None]:
    """Yield the files of a folder, the page first, each in pieces of at most PIECE_BYTES. An empty file has one empty piece."""
    files = sorted(path for path in await in_thread(lambda: list(folder.rglob("*"))) if path.is_file())
    for path in sorted(files, key=lambda one: one.suffix != ".html"):
        name = path.relative_to(folder).as_posix()
        with path.open("rb") as file:
            data = await in_thread(file.read, PIECE_BYTES)
            while True:
                yield pb.GetReportResponse(path=name, data=data)
                data = await in_thread(file.read, PIECE_BYTES)
                if not data:
                    break


class BatchServicer(batch_pb2_grpc.BatchServiceServicer):
    """Submits, shows, changes and removes batches.

    Args:
        settings: settings of the process.
        context: what the operations work with.
        long_calls: long calls of all tenants.
    """

    def __init__(self, settings: GatewaySettings, context: TenantContext, batches: Batches, long_calls: LongCalls) -> None:
        self._may_use_cluster = settings.is_default_tenant
        self._context = context
        self._batches = batches
        self._rows = RowReader(context)
        self._long_calls = long_calls
        self._reports = asyncio.Semaphore(MOST_REPORTS)

    async def SubmitBatch(self, request: pb.SubmitBatchRequest, context: Any) -> pb.SubmitBatchResponse:  # noqa: N802
        """Check all rows, then give the shots to the engine."""
        engine, identity = _engine_from(request), request_identity(request)
        if await self._batches.has_begun(identity):
            view = await self._batches.view(checked_batch_id(request.batch_id, "batch_id"))
            return pb.SubmitBatchResponse(batch=self._message(view))
        if engine == "kubernetes" and not self._may_use_cluster:
            raise InvalidRequestError(
                "pods work for the default tenant alone: choose the engine GATEWAY", field="engine", named=True
            )
        checked = await in_thread(self._rows.read, request)
        if request.validate_only:
            wrong = () if isinstance(checked, Manifest) else checked[:MOST_MISTAKES]
            mistakes = [pb.RowMistake(line=one.line, field=one.field, description=one.text, reason=one.reason) for one in wrong]
            return pb.SubmitBatchResponse(mistakes=mistakes)
        if not isinstance(checked, Manifest):
            raise rows_error(checked, of_rows=bool(request.rows))
        await self._context.quota.check_storage()
        view = await self._batches.submit(checked, engine, profile=request.profile, workers=request.workers, identity=identity)
        return pb.SubmitBatchResponse(batch=self._message(view))

    async def GetBatch(self, request: pb.GetBatchRequest, context: Any) -> pb.Batch:  # noqa: N802
        """Return a batch with its progress."""
        return self._message(await self._batches.view(batch_id_from(request.name)))

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Any) -> pb.ListBatchesResponse:  # noqa: N802
        """List batches in the order of their ids."""
        size = page_size_from(request.page_size)
        if request.page_token:
            checked_batch_id(request.page_token, "page_token")
        facts = [one for one in await in_thread(self._batches.views.store.batches) if one.name > request.page_token]
        token = facts[size - 1].name if len(facts) > size else ""
        return pb.ListBatchesResponse(batches=map(batch_message, facts[:size]), next_page_token=token)

    async def GetShot(self, request: pb.GetShotRequest, context: Any) -> pb.Shot:  # noqa: N802
        """Return one shot with its decisions."""
        return await self._shot(*shot_ids_from(request.name))

    async def ListShots(self, request: pb.ListShotsRequest, context: Any) -> pb.ListShotsResponse:  # noqa: N802
        """List shots, a page at a time."""
        size = page_size_from(request.page_size)
        if request.order_by not in pb.ShotOrder.values():
            raise InvalidRequestError("give ROW, RISK or NAME", field="order_by", named=True)
        return await in_thread(self._page, batch_id_from(request.parent, "parent"), request, size)

    def _page(self, name: str, request: pb.ListShotsRequest, size: int) -> pb.ListShotsResponse:
        store, for_caller = self._batches.views.store, self._context.names.for_caller
        changes.ask_cluster(store, store.facts(name))
        rows = store.shots(name, query_of(store, name, request), size + 1)
        token = page_token_of(rows[size - 1], request.order_by) if len(rows) > size else ""
        pictures = store.thumbnails(name, [one.shot.id for one in rows[:size]]) if request.thumbnails else {}
        shots = []
        for one in rows[:size]:
            message = listed_message(name, one, for_caller)
            message.thumbnail = pictures.get(one.shot.id, b"")
            shots.append(message)
        return pb.ListShotsResponse(shots=shots, next_page_token=token)

    async def ReviewShot(self, request: pb.ReviewShotRequest, context: Any) -> pb.Shot:  # noqa: N802
        """Store a decision about a shot."""
        batch, shot_id = shot_ids_from(request.name)
        await self._batches.review(batch, shot_id, partial(_decision_from, request))
        return await self._shot(batch, shot_id)

    async def _shot(self, batch: str, shot_id: str) -> pb.Shot:
        return await in_thread(shown_shot, self._batches.views.store, batch, shot_id, self._context.names.for_caller)

    async def WatchBatch(self, request: pb.WatchBatchRequest, context: Any) -> AsyncIterator[pb.WatchBatchResponse]:  # noqa: N802
        """Send a batch when its progress has changed, until all shots have ended."""
        name = batch_id_from(request.name)
        with self._long_calls.slot():
            async with aclosing(self._batches.watch(name)) as views:
                async for view in views:
                    yield pb.WatchBatchResponse(batch=self._message(view))

    async def CancelBatch(self, request: pb.CancelBatchRequest, context: Any) -> pb.Batch:  # noqa: N802
        """Cancel shots, or all that have not ended."""
        return self._message(await self._batches.cancel(batch_id_from(request.name), list(request.shot_ids)))

    async def RetryBatch(self, request: pb.RetryBatchRequest, context: Any) -> pb.Batch:  # noqa: N802
        """Let shots begin anew: those that are named or rejected, or all in TO_RETRY."""
        name, ids = batch_id_from(request.name), list(request.shot_ids)
        return self._message(await self._batches.retry(name, ids, rejected=request.rejected, options=request.options))

    async def DeleteBatch(self, request: pb.DeleteBatchRequest, context: Any) -> empty_pb2.Empty:  # noqa: N802
        """Remove a batch whose shots have all ended."""
        await self._batches.remove(batch_id_from(request.name))
        return empty_pb2.Empty()

    async def GetReport(self, request: pb.GetReportRequest, context: Any) -> AsyncIterator[pb.GetReportResponse]:  # noqa: N802
        """Send the files of the report."""
        name = batch_id_from(request.name)
        with self._long_calls.slot():
            async with self._reports, self._batches.scratch_folder() as folder:
                facts = (await self._batches.view(name)).facts
                await in_thread(
                    write_files, self._batches.views.store, facts, request.format, self._context.names.for_caller, folder
                )
                async with aclosing(pieces(folder)) as stream:
                    async for piece in stream:
                        yield piece

    def _message(self, view: BatchView) -> pb.Batch:
        return batch_message(view.facts, view.progress, [self._context.names.for_caller(note) for note in view.notes], view.reviews)


def shot_ids_from(name: str) -> tuple[str, str]:
    """Return the id of the batch and the id of the shot that a request names.

    Raises:
        InvalidRequestError: no batch can have this name.
    """
    batch, _, shot = name.partition("/shots/")
    return batch_id_from(batch), shot


def _decision_from(request: pb.ReviewShotRequest, record: ShotRecord) -> Decision:
    """Return the decision of a request, as the present caller makes it.

    Raises:
        InvalidRequestError: the shot has no finished video, or a value is wrong.
    """
    caller, region = current_caller(), request.region
    said = Verdict(
        state=_DECISIONS.get(request.state, ReviewState.UNDECIDED),
        note=request.note,
        frame=request.frame if request.HasField("frame") else None,
        region=region_from(region.x, region.y, region.width, region.height) if request.HasField("region") else None,
        # The name that a proxy has checked counts in place of the one that the caller gives.
        reviewer=caller.user or request.reviewer,
        assignee=request.assignee,
    )
    by = f"{caller.tenant} {caller.fingerprint}".strip()
    return decision_of(record, said, now=now_ms(), caller=by, seen_sha256=request.output_sha256)


def batch_id_from(name: str, field: str = "name") -> str:
    """Return the id of the batch that a request names.

    Raises:
        InvalidRequestError: no batch can have this name.
    """
    return checked_batch_id(id_of(name, BATCHES, field), field)


def checked_batch_id(text: str, field: str) -> str:
    """Return an id that a batch can have.

    Raises:
        InvalidRequestError: no batch can have this id.
    """
    try:
        return batch_name(text)
    except InvalidRequestError as error:
        error.blame(field)
        raise


def _engine_from(request: pb.SubmitBatchRequest) -> Literal["gateway", "kubernetes"]:
    if request.engine == pb.BATCH_ENGINE_KUBERNETES:
        return "kubernetes"
    if request.engine not in (pb.BATCH_ENGINE_UNSPECIFIED, pb.BATCH_ENGINE_GATEWAY):
        raise InvalidRequestError("a gateway submits to the engines GATEWAY and KUBERNETES", field="engine", named=True)
    for field in ("profile", "workers"):
        if getattr(request, field):
            raise InvalidRequestError(f"{field} is of the engine KUBERNETES: leave it out, or choose that engine", field=field)
    return "gateway"
