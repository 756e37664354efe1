"""The audio stage behind a real server."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
import soundfile

from dubstage.audio.v1 import audio_pb2 as pb
from dubstage.client import from_tensor as array_of
from dubstage.client import to_tensor
from dubstage.common.v1 import common_pb2
from services.audio.extract import extract_features
from services.audio.models import ALL_KINDS, KINDS
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.wire.convert import from_tensor, timeline_from_proto, timeline_to_proto
from services.common.wire.timeline import Timeline
from tests.refusals import rpc_refused

SPEECH = Path(__file__).resolve().parents[3] / "gateway" / "cli" / "demo_speech.flac"
PAL = Timeline(rate=Fraction(25))
Requests = list[pb.ExtractFeaturesRequest]


@pytest.fixture(scope="module")
def speech() -> Float32:
    return np.asarray(soundfile.read(SPEECH, dtype="float32")[0][:32000], np.float32)


def config(*kinds: pb.FeatureKind.ValueType, **fields: object) -> pb.ExtractFeaturesRequest:
    """Some kinds, or all of them, at 25 frames per second."""
    kinds = kinds or tuple(number for number in pb.FeatureKind.values() if number != pb.FEATURE_KIND_UNSPECIFIED)
    given: Any = {"sample_rate_hz": 16000, "channels": 1, "timeline": timeline_to_proto(PAL), "kinds": kinds, **fields}
    return pb.ExtractFeaturesRequest(config=pb.ExtractFeaturesConfig(**given))


def chunk(first_sample: int, samples: Float32) -> pb.ExtractFeaturesRequest:
    return pb.ExtractFeaturesRequest(chunk=pb.AudioChunk(first_sample=first_sample, pcm_f32=samples.astype("<f4").tobytes()))


def stream(samples: Float32, cut: int, *, first: int = 0) -> Requests:
    return [config(), *(chunk(first + start, samples[start : start + cut]) for start in range(0, len(samples), cut))]


async def answers(stub, requests: Requests) -> list[pb.ExtractFeaturesResponse]:
    return [response async for response in stub.ExtractFeatures(requests)]


@pytest.mark.parametrize("cut", [640, 5000, 32000])
async def test_the_wire_gives_the_bytes_of_the_function(stub, speech: Float32, cut: int) -> None:
    blocks = [reply.block for reply in await answers(stub, stream(speech, cut))]
    expected = extract_features(speech, 16000, PAL)
    firsts = [block.first_frame for block in blocks]
    assert firsts == sorted(firsts)
    for name, kind in KINDS.items():
        got = []
        for block in blocks:
            shape = (block.num_frames, *kind.frame_shape)
            got.append(from_tensor(getattr(block, name), name, dtype=np.float32, shape=shape))
        assert np.concatenate(got).tobytes() == expected[name].tobytes()


def test_feature_kinds_match_contract() -> None:
    """The table of kinds and the contract name the same."""
    tensors = {field.name for field in pb.AudioFeatureBlock.DESCRIPTOR.fields if field.message_type is not None}
    assert tensors == ALL_KINDS
    numbered = {f"FEATURE_KIND_{name.upper()}" for name in ALL_KINDS - {"speech_probability"}}
    assert set(pb.FeatureKind.keys()) == numbered | {"FEATURE_KIND_UNSPECIFIED"}


@pytest.mark.parametrize(
    ("kinds", "sent", "answered", "rest"),
    [
        ((pb.FEATURE_KIND_MEL, pb.FEATURE_KIND_POSTERIORGRAM), 1600, 1, 2),
        ((pb.FEATURE_KIND_SPEECH_STATES_LIVE,), 3200, 2, 3),
        ((pb.FEATURE_KIND_SPEECH_STATES,), 42000, 50, 16),
    ],
    ids=["60 ms", "live states", "states"],
)
async def test_first_reply_before_half_close(stub, speech, kinds, sent, answered, rest) -> None:
    """The first reply comes before the stream is half closed."""
    call = stub.ExtractFeatures()
    await call.write(config(*kinds))
    await call.write(chunk(0, np.resize(speech, sent)))
    reply = await call.read()
    assert isinstance(reply, pb.ExtractFeaturesResponse)
    assert reply.block.first_frame == 0
    assert reply.block.num_frames == answered
    await call.done_writing()
    found = 0
    while isinstance(reply := await call.read(), pb.ExtractFeaturesResponse):
        found += reply.block.num_frames
    assert found == rest


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        (lambda speech: stream(speech[:640], 640, first=7), "chunk.first_sample"),
        (lambda speech: stream(np.array([0.0, np.inf], np.float32), 640), "chunk.pcm_f32"),
    ],
    ids=["out of order", "infinity"],
)
async def test_wrong_chunks_are_refused_by_name(stub, speech: Float32, requests: object, field: str) -> None:
    with rpc_refused(field):
        await answers(stub, requests(speech))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("request_message", "says"),
    [
        (pb.ExtractFeaturesRequest(chunk=pb.AudioChunk()), "first message"),
        (config(timeline=None), "timeline"),
        (config(pb.FEATURE_KIND_UNSPECIFIED), "FEATURE_KIND_UNSPECIFIED"),
        (config(sample_rate_hz=1), r"8000 \.\. 192000"),
    ],
    ids=["no config", "no timeline", "unknown kind", "rate"],
)
async def test_wrong_configs_are_refused(stub, request_message, says) -> None:
    with rpc_refused(match=says):
        await answers(stub, [request_message])


def test_timelines_make_a_round_trip() -> None:
    """Timelines make a round trip, and a rate of zero is refused."""
    for timeline in (
        Timeline(rate=Fraction(30000, 1001)),
        Timeline(pts=np.array([-3, 0, 9], np.int64), time_base=Fraction(1, 90000)),
    ):
        back = timeline_from_proto(timeline_to_proto(timeline), "config.timeline")
        assert back.rate == timeline.rate
        assert back.time_base == timeline.time_base
        assert (back.pts is None) == (timeline.pts is None)
        if back.pts is not None and timeline.pts is not None:
            assert back.pts.tolist() == timeline.pts.tolist()
    with pytest.raises(InvalidRequestError):
        timeline_from_proto(common_pb2.Timeline(frame_rate=common_pb2.Rational(num=25, den=0)), "config.timeline")


async def resumed_answers(
    stub, asked: pb.ExtractFeaturesConfig, sound: Float32, state: pb.ExtractFeaturesResponse | None, cut: int
) -> tuple[dict[str, list[bytes]], list[pb.ExtractFeaturesResponse]]:
    """Features of a call that sends `cut` samples at a time: bytes of each frame by name. And all states."""
    config = pb.ExtractFeaturesConfig(states=True)
    config.MergeFrom(asked)
    if state is not None:
        config.resume.CopyFrom(state.state)
    begin = 0 if state is None else state.resume_from

    chunks = (chunk(first, sound[first : first + cut]) for first in range(begin, len(sound), cut))
    requests = [pb.ExtractFeaturesRequest(config=config), *chunks]
    found: dict[str, list[bytes]] = {}
    states: list[pb.ExtractFeaturesResponse] = []
    async for reply in stub.ExtractFeatures(requests):
        if reply.HasField("state"):
            states.append(reply)
        for kind in KINDS if reply.HasField("block") else ():
            found.setdefault(kind, []).extend(row.tobytes() for row in array_of(getattr(reply.block, kind)))
    return found, states


@pytest.mark.parametrize(("rate_hz", "rate"), [(16000, Fraction(25)), (11025, Fraction(30000, 1001))])
async def test_another_call_goes_on(stub, rate_hz: int, rate: Fraction) -> None:
    """A call that goes on from any state answers the bytes of the undivided call, also in the silence after the sound."""
    sound = np.asarray(soundfile.read(SPEECH, dtype="float32")[0][: 11 * rate_hz], np.float32)
    asked = config().config
    asked.sample_rate_hz, asked.num_frames = rate_hz, int(26 * rate)
    asked.timeline.CopyFrom(timeline_to_proto(Timeline(rate=rate)))
    whole, states = await resumed_answers(stub, asked, sound, None, 7777)
    begins = [state.resume_from // rate_hz for state in states]
    assert begins[:2] == [0, 4]
    assert begins[-1] >= 12
    for state in states[1:]:
        rest, later = await resumed_answers(stub, asked, sound, state, 30_000)
        assert {kind: rows[-len(rest[kind]) :] for kind, rows in whole.items()} == rest
        assert (len(whole["mel"]) - len(rest["mel"])) >= state.resume_from / rate_hz * rate + 4 * rate
        assert all(each.resume_from > state.resume_from for each in later)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stream", np.array([5, 200]), "does not follow a state at 5 s"),
        ("stream", np.array([8, 199]), "frame 199 does not follow a state at 8 s"),
        ("stream", np.array([1 << 31, 0]), "numbers from 0 to 1.07374e+09 are expected, got 0 to 2.14748e+09"),
        ("voice.hidden", np.full((1, 1, 128), 2.0, np.float32), "numbers from -1 to 1 are expected"),
        ("voice.cell", np.full((1, 1, 128), -2e6, np.float32), "numbers from -1e+06 to 1e+06 are expected"),
        ("voice.cell", np.zeros(128, np.float32), "expected shape"),
    ],
)
async def test_states_that_cannot_be_used_say_why(stub, speech, name, value, message) -> None:
    """Each array of a state is checked."""
    still = np.zeros((1, 1, 128), np.float32)
    arrays = {"stream": np.array([8, 200]), "voice.hidden": still, "voice.cell": still, name: value}
    tensors = [common_pb2.NamedTensor(name=key, tensor=to_tensor(array)) for key, array in arrays.items()]
    state = pb.ExtractFeaturesResponse(state=common_pb2.StreamState(layout=1, tensors=tensors), resume_from=0)
    with pytest.raises(grpc.aio.AioRpcError, match=r"config\.resume") as caught:
        await resumed_answers(stub, config().config, speech, state, 7777)
    assert message in str(caught.value.details())
