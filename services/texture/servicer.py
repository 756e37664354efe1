"""The texture stage's RPCs. SampleNeuralTexture answers UNIMPLEMENTED: no method that needs it is there yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from dubstage.texture.v1alpha1 import texture_pb2 as pb
from dubstage.texture.v1alpha1 import texture_pb2_grpc
from services.common.array_cache import ArrayCache
from services.common.artefacts import ArtefactRef, ArtefactStore
from services.common.calls import charge, check_still_wanted, set_model_version
from services.common.errors import InvalidRequest
from services.common.face_identity import FaceIdentity, identity_from_arrays, model_of_identity
from services.common.geometry.morphable_model import MorphableModel
from services.common.identity_drawing import IdentityDrawing
from services.common.limits import WorkerPool
from services.common.morphable_models import MorphableModels
from services.common.mouth_bank import FORMAT, MAX_BANK_FRAMES, MouthBank, bank_arrays, bank_from_arrays
from services.texture.build_bank import build_bank
from services.texture.convert import (
    Portrait,
    WarpConfig,
    backgrounds_to_proto,
    bank_frame_from_proto,
    bank_to_proto,
    footage_and_speech_from_proto,
    matching_from_proto,
    max_frames_from_proto,
    portrait_frame_from_proto,
    portrait_from_proto,
    target_from_proto,
    turned_to_proto,
    warp_config_from_proto,
    warped_to_proto,
)
from services.texture.draw_identity import IdentityStream
from services.texture.match_backgrounds import match_backgrounds
from services.texture.models import TemporalWarpModel
from services.texture.retrieve_warp import WarpStream
from services.texture.rotate_portrait import PortraitRotation
from services.texture.select_frames import select_frames
from services.texture.types import BankFrame

MAX_FOOTAGE_FRAMES: Final = MAX_BANK_FRAMES
"""Frames that one BuildBank may send: they are held in memory, 83 kB each."""


class TextureServicer(texture_pb2_grpc.TextureServiceServicer):
    """Banks, retrieval and warp; drawn faces; backgrounds of retimed and of moved heads.

    Args:
        model: gives the loaded network; called once a stream, after warm-up.
        models: the morphable models of identities.
        store: where banks are put.
        cache: banks and identities are read through it.
        workers: threads in which banks are built, and textures and portraits warped.
    """

    def __init__(
        self,
        model: Callable[[], TemporalWarpModel],
        models: MorphableModels,
        store: ArtefactStore,
        cache: ArrayCache,
        workers: WorkerPool,
    ) -> None:
        self._model, self._models, self._store, self._cache, self._workers = model, models, store, cache, workers

    async def BuildBank(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.BuildBankRequest], context: Any
    ) -> pb.BuildBankResponse:
        """Config, then frames; one answer."""
        requests = aiter(request_iterator)
        max_frames = max_frames_from_proto(await anext(requests, pb.BuildBankRequest()))
        frames: list[BankFrame] = []
        async for request in requests:
            if len(frames) == MAX_FOOTAGE_FRAMES:
                raise InvalidRequest(f"a bank is built from at most {MAX_FOOTAGE_FRAMES} frames", field="frame")
            frame = bank_frame_from_proto(request)
            charge(frame.box.nbytes + frame.landmarks.nbytes)
            frames.append(frame)
        bank = await self._workers.run(build_bank, frames, max_frames)
        ref = await self._workers.run(self._keep, bank)
        return bank_to_proto(ref, bank.num_frames, bank.geometry)

    async def RetrieveWarp(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.RetrieveWarpRequest], context: Any
    ) -> AsyncIterator[pb.RetrieveWarpResponse]:
        """Config, then frames; an answer as soon as a frame is there."""
        requests = aiter(request_iterator)
        config = warp_config_from_proto(await anext(requests, pb.RetrieveWarpRequest()))
        stream = await self._workers.run(self._open, config)
        async for request in requests:
            warped = await self._workers.run(stream.push, target_from_proto(request))
            if warped is not None:
                yield warped_to_proto(warped)

    async def SelectFrames(  # noqa: N802  # the RPC's name
        self, request: pb.SelectFramesRequest, context: Any
    ) -> pb.SelectFramesResponse:
        """Footage frames for new speech."""
        inputs = footage_and_speech_from_proto(request)
        chosen = await self._workers.run(select_frames, inputs.head_motion, inputs.blink, inputs.silent)
        return pb.SelectFramesResponse(frame_indices=chosen.tolist())

    async def MatchBackgrounds(  # noqa: N802  # the RPC's name
        self, request: pb.MatchBackgroundsRequest, context: Any
    ) -> pb.MatchBackgroundsResponse:
        """Footage frames for predicted head motion."""
        inputs = matching_from_proto(request)
        found = await self._workers.run(
            match_backgrounds, inputs.footage, inputs.usable, inputs.shot_cuts, inputs.predicted, check_still_wanted
        )
        return backgrounds_to_proto(found)

    async def RotatePortrait(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.RotatePortraitRequest], context: Any
    ) -> AsyncIterator[pb.RotatePortraitResponse]:
        """Config, then poses; an answer as soon as a pose is there."""
        requests = aiter(request_iterator)
        portrait = portrait_from_proto(await anext(requests, pb.RotatePortraitRequest()))
        rotation = await self._workers.run(self._rotation, portrait)
        async for request in requests:
            frame = portrait_frame_from_proto(request)
            yield turned_to_proto(frame.frame_index, await self._workers.run(rotation.turn, frame.pose, frame.blink))

    def _keep(self, bank: MouthBank) -> ArtefactRef:
        return self._store.put_arrays(bank_arrays(bank), {"format": FORMAT})

    def _open(self, config: WarpConfig) -> WarpStream | IdentityStream:
        if config.identity is not None:
            return IdentityStream(IdentityDrawing(*self._person(config.identity)), config.mode)
        assert config.bank is not None
        model = self._model()
        set_model_version(model.version)
        return WarpStream(bank_from_arrays(self._cache.get_arrays(config.bank)), config.mode, model)

    def _rotation(self, portrait: Portrait) -> PortraitRotation:
        return PortraitRotation(portrait.picture, portrait.landmarks, portrait.pose, *self._person(portrait.identity))

    def _person(self, ref: ArtefactRef) -> tuple[FaceIdentity, MorphableModel]:
        stored = self._cache.get_arrays(ref)
        model = self._models.get(model_of_identity(stored))
        set_model_version(model.digest[:12])
        return identity_from_arrays(stored, model), model
