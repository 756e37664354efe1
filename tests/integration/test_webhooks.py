"""Webhooks: gateway processes over one PostgreSQL, and a receiver that often fails. No event is lost, and none is forged."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from dubstage.client import Connection, DubstageCallError, batch, connect, webhook
from dubstage.client.names import resource_id
from dubstage.gateway.v1 import gateway_pb2
from dubstage.gateway.v1 import webhook_pb2 as pb
from gateway.api.batches import BATCH, CLUSTER_BATCH, BatchRequest, outputs_of
from gateway.api.operations import DUB
from gateway.api.webhooks import write_event
from gateway.database.session import Database
from gateway.operations.leases import OperationQueue
from gateway.operations.store import OperationRecord, OperationStore
from services.common.errors import WorkCancelledError
from services.common.server import error_status
from tests.contract.kubernetes.conftest import config_map, kubeconfig
from tests.contract.kubernetes.job_api import JobApi, serve
from tests.contract.ports import free_port
from tests.contract.stores.postgres_servers import PostgresServer
from tests.integration.client_calls import until
from tests.integration.server_process import ServerProcess
from tests.integration.servers import RunningStages
from tests.operations import submitted


@dataclass
class Receiver:
    """A real HTTP server that keeps what arrives, and answers as it is told.

    `arrived` has the events that were answered with 204, `forged` the requests whose signature does not verify.
    """

    answer: Callable[[str], int] = lambda event_id: 204
    secrets: dict[str, str] = field(default_factory=dict)
    arrived: Counter[str] = field(default_factory=Counter)
    bodies: dict[str, Any] = field(default_factory=dict)
    raw: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)
    forged: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        event_id = headers.get("webhook-id", "")
        with self.lock:
            self.raw = [(body, headers)]
            try:
                found = Verifier(self.secrets[path]).verify(body, headers)
            except (WebhookVerificationError, KeyError):
                self.forged.append(event_id)
                return 400
            status = self.answer(event_id)
            if status < 300:
                self.arrived[event_id] += 1
                self.bodies[event_id] = found
            else:
                self.refused[event_id] += 1
            return status


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = receiver.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            if status == 302:
                self.send_header("location", receiver.url("/elsewhere"))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@dataclass
class Site:
    """Gateway processes of one database."""

    environment: dict[str, str]
    folder: Path
    store: OperationStore
    batches: OperationStore
    clusters: OperationStore
    ports: list[int] = field(default_factory=lambda: [free_port(), free_port()])
    processes: dict[int, ServerProcess] = field(default_factory=dict)

    def start(self, index: int, **settings: str) -> None:
        own = {"DUBSTAGE_PORT": str(self.ports[index]), **{f"DUBSTAGE_{name.upper()}": value for name, value in settings.items()}}
        self.processes[index] = ServerProcess("gateway", {**self.environment, **own}, self.folder / f"{index}.log")

    def kill(self, index: int) -> None:
        process = self.processes.pop(index)
        process.send(signal.SIGKILL)
        process.ended(timeout=60)

    @contextmanager
    def connected(self, index: int = 0) -> Iterator[Connection]:
        with connect(f"127.0.0.1:{self.ports[index]}", timeout_s=30) as connection:

            def answers() -> bool:
                try:
                    webhook.list_webhooks(connection)
                except DubstageCallError:
                    return False
                return True

            until(answers, seconds=120)
            yield connection

    def end_operation(self, *, fails: bool = False, actor_id: str = "") -> OperationRecord:
        """Lease an operation and end it, as a gateway does."""
        queue = OperationQueue(self.store.database, lease_s=300, kinds=(DUB,))
        new = queue.submit(DUB, b"", actor_id=actor_id, output="", busy=(), free=1, most_waiting=1)
        assert new.mine
        record = new.record
        error = error_status.to_status(WorkCancelledError("the operation was cancelled"), stage="gateway").SerializeToString()
        result = gateway_pb2.DubResult(media_sha256="0" * 64).SerializeToString()
        ended = replace(record, error=error) if fails else replace(record, response=result)
        return self.store.finish(ended, owner=queue.owner)


@pytest.fixture
def site(postgres: PostgresServer, stages: RunningStages, tmp_path: Path) -> Iterator[Site]:
    name = f"webhooks_{os.urandom(4).hex()}"
    postgres.execute(f"CREATE DATABASE {name}")
    data = tmp_path / "data"
    data.mkdir()
    environment = {
        **os.environ,
        "DUBSTAGE_DATABASE_URL": postgres.url(name),
        "DUBSTAGE_DATA_DIR": str(data),
        **{f"DUBSTAGE_{name.upper()}": value for name, value in stages.endpoints().items()},
        "DUBSTAGE_ARTEFACTS_URL": str(stages.artefacts),
        "DUBSTAGE_WEBHOOK_NETWORKS": "127.0.0.0/8",
        "DUBSTAGE_WEBHOOK_RETRY_S": "0.2",
        "DUBSTAGE_LOG_FORMAT": "json",
        "DUBSTAGE_DRAIN_GRACE_S": "0",
    }
    database = Database(postgres.url(name), data)
    dubs, batches = (OperationStore(database, kinds=(kind,), on_end=write_event) for kind in (DUB, BATCH))
    found = Site(environment, tmp_path, dubs, batches, OperationStore(database, kinds=(CLUSTER_BATCH,)))
    try:
        yield found
    finally:
        for index in list(found.processes):
            found.kill(index)
        database.close()


def ids(records: list[OperationRecord]) -> set[str]:
    return {f"msg_{record.name.removeprefix('operations/')}" for record in records}


def registered(connection: Connection, receiver: Receiver, path: str = "/hook", **fields: Any) -> str:
    made = webhook.create(connection, receiver.url(path), **fields)
    receiver.secrets[path] = made.secret
    return resource_id(made.name)


def deliver(site: Site, receiver: Receiver, number: int, kills: int, seconds: float) -> list[OperationRecord]:
    """End operations while gateways are killed, and wait until the receiver has all events."""
    chance = random.Random(7)
    receiver.answer = lambda event_id: 500 if chance.random() < 0.3 else 204
    for index in (0, 1):
        site.start(index)
    with site.connected() as connection:
        hook = registered(connection, receiver)
    with site.connected(1):
        pass
    ended = []
    for count in range(number):
        ended.append(site.end_operation(fails=count % 5 == 0))
        if count % (number // (kills + 1)) == number // (kills + 1) - 1 and kills:
            victim = count % 2
            site.kill(victim)
            site.start(victim)
            kills -= 1
    expected = ids(ended)
    until(lambda: receiver.arrived.keys() >= expected, seconds=seconds)
    with site.connected() as connection:
        until(lambda: not list(webhook.list_deliveries(connection, hook)), seconds=120)
    assert receiver.arrived.keys() == expected
    assert receiver.forged == []
    return ended


def test_killed_gateway_loses_no_event(site: Site, receiver: Receiver) -> None:
    """A receiver fails 30 % of the requests, and a gateway is killed. Each event arrives, signed, with its operation."""
    ended = deliver(site, receiver, 50, 1, 180)
    assert receiver.refused
    for count, record in enumerate(ended):
        body = receiver.bodies[f"msg_{record.name.removeprefix('operations/')}"]
        assert body["type"] == ("operation.failed" if count % 5 == 0 else "operation.done")
        assert body["data"]["name"] == record.name
        assert body["data"]["done"] is True
    # Another body, another id or another time does not verify.
    ((body, headers),) = receiver.raw
    verifier = Verifier(receiver.secrets["/hook"])
    verifier.verify(body, headers)
    later = str(int(headers["webhook-timestamp"]) + 1)
    for changed, others in ((body + b" ", {}), (body, {"webhook-id": "msg_0"}), (body, {"webhook-timestamp": later})):
        with pytest.raises(WebhookVerificationError):
            verifier.verify(changed, {**headers, **others})


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand_events_survive_kills(site: Site, receiver: Receiver) -> None:
    """The same with 10,000 events and six kills."""
    began = time.monotonic()
    deliver(site, receiver, 10_000, 6, 1500)
    again = sum(receiver.arrived.values()) - 10_000
    print(f"{time.monotonic() - began:.0f} s, {sum(receiver.refused.values())} refused, {again} arrived twice")


@pytest.mark.long
def test_dead_letters_are_replayed(site: Site, receiver: Receiver) -> None:
    """An event that is refused too often is a dead letter, and arrives after a replay. 410 Gone disables the webhook."""
    site.start(0, webhook_attempts="3")
    receiver.answer = lambda event_id: 302
    with site.connected() as connection:
        hook = registered(connection, receiver)
        ended = site.end_operation()
        until(lambda: bool(list(webhook.list_deliveries(connection, hook, dead=True))))
        (dead,) = webhook.list_deliveries(connection, hook, dead=True)
        assert (dead.attempts, dead.last_error, dead.subject) == (3, "status 302", ended.name)
        assert receiver.refused[dead.event_id] == 3
        # A redirect is not followed: a request for another path would count as forged.
        assert receiver.forged == []
        with pytest.raises(DubstageCallError, match="no delivery that was given up"):
            webhook.replay(connection, hook, event_ids=["msg_0"])
        receiver.answer = lambda event_id: 204
        assert webhook.replay(connection, hook) == 1
        until(lambda: receiver.arrived[dead.event_id] == 1)
        receiver.answer = lambda event_id: 410
        site.end_operation()
        until(lambda: webhook.list_webhooks(connection)[0].disabled)
        site.end_operation()  # makes no event
        assert len(list(webhook.list_deliveries(connection, hook))) == 1
        receiver.answer = lambda event_id: 204
        assert webhook.replay(connection, hook) == 1
        assert not webhook.list_webhooks(connection)[0].disabled
        assert webhook.get(connection, hook) == webhook.list_webhooks(connection)[0]
        webhook.delete(connection, hook)
        with pytest.raises(DubstageCallError) as caught:
            webhook.delete(connection, hook)
        assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "WEBHOOK_NOT_FOUND")


def test_webhook_gets_chosen_events_alone(site: Site, receiver: Receiver) -> None:
    """A webhook gets the events that it names. The last operation of a batch alone makes the event of the batch."""
    site.start(0)
    with site.connected() as connection:
        hook = registered(connection, receiver, events=["batch_done"])
        other = registered(connection, receiver, "/failed", events=["operation_failed"])
        site.end_operation()
        failed = site.end_operation(fails=True)
        until(lambda: bool(receiver.arrived))
        assert receiver.arrived.keys() == ids([failed])
        assert {resource_id(one.name): list(one.events) for one in webhook.list_webhooks(connection)} == {
            hook: [pb.WEBHOOK_EVENT_BATCH_DONE],
            other: [pb.WEBHOOK_EVENT_OPERATION_FAILED],
        }
        # The event arrives a moment before the gateway notes that.
        until(lambda: not list(webhook.list_deliveries(connection, other)))
        site.kill(0)
    request = BatchRequest(name="night", check_videos=False).model_dump_json().encode()
    first, second = (submitted(site.batches.database, BATCH, request, output=output) for output in outputs_of("night"))
    pending = "SELECT count(*) FROM webhook_deliveries"
    for record, events in ((first, 0), (second, 1)):
        site.batches.finish(replace(record, response=b""))
        with site.batches.database.reading() as session:
            assert session.scalar(text(pending)) == events


@pytest.fixture
def cluster(site: Site, tmp_path: Path) -> Iterator[JobApi]:
    """The API of Kubernetes, to which the gateways send batches. The pods mount the media folder."""
    media = tmp_path / "plates"
    media.mkdir()
    (media / "a.mp4").write_bytes(b"no video")
    api = JobApi()
    mount = {"name": "plates", "mountPath": str(media)}
    api.put("configmaps", config_map(volume_mounts=[mount], volumes=[{"name": "plates", "emptyDir": {}}]))
    server = serve(api)
    site.environment |= {
        "KUBECONFIG": str(kubeconfig(tmp_path, f"http://127.0.0.1:{server.server_port}")),
        "DUBSTAGE_MEDIA_DIR": str(media),
        "DUBSTAGE_OPERATION_LEASE_S": "5",
    }
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.long
def test_batch_of_cluster_makes_one_event(site: Site, receiver: Receiver, cluster: JobApi) -> None:
    """Two gateways know a batch of a cluster, and one is killed. Each end of the batch makes one event; a lost Job makes none."""
    for index in (0, 1):
        site.start(index)
    with site.connected() as connection:
        hook = registered(connection, receiver, events=["batch_done"])
        rows = [batch.row(f"sh{row}", footage="a.mp4", output=f"out{row}.mp4") for row in range(2)]
        batch.submit(connection, "shots", rows=rows, engine="kubernetes")
        batch.get(connection, "shots")
    with site.connected(1) as connection:
        site.kill(0)
        cluster.finish("dubstage-shots-0-0", completed="", failed="0-1")
        until(lambda: len(receiver.arrived) == 1)
        site.start(0)
        ((first, body),) = receiver.bodies.items()
        assert (body["type"], body["data"]["name"], body["data"]["progress"]["numFailed"]) == ("batch.done", "batches/shots", "2")

        batch.retry(connection, "shots", shot_ids=["sh1"])
        with site.connected():
            cluster.finish("dubstage-shots-1-0", completed="", failed="0")
            until(lambda: len(receiver.arrived) == 2)

        batch.retry(connection, "shots", shot_ids=["sh1"])
        with cluster.changed:
            del cluster.objects["jobs", "dubstage-shots-2-0"]
        until(lambda: not site.clusters.is_written(outputs_of("shots")))
        until(lambda: not list(webhook.list_deliveries(connection, hook)))
    assert receiver.arrived.keys() > {first}
    assert receiver.arrived.total() == 2
    assert receiver.forged == []


def test_erasure_takes_events_along(site: Site, receiver: Receiver) -> None:
    """The events of a person's operations go with the operations."""
    site.start(0)
    receiver.answer = lambda event_id: 503
    with site.connected() as connection:
        hook = registered(connection, receiver)
        site.end_operation(actor_id="ann")
        kept = site.end_operation(actor_id="bob")
        until(lambda: len(receiver.refused) == 2)
        site.store.forget_actor("ann")
        assert [one.subject for one in webhook.list_deliveries(connection, hook)] == [kept.name]


def test_addresses_of_the_network_are_refused(site: Site) -> None:
    """Only the networks of the setting are open, and http only there."""
    site.start(0, webhook_networks="127.0.0.2/32")
    with site.connected() as connection:
        for url in (
            "http://127.0.0.1/",
            "https://127.0.0.1/",
            "https://localhost/",
            "https://10.1.2.3/",
            "https://169.254.169.254/latest",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://2130706433/",
            "http://8.8.8.8/",
            "https://user@8.8.8.8/",
            "ftp://8.8.8.8/",
        ):
            with pytest.raises(DubstageCallError) as caught:
                webhook.create(connection, url)
            assert (caught.value.code, caught.value.field) == ("INVALID_ARGUMENT", "url"), url
        assert webhook.create(connection, "http://127.0.0.2/").secret.startswith("whsec_")
        assert webhook.create(connection, "https://8.8.8.8/").url == "https://8.8.8.8/"
