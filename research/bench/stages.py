"""Every stage of a dub alone, one after the other in this process: what a frame costs where nothing else runs beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from dubstage.client import face as face_client
from dubstage.client import rpcs
from gateway.actors.stored import StoredActor
from gateway.compositing.movable import LEARNED_FRAMES, learn_colours
from gateway.dub.analyse.face_records import cut_box, face_records
from gateway.dub.analyse.motion_clip import frame_seconds
from gateway.dub.convert import timeline_of
from gateway.dub.render.composite import composite_frame
from gateway.dub.render.windows import WINDOW_FRAMES, FrameSpan, RenderedWindow, render_window, window_config
from gateway.dub.sound.speech import AlignedSpeech, MotionRequest, extract_features, motion_frames_for, predict_motion
from gateway.dub.state.records import mouth_in_box, pose_of
from gateway.dub.state.workspace import Workspace
from gateway.media.encoders import WriteSettings
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.sound import SoundReader
from gateway.media.types import DecodedFrame, MediaInfo
from gateway.media.writer import VideoWriter
from gateway.stages.interface import Stages
from gateway.stages.timing import CallLabel, StageClock, StageTime, TimedStages
from research.bench.runs import Stopwatch
from services.common.face.native_pictures import native_scale
from services.common.methods import method_named

FRAMES: Final = 96
"""Frames of the video that are looked at: they are held decoded, 4 MB each at 720p."""

_AROUND: Final = "mask and blend"

T = TypeVar("T")


class _Meter:
    """Wall time and the whole process's processor time: right only for what runs alone."""

    def __init__(self) -> None:
        self.clock = StageClock()

    @contextmanager
    def measure(self, name: str, frames: int) -> Iterator[None]:
        with Stopwatch() as watch:
            yield
        self.clock.add(name, wall_s=watch.wall_s, cpu_s=watch.cpu_s, frames=frames)


class _MeteredStages(TimedStages):
    """Counts processor time too."""

    async def _stream(self, label: CallLabel, replies: AsyncIterator[T]) -> AsyncIterator[T]:
        frames = 0
        with Stopwatch() as watch:
            async for reply in replies:
                frames += label.frames_in(reply) if label.frames_in is not None else 0
                yield reply
        self._clock.add(label.name, wall_s=watch.wall_s, cpu_s=watch.cpu_s, frames=frames)


async def measure_stages(stages: Stages, actor: StoredActor, video: Path, folder: Path, threads: int) -> tuple[StageTime, ...]:
    """Times of the stages on the first FRAMES frames of a video that shows one face throughout.

    Args:
        stages: warm, in this process.
        actor: enrolled from the video.
        video: with sound.
        folder: for records and the encoded video.
        threads: of decoder and encoder.
    """
    info, meter = probe(video), _Meter()
    count = min(FRAMES, info.video.num_frames)
    with meter.measure("decode", count), VideoReader(info, threads=threads) as reader:
        frames = list(reader.frames(0, count))
    with meter.measure("to RGB", count):
        pictures = [to_rgb(frame) for frame in frames]

    with meter.measure("face", count):
        requests = face_client.track.requests(max_faces=1).of_async(pictures)
        tracked = [frame async for reply in stages.stream(rpcs.face.TRACK, requests) for frame in reply.frames]
        with meter.measure("cut box", count):
            rows = [
                face_records(faces, partial(cut_box, picture), 1.0)[:1] for faces, picture in zip(tracked, pictures, strict=True)
            ]
    metered = _MeteredStages(stages, meter.clock)
    with Workspace(folder) as workspace:
        total, duration = info.video.num_frames, info.video.duration
        with meter.measure("audio", total):
            speech = SoundReader(video).speech()
            await extract_features(stages, speech, workspace.speech, motion_frames_for(duration), duration)
        method, style = method_named(actor.method), actor.enrolled.style
        with meter.measure("motion", total):
            request = MotionRequest(predictor=method.motion, style=style, timeline=timeline_of(info), num_frames=total)
            await predict_motion(stages, request, workspace.speech, workspace.motion)
        mouths = workspace.motion.read(0, count)["mouth"]
        speech_context = AlignedSpeech(workspace.speech, frame_seconds(info)).around(np.arange(count))
    scale = native_scale(float(np.median(np.concatenate(rows)["scale"])))
    config = window_config(method, actor.enrolled, detail_scale=scale)
    windows: list[RenderedWindow] = []
    records = np.concatenate(rows)
    with meter.measure(_AROUND, count):
        learned = records[np.linspace(0, count - 1, LEARNED_FRAMES).round().astype(int)]
        colours = learn_colours(list(learned["pixels"]), [mouth_in_box(record) for record in learned])
        for begin in range(0, count, WINDOW_FRAMES):
            part = slice(begin, min(begin + WINDOW_FRAMES, count))
            targets = np.ones(part.stop - part.start, np.bool_)
            spoken = speech_context[part] if method.renderer.speech else None
            movable = np.stack([colours.movable(record["pixels"], mouth_in_box(record)) for record in records[part]])
            span = FrameSpan(records[part], mouths[part], targets, spoken, movable=movable)
            windows.append(await render_window(metered, config, span))
    _composite_and_encode(meter, info, frames, records, windows, folder / "video.mp4", threads)
    return _without_inner(meter.clock.stages())


def _composite_and_encode(
    meter: _Meter,
    info: MediaInfo,
    frames: list[DecodedFrame],
    records: npt.NDArray[np.void],
    windows: list[RenderedWindow],
    output: Path,
    threads: int,
) -> None:
    mouths = [window.mouth(row) for window in windows for row in range(len(window.frame))]
    with meter.measure("composite", len(frames)):
        dubbed = [
            composite_frame(frame, info, pose_of(record), mouth)[0]
            for frame, record, mouth in zip(frames, records, mouths, strict=True)
        ]
    video = replace(info.video, pts=info.video.pts[: len(frames)])
    settings = WriteSettings(keep_audio=True, threads=threads, overwrite=True)
    with meter.measure("encode", len(frames)), VideoWriter(output, replace(info, video=video), settings=settings) as writer:
        for frame, planes in zip(frames, dubbed, strict=True):
            writer.write(frame, planes)


def _without_inner(stages: tuple[StageTime, ...]) -> tuple[StageTime, ...]:
    """Takes texture and render, which run inside it, off the time of a window."""
    inner = [stage for stage in stages if stage.name in ("texture", "neural texture", "render")]
    wall, cpu = sum(stage.wall_s for stage in inner), sum(stage.cpu_s for stage in inner)
    return tuple(
        replace(stage, wall_s=stage.wall_s - wall, cpu_s=stage.cpu_s - cpu) if stage.name == _AROUND else stage for stage in stages
    )
