"""Tests of the requests that the motion stage refuses over the wire, and of the fields that it names."""

from dataclasses import replace

import numpy as np
import pytest

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2 as pb
from services.common.methods import PREDICTORS
from services.motion.convert import FeatureBlock, PredictConfig
from tests.contract.motion.calls import PAL, drained, encoded, heard, seen, stream, style_request, talking
from tests.contract.motion.requests import block_to_proto, config_to_proto
from tests.refusals import rpc_refused
from tests.unit.motion.synthesised import random_features, with_states


async def test_missing_features_and_style(stub) -> None:
    """Features that the predictor needs are named, and a style that is not there is not found."""
    config = config_to_proto(PredictConfig("everybody", await encoded(stub), PAL, 0))
    with rpc_refused("features.identity_removed"):
        await drained(stub.PredictMotion(stream(config, random_features(9))))
    ref = await encoded(stub)
    lost = replace(ref, uri=ref.uri.replace(ref.sha256, "0" * 64).replace(f"/{ref.sha256[:2]}/", "/00/"), sha256="0" * 64)
    config = config_to_proto(PredictConfig("ugc", lost, PAL, 0))
    with rpc_refused(code="NOT_FOUND"):
        await drained(stub.PredictMotion(stream(config, random_features(3))))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "unknown"),
        ("feature_rate", common_pb2.Rational(num=30, den=1)),
        ("num_frames", -1),
        ("style", None),
        ("expressiveness", 0.0),
        ("expressiveness", 1.6),
        ("expressiveness", float("nan")),
        ("look_ahead_frames", -1),
        ("look_ahead_frames", 4),
    ],
)
async def test_unusable_config_names_field(stub, field: str, value: object) -> None:
    request = config_to_proto(PredictConfig("ugc", await encoded(stub), PAL, 0))
    if field == "style":
        request.config.ClearField("style")
    elif field == "feature_rate":
        request.config.feature_rate.num = 30
    else:
        setattr(request.config, field, value)
    with rpc_refused(field):
        await drained(stub.PredictMotion(stream(request, random_features(3))))


@pytest.mark.parametrize("name", [name for name, row in PREDICTORS.items() if not row.look_ahead_choices])
async def test_look_ahead_without_choice_refused(stub, name: str) -> None:
    """A predictor without a choice of look-ahead refuses the field, and the error says why."""
    config = config_to_proto(PredictConfig(name, await encoded(stub), PAL, 0, look_ahead_frames=1))
    with rpc_refused(f"config.look_ahead_frames: the predictor {name} always needs {PREDICTORS[name].frames_ahead} frames ahead"):
        await drained(stub.PredictMotion(stream(config, random_features(3))))


@pytest.mark.parametrize("broken", ["nan", "shape", "missing", "range", "order"])
async def test_broken_features_are_refused(stub, broken: str) -> None:
    config = config_to_proto(PredictConfig("ugc", await encoded(stub), PAL, 0))
    block = block_to_proto(FeatureBlock(5 if broken == "order" else 0, random_features(3)))
    if broken == "nan":
        block.mel.CopyFrom(to_tensor(np.full((3, 4, 80), np.nan, np.float32)))
    if broken == "shape":
        block.mel.CopyFrom(to_tensor(np.zeros((3, 4, 79), np.float32)))
    if broken == "missing":
        block.ClearField("posteriorgram")
    if broken == "range":
        block.speech_probability.CopyFrom(to_tensor(np.full(3, 1.5, np.float32)))
    with rpc_refused("frame 5" if broken == "order" else "features"):
        await drained(stub.PredictMotion([config, pb.PredictMotionRequest(features=block)]))


async def test_unusable_footage_is_refused(stub) -> None:
    """Sound and picture have one length, and the picture has faces."""
    features = with_states(random_features(60), "speech_states")
    request = pb.EstimateLagRequest(features=heard(features), **seen(talking(50)))
    with rpc_refused("60", "50"):
        await stub.EstimateLag(request)
    request.features.ClearField("speech_states")
    with rpc_refused("features.speech_states"):
        await stub.EstimateLag(request)
    faceless = style_request()
    faceless.usable.CopyFrom(to_tensor(np.zeros(100, np.bool_)))
    with rpc_refused("25 usable frames", code="FAILED_PRECONDITION"):
        await stub.EncodeStyle(faceless)
