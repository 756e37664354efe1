"""`dubstage inspect` and `dubstage watermark`: is a video what its maker signed, and whom to ask about its watermark."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.cli.app import run
from gateway.provenance.credential import KEY_FILE, credential_of, installation_credential
from gateway.provenance.directory import entries_of, read_directories
from gateway.provenance.installation import open_sealer, own_watermark_key, trusted_authorities
from gateway.provenance.seal import Sealer
from gateway.provenance.verdict import ManifestState
from gateway.provenance.watermark.payload import installation_of
from gateway.settings import GatewaySettings
from services.common.server.settings import load_settings
from tests.unit.provenance.conftest import carphone
from tests.unit.provenance.signed_videos import certificate_of, chain_for, flip, pem_of, write_video
from tests.unit.provenance.time_stamps import STAMPED_AT, authority, new_stamper

__all__ = ["carphone"]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data folder of an installation."""
    monkeypatch.setenv("DUBSTAGE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_own_video_valid_and_trusted(carphone: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "video.mp4", carphone, Sealer(installation_credential(data)))
    assert run(["inspect", str(video)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "content credentials: valid, signed with a certificate of this installation"
    for line in (
        "manifest: embedded",
        "signed by: dubstage installation (self-signed), dubstage (Ed25519, without a time stamp)",
        "made with: dubstage 9.8.7",
        "action: c2pa.edited; The mouth in this video is synthetic.; compositeWithTrainedAlgorithmicMedia",
        "digital source type in the metadata: http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia",
        "method: a method",
        f"model: render drawer {'ab' * 32}",
        f"consent of the person: record with sha256 {'cd' * 32}",
        "dubbed: frames 2 to 4, 0.07 s to 0.17 s",
        "dubbed: frames 8 to 8, 0.27 s to 0.30 s",
    ):
        assert line in printed


def test_foreign_video_needs_its_authority(carphone: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A video of a stranger is valid and not trusted until its authority is named."""
    video = write_video(tmp_path / "video.mkv", carphone, Sealer(installation_credential(tmp_path / "elsewhere")))
    assert run(["inspect", str(video)]) == 5
    shown = capsys.readouterr()
    head = "content credentials: valid, but the signer is unknown: neither this installation nor a trusted authority"
    assert shown.out.startswith(f"{head}\nmanifest: sidecar\n")
    assert "no trusted authority vouches for the signer" in shown.err
    assert run(["inspect", "--no-watermark", f"{video}.c2pa", "--trust", str(tmp_path / "elsewhere" / KEY_FILE)]) == 0
    assert capsys.readouterr().out.startswith("content credentials: valid, and the signer is trusted\n")
    assert not data.exists()


def test_studio_video_shows_time_stamp(carphone, data, tmp_path, monkeypatch, capsys) -> None:
    """A video of a studio shows the time of its authority and whether that is trusted."""
    stamper, key = new_stamper(), Ed25519PrivateKey.generate()
    chain, anchor = chain_for(key)
    for name, pem in (("chain.pem", chain), ("key.pem", pem_of(key)), ("both.pem", anchor + stamper.anchor), ("one.pem", anchor)):
        (tmp_path / name).write_bytes(pem)
    monkeypatch.setenv("DUBSTAGE_PROVENANCE_CERTIFICATE_FILE", str(tmp_path / "chain.pem"))
    monkeypatch.setenv("DUBSTAGE_PROVENANCE_KEY_FILE", str(tmp_path / "key.pem"))
    with authority(lambda door, request: door.give(stamper.stamp(request))) as url:
        monkeypatch.setenv("DUBSTAGE_PROVENANCE_TIME_STAMP_URL", url)
        video = write_video(tmp_path / "video.mp4", carphone, open_sealer(load_settings(GatewaySettings)))
    signed = f"signed by: Test Studio, Test Studio (Ed25519, {STAMPED_AT.isoformat()}"
    for trust, told in (("both.pem", ")"), ("one.pem", ", time stamp of an authority that is not trusted)")):
        assert run(["inspect", "--no-watermark", str(video), "--trust", str(tmp_path / trust)]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed[0] == "content credentials: valid, and the signer is trusted"
        assert f"{signed}{told}" in printed
        assert run(["inspect", "--no-watermark", "--json", str(video), "--trust", str(tmp_path / trust)]) == 0
        assert json.loads(capsys.readouterr().out)["time_is_trusted"] is (trust == "both.pem")
    assert not data.exists()


def test_other_customer_of_same_authority(carphone, data, tmp_path, monkeypatch, capsys) -> None:
    """Another customer of the same authority is trusted and is not this installation."""
    authority_key, ours, theirs = (Ed25519PrivateKey.generate() for _ in range(3))
    root = certificate_of("Test Authority", "Test Authority", authority_key, authority_key, days=3650, usages=[])
    chains = [
        b"".join(
            certificate.public_bytes(Encoding.PEM)
            for certificate in (
                certificate_of(name, "Test Authority", key, authority_key, days=30, usages=[ExtendedKeyUsageOID.EMAIL_PROTECTION]),
                root,
            )
        )
        for name, key in (("Our Studio", ours), ("Their Studio", theirs))
    ]
    (tmp_path / "chain.pem").write_bytes(chains[0])
    (tmp_path / "key.pem").write_bytes(pem_of(ours))
    monkeypatch.setenv("DUBSTAGE_PROVENANCE_CERTIFICATE_FILE", str(tmp_path / "chain.pem"))
    monkeypatch.setenv("DUBSTAGE_PROVENANCE_KEY_FILE", str(tmp_path / "key.pem"))
    videos = [
        write_video(tmp_path / f"video{number}.mp4", carphone, Sealer(credential_of(chain, pem_of(key))))
        for number, (chain, key) in enumerate(zip(chains, (ours, theirs), strict=True))
    ]
    for video, head, ours_alone in (
        (videos[0], "valid, signed with a certificate of this installation", True),
        (videos[1], "valid, and the signer is trusted", False),
    ):
        assert run(["inspect", "--no-watermark", str(video)]) == 0
        assert capsys.readouterr().out.startswith(f"content credentials: {head}\n")
        assert run(["inspect", "--no-watermark", "--json", str(video)]) == 0
        assert json.loads(capsys.readouterr().out)["signed_here"] is ours_alone


def test_exit_codes_changed_and_unsigned(carphone: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed video and a video without a manifest have exit codes of their own."""
    video = write_video(tmp_path / "video.mp4", carphone, Sealer(installation_credential(data)))
    flip(video, int(0.6 * video.stat().st_size))
    assert run(["inspect", str(video)]) == 3
    shown = capsys.readouterr()
    assert shown.out.startswith("content credentials: NOT VALID\n")
    assert "the video was changed after it was signed" in shown.err
    assert run(["inspect", "--no-watermark", str(carphone)]) == 4
    assert capsys.readouterr().out.startswith("content credentials: none\n")


def test_everything_is_there_as_json(carphone: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "video.mp4", carphone, Sealer(installation_credential(data)))
    assert run(["inspect", "--json", str(video)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["state"], told["place"], told["reasons"]) == (str(video), "trusted", "embedded", [])
    assert told["signed_here"] is True
    assert told["watermark"]["standing"] is None
    assert told["dub"]["dubbed"] == [[2, 5], [8, 9]]
    assert told["signer"]["alg"] == "Ed25519"
    assert run(["inspect", "--no-watermark", "--json", str(carphone)]) == 4
    assert json.loads(capsys.readouterr().out)["dub"] is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["none.mp4"], "none.mp4 does not exist"),
        (["none.mkv.c2pa"], "its video none.mkv is not beside it"),
        (["words.txt", "--trust", "words.txt"], "has no PEM certificate"),
        (["words.txt", "--trust", "none.pem"], "none.pem cannot be read"),
        (["."], "is a folder"),
    ],
)
def test_what_cannot_be_inspected_is_told(words, reason, data, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("words")
    assert run(["inspect", *words]) == 10
    assert reason in capsys.readouterr().err


NAMED = ["--name", "A studio", "--contact", "https://studio.example/watermarks"]


def test_published_entry_is_that_of_the_installation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "studio.json"
    assert run(["watermark", "publish", "-o", str(file), *NAMED]) == 0
    settings = load_settings(GatewaySettings)
    key = own_watermark_key(settings)
    assert key is not None
    name = f"{installation_of(key):03x}"
    shown = capsys.readouterr()
    assert (shown.out, f"installation {name}" in shown.err) == (f"{file}\n", True)
    (found,) = entries_of(read_directories([file]), name, trusted_authorities(settings))
    assert (found.state, found.entry.name, found.entry.contact) == (ManifestState.TRUSTED, NAMED[1], NAMED[3])
    assert run(["watermark", "publish", "-o", str(file), *NAMED]) == 10
    assert f"{file} exists" in capsys.readouterr().err
    assert run(["watermark", "publish", "-o", str(tmp_path / "again.json"), *NAMED, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"outputUri": str(tmp_path / "again.json"), "installation": name}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--name", "", "--contact", NAMED[3]], "--name is 1 to 200 characters"),
        (["--name", "A", "--contact", "http://studio.example"], "--contact is https://... or mailto:..."),
    ],
)
def test_wrong_entry_is_refused(words: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["watermark", "publish", "-o", str(tmp_path / "studio.json"), *words]) == 10
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "studio.json").exists()


@pytest.mark.parametrize("setting", ["DUBSTAGE_WATERMARK", "DUBSTAGE_WATERMARK_PUBLIC"])
def test_nothing_to_publish(setting, data, tmp_path, monkeypatch, capsys) -> None:
    """An installation without public watermarks has no entry."""
    monkeypatch.setenv(setting, "false")
    assert run(["watermark", "publish", "-o", str(tmp_path / "studio.json"), *NAMED]) == 10
    assert "this installation writes no public watermarks" in capsys.readouterr().err
    assert not data.exists()


def test_anybody_checks_a_video(carphone: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine that has never dubbed looks for public watermarks, and makes neither key nor folder."""
    video = tmp_path / "video.mp4"
    video.symlink_to(carphone)
    assert run(["inspect", "--json", str(video)]) == 4
    found = json.loads(capsys.readouterr().out)["watermark"]
    assert (found["found"], found["standing"]) == (False, None)
    assert not data.exists()


def test_file_that_is_no_directory(carphone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words.txt").write_text("words")
    assert run(["inspect", "--no-watermark", str(carphone), "--directory", str(tmp_path / "words.txt")]) == 10
    shown = capsys.readouterr()
    assert "words.txt, line 1" in shown.err
    assert shown.out == ""
