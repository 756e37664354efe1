"""A batch through the gateways: submitted, watched to its end, its shots."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from dubstage.gateway.v1 import batch_pb2 as pb
from dubstage.gateway.v1.batch_pb2_grpc import BatchServiceStub
from dubstage.gateway.v1.dub_pb2 import DubSpec
from tests.drill.shots import Cut

T = TypeVar("T")
PATIENCE_S = 180.0
"""Longest time in which no gateway answers."""
CALL_S = 30.0
_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_POLL_S = 0.5


class Batches:
    """Calls to whichever gateway answers."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub: Any = BatchServiceStub(channel)

    def submit(self, name: str, cuts: list[Cut]) -> None:
        """Ask for a video of every shot, below the folder `name`. The footage's own sound is the speech."""
        rows = [
            pb.BatchRow(
                shot_id=cut.id,
                dub=DubSpec(
                    footage_uri=cut.footage,
                    output_uri=f"{name}/{cut.id}.mp4",
                    method=cut.method,
                    skip_personalization=True,
                ),
            )
            for cut in cuts
        ]
        self._ask(lambda: self._stub.SubmitBatch(pb.SubmitBatchRequest(batch_id=name, rows=rows), timeout=CALL_S))

    def wait(self, name: str, on_progress: Callable[[int, int], None]) -> pb.BatchProgress:
        """Wait until all shots have ended; `on_progress` gets the number of ended shots and of all shots."""
        while True:
            found = self._ask(lambda: self._stub.GetBatch(pb.GetBatchRequest(name=f"batches/{name}"), timeout=CALL_S))
            progress: pb.BatchProgress = found.progress
            ended = progress.num_done + progress.num_undubbed + progress.num_failed + progress.num_cancelled
            on_progress(ended, found.num_shots)
            if ended == found.num_shots:
                return progress
            time.sleep(_POLL_S)

    def retry(self, name: str) -> None:
        """Begin the failed shots again, as a person would."""
        self._ask(lambda: self._stub.RetryBatch(pb.RetryBatchRequest(name=f"batches/{name}"), timeout=CALL_S))

    def shots(self, name: str) -> list[pb.Shot]:
        """All shots."""
        reply = self._ask(
            lambda: self._stub.ListShots(pb.ListShotsRequest(parent=f"batches/{name}", page_size=1000), timeout=CALL_S)
        )
        return list(reply.shots)

    def _ask(self, call: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return call()
            except grpc.RpcError as problem:
                if problem.code() not in _AGAIN or time.monotonic() > deadline:  # type: ignore[attr-defined]  # it is a Call as well
                    raise
                time.sleep(_POLL_S)
