"""How frames of a stream are gathered into batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from dubstage.client import to_image, to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.render.v1 import render_pb2 as pb
from services.common.errors import InvalidRequestError
from services.render.backends.model_files import WEIGHTS_FOLDER, read_models
from services.render.convert import frame_from_proto
from services.render.renderers.registry import renderer_named
from services.render.servicer import _batches
from services.render.types import Precision, RenderFrame

UGC = read_models(WEIGHTS_FOLDER, Precision.FLOAT32)["ugc"]


def read(request: pb.RenderRequest, previous: int | None) -> RenderFrame:
    return frame_from_proto(request, previous, UGC, renderer_named("ugc"))


def frame(index: int) -> pb.RenderRequest:
    picture: common_pb2.Image = to_image(np.zeros((160, 160, 3), np.uint8))
    return pb.RenderRequest(
        frame=pb.RenderFrame(
            frame_index=index,
            background=picture,
            texture=picture,
            mask=to_image(np.zeros((160, 160), np.uint8)),
            box_landmarks=to_tensor(np.zeros((59, 2), np.float32)),
        )
    )


async def frames(count: int) -> AsyncIterator[pb.RenderRequest]:
    for index in range(count):
        yield frame(index)


async def test_all_frames_come_in_order_whatever_the_batches() -> None:
    batches = [batch async for batch in _batches(frames(7), 3, read)]
    assert [item.frame_index for batch in batches for item in batch] == list(range(7))
    assert max(len(batch) for batch in batches) <= 3


async def test_abandoned_stream_leaves_no_reader() -> None:
    """A stream that is given up leaves no reader behind."""
    others = asyncio.all_tasks()
    batches = _batches(frames(100), 2, read)
    await anext(batches)
    for _ in range(10):
        await asyncio.sleep(0)
    await batches.aclose()
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == others


async def test_request_error_after_earlier_frames() -> None:
    """An exception of the requests comes after the frames before it."""

    async def broken() -> AsyncIterator[pb.RenderRequest]:
        yield frame(0)
        raise InvalidRequestError("frame 1 cannot be read")

    batches = _batches(broken(), 4, read)
    assert len(await anext(batches)) == 1
    with pytest.raises(InvalidRequestError, match="frame 1"):
        await anext(batches)
