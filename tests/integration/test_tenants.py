"""Two tenants of one gateway: neither reads, uses, lists, changes or erases what belongs to the other."""

import errno
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pool

from dubstage.client import Connection, DubstageCallError, batch, files, webhook
from dubstage.client import gateway as client
from dubstage.client.names import resource_id
from dubstage.gateway.v1.batch_pb2 import SHOT_STATE_DONE
from gateway.api.server import SERVICES
from gateway.audit.protection import record_settings
from gateway.consent.record import Consent, digest_of
from gateway.database.session import Database
from gateway.settings import TENANTS_FOLDER, GatewaySettings
from services.common.store.artefacts import ArtefactStore
from tests.integration.client_calls import batch_ended, dubbing, enrolment, until
from tests.integration.servers import RunningGateway, RunningStages
from tests.integration.videos import write_short_clip
from tests.refusals import refused

TOKENS = {"acme": "token-of-acme-1234", "beta": "token-of-beta-1234", "default": "token-without-a-tenant"}
ANNA, NIGHT = "anna", "night"
VIDEO = "video.mp4"
UPLOAD = "upload.bin"
SILENCE = np.zeros(800, np.float32)
LISTS: dict[str, Callable[[Connection], list[Any]]] = {
    "ActorService.ListActors": lambda to: list(client.list_actors(to)),
    "DubService.ListDubs": lambda to: list(client.list_dubs(to)),
    "MediaService.ListUploads": lambda to: list(files.list_uploads(to)),
    "BatchService.ListBatches": lambda to: list(batch.list_batches(to)),
    "WebhookService.ListWebhooks": webhook.list_webhooks,
    "Operations.ListOperations": lambda to: list(client.list_operations(to)),
}
"""RPCs that list things of a tenant."""
MAKES = {
    *("ActorService.CreateActor", "DubService.DetectFaces", "MediaService.UploadFile", "MediaService.SignUpload"),
    "WebhookService.CreateWebhook",
}
"""RPCs that name nothing of another tenant, and make a thing."""


@dataclass(frozen=True)
class Things:
    """Names for calls: things of acme, or names that nothing has."""

    actor: str
    operation: str
    batch: str
    upload: str
    webhook: str


NOTHING = Things("nobody", f"operations/{'0' * 32}", "nothing", "absent.bin", "wh-0")


@dataclass(frozen=True)
class Place:
    """A gateway with an actor, a dub and a batch of acme, all ended; the other tenants have the same files."""

    running: RunningGateway
    media: Path
    acme: Things

    def connect(self, tenant: str) -> Connection:
        return self.running.connect(token=TOKENS[tenant])

    def enrolment(self) -> dict[str, Any]:
        return enrolment(ANNA, of=self.media / "footage.mp4")

    def folder(self, tenant: str) -> Path:
        return self.media if tenant == "default" else self.media / TENANTS_FOLDER / tenant


def shot(output: str, actor_id: str = ANNA) -> Any:
    return batch.row("a", footage="footage.mp4", speech="speech.wav", output=output, actor_id=actor_id)


def token_file(folder: Path) -> Path:
    file = folder / "tokens"
    lines = [token if tenant == "default" else f"{tenant} {token}" for tenant, token in TOKENS.items()]
    file.write_text("# who may call\n\n" + "\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module")
def place(module_gateway, media, carphone, tmp_path_factory) -> Place:
    folder = tmp_path_factory.mktemp("tenants")
    # Footage of this module's own: the blobs of the session's footage belong to the actor of another gateway.
    write_short_clip(carphone, folder / "footage.mp4", 35)
    for home in (folder / "media", *(folder / "media" / TENANTS_FOLDER / tenant for tenant in ("acme", "beta"))):
        home.mkdir(parents=True)
        shutil.copy(folder / "footage.mp4", home)
        shutil.copy(media.speech, home)
    doors = {"auth_token_file": token_file(folder), "webhook_networks": "127.0.0.0/8"}
    running = module_gateway(media_dir=folder / "media", require_consent=True, **doors)
    with running.connect(token=TOKENS["acme"]) as connection:
        client.enrol(connection, **enrolment(ANNA, of=folder / "footage.mp4")).wait(timeout_s=300)
        dub = client.dub(connection, **dubbing(VIDEO, actor_id=ANNA))
        dub.wait(timeout_s=300)
        assert batch_ended(connection, NIGHT, [shot("night.mp4")]).progress.num_done == 1
        files.upload_pieces(connection, [b"of acme"], name=UPLOAD, size_bytes=7)
        hook = resource_id(webhook.create(connection, "http://127.0.0.1:9/").name)
    return Place(running, folder / "media", Things(ANNA, dub.name, NIGHT, UPLOAD, hook))


def plan_of(actor_id: str) -> Any:
    return client.dub.request(**dubbing("x.mp4", actor_id=actor_id)).dub


USES: dict[str, Callable[[Connection, Things], object]] = {
    "ActorService.GetActor": lambda to, things: client.get_actor(to, things.actor),
    "ActorService.GetActorPicture": lambda to, things: client.get_actor_picture(to, things.actor),
    "ActorService.EraseActor": lambda to, things: client.erase_actor(to, things.actor),
    "ActorService.RevokeConsent": lambda to, things: client.revoke_consent(to, actor_id=things.actor),
    "DubService.CreateDub": lambda to, things: client.dub(to, **dubbing("stolen.mp4", actor_id=things.actor)),
    "DubService.EstimateDub": lambda to, things: client.estimate(to, plan_of(things.actor)),
    "DubService.Live": lambda to, things: list(client.live(to, [SILENCE], actor_id=things.actor, sample_rate_hz=16000)),
    "BatchService.SubmitBatch": lambda to, things: batch.submit(to, "stolen", rows=[shot("stolen.mp4", things.actor)]),
    "BatchService.GetBatch": lambda to, things: batch.get(to, things.batch),
    "BatchService.GetShot": lambda to, things: batch.get_shot(to, things.batch, "a"),
    "BatchService.ListShots": lambda to, things: list(batch.list_shots(to, things.batch)),
    "BatchService.WatchBatch": lambda to, things: list(batch.watch(to, things.batch)),
    "BatchService.ReviewShot": lambda to, things: batch.review(to, things.batch, "a", state="approved"),
    "BatchService.CancelBatch": lambda to, things: batch.cancel(to, things.batch),
    "BatchService.RetryBatch": lambda to, things: batch.retry(to, things.batch),
    "BatchService.DeleteBatch": lambda to, things: batch.delete(to, things.batch),
    "BatchService.GetReport": lambda to, things: list(batch.report(to, things.batch)),
    "MediaService.GetUpload": lambda to, things: files.get_upload(to, things.upload),
    "MediaService.DeleteUpload": lambda to, things: files.delete_upload(to, things.upload),
    "MediaService.DownloadFile": lambda to, things: list(files.download_pieces(to, f"uploads/{things.upload}")),
    "MediaService.FinishUpload": lambda to, things: files.finish_upload(to, things.upload, sha256="ab" * 32),
    "MediaService.SignDownload": lambda to, things: files.sign_download(to, f"s3://videos/tenants/acme/uploads/{things.upload}"),
    "WebhookService.DeleteWebhook": lambda to, things: webhook.delete(to, things.webhook),
    "WebhookService.GetWebhook": lambda to, things: webhook.get(to, things.webhook),
    "WebhookService.ListWebhookDeliveries": lambda to, things: list(webhook.list_deliveries(to, things.webhook)),
    "WebhookService.ReplayWebhookDeliveries": lambda to, things: webhook.replay(to, things.webhook),
    "Operations.GetOperation": lambda to, things: client.get_operation(to, things.operation),
    "Operations.WaitOperation": lambda to, things: client.wait_operation(to, things.operation, 5),
    "Operations.CancelOperation": lambda to, things: client.cancel_operation(to, things.operation),
    "Operations.DeleteOperation": lambda to, things: client.delete_operation(to, things.operation),
}
"""RPCs that name a thing of a tenant."""


def test_every_rpc_has_tenant_case() -> None:
    """A new RPC belongs into one of the tables above, so that the tests below call it."""
    pool = descriptor_pool.Default()
    found = {f"{name.rpartition('.')[2]}.{method.name}" for name in SERVICES for method in pool.FindServiceByName(name).methods}
    assert found == set(USES) | set(LISTS) | MAKES


def refusal(call: Callable[[Connection, Things], object], connection: Connection, things: Things) -> tuple[str, ...]:
    """How a call is refused, with the names that the caller gave taken out."""
    with pytest.raises(DubstageCallError) as caught:
        call(connection, things)
    error = caught.value
    said = [error.message, *(f"{one}" for one in error.violations)]
    for kind, name in asdict(things).items():
        said = [text.replace(name, kind.upper()) for text in said]
    return (error.code, error.reason, error.field, *said)


@pytest.mark.parametrize("tenant", ["beta", "default"])
@pytest.mark.parametrize("rpc", sorted(USES))
def test_other_tenant_looks_absent(rpc: str, tenant: str, place: Place) -> None:
    """A thing of another tenant is answered as one that does not exist."""
    with place.connect(tenant) as connection:
        assert refusal(USES[rpc], connection, place.acme) == refusal(USES[rpc], connection, NOTHING)
    assert not (place.folder(tenant) / "stolen.mp4").exists()
    # The call has changed nothing of acme's.
    with place.connect("acme") as connection:
        assert client.get_actor(connection, ANNA).consent_problem == ""
        state = client.get_operation(connection, place.acme.operation)
        assert (state.done, state.error) == (True, None)
        assert [one.state for one in batch.list_shots(connection, NIGHT)] == [SHOT_STATE_DONE]
    assert (place.folder("acme") / VIDEO).exists()


@pytest.mark.parametrize("tenant", ["beta", "default"])
@pytest.mark.parametrize("rpc", sorted(LISTS))
def test_lists_have_the_tenants_own_things_alone(rpc: str, tenant: str, place: Place) -> None:
    with place.connect("acme") as connection:
        assert LISTS[rpc](connection)
    with place.connect(tenant) as connection:
        assert LISTS[rpc](connection) == []


def test_withdrawal_by_digest_within_tenant(place: Place) -> None:
    """A withdrawal by digest reaches the tenant's own people alone."""
    digest = digest_of(Consent.model_validate(place.enrolment()["consent"]))
    with place.connect("beta") as connection:
        assert list(client.revoke_consent(connection, record_sha256=digest).actors) == []
        # The withdrawal holds for beta.
        with refused(reason="CONSENT_WITHDRAWN"):
            client.enrol(connection, **place.enrolment())
    with place.connect("acme") as connection:
        assert client.get_actor(connection, ANNA).consent_problem == ""


@pytest.mark.long
def test_tenants_share_names_and_faces(place: Place, stages: RunningStages) -> None:
    """The footage is the same too, so the blobs have the same digests. An erasure removes the tenant's own."""
    with place.connect("default") as connection:
        made = client.enrol(connection, **place.enrolment()).wait(timeout_s=300)
        assert batch_ended(connection, NIGHT, [shot("other-night.mp4")]).progress.num_done == 1
        batch.delete(connection, NIGHT)
        receipt = client.erase_actor(connection, ANNA)
    with place.connect("acme") as connection:
        theirs = client.get_actor(connection, ANNA)
        assert {one.sha256 for one in theirs.artefacts} & {one.sha256 for one in made.artefacts}
        assert {one.sha256 for one in made.artefacts} <= set(receipt.erased_sha256)
        assert not receipt.kept_sha256
        assert theirs.damage == ""
        assert batch.get(connection, NIGHT).progress.num_done == 1
        client.dub(connection, **dubbing("again.mp4", actor_id=ANNA)).wait(timeout_s=300)
    left = {blob.ref.sha256 for blob in ArtefactStore(str(stages.artefacts / "tenants" / "acme")).stored()}
    assert {one.sha256 for one in theirs.artefacts} <= left


@pytest.mark.parametrize("uri", [f"{TENANTS_FOLDER}/acme/footage.mp4", f"file://{{media}}/{TENANTS_FOLDER}/acme/footage.mp4"])
def test_no_tenant_names_a_file_of_another(uri: str, place: Place) -> None:
    place_of_acme = uri.format(media=place.media)
    there, nowhere = place_of_acme, place_of_acme.replace("acme", "none")
    with place.connect("default") as connection:
        for field in ("footage", "speech", "output"):
            said = []
            for name in (there, nowhere):
                with pytest.raises(DubstageCallError) as caught:
                    client.dub(connection, **dubbing("stolen.mp4") | {field: name})
                said.append((caught.value.code, caught.value.field, caught.value.message.replace(name, "").replace("none", "acme")))
            assert said[0] == said[1]
    with place.connect("beta") as connection:
        for name in (there, "../acme/footage.mp4", f"file://{place.media}/footage.mp4"):
            with refused(code="INVALID_ARGUMENT"):
                client.dub(connection, **dubbing("stolen.mp4", footage=name))


def test_token_file_read_again(place: Place) -> None:
    file = place.media.parent / "tokens"
    before = file.read_text()
    file.write_text(before + "gamma token-of-gamma-1234\nacme second-token-of-acme\n")
    try:
        with place.running.connect(token="token-of-gamma-1234") as connection:
            assert list(client.list_actors(connection)) == []
        with place.running.connect(token="second-token-of-acme") as connection:
            assert [resource_id(one.name) for one in client.list_actors(connection)] == [ANNA]
    finally:
        file.write_text(before)
    with place.running.connect(token="token-of-gamma-1234") as connection, refused(code="UNAUTHENTICATED"):
        list(client.list_actors(connection))


def test_broken_tenant_stops_no_other(start_gateway, stop_gateway, tmp_path, monkeypatch) -> None:
    """A gateway starts although a tenant cannot be opened, and serves the tenant when the fault has gone."""
    given = {"auth_token_file": token_file(tmp_path)}
    first = start_gateway(**given)
    for tenant in ("acme", "beta"):
        with first.connect(token=TOKENS[tenant]) as connection:
            assert list(client.list_actors(connection)) == []
    stop_gateway(first)

    def recorded(database: Database, settings: GatewaySettings) -> None:
        if database.tenant == "acme":
            raise OSError(errno.EIO, "the disk is damaged")
        record_settings(database, settings)

    with monkeypatch.context() as patch:
        patch.setattr("gateway.api.tenants.record_settings", recorded)
        again = start_gateway(**given, data_dir=first.data)
        for tenant in ("default", "beta"):
            with again.connect(token=TOKENS[tenant]) as connection:
                assert list(client.list_actors(connection)) == []
    with again.connect(token=TOKENS["acme"]) as connection:
        assert list(client.list_actors(connection)) == []


@pytest.mark.long
def test_interrupted_work_goes_on_for_its_tenant(start_gateway, stop_gateway, place, stages, carphone, tmp_path) -> None:
    """A dub of acme begins in one gateway process and ends in the next one."""
    home = place.folder("acme")
    # Footage of this test's own: the gateways here know nothing of the actor that the other footage shows.
    write_short_clip(carphone, home / "interrupted.mp4", 34)
    given = {"auth_token_file": token_file(tmp_path), "media_dir": place.media, "artefacts_url": str(stages.artefacts)}
    first = start_gateway(**given)
    with first.connect(token=TOKENS["acme"]) as connection:
        dub = client.dub(connection, **dubbing("resumed.mp4", footage="interrupted.mp4"))
        until(lambda: bool(list((first.data / "tenants" / "acme" / "jobs").iterdir())))
    stop_gateway(first)
    again = start_gateway(**given, data_dir=first.data)
    # No caller of acme has called: the gateway knows by itself that there is work.
    until((home / "resumed.mp4").exists, seconds=900)
    with again.connect(token=TOKENS["acme"]) as connection:
        assert client.wait_operation(connection, dub.name, 60).error is None
    with again.connect(token=TOKENS["default"]) as connection:
        assert list(client.list_operations(connection)) == []
