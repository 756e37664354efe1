"""Sizes, tokens, TLS and tenants, on real servers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.common import errors
from services.common.server.call_context import acting_for, current_caller
from services.common.server.client import ClientConfig, StageClient
from services.common.store.artefacts import ArrayCache, ArtefactRef, ArtefactStore, tenants_store
from tests.contract.server.helpers import ONCE, answer, presenting

# Sizes


@pytest.mark.parametrize("direction", ["request", "response"])
async def test_oversized_message_not_retried(echo: Any, direction: str) -> None:
    """An oversized message is named and not tried again."""
    attempts = 0

    async def grow(message: bytes) -> bytes:
        nonlocal attempts
        attempts += 1
        return message * 3

    client = echo.connect(await echo.serve(grow, max_message_bytes=8192))
    size = 9000 if direction == "request" else 4000
    with pytest.raises(errors.MessageTooLargeError, match="DUBSTAGE_MAX_MESSAGE_BYTES"):
        await client.call("Unary", bytes(size))
    assert attempts == (0 if direction == "request" else 1)
    await client.call("Unary", bytes(2000))


# Tokens


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text("# farm\nold-token\nnew-token\n")
    return file


@pytest.mark.parametrize("kind", ["Unary", "Download", "Upload", "Stream"])
async def test_only_a_known_token_opens_the_server(echo: Any, token_file: Path, tmp_path: Path, kind: str) -> None:
    server = await echo.serve(answer, auth_token_file=token_file)
    for token in ("old-token", "new-token"):
        await echo.connect(server, auth_token_file=presenting(tmp_path, token)).call(kind, policy=ONCE)
    for client in (echo.connect(server), echo.connect(server, auth_token_file=presenting(tmp_path, "old-toke"))):
        with pytest.raises(errors.UnauthenticatedError):
            await client.call(kind, policy=ONCE)
        assert client.received == []


@pytest.mark.parametrize("kind", ["Upload", "Stream"])
async def test_large_sender_learns_refusal(echo: Any, token_file: Path, tmp_path: Path, kind: str) -> None:
    """A caller that is refused while it sends large messages learns why."""
    server = await echo.serve(answer, auth_token_file=token_file)
    for _ in range(10):
        client = echo.connect(server, auth_token_file=presenting(tmp_path, "wrong-token"))
        with pytest.raises(errors.UnauthenticatedError, match="not one that this server accepts"):
            await client.call(kind, bytes(1 << 20), times=20, policy=ONCE)


async def test_a_replaced_token_file_counts_without_a_restart(echo: Any, token_file: Path, tmp_path: Path) -> None:
    server = await echo.serve(answer, auth_token_file=token_file)
    client = echo.connect(server, auth_token_file=presenting(tmp_path, "old-token"))
    await client.call("Unary", policy=ONCE)
    fresh = tmp_path / "fresh"
    fresh.write_text("new-token\n")
    fresh.replace(token_file)
    with pytest.raises(errors.UnauthenticatedError):
        await client.call("Unary", policy=ONCE)


def _becomes_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


WITHOUT_TOKENS: dict[str, Callable[[Path], object]] = {
    "emptied": lambda file: os.truncate(file, 0),
    "blank": lambda file: file.write_text(" \n\n\t\n"),
    "comments only": lambda file: file.write_text("# old-token\n"),
    "no text": lambda file: file.write_bytes(b"\xff\xfe\x00"),
    "not plain ASCII": lambda file: file.write_text("old-token ü\n"),
    "gone": lambda file: file.unlink(),
    "a folder": _becomes_a_folder,
}


@pytest.mark.parametrize("change", WITHOUT_TOKENS.values(), ids=WITHOUT_TOKENS)
async def test_empty_token_file_refuses_calls(echo, token_file, tmp_path, change) -> None:
    server = await echo.serve(answer, auth_token_file=token_file)
    client = echo.connect(server, auth_token_file=presenting(tmp_path, "old-token"))
    await client.call("Unary", policy=ONCE)
    change(token_file)
    for kind in ("Unary", "Upload", "Stream"):
        with pytest.raises(errors.UnauthenticatedError, match="token file is empty or cannot be read") as caught:
            await client.call(kind, policy=ONCE)
        assert str(token_file) not in caught.value.message
    if token_file.is_dir():
        token_file.rmdir()
    token_file.write_text("old-token\n")
    await client.call("Stream", policy=ONCE)


def test_token_never_in_plain_text(token_file: Path) -> None:
    """No token travels in plain text to another machine."""
    with pytest.raises(errors.InvalidRequestError, match="plain text"):
        StageClient(ClientConfig(stage="render", target="render.example:50055", auth_token_file=token_file))


# TLS


async def test_tls_serves_those_who_know_the_authority_only(echo: Any, certificates: Any) -> None:
    server = await echo.serve(answer, tls_certificate_file=certificates.server.chain, tls_key_file=certificates.server.key)
    target = f"localhost:{server.port}"
    await echo.connect(server, target=target, tls=True, tls_ca_file=certificates.authority).call("Unary", policy=ONCE)
    for tls in ({"tls": True, "tls_ca_file": certificates.other_authority}, {}):
        client = echo.connect(server, target=target, **tls)
        with pytest.raises(errors.BackendUnavailableError):
            await client.call("Unary", policy=ONCE)


async def test_mutual_tls_requires_certificate(echo: Any, certificates: Any) -> None:
    server = await echo.serve(
        answer,
        tls_certificate_file=certificates.server.chain,
        tls_key_file=certificates.server.key,
        tls_client_ca_file=certificates.authority,
        require_client_certificate=True,
    )
    common = {"target": f"localhost:{server.port}", "tls": True, "tls_ca_file": certificates.authority}
    own, foreign = certificates.client, certificates.foreign_client
    client = echo.connect(server, **common, tls_certificate_file=own.chain, tls_key_file=own.key)
    await client.call("Stream", policy=ONCE)
    strangers = [
        echo.connect(server, **common),
        echo.connect(server, **common, tls_certificate_file=foreign.chain, tls_key_file=foreign.key),
    ]
    for stranger in strangers:
        with pytest.raises(errors.BackendUnavailableError):
            await stranger.call("Unary", policy=ONCE)


KINDS = ["Unary", "Download", "Upload", "Stream"]


@pytest.fixture
def tenants_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text("token-of-the-gateway\nacme token-of-acme\nbeta token-of-beta\n")
    return file


async def tell_tenant(_: bytes) -> bytes:
    return current_caller().tenant.encode()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_says_whom_a_stage_works_for(echo: Any, tenants_file: Path, tmp_path: Path, kind: str) -> None:
    server = await echo.serve(tell_tenant, auth_token_file=tenants_file)
    for token, tenant in (("token-of-acme", b"acme"), ("token-of-beta", b"beta"), ("token-of-the-gateway", b"default")):
        client = echo.connect(server, auth_token_file=presenting(tmp_path, token))
        await client.call(kind, policy=ONCE)
        assert client.received[-1] == tenant


async def test_gateway_names_tenant(echo: Any, tenants_file: Path, tmp_path: Path) -> None:
    guarded = await echo.serve(tell_tenant, auth_token_file=tenants_file)
    for client in (
        echo.connect(guarded, auth_token_file=presenting(tmp_path, "token-of-the-gateway")),
        echo.connect(await echo.serve(tell_tenant)),
    ):
        with acting_for("acme"):
            await client.call("Unary", policy=ONCE)
        await client.call("Unary", policy=ONCE)
        assert client.received == [b"acme", b"default"]


async def test_a_tenant_cannot_name_another(echo: Any, tenants_file: Path, tmp_path: Path) -> None:
    server = await echo.serve(tell_tenant, auth_token_file=tenants_file)
    client = echo.connect(server, auth_token_file=presenting(tmp_path, "token-of-beta"))
    with acting_for("acme"), pytest.raises(errors.UnauthenticatedError, match="does not speak for that tenant"):
        await client.call("Unary", policy=ONCE)
    with acting_for("beta"):
        await client.call("Unary", policy=ONCE)
    assert client.received == [b"beta"]


async def test_artefact_readable_by_own_tenant(echo: Any, tenants_file: Path, tmp_path: Path) -> None:
    """The stage's store and cache are shared by all calls. An artefact of another tenant is refused as one of a foreign store."""
    store = ArtefactStore(tmp_path / "artefacts", by_tenant=True)
    cache = ArrayCache(store, max_bytes=1 << 20)

    async def keep_or_read(message: bytes) -> bytes:
        if message.startswith(b"keep "):
            return store.put_arrays({}, {"text": message.removeprefix(b"keep ").decode()}).uri.encode()
        uri = message.decode()
        return cache.get_arrays(ArtefactRef(uri, uri.rpartition("/")[2], 0)).metadata["text"].encode()

    server = await echo.serve(keep_or_read, auth_token_file=tenants_file)
    acme, beta, gateway = (
        echo.connect(server, auth_token_file=presenting(tmp_path, f"token-of-{name}")) for name in ("acme", "beta", "the-gateway")
    )
    await acme.call("Unary", b"keep secret", policy=ONCE)
    uri = acme.received[-1]
    assert uri.decode().startswith(tenants_store(ArtefactStore(tmp_path / "artefacts").url, "acme"))
    await acme.call("Unary", uri, policy=ONCE)
    assert acme.received[-1] == b"secret"
    # The same digest at the place where the caller's own artefacts lie: there is none.
    root = ArtefactStore(tmp_path / "artefacts").url.encode()
    for client, own in ((beta, uri.replace(b"/acme/", b"/beta/")), (gateway, uri.replace(b"/tenants/acme", b""))):
        with pytest.raises(errors.ArtefactNotFoundError):
            await client.call("Unary", own, policy=ONCE)
        for spelling in (uri, uri.replace(b"/tenants/", b"//tenants/"), own.replace(root, root + b"/../artefacts")):
            with pytest.raises(errors.InvalidRequestError):
                await client.call("Unary", spelling, policy=ONCE)
