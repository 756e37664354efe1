"""The table of RPCs: one constant for each RPC of the five stages and the gateway, a class for each server.

`rpcs.motion.ENCODE_STYLE` says what a caller, a server and a clock need to know of MotionService.EncodeStyle. The client and the
gateway make all calls from these constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.longrunning import operations_pb2
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from dubstage.audio.v1 import audio_pb2
from dubstage.face.v1 import face_pb2
from dubstage.gateway.v1 import batch_pb2, gateway_pb2, media_pb2, webhook_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from dubstage.texture.v1 import texture_pb2

# ruff: noqa: N801 - the classes are namespaces with the names of the servers, as callers write them: rpcs.motion.ENCODE_STYLE

Q = TypeVar("Q", bound=Message)
R_co = TypeVar("R_co", bound=Message, covariant=True)


@dataclass(frozen=True, slots=True)
class Rpc(Generic[Q, R_co]):
    """One RPC of one service.

    Attributes:
        service: full name, such as "dubstage.motion.v1.MotionService".
        method: name in the contract, such as "EncodeStyle".
        request, response: message classes. A streaming side sends many messages of its class.
    """

    service: str
    method: str
    request: type[Q]
    response: type[R_co]

    @property
    def path(self) -> str:
        """Return the path that gRPC sends: "/service/method"."""
        return f"/{self.service}/{self.method}"

    @property
    def serialisers(self) -> dict[str, Any]:
        """Return the keyword arguments by which a gRPC channel makes a callable of this RPC."""
        return {"request_serializer": self.request.SerializeToString, "response_deserializer": self.response.FromString}


class Unary(Rpc[Q, R_co]):
    """One request, one response."""

    __slots__ = ()


class Upload(Rpc[Q, R_co]):
    """Many requests, one response."""

    __slots__ = ()


class Download(Rpc[Q, R_co]):
    """One request, many responses."""

    __slots__ = ()


class Stream(Rpc[Q, R_co]):
    """Many requests, many responses, at the same time."""

    __slots__ = ()


class audio:
    """RPCs of the audio stage."""

    _SERVICE: Final = "dubstage.audio.v1.AudioService"

    EXTRACT_FEATURES: Final = Stream(
        _SERVICE, "ExtractFeatures", audio_pb2.ExtractFeaturesRequest, audio_pb2.ExtractFeaturesResponse
    )


class face:
    """RPCs of the face stage."""

    _SERVICE: Final = "dubstage.face.v1.FaceService"

    TRACK: Final = Stream(_SERVICE, "Track", face_pb2.TrackRequest, face_pb2.TrackResponse)
    FIT_IDENTITY: Final = Upload(_SERVICE, "FitIdentity", face_pb2.FitIdentityRequest, face_pb2.FitIdentityResponse)


class motion:
    """RPCs of the motion stage."""

    _SERVICE: Final = "dubstage.motion.v1.MotionService"

    PREDICT_MOTION: Final = Stream(_SERVICE, "PredictMotion", motion_pb2.PredictMotionRequest, motion_pb2.PredictMotionResponse)
    ENCODE_STYLE: Final = Unary(_SERVICE, "EncodeStyle", motion_pb2.EncodeStyleRequest, motion_pb2.EncodeStyleResponse)
    ESTIMATE_LAG: Final = Unary(_SERVICE, "EstimateLag", motion_pb2.EstimateLagRequest, motion_pb2.EstimateLagResponse)
    PERSONALIZE: Final = Download(_SERVICE, "Personalize", motion_pb2.PersonalizeRequest, motion_pb2.PersonalizeResponse)
    LIST_MODELS: Final = Unary(_SERVICE, "ListModels", motion_pb2.ListModelsRequest, motion_pb2.ListModelsResponse)


class texture:
    """RPCs of the texture stage."""

    _SERVICE: Final = "dubstage.texture.v1.TextureService"

    BUILD_BANK: Final = Upload(_SERVICE, "BuildBank", texture_pb2.BuildBankRequest, texture_pb2.BuildBankResponse)
    RETRIEVE_WARP: Final = Stream(_SERVICE, "RetrieveWarp", texture_pb2.RetrieveWarpRequest, texture_pb2.RetrieveWarpResponse)
    SELECT_INSIDES: Final = Stream(_SERVICE, "SelectInsides", texture_pb2.SelectInsidesRequest, texture_pb2.SelectInsidesResponse)
    SELECT_FRAMES: Final = Unary(_SERVICE, "SelectFrames", texture_pb2.SelectFramesRequest, texture_pb2.SelectFramesResponse)
    MATCH_BACKGROUNDS: Final = Unary(
        _SERVICE, "MatchBackgrounds", texture_pb2.MatchBackgroundsRequest, texture_pb2.MatchBackgroundsResponse
    )
    ROTATE_PORTRAIT: Final = Stream(
        _SERVICE, "RotatePortrait", texture_pb2.RotatePortraitRequest, texture_pb2.RotatePortraitResponse
    )
    SAMPLE_NEURAL_TEXTURE: Final = Stream(
        _SERVICE, "SampleNeuralTexture", texture_pb2.SampleNeuralTextureRequest, texture_pb2.SampleNeuralTextureResponse
    )


class render:
    """RPCs of the render stage."""

    _SERVICE: Final = "dubstage.render.v1.RenderService"

    RENDER: Final = Stream(_SERVICE, "Render", render_pb2.RenderRequest, render_pb2.RenderResponse)
    PERSONALIZE: Final = Download(_SERVICE, "Personalize", render_pb2.PersonalizeRequest, render_pb2.PersonalizeResponse)
    LIST_MODELS: Final = Unary(_SERVICE, "ListModels", render_pb2.ListModelsRequest, render_pb2.ListModelsResponse)


class gateway:
    """RPCs of the gateway: actors, dubs, live streams, batches and files."""

    _ACTORS: Final = "dubstage.gateway.v1.ActorService"
    _DUBS: Final = "dubstage.gateway.v1.DubService"
    _BATCHES: Final = "dubstage.gateway.v1.BatchService"
    _MEDIA: Final = "dubstage.gateway.v1.MediaService"
    _WEBHOOKS: Final = "dubstage.gateway.v1.WebhookService"

    CREATE_ACTOR: Final = Unary(_ACTORS, "CreateActor", gateway_pb2.CreateActorRequest, operations_pb2.Operation)
    GET_ACTOR: Final = Unary(_ACTORS, "GetActor", gateway_pb2.GetActorRequest, gateway_pb2.Actor)
    GET_ACTOR_PICTURE: Final = Unary(_ACTORS, "GetActorPicture", gateway_pb2.GetActorPictureRequest, gateway_pb2.ActorPicture)
    LIST_ACTORS: Final = Unary(_ACTORS, "ListActors", gateway_pb2.ListActorsRequest, gateway_pb2.ListActorsResponse)
    ERASE_ACTOR: Final = Unary(_ACTORS, "EraseActor", gateway_pb2.EraseActorRequest, gateway_pb2.EraseActorResponse)
    REVOKE_CONSENT: Final = Unary(_ACTORS, "RevokeConsent", gateway_pb2.RevokeConsentRequest, gateway_pb2.RevokeConsentResponse)
    CREATE_DUB: Final = Unary(_DUBS, "CreateDub", gateway_pb2.CreateDubRequest, operations_pb2.Operation)
    LIST_DUBS: Final = Unary(_DUBS, "ListDubs", gateway_pb2.ListDubsRequest, gateway_pb2.ListDubsResponse)
    ESTIMATE_DUB: Final = Unary(_DUBS, "EstimateDub", gateway_pb2.EstimateDubRequest, gateway_pb2.EstimateDubResponse)
    DETECT_FACES: Final = Unary(_DUBS, "DetectFaces", gateway_pb2.DetectFacesRequest, operations_pb2.Operation)
    LIVE: Final = Stream(_DUBS, "Live", gateway_pb2.LiveRequest, gateway_pb2.LiveResponse)
    SUBMIT_BATCH: Final = Unary(_BATCHES, "SubmitBatch", batch_pb2.SubmitBatchRequest, batch_pb2.SubmitBatchResponse)
    GET_BATCH: Final = Unary(_BATCHES, "GetBatch", batch_pb2.GetBatchRequest, batch_pb2.Batch)
    LIST_BATCHES: Final = Unary(_BATCHES, "ListBatches", batch_pb2.ListBatchesRequest, batch_pb2.ListBatchesResponse)
    GET_SHOT: Final = Unary(_BATCHES, "GetShot", batch_pb2.GetShotRequest, batch_pb2.Shot)
    LIST_SHOTS: Final = Unary(_BATCHES, "ListShots", batch_pb2.ListShotsRequest, batch_pb2.ListShotsResponse)
    REVIEW_SHOT: Final = Unary(_BATCHES, "ReviewShot", batch_pb2.ReviewShotRequest, batch_pb2.Shot)
    WATCH_BATCH: Final = Download(_BATCHES, "WatchBatch", batch_pb2.WatchBatchRequest, batch_pb2.WatchBatchResponse)
    CANCEL_BATCH: Final = Unary(_BATCHES, "CancelBatch", batch_pb2.CancelBatchRequest, batch_pb2.Batch)
    RETRY_BATCH: Final = Unary(_BATCHES, "RetryBatch", batch_pb2.RetryBatchRequest, batch_pb2.Batch)
    DELETE_BATCH: Final = Unary(_BATCHES, "DeleteBatch", batch_pb2.DeleteBatchRequest, Empty)
    GET_REPORT: Final = Download(_BATCHES, "GetReport", batch_pb2.GetReportRequest, batch_pb2.GetReportResponse)
    UPLOAD_FILE: Final = Upload(_MEDIA, "UploadFile", media_pb2.UploadFileRequest, media_pb2.Upload)
    GET_UPLOAD: Final = Unary(_MEDIA, "GetUpload", media_pb2.GetUploadRequest, media_pb2.Upload)
    LIST_UPLOADS: Final = Unary(_MEDIA, "ListUploads", media_pb2.ListUploadsRequest, media_pb2.ListUploadsResponse)
    DELETE_UPLOAD: Final = Unary(_MEDIA, "DeleteUpload", media_pb2.DeleteUploadRequest, Empty)
    SIGN_UPLOAD: Final = Unary(_MEDIA, "SignUpload", media_pb2.SignUploadRequest, media_pb2.SignedUrl)
    FINISH_UPLOAD: Final = Unary(_MEDIA, "FinishUpload", media_pb2.FinishUploadRequest, media_pb2.Upload)
    SIGN_DOWNLOAD: Final = Unary(_MEDIA, "SignDownload", media_pb2.SignDownloadRequest, media_pb2.SignedUrl)
    DOWNLOAD_FILE: Final = Download(_MEDIA, "DownloadFile", media_pb2.DownloadFileRequest, media_pb2.DownloadFileResponse)
    CREATE_WEBHOOK: Final = Unary(_WEBHOOKS, "CreateWebhook", webhook_pb2.CreateWebhookRequest, webhook_pb2.Webhook)
    GET_WEBHOOK: Final = Unary(_WEBHOOKS, "GetWebhook", webhook_pb2.GetWebhookRequest, webhook_pb2.Webhook)
    LIST_WEBHOOKS: Final = Unary(_WEBHOOKS, "ListWebhooks", webhook_pb2.ListWebhooksRequest, webhook_pb2.ListWebhooksResponse)
    DELETE_WEBHOOK: Final = Unary(_WEBHOOKS, "DeleteWebhook", webhook_pb2.DeleteWebhookRequest, Empty)
    LIST_WEBHOOK_DELIVERIES: Final = Unary(
        _WEBHOOKS,
        "ListWebhookDeliveries",
        webhook_pb2.ListWebhookDeliveriesRequest,
        webhook_pb2.ListWebhookDeliveriesResponse,
    )
    REPLAY_WEBHOOK_DELIVERIES: Final = Unary(
        _WEBHOOKS,
        "ReplayWebhookDeliveries",
        webhook_pb2.ReplayWebhookDeliveriesRequest,
        webhook_pb2.ReplayWebhookDeliveriesResponse,
    )


class operations:
    """RPCs of google.longrunning.Operations, which the gateway serves."""

    _SERVICE: Final = "google.longrunning.Operations"

    LIST_OPERATIONS: Final = Unary(
        _SERVICE, "ListOperations", operations_pb2.ListOperationsRequest, operations_pb2.ListOperationsResponse
    )
    GET_OPERATION: Final = Unary(_SERVICE, "GetOperation", operations_pb2.GetOperationRequest, operations_pb2.Operation)
    DELETE_OPERATION: Final = Unary(_SERVICE, "DeleteOperation", operations_pb2.DeleteOperationRequest, Empty)
    CANCEL_OPERATION: Final = Unary(_SERVICE, "CancelOperation", operations_pb2.CancelOperationRequest, Empty)
    WAIT_OPERATION: Final = Unary(_SERVICE, "WaitOperation", operations_pb2.WaitOperationRequest, operations_pb2.Operation)


ALL: Final[tuple[Rpc[Any, Any], ...]] = tuple(
    value
    for server in (audio, face, motion, texture, render, gateway, operations)
    for value in vars(server).values()
    if isinstance(value, Rpc)
)
"""Every RPC of the table."""
