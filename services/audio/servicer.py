"""RPC of the audio stage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from typing import Any, Final

from dubstage.audio.v1 import audio_pb2 as pb
from dubstage.audio.v1 import audio_pb2_grpc
from services.audio.convert import blocks_to_proto, chunk_from_proto, extractor_from_proto, state_to_proto
from services.audio.extract import FeatureExtractor
from services.audio.models import AudioModels
from services.audio.types import FeatureBlock
from services.common.server.call_context import count_frames
from services.common.server.call_messages import config_message
from services.common.server.limits import WorkerPool

MAX_FRAMES_PER_REPLY: Final = 256
"""Largest number of frames of a reply: about 700 kB."""


class AudioServicer(audio_pb2_grpc.AudioServiceServicer):
    """ExtractFeatures over loaded models."""

    def __init__(self, models: Callable[[], AudioModels], workers: WorkerPool) -> None:
        """Compose.

        Args:
            models: returns the networks; called once per stream, in a worker: the first call reads files.
            workers: threads in which features are computed.
        """
        self._models = models
        self._workers = workers

    async def ExtractFeatures(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.ExtractFeaturesRequest], context: Any
    ) -> AsyncIterator[pb.ExtractFeaturesResponse]:
        """Take a config, then PCM. Reply as soon as frames are complete."""
        requests = aiter(request_iterator)
        config = await config_message(requests)
        # Designing the filter of an odd sample rate takes a second.
        extractor = await self._workers.run(lambda: extractor_from_proto(config, self._models()))
        states = extractor if config.config.states else None
        async for request in requests:
            chunk = chunk_from_proto(request)
            async for reply in self._replies(extractor.pushed(chunk.first_sample, chunk.interleaved), states):
                yield reply
        async for reply in self._replies(extractor.finish(), states):
            yield reply

    async def _replies(
        self, blocks: Iterator[FeatureBlock], states: FeatureExtractor | None
    ) -> AsyncIterator[pb.ExtractFeaturesResponse]:
        """Yield replies, each before the next one is computed: the answer to a long chunk is never held as a whole.

        Args:
            blocks: answers of an extractor.
            states: this extractor, of which new states are yielded too; None: no states.
        """
        count = MAX_FRAMES_PER_REPLY
        while count == MAX_FRAMES_PER_REPLY:
            batch = await self._workers.run(lambda: list(islice(blocks, MAX_FRAMES_PER_REPLY)))
            count = len(batch)
            count_frames(count)
            if batch:
                yield blocks_to_proto(batch)
                state = None if states is None else states.new_state(batch[-1].frame_index + 1)
                if states is not None and state is not None:
                    yield state_to_proto(state, states.resume_from(state))
