"""Whom a stage works for, and that no tenant reaches an artefact of another at a stage, on real servers."""

from pathlib import Path
from typing import Any

import pytest

from services.common import errors
from services.common.server.call_context import acting_for, current_caller
from services.common.store.artefacts import ArrayCache, ArtefactRef, ArtefactStore, tenants_store
from tests.contract.server.helpers import ONCE, presenting

KINDS = ["Unary", "Download", "Upload", "Stream"]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text("token-of-the-gateway\nacme token-of-acme\nbeta token-of-beta\n")
    return file


async def tell_tenant(_: bytes) -> bytes:
    return current_caller().tenant.encode()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_says_whom_a_stage_works_for(echo: Any, token_file: Path, tmp_path: Path, kind: str) -> None:
    server = await echo.serve(tell_tenant, auth_token_file=token_file)
    for token, tenant in (("token-of-acme", b"acme"), ("token-of-beta", b"beta"), ("token-of-the-gateway", b"default")):
        client = echo.connect(server, auth_token_file=presenting(tmp_path, token))
        await client.call(kind, policy=ONCE)
        assert client.received[-1] == tenant


async def test_gateway_names_tenant(echo: Any, token_file: Path, tmp_path: Path) -> None:
    guarded = await echo.serve(tell_tenant, auth_token_file=token_file)
    for client in (
        echo.connect(guarded, auth_token_file=presenting(tmp_path, "token-of-the-gateway")),
        echo.connect(await echo.serve(tell_tenant)),
    ):
        with acting_for("acme"):
            await client.call("Unary", policy=ONCE)
        await client.call("Unary", policy=ONCE)
        assert client.received == [b"acme", b"default"]


async def test_a_tenant_cannot_name_another(echo: Any, token_file: Path, tmp_path: Path) -> None:
    server = await echo.serve(tell_tenant, auth_token_file=token_file)
    client = echo.connect(server, auth_token_file=presenting(tmp_path, "token-of-beta"))
    with acting_for("acme"), pytest.raises(errors.UnauthenticatedError, match="does not speak for that tenant"):
        await client.call("Unary", policy=ONCE)
    with acting_for("beta"):
        await client.call("Unary", policy=ONCE)
    assert client.received == [b"beta"]


async def test_artefact_readable_by_own_tenant(echo: Any, token_file: Path, tmp_path: Path) -> None:
    """The stage's store and cache are shared by all calls. An artefact of another tenant is refused as one of a foreign store."""
    store = ArtefactStore(tmp_path / "artefacts", by_tenant=True)
    cache = ArrayCache(store, max_bytes=1 << 20)

    async def keep_or_read(message: bytes) -> bytes:
        if message.startswith(b"keep "):
            return store.put_arrays({}, {"text": message.removeprefix(b"keep ").decode()}).uri.encode()
        uri = message.decode()
        return cache.get_arrays(ArtefactRef(uri, uri.rpartition("/")[2], 0)).metadata["text"].encode()

    server = await echo.serve(keep_or_read, auth_token_file=token_file)
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
