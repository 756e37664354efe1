"""TLS and tokens: who has which certificate, and who is asked for what."""

import datetime
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from charts.schema import SETTINGS
from dubstage.audio.v1 import audio_pb2
from dubstage.client import rpcs
from dubstage.common.v1 import common_pb2
from gateway.settings import GatewaySettings
from services.audio.__main__ import compose
from services.audio.settings import AudioSettings
from services.common.errors import StageDeadlineExceededError, UnauthenticatedError
from services.common.server.client import StageClient
from services.common.server.process import server_of
from services.common.server.settings import StageSettings, load_settings
from tests.charts.rendering import COMPONENTS, STAGES, label, pod_spec, render
from tests.contract.ports import free_port


def test_certificates_of_the_release() -> None:
    """An authority of the release signs a certificate for the names of each component, whose pod mounts it."""
    rendered = render("production")
    certificates = {label(item, "component"): item["spec"] for item in rendered.of("Certificate") if not item["spec"].get("isCA")}
    assert certificates.keys() == set(COMPONENTS)
    for component, spec in certificates.items():
        name = f"dubstage-{component}"
        assert {name, f"{name}.dubbing.svc", f"{name}.dubbing.svc.cluster.local"} <= set(spec["dnsNames"])
        assert {"server auth", "client auth"} <= set(spec["usages"])
    for stage in STAGES:
        endpoint = rendered.environment("gateway")[f"DUBSTAGE_{stage.upper()}_ENDPOINT"]
        assert endpoint.removeprefix("dns:///").partition(":")[0] in certificates[stage]["dnsNames"]
    issuers = {item["metadata"]["name"]: item["spec"] for item in rendered.of("Issuer")}
    for item in rendered.of("Certificate"):
        assert item["spec"]["issuerRef"]["name"] in issuers
    authority = rendered.one("Certificate", "dubstage-authority")["spec"]
    assert issuers["dubstage-authority"]["ca"]["secretName"] == authority["secretName"]
    own = [item for item in rendered.of("Certificate") if not item["spec"].get("isCA")]
    written = {label(item, "component"): item["spec"]["secretName"] for item in own}
    for component in COMPONENTS:
        (volume,) = [item for item in pod_spec(rendered.deployment(component))["volumes"] if item["name"] == "tls"]
        assert volume["secret"]["secretName"] == written[component]


def test_other_sources_of_certificates() -> None:
    """An issuer of the cluster or given secrets take the place of the authority, and without TLS nothing of it is there."""
    issuer = "global.tls.certManager.issuerRef"
    rendered = render("production", f"{issuer}.name=corporate", f"{issuer}.kind=ClusterIssuer")
    assert not rendered.of("Issuer")
    assert {item["spec"]["issuerRef"]["name"] for item in rendered.of("Certificate")} == {"corporate"}
    rendered = render("everything")
    assert not rendered.of("Certificate")
    mounted = {
        component: item["secret"]["secretName"]
        for component in COMPONENTS
        for item in pod_spec(rendered.deployment(component))["volumes"]
        if item["name"] == "tls"
    }
    assert mounted == {**dict.fromkeys(STAGES, "everyone"), "gateway": "gateway-tls"}
    for component in COMPONENTS:
        assert not any("TLS" in name for name in render("default").environment(component))


@pytest.mark.parametrize("case", ["production", "everything"])
def test_stages_require_certificate_and_token(case: str) -> None:
    """Stages want a certificate and a token and the gateway has both."""
    rendered = render(case)
    gateway = rendered.environment("gateway")
    assert gateway["DUBSTAGE_STAGES_TLS"] == "true"
    assert {"DUBSTAGE_STAGES_TLS_CERTIFICATE_FILE", "DUBSTAGE_STAGES_TLS_KEY_FILE", "DUBSTAGE_STAGES_TLS_CA_FILE"} <= gateway.keys()
    for stage in STAGES:
        environment = rendered.environment(stage)
        assert environment["DUBSTAGE_REQUIRE_CLIENT_CERTIFICATE"] == "true"
        assert environment["DUBSTAGE_AUTH_TOKEN_FILE"] == gateway["DUBSTAGE_STAGES_TOKEN_FILE"]


class Authority:
    """Signs what cert-manager would, for the names that the chart asks for."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign("authority", self._key, ["authority"])

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, names: list[str]) -> x509.Certificate:
        own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(own).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns) for dns in names]), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def secret(self, folder: Path, names: list[str]) -> None:
        """Writes tls.crt, tls.key and ca.crt, as they are mounted."""
        folder.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / "tls.crt").write_bytes(self._sign(names[0], key, names).public_bytes(serialization.Encoding.PEM))
        plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / "tls.key").write_bytes(key.private_bytes(*plain))
        (folder / "ca.crt").write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))


def settings_in_pod(component: str, folder: Path, patch: pytest.MonkeyPatch, **changed: str) -> StageSettings:
    """Environment of a production pod's process, its secrets mounted below `folder`, its ports free ones of this machine."""
    for name, value in {**render("production").environment(component), **changed}.items():
        text = "sqlite://" if isinstance(value, dict) else str(value)
        patch.setenv(name, str(folder / text.removeprefix("/etc/dubstage/")) if text.startswith("/etc/dubstage/") else text)
    settings = load_settings(SETTINGS[component])
    for name in changed:
        patch.delenv(name)
    return settings


async def test_production_connection_and_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Production configures a connection with certificates and token, and a probe without them."""
    health_port, metrics_port = free_port(), free_port()
    authority = Authority()
    certificates = {label(item, "component"): item["spec"] for item in render("production").of("Certificate")}
    for component in ("audio", "gateway"):
        # Here the stage is localhost; in a cluster it is found by the other names.
        authority.secret(tmp_path / component / "tls", [*certificates[component]["dnsNames"], "localhost"])
        (tmp_path / component / "stages-token").mkdir()
        (tmp_path / component / "stages-token" / "token").write_text("a-secret")
    (tmp_path / "gateway" / "tokens").mkdir()
    (tmp_path / "gateway" / "tokens" / "tokens").write_text("another")
    free = {"DUBSTAGE_PORT": "0", "DUBSTAGE_HEALTH_PORT": str(health_port), "DUBSTAGE_METRICS_PORT": str(metrics_port)}
    # No collector of traces runs here. A server that ends would wait for the collector.
    free["DUBSTAGE_OTLP_ENDPOINT"] = ""
    stage = settings_in_pod("audio", tmp_path / "audio", monkeypatch, **free)
    gateway = settings_in_pod("gateway", tmp_path / "gateway", monkeypatch)
    assert isinstance(stage, AudioSettings)
    assert isinstance(gateway, GatewaySettings)

    async with server_of("audio", stage, compose(stage)) as server:
        config = replace(gateway.client_config("audio"), target=f"localhost:{server.port}")
        async with StageClient(config) as client:
            replies = client.connection.stream(rpcs.audio.EXTRACT_FEATURES, _no_speech())
            assert [reply async for reply in replies] == []
        async with StageClient(replace(config, auth_token_file=None)) as client:
            with pytest.raises(UnauthenticatedError):
                _ = [reply async for reply in client.connection.stream(rpcs.audio.EXTRACT_FEATURES, _no_speech())]
        async with StageClient(replace(config, tls_certificate_file=None, tls_key_file=None, auth_token_file=None)) as client:
            with pytest.raises(StageDeadlineExceededError):
                await client.wait_until_reachable(1.0)
        # The kubelet's probe: no TLS, no certificate.
        async with grpc.aio.insecure_channel(f"127.0.0.1:{health_port}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            for name in ("", "liveness"):
                reply = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
                assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def _no_speech() -> AsyncIterator[audio_pb2.ExtractFeaturesRequest]:
    timeline = common_pb2.Timeline(frame_rate=common_pb2.Rational(num=25, den=1))
    kinds = [audio_pb2.FEATURE_KIND_MEL]
    yield audio_pb2.ExtractFeaturesRequest(
        config=audio_pb2.ExtractFeaturesConfig(sample_rate_hz=16000, channels=1, timeline=timeline, kinds=kinds)
    )
