"""The entry of a video in the audit log says whether the watermark was on and what it says, as the video's manifest does."""

import json

import pytest

from dubstage.client import batch
from dubstage.client import gateway as client
from gateway.actors.store import ActorStore
from gateway.cli.app import run
from gateway.provenance.binding import media_sha256
from gateway.provenance.installation import trusted_authorities
from gateway.provenance.verdict import verdict_of
from tests.integration.client_calls import dubbing
from tests.integration.videos import write_short_clip


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
        batch.submit(connection, "marked", rows=[row])
        *_, ended = batch.watch(connection, "marked")
        assert ended.progress.num_done == 1
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
        assert dub is not None
        assert bool(dub.watermark) is on, door
        expected = {"watermark": True, "watermark_payload": dub.watermark} if on else {"watermark": False}
        assert entries[media_sha256(video)]["details"] == expected, door
    assert (told.watermark_on, bool(told.watermark)) == (on, on)
