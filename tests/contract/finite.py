"""Checks of every stage: numbers of answers are finite, or the call fails and names the field, and work ends with its call."""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

import grpc.aio
import numpy as np
import psutil
from google.protobuf.message import Message

from dubstage.common.v1 import common_pb2

_FLOATS = {common_pb2.DATA_TYPE_FLOAT32: "<f4", common_pb2.DATA_TYPE_FLOAT64: "<f8"}


def not_finite(message: Message) -> list[str]:
    """Paths of all fields of a message that hold NaN or infinity."""
    found = []
    for field, value in message.ListFields():
        values: Sequence[Any] = list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
        for each in values:
            if isinstance(each, common_pb2.Tensor):
                kind = _FLOATS.get(each.data_type)
                if kind and not np.isfinite(np.frombuffer(each.data, kind)).all():
                    found.append(field.name)
            elif isinstance(each, Message):
                found += [f"{field.name}.{path}" for path in not_finite(each)]
            elif isinstance(each, float) and not np.isfinite(each):
                found.append(field.name)
    return found


async def finite_or_refused(answers: Awaitable[Iterable[Message]]) -> bool:
    """Whether a call was answered, and with finite numbers only; False where it was refused as it must be.

    Raises:
        AssertionError: an answer is not finite, or the call failed with another code than INVALID_ARGUMENT and
            FAILED_PRECONDITION, or without naming a field.
    """
    code, details = grpc.StatusCode.OK, ""
    messages: list[Message] | None
    try:
        messages = list(await answers)
    except grpc.aio.AioRpcError as error:
        code, details = error.code(), error.details() or ""
        messages = None
    if messages is None:
        assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}, details
        assert len(details) > 10
        return False
    assert not [path for message in messages for path in not_finite(message)]
    return True


async def idle_within(seconds: float) -> bool:
    """Whether this process, which holds the server too, stops computing within so many seconds."""
    process, end = psutil.Process(), time.monotonic() + seconds
    while time.monotonic() < end:
        before = sum(process.cpu_times()[:2])
        await asyncio.sleep(0.5)
        if sum(process.cpu_times()[:2]) - before < 0.15:
            return True
    return False
