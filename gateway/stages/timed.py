"""Stages with a clock: how long each call took, for reports and the bench."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.face.v1alpha1 import face_pb2
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.reports.stage_times import StageClock
from gateway.stages.interface import Stages

T = TypeVar("T")


class TimedStages:
    """`Stages` that passes every call on and counts its wall time: from call to last reply, upstream waits included."""

    def __init__(self, stages: Stages, clock: StageClock) -> None:
        self._stages = stages
        self._clock = clock

    async def _stream(self, name: str, replies: AsyncIterator[T], frames_a_reply: int = 1) -> AsyncIterator[T]:
        began, frames = time.perf_counter(), 0
        try:
            async for reply in replies:
                frames += frames_a_reply
                yield reply
        finally:
            self._clock.add(name, wall_s=time.perf_counter() - began, frames=frames)

    async def _single(self, name: str, reply: Awaitable[T]) -> T:
        began = time.perf_counter()
        try:
            return await reply
        finally:
            self._clock.add(name, wall_s=time.perf_counter() - began, frames=0)

    def extract_features(
        self, requests: AsyncIterator[audio_pb2.ExtractFeaturesRequest]
    ) -> AsyncIterator[audio_pb2.ExtractFeaturesResponse]:
        """AudioService.ExtractFeatures."""
        return self._stream("audio", self._stages.extract_features(requests))

    def track(self, requests: AsyncIterator[face_pb2.TrackRequest]) -> AsyncIterator[face_pb2.TrackResponse]:
        """FaceService.Track."""
        return self._stream("face", self._stages.track(requests))

    def predict_motion(
        self, requests: AsyncIterator[motion_pb2.PredictMotionRequest]
    ) -> AsyncIterator[motion_pb2.PredictMotionResponse]:
        """MotionService.PredictMotion."""
        return self._stream("motion", self._stages.predict_motion(requests))

    async def encode_style(self, request: motion_pb2.EncodeStyleRequest) -> motion_pb2.EncodeStyleResponse:
        """MotionService.EncodeStyle."""
        return await self._single("style", self._stages.encode_style(request))

    async def estimate_lag(self, request: motion_pb2.EstimateLagRequest) -> motion_pb2.EstimateLagResponse:
        """MotionService.EstimateLag."""
        return await self._single("lag", self._stages.estimate_lag(request))

    def personalize_motion(self, request: motion_pb2.PersonalizeRequest) -> AsyncIterator[motion_pb2.PersonalizeResponse]:
        """MotionService.Personalize."""
        return self._stream("personalize motion", self._stages.personalize_motion(request), 0)

    async def build_bank(self, requests: AsyncIterator[texture_pb2.BuildBankRequest]) -> texture_pb2.BuildBankResponse:
        """TextureService.BuildBank."""
        return await self._single("bank", self._stages.build_bank(requests))

    def retrieve_warp(
        self, requests: AsyncIterator[texture_pb2.RetrieveWarpRequest]
    ) -> AsyncIterator[texture_pb2.RetrieveWarpResponse]:
        """TextureService.RetrieveWarp."""
        return self._stream("texture", self._stages.retrieve_warp(requests))

    async def select_frames(self, request: texture_pb2.SelectFramesRequest) -> texture_pb2.SelectFramesResponse:
        """TextureService.SelectFrames."""
        return await self._single("retiming", self._stages.select_frames(request))

    async def match_backgrounds(self, request: texture_pb2.MatchBackgroundsRequest) -> texture_pb2.MatchBackgroundsResponse:
        """TextureService.MatchBackgrounds."""
        return await self._single("backgrounds", self._stages.match_backgrounds(request))

    def rotate_portrait(
        self, requests: AsyncIterator[texture_pb2.RotatePortraitRequest]
    ) -> AsyncIterator[texture_pb2.RotatePortraitResponse]:
        """TextureService.RotatePortrait."""
        return self._stream("portrait", self._stages.rotate_portrait(requests))

    async def fit_identity(self, requests: AsyncIterator[face_pb2.FitIdentityRequest]) -> face_pb2.FitIdentityResponse:
        """FaceService.FitIdentity."""
        return await self._single("identity", self._stages.fit_identity(requests))

    def render(self, requests: AsyncIterator[render_pb2.RenderRequest]) -> AsyncIterator[render_pb2.RenderResponse]:
        """RenderService.Render."""
        return self._stream("render", self._stages.render(requests))

    def personalize_renderer(self, request: render_pb2.PersonalizeRequest) -> AsyncIterator[render_pb2.PersonalizeResponse]:
        """RenderService.Personalize."""
        return self._stream("personalize renderer", self._stages.personalize_renderer(request), 0)

    async def list_models(self) -> render_pb2.ListModelsResponse:
        """RenderService.ListModels."""
        return await self._stages.list_models()
