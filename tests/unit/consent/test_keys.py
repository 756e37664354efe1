"""Signatures of consent records, and the files of keys."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from shutil import which

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)

from gateway.consent.files import read_consent
from gateway.consent.keys import check_signature, key_id, read_keys, read_private_key, signed
from gateway.consent.record import Consent, canonical_form
from services.common.errors import ConsentAlteredError, ConsentSignerUnknownError, DubstageError, InvalidRequestError
from tests.unit.consent.records import RECORD, STRANGER, STUDIO, private_pem, public_pem, record, trusted

KEYS = {key_id(STUDIO.public_key()): STUDIO.public_key()}
P256 = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_signature_is_deterministic() -> None:
    """A signed record is accepted and a second signature is the same."""
    found = signed(record(), STUDIO)
    check_signature(found, KEYS, "ann")
    assert signed(signed(record(), STRANGER), STUDIO) == found


def test_other_key_differs_from_alteration() -> None:
    """A record with another key differs from an altered record."""
    stranger = signed(record(), STRANGER)
    with pytest.raises(ConsentSignerUnknownError, match=key_id(STRANGER.public_key())) as unknown:
        check_signature(stranger, KEYS, "ann")
    assert unknown.value.subject == "ann"
    assert stranger.signature is not None
    # The stranger's signature under the name of the studio's key.
    claimed = stranger.signature.model_copy(update={"key": next(iter(KEYS))})
    with pytest.raises(ConsentAlteredError):
        check_signature(stranger.model_copy(update={"signature": claimed}), KEYS, "ann")


def test_altered_byte_breaks_signature(tmp_path: Path) -> None:
    """No byte of a signed file can be altered."""
    whole = signed(record(projects=["night"], valid_until="2027-01-31T18:00:00Z"), STUDIO)
    content = json.dumps(whole.fields()).encode()
    path = tmp_path / "altered.json"
    accepted = []
    for place in range(len(content)):
        altered = bytearray(content)
        altered[place] ^= 1
        path.write_bytes(bytes(altered))
        try:
            found = read_consent(path)
            if found.signature is None:
                continue
            check_signature(found, KEYS, "ann")
            accepted.append(found)
        except DubstageError:
            continue
    # Some bytes are layout: a space of JSON may become another. What is accepted says what was signed.
    assert all(canonical_form(found) == canonical_form(whole) for found in accepted)


def test_signature_bound_to_context() -> None:
    """A signature of the same text in another context is none."""
    bare = base64.b64encode(STUDIO.sign(canonical_form(record()).partition(b"\n")[2])).decode()
    signature = {"algorithm": "Ed25519", "key": next(iter(KEYS)), "value": bare}
    with pytest.raises(ConsentAlteredError):
        check_signature(Consent.model_validate({**RECORD, "signature": signature}), KEYS, "ann")


@pytest.mark.skipif(which("openssl") is None, reason="openssl is not installed")
def test_openssl_checks_what_dubstage_signs(tmp_path: Path) -> None:
    found = signed(record(), STUDIO)
    assert found.signature is not None
    (tmp_path / "text").write_bytes(canonical_form(found))
    (tmp_path / "signature").write_bytes(base64.b64decode(found.signature.value))
    (tmp_path / "public.pem").write_bytes(public_pem(STUDIO))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "text", "-sigfile", "signature"]
    assert b"Verified Successfully" in subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout


def test_keys_from_file_or_folder(tmp_path: Path) -> None:
    """Keys come from a file with several or from a folder as Kubernetes mounts it."""
    both = tmp_path / "both.pem"
    both.write_bytes(b"# the studio, and a partner\n" + public_pem(STUDIO, STRANGER))
    assert set(read_keys(both)) == {key_id(STUDIO.public_key()), key_id(STRANGER.public_key())}
    mounted = tmp_path / "mounted"
    version = mounted / "..2026_11_22"
    version.mkdir(parents=True)
    (version / "studio.pem").write_bytes(public_pem(STUDIO))
    (mounted / "..data").symlink_to(version.name)
    (mounted / "studio.pem").symlink_to("..data/studio.pem")
    assert list(read_keys(mounted)) == [key_id(STUDIO.public_key())]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no PEM block"),
        (b"\xff\xfe\x00", "holds no PEM block"),
        (private_pem(STUDIO), "holds a private key"),
        (P256, "something else than Ed25519 public keys"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "something else than Ed25519 public keys"),
        (public_pem(STUDIO) + P256, "something else than Ed25519 public keys"),
    ],
)
def test_files_without_public_keys_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    place = tmp_path / "keys.pem"
    place.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=says) as caught:
        read_keys(place)
    assert caught.value.field == "DUBSTAGE_CONSENT_KEYS"


def test_a_place_without_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        read_keys(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequestError, match="holds no public key"):
        read_keys(tmp_path / "empty")
    (trusted(tmp_path / "keys") / "folder").mkdir()
    with pytest.raises(InvalidRequestError, match="folder cannot be read: not a regular file"):
        read_keys(tmp_path / "keys")


def test_private_key_only_pem(tmp_path: Path) -> None:
    """A private key is read from PEM and nothing else is."""
    path = tmp_path / "key.pem"
    path.write_bytes(private_pem(STUDIO))
    assert key_id(read_private_key(path).public_key()) == key_id(STUDIO.public_key())
    encrypted = STUDIO.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    other = ed448.Ed448PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    for content, says in (
        (encrypted, "is encrypted"),
        (other, "is encrypted"),
        (public_pem(STUDIO), "no Ed25519"),
        (b"", "no Ed25519"),
    ):
        path.write_bytes(content)
        with pytest.raises(InvalidRequestError, match=says):
            read_private_key(path)
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        read_private_key(tmp_path / "absent.pem")
