"""Keys that videos are signed with: the user's own files, or a pair that the installation makes and keeps to itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from gateway.provenance.credential import KEY_FILE, installation_credential
from gateway.provenance.installation import check_credential, open_sealer, trusted_authorities
from gateway.provenance.verdict import ManifestState, verdict_of
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError, StorageRefusedError
from services.common.server.settings import load_settings
from tests.unit.provenance.signed_videos import PrivateKey, chain_for, pem_of, write_video

KEYS: dict[str, Callable[[], PrivateKey]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "es512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
}
OWN = ed25519.Ed25519PrivateKey.generate()


def settings_of(folder: Path, chain: bytes = b"", key: bytes = b"") -> GatewaySettings:
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(key)
    return GatewaySettings(
        data_dir=folder / "data", provenance_certificate_file=folder / "chain.pem", provenance_key_file=folder / "key.pem"
    )


def test_installation_makes_one_key(tmp_path: Path) -> None:
    """The installation makes one private key and keeps it."""
    first = installation_credential(tmp_path / "data")
    assert installation_credential(tmp_path / "data") == first
    file = tmp_path / "data" / KEY_FILE
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert installation_credential(tmp_path / "other").key != first.key
    assert "PRIVATE" not in repr(first)


def test_damaged_key_is_not_replaced(tmp_path: Path) -> None:
    """A damaged key of the installation is reported and not replaced."""
    installation_credential(tmp_path)
    file = tmp_path / KEY_FILE
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(StorageRefusedError, match=r"provenance\.pem is damaged"):
        installation_credential(tmp_path)
    assert len(file.read_bytes()) == 100


@pytest.mark.parametrize("algorithm", KEYS)
def test_own_certificate_is_trusted(algorithm: str, carphone: Path, tmp_path: Path) -> None:
    """The user's certificate signs and its authority makes the video trusted."""
    key: PrivateKey = KEYS[algorithm]()
    chain, root = chain_for(key)
    sealer = open_sealer(settings_of(tmp_path, chain, pem_of(key)))
    assert sealer.credential.algorithm == algorithm
    video = write_video(tmp_path / "video.mp4", carphone, sealer)
    verdict = verdict_of(video, anchors=root)
    assert (verdict.state, verdict.signer["common_name"]) == (ManifestState.TRUSTED, "Test Studio")
    assert verdict_of(video).state == ManifestState.VALID
    assert not (tmp_path / "data").exists()


def _encrypted(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


WRONG = {
    "no certificate": (b"words", pem_of(OWN), "no PEM certificate"),
    "no key": (chain_for(OWN)[0], b"words", "no PEM private key"),
    "another key": (chain_for(OWN)[0], pem_of(ed25519.Ed25519PrivateKey.generate()), "does not belong"),
    "encrypted": (chain_for(OWN)[0], _encrypted(OWN), "encrypted"),
    "an unknown curve": (chain_for(OWN)[0], pem_of(ec.generate_private_key(ec.SECP256K1())), "no kind that C2PA takes"),
    "expired": (chain_for(OWN, days=-1)[0], pem_of(OWN), "C2PA does not accept the certificate"),
    "not for content": (chain_for(OWN, of_content=False)[0], pem_of(OWN), "C2PA does not accept the certificate"),
    "an authority's": (chain_for(OWN)[1], pem_of(OWN), "does not belong"),
}


@pytest.mark.parametrize("case", WRONG)
def test_unusable_signing_files_refused(case: str, tmp_path: Path) -> None:
    """Files that cannot sign are refused before any work."""
    chain, key, reason = WRONG[case]
    with pytest.raises(InvalidRequestError, match=reason) as raised:
        open_sealer(settings_of(tmp_path, chain, key))
    assert raised.value.field.startswith("DUBSTAGE_PROVENANCE_")


def test_own_credential_accepted_by_c2pa(tmp_path: Path) -> None:
    """The installation's own credential is one that C2PA takes."""
    settings = GatewaySettings(data_dir=tmp_path / "data")
    assert trusted_authorities(settings) == b""
    check_credential(open_sealer(settings).credential)
    trusted = trusted_authorities(settings)
    assert trusted.count(b"BEGIN CERTIFICATE") == 2
    assert b"PRIVATE" not in trusted


def test_certificate_and_key_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBSTAGE_PROVENANCE_KEY_FILE", str(tmp_path / "key.pem"))
    with pytest.raises(InvalidRequestError, match="together or not at all"):
        load_settings(GatewaySettings)
    monkeypatch.setenv("DUBSTAGE_PROVENANCE_CERTIFICATE_FILE", str(tmp_path / "chain.pem"))
    with pytest.raises(InvalidRequestError, match=r"chain\.pem cannot be read"):
        open_sealer(load_settings(GatewaySettings))


@pytest.mark.parametrize(
    "url", ["ftp://tsa.example.com", "tsa.example.com", "http://tsa.example.com/a b", "http://me:secret@tsa.example.com"]
)
def test_the_time_stamp_authority_is_a_web_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBSTAGE_PROVENANCE_TIME_STAMP_URL", url)
    with pytest.raises(InvalidRequestError, match="PROVENANCE_TIME_STAMP_URL") as raised:
        load_settings(GatewaySettings)
    assert "secret" not in raised.value.message
