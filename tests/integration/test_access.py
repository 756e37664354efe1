import datetime
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dubstage.client import DubstageCallError, TlsFiles
from dubstage.client import gateway as client
from tests.integration.client_calls import dubbing, enrolment
from tests.integration.servers import StartGateway


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Self-signed, for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = Certificate(folder / "server.pem", folder / "server.key")
    files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def test_token_and_tls_required(start_gateway: StartGateway, certificate: Certificate, tmp_path: Path) -> None:
    """Only the right token opens and only over the right TLS."""
    served = {"tls_certificate_file": certificate.certificate, "tls_key_file": certificate.key}
    running = start_gateway(tokens=["a-right-token-of-some-length"], **served)
    tls = TlsFiles(ca=certificate.certificate)
    with running.connect(tls=tls, token="a-right-token-of-some-length") as connection:
        assert list(client.list_actors(connection)) == []
    for token in (None, "a-wrong-token-of-some-length"):
        with running.connect(tls=tls, token=token) as connection, pytest.raises(DubstageCallError) as caught:
            list(client.list_actors(connection))
        assert caught.value.reason == "UNAUTHENTICATED"
        with running.connect(tls=tls, token=token) as connection, pytest.raises(DubstageCallError) as caught:
            client.cancel_operation(connection, "operations/1")
        assert caught.value.reason == "UNAUTHENTICATED"
    with running.connect(token="a-right-token-of-some-length", timeout_s=3) as plain, pytest.raises(DubstageCallError) as caught:
        list(client.list_actors(plain))
    assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")


def test_required_consent_on_every_rpc(start_gateway, stop_gateway, media) -> None:
    """No one is enrolled, dubbed or shown without a required consent."""
    free = start_gateway()
    with free.connect() as connection:
        client.enrol(connection, **enrolment("without", consent=False)).wait(timeout_s=300)
        client.enrol(connection, **enrolment("with-it")).wait(timeout_s=300)
    stop_gateway(free)
    running = start_gateway(require_consent=True, data_dir=free.data)
    with running.connect() as connection:
        refused: list[Callable[[], object]] = [
            lambda: client.enrol(connection, **enrolment("another", consent=False)),
            lambda: client.dub(connection, **dubbing("refused.mp4")),
            lambda: client.dub(connection, **dubbing("refused.mp4", actor_id="without")),
            lambda: list(client.live(connection, [], actor_id="without", sample_rate_hz=16000)),
            # The person in a reference picture is asked too, whoever that is.
            lambda: client.dub(
                connection,
                **dubbing(
                    "refused.mp4", method="hetero", reference="footage.mp4", consent=enrolment("", of=media.footage)["consent"]
                ),
            ),
        ]
        for call in refused:
            with pytest.raises(DubstageCallError) as caught:
                call()
            assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "CONSENT_MISSING")
        # The actor's own record is enough.
        client.dub(connection, **dubbing("dubbed_with_consent.mp4", actor_id="with-it")).cancel()


def test_missing_media_folder_names_setting(start_gateway: StartGateway) -> None:
    running = start_gateway(media_dir=None)
    with running.connect() as connection, pytest.raises(DubstageCallError, match="DUBSTAGE_MEDIA_DIR"):
        client.dub(connection, **dubbing("refused.mp4"))


def test_two_gateways_never_work_in_one_folder(start_gateway: StartGateway) -> None:
    from services.common.errors import InvalidRequestError

    running = start_gateway()
    with pytest.raises(InvalidRequestError, match="another gateway works in"):
        start_gateway(data_dir=running.data)
