"""The former contract, v1alpha1, at a gateway of today: every RPC is called once with the messages of an old client."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import descriptor_pb2
from sqlalchemy import update

from dubstage.client import Connection, connect
from dubstage.client import gateway as client
from dubstage.client.errors import from_rpc_error
from dubstage.gateway.v1alpha1 import batch_pb2 as batches
from dubstage.gateway.v1alpha1 import batch_pb2_grpc, gateway_pb2_grpc, media_pb2_grpc, webhook_pb2_grpc
from dubstage.gateway.v1alpha1 import gateway_pb2 as pb
from dubstage.gateway.v1alpha1 import media_pb2 as media_pb
from dubstage.gateway.v1alpha1 import webhook_pb2 as webhooks
from dubstage.motion.v1 import motion_pb2
from gateway.api.former import SERVED
from gateway.database.session import Database
from gateway.operations.store import OperationRow
from services.common.server.former import DEPRECATION
from tests.integration.client_calls import dubbing
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.test_rest import Caller, free_port
from tests.integration.videos import NUM_FRAMES, OTHER, Media

CONSENT = {"subject": "driver", "granted_by": "driver", "scope": "tests", "date": "2026-01-31", "reference": "box 7"}
FRAMES = NUM_FRAMES - 8


class OldClient:
    """Stubs of an old client, which remember the RPCs that were called."""

    def __init__(self, connection: Connection) -> None:
        channel: Any = connection.channel
        self._stubs = {
            "ActorService": gateway_pb2_grpc.ActorServiceStub(channel),
            "DubService": gateway_pb2_grpc.DubServiceStub(channel),
            "BatchService": batch_pb2_grpc.BatchServiceStub(channel),
            "MediaService": media_pb2_grpc.MediaServiceStub(channel),
            "WebhookService": webhook_pb2_grpc.WebhookServiceStub(channel),
        }
        self.operations: Any = operations_pb2_grpc.OperationsStub(channel)
        self.called: set[str] = set()

    def __call__(self, rpc: str, request: Any) -> Any:
        """Call an RPC, such as `ActorService.GetActor`; a stream of responses is a list."""
        service, _, method = rpc.partition(".")
        self.called.add(rpc)
        stub: Any = getattr(self._stubs[service], method)
        requests = iter(request) if isinstance(request, list) else request
        if hasattr(stub, "with_call"):
            answer, call = stub.with_call(requests, timeout=300)
        else:
            call = stub(requests, timeout=300)
            answer = list(call)
        assert DEPRECATION in [tuple(entry) for entry in call.trailing_metadata()], rpc
        return answer

    def refusal(self, rpc: str, request: Any) -> Any:
        """Return the error of an RPC that is refused, as the client of today reads it."""
        with pytest.raises(grpc.RpcError) as caught:
            self(rpc, request)
        return from_rpc_error(caught.value, "the gateway")

    def done(self, operation: operations_pb2.Operation, kind: Any) -> Any:
        """Wait for an operation, and return its response."""
        ended = self.operations.WaitOperation(operations_pb2.WaitOperationRequest(name=operation.name), timeout=300)
        assert ended.done, ended
        response = kind()
        assert ended.response.Unpack(response), ended
        return response


@pytest.fixture(scope="module")
def place(
    gateway_factory: StartGateway, loop_thread: Any, media: Media, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningGateway, OldClient, int, Path]]:
    folder = tmp_path_factory.mktemp("old")
    for file in (media.root / OTHER, media.speech):
        shutil.copy(file, folder)
    port = free_port()
    running = gateway_factory(http_port=port, media_dir=folder, webhook_networks="127.0.0.0/8")
    with running.connect() as connection:
        yield running, OldClient(connection), port, folder
    loop_thread.run(running.server.drain(grace_s=0))


def old_dub(output: str, **fields: Any) -> pb.CreateDubRequest:
    return pb.CreateDubRequest(footage_uri=OTHER, speech_uri="speech.wav", output_uri=output, skip_personalization=True, **fields)


def test_old_client_does_everything(place: tuple[RunningGateway, OldClient, int, Path]) -> None:
    """An old client calls every RPC, and gets the answers that it knows."""
    _, old, _, folder = place
    actors_and_dubs(old, folder)
    uploads(old, folder)
    batch_life(old)
    webhook_life(old)
    erased = old("ActorService.EraseActor", pb.EraseActorRequest(actor_id="old"))
    assert (erased.actor_id, erased.erased_at[:2]) == ("old", "20")
    every = {f"{service.name}.{method.name}" for service in SERVED for method in service.methods}
    assert old.called == every


def actors_and_dubs(old: OldClient, folder: Path) -> None:
    enrolling = old(
        "ActorService.CreateActor",
        pb.CreateActorRequest(
            actor_id="old", footage_uri=OTHER, face="largest", skip_personalization=True, consent=pb.ConsentRecord(**CONSENT)
        ),
    )
    enrolled = old.done(enrolling, pb.Actor)
    assert (enrolled.actor_id, enrolled.consent.subject, enrolled.created_at[:2]) == ("old", "driver", "20")
    shown = old("ActorService.GetActor", pb.GetActorRequest(actor_id="old")).actor
    assert (shown.actor_id, shown.method, shown.created_at) == ("old", enrolled.method, enrolled.created_at)
    assert [one.actor_id for one in old("ActorService.ListActors", pb.ListActorsRequest()).actors] == ["old"]
    asked = old_dub("old.mp4", actor_id="old", face="120,100", codec="h264", expression="keep")
    estimate = old("DubService.EstimateDub", pb.EstimateDubRequest(dub=asked))
    assert estimate.num_frames == FRAMES
    assert estimate.processor_s > estimate.wall_s > 0
    begun = old("DubService.CreateDub", asked)
    result = old.done(begun, pb.DubResult)
    assert (result.output_uri, result.num_frames, result.num_dubbed >= 0.9 * FRAMES) == ("old.mp4", FRAMES, True)
    ended = old.operations.GetOperation(operations_pb2.GetOperationRequest(name=begun.name))
    progress = pb.DubProgress()
    assert ended.metadata.Unpack(progress)
    assert (progress.stage, progress.frames_done) == ("dub", FRAMES)
    faces = old.done(old("DubService.DetectFaces", pb.DetectFacesRequest(footage_uri=OTHER)), pb.DetectFacesResponse)
    assert [face.face_id for face in faces.faces] == [0]
    sound = pb.LiveAudio(pcm_f32=np.zeros(8000, "<f4").tobytes())
    config = pb.LiveConfig(actor_id="old", sample_rate_hz=16000, channels=1, max_late_ms=60_000)
    frames = old("DubService.Live", [pb.LiveRequest(config=config), pb.LiveRequest(audio=sound)])
    assert [frame.frame_index for frame in frames][:12] == list(range(12))
    revoked = old("ActorService.RevokeConsent", pb.RevokeConsentRequest(actor_id="old"))
    assert (list(revoked.actor_ids), revoked.withdrawn_at[:2]) == (["old"], "20")


def uploads(old: OldClient, folder: Path) -> None:
    parts = [media_pb.UploadFileRequest(name="old.bin", size_bytes=6, data=b"123"), media_pb.UploadFileRequest(data=b"456")]
    sent = old("MediaService.UploadFile", parts).upload
    assert (sent.name, sent.path, sent.complete) == ("old.bin", "uploads/old.bin", True)
    there = old("MediaService.GetUpload", media_pb.GetUploadRequest(name="old.bin")).upload
    assert (there.received_bytes, there.sha256, there.expires_at) == (6, sent.sha256, sent.expires_at)
    assert [one.name for one in old("MediaService.ListUploads", media_pb.ListUploadsRequest()).uploads] == ["old.bin"]
    got = old("MediaService.DownloadFile", media_pb.DownloadFileRequest(path=sent.path, offset=1))
    assert b"".join(piece.data for piece in got) == b"23456"
    old("MediaService.DeleteUpload", media_pb.DeleteUploadRequest(name="old.bin"))
    assert not (folder / "uploads" / "old.bin").exists()


def batch_life(old: OldClient) -> None:
    quality = batches.BatchQuality(min_dubbed_share=0.5, max_shift_ms=200)
    row = batches.BatchRow(
        shot_id="s1",
        footage_uri=OTHER,
        speech_uri="speech.wav",
        output_uri="row.mp4",
        skip_personalization=True,
        face="speaker",
        codec="ffv1",
        quality=quality,
    )
    row.output_uri = "row.mkv"
    wrong = batches.BatchRow(shot_id="s2", footage_uri=OTHER, output_uri="w.mp4", actor_id="nobody")
    checked = old("BatchService.SubmitBatch", batches.SubmitBatchRequest(batch_id="night", rows=[row, wrong], validate_only=True))
    assert [(one.line, one.field) for one in checked.mistakes] == [(2, "actor_id")]
    sent = old("BatchService.SubmitBatch", batches.SubmitBatchRequest(batch_id="night", rows=[row])).batch
    assert (sent.batch_id, sent.num_shots, sent.created_at[:2]) == ("night", 1, "20")
    *_, last = old("BatchService.WatchBatch", batches.WatchBatchRequest(batch_id="night"))
    assert (last.batch.batch_id, last.batch.progress.num_done) == ("night", 1)
    assert old("BatchService.GetBatch", batches.GetBatchRequest(batch_id="night")).batch.rows_sha256 == sent.rows_sha256
    assert [one.batch_id for one in old("BatchService.ListBatches", batches.ListBatchesRequest()).batches] == ["night"]
    (shot,) = old("BatchService.ListShots", batches.ListShotsRequest(batch_id="night")).shots
    assert (shot.shot_id, shot.num_frames, shot.seconds > 0, shot.begun_at < shot.ended_at) == ("s1", FRAMES, True, True)
    report = old("BatchService.GetReport", batches.GetReportRequest(batch_id="night", format=batches.REPORT_FORMAT_CSV))
    assert [piece.path for piece in report] == ["shots.csv"]
    assert old("BatchService.CancelBatch", batches.CancelBatchRequest(batch_id="night")).batch.progress.num_done == 1
    assert old("BatchService.RetryBatch", batches.RetryBatchRequest(batch_id="night")).batch.batch_id == "night"
    old("BatchService.DeleteBatch", batches.DeleteBatchRequest(batch_id="night"))


def webhook_life(old: OldClient) -> None:
    made = old("WebhookService.CreateWebhook", webhooks.CreateWebhookRequest(url="http://127.0.0.1:9/"))
    assert made.secret.startswith("whsec_")
    hook = made.webhook.webhook_id
    (listed,) = old("WebhookService.ListWebhooks", webhooks.ListWebhooksRequest()).webhooks
    assert (listed.webhook_id, listed.created_at) == (hook, made.webhook.created_at)
    waiting = old("WebhookService.ListWebhookDeliveries", webhooks.ListWebhookDeliveriesRequest(webhook_id=hook))
    assert list(waiting.deliveries) == []
    replay = webhooks.ReplayWebhookDeliveriesRequest(webhook_id=hook)
    assert old("WebhookService.ReplayWebhookDeliveries", replay).num_replayed == 0
    old("WebhookService.DeleteWebhook", webhooks.DeleteWebhookRequest(webhook_id=hook))


@pytest.mark.parametrize(
    ("rpc", "request_of", "code", "reason", "field"),
    [
        ("ActorService.GetActor", lambda: pb.GetActorRequest(actor_id="nobody"), "FAILED_PRECONDITION", "ACTOR_NOT_READY", ""),
        ("ActorService.GetActor", lambda: pb.GetActorRequest(actor_id="A!"), "INVALID_ARGUMENT", "INVALID_REQUEST", "actor_id"),
        ("DubService.CreateDub", lambda: old_dub("x.mp4", codec="none"), "INVALID_ARGUMENT", "INVALID_REQUEST", "codec"),
        ("DubService.CreateDub", lambda: old_dub("x.mp4", face="left"), "INVALID_ARGUMENT", "INVALID_REQUEST", "face"),
        ("DubService.CreateDub", lambda: old_dub("x.mp4", seed=-1), "INVALID_ARGUMENT", "INVALID_REQUEST", "seed"),
        (
            "DubService.CreateDub",
            lambda: pb.CreateDubRequest(
                footage_uri=OTHER,
                output_uri="x.mp4",
                lines=[pb.DubLine(speech_uri="speech.wav", start_timecode="00:00:00:00", actor_id="A!")],
            ),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
            "lines[0].actor_id",
        ),
        ("BatchService.GetBatch", lambda: batches.GetBatchRequest(batch_id="none"), "NOT_FOUND", "BATCH_NOT_FOUND", ""),
        ("BatchService.GetBatch", batches.GetBatchRequest, "INVALID_ARGUMENT", "INVALID_REQUEST", "batch_id"),
    ],
)
def test_errors_name_old_fields(
    place: tuple[RunningGateway, OldClient, int, Path],
    rpc: str,
    request_of: Callable[[], Any],
    code: str,
    reason: str,
    field: str,
) -> None:
    """A refused call of an old client names the field as the old contract does."""
    found = place[1].refusal(rpc, request_of())
    assert (found.code, found.reason, found.field) == (code, reason, field)


def test_old_paths_over_http(place: tuple[RunningGateway, OldClient, int, Path]) -> None:
    """Paths of v1alpha1 answer with the old fields, and with the header Deprecation."""
    _, _, port, _ = place
    call = Caller(port)
    dub = {"footageUri": OTHER, "speechUri": "speech.wav", "outputUri": "http.mp4", "skipPersonalization": True}
    status, begun = call("POST", "/v1alpha1/dubs", dub)
    assert status == 200
    *_, last, _ = call.events(f"/v1/{begun['name']}")
    kind = "type.googleapis.com/dubstage.gateway.v1alpha1"
    assert (last[1]["response"]["@type"], last[1]["metadata"]["@type"]) == (f"{kind}.DubResult", f"{kind}.DubProgress")
    assert call("GET", "/v1alpha1/batches/none")[0] == 404
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1alpha1/actors", timeout=60) as response:
        assert response.headers["Deprecation"] == DEPRECATION[1]
        assert "actors" in json.loads(response.read())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/actors", timeout=60) as response:
        assert "Deprecation" not in response.headers


def test_stages_answer_old_paths(stages: Any) -> None:
    """A stage answers the path of v1alpha1."""
    with connect(stages.endpoints()["motion_endpoint"]) as connection:
        channel: Any = connection.channel
        call = channel.unary_unary(
            "/dubstage.motion.v1alpha1.MotionService/ListModels",
            request_serializer=motion_pb2.ListModelsRequest.SerializeToString,
            response_deserializer=motion_pb2.ListModelsResponse.FromString,
        )
        answer, state = call.with_call(motion_pb2.ListModelsRequest(), timeout=60)
    assert answer.models
    assert DEPRECATION in [tuple(entry) for entry in state.trailing_metadata()]


def test_operations_of_earlier_dubstage(start_gateway: StartGateway, stop_gateway: Any, media: Media) -> None:
    """Operations that an earlier dubstage stored are read, and answer in the contract that began them."""
    first = start_gateway()
    with first.connect() as connection:
        named = client.dub(connection, **dubbing("stored.mp4", footage=OTHER))
        named.wait(timeout_s=300)
    stop_gateway(first)
    result = pb.DubResult(output_uri="stored.mp4", num_frames=7, media_sha256="ab")
    stored = {
        "contract": "",
        "request": old_dub("stored.mp4", actor_id="ann", face="speaker").SerializeToString(),
        "metadata_bytes": pb.DubProgress(stage="dub", frames_done=7, frames_total=7).SerializeToString(),
        "response": result.SerializeToString(),
    }
    with Database(first.settings.database_url, first.data).writing() as session:
        session.execute(update(OperationRow).values(**stored))
    with start_gateway(data_dir=first.data).connect() as connection:
        found = OldClient(connection).operations.GetOperation(operations_pb2.GetOperationRequest(name=named.name))
        (state,) = client.list_operations(connection)
    answer = pb.DubResult()
    assert found.response.Unpack(answer)
    assert answer == result
    assert (state.name, state.done) == (named.name, True)


def test_former_files_are_deprecated() -> None:
    """The old files say that they are deprecated."""
    for service in SERVED:
        options: descriptor_pb2.FileOptions = service.file.GetOptions()
        assert options.deprecated
