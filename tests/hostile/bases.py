"""Valid requests of every RPC, small and quick: what the campaign mutates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.longrunning import operations_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from skimage.data import astronaut

from dubstage.audio.v1 import audio_pb2
from dubstage.client import to_image, to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from dubstage.gateway.v1 import batch_pb2, consent_pb2, dub_pb2, gateway_pb2, media_pb2, webhook_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from dubstage.texture.v1 import texture_pb2
from services.common.face.crops import to_frame
from services.common.face.landmarks import MOUTH_AREA
from services.common.face.neural_texture import ACTOR_FORMAT, ARRAY_NAME, TEXTURE_SHAPE
from services.common.store.artefacts import ArtefactStore
from services.common.wire.convert import pose_to_proto, ref_to_proto
from services.motion.convert import FeatureBlock
from services.motion.types import SpeechFeatures
from services.texture.types import BankFrame
from tests.contract.face.requests import picture_to_proto
from tests.contract.motion.calls import head_request, seen, talking
from tests.contract.motion.requests import block_to_proto
from tests.contract.texture.requests import bank_frame_to_proto, portrait_to_proto
from tests.unit.motion.synthesised import head_poses, random_features, with_identity_removed, with_states
from tests.unit.texture.people import HEAD, LANDMARKS, POSE, a_person, a_portrait

Call = Callable[[str, str, Sequence[Message]], list[Message]]
"""Calls the server, the full method name and its requests; returns the answers."""

PACKAGES = {
    "audio": audio_pb2,
    "face": face_pb2,
    "motion": motion_pb2,
    "texture": texture_pb2,
    "render": render_pb2,
    "gateway": gateway_pb2,
}
OTHERS = (
    *(("gateway", module) for module in (operations_pb2, batch_pb2, media_pb2, webhook_pb2)),
    *(("audio", module) for module in (health_pb2, reflection_pb2)),
)
"""Services of other files, and the server on which the campaign calls them."""
ACTOR = "driver"
BATCH_VIDEOS = ("case-one.mp4", "case-two.mp4")
"""Videos of the shots of a batch. They stay if a shot ends before its batch is cancelled."""
BATCH = "hostile"
"""A batch whose shots were cancelled, if a case has begun one."""
RATE_HZ = 16000
PAL = common_pb2.Rational(num=25, den=1)
PAL_TIMES = common_pb2.Timeline(frame_rate=PAL)
PERSON = consent_pb2.ConsentRecord(subject="driver", granted_by="driver", scope="tests", date="2026-01-31", reference="box 7")


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method of one server, with what its descriptor says."""

    server: str
    name: str
    request: type[Message]
    response: type[Message]
    requests_stream: bool
    responses_stream: bool

    def callable(self, channel: grpc.Channel) -> Any:
        """The method on a channel; requests are bytes, so that bytes which are no message can be sent."""
        kind = ("unary", "stream")[self.requests_stream] + "_" + ("unary", "stream")[self.responses_stream]
        return getattr(channel, kind)(self.name, request_serializer=None, response_deserializer=self.response.FromString)


def every_rpc() -> dict[str, Rpc]:
    """All methods of all six servers by their short names, such as `motion.PredictMotion`."""
    from google.protobuf import message_factory

    found: dict[str, Rpc] = {}
    for server, module in (*PACKAGES.items(), *OTHERS):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                short = f"{server if (server, module) not in OTHERS else service.name}.{method.name}"
                name, forms = f"/{service.full_name}/{method.name}", (method.input_type, method.output_type)
                request, response = (message_factory.GetMessageClass(form) for form in forms)
                found[short] = Rpc(server, name, request, response, method.client_streaming, method.server_streaming)
    return found


def refs_of(call: Call, store: ArtefactStore) -> dict[str, common_pb2.ArtefactRef]:
    """Artefacts that requests name: two styles, a bank, an identity, two renderers' actors, and one of no kind."""
    person = a_person()
    refs = {
        "identity": ref_to_proto(store.put_arrays(person.arrays(), person.metadata())),
        "neural": ref_to_proto(store.put_arrays(_neural_actor(), {"format": ACTOR_FORMAT})),
        "other": ref_to_proto(store.put_arrays({"boxes": np.zeros(3, np.float32)}, {"format": "another"})),
    }
    for name, method in (("style", "ugc"), ("head_style", "headpose")):
        (answer,) = call("motion", "/dubstage.motion.v1.MotionService/EncodeStyle", [_style(method)])
        refs[name] = answer.style  # type: ignore[attr-defined]
    (built,) = call("texture", "/dubstage.texture.v1.TextureService/BuildBank", _bank())
    refs["bank"] = built.bank  # type: ignore[attr-defined]
    personalize = render_pb2.PersonalizeRequest(model="ugc", bank=refs["bank"], skip_training=True)
    *_, last = call("render", "/dubstage.render.v1.RenderService/Personalize", [personalize])
    refs["actor"] = last.actor  # type: ignore[attr-defined]
    return refs


def bases(call: Call, refs: Mapping[str, common_pb2.ArtefactRef]) -> dict[str, list[list[Message]]]:
    """Valid streams of requests by RPC; a unary RPC's have one message."""
    heard, clip = (block_to_proto(FeatureBlock(0, _heard(frames))) for frames in (4, 50))
    mouths, poses = seen(talking(50)), to_tensor(head_poses(50))
    tracked = _tracked(call)
    person = {"bank": refs["bank"], "identity": refs["identity"]}
    modes = ("THIN_PLATE_SPLINE", "UNSPECIFIED", "DETAILED_ALBEDO")
    warps = [texture_pb2.RetrieveWarpConfig(mode=f"WARP_MODE_{mode}", **person) for mode in modes]
    return {
        "audio.ExtractFeatures": [_sound()],
        "face.Track": [_pictures(), [_tracking("mediapipe_468"), *_pictures()[1:]], _resumed(call)],
        "face.FitIdentity": [tracked],
        "motion.PredictMotion": [
            [_motion_config(method, refs[style]), motion_pb2.PredictMotionRequest(features=heard)]
            for style, methods in (("style", ("dubstage", "ugc", "everybody")), ("head_style", ("headpose", "portrait")))
            for method in methods
        ],
        "motion.EncodeStyle": [[_style("dubstage")], [_style("portrait")]],
        "motion.EstimateLag": [[motion_pb2.EstimateLagRequest(features=clip, **mouths)]],
        "motion.Personalize": [
            [motion_pb2.PersonalizeRequest(method=method, style=refs[style], features=clip, head_poses=poses, **mouths)]
            for method, style in (("ugc", "style"), ("dubstage", "style"), ("portrait", "head_style"))
        ],
        "motion.ListModels": [[motion_pb2.ListModelsRequest()]],
        "texture.BuildBank": [_bank()],
        "texture.RetrieveWarp": [[texture_pb2.RetrieveWarpRequest(config=config), *_targets(3)] for config in warps],
        "texture.SelectInsides": [_path(refs["bank"]), _path_that_goes_on(call, refs["bank"])],
        "texture.SelectFrames": [[_selection()]],
        "texture.MatchBackgrounds": [[_matching()]],
        "texture.RotatePortrait": [[portrait_to_proto(a_portrait(), LANDMARKS, POSE, refs["identity"]), _turn(0), _turn(1)]],
        "texture.SampleNeuralTexture": [
            [_texture(refs["neural"], refs["identity"]), *_texture_targets(2)],
            [_texture(refs["neural"]), _uv_map(0), _uv_map(1)],
        ],
        "render.Render": [
            [render_pb2.RenderRequest(config=render_pb2.RenderConfig(model="ugc", actor=refs["actor"])), *_boxes(2)],
            [render_pb2.RenderRequest(config=render_pb2.RenderConfig(model="headpose")), *_boxes(2)],
        ],
        "render.Personalize": [[render_pb2.PersonalizeRequest(model="ugc", skip_training=True, **person)]],
        "render.ListModels": [[render_pb2.ListModelsRequest()]],
        "gateway.CreateActor": [[gateway_pb2.CreateActorRequest(actor_id="new", footage_uri="footage.mp4", consent=PERSON)]],
        "gateway.GetActor": [[gateway_pb2.GetActorRequest(name=f"actors/{ACTOR}")]],
        "gateway.GetActorPicture": [[gateway_pb2.GetActorPictureRequest(name=f"actors/{ACTOR}")]],
        "gateway.ListActors": [[gateway_pb2.ListActorsRequest(page_size=3)]],
        "gateway.EraseActor": [[gateway_pb2.EraseActorRequest(name="actors/nobody")]],
        "gateway.RevokeConsent": [[gateway_pb2.RevokeConsentRequest(record_sha256="0" * 64)]],
        "gateway.CreateDub": [[dubbing()], [_scene()]],
        "gateway.ListDubs": [[gateway_pb2.ListDubsRequest(page_size=3, done=True, order_by=gateway_pb2.DUB_ORDER_NEWEST)]],
        "gateway.EstimateDub": [[gateway_pb2.EstimateDubRequest(dub=dubbing().dub)]],
        "gateway.DetectFaces": [[gateway_pb2.DetectFacesRequest(footage_uri="footage.mp4")]],
        "gateway.Live": [_live(), _live(label="AI dubbed", label_position=dub_pb2.LABEL_POSITION_TOP_LEFT, disclose=True)],
        "BatchService.SubmitBatch": [[_batch()], [_manifest()]],
        "BatchService.GetBatch": [[batch_pb2.GetBatchRequest(name=f"batches/{BATCH}")]],
        "BatchService.GetShot": [[batch_pb2.GetShotRequest(name=f"batches/{BATCH}/shots/one")]],
        "BatchService.ListBatches": [[batch_pb2.ListBatchesRequest(page_size=3)]],
        "BatchService.ListShots": [[_listing()]],
        "BatchService.WatchBatch": [[batch_pb2.WatchBatchRequest(name=f"batches/{BATCH}")]],
        "BatchService.ReviewShot": [[_review()]],
        "BatchService.CancelBatch": [[batch_pb2.CancelBatchRequest(name=f"batches/{BATCH}", shot_ids=["one"])]],
        "BatchService.RetryBatch": [[batch_pb2.RetryBatchRequest(name="batches/nothing", shot_ids=["one"])]],
        "BatchService.DeleteBatch": [[batch_pb2.DeleteBatchRequest(name="batches/nothing")]],
        "WebhookService.CreateWebhook": [
            [webhook_pb2.CreateWebhookRequest(url="https://localhost/", events=[webhook_pb2.WEBHOOK_EVENT_BATCH_DONE])]
        ],
        "WebhookService.GetWebhook": [[webhook_pb2.GetWebhookRequest(name="webhooks/nothing")]],
        "WebhookService.ListWebhooks": [[webhook_pb2.ListWebhooksRequest()]],
        "WebhookService.DeleteWebhook": [[webhook_pb2.DeleteWebhookRequest(name="webhooks/nothing")]],
        "WebhookService.ListWebhookDeliveries": [
            [webhook_pb2.ListWebhookDeliveriesRequest(parent="webhooks/nothing", page_size=3)]
        ],
        "WebhookService.ReplayWebhookDeliveries": [
            [webhook_pb2.ReplayWebhookDeliveriesRequest(name="webhooks/nothing", event_ids=["msg_0"])]
        ],
        "BatchService.GetReport": [[batch_pb2.GetReportRequest(name=f"batches/{BATCH}", format=batch_pb2.REPORT_FORMAT_JSON)]],
        "MediaService.UploadFile": [
            [
                media_pb2.UploadFileRequest(name="uploads/hostile.bin", size_bytes=6, sha256="", data=b"123"),
                media_pb2.UploadFileRequest(data=b"456"),
            ]
        ],
        "MediaService.GetUpload": [[media_pb2.GetUploadRequest(name="uploads/hostile.bin")]],
        "MediaService.ListUploads": [[media_pb2.ListUploadsRequest(page_size=3)]],
        "MediaService.DeleteUpload": [[media_pb2.DeleteUploadRequest(name="uploads/nothing.bin")]],
        "MediaService.SignUpload": [[media_pb2.SignUploadRequest(name="uploads/signed.bin", size_bytes=9, sha256="ab" * 32)]],
        "MediaService.FinishUpload": [[media_pb2.FinishUploadRequest(name="uploads/signed.bin", sha256="ab" * 32)]],
        "MediaService.SignDownload": [[media_pb2.SignDownloadRequest(uri="s3://videos/uploads/signed.bin")]],
        "MediaService.DownloadFile": [[media_pb2.DownloadFileRequest(path="uploads/hostile.bin", offset=1, max_bytes=3)]],
        "Operations.ListOperations": [[operations_pb2.ListOperationsRequest(name="operations", page_size=3)]],
        "Operations.GetOperation": [[operations_pb2.GetOperationRequest(name="operations/none")]],
        "Operations.DeleteOperation": [[operations_pb2.DeleteOperationRequest(name="operations/none")]],
        "Operations.CancelOperation": [[operations_pb2.CancelOperationRequest(name="operations/none")]],
        "Operations.WaitOperation": [
            [operations_pb2.WaitOperationRequest(name="operations/none", timeout=Duration(nanos=100_000_000))]
        ],
        "Health.Check": [[health_pb2.HealthCheckRequest()]],
        "ServerReflection.ServerReflectionInfo": [[reflection_pb2.ServerReflectionRequest(list_services="*")]],
    }


def _listing() -> batch_pb2.ListShotsRequest:
    return batch_pb2.ListShotsRequest(parent=f"batches/{BATCH}", page_size=3, states=[batch_pb2.SHOT_STATE_DONE])


def _review() -> batch_pb2.ReviewShotRequest:
    said = {"state": batch_pb2.REVIEW_STATE_REJECTED, "note": "chin", "frame": 0, "reviewer": "Ada"}
    region = batch_pb2.ReviewRegion(width=0.5, height=0.5)
    return batch_pb2.ReviewShotRequest(name=f"batches/{BATCH}/shots/one", region=region, **said)


def _batch() -> batch_pb2.SubmitBatchRequest:
    shots = [
        batch_pb2.BatchRow(
            shot_id=shot,
            dub=dub_pb2.DubSpec(footage_uri="footage.mp4", speech_uri="speech.wav", output_uri=video, skip_personalization=True),
            quality=batch_pb2.BatchQuality(min_dubbed_share=0.5, max_warnings=1),
        )
        for shot, video in zip(("one", "two"), BATCH_VIDEOS, strict=True)
    ]
    return batch_pb2.SubmitBatchRequest(batch_id=BATCH, rows=shots, validate_only=True)


def _manifest() -> batch_pb2.SubmitBatchRequest:
    rows = b'{"defaults": {"fit": "loop"}}\n{"id": "one", "footage": "footage.mp4", "output": "case-one.mp4"}\n'
    return batch_pb2.SubmitBatchRequest(batch_id=BATCH, manifest=rows, validate_only=True)


def dubbing(**fields: Any) -> gateway_pb2.CreateDubRequest:
    """A dub of the media folder's clip by the enrolled actor."""
    given = {
        "footage_uri": "footage.mp4",
        "speech_uri": "speech.wav",
        "output_uri": "dub.mp4",
        "actor": f"actors/{ACTOR}",
        **fields,
    }
    return gateway_pb2.CreateDubRequest(dub=dub_pb2.DubSpec(**given))


def _scene() -> gateway_pb2.CreateDubRequest:
    lines = [
        dub_pb2.LineSpec(start_time=Duration(nanos=40_000_000), speech_uri="speech.wav", actor=f"actors/{ACTOR}", face_id=0),
        dub_pb2.LineSpec(
            start_timecode="00:00:01:00",
            speech_uri="speech.wav",
            box=dub_pb2.FaceBox(left=10, top=10, width=100, height=100),
            expressiveness=0.8,
        ),
        dub_pb2.LineSpec(
            start_time=Duration(seconds=2),
            speech_uri="speech.wav",
            boxes=[
                dub_pb2.FrameBox(frame_index=frame, box=dub_pb2.FaceBox(left=10, top=10, width=100, height=100))
                for frame in (50, 60)
            ],
        ),
    ]
    return gateway_pb2.CreateDubRequest(dub=dub_pb2.DubSpec(footage_uri="footage.mp4", output_uri="scene.mp4", lines=lines))


def _neural_actor() -> dict[str, np.ndarray]:
    texture = np.random.default_rng(6).integers(0, 256, TEXTURE_SHAPE).astype(np.uint8)
    return {"actor_state": np.zeros(4, np.float32), ARRAY_NAME: texture}


def _texture(
    actor: common_pb2.ArtefactRef, identity: common_pb2.ArtefactRef | None = None
) -> texture_pb2.SampleNeuralTextureRequest:
    config = texture_pb2.SampleNeuralTextureConfig(texture=actor, identity=identity)
    return texture_pb2.SampleNeuralTextureRequest(config=config)


def _texture_targets(count: int) -> list[Message]:
    return [texture_pb2.SampleNeuralTextureRequest(target=target.frame) for target in _targets(count)]  # type: ignore[attr-defined]


def _uv_map(frame: int) -> texture_pb2.SampleNeuralTextureRequest:
    uv = np.random.default_rng(frame).uniform(-0.2, 1.0, (20, 30, 2)).astype(np.float32)
    return texture_pb2.SampleNeuralTextureRequest(uv=texture_pb2.UvMap(frame_index=frame, uv=to_tensor(uv)))


def _sound() -> list[Message]:
    noise = np.random.default_rng(1).normal(0.0, 0.1, 3200).astype("<f4")
    config = audio_pb2.ExtractFeaturesConfig(sample_rate_hz=RATE_HZ, channels=1, timeline=PAL_TIMES, kinds=[1, 2, 3, 4])
    chunks = [audio_pb2.AudioChunk(first_sample=at, pcm_f32=noise[at : at + 1600].tobytes()) for at in (0, 1600)]
    return [audio_pb2.ExtractFeaturesRequest(config=config), *(audio_pb2.ExtractFeaturesRequest(chunk=chunk) for chunk in chunks)]


def _live(**more: Any) -> list[Message]:
    noise = np.random.default_rng(1).normal(0.0, 0.1, 1280).astype("<f4")
    config = gateway_pb2.LiveConfig(actor=f"actors/{ACTOR}", sample_rate_hz=RATE_HZ, channels=1, **more)
    sounds = [gateway_pb2.LiveAudio(first_sample=at, pcm_f32=noise[at : at + 640].tobytes()) for at in (0, 640)]
    return [gateway_pb2.LiveRequest(config=config), *(gateway_pb2.LiveRequest(audio=sound) for sound in sounds)]


def _tracking(model: str = "") -> face_pb2.TrackRequest:
    return face_pb2.TrackRequest(config=face_pb2.TrackConfig(max_faces=1, smoothing_half_width=0, morphable_model=model))


def _pictures() -> list[Message]:
    picture = np.ascontiguousarray(astronaut()[:320:2, 60:400:2])
    return [_tracking(), *(picture_to_proto(index, np.roll(picture, index, axis=1)) for index in range(2))]


def _tracked(call: Call) -> list[Message]:
    pictures = _pictures()
    (answer, *_) = call("face", "/dubstage.face.v1.FaceService/Track", pictures)
    face = answer.frames[0].faces[0]  # type: ignore[attr-defined]
    frame = face_pb2.FitIdentityFrame(image=pictures[1].frame.image, face=face)  # type: ignore[attr-defined]
    return [face_pb2.FitIdentityRequest(config=face_pb2.FitIdentityConfig()), face_pb2.FitIdentityRequest(frame=frame)]


def _resumed(call: Call) -> list[Message]:
    """A stream that goes on from the state of another stream."""
    config, *pictures = _pictures()
    config.config.smoothing_half_width, config.config.state_every = 1, 1  # type: ignore[attr-defined]
    (answer, *_) = call("face", "/dubstage.face.v1.FaceService/Track", [config, *pictures])
    config.config.resume.CopyFrom(answer.state)  # type: ignore[attr-defined]
    last = face_pb2.TrackRequest()
    last.CopyFrom(pictures[1])
    last.frame.frame_index += 1
    return [config, pictures[1], last]


def _path(bank: common_pb2.ArtefactRef) -> list[Message]:
    config = texture_pb2.SelectInsidesRequest(config=texture_pb2.SelectInsidesConfig(bank=bank))
    return [config, *(texture_pb2.SelectInsidesRequest(frame=frame) for frame in _target_frames(3))]


def _path_that_goes_on(call: Call, bank: common_pb2.ArtefactRef) -> list[Message]:
    """A path that begins with the answer of an earlier path."""
    config, first, *rest = _path(bank)
    (answer, *_) = call("texture", "/dubstage.texture.v1.TextureService/SelectInsides", [config, first, *rest])
    first.frame.context_only = True  # type: ignore[attr-defined]
    first.frame.inside_frame_index = answer.bank_frame_index  # type: ignore[attr-defined]
    return [config, first, *rest]


def _heard(frames: int) -> SpeechFeatures:
    """Speech with every tensor that a predictor hears."""
    return with_states(with_identity_removed(random_features(frames)), "speech_states", "speech_states_live")


def _style(method: str) -> motion_pb2.EncodeStyleRequest:
    request = head_request(50)
    request.method = method
    return request


def _motion_config(method: str, style: common_pb2.ArtefactRef) -> motion_pb2.PredictMotionRequest:
    config = motion_pb2.PredictMotionConfig(method=method, style=style, feature_rate=PAL, output_timeline=PAL_TIMES)
    return motion_pb2.PredictMotionRequest(config=config)


def _bank() -> list[Message]:
    picture = np.random.default_rng(2).integers(0, 255, (160, 160, 3)).astype(np.uint8)
    config = texture_pb2.BuildBankRequest(config=texture_pb2.BuildBankConfig())
    return [config, *(bank_frame_to_proto(BankFrame(n, np.roll(picture, n, 0), to_frame(_head(n), POSE), POSE)) for n in range(6))]


def _head(frame: int) -> Any:
    opened = HEAD.copy()
    lower = [index for index in MOUTH_AREA if HEAD[index, 1] > 0]
    opened[lower, 1] += 5 + 5 * np.sin(0.8 * frame)
    return opened


def _target_frames(count: int) -> list[texture_pb2.TargetFrame]:
    return [
        texture_pb2.TargetFrame(
            frame_index=number,
            motion=motion_pb2.MotionFrame(frame_index=number, mouth_landmarks=to_tensor(_head(number + 9)[list(MOUTH_AREA)])),
            pose=pose_to_proto(POSE),
        )
        for number in range(count)
    ]


def _targets(count: int) -> list[Message]:
    return [texture_pb2.RetrieveWarpRequest(frame=frame) for frame in _target_frames(count)]


def _turn(number: int) -> texture_pb2.RotatePortraitRequest:
    frame = texture_pb2.PortraitFrame(frame_index=number, pose=pose_to_proto(POSE), blink=0.5)
    return texture_pb2.RotatePortraitRequest(frame=frame)


def _selection() -> texture_pb2.SelectFramesRequest:
    motion = np.repeat([0.0, 1.0, 0.0], 20).astype(np.float32)
    silent = np.repeat([True, False, True], [10, 20, 10])
    arrays = {"head_motion": motion, "blink": np.zeros(60, np.bool_), "silent": silent}
    return texture_pb2.SelectFramesRequest(**{name: to_tensor(array) for name, array in arrays.items()})


def _matching() -> texture_pb2.MatchBackgroundsRequest:
    poses = {"footage_poses": to_tensor(head_poses(120)), "predicted_poses": to_tensor(head_poses(30, seed=6))}
    return texture_pb2.MatchBackgroundsRequest(usable=to_tensor(np.ones(120, np.bool_)), shot_cuts=[70], **poses)


def _boxes(count: int) -> list[Message]:
    picture = to_image(np.random.default_rng(3).integers(0, 255, (160, 160, 3)).astype(np.uint8))
    mask = to_image(np.full((160, 160), 255, np.uint8))
    points = to_tensor(np.full((59, 2), 80.0, np.float32))
    shown = {"background": picture, "texture": picture, "mask": mask, "box_landmarks": points}
    return [render_pb2.RenderRequest(frame=render_pb2.RenderFrame(frame_index=n, **shown)) for n in range(count)]
