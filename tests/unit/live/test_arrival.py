"""Sound is taken when it comes, within a bound, and frames know how old their sound is."""

from __future__ import annotations

import asyncio
import math
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import pytest

from dubstage.audio.v1alpha1 import audio_pb2
from dubstage.client.gateway import live_first_sample
from gateway.live.arrival import WAITING_S, Arrivals, first_sample, live_sound

RATE = 1000
SECOND = np.zeros(RATE, "<f4").tobytes()


class Speaker:
    """A second of sound after the other, each ten seconds later by the clock that frames are dated with."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.said = 0

    async def chunks(self) -> AsyncIterator[audio_pb2.AudioChunk]:
        for number in range(self.seconds):
            self.now = 10.0 * number
            self.said += 1
            yield audio_pb2.AudioChunk(first_sample=number * RATE, pcm_f32=SECOND)


async def settled(speaker: Speaker) -> int:
    """Number of pieces that were taken when no further one is."""
    before = -1
    while before != speaker.said:
        before = speaker.said
        for _ in range(20):
            await asyncio.sleep(0)
    return before


async def test_a_frame_is_dated_with_the_last_sound_that_it_shows() -> None:
    speaker = Speaker(4)
    arrivals = Arrivals(speaker.chunks(), RATE, 1, lambda: speaker.now)
    assert [chunk.first_sample async for chunk in arrivals.chunks()] == [0, RATE, 2 * RATE, 3 * RATE]
    # Frames 0 to 24 show the first second, which came at 0 s.
    assert [arrivals.came_at(frame) for frame in (0, 24, 25, 99, 100)] == [0.0, 0.0, 10.0, 30.0, math.inf]


async def test_sound_waits_within_a_bound_and_the_rest_stays_with_its_sender() -> None:
    speaker = Speaker(100)
    arrivals = Arrivals(speaker.chunks(), RATE, 1)
    async with aclosing(arrivals.chunks()) as chunks:
        await anext(chunks)
        first = await settled(speaker)
        assert WAITING_S < first <= WAITING_S + 3
        for _ in range(5):
            await anext(chunks)
        assert await settled(speaker) == first + 5


async def test_pieces_without_sound_take_no_memory() -> None:
    async def empty() -> AsyncIterator[audio_pb2.AudioChunk]:
        for _ in range(20_000):
            yield audio_pb2.AudioChunk(first_sample=0)

    arrivals = Arrivals(empty(), RATE, 1)
    async with aclosing(arrivals.chunks()) as chunks:
        await anext(chunks)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        count = len([chunk async for chunk in chunks])
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert count == 20_000 - 1
    assert after - before < 200_000


async def test_sound_for_which_every_frame_is_wanted_is_not_taken_ahead() -> None:
    speaker = Speaker(100)
    sound = live_sound(speaker.chunks(), RATE, 1)
    await anext(sound.chunks)
    assert await settled(speaker) == 1
    assert sound.shown_until(0) == math.inf


async def test_frames_are_late_by_the_bound_of_their_stream() -> None:
    speaker = Speaker(2)
    sound = live_sound(speaker.chunks(), RATE, 1, first_frame=60, max_late_s=3600.0)
    assert [chunk.first_sample async for chunk in sound.chunks] == [0, RATE]
    assert (sound.begins, sound.first_frame) == (35, 60)
    assert 0 <= time.monotonic() + 3600.0 - sound.shown_until(0) < 600


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 192000])
def test_client_and_gateway_agree_where_the_sound_of_a_later_frame_begins(rate: int) -> None:
    assert [first_sample(frame, rate) for frame in (0, 25, 26, 1000)] == [0, 0, rate // 25, 975 * rate // 25]
    assert all(first_sample(frame, rate) == live_first_sample(frame, rate) for frame in range(100))
