"""Request builders: plain values and arrays as the contracts' messages."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dubstage.audio.v1 import audio_pb2
from dubstage.client import (
    audio,
    batch,
    explicit_timeline,
    face,
    from_tensor,
    gateway,
    head_pose,
    motion,
    render,
    texture,
    to_image,
    to_tensor,
)
from dubstage.client.dub import DubOptions
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from dubstage.gateway.v1 import consent_pb2, dub_pb2, gateway_pb2
from dubstage.motion.v1 import motion_pb2
from dubstage.render.v1 import render_pb2
from dubstage.texture.v1 import texture_pb2

PAL = common_pb2.Rational(num=25, den=1)
REF = common_pb2.ArtefactRef(uri="file:///a", sha256="ab" * 32, size_bytes=9)
POSE = head_pose(2.0, np.eye(3), [3.0, 4.0, 0.0])
PICTURE = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
MOUTH = np.arange(177, dtype=np.float32).reshape(59, 3)
MEL = np.zeros((3, 4, 80), np.float32)
SPEECH = np.array([0, 0.5, 1], np.float32)
BLOCK = audio_pb2.AudioFeatureBlock(first_frame=7, num_frames=3, mel=to_tensor(MEL), speech_probability=to_tensor(SPEECH))
FEATURES = audio.Features(7, {"mel": MEL}, SPEECH)
DUB_FILES = {
    "footage_uri": "footage",
    "speech_uri": "speech",
    "output_uri": "output",
    "reference_uri": "reference",
    "mix_uri": "mix",
    "actor": "actor_id",
    "skip_personalization": "personalize",
}
"""Fields of DubSpec -> options of a dub with other names."""
FACE_FIELDS = {"face_id", "point", "box", "face_rule"}
"""Fields that the argument `face` stands for."""


def test_audio_in_pieces_is_numbered_and_configured() -> None:
    sound = np.linspace(-1, 1, 10, dtype=np.float32)
    requests = list(audio.extract_features.requests(sample_rate_hz=16000, num_frames=4).of(audio.pieces(sound, 4)))
    kinds = [audio_pb2.FEATURE_KIND_MEL, audio_pb2.FEATURE_KIND_POSTERIORGRAM]
    timeline = common_pb2.Timeline(frame_rate=PAL)
    config = audio_pb2.ExtractFeaturesConfig(sample_rate_hz=16000, channels=1, timeline=timeline, kinds=kinds, num_frames=4)
    assert requests[0].config == config
    assert [request.chunk.first_sample for request in requests[1:]] == [0, 4, 8]
    assert b"".join(request.chunk.pcm_f32 for request in requests[1:]) == sound.tobytes()


def test_two_channels_are_interleaved() -> None:
    sound = np.arange(10, dtype=np.float64).reshape(5, 2)
    made = audio.extract_features.requests(sample_rate_hz=16000, channels=2)
    requests = [made.item(sound[:3].astype(np.float32)), made.item(sound[3:].astype(np.float32))]
    assert [request.chunk.first_sample for request in requests] == [0, 3]
    assert requests[1].chunk.pcm_f32 == np.array([6, 7, 8, 9], "<f4").tobytes()


@pytest.mark.parametrize(
    ("piece", "channels"),
    [(np.float32(0.5), 1), (np.zeros(4, np.float32), 2), (np.zeros((4, 2), np.float32), 1), (np.zeros((4, 2), np.float32), 4)],
)
def test_wrong_sound_shape_refused(piece: Any, channels: int) -> None:
    """A sound that was not cut or has other channels is refused."""
    for made in (
        audio.extract_features.requests(sample_rate_hz=16000, channels=channels),
        gateway.live.requests(actor_id="ann", sample_rate_hz=16000, channels=channels),
    ):
        with pytest.raises(TypeError, match=rf"{channels} channels .*audio\.pieces"):
            made.item(np.asarray(piece))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.complex64])
def test_integer_sound_refused(dtype: type) -> None:
    """A sound that is not of floats is refused."""
    for made in (
        audio.extract_features.requests(sample_rate_hz=16000),
        gateway.live.requests(actor_id="ann", sample_rate_hz=16000),
    ):
        with pytest.raises(TypeError, match=rf"float32 in \[-1, 1\], not {dtype.__name__}: divide samples of int16 by 32768"):
            made.item(np.zeros(4, dtype))


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_any_float_sent_as_float32(dtype: str) -> None:
    """A sound of any floats is sent as float32."""
    request = gateway.live.requests(actor_id="ann", sample_rate_hz=16000).item(np.array([0.5, -1], dtype))
    assert request.audio.pcm_f32 == np.array([0.5, -1], "<f4").tobytes()


def test_features_become_a_block() -> None:
    assert audio.as_block(FEATURES) == BLOCK
    assert audio.as_block(BLOCK) is BLOCK
    assert audio.feature_block({"mel": MEL}) == audio_pb2.AudioFeatureBlock(num_frames=3, mel=to_tensor(MEL))


def test_blocks_are_joined() -> None:
    whole = audio.join([FEATURES, FEATURES])
    assert (whole.first_frame, len(whole), whole["mel"].shape) == (7, 6, (6, 4, 80))
    with pytest.raises(KeyError, match="mel"):
        whole["mfcc"]
    with pytest.raises(ValueError, match="no features"):
        audio.join([])


def test_frames_are_numbered_and_configured() -> None:
    requests = list(
        face.track.requests(max_faces=2, smoothing_half_width=0, first_frame=5, identity=REF).of([PICTURE, to_image(PICTURE)])
    )
    config = face_pb2.TrackConfig(timeline=common_pb2.Timeline(frame_rate=PAL), max_faces=2, smoothing_half_width=0, identity=REF)
    assert requests[0] == face_pb2.TrackRequest(config=config)
    assert [request.frame for request in requests[1:]] == [
        face_pb2.FrameChunk(frame_index=index, image=to_image(PICTURE)) for index in (5, 6)
    ]
    assert not face.track.requests().config.config.HasField("smoothing_half_width")


def test_unset_field_uses_contract_default() -> None:
    """The default of an unset field is the contracts."""
    assert face.fit_identity.requests().config == face_pb2.FitIdentityRequest(config=face_pb2.FitIdentityConfig())
    assert texture.build_bank.requests().config == texture_pb2.BuildBankRequest(config=texture_pb2.BuildBankConfig())


def test_a_face_goes_back_as_it_came() -> None:
    message = face_pb2.FaceTrack(face_id=3, reason=common_pb2.FRAME_REASON_DUBBED)
    request = face.fit_identity.requests().item((PICTURE, message))
    assert request.frame == face_pb2.FitIdentityFrame(image=to_image(PICTURE), face=message)


def test_motion_requests() -> None:
    mouths, usable = np.zeros((2, 59, 3), np.float32), [True, False]
    style = motion.encode_style.request(method="toy", mouth_landmarks=mouths, usable=usable, head_poses=np.zeros((2, 6)))
    assert style == motion_pb2.EncodeStyleRequest(
        method="toy",
        mouth_landmarks=to_tensor(mouths),
        usable=to_tensor(np.array(usable)),
        frame_rate=PAL,
        head_poses=to_tensor(np.zeros((2, 6))),
    )
    lag = motion.estimate_lag.request(features=FEATURES, mouth_landmarks=to_tensor(mouths), usable=usable)
    assert lag == motion_pb2.EstimateLagRequest(
        features=BLOCK, mouth_landmarks=to_tensor(mouths), usable=to_tensor(np.array(usable))
    )
    adapted = motion.personalize.request(method="toy", style=REF, features=BLOCK, mouth_landmarks=mouths, usable=usable)
    assert (adapted.style, adapted.HasField("head_poses")) == (REF, False)
    requests = list(motion.predict_motion.requests(method="toy", style=REF, timeline=Fraction(30000, 1001)).of([FEATURES]))
    assert requests[0].config == motion_pb2.PredictMotionConfig(
        method="toy",
        style=REF,
        feature_rate=PAL,
        output_timeline=common_pb2.Timeline(frame_rate=common_pb2.Rational(num=30000, den=1001)),
    )
    assert requests[1].features == BLOCK


def test_arrays_take_the_contracts_type() -> None:
    request = motion.encode_style.request(method="toy", mouth_landmarks=np.ones((1, 59, 3)), usable=np.ones(1, np.uint8))
    assert from_tensor(request.mouth_landmarks).dtype == np.float32
    assert from_tensor(request.usable).dtype == np.bool_


def test_floats_are_no_flags() -> None:
    with pytest.raises(TypeError, match=r"flags are bool, not float64: compare .* threshold"):
        texture.select_frames.request(head_motion=[0.5, 0.5], blink=[0.01, 0.9], silent=[True, False])
    nothing = texture.select_frames.request(head_motion=[], blink=[], silent=[])
    assert from_tensor(nothing.blink).dtype == np.bool_


def test_texture_requests() -> None:
    bank = texture.build_bank.requests(max_frames=9).item(texture.BankFrame(4, PICTURE, np.zeros((478, 3)), POSE))
    landmarks = to_tensor(np.zeros((478, 3), np.float32))
    assert bank.frame == texture_pb2.BankFrame(frame_index=4, box=to_image(PICTURE), landmarks=landmarks, pose=POSE)
    made = texture.retrieve_warp.requests(bank=REF)
    assert made.config.config == texture_pb2.RetrieveWarpConfig(bank=REF, mode=texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK)
    wanted = motion.motion_frame(8, MOUTH)
    target = made.item(texture.Target(8, wanted, POSE, context_only=True))
    assert target.frame == texture_pb2.TargetFrame(frame_index=8, motion=wanted, pose=POSE, context_only=True)
    assert texture.retrieve_warp.requests(mode=4).config.config.mode == texture_pb2.WARP_MODE_MEAN_MOUTH
    inside = texture.select_insides.requests(bank=REF)
    assert inside.config.config == texture_pb2.SelectInsidesConfig(bank=REF)
    assert inside.item(texture.Target(8, wanted, POSE)).frame == texture_pb2.TargetFrame(frame_index=8, motion=wanted, pose=POSE)
    named = made.item(texture.Target(8, wanted, POSE, inside_frame_index=0)).frame
    assert named.HasField("inside_frame_index")
    chosen = texture.select_frames.request(head_motion=[0.5], blink=[True], silent=[False])
    assert chosen == texture_pb2.SelectFramesRequest(
        head_motion=to_tensor(np.float32([0.5])), blink=to_tensor(np.array([True])), silent=to_tensor(np.array([False]))
    )
    matched = texture.match_backgrounds.request(
        footage_poses=np.zeros((2, 6)), usable=[True, True], predicted_poses=np.zeros((3, 6)), shot_cuts=[1]
    )
    assert (list(matched.shot_cuts), list(matched.predicted_poses.shape)) == ([1], [3, 6])
    portrait = texture.rotate_portrait.requests(portrait=PICTURE, landmarks=np.zeros((478, 3)), pose=POSE, identity=REF)
    assert portrait.config.config == texture_pb2.RotatePortraitConfig(
        portrait=to_image(PICTURE), landmarks=landmarks, pose=POSE, identity=REF
    )
    assert portrait.item(texture.PortraitFrame(2, POSE, 0.5)).frame == texture_pb2.PortraitFrame(
        frame_index=2, pose=POSE, blink=0.5
    )
    features = texture.sample_neural_texture.requests(texture=REF)
    assert features.config.config == texture_pb2.SampleNeuralTextureConfig(texture=REF)
    sampled = features.item((3, np.zeros((2, 2, 2))))
    assert sampled.uv == texture_pb2.UvMap(frame_index=3, uv=to_tensor(np.zeros((2, 2, 2), np.float32)))
    wished = texture.sample_neural_texture.requests(texture=REF, identity=REF)
    assert wished.config.config.identity == REF
    assert wished.item(texture.Target(8, wanted, POSE, context_only=True)).target == target.frame


def test_a_bank_frame_may_have_speech_and_expression() -> None:
    frame = texture.BankFrame(
        4, PICTURE, np.zeros((478, 3)), POSE, speech=np.ones((20, 40)), expression=[0.5, -1.0], spoken_mouth=MOUTH
    )
    message = texture.build_bank.requests().item(frame).frame
    assert message.speech == to_tensor(np.ones((20, 40), np.float32))
    assert message.expression == to_tensor(np.float32([0.5, -1.0]))
    assert message.spoken_mouth == to_tensor(MOUTH)


def test_unknown_mode_lists_modes() -> None:
    """A mode that is not there names the modes."""
    with pytest.raises(ValueError, match=r"no 'fast'; there are: retrieval_only, thin_plate_spline"):
        texture.retrieve_warp.requests(mode="fast")


def test_render_requests() -> None:
    made = render.render.requests(model="toy", actor=REF)
    assert made.config == render_pb2.RenderRequest(config=render_pb2.RenderConfig(model="toy", actor=REF))
    mask = PICTURE[..., 0]
    frame = render.Conditions(frame_index=1, background=PICTURE, mask=mask, box_landmarks=MOUTH[:, :2], texture=PICTURE)
    assert made.item(frame).frame == render_pb2.RenderFrame(
        frame_index=1,
        background=to_image(PICTURE),
        texture=to_image(PICTURE),
        mask=to_image(mask),
        box_landmarks=to_tensor(np.ascontiguousarray(MOUTH[:, :2])),
    )
    assert render.render.requests(model="toy", reference=PICTURE).config.config.reference == to_image(PICTURE)
    plain = render.personalize.request(model="toy", bank=REF, num_steps=5, seed=6, skip_training=True)
    assert plain == render_pb2.PersonalizeRequest(model="toy", bank=REF, num_steps=5, seed=6, skip_training=True)


def test_results_stand_for_their_artefacts() -> None:
    empty = np.zeros(0, np.float32)
    bank = texture.Bank(REF, 3, empty, empty, empty, empty)
    assert render.personalize.request(model="toy", bank=bank).bank == REF


def test_gateway_requests() -> None:
    consent = {"subject": "Ann", "scope": "this video"}
    enrolment = gateway.enrol.request(footage="video.mp4", actor_id="ann", consent=consent, personalize=False)
    assert enrolment == gateway_pb2.CreateActorRequest(
        actor_id="ann",
        footage_uri="video.mp4",
        consent=consent_pb2.ConsentRecord(subject="Ann", scope="this video"),
        skip_personalization=True,
    )
    dub = gateway.dub.request(footage="video.mp4", speech="speech.wav", output="out.mp4", fit="bounce", codec="prores")
    assert dub == gateway_pb2.CreateDubRequest(
        dub=dub_pb2.DubSpec(
            footage_uri="video.mp4",
            speech_uri="speech.wav",
            output_uri="out.mp4",
            fit=dub_pb2.FIT_BOUNCE,
            codec=dub_pb2.VIDEO_CODEC_PRORES,
        )
    )
    assert not dub.dub.HasField("expressiveness")
    assert gateway.dub.request(footage="video.mp4", output="out.mp4", expressiveness=0.5).dub.expressiveness == 0.5
    for made_of in (
        gateway.dub.request(footage="video.mp4", output="out.mp4", label="AI", label_position="top-left"),
        batch.row("a", footage="video.mp4", output="out.mp4", label="AI", label_position="top-left"),
    ):
        assert (made_of.dub.label, made_of.dub.label_position) == ("AI", dub_pb2.LABEL_POSITION_TOP_LEFT)
    for made_of in (
        gateway.dub.request(footage="video.mp4", output="out.mp4", encode_quality="small"),
        batch.row("a", footage="video.mp4", output="out.mp4", encode_quality="small"),
    ):
        assert made_of.dub.encode_quality == "small"
    assert batch.row("a", footage="video.mp4", output="out.mp4", expressiveness=1.5).dub.expressiveness == 1.5
    assert gateway.live.requests(actor_id="ann", sample_rate_hz=16000, expressiveness=1.5).config.config.expressiveness == 1.5
    assert motion.predict_motion.requests(method="toy", style=REF, expressiveness=1.5).config.config.expressiveness == 1.5
    for ahead in (0, 3):
        live = gateway.live.requests(actor_id="ann", sample_rate_hz=16000, look_ahead_frames=ahead).config.config
        predicted = motion.predict_motion.requests(method="toy", style=REF, look_ahead_frames=ahead).config.config
        assert (live.look_ahead_frames, predicted.look_ahead_frames) == (ahead, ahead)
    made = gateway.live.requests(actor_id="ann", sample_rate_hz=16000, channels=2)
    assert not made.config.config.HasField("look_ahead_frames")
    sent = [made.item(np.zeros((5, 2), np.float32)), made.item(np.zeros((5, 2), np.float32))]
    assert [request.audio.first_sample for request in sent] == [0, 5]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"speech": "a.wav", "start_time": 1.5}, "start_time=1.5"),
        ({"speech": "a.wav", "speech_uri": "b.wav"}, "speech and speech_uri are one field"),
        ({"speech": "a.wav", "face_rule": "FACE_RULE_LEFT"}, "no 'FACE_RULE_LEFT'; there are: largest"),
    ],
)
def test_wrong_lines_are_refused(line: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        gateway.dub.request(footage="a", output="b", lines=[line])


def test_names_of_values_have_prefixes_or_not() -> None:
    lines = [{"speech": "a.wav", "face_rule": name} for name in ("largest", "FACE_RULE_LARGEST", dub_pb2.FACE_RULE_LARGEST)]
    request = gateway.dub.request(footage="a", output="b", lines=lines)
    assert {line.face_rule for line in request.dub.lines} == {dub_pb2.FACE_RULE_LARGEST}


def test_faces_and_names() -> None:
    """A face is one of four fields, and names of resources may be given with their collection."""
    box = dub_pb2.FaceBox(left=1, top=2, width=3, height=4)
    wanted = {
        "3": {"face_id": 3},
        "320, 180.5": {"point": dub_pb2.FacePoint(x=320, y=180.5)},
        "speaker": {"face_rule": dub_pb2.FACE_RULE_SPEAKER},
    }
    for text, fields in wanted.items():
        assert gateway.enrol.request(footage="video.mp4", face=text) == gateway_pb2.CreateActorRequest(
            footage_uri="video.mp4", **fields
        )
    assert gateway.enrol.request(footage="video.mp4", face=box).box == box
    with pytest.raises(ValueError, match="face takes largest, speaker"):
        gateway.enrol.request(footage="video.mp4", face="left")
    assert (
        gateway.get_actor.request("ann")
        == gateway.get_actor.request("actors/ann")
        == gateway_pb2.GetActorRequest(name="actors/ann")
    )
    line = gateway.dub.request(footage="a", output="b", lines=[{"speech_uri": "c", "actor_id": "ann"}]).dub.lines[0]
    assert line == dub_pb2.LineSpec(speech_uri="c", actor="actors/ann")
    assert gateway.dub.request(footage="a", output="b", face=0).dub.HasField("face_id"), "0 is a face, and no missing choice"


def test_lines_take_names_of_options() -> None:
    """A line's fields have the names of the options of a dub, or those of the contract."""
    for given, sent in (
        ({"speech": "c", "face": "1"}, {"speech_uri": "c", "face_id": 1}),
        ({"speech": "c", "face": 0, "consent": "d.json"}, {"speech_uri": "c", "face_id": 0, "consent_uri": "d.json"}),
        ({"speech_uri": "c", "face": "speaker"}, {"speech_uri": "c", "face_rule": dub_pb2.FACE_RULE_SPEAKER}),
        ({"speech_uri": "c", "face_rule": dub_pb2.FACE_RULE_LARGEST}, {"speech_uri": "c", "face_rule": dub_pb2.FACE_RULE_LARGEST}),
    ):
        assert gateway.dub.request(footage="a", output="b", lines=[given]).dub.lines[0] == dub_pb2.LineSpec(**sent)


def test_wrong_options_are_named() -> None:
    """An option that a dub does not have, or a value of another kind, is answered with its name and what is expected."""
    assert gateway.dub.request(footage="a", output="b", encode_quality=18).dub.encode_quality == "18"
    for given, said in (
        ({"lines": [{"speach": "c"}]}, "a line has no field 'speach': did you mean speech"),
        ({"consent": {"person": "ada"}}, "a consent record has no field 'person': there are subject"),
        ({"duck_db": "6"}, "duck_db='6'"),
        ({"keep_audio": "no"}, "keep_audio='no'"),
        ({"audio": "c"}, "has no argument 'audio': did you mean speech"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            gateway.dub.request(footage="a", output="b", **given)


def test_builders_cover_every_field() -> None:
    """Every field of a dub and an enrolment can be said. Consent files are said as consent, and servers dub no image sequences."""
    left_out = {"consent_uri", "reference_consent_uri", "sequence"}
    spec = {DUB_FILES.get(field.name, field.name) for field in dub_pb2.DubSpec.DESCRIPTOR.fields} - FACE_FIELDS - left_out
    assert spec | {"face"} == {"footage", "output", *DubOptions.__annotations__}
    fields = {field.name for field in gateway_pb2.CreateActorRequest.DESCRIPTOR.fields} - FACE_FIELDS
    fields = {field.removesuffix("_uri").replace("_uris", "") for field in fields - {"skip_personalization"}}
    fields |= {"face", "personalize"}
    assert set(gateway.enrol.request.__annotations__) - {"return"} == fields  # type: ignore[attr-defined]


def test_times_and_poses() -> None:
    varying = explicit_timeline([0, 3, 7], Fraction(1, 90000))
    assert varying == common_pb2.Timeline(
        explicit=common_pb2.FrameTimes(time_base=common_pb2.Rational(num=1, den=90000), pts=[0, 3, 7])
    )
    assert face.track.requests(timeline=varying).config.config.timeline == varying
    assert common_pb2.HeadPose(scale=2, rotation=[1, 0, 0, 0, 1, 0, 0, 0, 1], translation=[3, 4, 0]) == POSE
