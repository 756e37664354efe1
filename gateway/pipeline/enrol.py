"""Enrolment: what is learned of a person from at most ten seconds of their footage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dubstage.common.v1alpha1 import common_pb2
from dubstage.motion.v1alpha1 import motion_pb2
from dubstage.render.v1alpha1 import render_pb2
from dubstage.texture.v1alpha1 import texture_pb2
from gateway.media.types import MediaInfo
from gateway.methods import RENDERERS, Method
from gateway.pipeline.identity import fit_identity
from gateway.pipeline.messages import geometry_from, pose_message, rational, reason_name
from gateway.pipeline.records import RecordFile, pose_of
from gateway.pipeline.speech import feature_block
from gateway.stages.attempts import until_done
from gateway.stages.interface import Stages
from services.common.actor_geometry import ActorGeometry
from services.common.arrays import to_rgb_image, to_tensor
from services.common.errors import ContractBroken, NoUsableFootage
from services.common.head_pose_vectors import pose_vectors
from services.common.timeline import MOTION_RATE

ENROLMENT_SECONDS: Final = 10
MIN_ENROLMENT_FRAMES: Final = 25
"""Fewer usable frames than this make neither a bank nor a style."""

OnStep = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""

OnArtefact = Callable[[common_pb2.ArtefactRef], Awaitable[None]]
"""Awaited with every blob that an enrolment makes, at once: so that all of it can be erased, whatever becomes of the enrolment."""


async def unnoted(_: common_pb2.ArtefactRef) -> None:
    """`OnArtefact` of those who keep what an enrolment makes whatever becomes of it."""


@dataclass(frozen=True, slots=True)
class EnrolledActor:
    """A person, ready to be dubbed: artefacts of the stages, and the lag of the footage.

    Attributes:
        style: from the motion stage.
        bank: from the texture stage.
        renderer: per-actor state of the renderer; None: the prior's own.
        renderer_trained: whether this state was tuned to the person, rather than put together from their pictures alone.
        geometry: lower face in head space.
        num_frames: footage frames that were used.
        pose: float64 [6], the median head-pose vector of these frames: what predicted head motion is about.
        identity: the person on the morphable model, from the face stage; None where the method needs none.
        lag_frames: sound against picture, frames of 40 ms; None where the footage has no sound.
        lag_confidence: see EstimateLagResponse.confidence.
        sync_distance: see EstimateLagResponse.distance.
    """

    style: common_pb2.ArtefactRef
    bank: common_pb2.ArtefactRef
    renderer: common_pb2.ArtefactRef | None
    geometry: ActorGeometry
    num_frames: int
    pose: npt.NDArray[np.float64]
    identity: common_pb2.ArtefactRef | None = None
    renderer_trained: bool = False
    lag_frames: int | None = None
    lag_confidence: float = 0.0
    sync_distance: float = 0.0


@dataclass(frozen=True, slots=True)
class MotionClip:
    """A person's motion on the motion grid; frame 0 is at time 0.

    Attributes:
        mouth: float32 [T, 59, 3], head space.
        usable: bool [T].
        poses: float64 [T, 6], head-pose vectors.
    """

    mouth: npt.NDArray[np.float32]
    usable: npt.NDArray[np.bool_]
    poses: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrolOptions:
    """What of an enrolment is done.

    Attributes:
        personalize_renderer: adapt the renderer to the person.
        renderer_steps: optimisation steps; 0: the renderer's own number.
        personalize_motion: adapt the motion networks where the footage has sound.
        seed: of both.
    """

    personalize_renderer: bool = True
    renderer_steps: int = 0
    personalize_motion: bool = True
    seed: int = 0


def enrolment_rows(
    faces: RecordFile,
    rows: npt.NDArray[np.int64],
    seconds: npt.NDArray[np.float64],
    begin: int = 0,
    end: int | None = None,
) -> list[int]:
    """Record rows of the first ten seconds of usable frames of a face, of frames begin .. end - 1.

    Raises:
        NoUsableFootage: fewer than MIN_ENROLMENT_FRAMES are usable.
    """
    usable: list[int] = []
    spent = 0.0
    stop = len(rows) if end is None else min(end, len(rows))
    for frame in range(begin, stop):
        if spent >= ENROLMENT_SECONDS - 1e-6:
            break
        row = int(rows[frame])
        if row < 0:
            continue
        if faces.read(row, row + 1)["reason"][0] == common_pb2.FRAME_REASON_DUBBED:
            usable.append(row)
            spent += seconds[frame + 1] - seconds[frame] if frame + 1 < len(seconds) else 0.0
    if len(usable) < MIN_ENROLMENT_FRAMES:
        raise NoUsableFootage(
            f"only {len(usable)} frames show the face well enough to learn it; at least {MIN_ENROLMENT_FRAMES} are needed: "
            "give footage in which the person faces the camera, or an actor that is enrolled already (--actor)",
            subject="footage",
        )
    return usable


def still_row(faces: RecordFile, rows: npt.NDArray[np.int64]) -> list[int]:
    """The one record row of a face in a still picture.

    Raises:
        NoUsableFootage: the face can't be used.
    """
    (record,) = faces.read_rows([int(rows[0])])
    if record["reason"] != common_pb2.FRAME_REASON_DUBBED:
        raise NoUsableFootage(
            f"the picture's face can't be used ({reason_name(record['reason'])}): give one of the whole face from the front",
            subject="footage",
        )
    return [int(rows[0])]


def on_motion_grid(records: npt.NDArray[Any], seconds: npt.NDArray[np.float64], begin_s: float) -> MotionClip:
    """Mouth landmarks and head poses of face records brought to the motion grid by linear interpolation in time.

    Args:
        records: FACE_RECORDs in the order of their frames.
        seconds: float64 [T], presentation time of every frame of the footage from its first.
        begin_s: time of grid frame 0.
    """
    vectors = pose_vectors([pose_of(record) for record in records])
    if len(records) == 1:
        return MotionClip(np.asarray(records["mouth"], np.float32), np.ones(1, np.bool_), vectors)
    times = seconds[records["frame"]] - begin_s
    step = float(1 / MOTION_RATE)
    grid = np.arange(int(np.floor(times[-1] / step)) + 1) * step
    right = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    left = right - 1
    gap = times[right] - times[left]
    exact = np.clip((grid - times[left]) / gap, 0.0, 1.0)
    weight = exact.astype(np.float32)[:, None, None]
    mouth = records["mouth"][left] * (1.0 - weight) + records["mouth"][right] * weight
    poses = vectors[left] * (1.0 - exact[:, None]) + vectors[right] * exact[:, None]
    usable = (gap <= 2.5 * step) & (grid >= times[0] - 0.5 * step)
    return MotionClip(np.asarray(mouth, np.float32), np.asarray(usable, np.bool_), poses)


async def estimate_lag(stages: Stages, clip: MotionClip, features: npt.NDArray[Any]) -> motion_pb2.EstimateLagResponse:
    """The footage's lag from its mouth and FEATURE_RECORDs on the same grid."""
    count = min(len(clip.mouth), len(features))
    return await stages.estimate_lag(
        motion_pb2.EstimateLagRequest(
            features=feature_block(features[:count], 0),
            mouth_landmarks=to_tensor(clip.mouth[:count]),
            usable=to_tensor(clip.usable[:count]),
        )
    )


async def enrol(
    stages: Stages,
    method: Method,
    info: MediaInfo,
    faces: RecordFile,
    rows: list[int],
    clip: MotionClip,
    features: npt.NDArray[Any] | None,
    options: EnrolOptions,
    on_step: OnStep,
    on_artefact: OnArtefact = unnoted,
) -> EnrolledActor:
    """Learn a person from face records `rows`, their motion and, where the footage has sound, its features on the same grid.

    The footage itself is decoded again where the method needs the person's identity: records hold the lower face alone.

    Raises:
        DubstageError: from the stages.
    """
    on_step("style", 0, 1)
    style = (
        await stages.encode_style(
            motion_pb2.EncodeStyleRequest(
                method=method.motion,
                mouth_landmarks=to_tensor(clip.mouth),
                usable=to_tensor(clip.usable),
                frame_rate=rational(Fraction(MOTION_RATE)),
                head_poses=to_tensor(clip.poses) if method.moves_head else None,
            )
        )
    ).style
    await on_artefact(style)
    on_step("bank", 0, len(rows))
    bank = await _build_bank(stages, faces, rows, on_step)
    await on_artefact(bank.bank)
    pose = np.median(clip.poses[clip.usable], axis=0)
    actor = EnrolledActor(style, bank.bank, None, geometry_from(bank.geometry), len(rows), pose)
    if method.needs_identity:
        identity = await fit_identity(stages, info, faces, rows, on_step)
        await on_artefact(identity)
        actor = replace(actor, identity=identity)
    lag = await _lag_if_long_enough(stages, clip, features)
    if features is not None and lag is not None:
        actor = replace(actor, lag_frames=lag.lag_frames, lag_confidence=lag.confidence, sync_distance=lag.distance)
        if options.personalize_motion:
            style = await _personalize_motion(stages, method, style, clip, features, lag.lag_frames, options, on_step)
            await on_artefact(style)
            actor = replace(actor, style=style)
    if options.personalize_renderer or RENDERERS[method.renderer].needs_state:
        renderer, trained = await _personalize_renderer(stages, method, actor, options, on_step)
        await on_artefact(renderer)
        actor = replace(actor, renderer=renderer, renderer_trained=trained)
    return actor


async def _lag_if_long_enough(
    stages: Stages, clip: MotionClip, features: npt.NDArray[Any] | None
) -> motion_pb2.EstimateLagResponse | None:
    """The footage's lag; None without sound, or where the footage is too short to tell it."""
    if features is None:
        return None
    try:
        return await estimate_lag(stages, clip, features)
    except NoUsableFootage:
        return None


async def _build_bank(stages: Stages, faces: RecordFile, rows: list[int], on_step: OnStep) -> texture_pb2.BuildBankResponse:
    async def requests() -> AsyncIterator[texture_pb2.BuildBankRequest]:
        yield texture_pb2.BuildBankRequest(config=texture_pb2.BuildBankConfig())
        for done, row in enumerate(rows):
            (record,) = faces.read(row, row + 1)
            on_step("bank", done + 1, len(rows))
            yield texture_pb2.BuildBankRequest(
                frame=texture_pb2.BankFrame(
                    frame_index=int(record["frame"]),
                    box=to_rgb_image(record["pixels"]),
                    landmarks=to_tensor(np.ascontiguousarray(record["landmarks"])),
                    pose=pose_message(pose_of(record)),
                )
            )

    return await until_done(lambda: stages.build_bank(requests()))


async def _personalize_motion(
    stages: Stages,
    method: Method,
    style: common_pb2.ArtefactRef,
    clip: MotionClip,
    features: npt.NDArray[Any],
    lag_frames: int,
    options: EnrolOptions,
    on_step: OnStep,
) -> common_pb2.ArtefactRef:
    # Sound that comes after the picture by L frames: the features of picture frame n are those of sound frame n + L.
    begin = max(0, -lag_frames)
    count = min(len(clip.mouth) - begin, len(features) - begin - lag_frames)
    if count < 2 * MIN_ENROLMENT_FRAMES:
        return style
    shifted = features[begin + lag_frames : begin + lag_frames + count]
    request = motion_pb2.PersonalizeRequest(
        method=method.motion,
        style=style,
        features=feature_block(shifted, 0, method.features),
        mouth_landmarks=to_tensor(np.ascontiguousarray(clip.mouth[begin : begin + count])),
        usable=to_tensor(np.ascontiguousarray(clip.usable[begin : begin + count])),
        seed=options.seed,
        head_poses=to_tensor(np.ascontiguousarray(clip.poses[begin : begin + count])) if method.moves_head else None,
    )

    async def adapt() -> common_pb2.ArtefactRef:
        async for progress in stages.personalize_motion(request):
            on_step("motion", progress.step, progress.num_steps)
            if progress.HasField("style"):
                return progress.style
        raise ContractBroken("the motion stage ended its personalisation without an artefact")

    try:
        return await until_done(adapt)
    except NoUsableFootage:
        # Too short to adapt to: the style alone carries the person.
        return style


async def _personalize_renderer(
    stages: Stages, method: Method, actor: EnrolledActor, options: EnrolOptions, on_step: OnStep
) -> tuple[common_pb2.ArtefactRef, bool]:
    """The renderer's state of an actor, and whether it was tuned: some footage is too short for that."""
    request = render_pb2.PersonalizeRequest(
        model=method.renderer,
        bank=actor.bank,
        num_steps=options.renderer_steps,
        seed=options.seed,
        identity=actor.identity,
        skip_training=not options.personalize_renderer,
    )

    async def adapt() -> tuple[common_pb2.ArtefactRef, bool]:
        async for progress in stages.personalize_renderer(request):
            on_step("renderer", progress.step, progress.num_steps)
            if progress.HasField("actor"):
                return progress.actor, progress.num_steps > 0
        raise ContractBroken("the render stage ended its personalisation without an artefact")

    return await until_done(adapt)
