"""Every RPC that changes something leaves an entry in the audit log, with who asked, whose face and which consent record."""

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dubstage.client import batch, webhook
from dubstage.client import gateway as client
from gateway.actors.store import ActorStore
from gateway.batch import worker
from gateway.provenance.binding import media_sha256
from gateway.signatures import TOKEN_FINGERPRINTS, signing_key
from services.common.server.call_context import fingerprint_of
from tests.integration.client_calls import dubbing, enrolment
from tests.integration.videos import OTHER
from tests.unit.api.test_operations import LEAVES

TOKEN = "a-token-of-the-audit-test"


def test_every_rpc_that_changes_something_leaves_an_entry(start_gateway, media, samples, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(worker, "POLL_S", 0.2)
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    running = start_gateway(auth_token_file=tokens, webhook_networks="127.0.0.0/8")
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
        batch.cancel(connection, "audited")
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
    assert (ended["event"], ended["face"], ended["consents"]) == ("dub.ended", created["face"], created["consents"])
    assert len(created["consents"]) == 1


def _spoken(speech: npt.NDArray[np.float32], rate: int) -> Iterator[npt.NDArray[np.float32]]:
    for first in range(0, len(speech), rate // 25):
        yield speech[first : first + rate // 25]
