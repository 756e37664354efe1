"""Errors that tests expect, with what the errors say."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from dubstage.client import DubstageCallError

E = TypeVar("E", bound=Exception)


@contextmanager
def raised(kind: type[E], match: str | None = None, **attributes: object) -> Iterator[pytest.ExceptionInfo[E]]:
    """Expect an error of a kind whose text matches, and whose attributes have these values."""
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert {name: getattr(caught.value, name) for name in attributes} == attributes


@contextmanager
def refused(match: str | None = None, **attributes: object) -> Iterator[pytest.ExceptionInfo[DubstageCallError]]:
    """Expect that the client's call is refused, such as with `reason="CONSENT_WITHDRAWN"`."""
    with raised(DubstageCallError, match, **attributes) as caught:
        yield caught


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a refused command printed: an error on stderr, and nothing on stdout."""
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert len(printed.err.splitlines()) == 1, printed.err
    assert not printed.out
    return printed.err


def _read(answer: object) -> None:
    if isinstance(answer, Iterator):
        list(answer)


def refusal(call: Callable[..., object], *args: Any, **fields: Any) -> DubstageCallError:
    """Return the error with which a call of the client is refused. A stream is read to its end."""
    with pytest.raises(DubstageCallError) as caught:
        _read(call(*args, **fields))
    return caught.value


@contextmanager
def rpc_refused(
    *texts: str, code: str = "INVALID_ARGUMENT", match: str | None = None, field: str | None = None
) -> Iterator[pytest.ExceptionInfo[grpc.aio.AioRpcError]]:
    """Expect that an RPC is refused with a status code, and that the details have all texts, such as the name of a field.

    `field` is the field of the error's BadRequest; None: any.
    """
    with pytest.raises(grpc.aio.AioRpcError, match=match) as caught:
        yield caught
    assert caught.value.code().name == code
    assert all(text in (caught.value.details() or "") for text in texts), caught.value.details()
    if field is not None:
        given = status_pb2.Status.FromString(dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"])
        wrong = error_details_pb2.BadRequest()
        assert any(detail.Unpack(wrong) for detail in given.details)
        assert [one.field for one in wrong.field_violations] == [field]
