"""The motion stage's RPCs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from dubstage.motion.v1 import motion_pb2 as pb
from dubstage.motion.v1 import motion_pb2_grpc
from services.common.server.call_context import check_not_cancelled, set_model_version
from services.common.server.call_messages import config_message
from services.common.server.limits import WorkerPool
from services.common.server.process import Once
from services.common.store.artefacts import MAX_ARRAYS_BYTES, ArtefactRef, ArtefactStore, artefact_field
from services.common.wire.convert import predictor_to_proto, ref_from_proto, ref_to_proto
from services.motion.constraints import WHOLE
from services.motion.convert import (
    PredictConfig,
    block_from_proto,
    config_from_proto,
    features_from_proto,
    footage_from_proto,
    lag_to_proto,
    motion_to_proto,
    same_length,
    state_from_proto,
    state_to_proto,
)
from services.motion.lag import LAG_STATES, estimate_lag, sync_distance
from services.motion.models import MotionModels
from services.motion.predictor import Predictor, StyleStep
from services.motion.predictors.registry import added_style_shapes, all_predictors, predictor_named
from services.motion.stream import MAX_FRAMES_AT_ONCE, MotionStream
from services.motion.style import STYLE_FORMAT, Style
from services.motion.types import Footage, SpeechFeatures


class MotionServicer(motion_pb2_grpc.MotionServiceServicer):
    """Motion, style, lag and personalisation over loaded models."""

    def __init__(self, models: Once[MotionModels], store: ArtefactStore, workers: WorkerPool, trainers: WorkerPool) -> None:
        """Compose the servicer.

        Args:
            models: returns the networks.
            store: store of style artefacts.
            workers: threads that serve.
            trainers: threads that personalise. Separate, so that a personalisation never blocks serving.
        """
        self._models, self._store, self._workers, self._trainers = models, store, workers, trainers
        self._versions: dict[str, Once[str]] = {}

    async def PredictMotion(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.PredictMotionRequest], context: Any
    ) -> AsyncIterator[pb.PredictMotionResponse]:
        """Take the config, then features; answer motion as soon as the features after a frame are there."""
        requests = aiter(request_iterator)
        # A timeline of a million times, or footage of an hour, takes seconds to read.
        config = await self._workers.run(config_from_proto, await config_message(requests))
        predictor = predictor_named(config.method, "config.method")
        predictor.spec.check_look_ahead(config.look_ahead_frames, "config.look_ahead_frames")
        models = await self._serving(predictor)
        stream = await self._workers.run(self._open, predictor, config, models)
        async for request in requests:
            block = features_from_proto(request, predictor.spec.tensors)
            motion = await self._workers.run(stream.push, block.first_frame, block.features)
            for reply in motion_to_proto(motion):
                yield reply
            while len(motion.mouth_landmarks) == MAX_FRAMES_AT_ONCE:
                motion = await self._workers.run(stream.ready)
                for reply in motion_to_proto(motion):
                    yield reply
            if config.states and (state := stream.new_state()) is not None:
                yield state_to_proto(state)
        while (rest := await self._workers.run(stream.drain)) is not None:
            for reply in motion_to_proto(rest):
                yield reply

    async def EncodeStyle(self, request: pb.EncodeStyleRequest, context: Any) -> pb.EncodeStyleResponse:  # noqa: N802
        """Measure the style of a person from tracked footage."""
        predictor = predictor_named(request.method, "method")
        poses = request.head_poses if predictor.spec.moves_head else None
        footage = await self._workers.run(
            footage_from_proto,
            request.mouth_landmarks,
            request.usable,
            request.frame_rate,
            head_poses=poses,
            pose_landmarks=request.pose_landmarks,
        )
        models = await self._serving(predictor)
        style = await self._workers.run(predictor.encode_style, footage, models)
        return pb.EncodeStyleResponse(style=ref_to_proto(await self._workers.run(self._keep_style, style, models)))

    async def EstimateLag(self, request: pb.EstimateLagRequest, context: Any) -> pb.EstimateLagResponse:  # noqa: N802
        """Estimate the lag of a clip. All predictors share the model of lags, so the request names no predictor."""
        block = await self._workers.run(block_from_proto, request.features, {LAG_STATES})
        footage = await self._workers.run(footage_from_proto, request.mouth_landmarks, request.usable)
        same_length(block, footage)
        models = await self._models.ready()
        set_model_version(models.lag.version)
        return await self._workers.run(_lag_of, block.features, footage, models)

    async def Personalize(  # noqa: N802  # the RPC's name
        self, request: pb.PersonalizeRequest, context: Any
    ) -> AsyncIterator[pb.PersonalizeResponse]:
        """Yield progress, then the refined style."""
        predictor = predictor_named(request.method, "method")
        block = block_from_proto(request.features, predictor.spec.tensors)
        poses = request.head_poses if predictor.spec.moves_head else None
        footage = footage_from_proto(request.mouth_landmarks, request.usable, head_poses=poses)
        same_length(block, footage)
        models = await self._serving(predictor)
        async with self._trainers.slot():
            style = await self._trainers.run(self._load_style, ref_from_proto(request.style, "style"), models)
            steps = predictor.personalize(style, block.features, footage, models)
            while step := await self._trainers.run(_next_step, steps):
                reply = pb.PersonalizeResponse(step=step.index, num_steps=step.count, loss=step.loss)
                if step.style is not None:
                    reply.style.CopyFrom(ref_to_proto(await self._trainers.run(self._keep_style, step.style, models)))
                yield reply

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        """List the predictors of this stage."""
        versions = [(each.spec, await self._version(each)) for each in all_predictors()]
        models = await self._models.ready()
        return pb.ListModelsResponse(
            models=[predictor_to_proto(spec, version=version) for spec, version in versions],
            shared_version=f"{models.version}-{models.lag.version}",
        )

    async def _serving(self, predictor: Predictor) -> MotionModels:
        set_model_version(await self._version(predictor))
        return await self._models.ready()

    async def _version(self, predictor: Predictor) -> str:
        read = Once(lambda: predictor.version(self._models()))
        return await self._versions.setdefault(predictor.spec.name, read).ready()

    def _open(self, predictor: Predictor, config: PredictConfig, models: MotionModels) -> MotionStream:
        chosen = config.look_ahead_frames
        opener = predictor.open if chosen is None else predictor.open_ahead[chosen]
        with artefact_field("config.style"):
            of_person = opener(models, self._load_style(config.style, models), WHOLE if config.whole_speech else None)
        of_person.options = config.mouth
        stream = MotionStream(of_person, config.timeline, config.num_frames)
        if config.resume is not None:
            stream.resume(state_from_proto(config.resume, stream.arrays(), moves_head=predictor.spec.moves_head))
        return stream

    def _load_style(self, ref: ArtefactRef, models: MotionModels) -> Style:
        with artefact_field("style"):
            named = self._store.get_arrays(ref, max_bytes=MAX_ARRAYS_BYTES)
            added = added_style_shapes(named, models)
            return Style.from_arrays(named.arrays, named.metadata, expected=models.style_shapes, added=added, field="style")

    def _keep_style(self, style: Style, models: MotionModels) -> ArtefactRef:
        return self._store.put_arrays(style.arrays(), {"format": STYLE_FORMAT, "model": models.version})


def _lag_of(features: SpeechFeatures, footage: Footage, models: MotionModels) -> pb.EstimateLagResponse:
    estimate = estimate_lag(features, footage.mouth_landmarks, footage.usable, models.lag)
    return lag_to_proto(estimate, sync_distance(features, footage.mouth_landmarks, footage.usable, models.sync_basis, models))


def _next_step(steps: Iterator[StyleStep]) -> StyleStep | None:
    check_not_cancelled()
    return next(steps, None)
