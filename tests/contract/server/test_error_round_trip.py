"""Each row of the error table crosses a real server, by each kind of method, and arrives as what it was."""

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from structlog.testing import capture_logs

from services.common import errors
from services.common.server.call_context import current_call
from services.common.server.error_status import TABLE, from_rpc_error
from services.common.server.retries import RetryPolicy
from tests.contract.server.helpers import answer, raw, sent
from tests.refusals import raised

EXAMPLES: list[errors.DubstageError] = [
    errors.InvalidRequestError("landmarks have shape [3, 58, 3], not [3, 59, 3]", field="frames[2].landmarks"),
    errors.InvalidRequestError(
        "2 rows are wrong", field="rows[0].id", violations=[("rows[0].id", "has a blank"), ("rows[7].face", "größer als der Film")]
    ),
    errors.InvalidRequestError(
        "2 rows are wrong",
        field="rows[0].id",
        violations=[("rows[0].id", "has a blank"), ("rows[7].consent_uri", "the consent was withdrawn")],
        reasons=["", "CONSENT_WITHDRAWN"],
    ),
    errors.MediaUnsupportedError("notes.txt holds no video stream", field="video"),
    errors.MessageTooLargeError("18 MiB are over the limit of 16 MiB", field="image"),
    errors.CallTooLargeError("2.1 GiB are over the 2 GiB that one call may hold"),
    errors.UnauthenticatedError("a bearer token is required", field="authorization"),
    errors.ArtefactNotFoundError("no artefact at file:///a/ab/abc", resource="file:///a/ab/abc"),
    errors.ArtefactCorruptError("artefact file:///a/ab/abc is damaged", resource="file:///a/ab/abc"),
    errors.ModelNotFoundError("no renderer is called 'wav'", resource="wav"),
    errors.OperationNotFoundError("no operation operations/7", resource="operations/7"),
    errors.BatchNotFoundError("batch night has no shot s7", resource="night/s7"),
    errors.FileMissingError("there is no upload 'shot.mp4'", resource="shot.mp4"),
    errors.WebhookNotFoundError("no webhook 'wh-0': see ListWebhooks", resource="wh-0"),
    errors.ConsentMissingError("actor ann has no consent on record", subject="actors/ann"),
    errors.ConsentUnsignedError("the record of ann is not signed", subject="ann"),
    errors.ConsentSignerUnknownError("the record of ann is signed with an unknown key", subject="ann"),
    errors.ConsentAlteredError("the signature does not fit the record of ann", subject="ann"),
    errors.ConsentWithdrawnError("the consent of ann was withdrawn", subject="ann"),
    errors.ConsentNotYetValidError("the consent of ann begins tomorrow", subject="ann"),
    errors.ConsentExpiredError("the consent of ann ended yesterday", subject="ann"),
    errors.ConsentOutOfScopeError("the consent of ann does not cover the project", subject="ann"),
    errors.ConsentWithoutSubjectError("the record does not say whose face it is about", subject="ann"),
    errors.ConsentOtherSubjectError("the record is not about ann", subject="ann"),
    errors.ConsentFaceUncertainError("a person has to decide whether this is ann", subject="ann"),
    errors.ActorNotReadyError("actor ann is not personalised", subject="actors/ann"),
    errors.ActorNotFoundError("no actor 'ann'", subject="actors/ann"),
    errors.RequestIdReusedError("another request has this id"),
    errors.NoUsableFootageError("no frame of clip.mp4 shows a usable face: größer filmen", subject="clip.mp4"),
    errors.FileInUseError("another call uploads shot.mp4", subject="shot.mp4"),
    errors.StorageFullError("no space left in /data", subject="/data"),
    errors.StorageRefusedError("the artefact store s3://videos refuses: AccessDenied", subject="s3://videos"),
    errors.ClusterRefusedError("the cluster refuses: the account may not create jobs", subject="dubbing"),
    errors.OverloadedError("24 calls already", retry_after_s=0.25),
    errors.TenantDubsReachedError("acme has 4 dubs", retry_after_s=5.0),
    errors.TenantStreamsReachedError("acme has 2 live streams", retry_after_s=5.0),
    errors.TenantFramesReachedError("acme had 1500 frames", retry_after_s=12.5),
    errors.TenantStorageReachedError("acme has 7 GB", retry_after_s=60.0),
    errors.TenantUploadsReachedError("acme has 100 GiB of uploads", retry_after_s=60.0),
    errors.AcceleratorOutOfMemoryError("no memory for a batch of 64", retry_after_s=2.5),
    errors.ModelNotReadyError("still warming up", retry_after_s=0.5),
    errors.BackendUnavailableError("triton at localhost:8001 does not answer", retry_after_s=3.0),
    errors.StageDeadlineExceededError("did not end in 5 s"),
    errors.WorkCancelledError("the job was cancelled"),
    errors.ContractBrokenError("the renderer gave 61 frames for 60"),
    errors.UnexpectedError("unexpected error", error_id="0123abcd"),
]
KINDS = ["Unary", "Download", "Upload", "Stream"]
ONCE = RetryPolicy(max_attempts=1)


def test_every_error_leaf_has_row() -> None:
    """Every leaf of the tree has a row and an example."""
    assert set(TABLE) == set(errors.leaves())
    assert {type(example) for example in EXAMPLES} == set(errors.leaves())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda error: type(error).__name__)
async def test_error_arrives_as_it_was_raised(echo: Any, kind: str, example: errors.DubstageError) -> None:
    async def fail(_: bytes) -> bytes:
        raise copy.copy(example)

    client = echo.connect(await echo.serve(fail))
    with pytest.raises(type(example)) as caught:
        await client.call(kind, policy=ONCE)
    assert vars(caught.value) == {**vars(example), "stage": "echo"}
    assert str(caught.value) == str(example)
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)
    assert caught.value.__cause__.code().name == example.code
    # The answers before the failure in mid-stream have arrived.
    assert client.received == ([b"first"] if kind in {"Download", "Stream"} else [])


@pytest.mark.parametrize("kind", KINDS)
async def test_unknown_exception_is_opaque(echo: Any, kind: str) -> None:
    """Any other exception is opaque and logged under its id."""

    async def fail(_: bytes) -> bytes:
        raise KeyError("secret-of-the-inside")

    client = echo.connect(await echo.serve(fail))
    with capture_logs() as lines:
        with pytest.raises(errors.UnexpectedError) as caught:
            await client.call(kind, policy=ONCE)
        # The answer may be here before the server's line.
        async with asyncio.timeout(60):
            while not lines:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    assert "secret" not in str(caught.value)
    assert caught.value.error_id
    assert caught.value.error_id in str(caught.value)
    [line] = [line for line in lines if "error_id" in line]
    assert (line["error_id"], line["log_level"]) == (caught.value.error_id, "error")
    assert repr(line["exc_info"]) == "KeyError('secret-of-the-inside')"
    assert line["exc_info"].__traceback__ is not None


async def test_task_group_error_is_unwrapped(echo: Any) -> None:
    async def fail(_: bytes) -> bytes:
        async def inner() -> None:
            raise errors.ModelNotFoundError("no such model", resource="wav")

        async with asyncio.TaskGroup() as group:
            group.create_task(inner())
        return b""

    client = echo.connect(await echo.serve(fail))
    with pytest.raises(errors.ModelNotFoundError, match="no such model"):
        await client.call("Unary", policy=ONCE)


async def test_long_message_fits_trailers(echo: Any) -> None:
    """A very long message is cut so that it fits the trailers."""

    async def fail(_: bytes) -> bytes:
        raise errors.InvalidRequestError("ü" * 100_000, field="f" * 100_000)

    client = echo.connect(await echo.serve(fail))
    with pytest.raises(errors.InvalidRequestError) as caught:
        await client.call("Unary", policy=ONCE)
    assert len(caught.value.message.encode()) in range(990, 1001)
    assert len(caught.value.field.encode()) == 300


async def test_error_names_originating_stage(echo: Any) -> None:
    """An error that crosses two servers names the stage where it arose."""

    async def fail(_: bytes) -> bytes:
        error = errors.NoUsableFootageError("no face", subject="clip.mp4")
        error.stage = "face"
        raise error

    client = echo.connect(await echo.serve(fail))
    with raised(errors.NoUsableFootageError, stage="face"):
        await client.call("Unary", policy=ONCE)


async def test_an_unknown_method_is_a_broken_contract(echo: Any) -> None:
    client = echo.connect(await echo.serve(answer))
    with pytest.raises(errors.ContractBrokenError, match="echo at 127"):
        await client.stage.unary(raw(echo.service, "Missing"), b"", policy=ONCE)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_grpc_statuses_have_errors(code: grpc.StatusCode) -> None:
    error = from_rpc_error(grpc.aio.AioRpcError(code, details="made by a proxy"), peer="render at r:1")
    assert type(error) in TABLE
    assert "render at r:1" in str(error)


@pytest.mark.parametrize("kind", ["Upload", "Stream"])
async def test_error_reaches_a_caller_that_is_still_sending(echo: Any, kind: str) -> None:
    client = echo.connect(await echo.serve(_refuse))
    for _ in range(30):
        with pytest.raises(errors.InvalidRequestError):
            await client.call(kind, b"x" * 65_536, times=64, policy=ONCE)


async def test_error_reaches_waiting_caller(echo: Any) -> None:
    """Error reaches a caller that waits for an answer before it sends more."""
    client = echo.connect(await echo.serve(_refuse))
    waiting = asyncio.Event()

    async def one_and_wait() -> AsyncIterator[bytes]:
        yield b"x"
        await waiting.wait()

    with pytest.raises(errors.InvalidRequestError):
        _ = [answer async for answer in client.stage.connection.stream(raw(echo.service, "Stream"), one_and_wait(), timeout_s=60)]


async def test_error_reaches_read_ahead_caller(echo: Any) -> None:
    server = await echo.serve(answer, register=lambda target: target.add_generic_rpc_handlers([_reads_ahead()]))
    client = echo.connect(server)
    method = raw("dubstage.echo.v1.AheadService", "Stream")

    for _ in range(30):
        with pytest.raises(errors.InvalidRequestError):
            _ = [answered async for answered in client.stage.connection.stream(method, sent(b"x" * 65_536, 64), timeout_s=60)]


async def test_external_end_reaches_sending_caller(echo: Any) -> None:
    """Error of a call that is ended from outside reaches a caller that is still sending."""

    async def ended(_: bytes) -> bytes:
        call = current_call()
        asyncio.get_running_loop().call_soon(
            call.end, errors.CallTooLargeError("2.1 GiB are over the 2 GiB that one call may hold")
        )
        await asyncio.sleep(60)
        return b""

    client = echo.connect(await echo.serve(ended))
    for _ in range(30):
        with pytest.raises(errors.CallTooLargeError):
            await client.call("Stream", b"x" * 65_536, times=64)


async def test_endless_failed_caller_cut_off(echo: Any) -> None:
    """A failed caller that never stops sending is cut off."""
    client = echo.connect(await echo.serve(_refuse))

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0)

    # Which of the two it sees is a race that grpc.aio decides; that it ends before its deadline is not.
    with pytest.raises((errors.InvalidRequestError, errors.BackendUnavailableError)):
        _ = [answer async for answer in client.stage.connection.stream(raw(echo.service, "Stream"), endless(), timeout_s=60)]


def _reads_ahead() -> grpc.GenericRpcHandler:
    async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        requests = aiter(requests)
        first, ahead = await anext(requests), asyncio.ensure_future(anext(requests, None))
        await asyncio.sleep(0)  # the second read begins
        try:
            yield await _refuse(first)
        finally:
            ahead.cancel()

    return grpc.method_handlers_generic_handler(
        "dubstage.echo.v1.AheadService", {"Stream": grpc.stream_stream_rpc_method_handler(stream)}
    )


async def _refuse(_: bytes) -> bytes:
    raise errors.InvalidRequestError("frame 0 has no image", field="frames[0].image")
