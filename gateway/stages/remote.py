"""The stages behind gRPC: one channel a stage, which may stand for several replicas.

Unary calls are tried again here. What streams is tried again by whoever owns the unit of work (`gateway.stages.attempts`): only
they can make the requests anew.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dubstage.audio.v1alpha1 import audio_pb2, audio_pb2_grpc
from dubstage.face.v1alpha1 import face_pb2, face_pb2_grpc
from dubstage.motion.v1alpha1 import motion_pb2, motion_pb2_grpc
from dubstage.render.v1alpha1 import render_pb2, render_pb2_grpc
from dubstage.texture.v1alpha1 import texture_pb2, texture_pb2_grpc
from gateway.stages.attempts import JOB_POLICY
from services.common.client import ClientConfig, RetryPolicy, StageClient
from services.common.errors import StageDeadlineExceeded

STAGE_NAMES = ("audio", "face", "motion", "texture", "render")


class RemoteStages:
    """`Stages` over gRPC channels; an async context manager that closes them.

    Args:
        configs: a ClientConfig for each of STAGE_NAMES.
    """

    def __init__(self, configs: Mapping[str, ClientConfig]) -> None:
        self._configs = {name: replace(configs[name], only_serving=True) for name in STAGE_NAMES}
        self._clients = {name: StageClient(config) for name, config in self._configs.items()}
        self._audio = audio_pb2_grpc.AudioServiceStub(self._clients["audio"].channel)
        self._face = face_pb2_grpc.FaceServiceStub(self._clients["face"].channel)
        self._motion = motion_pb2_grpc.MotionServiceStub(self._clients["motion"].channel)
        self._texture = texture_pb2_grpc.TextureServiceStub(self._clients["texture"].channel)
        self._render = render_pb2_grpc.RenderServiceStub(self._clients["render"].channel)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for client in self._clients.values():
            await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    async def wait_until_serving(self, timeout_s: float) -> None:
        """Wait until every stage has a replica that is warm and serves.

        Raises:
            StageDeadlineExceeded: one does not answer, or is not ready in the time; the message names it.
        """
        deadline = time.monotonic() + timeout_s
        for name, client in self._clients.items():
            try:
                # The channel counts those that serve alone.
                await client.wait_until_reachable(max(0.1, deadline - time.monotonic()))
            except StageDeadlineExceeded:
                if await self._answers(name):
                    raise StageDeadlineExceeded(
                        f"{client.peer} answers, but does not serve after {timeout_s:g} s: see its log"
                    ) from None
                raise

    async def _answers(self, name: str) -> bool:
        async with StageClient(replace(self._configs[name], only_serving=False)) as client:
            try:
                stub: Any = health_pb2_grpc.HealthStub(client.channel)
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=2.0)
            except grpc.aio.AioRpcError:
                return False
            return True

    def extract_features(
        self, requests: AsyncIterator[audio_pb2.ExtractFeaturesRequest]
    ) -> AsyncIterator[audio_pb2.ExtractFeaturesResponse]:
        """AudioService.ExtractFeatures."""
        return self._clients["audio"].stream(self._audio.ExtractFeatures, requests)

    def track(self, requests: AsyncIterator[face_pb2.TrackRequest]) -> AsyncIterator[face_pb2.TrackResponse]:
        """FaceService.Track."""
        return self._clients["face"].stream(self._face.Track, requests)

    def predict_motion(
        self, requests: AsyncIterator[motion_pb2.PredictMotionRequest]
    ) -> AsyncIterator[motion_pb2.PredictMotionResponse]:
        """MotionService.PredictMotion."""
        return self._clients["motion"].stream(self._motion.PredictMotion, requests)

    async def encode_style(self, request: motion_pb2.EncodeStyleRequest) -> motion_pb2.EncodeStyleResponse:
        """MotionService.EncodeStyle."""
        return await self._clients["motion"].unary(self._motion.EncodeStyle, request, policy=JOB_POLICY)

    async def estimate_lag(self, request: motion_pb2.EstimateLagRequest) -> motion_pb2.EstimateLagResponse:
        """MotionService.EstimateLag."""
        return await self._clients["motion"].unary(self._motion.EstimateLag, request, policy=JOB_POLICY)

    def personalize_motion(self, request: motion_pb2.PersonalizeRequest) -> AsyncIterator[motion_pb2.PersonalizeResponse]:
        """MotionService.Personalize."""
        return self._clients["motion"].download(self._motion.Personalize, request)

    async def build_bank(self, requests: AsyncIterator[texture_pb2.BuildBankRequest]) -> texture_pb2.BuildBankResponse:
        """TextureService.BuildBank."""
        return await self._clients["texture"].upload(self._texture.BuildBank, lambda: requests, policy=RetryPolicy(max_attempts=1))

    def retrieve_warp(
        self, requests: AsyncIterator[texture_pb2.RetrieveWarpRequest]
    ) -> AsyncIterator[texture_pb2.RetrieveWarpResponse]:
        """TextureService.RetrieveWarp."""
        return self._clients["texture"].stream(self._texture.RetrieveWarp, requests)

    async def select_frames(self, request: texture_pb2.SelectFramesRequest) -> texture_pb2.SelectFramesResponse:
        """TextureService.SelectFrames."""
        return await self._clients["texture"].unary(self._texture.SelectFrames, request, policy=JOB_POLICY)

    async def match_backgrounds(self, request: texture_pb2.MatchBackgroundsRequest) -> texture_pb2.MatchBackgroundsResponse:
        """TextureService.MatchBackgrounds."""
        return await self._clients["texture"].unary(self._texture.MatchBackgrounds, request, policy=JOB_POLICY)

    def rotate_portrait(
        self, requests: AsyncIterator[texture_pb2.RotatePortraitRequest]
    ) -> AsyncIterator[texture_pb2.RotatePortraitResponse]:
        """TextureService.RotatePortrait."""
        return self._clients["texture"].stream(self._texture.RotatePortrait, requests)

    async def fit_identity(self, requests: AsyncIterator[face_pb2.FitIdentityRequest]) -> face_pb2.FitIdentityResponse:
        """FaceService.FitIdentity."""
        return await self._clients["face"].upload(self._face.FitIdentity, lambda: requests, policy=RetryPolicy(max_attempts=1))

    def render(self, requests: AsyncIterator[render_pb2.RenderRequest]) -> AsyncIterator[render_pb2.RenderResponse]:
        """RenderService.Render."""
        return self._clients["render"].stream(self._render.Render, requests)

    def personalize_renderer(self, request: render_pb2.PersonalizeRequest) -> AsyncIterator[render_pb2.PersonalizeResponse]:
        """RenderService.Personalize."""
        return self._clients["render"].download(self._render.Personalize, request)

    async def list_models(self) -> render_pb2.ListModelsResponse:
        """RenderService.ListModels."""
        return await self._clients["render"].unary(self._render.ListModels, render_pb2.ListModelsRequest(), policy=JOB_POLICY)
