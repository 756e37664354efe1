"""What the gateway asks of the stages. Streams are async iterators of the contracts' messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.face.v1alpha1 import face_pb2
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from dubstage.texture.v1alpha1 import texture_pb2


class Stages(Protocol):
    """The stages' RPCs that methods are composed of. Every call raises DubstageError, wherever the stage runs."""

    def extract_features(
        self, requests: AsyncIterator[audio_pb2.ExtractFeaturesRequest]
    ) -> AsyncIterator[audio_pb2.ExtractFeaturesResponse]:
        """AudioService.ExtractFeatures."""
        ...

    def track(self, requests: AsyncIterator[face_pb2.TrackRequest]) -> AsyncIterator[face_pb2.TrackResponse]:
        """FaceService.Track."""
        ...

    def predict_motion(
        self, requests: AsyncIterator[motion_pb2.PredictMotionRequest]
    ) -> AsyncIterator[motion_pb2.PredictMotionResponse]:
        """MotionService.PredictMotion."""
        ...

    async def encode_style(self, request: motion_pb2.EncodeStyleRequest) -> motion_pb2.EncodeStyleResponse:
        """MotionService.EncodeStyle."""
        ...

    async def estimate_lag(self, request: motion_pb2.EstimateLagRequest) -> motion_pb2.EstimateLagResponse:
        """MotionService.EstimateLag."""
        ...

    def personalize_motion(self, request: motion_pb2.PersonalizeRequest) -> AsyncIterator[motion_pb2.PersonalizeResponse]:
        """MotionService.Personalize."""
        ...

    async def build_bank(self, requests: AsyncIterator[texture_pb2.BuildBankRequest]) -> texture_pb2.BuildBankResponse:
        """TextureService.BuildBank."""
        ...

    def retrieve_warp(
        self, requests: AsyncIterator[texture_pb2.RetrieveWarpRequest]
    ) -> AsyncIterator[texture_pb2.RetrieveWarpResponse]:
        """TextureService.RetrieveWarp."""
        ...

    async def select_frames(self, request: texture_pb2.SelectFramesRequest) -> texture_pb2.SelectFramesResponse:
        """TextureService.SelectFrames."""
        ...

    async def match_backgrounds(self, request: texture_pb2.MatchBackgroundsRequest) -> texture_pb2.MatchBackgroundsResponse:
        """TextureService.MatchBackgrounds."""
        ...

    def rotate_portrait(
        self, requests: AsyncIterator[texture_pb2.RotatePortraitRequest]
    ) -> AsyncIterator[texture_pb2.RotatePortraitResponse]:
        """TextureService.RotatePortrait."""
        ...

    async def fit_identity(self, requests: AsyncIterator[face_pb2.FitIdentityRequest]) -> face_pb2.FitIdentityResponse:
        """FaceService.FitIdentity."""
        ...

    def render(self, requests: AsyncIterator[render_pb2.RenderRequest]) -> AsyncIterator[render_pb2.RenderResponse]:
        """RenderService.Render."""
        ...

    def personalize_renderer(self, request: render_pb2.PersonalizeRequest) -> AsyncIterator[render_pb2.PersonalizeResponse]:
        """RenderService.Personalize."""
        ...

    async def list_models(self) -> render_pb2.ListModelsResponse:
        """RenderService.ListModels."""
        ...
