"""Every RPC that changes something leaves an entry in the audit log; that of a video says what the video's manifest says."""

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from dubstage.client import batch, webhook
from dubstage.client import gateway as client
from gateway.actors.store import ActorStore
from gateway.batch import worker
from gateway.cli.app import run
from gateway.provenance.binding import media_sha256
from gateway.provenance.installation import trusted_authorities
from gateway.provenance.verdict import verdict_of
from gateway.signatures import TOKEN_FINGERPRINTS, signing_key
from services.common.server.call_context import fingerprint_of
from tests.integration.client_calls import batch_ended, dubbing, enrolment
from tests.integration.videos import OTHER, write_short_clip
from tests.unit.api.test_operations import LEAVES

TOKEN = "a-token-of-the-audit-test"


def test_every_rpc_that_changes_something_leaves_an_entry(start_gateway, media, samples, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(worker, "POLL_S", 0.2)
    running = start_gateway(tokens=[TOKEN], webhook_networks="127.0.0.0/8")
    speech, rate = samples
    with running.connect(token=TOKEN) as connection:
        client.enrol(connection, **enrolment("audited", footage=OTHER)).wait(timeout_s=300)
        dub = client.dub(connection, **dubbing("audited.mp4", actor_id="audited"))
        result = dub.wait(timeout_s=300)
        assert result.media_sha256 == media_sha256(media.root / "audited.mp4")
        dub.delete()
        next(client.live(connection, _spoken(speech, rate), actor_id="audited", sample_rate_hz=rate))
        other = client.dub(connection, **dubbing("audited_2.mp4", actor_id="audited"))
        other.cancel()
        row = batch.row("s1", footage="footage.mp4", speech="speech.wav", output="audited_shot.mp4", actor_id="audited")
        batch.submit(connection, "audited", rows=[row])
        batch.cancel(connection, "audited")
        *_, _ = batch.watch(connection, "audited")
        batch.retry(connection, "audited")
        *_, _ = batch.watch(connection, "audited")
        batch.review(connection, "audited", "s1", state="rejected", reviewer="Ada")
        batch.delete(connection, "audited")
        hook = webhook.create(connection, "http://127.0.0.1:9/").name
        webhook.replay(connection, hook)
        webhook.delete(connection, hook)
        client.revoke_consent(connection, actor_id="audited")
        client.erase_actor(connection, "audited")
    with ActorStore(running.settings) as actors:
        entries = actors.audit.newest(1000)
        assert actors.audit.verify().sequence == len(entries)
    found = {entry["event"] for entry in entries}
    assert {name for name, events in LEAVES.items() if not found & {str(event) for event in events}} == set()
    asked = [entry for entry in entries if entry["event"] != "settings.changed"]
    key = signing_key(running.settings.data_dir, running.settings.signing_key_file).derived(TOKEN_FINGERPRINTS)
    assert {entry["by"]["token"] for entry in asked} == {fingerprint_of(TOKEN, key)}
    # Without the key, the log does not show whether a guess of the token is right.
    assert hashlib.sha256(TOKEN.encode()).hexdigest()[:16] not in {entry["by"]["token"] for entry in entries}
    (ended,) = [entry for entry in entries if entry["outputs"] == [result.media_sha256]]
    (created,) = [entry for entry in entries if entry["event"] == "actor.created"]
    assert (ended["event"], ended["faces"], ended["consents"]) == ("dub.ended", created["faces"], created["consents"])
    assert len(created["consents"]) == 1


def _spoken(speech: npt.NDArray[np.float32], rate: int) -> Iterator[npt.NDArray[np.float32]]:
    for first in range(0, len(speech), rate // 25):
        yield speech[first : first + rate // 25]


@pytest.mark.long
@pytest.mark.parametrize("on", [True, pytest.param(False, marks=pytest.mark.long)], ids=["on", "off"])
def test_audit_entry_matches_manifest(on, start_gateway, media, carphone, tmp_path, monkeypatch) -> None:
    """The entry of a video of every door says what the manifest says."""
    # Footage of this test's own: only one database counts the blobs of equal footage.
    footage = f"marked_{on}.mp4"
    write_short_clip(carphone, media.root / footage, 26 if on else 28)
    running = start_gateway(watermark=on)
    videos = {door: media.root / f"{door}_{on}.mp4" for door in ("gateway", "batch", "command", "manifest")}
    with running.connect() as connection:
        told = client.dub(connection, **dubbing(videos["gateway"].name, footage=footage)).wait(timeout_s=300)
        row = batch.row("s1", footage=footage, speech="speech.wav", output=videos["batch"].name, personalize=False)
        assert batch_ended(connection, "marked", [row]).progress.num_done == 1
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(running.data))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", running.settings.artefacts_url)
    monkeypatch.setenv("DUBSTAGE_WATERMARK", str(on))
    for name, value in running.settings.model_dump().items():
        if name.endswith("_endpoint"):
            monkeypatch.setenv(f"DUBSTAGE_{name.upper()}", value)
    files = [str(media.root / footage), "--audio", str(media.speech)]
    assert run(["dub", *files, "-o", str(videos["command"]), "--no-personalize"]) == 0
    shots = tmp_path / "shots.jsonl"
    shot = {"id": "s1", "footage": files[0], "speech": files[2], "output": str(videos["manifest"]), "personalize": False}
    shots.write_text(json.dumps(shot) + "\n")
    assert run(["batch", "run", str(shots), "--index", "0"]) == 0
    with ActorStore(running.settings) as actors:
        entries = {entry["outputs"][0]: entry for entry in actors.audit.newest(100) if entry["event"] == "dub.ended"}
    anchors = trusted_authorities(running.settings)
    for door, video in videos.items():
        dub = verdict_of(video, anchors=anchors).dub
        assert bool(dub.watermark) is on, door
        expected = {"watermark": True, "watermark_payload": dub.watermark} if on else {"watermark": False}
        assert entries[media_sha256(video)]["details"] == expected, door
    assert (told.watermark_on, bool(told.watermark)) == (on, on)
