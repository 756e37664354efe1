"""Fitting of the face model alone: `python -m research.bench.fitting VIDEO`. The faces of a stream, and a person's identity."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from research.bench.runs import Stopwatch, rows_of, table
from services.common.array_types import UInt8
from services.common.geometry.morphable_model import default_model
from services.common.stderr import log_lines_on_stderr
from services.face.fitting.identity import IdentityFitter
from services.face.fitting.model import model_landmarks
from services.face.fitting.streaming import StreamFitter
from services.face.tracking import FaceTracker, Networks
from services.face.types import TrackedFace, TrackOptions

FRAMES: Final = 250
"""Frames of the video: ten seconds at 25 frames/s."""


@dataclass(frozen=True, slots=True)
class FittingTimes:
    """Processor time on the default model, one face per frame.

    Attributes:
        frames: number of frames.
        track_ms: tracking a frame, without a model.
        fit_ms: what fitting every frame adds to tracking, with the identity given. 40 ms is the limit of both together.
        landmark_error_px: mean over frames of the streamed fit, crop pixels.
        identity_s: FitIdentity of all frames, wall clock, seconds.
        identity_cpu_s: processor time of the same call, seconds.
        identity_error_px: landmark error that FitIdentity reports, crop pixels.
    """

    frames: int
    track_ms: float
    fit_ms: float
    landmark_error_px: float
    identity_s: float
    identity_cpu_s: float
    identity_error_px: float


def measure_fitting(video: Path, frames: int = FRAMES) -> FittingTimes:
    """Measure on the first frames of a video that shows one face; at most `frames`, and at least one with a face."""
    face, networks = model_landmarks(default_model()), Networks()
    tracking, fitting, identity = Stopwatch(), Stopwatch(), Stopwatch()
    person = IdentityFitter(face)
    errors: list[float] = []

    def learn(picture: UInt8, seen: TrackedFace) -> None:
        with identity:
            person.push(picture, seen)

    def note(_: UInt8, seen: TrackedFace) -> None:
        if seen.coefficients is not None:
            errors.append(seen.coefficients.landmark_error)

    try:
        count = _track(video, frames, FaceTracker(networks, TrackOptions(max_faces=1)), tracking, learn)
        with identity:
            fitted = person.finish()
        _track(video, frames, FaceTracker(networks, TrackOptions(max_faces=1), fitter=StreamFitter(face, fitted)), fitting, note)
    finally:
        networks.close()
    return FittingTimes(
        frames=count,
        track_ms=1000.0 * tracking.cpu_s / count,
        fit_ms=1000.0 * (fitting.cpu_s - tracking.cpu_s) / count,
        landmark_error_px=float(np.mean(errors)),
        identity_s=identity.wall_s,
        identity_cpu_s=identity.cpu_s,
        identity_error_px=fitted.landmark_error,
    )


def _track(video: Path, frames: int, tracker: FaceTracker, watch: Stopwatch, on_face: Callable[[UInt8, TrackedFace], None]) -> int:
    """Track a video with the stopwatch running for the tracker alone; return the number of frames."""
    waiting: deque[UInt8] = deque()
    count = 0
    with VideoReader(probe(video)) as reader:
        for frame in (*reader.frames(0, frames), None):
            if frame is not None:
                waiting.append(to_rgb(frame))
                count += 1
            with watch:
                done = tracker.push(waiting[-1]) if frame is not None else tracker.finish()
            for finished in done:
                shown = waiting.popleft()
                for seen in finished.faces:
                    on_face(shown, seen)
    return count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.fitting", description=__doc__)
    parser.add_argument("video", type=Path)
    print(table(rows_of(measure_fitting(parser.parse_args().video))))


if __name__ == "__main__":
    with log_lines_on_stderr("warning"):
        main()
