"""One clip with the pipeline under test: the gateway's own passes behind the evaluation's interface."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import soxr

from dubstage.common.v1alpha1 import common_pb2
from dubstage.face.v1alpha1 import face_pb2
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.evaluation.types import Float32, Float64, FrameRange, HeadMotion, Rendered, Speech, Uint8, Variant
from gateway.media import sound
from gateway.media.inspection import inspect_film
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo
from gateway.methods import method_named
from gateway.pipeline.analysis import enrol_from, frame_seconds, hear_footage, select_face, track_footage
from gateway.pipeline.enrol import EnrolledActor, EnrolOptions
from gateway.pipeline.faces import FaceChoice
from gateway.pipeline.messages import rational, reason_name, timeline_of
from gateway.pipeline.plan import DUBBED
from gateway.pipeline.records import FEATURE_RECORD, MOTION_RECORD, RecordFile, pose_of
from gateway.pipeline.rendering import runs_of
from gateway.pipeline.speech import extract_features, motion_frames_for, predict_motion
from gateway.pipeline.windows import RenderedWindow, WindowConfig, render_window, window_config
from gateway.pipeline.workspace import Workspace
from gateway.stages.host import StageHost
from services.common.arrays import from_tensor, to_rgb_image, to_tensor
from services.common.crops import BOX_ORIGIN, BOX_SIZE, CROP_SIZE, crop_from_frame
from services.common.errors import InvalidRequest, NoUsableFootage
from services.common.head_pose_vectors import POSE_SIZE, pose_vectors
from services.common.landmarks import NUM_LANDMARKS, mouth_opening
from services.common.timeline import MOTION_RATE

SPEECH_RATE_HZ: Final = 16000
LAG_FRAME_SAMPLES: Final = SPEECH_RATE_HZ // 25
OnProgress = Callable[[str, int, int], None]
"""Called with the pass, frames (or steps) done, and how many there are."""

_MODES: Final[dict[str, texture_pb2.WarpMode.ValueType]] = {
    "mean_mouth": texture_pb2.WARP_MODE_MEAN_MOUTH,
    "retrieval": texture_pb2.WARP_MODE_RETRIEVAL_ONLY,
    "tps": texture_pb2.WARP_MODE_THIN_PLATE_SPLINE,
}
_UNREFINED: Final = frozenset({"mean_mouth", "retrieval", "tps", "warp_network"})


@dataclass(frozen=True, slots=True)
class Handle:
    """An actor enrolled on one part of the clip."""

    actor: EnrolledActor
    single_frame_style: common_pb2.ArtefactRef
    lag_frames: int
    frames: FrameRange


def check_clip(path: Path) -> MediaInfo:
    """Return what a clip holds, if it is a film with sound.

    Raises:
        InvalidRequest: it has no sound.
        MediaUnsupported: it is no film that can be read.
    """
    info = inspect_film(path)
    if not info.audio:
        raise InvalidRequest(f"{path} has no sound: it can't be re-enacted from its own speech", field="clip")
    return info


class PipelineSession:
    """`SelfReenactment` of one clip by the pipeline.

    Methods that move the head are rendered in place too, on the truth's poses and backgrounds, so that their pictures can be held
    against it; their head motion is measured apart (`head_motion`).

    Args:
        host: runs the stages.
        path: the clip.
        name: in the result.
        folder: for this clip's record files.
        method: row of the method table.
        options: of the enrolments.
        on_progress: told of every frame and step.
    """

    def __init__(
        self,
        host: StageHost,
        path: Path,
        name: str,
        folder: Path,
        method: str,
        options: EnrolOptions,
        on_progress: OnProgress = lambda *_: None,
    ) -> None:
        self.clip = name
        self._host = host
        self._on_progress = on_progress
        self._method = method_named(method)
        self._options = options
        self._info = check_clip(path)
        self._workspace = Workspace(folder)
        total = self._info.video.num_frames
        self._index = host.run(
            track_footage(
                host.stages, self._info, self._workspace, threads=2, on_frame=lambda done: on_progress("track", done, total)
            )
        )
        face_id = host.run(
            select_face(host.stages, self._info, self._workspace, self._index, FaceChoice("largest"), self._method.features)
        )
        if face_id is None:
            raise NoUsableFootage(f"{path} shows no face", subject=str(path))
        self._face_id = face_id
        self._rows = self._index.rows_of(face_id)
        host.run(hear_footage(host.stages, self._info, self._workspace, self._method.features))
        self._poses = np.full((self.num_frames, POSE_SIZE), np.nan)
        self._crops, self._reasons = self._truth_crops()
        self._speech = self._own_speech()
        self._motions: dict[tuple[str, str, bool], npt.NDArray[Any]] = {}

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""
        return self._info.video.num_frames

    @property
    def frame_rate(self) -> Fraction:
        """Average frames a second."""
        return self._info.video.average_rate

    @property
    def frame_seconds(self) -> Float64:
        """Presentation time of every frame from the first, seconds, float64 [T]."""
        return frame_seconds(self._info)

    @property
    def speech(self) -> Float32:
        """The clip's own sound, 16 kHz mono."""
        return self._speech

    def close(self) -> None:
        """Close the record files."""
        self._workspace.close()

    def truth(self, frames: FrameRange) -> Rendered:
        """Face crops of the footage."""
        return Rendered(self._crops[frames.start : frames.stop], self._reasons[frames.start : frames.stop])

    def enrol(self, frames: FrameRange) -> Handle:
        """An actor from these frames alone."""
        job = enrol_from(
            self._host.stages,
            self._method,
            self._info,
            self._workspace,
            self._index,
            self._face_id,
            self._options,
            lambda name, done, total: self._on_progress(f"enrol {name}", done, total),
            range(frames.start, frames.stop),
        )
        actor = self._host.run(job)
        still = np.repeat(actor.geometry.mean_mouth[None], 50, axis=0)
        request = motion_pb2.EncodeStyleRequest(
            method=self._method.motion,
            mouth_landmarks=to_tensor(np.ascontiguousarray(still)),
            usable=to_tensor(np.ones(len(still), np.bool_)),
            frame_rate=rational(Fraction(MOTION_RATE)),
            head_poses=to_tensor(np.repeat(actor.pose[None], len(still), axis=0)) if self._method.moves_head else None,
        )
        style = self._host.run(self._host.stages.encode_style(request)).style
        return Handle(actor, style, actor.lag_frames or 0, frames)

    def render(self, actor: Handle, frames: FrameRange, variant: Variant, speech: Speech | None) -> Rendered:
        """Dub a range; see `gateway.evaluation.types.Variant`."""
        mouths = self._mouths(actor, variant, speech)
        warp = _MODES.get(variant, texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK)
        config = (
            WindowConfig(bank=actor.actor.bank, renderer=None, model="", mode=warp)
            if variant in _UNREFINED
            else window_config(self._method, actor.actor, warp)
        )
        usable = np.array([reason == "" for reason in self._reasons])
        windows = [
            self._host.run(self._window(actor, config, run, mouths)) for run in runs_of(usable, range(frames.start, frames.stop))
        ]
        crops = self._crops[frames.start : frames.stop].copy()
        commanded = np.full(len(frames), np.nan, np.float32)
        for window in windows:
            for place, index in enumerate(window.frame):
                crops[index - frames.start] = insert_box(self._crops[index], window.box[place], window.mask[place])
                commanded[index - frames.start] = mouth_opening(window.landmarks[place])
        diagnostics = _diagnostics(windows)
        return Rendered(crops, self._reasons[frames.start : frames.stop], commanded, diagnostics)

    def head_motion(self, actor: Handle, frames: FrameRange) -> HeadMotion | None:
        """Head motion of a film that speaks as the range does, on backgrounds of the enrolment part; None where heads stay."""
        if not self._method.moves_head:
            return None
        predicted = self._motion(actor, "full", None)["pose"][frames.start : frames.stop]
        shown = slice(actor.frames.start, actor.frames.stop)
        footage = self._poses[shown]
        usable = np.array([reason == "" for reason in self._reasons[shown]]) & np.isfinite(footage).all(axis=1)
        request = texture_pb2.MatchBackgroundsRequest(
            footage_poses=to_tensor(np.where(usable[:, None], footage, actor.actor.pose)),
            usable=to_tensor(usable),
            shot_cuts=[cut - shown.start for cut in self._index.shot_cuts if shown.start < cut < shown.stop],
            predicted_poses=to_tensor(np.ascontiguousarray(predicted)),
        )
        chosen = np.array(self._host.run(self._host.stages.match_backgrounds(request)).frame_indices, np.int64) + shown.start
        return HeadMotion(
            real=self._poses[frames.start : frames.stop],
            predicted=predicted,
            output=self._poses[chosen],
            known=footage[usable],
            backgrounds=chosen,
        )

    async def _window(self, actor: Handle, config: WindowConfig, run: range, mouths: npt.NDArray[np.float32]) -> RenderedWindow:
        first = run.start
        while first > max(0, run.start - config.context_frames) and self._reasons[first - 1] == "":
            first -= 1
        records = self._workspace.faces.read_rows(self._rows[first : run.stop].tolist())
        wanted = np.arange(first, run.stop) >= run.start
        return await render_window(self._host.stages, config, actor.actor.geometry, records, mouths[first : run.stop], wanted)

    def _mouths(self, actor: Handle, variant: Variant, speech: Speech | None) -> npt.NDArray[np.float32]:
        """Wanted mouths of every frame of the clip, float32 [T, 59, 3]."""
        if variant == "oracle_full":
            rows = np.maximum(self._rows, 0).tolist()
            return np.asarray(self._workspace.faces.read_rows(rows)["mouth"], np.float32)
        return np.asarray(self._motion(actor, variant, speech)["mouth"], np.float32)

    def _motion(self, actor: Handle, variant: Variant, speech: Speech | None) -> npt.NDArray[Any]:
        """Predicted MOTION_RECORDs of every frame of the clip."""
        style = actor.single_frame_style if variant == "single_frame" else actor.actor.style
        name = speech.name if speech is not None else ""
        key = (name, style.sha256, variant == "no_style")
        if key not in self._motions:
            samples = speech.samples if speech is not None else shifted(self._speech, actor.lag_frames)
            self._motions[key] = self._host.run(self._predict(samples, style, variant == "no_style"))
        return self._motions[key]

    async def _predict(self, samples: Float32, style: common_pb2.ArtefactRef, without_style: bool) -> npt.NDArray[Any]:
        stages, info = self._host.stages, self._info
        folder = self._workspace.folder
        with (
            RecordFile(folder / "evaluated.features", FEATURE_RECORD) as features,
            RecordFile(folder / "evaluated.motion", MOTION_RECORD) as motion,
        ):
            features.clear()
            motion.clear()
            spoken = sound.Speech(SPEECH_RATE_HZ, 1, [samples[:, None]])
            duration = info.video.duration
            await extract_features(stages, spoken, features, motion_frames_for(duration), duration, self._method.features)
            await predict_motion(
                stages,
                self._method.motion,
                style,
                features,
                timeline_of(info),
                info.video.num_frames,
                motion,
                without_style=without_style,
            )
            return motion.read(0, motion.num_rows)

    def _truth_crops(self) -> tuple[Uint8, tuple[str, ...]]:
        crops = np.zeros((self.num_frames, CROP_SIZE, CROP_SIZE, 3), np.uint8)
        reasons: list[str] = []
        with VideoReader(self._info) as reader:
            for frame in reader:
                row = int(self._rows[frame.index])
                if row < 0:
                    reasons.append("TARGET_NOT_PRESENT")
                    continue
                (record,) = self._workspace.faces.read(row, row + 1)
                self._poses[frame.index] = pose_vectors([pose_of(record)])[0]
                reason = reason_name(record["reason"])
                reasons.append("" if record["reason"] == DUBBED else reason)
                affine = crop_from_frame(pose_of(record))
                crop = cv2.warpAffine(
                    to_rgb(frame),
                    affine,
                    (CROP_SIZE, CROP_SIZE),
                    flags=cv2.INTER_AREA if record["scale"] > 1 else cv2.INTER_CUBIC,
                    borderMode=cv2.BORDER_REPLICATE,
                )
                x, y = BOX_ORIGIN
                crop[y : y + BOX_SIZE, x : x + BOX_SIZE] = record["pixels"]
                crops[frame.index] = crop
        return crops, tuple(reasons)

    def _own_speech(self) -> Float32:
        reader = sound.SoundReader(self._info.path, origin=self._info.video.start)
        samples = np.concatenate([chunk.samples for chunk in reader]).mean(axis=1)
        mono = soxr.resample(samples, reader.info.sample_rate_hz, SPEECH_RATE_HZ)
        length = int(self._info.video.duration * SPEECH_RATE_HZ)
        fitted = np.zeros(length, np.float32)
        fitted[: min(length, len(mono))] = mono[:length]
        return fitted


def shifted(samples: Float32, lag_frames: int) -> Float32:
    """Speech moved earlier by a lag (frames of 40 ms), so that sound and picture of a lagging clip agree; same length."""
    moved = np.zeros_like(samples)
    offset = lag_frames * LAG_FRAME_SAMPLES
    if offset >= 0:
        moved[: len(samples) - offset] = samples[offset:]
    else:
        moved[-offset:] = samples[:offset]
    return moved


def insert_box(crop: Uint8, box: Uint8, mask: Uint8) -> Uint8:
    """A face crop with a finished render box in it, as the compositing does in the footage's planes."""
    result = crop.copy()
    x, y = BOX_ORIGIN
    region = result[y : y + BOX_SIZE, x : x + BOX_SIZE]
    weight = mask[..., None].astype(np.float32) / 255.0
    region[...] = np.rint(region * (1.0 - weight) + box * weight).astype(np.uint8)
    return result


def _diagnostics(windows: list[RenderedWindow]) -> dict[str, float]:
    if not windows:
        return {}
    return {
        "fitting_error": float(np.concatenate([window.fitting_error for window in windows]).mean()),
        "bending_energy": float(np.concatenate([window.bending_energy for window in windows]).mean()),
    }


class StageRetrack:
    """Face tracker on crops, by the face stage without smoothing."""

    def __init__(self, host: StageHost) -> None:
        self._host = host

    def __call__(self, crops: Uint8) -> Float32:
        """uint8 [T, 256, 256, 3] to landmarks float32 [T, 478, 3], NaN where no face is found."""
        return self._host.run(self._track(crops))

    async def _track(self, crops: Uint8) -> Float32:
        async def requests() -> AsyncIterator[face_pb2.TrackRequest]:
            config = face_pb2.TrackConfig(timeline=common_pb2.Timeline(frame_rate=rational(Fraction(MOTION_RATE))), max_faces=1)
            config.smoothing_half_width = 0
            yield face_pb2.TrackRequest(config=config)
            for index, crop in enumerate(crops):
                chunk = face_pb2.FrameChunk(frame_index=index, image=to_rgb_image(np.ascontiguousarray(crop)))
                yield face_pb2.TrackRequest(frame=chunk)

        landmarks = np.full((len(crops), NUM_LANDMARKS, 3), np.nan, np.float32)
        async for reply in self._host.stages.track(requests()):
            for frame in reply.frames:
                if frame.faces:
                    landmarks[frame.frame_index] = from_tensor(
                        frame.faces[0].landmarks, "landmarks", dtype=np.float32, shape=(NUM_LANDMARKS, 3)
                    )
        return landmarks
