"""RPCs of the texture stage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from dubstage.texture.v1 import texture_pb2 as pb
from dubstage.texture.v1 import texture_pb2_grpc
from services.common.errors import InvalidRequestError
from services.common.face.mouth_bank import MAX_BANK_FRAMES
from services.common.server.call_context import charge, check_not_cancelled
from services.common.server.limits import WorkerPool
from services.texture.artefacts import StoredFaces
from services.texture.backgrounds import match_backgrounds
from services.texture.bank import build_bank
from services.texture.convert import (
    Portrait,
    backgrounds_to_proto,
    bank_frame_from_proto,
    bank_to_proto,
    footage_and_speech_from_proto,
    inside_bank_from_proto,
    matching_from_proto,
    max_frames_from_proto,
    portrait_frame_from_proto,
    portrait_from_proto,
    sampled_to_proto,
    target_from_proto,
    texture_config_from_proto,
    texture_frame_from_proto,
    turned_to_proto,
    warp_config_from_proto,
    warped_to_proto,
)
from services.texture.inside_path import InsidePath
from services.texture.neural_texture import open_texture
from services.texture.portrait import PortraitRotation
from services.texture.retrieve_warp import open_stream
from services.texture.select_frames import select_frames
from services.texture.temporal_warp import TemporalWarpModel
from services.texture.types import BankFrame

MAX_FOOTAGE_FRAMES: Final = MAX_BANK_FRAMES
"""Largest number of frames of one BuildBank. The stage holds them in memory, 83 kB per frame."""


class TextureServicer(texture_pb2_grpc.TextureServiceServicer):
    """Banks, retrieval and warp; drawn faces; backgrounds of retimed and of moved heads; neural textures.

    Args:
        model: returns the network; called once per stream, in a worker: the first call reads the file.
        stored: banks, actors and identities.
        workers: threads in which banks are built, textures and portraits are warped, and neural textures are sampled.
    """

    def __init__(self, model: Callable[[], TemporalWarpModel], stored: StoredFaces, workers: WorkerPool) -> None:
        self._model, self._stored, self._workers = model, stored, workers

    async def BuildBank(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.BuildBankRequest], context: Any
    ) -> pb.BuildBankResponse:
        """Take a config, then frames. Answer once."""
        requests = aiter(request_iterator)
        max_frames = max_frames_from_proto(await anext(requests, pb.BuildBankRequest()))
        frames: list[BankFrame] = []
        async for request in requests:
            if len(frames) == MAX_FOOTAGE_FRAMES:
                raise InvalidRequestError(f"a bank is built from at most {MAX_FOOTAGE_FRAMES} frames", field="frame")
            # A native picture is compressed here, which takes milliseconds.
            frame = await self._workers.run(bank_frame_from_proto, request)
            charge(frame.num_bytes)
            frames.append(frame)
        bank = await self._workers.run(build_bank, frames, max_frames)
        ref = await self._workers.run(self._stored.keep_bank, bank)
        return bank_to_proto(ref, bank.num_frames, bank.geometry)

    async def RetrieveWarp(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.RetrieveWarpRequest], context: Any
    ) -> AsyncIterator[pb.RetrieveWarpResponse]:
        """Take a config, then frames. Answer each frame as it comes."""
        requests = aiter(request_iterator)
        config = warp_config_from_proto(await anext(requests, pb.RetrieveWarpRequest()))
        stream = await self._workers.run(lambda: open_stream(config, self._stored, self._model()))
        async for request in requests:
            warped = await self._workers.run(stream.push, target_from_proto(request))
            if warped is not None:
                yield warped_to_proto(warped)

    async def SelectInsides(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.SelectInsidesRequest], context: Any
    ) -> AsyncIterator[pb.SelectInsidesResponse]:
        """Take a config, then frames. Answer frames in order as soon as they are decided."""
        requests = aiter(request_iterator)
        ref = inside_bank_from_proto(await anext(requests, pb.SelectInsidesRequest()))
        path = InsidePath(await self._workers.run(self._stored.inside_costs, ref))
        async for request in requests:
            for source in await self._workers.run(path.push, target_from_proto(request)):
                yield pb.SelectInsidesResponse(**source._asdict())
        for source in path.finish():
            yield pb.SelectInsidesResponse(**source._asdict())

    async def SelectFrames(  # noqa: N802  # the RPC's name
        self, request: pb.SelectFramesRequest, context: Any
    ) -> pb.SelectFramesResponse:
        """Choose footage frames for new speech."""
        inputs = footage_and_speech_from_proto(request)
        chosen = await self._workers.run(select_frames, inputs.head_motion, inputs.blink, inputs.silent)
        return pb.SelectFramesResponse(frame_indices=chosen.tolist())

    async def MatchBackgrounds(  # noqa: N802  # the RPC's name
        self, request: pb.MatchBackgroundsRequest, context: Any
    ) -> pb.MatchBackgroundsResponse:
        """Choose footage frames for predicted head motion."""
        inputs = matching_from_proto(request)
        matched = await self._workers.run(
            match_backgrounds, inputs.footage, inputs.usable, inputs.shot_cuts, inputs.predicted, check_not_cancelled
        )
        return backgrounds_to_proto(matched)

    async def RotatePortrait(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.RotatePortraitRequest], context: Any
    ) -> AsyncIterator[pb.RotatePortraitResponse]:
        """Take a config, then poses. Answer each pose as it comes."""
        requests = aiter(request_iterator)
        portrait = await self._workers.run(portrait_from_proto, await anext(requests, pb.RotatePortraitRequest()))
        rotation = await self._workers.run(self._rotation, portrait)
        last: int | None = None
        async for request in requests:
            frame = portrait_frame_from_proto(request, last)
            last = frame.frame_index
            yield turned_to_proto(frame.frame_index, await self._workers.run(rotation.turn, frame.pose, frame.blink))

    async def SampleNeuralTexture(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.SampleNeuralTextureRequest], context: Any
    ) -> AsyncIterator[pb.SampleNeuralTextureResponse]:
        """Take a config, then UV maps or target frames. Answer each frame as it comes."""
        requests = aiter(request_iterator)
        config = texture_config_from_proto(await anext(requests, pb.SampleNeuralTextureRequest()))
        stream = await self._workers.run(open_texture, config, self._stored)
        async for request in requests:
            sampled = await self._workers.run(stream.push, texture_frame_from_proto(request))
            if sampled is not None:
                yield sampled_to_proto(sampled)

    def _rotation(self, portrait: Portrait) -> PortraitRotation:
        person, rasteriser = self._stored.person(portrait.identity), self._stored.rasteriser
        return PortraitRotation(portrait.picture, portrait.landmarks, portrait.pose, *person, backend=rasteriser)
