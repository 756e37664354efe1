"""The audio stage's RPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice
from typing import Any, Final

from dubstage.audio.v1alpha1 import audio_pb2 as pb
from dubstage.audio.v1alpha1 import audio_pb2_grpc
from services.audio.convert import blocks_to_proto, chunk_from_proto, extractor_from_proto
from services.audio.models import AudioModels
from services.audio.types import FeatureBlock
from services.common.calls import count_frames
from services.common.errors import InvalidRequest
from services.common.limits import WorkerPool

MAX_FRAMES_PER_REPLY: Final = 256
"""Bounds a reply to about 700 kB."""


class AudioServicer(audio_pb2_grpc.AudioServiceServicer):
    """ExtractFeatures over loaded models."""

    def __init__(self, models: Callable[[], AudioModels], workers: WorkerPool) -> None:
        """Compose.

        Args:
            models: gives the loaded networks; called once a stream, after warm-up.
            workers: threads in which features are computed.
        """
        self._models = models
        self._workers = workers

    async def ExtractFeatures(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.ExtractFeaturesRequest], context: Any
    ) -> AsyncIterator[pb.ExtractFeaturesResponse]:
        """Config, then PCM; a reply as soon as frames are complete."""
        requests = aiter(request_iterator)
        config = await anext(requests, None)
        if config is None:
            raise InvalidRequest("the stream ended before its config", field="config")
        extractor = extractor_from_proto(config, self._models())
        async for request in requests:
            chunk = chunk_from_proto(request)
            for reply in _replies(await self._workers.run(extractor.push, chunk.first_sample, chunk.interleaved)):
                yield reply
        rest = extractor.finish()
        while blocks := await self._workers.run(lambda: list(islice(rest, MAX_FRAMES_PER_REPLY))):
            for reply in _replies(blocks):
                yield reply


def _replies(blocks: Sequence[FeatureBlock]) -> list[pb.ExtractFeaturesResponse]:
    count_frames(len(blocks))
    return [blocks_to_proto(blocks[start : start + MAX_FRAMES_PER_REPLY]) for start in range(0, len(blocks), MAX_FRAMES_PER_REPLY)]
