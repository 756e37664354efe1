"""The engine against an emulator of Kubernetes that others wrote (kmock): what it stores, refuses, lists and removes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kmock
import pytest

from gateway.batch.kubernetes.engine import KubernetesEngine, Submitted, open_engine
from gateway.batch.store import BatchStore
from gateway.batch.types import ShotRecord, ShotState
from services.common.errors import ClusterRefusedError
from tests.contract.kubernetes.conftest import config_map, kubeconfig
from tests.contract.kubernetes.job_api import NAMESPACE

JOB = "dubstage-night-1-0-0"


class Emulator:
    """The emulator, in an event loop of its own."""

    def __init__(self) -> None:
        self.url = ""
        self.state: Any = None
        self._ready, self._end = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        async with kmock.KubernetesEmulator() as self.state, kmock.Server(self.state) as server:
            self.url = str(server.url).rstrip("/")
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            await self._end.wait()

    def __enter__(self) -> Emulator:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)


@pytest.fixture
def emulator(store: BatchStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator() as found:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, found.url)))
        found.state.resources["batch/v1/jobs"] = {"kind": "Job", "namespaced": True}
        found.state.resources["v1/configmaps"] = {"kind": "ConfigMap", "namespaced": True}
        found.state.objects["v1/configmaps", NAMESPACE, "dubstage-batch"] = config_map()
        yield found


@pytest.fixture
def outside(emulator: Emulator) -> KubernetesEngine:
    return open_engine()


def test_a_batch_is_sent_once_continued_and_cancelled(emulator, outside, store, batch) -> None:
    jobs = emulator.state.objects
    assert outside.submit(store, batch).jobs == (JOB,)
    assert outside.submit(store, batch) == Submitted((), 0)
    assert jobs["batch/v1/jobs", NAMESPACE, JOB]["spec"]["completions"] == 5

    store.put(batch, ShotRecord(id="sh00004", state=ShotState.FAILED))
    jobs["batch/v1/jobs", NAMESPACE, JOB].patch({"status": {"completedIndexes": "0", "failedIndexes": "4"}})
    assert outside.retry(store, batch, ["sh00004"]).jobs == ("dubstage-night-1-1-0",)

    outside.cancel(store, batch)
    assert outside.snapshot(store, batch).jobs == ()
    assert outside.snapshot(store, batch).left == {}
    assert {record.state for record in store.records(batch)} == {ShotState.CANCELLED}


def test_existing_job_of_same_batch(emulator: Emulator, outside: KubernetesEngine, store: BatchStore, batch: str) -> None:
    """A name that is taken is no error for the same batch."""
    outside.submit(store, batch)
    assert outside.cluster.create_job(emulator.state.objects["batch/v1/jobs", NAMESPACE, JOB].raw) is False
    assert outside.cluster.job(JOB)["metadata"]["annotations"]["dubstage.io/rows"] == "0-4"


def test_a_forbidden_call_names_the_permission(emulator, outside, store, batch) -> None:
    emulator.state["post", kmock.resource("batch/v1/jobs")] << 403
    with pytest.raises(ClusterRefusedError, match=r"resources: \[jobs\], verbs: \[create\]"):
        outside.submit(store, batch)
