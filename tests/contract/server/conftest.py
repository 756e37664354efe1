"""A tiny service of raw bytes with all four kinds of methods, behind the real server on a real port."""

import datetime
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.common.server.client import ClientConfig, StageClient
from services.common.server.server import StageServer
from services.common.server.settings import StageSettings
from tests.contract import ports
from tests.contract.server.helpers import raw, sent

SERVICE = "dubstage.echo.v1.EchoService"
Behaviour = Callable[[bytes], Awaitable[bytes]]


def echo_handlers(behave: Behaviour) -> grpc.GenericRpcHandler:
    async def unary(request: bytes, context: Any) -> bytes:
        return await behave(request)

    async def download(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        yield await behave(request)

    async def upload(requests: AsyncIterator[bytes], context: Any) -> bytes:
        answers = [await behave(request) async for request in requests]
        return b"|".join(answers)

    async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        async for request in requests:
            yield await behave(request)

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Download": grpc.unary_stream_rpc_method_handler(download),
            "Upload": grpc.stream_unary_rpc_method_handler(upload),
            "Stream": grpc.stream_stream_rpc_method_handler(stream),
        },
    )


@dataclass
class EchoClient:
    """Calls the echo service by each of the four kinds."""

    stage: StageClient
    received: list[bytes] = field(default_factory=list)

    async def call(self, kind: str, message: bytes = b"x", *, times: int = 1, policy: Any = None, timeout_s: float = 60) -> None:
        rpc = raw(SERVICE, kind)
        match kind:
            case "Unary":
                self.received.append(await self.stage.unary(rpc, message, policy=policy, timeout_s=timeout_s))
            case "Upload":
                answer = await self.stage.upload(rpc, lambda: sent(message, times), policy=policy, timeout_s=timeout_s)
                self.received.append(answer)
            case "Download":
                async for response in self.stage.connection.download(rpc, message, timeout_s=timeout_s):
                    self.received.append(response)
            case _:
                async for response in self.stage.connection.stream(rpc, sent(message, times), timeout_s=timeout_s):
                    self.received.append(response)

    def method(self, kind: str) -> Any:
        makers = {"Unary": "unary_unary", "Upload": "stream_unary", "Download": "unary_stream", "Stream": "stream_stream"}
        return getattr(self.stage.channel, makers[kind])(f"/{SERVICE}/{kind}")


@dataclass
class Echo:
    """Starts echo servers and clients, and ends them with the test."""

    ends: list[Any] = field(default_factory=list)
    service: str = SERVICE

    async def serve(
        self,
        behave: Behaviour,
        *,
        warm: bool = True,
        warm_up: Any = None,
        is_serving: Any = None,
        workers: Any = (),
        register: Any = None,
        **settings: Any,
    ) -> StageServer:
        settings = {"drain_grace_s": 0.0, **settings}

        def add(target: grpc.aio.Server) -> None:
            target.add_generic_rpc_handlers([echo_handlers(behave)])
            if register is not None:
                register(target)

        parts = {"register": add, "warm_up": warm_up, "workers": workers, "is_serving": is_serving}
        server = StageServer("echo", StageSettings(**settings), services=[SERVICE], **parts)
        self.ends.append(lambda: server.drain(grace_s=0))
        await server.start()
        if warm:
            await server.warm_up()
        return server

    def connect(self, server: StageServer, **config: Any) -> EchoClient:
        config = {"stage": "echo", "target": server.address, **config}
        client = StageClient(ClientConfig(**config))
        self.ends.append(client.close)
        return EchoClient(client)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    factory = Echo()
    yield factory
    for end in reversed(factory.ends):
        await end()


@dataclass(frozen=True)
class Identity:
    chain: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    authority: Path
    other_authority: Path
    server: Identity
    client: Identity
    foreign_client: Identity
    foreign_server: Identity


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Two authorities; the first signed the server and a client, the other a foreign client and a foreign server."""
    folder = tmp_path_factory.mktemp("certificates")

    def write(name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    def issue(name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None) -> Any:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer[0].subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
        chain = write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return (certificate, key), Identity(chain, write(f"{name}.key", private))

    authority, authority_files = issue("authority", None)
    other, other_files = issue("other-authority", None)
    return Certificates(
        authority_files.chain,
        other_files.chain,
        issue("server", authority)[1],
        issue("client", authority)[1],
        issue("foreign-client", other)[1],
        issue("foreign-server", other)[1],
    )


@pytest.fixture
def free_port() -> int:
    return ports.free_port()
