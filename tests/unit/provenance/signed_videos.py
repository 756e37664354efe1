"""Videos of real footage, written and signed as a dub writes them, and certificates of authorities of the tests' own."""

from __future__ import annotations

import datetime
from fractions import Fraction
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.media.encoders import WriteSettings
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from gateway.media.writer import VideoWriter
from gateway.provenance.claim import Claim, ModelFacts, SourceFile
from gateway.provenance.seal import Sealer

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey


def claim_of(footage: Path, speech: Path | None = None) -> Claim:
    """The claim of a video of the fixture `carphone` in which the frames 2 to 4 and 8 are dubbed."""
    return Claim(
        version="9.8.7",
        description="The mouth in this video is synthetic.",
        synthetic=True,
        method="a method",
        models=(ModelFacts(stage="render", name="drawer", version="ab" * 32),),
        num_frames=12,
        frame_rate=Fraction(30000, 1001),
        dubbed=(range(2, 5), range(8, 9)),
        consents={"person": "cd" * 32},
        job="ef" * 32,
        sources=(SourceFile("footage", footage), *([SourceFile("speech", speech)] if speech is not None else [])),
    )


def write_video(
    output: Path, footage: Path, sealer: Sealer | None, *, source: Path | None = None, speech: Path | None = None
) -> Path:
    """Write the frames of `footage`, and sign the video as one that was made of `source` (default: the footage)."""
    info = probe(footage)
    seal = sealer.seal(claim_of(source or footage, speech), output) if sealer is not None else None
    writer = VideoWriter(output, info, settings=WriteSettings(threads=1, overwrite=True), seal=seal)
    with writer, VideoReader(info) as reader:
        for frame in reader:
            writer.write(frame)
    return output


def flip(file: Path, place: int) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def claim_gigabytes(manifest: Path) -> Path:
    """Let the name of the method in a manifest, inside a video or in a sidecar, claim to have 6 GiB."""
    content = manifest.read_bytes()
    name = b"\x68a method"  # CBOR: text of 8 bytes
    assert content.count(name) == 1
    manifest.write_bytes(content.replace(name, b"\x5b" + (6 << 30).to_bytes(8, "big")))  # CBOR: bytes, their number in 64 bits
    return manifest


def chain_for(key: PrivateKey, *, days: float = 30, of_content: bool = True) -> tuple[bytes, bytes]:
    """A certificate for a key with its authority's, and the authority's alone, PEM."""
    authority = Ed25519PrivateKey.generate()
    root = certificate_of("Test Authority", "Test Authority", authority, authority, days=3650, usages=[])
    purpose = ExtendedKeyUsageOID.EMAIL_PROTECTION if of_content else ExtendedKeyUsageOID.CLIENT_AUTH
    leaf = certificate_of("Test Studio", "Test Authority", key, authority, days=days, usages=[purpose])
    anchor = root.public_bytes(Encoding.PEM)
    return leaf.public_bytes(Encoding.PEM) + anchor, anchor


def pem_of(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_of(
    subject: str,
    issuer: str,
    key: PrivateKey,
    authority: Ed25519PrivateKey | EllipticCurvePrivateKey,
    *,
    days: float,
    usages: list[x509.ObjectIdentifier],
) -> x509.Certificate:
    """A certificate that ends in so many days. Without usages: that of an authority."""
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    is_authority = not usages
    builder = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject), x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        )
        .issuer_name(
            x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, issuer), x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
        )
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=5000))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(not is_authority, False, False, False, False, is_authority, is_authority, False, False), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    if usages:
        # RFC 3161 wants it critical for time stamps.
        of_time = usages == [ExtendedKeyUsageOID.TIME_STAMPING]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=of_time)
    return builder.sign(authority, None if isinstance(authority, Ed25519PrivateKey) else hashes.SHA256())
