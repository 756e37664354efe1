"""A gateway sends batches to the API of Kubernetes, and shows, changes and removes them there."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from opentelemetry import trace

from dubstage.client import batch
from dubstage.gateway.v1 import batch_pb2 as pb
from gateway.api.batch_service import BatchServicer
from gateway.api.batches import CLUSTER_BATCH, Batches, outputs_of
from gateway.api.context import OpenedStages, ProcessContext, TenantStorage
from gateway.api.webhooks import write_event
from gateway.batch.store import BatchStore
from gateway.operations.store import OperationStore
from gateway.settings import GatewaySettings
from gateway.tenants.limits import Limits
from gateway.webhooks.store import EventType, WebhookStore
from services.common.errors import InvalidRequestError
from tests.contract.kubernetes.conftest import config_map
from tests.contract.kubernetes.job_api import JobApi
from tests.integration.client_calls import until

T = TypeVar("T")
JOB = "dubstage-shots-0-0"
Call = Callable[[Callable[[BatchServicer], Coroutine[Any, Any, T]]], T]


@pytest.fixture
def request_of_three(api: JobApi, store: BatchStore, tmp_path: Path) -> pb.SubmitBatchRequest:
    """Three rows with footage on a volume that the pods mount where the gateway has its media folder."""
    plates = tmp_path / "plates"
    plates.mkdir()
    (plates / "a.mp4").write_bytes(b"no video")
    mount = {"name": "plates", "mountPath": str(plates)}
    api.put("configmaps", config_map(volume_mounts=[mount], volumes=[{"name": "plates", "emptyDir": {}}]))
    rows = [batch.row(f"sh{row}", footage="a.mp4", output=f"out{row}.mp4") for row in range(3)]
    return pb.SubmitBatchRequest(batch_id="shots", rows=rows, engine=pb.BATCH_ENGINE_KUBERNETES, workers=2)


@pytest.fixture
def settings(store: BatchStore, tmp_path: Path) -> GatewaySettings:
    return GatewaySettings(data_dir=tmp_path / "gateway", media_dir=tmp_path / "plates")


@pytest.fixture
def installation(settings: GatewaySettings) -> Iterator[TenantStorage]:
    found = TenantStorage(settings, Limits(None))
    yield found
    found.close()


@pytest.fixture
def call(settings: GatewaySettings, installation: TenantStorage) -> Call[Any]:
    """Call the RPCs of a gateway that dubs nothing itself, and begins for each call."""

    def run(work: Callable[[BatchServicer], Coroutine[Any, Any, T]]) -> T:
        async def once() -> T:
            shared = ProcessContext.of(settings, OpenedStages(settings))
            batches = Batches(settings, installation.context, shared, write_event)
            await batches.start(trace.NoOpTracer())
            try:
                return await work(BatchServicer(settings, installation.context, batches, shared.long_calls))
            finally:
                await batches.stop()

        return asyncio.run(once())

    return run


def test_batch_life_over_gateway(api: JobApi, request_of_three: pb.SubmitBatchRequest, call: Call[Any], tmp_path: Path) -> None:
    """A batch is sent, shown, cancelled, retried and removed."""
    sent = call(lambda gateway: gateway.SubmitBatch(request_of_three, None)).batch
    assert (sent.engine, sent.num_shots, sent.progress.num_waiting) == (pb.BATCH_ENGINE_KUBERNETES, 3, 3)
    assert api.job(JOB)["spec"]["parallelism"] == 2

    cancelled = call(lambda gateway: gateway.CancelBatch(pb.CancelBatchRequest(name="batches/shots", shot_ids=["sh2"]), None))
    assert cancelled.progress.num_cancelled == 1
    with pytest.raises(InvalidRequestError, match="2 shots of batch shots have not ended"):
        call(lambda gateway: gateway.DeleteBatch(pb.DeleteBatchRequest(name="batches/shots"), None))

    api.finish(JOB, completed="2", failed="0-1")
    ended = call(lambda gateway: gateway.GetBatch(pb.GetBatchRequest(name="batches/shots"), None))
    assert (ended.progress.num_failed, ended.progress.num_cancelled) == (2, 1)

    again = call(lambda gateway: gateway.RetryBatch(pb.RetryBatchRequest(name="batches/shots", shot_ids=["sh1"]), None))
    assert (again.progress.num_failed, again.progress.num_waiting) == (1, 1)
    api.finish("dubstage-shots-1-0", completed="", failed="0")

    call(lambda gateway: gateway.DeleteBatch(pb.DeleteBatchRequest(name="batches/shots"), None))
    assert not call(lambda gateway: gateway.ListBatches(pb.ListBatchesRequest(), None)).batches


def test_end_of_batch_is_one_event(api, request_of_three, call, installation) -> None:
    """The end of a batch makes one event, after a new start of the gateway too. Shots that have lost their Job make none."""
    hooks = WebhookStore(installation.context.engine.actors.database)
    hook, _ = hooks.create("https://8.8.8.8/", list(EventType))
    operations = OperationStore(installation.context.engine.actors.database, kinds=(CLUSTER_BATCH,))

    async def until_left_alone(_: BatchServicer) -> None:
        await asyncio.to_thread(until, lambda: not operations.is_written(outputs_of("shots")))

    def events() -> list[str]:
        return [one.subject for one in hooks.deliveries(hook.webhook_id, dead=False, after=0, limit=9) if one.event == "batch.done"]

    call(lambda gateway: gateway.SubmitBatch(request_of_three, None))
    call(lambda gateway: gateway.SubmitBatch(request_of_three, None))
    assert operations.is_written(outputs_of("shots"))
    assert events() == []
    api.finish(JOB, completed="", failed="0-2")
    call(until_left_alone)
    assert events() == ["shots"]

    call(lambda gateway: gateway.RetryBatch(pb.RetryBatchRequest(name="batches/shots", shot_ids=["sh1"]), None))
    del api.objects["jobs", "dubstage-shots-1-0"]
    call(until_left_alone)
    assert events() == ["shots"]
    assert call(lambda gateway: gateway.GetBatch(pb.GetBatchRequest(name="batches/shots"), None)).progress.num_waiting == 1


def test_unreadable_files_name_row(api, store, request_of_three, call, tmp_path) -> None:
    """Files that pods cannot open are reported by their row."""
    api.put("configmaps", config_map())
    with pytest.raises(InvalidRequestError, match=r"row 1 .sh0.: footage: .* is a file that pods cannot open"):
        call(lambda gateway: gateway.SubmitBatch(request_of_three, None))
    assert not call(lambda gateway: gateway.ListBatches(pb.ListBatchesRequest(), None)).batches
