"""RPCs of the face stage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2 as pb
from dubstage.face.v1 import face_pb2_grpc
from services.common.errors import InvalidRequestError
from services.common.face.identity import FaceIdentity, identity_from_arrays, model_of_identity
from services.common.geometry.rasterise import Backend
from services.common.server.call_context import charge, check_not_cancelled, count_frames, count_reason
from services.common.server.call_messages import config_message
from services.common.server.limits import WorkerPool
from services.common.store.artefacts import ArrayCache, ArtefactRef, ArtefactStore, artefact_field
from services.face.convert import (
    FitConfig,
    NumberedPicture,
    check_resumed,
    fitting_from_proto,
    frames_to_proto,
    identity_config_from_proto,
    identity_frame_from_proto,
    identity_to_proto,
    options_from_proto,
    picture_from_proto,
    state_from_proto,
    state_to_proto,
)
from services.face.fitting.frames import FRAME_BYTES, MAX_FRAMES
from services.face.fitting.identity import IdentityFitter
from services.face.fitting.model import FittableModels
from services.face.fitting.streaming import StreamFitter
from services.face.fitting.three_stage import ColouredFrames
from services.face.tracking import FaceTracker, Networks, TrackerState
from services.face.types import FrameFaces


class FaceServicer(face_pb2_grpc.FaceServiceServicer):
    """Track and FitIdentity over loaded networks and models.

    Args:
        networks: returns the loaded networks; called once per stream, in a worker: the first call loads them.
        models: the morphable models.
        store: where identities are put.
        cache: identities are read through the cache.
        workers: threads in which faces are tracked.
        fitters: threads in which identities are fitted. A fit takes seconds and must not delay tracking.
        rasteriser: backend of the rasteriser for fits.
    """

    def __init__(
        self,
        networks: Callable[[], Networks],
        models: FittableModels,
        store: ArtefactStore,
        cache: ArrayCache,
        workers: WorkerPool,
        fitters: WorkerPool,
        rasteriser: Backend = "numba",
    ) -> None:
        self._networks, self._models, self._store, self._cache = networks, models, store, cache
        self._workers, self._fitters, self._rasteriser = workers, fitters, rasteriser

    async def Track(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.TrackRequest], context: Any
    ) -> AsyncIterator[pb.TrackResponse]:
        """Take a config, then frames. Answer each frame once its smoothing window is complete."""
        requests = aiter(request_iterator)
        config = await config_message(requests)
        options = await self._workers.run(options_from_proto, config)
        fitting = fitting_from_proto(config)
        fitter = None if fitting is None else await self._workers.run(self._fitter, fitting)
        state = await self._workers.run(state_from_proto, config, options, fitter.sizes if fitter is not None else None)
        every = config.config.state_every
        tracker: FaceTracker | None = None
        before: NumberedPicture | None = None
        async for request in requests:
            before = picture_from_proto(request, before)
            if tracker is None:
                networks = await self._workers.run(self._networks)
                if state is None:
                    tracker = FaceTracker(networks, options, first_frame=before.frame_index, fitter=fitter)
                else:
                    check_resumed(state, before)
                    tracker = FaceTracker.resumed(networks, options, state, fitter)
            for reply in _replies(await self._workers.run(tracker.push, before.picture), state):
                due = every and (reply.frames[0].frame_index + 1) % every == 0
                if due and (tracker_state := await self._workers.run(_state_of, tracker)) is not None:
                    reply.state.CopyFrom(tracker_state)
                yield reply
        if tracker is not None:
            for reply in _replies(await self._workers.run(tracker.finish), state):
                yield reply

    async def FitIdentity(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.FitIdentityRequest], context: Any
    ) -> pb.FitIdentityResponse:
        """Take a config, then the frames of one face. Answer once."""
        requests = aiter(request_iterator)
        config = identity_config_from_proto(await anext(requests, pb.FitIdentityRequest()))
        face = await self._fitters.run(self._models.get, config.model)
        fitter = IdentityFitter(face, three_stage=config.three_stage, backend=self._rasteriser)
        held = 0
        async for request in requests:
            frame = identity_frame_from_proto(request)
            if held <= MAX_FRAMES:  # later frames replace earlier frames
                charge(FRAME_BYTES)
                held += 1
            await self._fitters.run(fitter.push, frame.picture, frame.face)
            count_frames(1)
        identity = await self._fitters.run(fitter.finish, check_not_cancelled)
        ref = await self._fitters.run(self._keep, identity)
        return identity_to_proto(identity, face.model.num_expression, ref)

    def _fitter(self, config: FitConfig) -> StreamFitter:
        if config.identity is None:
            return StreamFitter(self._models.get(config.model))
        with artefact_field("config.identity"):
            stored = self._cache.get_arrays(config.identity)
            name = model_of_identity(stored)
        if config.model not in {"", name}:
            raise InvalidRequestError(
                f"config.morphable_model is {config.model!r}, but config.identity was fitted on {name!r}",
                field="config.morphable_model",
            )
        face = self._models.get(name)
        with artefact_field("config.identity"):
            identity = identity_from_arrays(stored, face.model)
        colours = ColouredFrames(face, identity, self._rasteriser) if config.colours else None
        return StreamFitter(face, identity, colours)

    def _keep(self, identity: FaceIdentity) -> ArtefactRef:
        return self._store.put_arrays(identity.arrays(), identity.metadata())


def _state_of(tracker: FaceTracker) -> common_pb2.StreamState | None:
    return state_to_proto(tracker.state())


def _replies(frames: Sequence[FrameFaces], resumed: TrackerState | None) -> list[pb.TrackResponse]:
    count_frames(len(frames))
    for face in (face for frame in frames for face in frame.faces):
        count_reason(face.reason.value)
    return [frames_to_proto([frame], resumed=resumed is not None) for frame in frames]
