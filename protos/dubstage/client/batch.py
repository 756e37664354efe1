"""Batches of the gateway: many shots, each dubbed once.

with connect("localhost:50050") as connection:
    batch.submit(connection, "night", rows=[batch.row("sh020", footage="sh020.mov", output="out/sh020.mov")])
    for state in batch.watch(connection, "night"):
        print(state.progress)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

from dubstage.client import rpcs
from dubstage.client.calls import download_call, paged_call, unary_call
from dubstage.client.dub import DubOptions, dub_spec, option_fields
from dubstage.client.names import explaining_names, resource_name
from dubstage.gateway.v1 import batch_pb2 as pb
from dubstage.gateway.v1.dub_pb2 import ShotOptions

__all__ = [
    "cancel",
    "delete",
    "get",
    "get_shot",
    "list_batches",
    "list_shots",
    "report",
    "retry",
    "review",
    "row",
    "shot_options",
    "submit",
    "watch",
]

State = Literal["waiting", "running", "done", "undubbed", "failed", "cancelled"]
"""State of a shot."""
Review = Literal["undecided", "approved", "rejected", "assigned"]
"""State of the review of a shot's present video."""


@explaining_names
def row(
    shot_id: str, *, footage: str, output: str, quality: pb.BatchQuality | None = None, **options: Unpack[DubOptions]
) -> pb.BatchRow:
    """Return one shot of a batch.

    Args:
        shot_id: letters, digits, dots, hyphens and underscores; unique in the batch.
        footage: file below the gateway's media folder (a relative path, or a file:// url), or an s3:// url below the gateway's url.
        output: file to write, named like `footage`, unique in the batch; the suffix chooses the container.
        quality: thresholds that mark the finished shot for a person.
        options: as for `gateway.dub`, see `dubstage.client.dub.DubOptions`.
    """
    return pb.BatchRow(shot_id=shot_id, dub=dub_spec(footage=footage, output=output, **options), quality=quality)


@unary_call(rpcs.gateway.SUBMIT_BATCH, lambda reply: reply)
def submit(
    batch_id: str,
    *,
    rows: Sequence[pb.BatchRow] = (),
    manifest: bytes = b"",
    engine: Literal["gateway", "kubernetes"] = "gateway",
    profile: str = "",
    workers: int = 0,
    validate_only: bool = False,
    request_id: str = "",
) -> pb.SubmitBatchRequest:
    """Begin a batch, or continue the batch that has these rows, and return the response with the Batch.

    If rows are wrong, nothing starts: DubstageCallError.violations names the rows and fields, and violation_reasons says of each
    whether a consent record or an actor is the reason.

    Args:
        batch_id: small letters, digits and inner hyphens, at most 40.
        rows: the shots (see `row`); or
        manifest: the shots as JSON lines.
        engine: who dubs the shots: the gateways, or pods of a Kubernetes cluster.
        profile: of the engine kubernetes: kind of the pods; empty: cpu.
        workers: of the engine kubernetes: pods at the same time; 0: as the cluster's settings say.
        validate_only: check the rows only; the response has all mistakes.
        request_id: UUID by which the gateway knows a request that comes again; empty: one is made.
    """
    engines = {"gateway": pb.BATCH_ENGINE_GATEWAY, "kubernetes": pb.BATCH_ENGINE_KUBERNETES}
    return pb.SubmitBatchRequest(
        batch_id=batch_id,
        rows=rows,
        manifest=manifest,
        engine=engines[engine],
        profile=profile,
        workers=workers,
        validate_only=validate_only,
        request_id=request_id,
    )


@unary_call(rpcs.gateway.GET_BATCH, lambda reply: reply)
def get(batch_id: str) -> pb.GetBatchRequest:
    """Return a Batch with its progress."""
    return pb.GetBatchRequest(name=resource_name("batches", batch_id))


@unary_call(rpcs.gateway.GET_SHOT, lambda reply: reply)
def get_shot(batch_id: str, shot_id: str) -> pb.GetShotRequest:
    """Return a Shot of a batch."""
    return pb.GetShotRequest(name=f"{resource_name('batches', batch_id)}/shots/{shot_id}")


@paged_call(rpcs.gateway.LIST_BATCHES, lambda page: page.batches)
def list_batches(*, page_size: int = 0) -> pb.ListBatchesRequest:
    """Yield all Batches in the order of their ids, without their progress.

    Args:
        page_size: batches per page, at most 1000; 0: 100.
    """
    return pb.ListBatchesRequest(page_size=page_size)


@paged_call(rpcs.gateway.LIST_SHOTS, lambda page: page.shots)
def list_shots(
    batch_id: str,
    *,
    states: Sequence[State] = (),
    to_look_at: bool = False,
    review_states: Sequence[Review] = (),
    assignee: str = "",
    order_by: Literal["row", "risk", "name"] = "row",
    thumbnails: bool = False,
    after_shot: str = "",
    page_size: int = 0,
) -> pb.ListShotsRequest:
    """Yield the Shots of a batch.

    Args:
        states: only shots in one of these states; empty: all.
        to_look_at: only shots that a person should look at: marked by the quality thresholds, or without a dubbed frame.
        review_states: only shots in one of these states of review; empty: all.
        assignee: only shots that are assigned to this person; empty: all.
        order_by: by row, by risk with the highest first, or by id.
        thumbnails: with the pictures of the videos.
        after_shot: id of a shot behind which the list begins; empty: the list begins with the first shot.
        page_size: shots per page, at most 1000; 0: 100.
    """
    return pb.ListShotsRequest(
        parent=resource_name("batches", batch_id),
        states=[pb.ShotState.Value(f"SHOT_STATE_{state.upper()}") for state in states],
        to_look_at=to_look_at,
        review_states=[pb.ReviewState.Value(f"REVIEW_STATE_{state.upper()}") for state in review_states],
        assignee=assignee,
        order_by=pb.ShotOrder.Value(f"SHOT_ORDER_{order_by.upper()}"),
        thumbnails=thumbnails,
        after_shot=after_shot,
        page_size=page_size,
    )


@unary_call(rpcs.gateway.REVIEW_SHOT, lambda reply: reply)
def review(
    batch_id: str,
    shot_id: str,
    *,
    state: Literal["approved", "rejected", "assigned"],
    note: str = "",
    frame: int | None = None,
    region: tuple[float, float, float, float] | None = None,
    reviewer: str = "",
    assignee: str = "",
    output_sha256: str = "",
) -> pb.ReviewShotRequest:
    """Return the Shot with a new decision about its present video.

    Args:
        state: what is decided.
        note: text of at most 4000 characters.
        frame: frame that the note is about, from 0; None: the whole video.
        region: x, y, width and height of the part of the picture that the note is about, shares from 0 to 1; None: all of it.
        reviewer: name of the person who decides.
        assignee: person who is to look at the shot; only with "assigned".
        output_sha256: digest of the video that was looked at; if the shot has another one now, the decision is refused. Empty: the
            present video.
    """
    x, y, width, height = region or (0.0, 0.0, 1.0, 1.0)
    return pb.ReviewShotRequest(
        name=f"{resource_name('batches', batch_id)}/shots/{shot_id}",
        state=pb.ReviewState.Value(f"REVIEW_STATE_{state.upper()}"),
        note=note,
        frame=frame,
        region=None if region is None else pb.ReviewRegion(x=x, y=y, width=width, height=height),
        reviewer=reviewer,
        assignee=assignee,
        output_sha256=output_sha256,
    )


@download_call(rpcs.gateway.WATCH_BATCH, lambda reply: (reply.batch,))
def watch(batch_id: str) -> pb.WatchBatchRequest:
    """Yield a Batch, and again when its progress has changed, until all shots have ended."""
    return pb.WatchBatchRequest(name=resource_name("batches", batch_id))


@unary_call(rpcs.gateway.CANCEL_BATCH, lambda reply: reply)
def cancel(batch_id: str, *, shot_ids: Sequence[str] = ()) -> pb.CancelBatchRequest:
    """Ask the shots to stop, or all shots that have not ended, and return the Batch."""
    return pb.CancelBatchRequest(name=resource_name("batches", batch_id), shot_ids=shot_ids)


@unary_call(rpcs.gateway.RETRY_BATCH, lambda reply: reply)
def retry(
    batch_id: str, *, shot_ids: Sequence[str] = (), rejected: bool = False, options: ShotOptions | None = None
) -> pb.RetryBatchRequest:
    """Begin shots anew, or all that failed, were cancelled or have no dubbed frame, and return the Batch.

    Args:
        shot_ids: shots that begin anew.
        rejected: the shots whose present videos are rejected begin anew, and no others than `shot_ids`.
        options: other options for the one shot of `shot_ids` (see `shot_options`).
    """
    name = resource_name("batches", batch_id)
    return pb.RetryBatchRequest(name=name, shot_ids=shot_ids, rejected=rejected, options=options)


@explaining_names
def shot_options(**options: Unpack[DubOptions]) -> ShotOptions:
    """Return options of a shot for `retry`. Options that are not given, and an empty face, stay as they are.

    Raises:
        ValueError: an option cannot change between two dubs of a shot.

    Args:
        options: as for `gateway.dub`. The expression 0 is the method's.
    """
    return ShotOptions(**option_fields(**options))


@unary_call(rpcs.gateway.DELETE_BATCH, lambda reply: None)
def delete(batch_id: str) -> pb.DeleteBatchRequest:
    """Erase the rows, records and pictures of a batch whose shots have all ended. The videos stay."""
    return pb.DeleteBatchRequest(name=resource_name("batches", batch_id))


@download_call(rpcs.gateway.GET_REPORT, lambda reply: (reply,))
def report(batch_id: str, *, file: Literal["all", "csv", "json"] = "all") -> pb.GetReportRequest:
    """Yield the files of the report in pieces (GetReportResponse: path, data). The pieces of one file follow each other.

    Args:
        file: the page with its pictures and both tables, shots.csv alone, or shots.json alone.
    """
    return pb.GetReportRequest(
        name=resource_name("batches", batch_id), format=pb.ReportFormat.Value(f"REPORT_FORMAT_{file.upper()}")
    )
