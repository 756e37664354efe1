"""The registry of predictors behind a real server: unknown names, ListModels, and a predictor of the test's own."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import grpc.aio
import numpy as np
import pytest

from dubstage.audio.v1 import audio_pb2
from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2 as pb
from services.common.array_types import Float32
from services.common.methods import LIVE_LOOK_AHEAD, PREDICTORS, SHARED_FEATURES, PredictorSpec
from services.common.wire.convert import from_tensor
from services.motion import predictors
from services.motion.constraints import CONTEXT_PAST, ConstraintConfig
from services.motion.features import silence
from services.motion.lag import LagModel
from services.motion.models import WEIGHTS, MotionModels
from services.motion.person_predictor import PersonPredictor
from services.motion.predictor import Predictor, StyleStep, encode_mouths
from services.motion.style import Style
from services.motion.types import NUM_POINTS, Footage, Motion, SpeechFeatures
from tests.contract.motion.calls import heard, seen, style_request, talking
from tests.refusals import rpc_refused
from tests.unit.motion.synthesised import random_features

FRAMES = 60
RATE = common_pb2.Rational(num=25, den=1)
MFCC = np.random.default_rng(0).standard_normal((FRAMES, 4, 40)).astype(np.float32)


class ToyPredictor(PersonPredictor):
    """Mouths that are the rest mouth, moved to the right by the first MFCC and by the style's array `toy_shift`."""

    def __init__(self, models: MotionModels, style: Style, constraints: ConstraintConfig | None) -> None:
        super().__init__(style, constraints, np.zeros((CONTEXT_PAST, 4, 1), np.float32), 3)

    def _silence(self, num_frames: int) -> SpeechFeatures:
        return replace(silence(num_frames), extra={"mfcc": np.zeros((num_frames, 4, 40), np.float32)})

    def _inputs_of(self, features: SpeechFeatures) -> Float32:
        return features.extra["mfcc"][..., :1]

    def _predict(self, first: int, heard: Float32, speaking: Float32, voiced: Float32) -> Motion:
        found = np.repeat(self._style.rest_mouth[None], len(speaking), axis=0)
        found[..., 0] += heard[CONTEXT_PAST : CONTEXT_PAST + len(speaking), :1, 0] + self._style.added["toy_shift"]
        return Motion(first, found, speaking)


def toy_style(footage: Footage, models: MotionModels) -> Style:
    return encode_mouths(footage, models).adding(toy_shift=np.array([2.0], np.float32))


def toy_personalize(style: Style, features: SpeechFeatures, footage: Footage, models: MotionModels) -> Iterator[StyleStep]:
    yield StyleStep(1, 2, 1.0, None)
    yield StyleStep(2, 2, 0.5, style.adding(toy_shift=np.array([float(len(features))], np.float32)))


TOY = Predictor(
    spec=PredictorSpec(name="toy", package="toy", features=(*SHARED_FEATURES, audio_pb2.FEATURE_KIND_MFCC), frames_ahead=3),
    version=lambda _: "toy-1",
    open=ToyPredictor,
    personalize=toy_personalize,
    style_arrays={"toy_shift": lambda _: (1,)},
    encode_style=toy_style,
)


def register_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the toy's row to the table, and a module to the packages of predictors."""
    module = ModuleType(f"{predictors.__name__}.toy.predictor")
    monkeypatch.setattr(module, "PREDICTOR", TOY, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(PREDICTORS, "toy", TOY.spec)


def block(frames: int = FRAMES) -> audio_pb2.AudioFeatureBlock:
    message = heard(random_features(frames))
    message.mfcc.CopyFrom(to_tensor(MFCC[:frames]))
    return message


def personalize_request(method: str, style: common_pb2.ArtefactRef) -> pb.PersonalizeRequest:
    return pb.PersonalizeRequest(method=method, style=style, features=block(), **seen(talking(FRAMES)))


async def personalized(stub, method: str, style: common_pb2.ArtefactRef) -> list[pb.PersonalizeResponse]:
    return [step async for step in stub.Personalize(personalize_request(method, style))]


async def motion(stub, method: str, style: common_pb2.ArtefactRef) -> list[pb.MotionFrame]:
    timeline = common_pb2.Timeline(frame_rate=RATE)
    config = pb.PredictMotionConfig(method=method, style=style, feature_rate=RATE, output_timeline=timeline)
    requests = [pb.PredictMotionRequest(config=config), pb.PredictMotionRequest(features=block(9))]
    return [frame async for reply in stub.PredictMotion(requests) for frame in reply.frames]


@pytest.mark.parametrize("name", ["", "unknown", "Ugc", "ugc "])
@pytest.mark.parametrize("rpc", ["PredictMotion", "EncodeStyle", "Personalize"])
async def test_unknown_predictor_lists_names(stub, rpc: str, name: str) -> None:
    """A name that is not there is refused with the names that are."""
    style = (await stub.EncodeStyle(style_request(FRAMES, method="ugc"))).style
    calls = {
        "PredictMotion": lambda: motion(stub, name, style),
        "EncodeStyle": lambda: stub.EncodeStyle(style_request(FRAMES, method=name)),
        "Personalize": lambda: personalized(stub, name, style),
    }
    with rpc_refused(match="method") as caught:
        await calls[rpc]()
    for known in PREDICTORS:
        assert known in (caught.value.details() or "")


async def test_models_are_listed_with_their_needs_and_abilities(stub) -> None:
    answer = await stub.ListModels(pb.ListModelsRequest())
    assert answer.shared_version.endswith(f"-{LagModel.read(WEIGHTS).version}")
    found = {model.name: model for model in answer.models}
    assert list(found) == list(PREDICTORS)
    shared = [audio_pb2.FEATURE_KIND_MEL, audio_pb2.FEATURE_KIND_POSTERIORGRAM]
    for name in ("ugc", "headpose", "hetero"):
        assert list(found[name].features) == shared
    for name in ("dubstage", "portrait", "everyone"):
        assert list(found[name].features) == [*shared, audio_pb2.FEATURE_KIND_SPEECH_STATES]
    assert list(found["everybody"].features) == [*shared, audio_pb2.FEATURE_KIND_IDENTITY_REMOVED]
    assert list(found["dubstage_live"].features) == [*shared, audio_pb2.FEATURE_KIND_SPEECH_STATES_LIVE]
    choices = {name: list(model.look_ahead_choices) for name, model in found.items() if model.look_ahead_choices}
    assert choices == {"dubstage_live": [0, 1, 2, 3]}
    assert {name: model.frames_ahead for name, model in found.items()} == {
        "dubstage": 4, "dubstage_live": LIVE_LOOK_AHEAD, "portrait": 4, "ugc": 2, "everybody": 4,
        "headpose": 2, "hetero": 5, "everyone": 10,
    }  # fmt: skip
    assert {name for name, model in found.items() if model.moves_head} == {"headpose", "portrait"}
    assert len({model.version for model in found.values()}) == len(found)


async def test_a_predictor_that_is_registered_is_served(stub, monkeypatch: pytest.MonkeyPatch) -> None:
    register_toy(monkeypatch)
    (listed,) = [model for model in (await stub.ListModels(pb.ListModelsRequest())).models if model.name == "toy"]
    assert listed.version == "toy-1"
    assert audio_pb2.FEATURE_KIND_MFCC in listed.features
    style = (await stub.EncodeStyle(style_request(FRAMES, method="toy"))).style
    *_, last = await personalized(stub, "toy", style)
    own, refined = [
        np.stack(
            [from_tensor(f.mouth_landmarks, "f", dtype=np.float32, shape=(NUM_POINTS, 3)) for f in await motion(stub, "toy", ref)]
        )
        for ref in (style, last.style)
    ]
    assert own.shape == (9, NUM_POINTS, 3)
    assert (refined[..., 0] - own[..., 0]).max() == pytest.approx(FRAMES - 2.0, abs=0.1)
    # The other predictors go on with a style that the toy has refined.
    assert len(await motion(stub, "ugc", last.style)) == 9


async def test_a_predictor_that_is_registered_needs_its_features(stub, monkeypatch) -> None:
    register_toy(monkeypatch)
    request = personalize_request("toy", (await stub.EncodeStyle(style_request(FRAMES, method="toy"))).style)
    request.features.ClearField("mfcc")
    with pytest.raises(grpc.aio.AioRpcError, match=r"features\.mfcc"):
        _ = [step async for step in stub.Personalize(request)]
