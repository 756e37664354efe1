"""Quality of dubs by the turn of the head: `python -m research.bench.rotations CLIP... --output FOLDER`.

Each frame of a real, nearly frontal video becomes a surface with the depth of the person's morphable model
(services/texture/portrait.py), the head is turned to the side by a planted angle, and the surface is drawn again, nearer parts
before farther ones. So person, mouths, sound and light are the same at every angle, and the true mouths are known: those of the
real video. What the real camera did not see, such as the ear, is stretched.

For each angle the table says how the turned video is tracked, beside the true mouths, and how it is dubbed with its own sound,
beside itself (research.evaluation.protocol.evaluate_clip: enrolled on one part, tested on the other).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import av
import cv2
import numpy as np

from gateway.cli.options import gateway_settings
from gateway.dub.choices import EnrolOptions
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.learn.enrol import fit_identity
from gateway.dub.state.records import pose_of
from gateway.dub.state.workspace import Workspace
from gateway.media.reader import VideoReader, to_rgb
from research.bench.runs import add_h264, document_of, rows_of, table, tell, write_json
from research.evaluation.clip import mouths_of, open_clip
from research.evaluation.measures import finite_mean, means_of
from research.evaluation.mouth_metrics import spread_ratio
from research.evaluation.protocol import EvaluationSettings, evaluate_clip
from research.evaluation.session import PipelineSession
from research.evaluation.sync import StageRetrack
from research.evaluation.types import Variant
from research.stage_host import StageHost
from research.training.command import command_line
from services.common.array_types import Float32, Float64, Int32, UInt8
from services.common.errors import NoUsableFootageError
from services.common.face.crops import HeadPose, to_frame, to_head_space
from services.common.face.identity import FaceIdentity, identity_from_arrays
from services.common.face.landmarks import mouth_opening
from services.common.geometry.morphable_model import default_model
from services.common.geometry.rasterise import interpolate, rasterise
from services.common.geometry.rotations import euler_from_matrix, matrix_from_euler
from services.common.methods import DEFAULT_METHOD
from services.common.stderr import log_lines_on_stderr
from services.common.store.artefacts import ArtefactStore
from services.common.wire.convert import ref_from_proto
from services.common.wire.mouth_curves import correlation
from services.texture.portrait import portrait_depth

ANGLES: Final = (0.0, 15.0, 30.0, 45.0, 55.0, 65.0)
"""Planted turns to the side, degrees."""
CRF: Final = 12
"""Quality of the turned videos (x264)."""
VARIANTS: Final[tuple[Variant, ...]] = ("mean_mouth", "full_aligned", "oracle_full")


@dataclass(frozen=True, slots=True)
class AngleMetrics:
    """Metrics of one clip at one angle, or means over clips. NaN: not measured.

    Attributes:
        clip: name of the clip.
        angle: planted turn, degrees.
        yaw: mean true angle of the head against the camera, degrees, without sign: the person moves the head too.
        tracked_yaw: the same as the face stage measures it.
        dubbed: share of the frames that are dubbed, 0 to 1.
        tracked_r: correlation of the tracked opening of the mouth with the true opening.
        tracked_spread: standard deviation of the tracked opening over that of the true opening.
        r: correlation of the opening of the dubbed mouth, tracked again, with that of the turned video, without the clip's lag.
        spread: standard deviation of that opening over that of the turned video.
        lmd_over_m: distance of the lip points over that of the person's mean mouth.
        psnr_over_m_db: PSNR of the mouth box less that of the person's mean mouth, decibels.
        oracle_psnr_over_m_db: the same with the turned video's own mouths: what rendering alone loses.
    """

    clip: str
    angle: float
    yaw: float
    tracked_yaw: float
    dubbed: float
    tracked_r: float
    tracked_spread: float
    r: float
    spread: float
    lmd_over_m: float
    psnr_over_m_db: float
    oracle_psnr_over_m_db: float


@dataclass(frozen=True, slots=True, eq=False)
class FrontalClip:
    """A tracked clip, and the shape of its person.

    Attributes:
        analysis: the tracked clip.
        identity: the person on the morphable model.
    """

    analysis: FootageAnalysis
    identity: FaceIdentity

    def record(self, frame: int) -> Any | None:
        """Return the FACE_RECORD of the person in a frame; None: the frame does not show the person."""
        row = int(self.analysis.rows[frame])
        return self.analysis.workspace.faces.read_rows([row])[0] if row >= 0 else None


async def analyse(host: StageHost, clip: Path, folder: Path) -> FrontalClip:
    """Track a clip, and fit the shape of its largest face.

    Args:
        folder: folder for record files.

    Raises:
        NoUsableFootageError: the clip shows no face.
        DubstageError: the clip was refused, or a stage failed.
    """
    analysis = await open_clip(host.stages, clip, "portrait", Workspace(folder), lambda *_: None)
    rows = [row for row in analysis.rows.tolist() if row >= 0]
    ref = await fit_identity(host.stages, analysis.info, analysis.workspace.faces, rows, lambda *_: None)
    stored = ArtefactStore(gateway_settings().artefacts_url).get_arrays(ref_from_proto(ref, "identity"))
    return FrontalClip(analysis, identity_from_arrays(stored, default_model()))


def turned_pose(pose: HeadPose, angle: float) -> HeadPose:
    """Return a head pose turned about the vertical axis of the picture.

    Args:
        angle: degrees.
    """
    turn = np.asarray(matrix_from_euler(np.array([0.0, np.radians(angle), 0.0])), np.float64)
    return HeadPose(pose.scale, turn @ pose.rotation, pose.translation)


def turned_picture(picture: UInt8, landmarks: Float32, pose: HeadPose, target: HeadPose, identity: FaceIdentity) -> UInt8:
    """Return a picture with its head in another pose, uint8 [H, W, 3].

    Args:
        picture: uint8 [H, W, 3], RGB.
        landmarks: float32 [478, 3], pixels of the picture.
        pose: head pose in the picture.
        target: head pose to draw, in the same pixels.
        identity: the person on the default morphable model.
    """
    height, width = picture.shape[:2]
    surface = portrait_depth((height, width), landmarks, pose, identity, default_model())
    rows, columns = surface.depth.shape
    nodes = np.stack(np.meshgrid(np.arange(columns) * surface.step, np.arange(rows) * surface.step), axis=-1)
    points = np.dstack([nodes, surface.depth]).astype(np.float64)
    moved = to_frame(to_head_space(points, pose), target)
    points += surface.share[..., None] * (moved - points)
    triangles = grid_triangles(rows, columns)
    seen = rasterise(points[..., :2].reshape(1, -1, 2), points[..., 2].reshape(1, -1), triangles, height, width, cull="back")
    source = interpolate(seen, nodes.reshape(1, -1, 2), triangles)[0]
    drawn = cv2.remap(picture, source[..., 0], source[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.where(seen.covered[0][..., None], drawn, picture), np.uint8)


def grid_triangles(rows: int, columns: int) -> Int32:
    """Return the triangles of a grid of nodes, int32 [F, 3], which turn counter-clockwise on screen."""
    node = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    left, right, below, across = (part.ravel() for part in (node[:-1, :-1], node[:-1, 1:], node[1:, :-1], node[1:, 1:]))
    return np.concatenate([np.stack([left, below, right], 1), np.stack([right, below, across], 1)])


def write_turned(clip: FrontalClip, angle: float, path: Path) -> Float64:
    """Write a clip with its head turned, with the sound of the clip, and return the true yaw of every frame, float64 [T], degrees.

    Args:
        angle: planted turn, degrees.
        path: file to write.
    """
    info = clip.analysis.info
    yaw = np.full(info.video.num_frames, np.nan)

    def pictures() -> Iterator[UInt8]:
        with VideoReader(info) as reader:
            for frame in reader.frames(0, info.video.num_frames):
                picture, record = to_rgb(frame), clip.record(frame.index)
                if record is not None:
                    pose = pose_of(record)
                    target = turned_pose(pose, angle)
                    yaw[frame.index] = _yaw_degrees(target)
                    picture = turned_picture(picture, record["landmarks"], pose, target, clip.identity)
                yield picture

    with av.open(str(info.path)) as original, av.open(str(path), "w") as container:
        voice = original.streams.audio[0]
        video = add_h264(container, info.video.average_rate, info.video.width, info.video.height, crf=CRF, preset="veryfast")
        sound = container.add_stream_from_template(voice)
        for packet in original.demux(voice):
            if packet.dts is not None:
                packet.stream = sound
                container.mux(packet)
        for picture in pictures():
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
    return yaw


def _yaw_degrees(pose: HeadPose) -> float:
    return float(np.degrees(np.asarray(euler_from_matrix(pose.rotation), np.float64)[1]))


def angle_metrics(host: StageHost, name: str, angle: float, turned: Path, truth: Float32, yaw: Float64) -> AngleMetrics:
    """Return the metrics of a turned clip.

    Args:
        name: name of the clip.
        angle: planted turn, degrees.
        turned: the turned clip.
        truth: float32 [T, 59, 3], the true mouths; NaN where the clip does not show the person.
        yaw: float64 [T], the true yaw, degrees.

    Raises:
        DubstageError: the clip was refused, or a stage failed.
    """
    with TemporaryDirectory(prefix="dubstage-rotations-") as folder:
        session = PipelineSession(host, turned, name, Path(folder), DEFAULT_METHOD, EnrolOptions())
        try:
            shown = np.isfinite(session.poses).all(axis=1) & np.isfinite(truth[:, 0, 0])
            mouths, seen_yaw = session.mouths(), session.poses[:, 1]
            opening, real = (np.where(shown, mouth_opening(each), np.nan).astype(np.float32) for each in (mouths, truth))
            dubbed = float(session.usable.mean())
            try:
                result = evaluate_clip(
                    session, StageRetrack(host), settings=EvaluationSettings(variants=VARIANTS, only_fold=0, sample_count=0)
                )
                variants: Mapping[str, Mapping[str, float]] = {key: each.metrics for key, each in result.variants.items()}
            except NoUsableFootageError as problem:
                tell(f"{name} at {angle:g} degrees: {problem}")
                variants = {}
        finally:
            session.close()

    def metric(variant: Variant, key: str) -> float:
        return variants.get(variant, {}).get(key, float("nan"))

    still = metric("mean_mouth", "mouth_psnr_db")
    return AngleMetrics(
        clip=name,
        angle=angle,
        yaw=finite_mean(np.abs(yaw)),
        tracked_yaw=finite_mean(np.abs(np.degrees(seen_yaw))),
        dubbed=dubbed,
        tracked_r=correlation(real, opening),
        tracked_spread=spread_ratio(real, opening),
        r=metric("full_aligned", "mouth_opening_correlation"),
        spread=metric("full_aligned", "opening_spread_ratio"),
        lmd_over_m=metric("full_aligned", "mouth_lmd_px") / metric("mean_mouth", "mouth_lmd_px"),
        psnr_over_m_db=metric("full_aligned", "mouth_psnr_db") - still,
        oracle_psnr_over_m_db=metric("oracle_full", "mouth_psnr_db") - still,
    )


@command_line
def main() -> int:
    """Turn the clips, measure every angle, print the tables, and write the turned videos and rotations.json."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.rotations", description=__doc__)
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="videos with sound of one nearly frontal person each")
    parser.add_argument("--angles", type=float, nargs="+", default=ANGLES, metavar="DEGREES", help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for turned videos and rotations.json")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    metrics: list[AngleMetrics] = []
    with StageHost(gateway_settings()) as host:
        for clip in options.clips:
            with TemporaryDirectory(prefix="dubstage-rotations-") as folder:
                frontal = host.run(analyse(host, clip, Path(folder)))
                truth = mouths_of(frontal.analysis)
                for angle in options.angles:
                    turned = options.output / f"{clip.stem}_{angle:+g}.mp4"
                    yaw = write_turned(frontal, angle, turned)
                    metrics.append(angle_metrics(host, clip.stem, angle, turned, truth, yaw))
                    write_json(options.output / "rotations.json", [document_of(row) for row in rows_of(metrics)])
                frontal.analysis.workspace.close()
    print(table(rows_of([*metrics, *means_of(metrics, "angle")])))
    return 0


if __name__ == "__main__":
    with log_lines_on_stderr("warning"):
        sys.exit(main())
