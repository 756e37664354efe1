"""`dubstage consent`, and what the other commands do with records that do not allow the work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import update

from gateway.actors.store import ActorStore
from gateway.cli.app import run
from gateway.cli.demo import SPEECH
from gateway.consent.files import read_consent
from gateway.consent.record import Consent, digest_of
from gateway.database.tables import ActorRow
from gateway.settings import GatewaySettings
from services.common.face.actor_geometry import ActorGeometry
from services.common.server.settings import load_settings
from services.common.store.artefacts import ArtefactStore
from tests.unit.actors.installation import geometry, learned
from tests.unit.consent.records import RECORD, STRANGER, STUDIO, allowed, faults, private_pem, public_pem, record, trusted

__all__ = ["geometry"]

NIGHT = ["--project", "night", "--language", "de"]


@pytest.fixture(autouse=True)
def trusted_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBSTAGE_CONSENT_KEYS", str(trusted(tmp_path / "keys")))


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBSTAGE_REQUIRE_CONSENT", "signed")


def write(folder: Path, consent: Consent, name: str = "record.json") -> str:
    path = folder / name
    path.write_text(json.dumps(consent.fields()))
    return str(path)


def enrolled(consent: Consent | None, geometry: ActorGeometry) -> None:
    """Enrol `ann` in the installation of the test, without footage, as of a day on which the record allowed it."""
    settings = load_settings(GatewaySettings)
    with ActorStore(settings) as actors:
        learnt = learned(ArtefactStore(settings.artefacts_url), "ann", geometry)
        actors.create("ann", method="dubstage", enrolled=learnt, footage_sha256="0" * 64, consent=None)
        with actors.database.writing() as session:
            fields, digest = (consent.fields(), digest_of(consent)) if consent is not None else (None, "")
            session.execute(update(ActorRow).values(consent=fields, consent_sha256=digest))


def test_a_record_is_signed_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, output = write(tmp_path, record(projects=["night"])), tmp_path / "signed.json"
    key = tmp_path / "key.pem"
    key.write_bytes(private_pem(STUDIO))
    assert run(["consent", "sign", plain, "--key", str(key), "-o", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert run(["consent", "verify", str(output), "--project", "night"]) == 0
    assert capsys.readouterr().out.strip() == digest_of(record(projects=["night"]))
    assert run(["consent", "sign", plain, "--key", str(key), "-o", str(output)]) == 10
    assert "exists" in capsys.readouterr().err
    (tmp_path / "stranger.pem").write_bytes(public_pem(STRANGER))
    assert run(["consent", "verify", str(output), "--keys", str(tmp_path / "stranger.pem")]) == 11
    assert "which DUBSTAGE_CONSENT_KEYS does not hold" in capsys.readouterr().err


@pytest.mark.parametrize("fault", sorted(set(faults()) - {"missing", "withdrawn", "no subject", "other actor"}))
def test_verify_tells_each_fault(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = faults()[fault]
    assert found.record is not None
    assert run(["consent", "verify", write(tmp_path, found.record), *NIGHT]) == 11
    said = "is not signed" if fault == "unsigned" else found.says
    assert said in capsys.readouterr().err
    assert run(["consent", "verify", write(tmp_path, allowed()), *NIGHT]) == 0


def test_a_withdrawn_record_is_shown_as_withdrawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], geometry: ActorGeometry
) -> None:
    mine = allowed()
    path = write(tmp_path, mine)
    enrolled(mine, geometry)
    assert run(["consent", "show", path]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["sha256"], facts["withdrawn_at"], facts["problem"]) == (digest_of(mine), "", "")
    assert facts["signed_text"].startswith("dubstage consent v2\n{")
    assert run(["consent", "revoke", path]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == facts["sha256"]
    assert "actors with this record: ann" in printed.err
    assert run(["consent", "show", path]) == 0
    assert "was withdrawn at" in json.loads(capsys.readouterr().out)["problem"]
    assert run(["actor", "show", "ann"]) == 0
    printed = capsys.readouterr()
    assert "was withdrawn at" in json.loads(printed.out)["consent_problem"]
    assert "warning: the consent was withdrawn at" in printed.err
    assert run(["actor", "list"]) == 0
    assert "- refused" in capsys.readouterr().out


def test_withdraw_by_actor(tmp_path: Path, capsys: pytest.CaptureFixture[str], geometry: ActorGeometry) -> None:
    """The record of an actor is withdrawn by the actor."""
    enrolled(record(), geometry)
    assert run(["consent", "revoke", "--actor", "ann"]) == 0
    assert capsys.readouterr().out.strip() == digest_of(record())
    for wrong, code in (([], 10), ([write(tmp_path, record()), "--actor", "ann"], 10), (["--actor", "bob"], 11)):
        assert run(["consent", "revoke", *wrong]) == code


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("fault", sorted(faults()))
def test_commands_refuse_each_faulty_record_before_any_work(
    fault: str, tmp_path: Path, carphone: Path, capsys: pytest.CaptureFixture[str], geometry: ActorGeometry
) -> None:
    found = faults()[fault]
    file = write(tmp_path, found.record) if found.record is not None else None
    given = ["--consent", file] if file is not None else []
    if found.withdrawn and file is not None:
        assert run(["consent", "revoke", file]) == 0
    enrolled(found.record, geometry)
    video, speech = ["-o", str(tmp_path / "video.mp4")], ["--audio", str(SPEECH)]
    manifest = tmp_path / "night.jsonl"
    row = {"id": "a", "footage": str(carphone), "speech": speech[1], "output": video[1], "project": "night", "language": "de"}
    manifest.write_text(json.dumps(row | ({"consent": file} if file is not None else {})))
    commands = {
        "dub": ["dub", str(carphone), *speech, *video, *NIGHT, *given],
        "dub of the actor": ["dub", str(carphone), *speech, *video, *NIGHT, "--actor", "ann"],
        "live": ["live", "ann", *speech, *video, *NIGHT],
        "actor create": ["actor", "create", "bob", str(carphone), *NIGHT[:2], *given],
        "batch submit": ["batch", "submit", str(manifest)],
    }
    if found.of_language:
        del commands["actor create"]  # an enrolment has no speech
    if found.of_requests:
        del commands["dub of the actor"], commands["live"]
    capsys.readouterr()
    for name, command in commands.items():
        assert run(command) == (10 if name == "batch submit" else 11), name
        assert found.says in capsys.readouterr().err, name
    assert not (tmp_path / "video.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["consent", "sign", "none.json", "--key", "none.pem", "-o", "out.json"], "none.json: cannot be read"),
        (["consent", "verify", "none.json"], "none.json: cannot be read"),
        (["consent", "show", "none.json"], "none.json: cannot be read"),
        (["consent", "revoke", "none.json"], "none.json: cannot be read"),
        (["dub", "in.mp4", "-o", "out.mp4", "--language", "german!"], "is no language tag"),
        (["dub", "in.mp4", "-o", "out.mp4", "--project", "a\nb"], "project: character 2"),
        (["live", "ann", "--audio", "a.wav", "-o", "out.mp4", "--language", "german!"], "is no language tag"),
    ],
)
def test_mistakes_end_with_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 10
    assert said in capsys.readouterr().err


def test_signing_and_verifying_need_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signature needs a key and verification needs keys."""
    path = write(tmp_path, record())
    assert run(["consent", "sign", path, "--key", str(tmp_path / "none.pem"), "-o", str(tmp_path / "out.json")]) == 10
    assert "none.pem cannot be read" in capsys.readouterr().err
    monkeypatch.delenv("DUBSTAGE_CONSENT_KEYS")
    assert run(["consent", "verify", path]) == 10
    assert "there are no trusted keys" in capsys.readouterr().err
    assert read_consent(Path(path)).fields() == RECORD
