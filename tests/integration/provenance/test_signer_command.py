"""A command signs videos in place of a key file, as one does that asks a key management service."""

import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.provenance.installation import open_sealer, own_watermark_key
from gateway.provenance.verdict import ManifestState, verdict_of
from gateway.settings import GatewaySettings
from services.common.errors import BackendUnavailableError, DubstageError, InvalidRequestError
from services.common.server.settings import load_settings
from tests.unit.provenance.signed_videos import PrivateKey, chain_for, pem_of, write_video
from tests.unit.provenance.test_credential import KEYS
from tests.unit.provenance.time_stamps import authority, new_stamper

SIGNER = """
    import sys
    from pathlib import Path
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(Path(sys.argv[1]).read_bytes(), None)
    content = sys.stdin.buffer.read()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        sha = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}[key.key_size]
        signature = key.sign(content, ec.ECDSA(sha()))
    elif hasattr(key, "key_size"):
        signature = key.sign(content, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    else:
        signature = key.sign(content)
    sys.stdout.buffer.write(signature)
"""
"""A program that signs as key management services do: ECDSA in DER."""
FAULTS = {
    "access to the key is denied": (
        "import sys\nsys.exit('AccessDenied: not your key')",
        "ended with status 1: AccessDenied: not your key",
    ),
    "another key signs": (
        """
        import sys
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        sys.stdout.buffer.write(Ed25519PrivateKey.generate().sign(sys.stdin.buffer.read()))
        """,
        r"the answer of 64 bytes is no signature \(ed25519\) by the certificate's key",
    ),
    "text in place of a signature": ("import sys\nsys.stdin.read()\nprint('signed')", "the answer of 7 bytes is no signature"),
    "an answer without end": ("import sys\nwhile True: sys.stdout.buffer.write(bytes(65536))", "is no signature"),
    "the command reads nothing": ("", "no signature came"),
}


def command_of(folder: Path, source: str, *arguments: Path) -> str:
    program = folder / "sign with.py"
    program.write_text(textwrap.dedent(source))
    return " ".join(f"'{word}'" for word in (sys.executable, program, *arguments))


def settings_of(folder: Path, chain: bytes, command: str) -> GatewaySettings:
    (folder / "chain.pem").write_bytes(chain)
    (folder / "secret").write_bytes(bytes(range(32)))
    return GatewaySettings(
        data_dir=folder / "data",
        provenance_certificate_file=folder / "chain.pem",
        provenance_signer_command=command,
        watermark_key_file=folder / "secret",
    )


def signing(folder: Path, key: PrivateKey) -> tuple[GatewaySettings, bytes]:
    """Settings of a command that signs with a key, and the certificate of the key's authority."""
    chain, anchor = chain_for(key)
    (folder / "kept.pem").write_bytes(pem_of(key))
    return settings_of(folder, chain, command_of(folder, SIGNER, folder / "kept.pem")), anchor


@pytest.mark.parametrize("algorithm", KEYS)
def test_the_command_signs_and_readers_trust_the_video(algorithm: str, carphone: Path, tmp_path: Path) -> None:
    settings, anchor = signing(tmp_path, KEYS[algorithm]())
    sealer = open_sealer(settings)
    assert sealer.credential.key == b""
    assert sealer.credential.algorithm == algorithm
    assert verdict_of(write_video(tmp_path / "video.mp4", carphone, sealer), anchors=anchor).state is ManifestState.TRUSTED


def test_the_watermark_follows_from_its_own_file(tmp_path: Path) -> None:
    settings, _ = signing(tmp_path, Ed25519PrivateKey.generate())
    key = open_sealer(settings).watermark_key
    assert key is not None
    assert own_watermark_key(settings) == key
    (tmp_path / "secret").write_bytes(bytes(31))
    told = "DUBSTAGE_WATERMARK_KEY_FILE: .*secret has 31 bytes; give a file of at least 32"
    with pytest.raises(InvalidRequestError, match=told):
        open_sealer(settings)


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_signer_refused_before_work(fault: str, tmp_path: Path) -> None:
    """A command that does not sign is reported before any work."""
    source, reason = FAULTS[fault]
    chain, _ = chain_for(Ed25519PrivateKey.generate())
    told = f"the command of DUBSTAGE_PROVENANCE_SIGNER_COMMAND gave no signature .*{reason}"
    with pytest.raises(BackendUnavailableError, match=told):
        open_sealer(settings_of(tmp_path, chain, command_of(tmp_path, source)))


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    chain, _ = chain_for(Ed25519PrivateKey.generate())
    with pytest.raises(BackendUnavailableError, match=r"/no/such/program cannot be started: No such file or directory"):
        open_sealer(settings_of(tmp_path, chain, "/no/such/program --key 1"))


def test_failed_signer_writes_no_video(carphone: Path, tmp_path: Path) -> None:
    """A video that the command no longer signs is not written."""
    settings, _ = signing(tmp_path, Ed25519PrivateKey.generate())
    sealer = open_sealer(settings)
    command_of(tmp_path, "import sys\nsys.exit('the key was disabled')")
    video = tmp_path / "video.mp4"
    with pytest.raises(BackendUnavailableError, match=r"the key was disabled\); .*video\.mp4 was not written"):
        write_video(video, carphone, sealer)
    assert not list(tmp_path.glob("*video*"))


def test_signer_wait_not_authority_timeout(carphone: Path, tmp_path: Path) -> None:
    """The wait for the command does not count as the authority's."""
    settings, anchor = signing(tmp_path, Ed25519PrivateKey.generate())
    sealer = open_sealer(settings)
    command_of(tmp_path, f"import time\ntime.sleep(5.0)\n{textwrap.dedent(SIGNER)}")
    stamper = new_stamper()
    with authority(lambda door, request: door.give(stamper.stamp(request))) as url:
        stamped = replace(sealer, time_stamp_url=url, time_stamp_limit_s=4.0)
        verdict = verdict_of(write_video(tmp_path / "video.mp4", carphone, stamped), anchors=anchor + stamper.anchor)
    assert (verdict.state, verdict.time_is_trusted) == (ManifestState.TRUSTED, True)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"signer_command": "sign"}, "needs provenance_certificate_file"),
        ({"signer_command": "sign", "certificate_file": "c.pem", "key_file": "k.pem"}, "no provenance_key_file"),
        ({"signer_command": "sign", "certificate_file": "c.pem"}, "needs watermark_key_file, or watermark=false"),
        ({"signer_command": "sign 'it", "certificate_file": "c.pem"}, "not written as for a shell"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"DUBSTAGE_PROVENANCE_{name.upper()}", value)
    with pytest.raises(DubstageError, match=reason):
        load_settings(GatewaySettings)
