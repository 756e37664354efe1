"""Fitting alone: `python -m research.bench.fitting VIDEO`. A stream's faces, a person's identity, and that person drawn."""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from gateway.media.probe import probe
from gateway.media.reader import VideoReader, to_rgb
from services.common.face.crops import fit_head_pose
from services.common.face.drawing import IdentityDrawing
from services.common.face.identity import FaceIdentity
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rasterise import Backend
from services.common.geometry.rasterise_pytorch3d import is_installed
from services.face.fitting.energy import FittingWeights, FrameUnknowns, PersonEnergy, target_of
from services.face.fitting.frames import placed_face
from services.face.fitting.identity import IdentityFitter
from services.face.fitting.model import ModelLandmarks, model_landmarks, surface_of
from services.face.fitting.streaming import StreamFitter
from services.face.fitting.three_stage import ColouredFrames
from services.face.tracking import FaceTracker, Networks
from services.face.types import TrackedFace, TrackOptions

FRAMES: Final = 250
"""Frames of the video: ten seconds at 25 frames/s."""
REAL_TIME_MS: Final = 40.0

Picture = npt.NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FittingTimes:
    """Processor time on the default model, one face a frame.

    Attributes:
        track_ms: tracking a frame, without a model.
        fit_ms: what fitting every frame adds to tracking, with the identity given. REAL_TIME_MS is the limit of both together.
        landmark_error_px: mean over frames of the streamed fit, crop pixels.
        identity_s: FitIdentity of all frames, wall clock.
        identity_cpu_s: processor time of the same call.
        identity_error_px: landmark error that FitIdentity reports, crop pixels.
        draw_ms: drawing the person's face in the render box, as the texture stage does for the renderer `headpose`, with the
            low-frequency albedo.
        draw_detailed_ms: the same with the detailed albedo.
        colours_ms: what fitting every frame to its colours too (stage 3 of the three-stage fit) adds to tracking.
        colours_error_px: landmark error of that fit, crop pixels.
        loss_ms: one evaluation of the fit's loss and gradient, rasteriser numba. A frame takes ten.
        loss_pytorch3d_ms: the same with pytorch3d on the device that torch finds; 0: pytorch3d is not installed.
    """

    frames: int
    track_ms: float
    fit_ms: float
    landmark_error_px: float
    identity_s: float
    identity_cpu_s: float
    identity_error_px: float
    draw_ms: float
    draw_detailed_ms: float
    colours_ms: float
    colours_error_px: float
    loss_ms: float
    loss_pytorch3d_ms: float


class _Stopwatch:
    """Adds up wall and processor time of the calls that it makes."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def __call__(self, call: Callable[[], T]) -> T:
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu
        return result


def measure_fitting(video: Path, frames: int = FRAMES) -> FittingTimes:
    """Measure on the first frames of a video that shows one face; at most `frames`, and at least one with a face."""
    face = model_landmarks(default_model())
    networks = Networks()
    tracking, fitting, identity, colours = _Stopwatch(), _Stopwatch(), _Stopwatch(), _Stopwatch()
    drawing = {False: _Stopwatch(), True: _Stopwatch()}
    person = IdentityFitter(face)
    try:
        count = _tracked(
            video,
            frames,
            FaceTracker(networks, TrackOptions(max_faces=1)),
            tracking,
            lambda *of: identity(lambda: person.push(*of)),
        )
        found: FaceIdentity = identity(person.finish)
        drawn = IdentityDrawing(found, face.model)
        errors: list[float] = []

        def note(_: Picture, seen: TrackedFace) -> None:
            if seen.coefficients is None:
                return
            for detailed, stopwatch in drawing.items():
                call = partial(drawn.draw, seen.mouth_landmarks, seen.pose, detailed=detailed)
                if not errors:
                    call()  # kernels are compiled, or read, once a process
                stopwatch(call)
            errors.append(seen.coefficients.landmark_error)

        tracker = FaceTracker(networks, TrackOptions(max_faces=1), fitter=StreamFitter(face, found))
        _tracked(video, frames, tracker, fitting, note)
        coloured: list[float] = []
        crops: list[tuple[Picture, TrackedFace]] = []

        def keep(picture: Picture, seen: TrackedFace) -> None:
            if seen.coefficients is not None:
                coloured.append(seen.coefficients.landmark_error)
                crops[:] = crops or [(picture, seen)]

        fitter = StreamFitter(face, found, ColouredFrames(face, found))
        _tracked(video, frames, FaceTracker(networks, TrackOptions(max_faces=1), fitter=fitter), colours, keep)
    finally:
        networks.close()
    return FittingTimes(
        frames=count,
        track_ms=1000.0 * tracking.cpu_s / count,
        fit_ms=1000.0 * (fitting.cpu_s - tracking.cpu_s) / count,
        landmark_error_px=float(np.mean(errors)),
        identity_s=identity.wall_s,
        identity_cpu_s=identity.cpu_s,
        identity_error_px=found.landmark_error,
        draw_ms=1000.0 * drawing[False].cpu_s / len(errors),
        draw_detailed_ms=1000.0 * drawing[True].cpu_s / len(errors),
        colours_ms=1000.0 * (colours.cpu_s - tracking.cpu_s) / count,
        colours_error_px=float(np.mean(coloured)),
        loss_ms=_loss_ms(face, found, *crops[0], "numba", 30),
        loss_pytorch3d_ms=_loss_ms(face, found, *crops[0], "pytorch3d", 3) if is_installed() else 0.0,
    )


def _loss_ms(
    face: ModelLandmarks, person: FaceIdentity, picture: Picture, seen: TrackedFace, backend: Backend, times: int
) -> float:
    """Return the processor time of the best of some evaluations of the loss and its gradient in one frame, ms."""
    energy = PersonEnergy(
        face, surface_of(face.model), person.neutral(face.model).astype(np.float64), FittingWeights(), backend=backend
    )
    placed = placed_face(picture, seen.landmarks, seen.pose)
    pose = fit_head_pose(placed.landmarks)
    target = target_of(placed.crop, face.measured(placed.landmarks), pose.scale, pose.rotation, pose.translation[:2])
    zeros = np.zeros(face.model.num_expression)
    state = FrameUnknowns(zeros, np.zeros(3), np.zeros(1), np.zeros(2), person.light.astype(np.float64))
    albedo = energy.albedo(person.albedo / face.model.albedo_deviation.astype(np.float64))
    best = np.inf
    for _ in range(times + 1):
        begun = time.process_time()
        energy.loss(target, state, albedo)
        best = min(best, time.process_time() - begun)
    return 1000.0 * float(best)


def _tracked(
    video: Path, frames: int, tracker: FaceTracker, stopwatch: _Stopwatch, on_face: Callable[[Picture, TrackedFace], None]
) -> int:
    """Track a video with the stopwatch running for the tracker alone; returns its frames."""
    waiting: deque[Picture] = deque()
    count = 0

    with VideoReader(probe(video)) as reader:
        for frame in reader.frames(0, frames):
            picture = to_rgb(frame)
            waiting.append(picture)
            count += 1
            for finished in stopwatch(lambda shown=picture: tracker.push(shown)):  # type: ignore[misc]
                shown = waiting.popleft()
                for seen in finished.faces:
                    on_face(shown, seen)
    for finished in stopwatch(tracker.finish):
        shown = waiting.popleft()
        for seen in finished.faces:
            on_face(shown, seen)
    return count


def lines_of_fitting(times: FittingTimes) -> list[str]:
    """Four lines for the terminal."""
    return [
        f"fitting a frame of a stream: {times.fit_ms:.1f} ms CPU beside {times.track_ms:.1f} of tracking "
        f"(real time: {REAL_TIME_MS:.0f}), {times.landmark_error_px:.2f} px off",
        f"FitIdentity of {times.frames} frames: {times.identity_s:.1f} s ({times.identity_cpu_s:.1f} CPU), "
        f"{times.identity_error_px:.2f} px off",
        f"fitting the colours of a frame too: {times.colours_ms:.1f} ms CPU, {times.colours_error_px:.2f} px off; "
        + f"one evaluation of the loss: {times.loss_ms:.1f} ms with numba"
        + (
            f", {times.loss_pytorch3d_ms:.0f} with pytorch3d ({times.loss_pytorch3d_ms / times.loss_ms:.0f} times as long)"
            if times.loss_pytorch3d_ms
            else "; pytorch3d is not installed"
        ),
        f"drawing the fitted face: {times.draw_ms:.1f} ms CPU a frame, {times.draw_detailed_ms:.1f} with the detailed albedo",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.fitting", description=__doc__)
    parser.add_argument("video", type=Path)
    print("\n".join(lines_of_fitting(measure_fitting(parser.parse_args().video))))


if __name__ == "__main__":
    main()
