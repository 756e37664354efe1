"""A time stamp authority on 127.0.0.1 (RFC 3161), with a certificate of its own. Tests say how it fails."""

from __future__ import annotations

import datetime
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.unit.provenance.signed_videos import certificate_of

NAME: Final = "Test Time Stamps"
STAMPED_AT: Final = datetime.datetime(2025, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
"""Time of every time stamp: another one than that of the test, so that nothing else can be taken for it."""
_SIGNED_DATA: Final = ObjectIdentifier("1.2.840.113549.1.7.2")
_TIME_STAMP: Final = ObjectIdentifier("1.2.840.113549.1.9.16.1.4")
_CONTENT_TYPE: Final = ObjectIdentifier("1.2.840.113549.1.9.3")
_MESSAGE_DIGEST: Final = ObjectIdentifier("1.2.840.113549.1.9.4")
_SIGNING_CERTIFICATE: Final = ObjectIdentifier("1.2.840.113549.1.9.16.2.47")
_SHA256: Final = ObjectIdentifier("2.16.840.1.101.3.4.2.1")
_ECDSA_WITH_SHA256: Final = ObjectIdentifier("1.2.840.10045.4.3.2")
_POLICY: Final = ObjectIdentifier("2.5.29.32.0")


@asn1.sequence
class _Algorithm:
    name: ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class Imprint:
    """Content of the stamp: the digest of some bytes."""

    algorithm: _Algorithm
    digest: bytes


@asn1.sequence
class Request:
    """A question to a time stamp authority. Source: RFC 3161, 2.4.1."""

    version: int
    imprint: Imprint
    policy: ObjectIdentifier | None
    nonce: int | None
    wants_certificates: Annotated[bool, asn1.Default(False)]


@asn1.sequence
class _Info:
    version: int
    policy: ObjectIdentifier
    imprint: Imprint
    serial_number: int
    time: asn1.GeneralizedTime
    nonce: int | None


@asn1.sequence
class _Content:
    kind: ObjectIdentifier
    content: Annotated[bytes, asn1.Explicit(0)]


@asn1.sequence
class _Attribute:
    kind: ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class _CertificateId:
    digest: bytes


@asn1.sequence
class _SigningCertificate:
    certificates: list[_CertificateId]


@asn1.sequence
class _Attributes:
    attributes: asn1.SetOf[_Attribute]


@asn1.sequence
class _CertificateName:
    issuer: asn1.TLV
    serial_number: int


@asn1.sequence
class _SignerInfo:
    version: int
    signer: _CertificateName
    digest_algorithm: _Algorithm
    attributes: Annotated[asn1.SetOf[_Attribute], asn1.Implicit(0)]
    signature_algorithm: _Algorithm
    signature: bytes


@asn1.sequence
class _SignedData:
    version: int
    digest_algorithms: asn1.SetOf[_Algorithm]
    content: _Content
    certificates: Annotated[asn1.SetOf[x509.Certificate], asn1.Implicit(0)]
    signers: asn1.SetOf[_SignerInfo]


@asn1.sequence
class _Token:
    kind: ObjectIdentifier
    content: Annotated[_SignedData, asn1.Explicit(0)]


@asn1.sequence
class _Status:
    status: int


@asn1.sequence
class _Response:
    status: _Status
    token: _Token | None


@dataclass(frozen=True, slots=True)
class Stamper:
    """Key and certificates of a time stamp authority.

    Attributes:
        key: signs time stamps.
        chain: its certificate, and that of the authority above.
    """

    key: EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, x509.Certificate]

    @property
    def anchor(self) -> bytes:
        """Certificate, PEM, by which a reader trusts the time stamps."""
        return self.chain[1].public_bytes(Encoding.PEM)

    def stamp(self, request: Request) -> bytes:
        """The time stamp response that grants a request. Source: RFC 3161, 2.4.2; RFC 5652, 5; RFC 5816."""
        plain = _Algorithm(name=_SHA256, parameters=None)
        info = asn1.encode_der(
            _Info(
                version=1,
                policy=_POLICY,
                imprint=request.imprint,
                serial_number=7,
                time=asn1.GeneralizedTime(STAMPED_AT),
                nonce=request.nonce,
            )
        )
        own = _CertificateId(digest=self.chain[0].fingerprint(hashes.SHA256()))
        attributes = asn1.SetOf(
            [
                _attribute(_CONTENT_TYPE, asn1.encode_der(_TIME_STAMP)),
                _attribute(_MESSAGE_DIGEST, asn1.encode_der(hashlib.sha256(info).digest())),
                _attribute(_SIGNING_CERTIFICATE, asn1.encode_der(_SigningCertificate(certificates=[own]))),
            ]
        )
        signed = asn1.decode_der(asn1.TLV, asn1.encode_der(_Attributes(attributes=attributes))).data
        signer = _SignerInfo(
            version=1,
            signer=_CertificateName(
                issuer=asn1.decode_der(asn1.TLV, self.chain[0].issuer.public_bytes()), serial_number=self.chain[0].serial_number
            ),
            digest_algorithm=plain,
            attributes=attributes,
            signature_algorithm=_Algorithm(name=_ECDSA_WITH_SHA256, parameters=None),
            signature=self.key.sign(bytes(signed), ECDSA(hashes.SHA256())),
        )
        content = _SignedData(
            version=3,
            digest_algorithms=asn1.SetOf([plain]),
            content=_Content(kind=_TIME_STAMP, content=info),
            certificates=asn1.SetOf(list(self.chain)),
            signers=asn1.SetOf([signer]),
        )
        return asn1.encode_der(_Response(status=_Status(status=0), token=_Token(kind=_SIGNED_DATA, content=content)))


def refusal() -> bytes:
    """The time stamp response that refuses a request."""
    return asn1.encode_der(_Response(status=_Status(status=2), token=None))


def new_stamper() -> Stamper:
    """A time stamp authority with a new key and new certificates."""
    key, above = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    root = certificate_of(f"{NAME} Root", f"{NAME} Root", above, above, days=3650, usages=[])
    usages = [ExtendedKeyUsageOID.TIME_STAMPING]
    return Stamper(key, (certificate_of(NAME, f"{NAME} Root", key, above, days=3650, usages=usages), root))


def _attribute(kind: ObjectIdentifier, value: bytes) -> _Attribute:
    return _Attribute(kind=kind, values=asn1.SetOf([asn1.decode_der(asn1.TLV, value)]))


class Door(BaseHTTPRequestHandler):
    """One HTTP request to an authority, and what it may be answered with."""

    server: _Server

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answer(self, asn1.decode_der(Request, asked))

    def give(self, body: bytes, *, status: int = 200) -> None:
        """Answer with a body of this length."""
        self.send_response(status)
        self.send_header("Content-Type", "application/timestamp-reply")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin(self) -> None:
        """Begin an answer that says nothing of its length."""
        self.send_response(200)
        self.send_header("Content-Type", "application/timestamp-reply")
        self.end_headers()

    def wait_for_the_end(self) -> None:
        """Say nothing more until the test is over."""
        self.server.over.wait()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Door)
        self.answer = answer
        self.over = threading.Event()


Answer = Callable[[Door, Request], None]


@contextmanager
def authority(answer: Answer) -> Iterator[str]:
    """Serve a time stamp authority, and yield its URL."""
    with _Server(answer) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/stamps"
        finally:
            server.over.set()
            server.shutdown()
