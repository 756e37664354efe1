"""Tests of calls of the former contracts, on a real server."""

from __future__ import annotations

from typing import Any

import grpc.aio
import pytest

from services.common.errors import InvalidRequestError
from services.common.server.former import DEPRECATION
from tests.contract.server.conftest import SERVICE
from tests.contract.server.helpers import SERVING, answer, eventually, health, raw, sent

FORMER = SERVICE.replace(".v1.", ".v1alpha1.")


async def called(channel: Any, kind: str) -> tuple[list[bytes], Any]:
    """Call the former service, and return the answers and the ended call."""
    rpc = raw(FORMER, kind)
    make = {"Unary": channel.unary_unary, "Upload": channel.stream_unary, "Stream": channel.stream_stream}
    call = make.get(kind, channel.unary_stream)(rpc.path)(sent(b"x", 1) if kind in {"Upload", "Stream"} else b"x", timeout=60)
    return ([await call] if kind in {"Unary", "Upload"} else [reply async for reply in call]), call


@pytest.mark.parametrize("kind", ["Unary", "Upload", "Download", "Stream"])
async def test_former_path_answers(echo: Any, kind: str) -> None:
    """The handler of v1 answers a former call, and the trailing metadata say that the contract ends."""
    client = echo.connect(await echo.serve(answer))
    answers, call = await called(client.stage.channel, kind)
    assert answers[-1] == b"x"
    assert DEPRECATION in tuple(await call.trailing_metadata())
    assert await health(client, FORMER) == SERVING


async def test_errors_and_limits(echo: Any) -> None:
    """A former call fails as a call of v1 does, and counts under the name of v1. An unknown method stays unknown."""

    async def refuse(message: bytes) -> bytes:
        raise InvalidRequestError("x: wrong", field="x")

    server = await echo.serve(refuse)
    channel = echo.connect(server).stage.channel
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await called(channel, "Unary")
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    entries = dict(failed.value.trailing_metadata())
    assert entries.items() >= {DEPRECATION}
    assert "grpc-status-details-bin" in entries
    labels = {"stage": "echo", "rpc": f"{SERVICE}/Unary", "code": "INVALID_ARGUMENT"}
    # The server counts the call after its answer has left.
    await eventually(lambda: server.metrics.registry.get_sample_value("dubstage_rpcs_total", labels) == 1)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await called(channel, "Nothing")
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
