"""Cost of the watermark: processor time per frame of compositing with and without it, whole last passes, and reading."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from gateway.compositing.planes import composite
from gateway.dub.outcome import DubOutcome
from gateway.dub.watermark_reading import likeliest, responses_of_faces
from gateway.media.inspection import inspect_video
from gateway.media.pixels import ColourTags, colour_model, pixel_format
from gateway.media.probe import probe
from gateway.provenance.watermark.detection import Detector
from gateway.provenance.watermark.embedding import Mark, MarkedFace
from gateway.provenance.watermark.payload import Payload
from research.bench.watermark.dubs import Studio
from services.common.face.crops import BOX_SIZE
from services.common.face.native_pictures import MAX_SCALE

_RUNS: Final = 100
_FRAME_S: Final = 0.04


@dataclass(frozen=True, slots=True)
class BlendTime:
    """Processor time of blending one face into one frame of 1920 x 1080, one thread, best of many.

    Attributes:
        box_px: pixels of the rendered box, which is as wide in the frame.
        without_ms: without a watermark.
        with_ms: with it.
    """

    box_px: int
    without_ms: float
    with_ms: float


@dataclass(frozen=True, slots=True)
class VideoTime:
    """The last pass of a dub, which decodes, blends and encodes every frame, and the search in the video.

    Attributes:
        without_ms: processor time of blending per frame, without a watermark, the median of the runs.
        with_ms: with it.
        without_bytes: size of the video.
        with_bytes: size of the video with the watermark.
        tracking_ms: processor time per frame of tracking all faces for the search.
        search_ms: processor time of looking for one key in the tracked faces, for the whole video.
    """

    frames: int
    without_ms: float
    with_ms: float
    without_bytes: int
    with_bytes: int
    tracking_ms: float
    search_ms: float


def blend_times() -> tuple[BlendTime, ...]:
    """Return the times of boxes of every scale. Runs with and without the watermark take turns."""
    return tuple(blend_time(scale * BOX_SIZE) for scale in range(1, MAX_SCALE + 1))


def blend_time(side: int, runs: int = _RUNS) -> BlendTime:
    """Return the times of a rendered box of `side` pixels, the best of `runs`. The pictures are noise."""
    random = np.random.default_rng(side)
    planes = tuple(random.integers(16, 235, shape).astype(np.uint8) for shape in ((1080, 1920), (540, 960), (540, 960)))
    box = random.uniform(0, 255, (side, side, 3)).astype(np.float32)
    mask = np.ones((side, side), np.float32)
    place = np.array([[1.0, 0.0, 400.0], [0.0, 1.0, 200.0]])
    key = bytes(32)
    face = random.integers(0, 256, (BOX_SIZE, BOX_SIZE, 3)).astype(np.uint8)
    marked = MarkedFace(Mark(key, Payload.of_video(key, b"bench")))
    best = [float("inf"), float("inf")]
    pixel = pixel_format("yuv420p")
    colour = colour_model(pixel, ColourTags(), 1920, 1080)
    for run in range(runs):
        for number in range(2):
            began = time.process_time()
            seconds = _FRAME_S * run
            light = marked.of_frame(seconds, face, side / BOX_SIZE).luma(side) if number else None
            composite(planes, pixel, colour, place, box, mask, light=light)
            best[number] = min(best[number], time.process_time() - began)
    return BlendTime(side, *(1000.0 * seconds for seconds in best))


async def video_time(studio: Studio, clip: Path, method: str, turns: int) -> VideoTime:
    """Dub a clip, write the video again with and without the watermark by turns, and look for the watermark.

    Raises:
        DubstageError: the clip cannot be dubbed.
    """
    video = studio.folder / "cost.mp4"
    blend: tuple[list[float], list[float]] = ([], [])
    size = [0, 0]
    for turn in range(turns):
        for number, on in enumerate((False, True)):
            # The first run tracks and renders. All others find the rendered windows and write the video alone.
            job = studio.job(clip, video, method, personalize=False, watermark=on)
            blend[number].append(_blending_ms(await job.run(lambda *_: None)))
            size[number] = video.stat().st_size
            if on and turn == turns - 1:
                job.discard()
    key = studio.sealer.watermark_key or b""
    began = time.process_time()
    faces = await responses_of_faces(studio.stages, inspect_video(video), threads=studio.threads, on_frame=lambda _: None)
    tracked = time.process_time()
    likeliest(faces, Detector(key))
    frames = probe(video).video.num_frames
    return VideoTime(
        frames=frames,
        without_ms=float(np.median(blend[0])),
        with_ms=float(np.median(blend[1])),
        without_bytes=size[0],
        with_bytes=size[1],
        tracking_ms=1000.0 * (tracked - began) / frames,
        search_ms=1000.0 * (time.process_time() - tracked),
    )


def _blending_ms(outcome: DubOutcome) -> float:
    """Return the processor time of blending per dubbed frame."""
    row = next(stage for stage in outcome.times.stages if stage.name == "composite")
    return 1000.0 * row.cpu_s / max(1, row.frames)
