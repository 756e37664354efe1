"""The motion stage behind a real server: motion over the wire, styles, personalisation and lags."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2 as pb
from services.common.face.landmarks import mouth_opening
from services.common.methods import PREDICTORS
from services.common.server import call_messages
from services.common.server.bounds import check_bounds
from services.common.wire.convert import from_tensor, ref_from_proto, ref_to_proto
from services.motion import servicer
from services.motion.constraints import WHOLE
from services.motion.convert import PredictConfig, config_from_proto, footage_from_proto
from services.motion.features import silence
from services.motion.lag import peak_fraction
from services.motion.models import MotionModels
from services.motion.predictor import encode_mouths
from services.motion.predictors.dubstage.predictor import SpeechMapPredictor
from services.motion.predictors.everybody.predictor import EverybodyPredictor
from services.motion.predictors.ugc.predictor import UgcPredictor
from services.motion.speech_map import INPUT_WINDOWS, LIVE, InputWindow, SpeechMapModel
from services.motion.types import Footage, SpeechFeatures
from tests.contract.motion.calls import (
    PAL,
    computed,
    drained,
    encoded,
    heard,
    predicted,
    seen,
    stream,
    streamed,
    style_request,
    talking,
)
from tests.contract.motion.requests import config_to_proto, lag_from_proto, motion_from_proto
from tests.contract.personalising import personalised_at_once
from tests.unit.motion.synthesised import random_features, with_identity_removed, with_states


async def test_motion_wire_equals_algorithm(stub) -> None:
    features = random_features(30)
    config = config_to_proto(PredictConfig("ugc", await encoded(stub), PAL, 0))
    expected = np.concatenate([part.mouth_landmarks for part in computed(UgcPredictor, features)])
    np.testing.assert_array_equal(await predicted(stub, config, features), expected)


async def test_first_reply_comes_before_the_stream_is_closed(stub) -> None:
    config = config_to_proto(PredictConfig("ugc", await encoded(stub), PAL, 0))
    call = stub.PredictMotion()
    await call.write(config)
    await call.write(pb.PredictMotionRequest(features=heard(random_features(3))))
    reply = await call.read()
    assert isinstance(reply, pb.PredictMotionResponse)
    assert [frame.frame_index for frame in reply.frames] == [0]
    await call.done_writing()


async def test_everybody_wire_equals_algorithm(stub) -> None:
    features = with_states(with_identity_removed(random_features(30)), "speech_states")
    config = config_to_proto(PredictConfig("everybody", await encoded(stub), PAL, 0))
    parts = computed(EverybodyPredictor, features)
    for cut in (9, 30):
        got = [motion_from_proto(reply) async for reply in stub.PredictMotion(stream(config, features, cut))]
        for name in ("mouth_landmarks", "expression"):
            expected = b"".join(getattr(part, name).tobytes() for part in parts)
            assert b"".join(getattr(part, name).tobytes() for part in got) == expected


@pytest.mark.parametrize("input_window", INPUT_WINDOWS, ids=lambda input_window: input_window.name)
async def test_speech_map_wire_equals_algorithm(stub, input_window: InputWindow) -> None:
    features = with_states(random_features(30), input_window.feature)
    method, chosen = ("dubstage_live", input_window.ahead) if input_window.live else ("dubstage", None)
    config = config_to_proto(PredictConfig(method, await encoded(stub), PAL, 0, look_ahead_frames=chosen))
    models = MotionModels()
    style = encode_mouths(Footage(talking(), np.ones(100, np.bool_)), models)
    parts = streamed(SpeechMapPredictor(SpeechMapModel.of(models), input_window, models, style, None), features)
    expected = b"".join(part.mouth_landmarks.tobytes() for part in parts)
    for cut in (9, 30):
        got = [motion_from_proto(reply) async for reply in stub.PredictMotion(stream(config, features, cut))]
        assert b"".join(part.mouth_landmarks.tobytes() for part in got) == expected


async def test_unset_look_ahead_is_the_default(stub) -> None:
    """Live speech without a chosen look-ahead is answered as with the one that the stage lists."""
    features = with_states(random_features(30), LIVE.feature)
    config = PredictConfig("dubstage_live", await encoded(stub), PAL, 0)
    unset, default, other = [
        (await predicted(stub, config_to_proto(replace(config, look_ahead_frames=chosen)), features)).tobytes()
        for chosen in (None, PREDICTORS["dubstage_live"].frames_ahead, 0)
    ]
    assert unset == default
    assert unset != other


async def test_styles_of_footage(stub) -> None:
    """Footage has one style for several methods and calls, and may have another rate."""
    everybody = await stub.EncodeStyle(style_request(method="everybody"))
    assert ref_from_proto(everybody.style, "style") == await encoded(stub)
    assert await encoded(stub) == await encoded(stub)
    assert (await stub.EncodeStyle(style_request(num_frames=200, rate=50))).style.sha256


def test_slow_footage_repeats_frames_evenly() -> None:
    """Each frame of footage of 12.5 frames per second stands for two frames of 40 ms."""
    request = style_request(50)
    footage = footage_from_proto(request.mouth_landmarks, request.usable, common_pb2.Rational(num=25, den=2))
    mouths = from_tensor(request.mouth_landmarks, "mouth_landmarks", dtype=np.float32, shape=(50, 59, 3))
    nearest = np.minimum((np.arange(100) + 1) // 2, 49)
    np.testing.assert_array_equal(footage.mouth_landmarks, mouths[nearest])


async def test_large_configs_leave_the_event_loop(stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first message of many numbers is checked and read in threads, as the request of a call with one request is."""
    threads: list[threading.Thread] = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **named: Any) -> Any:
            threads.append(threading.current_thread())
            return function(*args, **named)

        return noted

    monkeypatch.setattr(call_messages, "check_bounds", noting(check_bounds))
    monkeypatch.setattr(servicer, "config_from_proto", noting(config_from_proto))
    request = config_to_proto(PredictConfig("ugc", await encoded(stub), PAL, 0))
    times = common_pb2.FrameTimes(time_base=common_pb2.Rational(num=1, den=25), pts=range(40_000))
    request.config.output_timeline.CopyFrom(common_pb2.Timeline(explicit=times))
    threads.clear()
    await drained(stub.PredictMotion([request]))
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_everybody_personalises_style_for_ugc(stub) -> None:
    features = with_states(with_identity_removed(random_features(60)), "speech_states")
    style = ref_to_proto(await encoded(stub))
    request = pb.PersonalizeRequest(method="everybody", style=style, features=heard(features), **seen(talking(60)))
    *_, last = [step async for step in stub.Personalize(request)]
    refined = PredictConfig("ugc", ref_from_proto(last.style, "style"), PAL, 5)
    plain = PredictConfig("ugc", await encoded(stub), PAL, 5)
    short = features[:5]
    same = [await predicted(stub, config_to_proto(replace(config, method="ugc")), short) for config in (refined, plain)]
    np.testing.assert_array_equal(*same)
    assert (await predicted(stub, config_to_proto(replace(refined, method="everybody")), short)).shape == (5, 59, 3)


async def test_mouth_opens_before_sound(stub) -> None:
    """In speech that is there as a whole, the mouth opens before the sound."""
    live = PredictConfig("ugc", await encoded(stub), PAL, 40)
    features = SpeechFeatures.joined([silence(20), random_features(20)])
    as_it_comes, whole = [
        mouth_opening(await predicted(stub, config_to_proto(config), features))
        for config in (live, replace(live, whole_speech=True))
    ]
    shut = as_it_comes[0]
    assert len(whole) == len(as_it_comes) == 40
    np.testing.assert_allclose(as_it_comes[:18], shut, atol=1e-3)
    np.testing.assert_allclose(whole[: 19 - WHOLE.frames_ahead], shut, atol=1e-3)
    assert (whole[18:20] > shut + 0.05).all()


async def test_lag_has_a_score_for_every_shift(stub) -> None:
    features = with_states(random_features(60), "speech_states")
    answer = await stub.EstimateLag(pb.EstimateLagRequest(features=heard(features), **seen(talking(60))))
    assert 0.0 <= answer.distance <= 2.0
    estimate = lag_from_proto(answer)
    assert estimate.scores.shape == (31,)
    assert estimate.scores.argmax() - 15 == estimate.lag_frames
    assert estimate.confidence >= 0.0
    assert estimate.lag_fraction == peak_fraction(estimate.scores, int(estimate.scores.argmax()))


async def test_personalisations_follow_each_other(stub) -> None:
    """Personalisations do not take turns, and none is refused after its first report."""
    style = ref_to_proto(await encoded(stub))
    request = pb.PersonalizeRequest(method="ugc", style=style, features=heard(random_features(60)), **seen(talking(60)))
    codes, reports = await personalised_at_once(6, stub.Personalize, request, 60)
    assert sorted(codes) == ["OK"] * 4 + ["RESOURCE_EXHAUSTED"] * 2
    turns = [number for index, number in enumerate(reports) if index == 0 or reports[index - 1] != number]
    assert len(turns) == len(set(turns)) == 4


async def test_personalise_ends_with_style(stub) -> None:
    style = await encoded(stub)
    sound = heard(random_features(60))
    request = pb.PersonalizeRequest(method="ugc", style=ref_to_proto(style), features=sound, **seen(talking(60)))
    steps = [step async for step in stub.Personalize(request)]
    assert [bool(step.style.uri) for step in steps] == [False] * (len(steps) - 1) + [True]
    refined, features = ref_from_proto(steps[-1].style, "style"), random_features(5)
    own, plain = [await predicted(stub, config_to_proto(PredictConfig("ugc", ref, PAL, 5)), features) for ref in (refined, style)]
    assert own.shape == (5, 59, 3)
    assert not np.array_equal(own, plain)
