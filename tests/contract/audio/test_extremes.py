"""Requests of the audio stage at the ends of what it takes, and beyond."""

import asyncio
import os
from collections.abc import Iterator

import grpc.aio
import numpy as np
import psutil
import pytest

from dubstage.audio.v1 import audio_pb2 as pb
from dubstage.common.v1 import common_pb2
from tests.contract.finite import finite_or_refused, idle_within

KINDS = [pb.FEATURE_KIND_MEL, pb.FEATURE_KIND_MFCC, pb.FEATURE_KIND_POSTERIORGRAM, pb.FEATURE_KIND_IDENTITY_REMOVED]
PAL = common_pb2.Timeline(frame_rate=common_pb2.Rational(num=25, den=1))
HUGE = 4611686018427387904
MEBIBYTE = 1 << 20
SOUNDS = {
    "largest": np.full(4000, 1e6),
    "least": np.full(4000, -1e6),
    "alternating": np.where(np.arange(4000) % 2, 1e6, -1e6),
    "denormal": np.full(4000, 1e-45),
    "silence": np.zeros(4000),
    "click": np.eye(1, 4000, 2000)[0] * 1e6,
    "beyond": np.full(4000, 3.4e38),
    "NaN": np.where(np.arange(4000) == 2000, np.nan, 0.0),
    "infinity": np.full(4000, -np.inf),
}


def config(**fields: object) -> pb.ExtractFeaturesRequest:
    given = {"sample_rate_hz": 16000, "channels": 1, "timeline": PAL, "kinds": KINDS, **fields}
    return pb.ExtractFeaturesRequest(config=pb.ExtractFeaturesConfig(**given))  # type: ignore[arg-type]


def chunk(samples: np.ndarray, first: int = 0) -> pb.ExtractFeaturesRequest:
    return pb.ExtractFeaturesRequest(chunk=pb.AudioChunk(first_sample=first, pcm_f32=samples.astype("<f4").tobytes()))


async def answers(stub, requests: list[pb.ExtractFeaturesRequest]) -> list[pb.ExtractFeaturesResponse]:
    return [reply async for reply in stub.ExtractFeatures(iter(requests), timeout=60)]


def rated(num: int, den: int) -> common_pb2.Timeline:
    return common_pb2.Timeline(frame_rate=common_pb2.Rational(num=num, den=den))


def timed(pts: list[int], den: int) -> common_pb2.Timeline:
    return common_pb2.Timeline(explicit=common_pb2.FrameTimes(time_base=common_pb2.Rational(num=1, den=den), pts=pts))


WITHOUT_END: list[dict[str, object]] = [
    {"timeline": rated(HUGE, 1)},
    {"timeline": rated(2 * HUGE - 1, 1)},
    {"timeline": rated(1, HUGE)},
    {"timeline": rated(1, 2 * HUGE - 1)},
    {"timeline": timed(list(range(2000)), 1_000_000)},
    {"timeline": timed([0, 2 * HUGE - 1], 1)},
    {"num_frames": HUGE},
    {"num_frames": -1},
    {"num_frames": 10_000_000, "timeline": rated(1, 3600)},
    {"sample_rate_hz": 1},
    {"sample_rate_hz": 4294967295},
    {"channels": 24},
    {"channels": 0},
]


async def test_work_without_end_is_refused_at_the_door(stub) -> None:
    for fields in WITHOUT_END:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers(stub, [config(**fields), chunk(np.zeros(16000))])
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, fields
        assert next(iter(fields)) in (caught.value.details() or "")


@pytest.mark.parametrize(
    "fields", [{}, {"sample_rate_hz": 44_101, "num_frames": 3}, {"timeline": rated(1000, 1)}], ids=["plain", "odd rate", "fast"]
)
async def test_features_of_any_sound_are_finite(stub, fields: dict[str, object]) -> None:
    for name, samples in SOUNDS.items() if not fields else [(name, SOUNDS[name]) for name in ("alternating", "click")]:
        answered = await finite_or_refused(answers(stub, [config(**fields), chunk(samples)]))
        assert answered == (name not in {"beyond", "NaN", "infinity"}), name


async def test_invalid_sample_index_and_value(stub) -> None:
    samples = np.zeros(2000)
    samples[1501] = np.nan
    with pytest.raises(grpc.aio.AioRpcError, match=r"sample 5750 of channel 1 is not a finite number \(nan\)"):
        await answers(stub, [config(channels=2), chunk(np.zeros(10_000)), chunk(samples, 5000)])


async def test_hours_gap_in_little_memory(stub) -> None:
    """A gap of hours is worked off in little memory and ends with its call."""
    requests = [config(timeline=timed([0, 100 * 3600], 1), num_frames=2), chunk(np.zeros(16000))]
    call = stub.ExtractFeatures(requests, timeout=600)
    await call.read()
    held = psutil.Process(os.getpid()).memory_info().rss
    await asyncio.sleep(1.0)
    assert psutil.Process(os.getpid()).memory_info().rss - held < 50 * MEBIBYTE
    call.cancel()
    assert await idle_within(60.0)


@pytest.mark.parametrize("num_frames", [0, 10_000_000])
async def test_fast_sound_does_not_pile_up(stub, num_frames: int) -> None:
    """Minutes of sound pushed as fast as possible do not pile up."""
    seconds = 60

    def requests() -> Iterator[pb.ExtractFeaturesRequest]:
        yield config(num_frames=num_frames, kinds=[pb.FEATURE_KIND_MFCC], sample_rate_hz=8000)
        for second in range(0, seconds, 30):
            yield chunk(np.random.default_rng(second).normal(0, 0.1, 30 * 8000), second * 8000)

    process, frames, held = psutil.Process(os.getpid()), 0, 0
    call = stub.ExtractFeatures(requests(), timeout=600)
    async for reply in call:
        frames += reply.block.num_frames
        now = process.memory_info().rss
        held = held or now
        assert now - held < 100 * MEBIBYTE
        if frames >= 25 * seconds + 500:
            break
    assert frames >= 25 * seconds
    call.cancel()
    assert await idle_within(60.0)


async def test_long_message_answered_in_pieces(stub) -> None:
    """A thousand frames a second of ten seconds' sound are 30 MB of features: they never lie in memory as a whole."""
    process, held, frames = psutil.Process(os.getpid()), 0, 0
    requests = [config(timeline=rated(1000, 1), sample_rate_hz=8000), chunk(np.zeros(10 * 8000))]
    call = stub.ExtractFeatures(requests, timeout=120)
    async for reply in call:
        frames += reply.block.num_frames
        now = process.memory_info().rss
        held = held or now
        assert now - held < 25 * MEBIBYTE
    assert frames == 10_000
