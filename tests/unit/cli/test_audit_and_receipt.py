"""`dubstage audit` and `dubstage receipt`, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.actors.store import ActorStore
from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.protection import record_settings
from gateway.cli.app import run
from gateway.cli.doctor import check_signing_key
from gateway.settings import GatewaySettings
from gateway.signatures import installation_key
from services.common.errors import StorageRefusedError
from services.common.face.actor_geometry import ActorGeometry
from services.common.store.artefacts import ArtefactStore
from tests.unit.actors.installation import actors, blobs, database_url, geometry, learned, settings
from tests.unit.consent.records import STUDIO, private_pem

__all__ = ["actors", "blobs", "database_url", "geometry", "settings"]


@pytest.fixture(autouse=True)
def environment(
    settings: GatewaySettings, actors: ActorStore, blobs: ArtefactStore, geometry: ActorGeometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation with one actor."""
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("DUBSTAGE_ARTEFACTS_URL", settings.artefacts_url)
    actors.create("ann", method="dubstage", enrolled=learned(blobs, "ann", geometry), footage_sha256="0" * 64, consent=None)


def test_the_log_is_listed_exported_and_checked(
    tmp_path: Path, actors: ActorStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    actors.audit.record(
        AuditEvent(event=EventKind.LIVE_BEGUN, work="live/1", actor_ids=("ann",), details={"text": "[red]\x1b]0;x\x07"})
    )
    file, public = tmp_path / "log.jsonl", tmp_path / "public.pem"
    assert run(["audit", "list"]) == 0
    shown = capsys.readouterr().out
    assert "actor.created" in shown
    assert "ann" in shown
    assert "\x1b" not in shown
    assert run(["audit", "list", "--json", "--event", "live", "--actor", "ann"]) == 0
    assert [entry["event"] for entry in json.loads(capsys.readouterr().out)["entries"]] == ["live.begun"]
    assert run(["audit", "export", str(file)]) == 0
    assert run(["audit", "export", str(file)]) == 10
    assert run(["receipt", "key", "-o", str(public)]) == 0
    assert run(["audit", "verify", str(file)]) == 0
    assert run(["audit", "verify", "--since", str(file)]) == 0
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "elsewhere"))
    assert run(["audit", "verify", str(file), "--key", str(public)]) == 0
    capsys.readouterr()
    assert run(["audit", "verify", str(file)]) == 10
    assert "--key PUBLIC.pem" in capsys.readouterr().err
    file.write_bytes(file.read_bytes().replace(b"live/1", b"live/2"))
    assert run(["audit", "verify", str(file), "--key", str(public)]) == 3
    assert "line 2: the last entry is not the one that the head was signed for" in capsys.readouterr().err
    assert run(["audit", "verify", str(tmp_path)]) == 10


def test_printed_public_key_matches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The printed public key is the key of the file."""
    public = tmp_path / "public.pem"
    assert run(["receipt", "key", "-o", str(public)]) == 0
    capsys.readouterr()
    assert run(["receipt", "key"]) == 0
    assert capsys.readouterr().out == public.read_text()


def test_list_without_terminal_is_whole(actors: ActorStore, capsys: pytest.CaptureFixture[str]) -> None:
    """A list without a terminal has every entry whole in one line."""
    actors.audit.record(AuditEvent(event=EventKind.LIVE_BEGUN, work=f"live/{'1' * 90}", actor_ids=("ann",), details={}))
    assert run(["audit", "list", "--event", "live"]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert f"work=live/{'1' * 90}" in line
    assert run(["actor", "list"]) == 0
    assert actors.show("ann").created_at in capsys.readouterr().out.splitlines()[1]


def test_a_receipt_is_saved_and_checked_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, public = tmp_path / "receipt.json", tmp_path / "public.pem"
    assert run(["receipt", "key", "-o", str(public)]) == 0
    capsys.readouterr()
    assert run(["actor", "erase", "ann", "-o", str(file)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(file.read_bytes())
    assert run(["actor", "erase", "bob", "-o", str(file)]) == 10
    assert run(["receipt", "verify", str(file)]) == 0
    capsys.readouterr()
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "elsewhere"))
    assert run(["receipt", "verify", str(file), "--key", str(public)]) == 0
    said = capsys.readouterr()
    assert "ann was erased at" in said.out
    assert "looked through: artefact store (4): nothing is left" in said.err
    assert run(["receipt", "verify", str(file)]) == 10
    file.write_text(json.dumps({**printed, "actor_id": "bob"}))
    assert run(["receipt", "verify", str(file), "--key", str(public)]) == 3
    assert "the receipt was changed or forged" in capsys.readouterr().err


def test_setting_key_signs_without_folder(
    tmp_path: Path, settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Gateways without a common folder sign with the key of the setting."""
    receipt, log, key = tmp_path / "receipt.json", tmp_path / "log.jsonl", tmp_path / "key.pem"
    key.write_bytes(private_pem(STUDIO))
    monkeypatch.setenv("DUBSTAGE_SIGNING_KEY_FILE", str(key))
    assert run(["actor", "erase", "ann", "-o", str(receipt)]) == 0
    assert run(["audit", "export", str(log)]) == 0
    assert not (settings.data_dir / "signing.pem").exists()
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "elsewhere"))
    assert run(["receipt", "verify", str(receipt)]) == 0
    assert run(["audit", "verify", str(log)]) == 0
    key.write_text("no key")
    capsys.readouterr()
    assert run(["receipt", "key"]) == 10
    assert f"DUBSTAGE_SIGNING_KEY_FILE: {key} holds no Ed25519 private key" in capsys.readouterr().err


def test_doctor_compares_keys(actors: ActorStore, settings: GatewaySettings, tmp_path: Path) -> None:
    """Doctor compares the key with that of the gateway that started last."""
    assert check_signing_key(settings) == f"none in {settings.data_dir} yet"
    record_settings(actors.database, settings)
    own = installation_key(settings.data_dir).id[:12]
    assert check_signing_key(settings) == f"{own}, {settings.data_dir / 'signing.pem'}"
    other = tmp_path / "other.pem"
    other.write_bytes(private_pem(STUDIO))
    with pytest.raises(StorageRefusedError, match=f"the gateway that started last signs with {own}.*DUBSTAGE_SIGNING_KEY_FILE"):
        check_signing_key(settings.model_copy(update={"signing_key_file": other}))
