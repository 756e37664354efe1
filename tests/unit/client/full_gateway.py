"""An answer of Live for FakeServer: that of a gateway that has no time for the first stream, and takes the second."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import grpc
import numpy as np

from dubstage.client import to_image
from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1 import gateway_pb2
from tests.unit.client.fake_server import refuse

PICTURE: Final = np.zeros((4, 6, 3), np.uint8)


class FullGateway:
    """Refuses the first stream, and answers a frame to each piece of the second.

    Attributes:
        heard: first value of each piece of sound that came.
    """

    WHOLE: ClassVar = [0.25, 0.5, 0.75]
    """Values of the pieces that tests send; equal to `heard` if the gateway has heard all of them."""

    def __init__(self) -> None:
        self.heard: list[float] = []
        self._refuse = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.1)
        self._streams = 0

    def __call__(self, requests: Any, context: grpc.ServicerContext) -> Iterator[gateway_pb2.LiveResponse]:
        self._streams += 1
        next(requests)
        if self._streams == 1:
            yield from self._refuse(requests, context)
        context.send_initial_metadata(())
        for index, request in enumerate(requests):
            self.heard.append(float(np.frombuffer(request.audio.pcm_f32, "<f4")[0]))
            yield gateway_pb2.LiveResponse(frame_index=index, image=to_image(PICTURE), reason=common_pb2.FRAME_REASON_DUBBED)


def is_held(reference: weakref.ref[Any]) -> bool:
    """Return whether anything still holds an object: for a sound, whether a stream may still take pieces of it."""
    gc.collect()
    return reference() is not None
