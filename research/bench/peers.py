"""Dubs of other systems beside ours: `python -m research.bench.peers FOLDER --output FOLDER`.

FOLDER has real videos with sound (`NAME.mp4`), and what other systems drew for the same frames and the same sound
(`NAME.SYSTEM.mp4`). Ours learns the person on one part of a real video and dubs the rest with the video's own sound
(research.evaluation.protocol.folds_of). All systems are measured on the frames of these test parts, at their own time.

Every sequence of frames, the real one too, is encoded by one encoder with one quality before it is measured. Pictures are compared
with the real video before the encoder, openings and lips with the real video after the encoder. So the row `real` shows what the
encoder costs; its r, LMD and spread are perfect by definition.

Faces are cut out of all sequences by the head pose of the real video, as face crops of 256 pixels. Each crop is tracked again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import av
import cv2
import numpy as np

from gateway.cli.options import gateway_settings
from gateway.cli.values import names_in
from gateway.dub.choices import EnrolOptions
from gateway.media.inspection import inspect_video
from gateway.media.reader import VideoReader, to_rgb
from gateway.reports.pictures import stack_rows, write_picture
from research.bench.runs import add_h264, document_of, rows_of, table, write_json
from research.evaluation.clip import footage_patch
from research.evaluation.measures import finite_mean, means_of, mouth_box, psnr_db, ssim
from research.evaluation.mouth_metrics import MouthTrack, landmark_distance, mouth_track, spread_ratio
from research.evaluation.protocol import folds_of
from research.evaluation.session import PipelineSession
from research.evaluation.strips import STRIP_COLUMNS, busiest_frames, mouth_part, mouth_size
from research.evaluation.sync import StageRetrack
from research.evaluation.types import Variant
from research.stage_host import StageHost
from research.training.command import command_line
from services.common.array_types import Bool, Float32, Float64, UInt8
from services.common.errors import InvalidRequestError, NoUsableFootageError
from services.common.face.crops import CROP_SIZE, HeadPose, crop_from_frame, pose_of_vector
from services.common.face.landmarks import FACE_OVAL, NOSE_BASE
from services.common.face.mouth_detail import grey
from services.common.face.sampling import sample_patch
from services.common.methods import DEFAULT_METHOD
from services.common.wire.mouth_curves import correlation

CRF: Final = 18
"""Quality of the encoder (x264) that every sequence goes through."""
MOST_LAG: Final = 5
"""Largest delay, frames, at which the best correlation of the openings is looked for."""
REAL: Final = "real"
OURS: Final = "dubstage"
_JITTER_SIGMA_PX: Final = 2.0
"""Smoothing before jitter is measured, the standard deviation of a Gaussian, crop pixels: sharpness is no jitter."""
_FLOW_MARGIN_PX: Final = 16
_NO_FLOW: Final = np.empty(0, np.float32)
_VARIANTS: Final[dict[str, Variant]] = {OURS: "full_kept", f"{OURS} neutral": "full"}


@dataclass(frozen=True, slots=True)
class SystemMetrics:
    """Metrics of one system on one clip, or means over clips.

    Attributes:
        clip: name of the clip.
        system: name of the system.
        drawn: share of the frames whose mouth the system draws, 0 to 1. Ours leaves frames with a reason code as they are. The
            other metrics are of the drawn frames in which the real face is tracked.
        mouth_psnr_db: PSNR of the mouth box, decibels.
        mouth_ssim: SSIM of the mouth box.
        lmd_px: distance of the lip points, crop pixels (the face is 185 pixels wide).
        r: correlation of the opening with the real opening at the same frame.
        best_r: largest correlation with the opening up to MOST_LAG frames earlier or later.
        best_lag: delay of the system's opening there, frames.
        spread: standard deviation of the opening over that of the real opening.
        finest_band: energy of the finest band of the mouth box over that of the real video, at the size of the video.
        cheek_jaw_psnr_db: PSNR of the face below the nose without the mouth box, decibels.
        upper_psnr_db: PSNR of the face above the base of the nose, decibels.
        flicker: mean change from frame to frame of the error in the mouth box, grey levels. It counts every motion at another time:
            the real mouth, shown a frame late, has more than most systems.
        jitter: change of the mouth box that no motion explains (`unexplained_change`), over that of the real video.
    """

    clip: str
    system: str
    drawn: float
    mouth_psnr_db: float
    mouth_ssim: float
    lmd_px: float
    r: float
    best_r: float
    best_lag: float
    spread: float
    finest_band: float
    cheek_jaw_psnr_db: float
    upper_psnr_db: float
    flicker: float
    jitter: float


@dataclass(frozen=True, slots=True, eq=False)
class EvaluatedFrames:
    """Frames of one system, as they are measured.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB.
        crops: uint8 [T, 256, 256, 3], face crops by the poses of the real video.
        track: mouths of the crops.
        drawn: bool [T], whether the system draws the mouth.
        follows: bool [T - 1], whether a frame is the next one in the video: test parts are joined.
    """

    frames: UInt8
    crops: UInt8
    track: MouthTrack
    drawn: Bool
    follows: Bool


def peers_of(folder: Path) -> dict[Path, dict[str, Path]]:
    """Return the real videos of a folder, each with the results of the other systems by their names.

    Raises:
        InvalidRequestError: the folder has no real video with a result beside it, or a system has the name of another row.
    """
    peers: dict[Path, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.mp4")):
        name, _, system = path.stem.partition(".")
        if system in {REAL, *_VARIANTS}:
            raise InvalidRequestError(f"{path}: {system} is the name of a row; give the system another name", field="FOLDER")
        if system:
            peers.setdefault(folder / f"{name}.mp4", {})[system] = path
    peers = {real: systems for real, systems in peers.items() if real.is_file()}
    if not peers:
        raise InvalidRequestError(f"{folder} has no NAME.mp4 with a NAME.SYSTEM.mp4 beside it", field="FOLDER")
    return peers


def frames_of(path: Path) -> UInt8:
    """Return the frames of a video, uint8 [T, H, W, 3], RGB."""
    with VideoReader(inspect_video(path)) as reader:
        return np.stack([to_rgb(frame) for frame in reader])


def encoded(frames: UInt8, rate: Fraction, path: Path) -> UInt8:
    """Return frames after the encoder that all sequences go through, uint8 [T, H, W, 3].

    Args:
        path: file to write.
    """
    with av.open(str(path), "w") as container:
        video = add_h264(container, rate, frames.shape[2], frames.shape[1], crf=CRF, preset="medium")
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(video.encode(None))
    return frames_of(path)


def crops_of(frames: UInt8, poses: Sequence[HeadPose]) -> UInt8:
    """Return the face crops of frames by head poses, uint8 [T, 256, 256, 3]."""
    side = (CROP_SIZE, CROP_SIZE)
    return np.stack([sample_patch(frame, crop_from_frame(pose), side) for frame, pose in zip(frames, poses, strict=True)])


def face_parts(landmarks: Float32) -> tuple[Bool, Bool]:
    """Return the pixels of the cheeks and the jaw, and of the upper face, bool [256, 256] each.

    Args:
        landmarks: float32 [478, 3], crop pixels.
    """
    face = np.zeros((CROP_SIZE, CROP_SIZE), np.uint8)
    cv2.fillPoly(face, [np.rint(landmarks[list(FACE_OVAL), :2]).astype(np.int32)], (1,))
    below = np.arange(CROP_SIZE)[:, None] > landmarks[list(NOSE_BASE), 1].mean()
    beside = np.ones((CROP_SIZE, CROP_SIZE, 1), np.uint8)
    mouth_box(beside)[...] = 0
    return (face > 0) & below & (beside[..., 0] > 0), (face > 0) & ~below


def unexplained_change(crops: UInt8) -> Float64:
    """Return what each frame's mouth box has that the frames before and after do not have, float64 [T], mean grey levels.

    Optical flow brings both neighbours to the frame. What is left of the frame less their mean is no motion: a tooth that pops, a
    jump. NaN for the first and the last frame.

    Args:
        crops: uint8 [T, 256, 256, 3], face crops, RGB.
    """
    box = np.zeros((CROP_SIZE, CROP_SIZE, 1), np.uint8)
    mouth_box(box)[...] = 1
    left, top, width, height = cv2.boundingRect(box[..., 0])
    rows, columns = (
        slice(first - _FLOW_MARGIN_PX, first + side + _FLOW_MARGIN_PX) for first, side in ((top, height), (left, width))
    )
    lumas = [np.ascontiguousarray(grey(crop)[rows, columns]) for crop in crops]
    smooth = [cv2.GaussianBlur(luma.astype(np.float32), (0, 0), _JITTER_SIGMA_PX) for luma in lumas]
    height, width = smooth[0].shape
    grid = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), axis=-1)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    change = np.full(len(crops), np.nan)
    inside = slice(_FLOW_MARGIN_PX, -_FLOW_MARGIN_PX)
    for t in range(1, len(crops) - 1):
        moved = []
        for other in (t - 1, t + 1):
            place = grid + search.calc(lumas[t], lumas[other], _NO_FLOW)
            moved.append(cv2.remap(smooth[other], place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        change[t] = np.abs(smooth[t] - 0.5 * (moved[0] + moved[1]))[inside, inside].mean()
    return change


def best_lag(real: Float32, result: Float32) -> tuple[int, float]:
    """Return the delay of the result, frames, at which two openings correlate most, and the correlation; 0 and NaN if no
    delay has three common frames.

    Args:
        real, result: float32 [T], openings, NaN where unknown.
    """
    correlations = [(0, correlation(real, result))]
    for lag in range(1, min(MOST_LAG, len(real) - 1) + 1):
        correlations += [(lag, correlation(real[:-lag], result[lag:])), (-lag, correlation(real[lag:], result[:-lag]))]
    finite = [each for each in correlations if np.isfinite(each[1])]
    return max(finite, key=lambda each: each[1], default=(0, float("nan")))


def metrics_of(
    clip: str,
    system: str,
    real: EvaluatedFrames,
    result: EvaluatedFrames,
    compared: Bool,
    landmarks: Float32,
    poses: Sequence[HeadPose],
) -> SystemMetrics:
    """Return the metrics of one system on one clip.

    Args:
        real: the real video.
        result: the same frames of the system.
        compared: bool [T], frames that every system drew. All metrics but `drawn` are of these frames.
        landmarks: float32 [T, 478, 3], of the real video, crop pixels.
        poses: of the real video.
    """
    mouths = [mouth_box(each.crops) for each in (real, result)]
    psnr = np.array([psnr_db(*pair) for pair in zip(*mouths, strict=True)])
    drawn = compared & np.isfinite(landmarks[:, 0, 0])
    similarity: list[float] = []
    jaw: list[float] = []
    upper: list[float] = []
    energies: list[list[float]] = []
    for t in np.flatnonzero(drawn).tolist():
        similarity.append(ssim(*(np.ascontiguousarray(each[t]) for each in mouths)))
        for values, part in zip((jaw, upper), face_parts(landmarks[t]), strict=True):
            if part.any():
                values.append(psnr_db(real.crops[t][part], result.crops[t][part]))
        energies.append([footage_patch(grey(each.frames[t]), poses[t], 1).energy() for each in (real, result)])
    error = mouths[1].astype(np.float32) - mouths[0]
    steps = np.abs(np.diff(error, axis=0)).mean(axis=(1, 2, 3))[drawn[1:] & drawn[:-1] & real.follows]
    between = np.append(False, drawn[2:] & drawn[1:-1] & drawn[:-2] & real.follows[1:] & real.follows[:-1])
    changes = [finite_mean(unexplained_change(each.crops)[:-1][between]) for each in (real, result)]
    openings = [np.where(drawn, each.track.opening, np.nan).astype(np.float32) for each in (real, result)]
    lag, best = best_lag(*openings)
    band = np.array(energies).reshape(-1, 2)
    band = band[np.isfinite(band).all(axis=1)].sum(axis=0)
    return SystemMetrics(
        clip=clip,
        system=system,
        drawn=float(result.drawn.mean()),
        mouth_psnr_db=finite_mean(psnr[drawn]),
        mouth_ssim=finite_mean(np.array(similarity)),
        lmd_px=finite_mean(landmark_distance(real.track, result.track)[drawn].astype(np.float64)),
        r=correlation(*openings),
        best_r=best,
        best_lag=float(lag),
        spread=spread_ratio(*openings),
        finest_band=float(band[1] / band[0]) if band[0] > 0.0 else float("nan"),
        cheek_jaw_psnr_db=finite_mean(np.array(jaw)),
        upper_psnr_db=finite_mean(np.array(upper)),
        flicker=finite_mean(steps),
        jitter=changes[1] / changes[0] if changes[0] > 0.0 else float("nan"),
    )


@dataclass(frozen=True, slots=True, eq=False)
class OurDubs:
    """Our dubs of the measured frames of a clip.

    Attributes:
        frames: T indices of the frames.
        poses: head poses there.
        dubbed: bool [T], whether the mouth is drawn.
        pictures: uint8 [T, H, W, 3] by the name of the row.
    """

    frames: list[int]
    poses: list[HeadPose]
    dubbed: Bool
    pictures: dict[str, UInt8]


def our_dubs(host: StageHost, clip: Path, work: Path, method: str) -> OurDubs:
    """Return our dubs of a clip. Frames that do not show the face are left out.

    Args:
        clip: the real video.
        work: folder for files.
        method: name of the method.

    Raises:
        DubstageError: the clip was refused, or a stage failed.
    """
    session = PipelineSession(host, clip, clip.name, work, method, EnrolOptions())
    try:
        frames: list[int] = []
        dubs: dict[str, list[UInt8]] = {name: [] for name in _VARIANTS}
        for fold in sorted(folds_of(session.num_frames, session.frame_rate), key=lambda fold: fold.test.start):
            actor = session.enrol(fold.enrol)
            frames += range(fold.test.start, fold.test.stop)
            for name, variant in _VARIANTS.items():
                dubs[name] += [dubbed for _, dubbed in session.pictures(actor, fold.test, variant, None)]
        shown = [index for index, frame in enumerate(frames) if np.isfinite(session.poses[frame]).all()]
        seen = [frames[index] for index in shown]
        if not seen:
            raise NoUsableFootageError(f"{clip} shows no face in its test parts", subject=str(clip))
        return OurDubs(
            seen,
            [pose_of_vector(session.poses[frame]) for frame in seen],
            session.usable[seen],
            {name: np.stack([each[index] for index in shown]) for name, each in dubs.items()},
        )
    finally:
        session.close()


def clip_metrics(host: StageHost, real: Path, systems: Mapping[str, Path], output: Path, method: str) -> list[SystemMetrics]:
    """Return the metrics of all systems on one clip, and write a strip of their mouths, `NAME.png`, to a folder.

    Args:
        real: the real video.
        systems: results of the other systems by name.
        output: folder for the strip.
        method: our method.

    Raises:
        InvalidRequestError: a result has another size than the real video, or fewer frames.
        DubstageError: the clip was refused, or a stage failed.
    """
    rate = inspect_video(real).video.average_rate
    with TemporaryDirectory(prefix="dubstage-peers-") as folder:
        work = Path(folder)
        ours = our_dubs(host, real, work, method)
        frames, poses = ours.frames, ours.poses
        shown = {REAL: frames_of(real), **{name: frames_of(path) for name, path in systems.items()}}
        for name, video in shown.items():
            if video.shape[1:] != shown[REAL].shape[1:] or len(video) <= max(frames):
                raise InvalidRequestError(
                    f"{systems[name]} has {len(video)} frames of {video.shape[2]} x {video.shape[1]} pixels, not the size and the "
                    f"frames of {real}",
                    field="FOLDER",
                )
        pictures = {name: video[frames] for name, video in shown.items()} | ours.pictures
        retrack = StageRetrack(host)
        sequences: dict[str, EvaluatedFrames] = {}
        landmarks: Float32 | None = None
        for name, before in pictures.items():
            after = encoded(before, rate, work / "encoded.mp4")
            crops = crops_of(after, poses)
            tracked = retrack(crops)
            landmarks = tracked if landmarks is None else landmarks
            drawn = ours.dubbed if name in ours.pictures else np.ones(len(frames), np.bool_)
            sequences[name] = EvaluatedFrames(after, crops, mouth_track(tracked), drawn, np.diff(frames) == 1)
        true_crops = crops_of(pictures[REAL], poses)
    assert landmarks is not None, "the real video is measured first"
    _write_strip(output / f"{real.stem}.png", sequences, poses)
    truth = replace(sequences[REAL], frames=pictures[REAL], crops=true_crops)
    compared = np.logical_and.reduce([each.drawn for each in sequences.values()])
    return [metrics_of(real.stem, name, truth, each, compared, landmarks, poses) for name, each in sequences.items()]


def _write_strip(path: Path, sequences: Mapping[str, EvaluatedFrames], poses: Sequence[HeadPose]) -> None:
    """Write the frames in which the real mouth moves most, a named row for each system, at the size of the video."""
    chosen = busiest_frames(sequences[REAL].track.opening)
    if chosen is None:
        return
    size = mouth_size(poses)
    rows: list[UInt8] = []
    for begin in range(chosen.start, chosen.stop, STRIP_COLUMNS):
        for name, each in sequences.items():
            row = []
            for t in range(begin, min(begin + STRIP_COLUMNS, chosen.stop)):
                row.append(mouth_part(each.frames[t], poses[t], size).copy())
            cv2.putText(row[0], name, (2, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 0), 1, cv2.LINE_AA)
            rows.append(np.stack(row))
    write_picture(path, stack_rows(rows))


@command_line
def main() -> int:
    """Measure all systems on the clips of a folder, print the tables, and write metrics and strips."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.peers", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="real videos NAME.mp4 and results NAME.SYSTEM.mp4")
    parser.add_argument("--clips", default="", metavar="NAME,...", help="names of the clips to measure; default: all")
    parser.add_argument("--method", default=DEFAULT_METHOD, help="our method; default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for strips and metrics.json")
    options = parser.parse_args()
    clips = peers_of(options.folder)
    wanted = set(names_in(options.clips))
    if unknown := wanted - {real.stem for real in clips}:
        raise InvalidRequestError(f"{options.folder} has no clip {', '.join(sorted(unknown))}", field="--clips")
    options.output.mkdir(parents=True, exist_ok=True)
    metrics: list[SystemMetrics] = []
    with StageHost(gateway_settings()) as host:
        for real, systems in clips.items():
            if wanted and real.stem not in wanted:
                continue
            metrics += clip_metrics(host, real, systems, options.output, options.method)
            write_json(
                options.output / "metrics.json",
                {"method": options.method, "rows": [document_of(row) for row in rows_of(metrics)]},
            )
    print(table(rows_of([*metrics, *means_of(metrics, "system")])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
