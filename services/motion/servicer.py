"""The motion stage's RPCs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from dubstage.motion.v1alpha1 import motion_pb2 as pb
from dubstage.motion.v1alpha1 import motion_pb2_grpc
from services.common.artefact_messages import ref_from_proto, ref_to_proto
from services.common.artefacts import MAX_ARRAYS_BYTES, ArtefactRef, ArtefactStore
from services.common.calls import check_still_wanted, set_model_version
from services.common.errors import InvalidRequest
from services.common.limits import WorkerPool
from services.motion.adapt.personalize import Step, personalize
from services.motion.adapt.personalize_expression import personalize_expression
from services.motion.adapt.personalize_head_motion import personalize_head_motion
from services.motion.convert import (
    block_from_proto,
    check_method,
    config_from_proto,
    features_from_proto,
    footage_from_proto,
    lag_to_proto,
    motion_to_proto,
    same_length,
)
from services.motion.lag import estimate_lag
from services.motion.models import MotionModels
from services.motion.predict import MAX_FRAMES_AT_ONCE, MotionStream, mean_speaker
from services.motion.predict_expression import expression_stream
from services.motion.predict_head_motion import encode_head_style, head_motion_stream, mean_head_speaker
from services.motion.style import STYLE_FORMAT, Style, encode_style


class MotionServicer(motion_pb2_grpc.MotionServiceServicer):
    """Motion, style, lag and personalisation over loaded models.

    Args:
        models: gives the loaded networks; called once an RPC, after warm-up.
        store: where styles lie.
        workers: threads that serve.
        trainers: threads that personalise, so that it never starves serving.
    """

    def __init__(self, models: Callable[[], MotionModels], store: ArtefactStore, workers: WorkerPool, trainers: WorkerPool) -> None:
        self._models, self._store, self._workers, self._trainers = models, store, workers, trainers

    async def PredictMotion(  # noqa: N802  # the RPC's name
        self, request_iterator: AsyncIterator[pb.PredictMotionRequest], context: Any
    ) -> AsyncIterator[pb.PredictMotionResponse]:
        """Config, then features; motion as soon as its look-ahead is there."""
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None:
            raise InvalidRequest("the stream ended before its config", field="config")
        config = config_from_proto(first)
        models = self._serving(config.method)
        style = await self._workers.run(self._load_style, config.style, models)
        if config.without_style:
            style = (mean_head_speaker if config.method == "headpose" else mean_speaker)(style, models)
        stream = _STREAMS[config.method](models, style, config.timeline, config.num_frames)
        async for request in requests:
            block = features_from_proto(request, config.method)
            motion = await self._workers.run(stream.push, block.first_frame, block.features)
            for reply in motion_to_proto(motion):
                yield reply
            while len(motion.mouth_landmarks) == MAX_FRAMES_AT_ONCE:
                motion = await self._workers.run(stream.ready)
                for reply in motion_to_proto(motion):
                    yield reply
        while (rest := await self._workers.run(stream.drain)) is not None:
            for reply in motion_to_proto(rest):
                yield reply

    async def EncodeStyle(self, request: pb.EncodeStyleRequest, context: Any) -> pb.EncodeStyleResponse:  # noqa: N802
        """Style of a person from tracked footage: the same artefact for every method; `headpose` adds the head's movement."""
        check_method(request.method)
        poses = request.head_poses if request.method == "headpose" else None
        footage = footage_from_proto(request.mouth_landmarks, request.usable, request.frame_rate, head_poses=poses)
        models = self._serving(request.method)
        if footage.head_poses is None:
            style = await self._workers.run(encode_style, footage.mouth_landmarks, footage.usable, models.basis, models)
        else:
            style = await self._workers.run(encode_head_style, footage.mouth_landmarks, footage.usable, footage.head_poses, models)
        return pb.EncodeStyleResponse(style=ref_to_proto(await self._workers.run(self._keep_style, style, models)))

    async def EstimateLag(self, request: pb.EstimateLagRequest, context: Any) -> pb.EstimateLagResponse:  # noqa: N802
        """Lag of a clip."""
        block, footage = block_from_proto(request.features), footage_from_proto(request.mouth_landmarks, request.usable)
        same_length(block, footage)
        models = self._serving()
        estimate = await self._workers.run(
            estimate_lag, block.features, footage.mouth_landmarks, footage.usable, models.sync_basis, models
        )
        return lag_to_proto(estimate)

    async def Personalize(  # noqa: N802  # the RPC's name
        self, request: pb.PersonalizeRequest, context: Any
    ) -> AsyncIterator[pb.PersonalizeResponse]:
        """Progress, then the refined style. The result does not depend on `seed`: it has a closed form."""
        check_method(request.method)
        block = block_from_proto(request.features, request.method)
        poses = request.head_poses if request.method == "headpose" else None
        footage = footage_from_proto(request.mouth_landmarks, request.usable, head_poses=poses)
        same_length(block, footage)
        models = self._serving(request.method)
        style = await self._trainers.run(self._load_style, ref_from_proto(request.style, "style"), models)
        if footage.head_poses is None:
            refine = personalize_expression if request.method == "everybody" else personalize
            steps = refine(style, block.features, footage.mouth_landmarks, footage.usable, models)
        else:
            steps = personalize_head_motion(
                style, block.features, footage.mouth_landmarks, footage.usable, footage.head_poses, models
            )
        while step := await self._trainers.run(_next_step, steps):
            reply = pb.PersonalizeResponse(step=step.index, num_steps=step.count, loss=step.loss)
            if step.style is not None:
                reply.style.CopyFrom(ref_to_proto(await self._trainers.run(self._keep_style, step.style, models)))
            yield reply

    def _serving(self, method: str = "ugc") -> MotionModels:
        models = self._models()
        of_method = {"everybody": lambda: models.expression.version, "headpose": lambda: models.head_motion.version}
        set_model_version(of_method.get(method, lambda: models.version)())
        return models

    def _load_style(self, ref: ArtefactRef, models: MotionModels) -> Style:
        named = self._store.get_arrays(ref, max_bytes=MAX_ARRAYS_BYTES)
        return Style.from_arrays(
            named.arrays,
            named.metadata,
            expected=models.style_shapes,
            optional=models.optional_style_shapes(named.arrays),
            field="style",
        )

    def _keep_style(self, style: Style, models: MotionModels) -> ArtefactRef:
        return self._store.put_arrays(style.arrays(), {"format": STYLE_FORMAT, "model": models.version})


_STREAMS: Final = {"ugc": MotionStream, "everybody": expression_stream, "headpose": head_motion_stream}


def _next_step(steps: Any) -> Step | None:
    check_still_wanted()
    step: Step | None = next(steps, None)
    return step
