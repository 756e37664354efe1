"""The stages inside this process: the servicers themselves, called by the same contracts, without a server between."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Collection, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from google.protobuf.message import Message

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.face.v1alpha1 import face_pb2
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.stages.remote import STAGE_NAMES
from services.common.bounds import check_bounds
from services.common.settings import load_settings
from services.common.stage import StageParts

M = TypeVar("M", bound=Message)


def compose_stages(
    artefacts_url: str | None = None, *, names: Collection[str] = STAGE_NAMES, compute_threads: int | None = None
) -> dict[str, StageParts]:
    """Stages composed from their own settings (environment), on one artefact store; not warm yet.

    Args:
        artefacts_url: of the store; None: the settings' own.
        names: which of them; a stage that is not named is not imported either.
        compute_threads: inside one computation; None: the settings' own.
    """
    given: dict[str, object] = {"artefacts_url": artefacts_url, "compute_threads": compute_threads}
    return {name: _compose(name, given) for name in STAGE_NAMES if name in names}


def _compose(name: str, given: dict[str, object]) -> StageParts:
    settings = importlib.import_module(f"services.{name}.settings")
    module = importlib.import_module(f"services.{name}.__main__")
    parts: StageParts = module.compose(load_settings(getattr(settings, f"{name.capitalize()}Settings"), **given))
    return parts


class LocalStages:
    """`Stages` in this process; an async context manager that warms the stages up and shuts their workers down.

    Args:
        parts: the composed stages by name.
    """

    def __init__(self, parts: Mapping[str, StageParts]) -> None:
        self._parts = parts
        # The handlers are what the generated base classes declare; they get no server context here, and need none.
        self._servicers: dict[str, Any] = {name: part.servicer for name, part in parts.items()}

    @property
    def busy(self) -> bool:
        """Whether a worker still computes, for somebody or for nobody any more."""
        return any(pool.pending for part in self._parts.values() for pool in part.workers)

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(asyncio.to_thread(part.warm_up) for part in self._parts.values()))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for part in self._parts.values():
            for pool in part.workers:
                pool.shutdown()
            if part.close is not None:
                await asyncio.to_thread(part.close)

    def extract_features(
        self, requests: AsyncIterator[audio_pb2.ExtractFeaturesRequest]
    ) -> AsyncIterator[audio_pb2.ExtractFeaturesResponse]:
        """AudioService.ExtractFeatures."""
        replies: AsyncIterator[audio_pb2.ExtractFeaturesResponse]
        replies = self._servicers["audio"].ExtractFeatures(_EachChecked(requests), None)
        return replies

    def track(self, requests: AsyncIterator[face_pb2.TrackRequest]) -> AsyncIterator[face_pb2.TrackResponse]:
        """FaceService.Track."""
        replies: AsyncIterator[face_pb2.TrackResponse] = self._servicers["face"].Track(_EachChecked(requests), None)
        return replies

    def predict_motion(
        self, requests: AsyncIterator[motion_pb2.PredictMotionRequest]
    ) -> AsyncIterator[motion_pb2.PredictMotionResponse]:
        """MotionService.PredictMotion."""
        replies: AsyncIterator[motion_pb2.PredictMotionResponse]
        replies = self._servicers["motion"].PredictMotion(_EachChecked(requests), None)
        return replies

    async def encode_style(self, request: motion_pb2.EncodeStyleRequest) -> motion_pb2.EncodeStyleResponse:
        """MotionService.EncodeStyle."""
        reply: motion_pb2.EncodeStyleResponse = await self._servicers["motion"].EncodeStyle(_checked(request), None)
        return reply

    async def estimate_lag(self, request: motion_pb2.EstimateLagRequest) -> motion_pb2.EstimateLagResponse:
        """MotionService.EstimateLag."""
        reply: motion_pb2.EstimateLagResponse = await self._servicers["motion"].EstimateLag(_checked(request), None)
        return reply

    def personalize_motion(self, request: motion_pb2.PersonalizeRequest) -> AsyncIterator[motion_pb2.PersonalizeResponse]:
        """MotionService.Personalize."""
        replies: AsyncIterator[motion_pb2.PersonalizeResponse] = self._servicers["motion"].Personalize(_checked(request), None)
        return replies

    async def build_bank(self, requests: AsyncIterator[texture_pb2.BuildBankRequest]) -> texture_pb2.BuildBankResponse:
        """TextureService.BuildBank."""
        reply: texture_pb2.BuildBankResponse = await self._servicers["texture"].BuildBank(_EachChecked(requests), None)
        return reply

    def retrieve_warp(
        self, requests: AsyncIterator[texture_pb2.RetrieveWarpRequest]
    ) -> AsyncIterator[texture_pb2.RetrieveWarpResponse]:
        """TextureService.RetrieveWarp."""
        replies: AsyncIterator[texture_pb2.RetrieveWarpResponse]
        replies = self._servicers["texture"].RetrieveWarp(_EachChecked(requests), None)
        return replies

    async def select_frames(self, request: texture_pb2.SelectFramesRequest) -> texture_pb2.SelectFramesResponse:
        """TextureService.SelectFrames."""
        reply: texture_pb2.SelectFramesResponse = await self._servicers["texture"].SelectFrames(_checked(request), None)
        return reply

    async def match_backgrounds(self, request: texture_pb2.MatchBackgroundsRequest) -> texture_pb2.MatchBackgroundsResponse:
        """TextureService.MatchBackgrounds."""
        reply: texture_pb2.MatchBackgroundsResponse = await self._servicers["texture"].MatchBackgrounds(_checked(request), None)
        return reply

    def rotate_portrait(
        self, requests: AsyncIterator[texture_pb2.RotatePortraitRequest]
    ) -> AsyncIterator[texture_pb2.RotatePortraitResponse]:
        """TextureService.RotatePortrait."""
        replies: AsyncIterator[texture_pb2.RotatePortraitResponse] = self._servicers["texture"].RotatePortrait(
            _EachChecked(requests), None
        )
        return replies

    async def fit_identity(self, requests: AsyncIterator[face_pb2.FitIdentityRequest]) -> face_pb2.FitIdentityResponse:
        """FaceService.FitIdentity."""
        reply: face_pb2.FitIdentityResponse = await self._servicers["face"].FitIdentity(_EachChecked(requests), None)
        return reply

    def render(self, requests: AsyncIterator[render_pb2.RenderRequest]) -> AsyncIterator[render_pb2.RenderResponse]:
        """RenderService.Render."""
        replies: AsyncIterator[render_pb2.RenderResponse] = self._servicers["render"].Render(_EachChecked(requests), None)
        return replies

    def personalize_renderer(self, request: render_pb2.PersonalizeRequest) -> AsyncIterator[render_pb2.PersonalizeResponse]:
        """RenderService.Personalize."""
        replies: AsyncIterator[render_pb2.PersonalizeResponse] = self._servicers["render"].Personalize(_checked(request), None)
        return replies

    async def list_models(self) -> render_pb2.ListModelsResponse:
        """RenderService.ListModels."""
        reply: render_pb2.ListModelsResponse
        reply = await self._servicers["render"].ListModels(render_pb2.ListModelsRequest(), None)
        return reply


def _checked(request: M) -> M:
    """The request, held to its bounds as a server holds it.

    Raises:
        InvalidRequest: a field lies outside of them.
    """
    check_bounds(request)
    return request


class _EachChecked(AsyncIterator[M]):
    """Requests, each held to its bounds. No generator: who made the requests closes them, and there is nothing else to close."""

    def __init__(self, requests: AsyncIterator[M]) -> None:
        self._requests = requests

    async def __anext__(self) -> M:
        return _checked(await anext(self._requests))
