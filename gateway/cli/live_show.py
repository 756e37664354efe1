"""Frames of a live stream, shown as they come: their latency is printed, and their pictures are recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext

import numpy as np

from gateway.cli.console import say, say_result
from gateway.live.measured import SpokenSpeech
from gateway.live.recording import Recording
from gateway.live.session import LiveFrame
from services.common.errors import InvalidRequest


async def show_frames(
    frames: AsyncGenerator[LiveFrame, None], speech: SpokenSpeech, recording: Recording | None, *, show_latency: bool
) -> None:
    """Take all frames of a stream, and print a summary of their latencies at the end.

    Args:
        frames: frames of the stream.
        speech: speech that the stream takes.
        recording: film to write the pictures to; None: no film is written.
        show_latency: whether the latency of each frame is printed.

    Raises:
        InvalidRequest: the speech is shorter than one frame.
        DubstageError: from the stream.
    """
    latencies: list[float] = []
    async with aclosing(frames):
        with recording if recording is not None else nullcontext():
            async for frame in frames:
                latencies.append(speech.latency_s(frame.index))
                if show_latency:
                    say_result(f"frame {frame.index}: {latencies[-1] * 1000:.0f} ms after its sound")
                if recording is not None:
                    await asyncio.to_thread(recording.write, frame.picture, frame.colour)
    if not latencies:
        raise InvalidRequest("--audio: the speech is shorter than one frame; give longer speech", field="audio")
    milliseconds = np.array(latencies) * 1000
    say(
        f"first frame {milliseconds[0]:.0f} ms after its sound; median {np.median(milliseconds):.0f} ms, "
        f"95 % within {np.percentile(milliseconds, 95):.0f} ms, {len(latencies)} frames"
    )
