"""Self-re-enactment of one clip by the pipeline: the passes of the gateway behind the interface of the evaluation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from google.protobuf.message import Message

from dubstage.client import rpcs
from dubstage.client import texture as texture_client
from dubstage.client.rpcs import Stream
from dubstage.common.v1 import common_pb2
from dubstage.render.v1 import render_pb2
from dubstage.texture.v1 import texture_pb2
from gateway.dub.analyse.motion_clip import MotionClip
from gateway.dub.analyse.shot_looks import ShotLooks
from gateway.dub.choices import EnrolOptions
from gateway.dub.convert import timeline_of
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.learn.enrol import EnrolledActor, encode_style
from gateway.dub.learn.slow_expression import footage_mouths, slow_expression, with_slow_expression
from gateway.dub.progress import OnProgress
from gateway.dub.render.all_windows import VideoInputs
from gateway.dub.render.composite import composite_frame
from gateway.dub.render.windows import WARP, RenderedWindow, WindowConfig, window_config
from gateway.dub.sound.speech import AlignedSpeech, MotionRequest, extract_features, motion_frames_for, predict_motion
from gateway.dub.state.records import FEATURE_RECORD, MOTION_RECORD, RecordFile, pose_of
from gateway.dub.state.workspace import Workspace
from gateway.media.background import blank_picture
from gateway.media.reader import VideoReader, plane_views, to_rgb
from gateway.media.sound import Speech as Sound
from gateway.stages.interface import Stages
from gateway.stages.timing import StageClock, TimedStages
from research.evaluation.clip import (
    SILENCE_S,
    SPEECH_RATE_HZ,
    finished_box,
    framed_speech,
    insert_box,
    mouths_of,
    open_clip,
    own_speech,
    shifted,
    truth_of,
)
from research.evaluation.strips import mouth_part, mouth_size
from research.evaluation.types import EvaluatedSpeech, FramedMotion, FrameRange, HeadMotion, Rendered, Variant
from research.stage_host import StageHost
from services.common.array_types import Array, Bool, Float32, Float64, UInt8
from services.common.face.landmarks import mouth_opening
from services.common.methods import Finish, RendererSpec, TextureInput
from services.common.wire.convert import timeline_to_proto
from services.common.wire.mouth_curves import SPOKEN_FROM, TRIGGERS, Trigger, phone_times
from services.common.wire.timeline import MOTION_RATE, Timeline

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_MODES: Final[dict[str, texture_pb2.WarpMode.ValueType]] = {
    "mean_mouth": texture_pb2.WARP_MODE_MEAN_MOUTH,
    "retrieval": texture_pb2.WARP_MODE_RETRIEVAL_ONLY,
    "tps": texture_pb2.WARP_MODE_THIN_PLATE_SPLINE,
    "tps_refined": texture_pb2.WARP_MODE_THIN_PLATE_SPLINE,
}
_STILL_FRAMES: Final = 50
"""Frames of the motionless clip that the style of the variant `single_frame` is encoded from."""
_UNREFINED: Final = frozenset({"mean_mouth", "retrieval", "tps", "warp_network"})
"""Variants that show the texture without the renderer."""
_NO_RENDERER: Final = RendererSpec(name="none", texture=TextureInput.WARPED)
_KEPT: Final = frozenset({"full_kept", "wrong_audio_kept"})
"""Variants with the slow expression of the real video. As in a dub, the video's mouths are explained by the video's own sound,
moved by its lag."""
_ALIGNED: Final = frozenset({"full_aligned", "oracle_full"})
"""Variants with the clip's speech moved by the lag. In `oracle_full` it is for renderers that take speech: it fits real mouths."""


class TextureStages(TimedStages):
    """Stages whose renderer answers the warped texture itself.

    Args:
        stages: the stages that answer all other calls.
    """

    def __init__(self, stages: Stages) -> None:
        super().__init__(stages, StageClock())

    def stream(self, rpc: Stream[Q, R], requests: AsyncIterator[Q]) -> AsyncIterator[R]:
        """Send many requests and yield many responses, at the same time."""
        return _textures_of(requests) if rpc is rpcs.render.RENDER else super().stream(rpc, requests)


async def _textures_of(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        frame = request.frame
        if request.HasField("frame") and not frame.context_only:
            yield render_pb2.RenderResponse(frame_index=frame.frame_index, box=frame.texture)


@dataclass(frozen=True, slots=True)
class EnrolledClip:
    """An actor that is enrolled on one part of the clip.

    Attributes:
        actor: what was learned of the person.
        single_frame_style: style of a clip that shows the mean mouth without motion.
        lag_frames: frames of 40 ms by which the sound comes after the picture, to a quarter of a frame; 0 if unknown.
        frames: the part of the clip.
    """

    actor: EnrolledActor
    single_frame_style: common_pb2.ArtefactRef
    lag_frames: float
    frames: FrameRange

    @property
    def lag_doubt(self) -> str:
        """Why the lag is not applied; empty: the lag is applied, or nothing was measured."""
        return self.actor.lag_doubt

    @property
    def num_bytes(self) -> int:
        """Bytes of the actor's artefacts."""
        return sum(ref.size_bytes for ref in self.actor.refs.values())


@dataclass(frozen=True, slots=True, eq=False)
class _Predicted:
    """Results of one speech for every frame of a clip.

    Attributes:
        records: MOTION_RECORDs [T], the predicted motion.
        speech_context: float32 [T, 20, 40], speech features for the renderer; None: the renderer takes none.
    """

    records: Array
    speech_context: Float32 | None


class PipelineSession:
    """`SelfReenactment` of one clip by the pipeline.

    Methods that move the head are rendered in place too, on the poses and backgrounds of the real video, so that their pictures can
    be compared with the real video. Their head motion is measured separately (`head_motion`).

    Args:
        host: runs the stages.
        name: name of the clip in the result.
        folder: folder for the record files of the clip.
        method: name of the method.
        options: which parts of the enrolments are done.
        finish: whose pixels the mouths show; None: the method decides.
        enrol_frames: usable frames, the first ones of its part, that each enrolment makes bank, identity and renderer from;
            None: all. Style and lag are always learned from all.
        on_progress: called with every frame and step.
    """

    def __init__(
        self,
        host: StageHost,
        path: Path,
        name: str,
        folder: Path,
        method: str,
        options: EnrolOptions,
        *,
        finish: Finish | None = None,
        enrol_frames: int | None = None,
        on_progress: OnProgress = lambda *_: None,
    ) -> None:
        self.clip = name
        self._host = host
        self._on_progress = on_progress
        self._options = options
        self._finish = finish
        self._enrol_frames = enrol_frames
        self._shot = host.run(self._opened(path, method, Workspace(folder)))
        self._rows = self._shot.rows
        self._truth = truth_of(self._shot)
        self._usable = np.array([reason == "" for reason in self._truth.reasons])
        self._speech = own_speech(self._shot.info)
        self._motions: dict[tuple[str, str, bool], _Predicted] = {}

    async def _opened(self, path: Path, method: str, workspace: Workspace) -> FootageAnalysis:
        """Return the clip, tracked and with its features, with its largest face selected."""
        shot = await open_clip(self._host.stages, path, method, workspace, self._on_progress)
        await shot.extract_sound()
        return shot

    @property
    def num_frames(self) -> int:
        """Number of frames of the clip."""
        return self._shot.info.video.num_frames

    @property
    def frame_rate(self) -> Fraction:
        """Average frames per second."""
        return self._shot.info.video.average_rate

    @property
    def frame_seconds(self) -> Float64:
        """Presentation time of every frame from the first frame, seconds, float64 [T]."""
        return self._shot.seconds

    @property
    def speech(self) -> Float32:
        """Sound of the clip, float32 [N], 16 kHz mono."""
        return self._speech

    @property
    def poses(self) -> Float64:
        """Head-pose vectors of every frame, float64 [T, 6], NaN where the frame does not show the face."""
        return self._truth.poses

    def mouths(self) -> Float32:
        """Return the tracked mouths of every frame, float32 [T, 59, 3], head space, NaN where the frame does not show the face."""
        return mouths_of(self._shot)

    @property
    def usable(self) -> Bool:
        """For each frame, whether the frame is dubbed, bool [T]."""
        return self._usable

    def close(self) -> None:
        """Close the record files."""
        self._shot.workspace.close()

    def truth(self, frames: FrameRange) -> Rendered:
        """Return face crops of the real video."""
        patches = self._truth.native.patches[frames.start : frames.stop]
        energy = np.array([patch.energy() if patch is not None else np.nan for patch in patches])
        part = slice(frames.start, frames.stop)
        return Rendered(self._truth.crops[part], self._truth.reasons[part], native_energy=energy)

    def enrol(self, frames: FrameRange) -> EnrolledClip:
        """Return an actor that is learned from these frames only."""
        actor = self._host.run(
            self._shot.enrol(
                self._options,
                lambda name, done, total: self._on_progress(f"enrol {name}", done, total),
                range(frames.start, frames.stop),
                most=self._enrol_frames,
            )
        )
        still = MotionClip(
            np.repeat(actor.geometry.mean_mouth[None], _STILL_FRAMES, axis=0),
            np.ones(_STILL_FRAMES, np.bool_),
            np.repeat(actor.pose[None], _STILL_FRAMES, axis=0),
        )
        style = self._host.run(encode_style(self._host.stages, self._shot.method, still))
        return EnrolledClip(actor, style, (actor.lag_frames or 0) + actor.lag_fraction, frames)

    def predict(self, actor: EnrolledClip) -> None:
        """Predict the motion of every frame of `full`, which renders use from then on."""
        self._motion(actor, "full", None)

    def render(self, actor: EnrolledClip, frames: FrameRange, variant: Variant, speech: EvaluatedSpeech | None) -> Rendered:
        """Return the dubbed face crops of a range of frames (see `research.evaluation.types.Variant`)."""
        native = self._truth.native
        windows = self._windows(actor, frames, variant, speech)
        crops = self._truth.crops[frames.start : frames.stop].copy()
        commanded = np.full(len(frames), np.nan, np.float32)
        energy = np.full(len(frames), np.nan)
        for window in windows:
            for index, frame in enumerate(window.frame):
                mouth = window.mouth(index)
                box, luma = finished_box(mouth.box, mouth.mask, mouth.skin, mouth.detail, native.luma[frame])
                crops[frame - frames.start] = insert_box(self._truth.crops[frame], box, mouth.mask, mouth.shift)
                energy[frame - frames.start] = native.energy_of(frame, luma, mouth.mask)
                commanded[frame - frames.start] = mouth_opening(window.landmarks[index])
        diagnostics = _diagnostics(windows)
        return Rendered(crops, self._truth.reasons[frames.start : frames.stop], commanded, energy, diagnostics)

    def native_mouths(
        self, actor: EnrolledClip, frames: FrameRange, variant: Variant, speech: EvaluatedSpeech | None
    ) -> tuple[UInt8, UInt8]:
        """Return the mouths of a range at the size of the video, before and after the dub, uint8 [T, H, W, 3] each, RGB.

        The frames are composited as in a dub, without watermark, and not encoded. Every frame must show the face.
        """
        rows = self._rows[frames.start : frames.stop].tolist()
        poses = [pose_of(record) for record in self._shot.workspace.faces.read_rows(rows)]
        size = mouth_size(poses)
        before, after = [], []
        for pose, (shown, dubbed) in zip(poses, self.pictures(actor, frames, variant, speech), strict=True):
            # Copies, or every whole frame would stay in memory.
            before.append(mouth_part(shown, pose, size).copy())
            after.append(mouth_part(dubbed, pose, size).copy())
        return np.stack(before), np.stack(after)

    def pictures(
        self, actor: EnrolledClip, frames: FrameRange, variant: Variant, speech: EvaluatedSpeech | None
    ) -> Iterator[tuple[UInt8, UInt8]]:
        """Yield the frames of a range, before and after the dub, uint8 [H, W, 3] each, RGB.

        The frames are composited as in a dub, without watermark, and not encoded. Frames that are not usable stay as they are.
        """
        info = self._shot.info
        windows = self._windows(actor, frames, variant, speech)
        mouths = {int(number): window.mouth(index) for window in windows for index, number in enumerate(window.frame)}
        with VideoReader(info) as reader:
            for frame in reader.frames(frames.start, frames.stop):
                shown, dubbed = to_rgb(frame), to_rgb(frame)
                if frame.index in mouths:
                    (record,) = self._shot.workspace.faces.read_rows([int(self._rows[frame.index])])
                    planes, _ = composite_frame(frame, info, pose_of(record), mouths[frame.index])
                    picture = blank_picture(info.video)
                    for target, plane in zip(plane_views(picture, info.video, writable=True), planes, strict=True):
                        np.copyto(target, plane)
                    dubbed = to_rgb(replace(frame, planes=planes, picture=picture))
                yield shown, dubbed

    def _windows(
        self, actor: EnrolledClip, frames: FrameRange, variant: Variant, speech: EvaluatedSpeech | None
    ) -> list[RenderedWindow]:
        """Return the rendered mouths of a range of frames."""
        mouths = self._mouths(actor, variant, speech)
        speech_context = self._motion(actor, variant, speech).speech_context if self._shot.method.renderer.speech else None
        scale = 0 if variant == "no_detail" else self._truth.native.scale
        config = window_config(self._shot.method, actor.actor, detail_scale=scale, finish=self._finish)
        if variant == "as_drawn":
            config = replace(config, as_drawn=True)
        stages = self._host.stages
        if variant in _UNREFINED:
            stages = TextureStages(stages)
            config = WindowConfig(bank=config.bank, geometry=config.geometry, renderer=_NO_RENDERER, state=None, mode=WARP)
        if variant in _MODES and config.renderer.texture is TextureInput.WARPED:
            config = replace(config, mode=_MODES[variant])
        usable = self._usable
        inputs = VideoInputs(
            stages,
            config,
            usable,
            self._rows,
            self._shot.workspace.faces,
            ShotLooks(self._shot.workspace.faces, self._rows, usable, self._shot.index.shot_cuts),
            self._shot.index.shot_cuts,
            lambda begin, end: mouths[begin:end],
            (lambda chosen: speech_context[chosen]) if speech_context is not None else None,
        )
        inputs = self._host.run(inputs.with_insides())
        return [self._host.run(inputs.render_run(run)) for run in inputs.runs(range(frames.start, frames.stop))]

    def phone_times(self) -> dict[Trigger, Float64]:
        """Return the centres of open vowels and of p, b, m in the first minutes of the clip's sound, seconds."""
        sound = self._shot.workspace.sound
        posteriorgram = sound.read(0, sound.num_rows)["posteriorgram"]
        return {kind: phone_times(posteriorgram, phones) for kind, phones in TRIGGERS.items()}

    def framed_motion(self, actor: EnrolledClip, frames: FrameRange) -> FramedMotion:
        """Return the predicted mouths for the sound of a range with silence before and after (framed_speech)."""
        begin, end = (round(float(self.frame_seconds[frame]) * SPEECH_RATE_HZ) for frame in (frames.start, frames.stop - 1))
        framed = framed_speech(self._speech[begin:end])
        rows = self._rows[actor.frames.start : actor.frames.stop]
        usable = self._usable[actor.frames.start : actor.frames.stop]
        own = self._shot.workspace.faces.read_rows(rows[usable].tolist())["mouth"]
        motion = self._host.run(self._predict_framed(framed, actor.actor.style))
        spoken = motion["speech_probability"] >= SPOKEN_FROM
        edge = round(SILENCE_S * float(MOTION_RATE))
        # Voice activity may reach into the silence beside a word that is cut.
        spoken[:edge] = spoken[-edge:] = False
        return FramedMotion(mouth_opening(motion["mouth"]), spoken, mouth_opening(own))

    def head_motion(self, actor: EnrolledClip, frames: FrameRange) -> HeadMotion | None:
        """Return the head motion of a video with the speech of the range and backgrounds of the enrolment part.

        None: the method does not move the head.
        """
        if not self._shot.method.motion.moves_head:
            return None
        predicted = self._motion(actor, "full", None).records["pose"][frames.start : frames.stop]
        shown = slice(actor.frames.start, actor.frames.stop)
        footage = self._truth.poses[shown]
        usable = self._usable[shown] & np.isfinite(footage).all(axis=1)
        request = texture_client.match_backgrounds.request(
            footage_poses=np.where(usable[:, None], footage, actor.actor.pose),
            usable=usable,
            shot_cuts=[cut - shown.start for cut in self._shot.index.shot_cuts if shown.start < cut < shown.stop],
            predicted_poses=predicted,
        )
        chosen = (
            np.array(self._host.run(self._host.stages.unary(rpcs.texture.MATCH_BACKGROUNDS, request)).frame_indices, np.int64)
            + shown.start
        )
        return HeadMotion(
            real=self._truth.poses[frames.start : frames.stop],
            predicted=predicted,
            output=self._truth.poses[chosen],
            enrolled=footage[usable],
            backgrounds=chosen,
        )

    def _mouths(self, actor: EnrolledClip, variant: Variant, speech: EvaluatedSpeech | None) -> Float32:
        """Return the target mouths of every frame of the clip, float32 [T, 59, 3], head space."""
        if variant == "oracle_full":
            rows = np.maximum(self._rows, 0).tolist()
            return np.asarray(self._shot.workspace.faces.read_rows(rows)["mouth"], np.float32)
        mouths = np.asarray(self._motion(actor, variant, speech).records["mouth"], np.float32)
        if variant not in _KEPT:
            return mouths
        explained = np.asarray(self._motion(actor, "full_aligned", None).records["mouth"], np.float32)
        return with_slow_expression(mouths, slow_expression(footage_mouths(self._shot, 0, self.num_frames, explained)))

    def _motion(self, actor: EnrolledClip, variant: Variant, speech: EvaluatedSpeech | None) -> _Predicted:
        """Return the predicted motion of every frame of the clip, and the speech that it was predicted from."""
        style = actor.single_frame_style if variant == "single_frame" else actor.actor.style
        name = speech.name if speech is not None else ""
        aligned = speech is None and variant in _ALIGNED
        key = (name, style.sha256, aligned)
        if key not in self._motions:
            samples = speech.samples if speech is not None else self._speech
            if aligned:
                samples = shifted(samples, actor.lag_frames)
            self._motions[key] = self._host.run(self._predict(samples, style))
        return self._motions[key]

    async def _predict_framed(self, samples: Float32, style: common_pb2.ArtefactRef) -> Array:
        """Return the MOTION_RECORDs of a speech at 25 frames per second."""
        duration = Fraction(len(samples), SPEECH_RATE_HZ)
        request = MotionRequest(
            predictor=self._shot.method.motion,
            style=style,
            timeline=timeline_to_proto(Timeline(rate=MOTION_RATE)),
            num_frames=int(duration * MOTION_RATE),
        )
        async with self._motion_of(samples, duration, request) as (_, motion):
            return motion.read(0, motion.num_rows)

    @asynccontextmanager
    async def _motion_of(
        self, samples: Float32, duration: Fraction, request: MotionRequest
    ) -> AsyncIterator[tuple[RecordFile, RecordFile]]:
        """Yield the FEATURE_RECORDs and MOTION_RECORDs of a speech for a video of a duration in seconds. Both files are reused."""
        stages, folder = self._host.stages, self._shot.workspace.folder
        with (
            RecordFile(folder / "evaluated.features", FEATURE_RECORD) as features,
            RecordFile(folder / "evaluated.motion", MOTION_RECORD) as motion,
        ):
            features.clear()
            motion.clear()
            spoken = Sound(SPEECH_RATE_HZ, 1, [samples[:, None]])
            await extract_features(stages, spoken, features, motion_frames_for(duration), duration, self._shot.method.features)
            await predict_motion(stages, request, features, motion)
            yield features, motion

    async def _predict(self, samples: Float32, style: common_pb2.ArtefactRef) -> _Predicted:
        info = self._shot.info
        request = MotionRequest(
            predictor=self._shot.method.motion,
            style=style,
            timeline=timeline_of(info),
            num_frames=info.video.num_frames,
        )
        async with self._motion_of(samples, info.video.duration, request) as (features, motion):
            speech_context: Float32 | None = None
            if self._shot.method.renderer.speech:
                speech_context = AlignedSpeech(features, self.frame_seconds).around(np.arange(self.num_frames))
            return _Predicted(motion.read(0, motion.num_rows), speech_context)


def _diagnostics(windows: list[RenderedWindow]) -> dict[str, float]:
    if not windows:
        return {}
    return {
        "fitting_error": float(np.concatenate([window.fitting_error for window in windows]).mean()),
        "bending_energy": float(np.concatenate([window.bending_energy for window in windows]).mean()),
    }
