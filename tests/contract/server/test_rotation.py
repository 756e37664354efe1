"""Certificates, keys, authorities and tokens are replaced while real servers and clients run."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from services.common import errors
from services.common.server.client import StageClient
from services.common.server.server import StageServer
from tests.contract.server.helpers import ONCE, answer, presenting, raw


@dataclass
class Side:
    """TLS files of one side in a folder of its own, as a Secret is mounted."""

    folder: Path
    authority: Path = field(init=False)
    chain: Path = field(init=False)
    key: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.authority, self.chain, self.key = (self.folder / name for name in ("ca.crt", "tls.crt", "tls.key"))

    def replace(self, authority: Path, identity: Any) -> None:
        """Put other files in the place of these, each as a whole."""
        for source, target in ((authority, self.authority), (identity.chain, self.chain), (identity.key, self.key)):
            fresh = target.with_suffix(".new")
            shutil.copy(source, fresh)
            fresh.replace(target)


@dataclass
class Pair:
    """A server with mutual TLS, and what a client of the server is made with."""

    server: StageServer
    own: Side
    callers: Side
    echo: Any

    def client(self, callers: Side | None = None) -> Any:
        side = callers or self.callers
        return self.echo.connect(
            self.server,
            target=f"localhost:{self.server.port}",
            tls=True,
            tls_ca_file=side.authority,
            tls_certificate_file=side.chain,
            tls_key_file=side.key,
        )


@pytest.fixture
async def pair(echo: Any, certificates: Any, tmp_path: Path) -> Pair:
    own, callers = Side(tmp_path / "server"), Side(tmp_path / "client")
    own.replace(certificates.authority, certificates.server)
    callers.replace(certificates.authority, certificates.client)
    server = await echo.serve(
        answer,
        tls_certificate_file=own.chain,
        tls_key_file=own.key,
        tls_client_ca_file=own.authority,
        require_client_certificate=True,
    )
    return Pair(server, own, callers, echo)


@dataclass
class Running:
    """A stream that goes on for as long as a test wants."""

    client: StageClient
    method: Any
    sent: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self._replies = self.client.connection.stream(self.method, self._messages(), timeout_s=120)

    async def begin(self) -> None:
        assert await anext(self._replies) == b"first"

    async def exchange(self, message: bytes) -> None:
        """Send a message and get the answer."""
        self.sent.put_nowait(message)
        assert await anext(self._replies) == message

    async def end(self) -> None:
        await self._replies.aclose()

    async def _messages(self) -> AsyncIterator[bytes]:
        while True:
            yield await self.sent.get()


async def test_certificates_rotate(pair: Pair, certificates: Any, tmp_path: Path) -> None:
    """Both sides go on with new certificates and the old ones open nothing."""
    client = pair.client()
    await client.call("Unary", policy=ONCE)
    running = Running(client.stage, raw(pair.echo.service, "Stream"))
    await running.begin()
    old = Side(tmp_path / "old")
    old.replace(certificates.authority, certificates.client)

    # Everything of the second authority from now on.
    pair.own.replace(certificates.other_authority, certificates.foreign_server)
    pair.callers.replace(certificates.other_authority, certificates.foreign_client)
    await client.call("Unary", policy=ONCE)
    await client.call("Stream", policy=ONCE)
    with pytest.raises(errors.BackendUnavailableError):
        await pair.client(old).call("Unary", policy=ONCE)
    # A caller that knows the server by the new authority, and presents the old certificate.
    old.replace(certificates.other_authority, certificates.client)
    with pytest.raises(errors.BackendUnavailableError):
        await pair.client(old).call("Unary", policy=ONCE)
    await running.exchange(b"still there")
    await running.end()

    # And back again: the second authority is of no use then.
    pair.own.replace(certificates.authority, certificates.server)
    with pytest.raises(errors.BackendUnavailableError):
        await pair.client().call("Unary", policy=ONCE)
    pair.callers.replace(certificates.authority, certificates.client)
    await client.call("Unary", policy=ONCE)


async def test_certificate_without_key_logged(pair: Pair, certificates: Any) -> None:
    """A certificate without its key is not used and the log says so."""
    with capture_logs() as lines:
        shutil.copy(certificates.foreign_server.chain, pair.own.chain)
        await pair.client().call("Unary", policy=ONCE)
    unusable = [line for line in lines if line["event"] == "tls_files_unusable"]
    assert [line["log_level"] for line in unusable] == ["error"]
    assert str(pair.own.key) in unusable[0]["message"]
    # With the key beside it, the next connection has the new certificate.
    shutil.copy(certificates.foreign_server.key, pair.own.key)
    with pytest.raises(errors.BackendUnavailableError):
        await pair.client().call("Unary", policy=ONCE)
    pair.callers.replace(certificates.other_authority, certificates.client)
    await pair.client().call("Unary", policy=ONCE)


@pytest.mark.parametrize("wrong", ["key of another certificate", "no certificate", "no authority", "missing"])
async def test_unusable_files_named_at_start(echo: Any, pair: Pair, certificates: Any, wrong: str) -> None:
    side = pair.callers
    files = {"key of another certificate": side.key, "no authority": side.authority}
    named = files.get(wrong, side.chain)
    if wrong == "missing":
        side.chain.unlink()
    elif wrong == "key of another certificate":
        shutil.copy(certificates.server.key, side.key)
    else:
        named.write_text("no PEM\n")
    with pytest.raises(errors.InvalidRequestError) as caught:
        pair.client()
    assert str(named) in caught.value.message


@pytest.mark.parametrize("kind", ["Unary", "Download", "Upload", "Stream"])
async def test_client_reads_token_again(echo: Any, tmp_path: Path, kind: str) -> None:
    """A client sends the token that is in its file now."""
    accepted = tmp_path / "accepted"
    accepted.write_text("first-token\n")
    own = presenting(tmp_path, "first-token")
    server = await echo.serve(answer, auth_token_file=accepted)
    client = echo.connect(server, auth_token_file=own)
    await client.call(kind, policy=ONCE)
    running = Running(client.stage, raw(echo.service, "Stream"))
    await running.begin()

    accepted.write_text("second-token\n")
    with pytest.raises(errors.UnauthenticatedError):
        await client.call(kind, policy=ONCE)
    own.write_text("second-token\n")
    await client.call(kind, policy=ONCE)
    await running.exchange(b"still there")
    await running.end()

    # A file that holds no token for a moment: the previous token is sent.
    own.write_text("")
    await client.call(kind, policy=ONCE)
    own.unlink()
    await client.call(kind, policy=ONCE)


async def test_grpc_health_watch_carries_token(echo: Any, tmp_path: Path) -> None:
    accepted = tmp_path / "accepted"
    accepted.write_text("a-token\n")
    server = await echo.serve(answer, warm=False, auth_token_file=accepted)
    client = echo.connect(server, auth_token_file=presenting(tmp_path, "a-token"), only_serving=True)
    # The client knows that the server does not serve: a watch without the token would tell it nothing.
    with pytest.raises(errors.BackendUnavailableError, match="echo at"):
        await client.call("Unary", policy=ONCE)
    assert client.stage.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
    await server.warm_up()
    await client.stage.wait_until_reachable(60)
    await client.call("Unary", policy=ONCE)
