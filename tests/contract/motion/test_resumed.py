"""Streams of motion that go on in another call, behind a real server."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from dubstage.motion.v1 import motion_pb2 as pb
from services.common.methods import PREDICTORS, MouthOptions
from services.common.wire.convert import ref_from_proto
from services.common.wire.timeline import Timeline
from services.motion.convert import PredictConfig
from services.motion.types import EXTRA_FEATURES, SpeechFeatures
from tests.contract.motion.calls import encoded_head, head_request, stream
from tests.contract.motion.requests import config_to_proto
from tests.refusals import rpc_refused
from tests.unit.motion.synthesised import random_features

FRAMES = 420
NTSC = Timeline(rate=Fraction(30000, 1001))
NTSC_ALWAYS = ("dubstage", "headpose")
"""Predictors of a mouth and of a moving head that `make test` runs at 30000/1001 frames/s too."""


def speech() -> SpeechFeatures:
    """Speech with a long silence, and all features."""
    features = random_features(FRAMES)
    speaking = features.speech_probability.copy()
    speaking[150:210] = 0.0
    noise = np.random.default_rng(1)
    extra = {name: noise.standard_normal((FRAMES, *shape)).astype(np.float32) for name, shape in EXTRA_FEATURES.items()}
    return replace(features, speech_probability=speaking, extra=extra)


async def answers(
    stub, config: pb.PredictMotionRequest, resume: pb.PredictMotionResponse | None, states: int = 100
) -> tuple[list[bytes], pb.PredictMotionResponse | None]:
    """Answered frames up to a number of states, and the last state."""
    asked, features = pb.PredictMotionRequest.FromString(config.SerializeToString()), speech()
    asked.config.states = True
    begin = 0
    if resume is not None:
        asked.config.resume.CopyFrom(resume.state)
        begin = resume.resume_from

    found: list[bytes] = []
    async for reply in stub.PredictMotion(stream(asked, features, 37, begin)):
        found.extend(frame.SerializeToString(deterministic=True) for frame in reply.frames)
        if reply.HasField("state"):
            states -= 1
            if not states:
                return found, reply
    return found, None


@pytest.mark.parametrize(
    ("name", "timeline"),
    [
        *(pytest.param(name, Timeline(rate=Fraction(25)), id=f"{name}-25") for name in PREDICTORS),
        *(
            pytest.param(name, NTSC, id=f"{name}-29.97", marks=[] if name in NTSC_ALWAYS else pytest.mark.long)
            for name in PREDICTORS
        ),
    ],
)
async def test_another_call_goes_on(stub, name: str, timeline: Timeline) -> None:
    """A call that goes on from a state answers the bytes of the undivided call."""
    request = head_request(100)
    request.method = name
    style = ref_from_proto((await stub.EncodeStyle(request)).style, "style")
    for whole_speech in (True, False):
        config = config_to_proto(
            PredictConfig(name, style, timeline, 0, whole_speech=whole_speech, mouth=MouthOptions(expressiveness=1.3))
        )
        whole, _ = await answers(stub, config, None)
        parts, state = await answers(stub, config, None, 1)
        calls = 1
        while state is not None:
            more, state = await answers(stub, config, state, 1)
            parts += more
            calls += 1
        assert parts == whole
        assert calls >= 3


@pytest.mark.parametrize("ahead", PREDICTORS["dubstage_live"].look_ahead_choices)
async def test_chosen_look_ahead_goes_on(stub, ahead: int) -> None:
    name = "dubstage_live"
    request = head_request(100)
    request.method = name
    style = ref_from_proto((await stub.EncodeStyle(request)).style, "style")
    config = config_to_proto(PredictConfig(name, style, NTSC, 0, look_ahead_frames=ahead))
    whole, _ = await answers(stub, config, None)
    parts, state = await answers(stub, config, None, 1)
    assert state is not None
    more, _ = await answers(stub, config, state)
    assert parts + more == whole


async def test_states_that_cannot_be_used_say_why(stub) -> None:
    """Each array of a state is checked."""
    config = config_to_proto(PredictConfig("headpose", await encoded_head(stub), NTSC, 0))
    _, state = await answers(stub, config, None, 1)

    async def refused(change: Callable[[common_pb2.StreamState], object]) -> str:
        wrong = pb.PredictMotionResponse.FromString(state.SerializeToString())
        change(wrong.state)
        with rpc_refused(match=r"config\.resume") as caught:
            await answers(stub, config, wrong)
        return str(caught.value.details())

    def put(name: str, array: npt.ArrayLike) -> Callable[[common_pb2.StreamState], object]:
        def change(wrong: common_pb2.StreamState) -> None:
            next(each.tensor for each in wrong.tensors if each.name == name).CopyFrom(to_tensor(np.asarray(array)))

        return change

    assert "takes 1" in await refused(lambda wrong: setattr(wrong, "layout", 2))
    assert "expected" in await refused(put("head.filter", np.zeros((2, 6))))
    assert "not those of a stream" in await refused(put("stream", np.array([3, 100])))
    assert "not those of a stream" in await refused(put("stream", np.array([0, 0])))
    assert "'head.level'" in await refused(
        lambda wrong: wrong.tensors.remove(next(t for t in wrong.tensors if t.name == "head.level"))
    )
