"""Learning of a person in the motion stage and the render stage: style, adapted style, state for the renderer."""

from __future__ import annotations

from dataclasses import dataclass

from dubstage.client import motion as motion_client
from dubstage.client import rpcs
from dubstage.common.v1alpha1 import common_pb2
from dubstage.render.v1alpha1 import render_pb2
from gateway.methods import Method
from gateway.pipeline.motion_clip import MIN_ENROLMENT_FRAMES, MotionClip
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.speech import feature_block
from gateway.stages.attempts import until_done
from gateway.stages.interface import Stages
from services.common.array_types import Array
from services.common.errors import ContractBroken, NoUsableFootage
from services.common.wire.timeline import MOTION_RATE


@dataclass(frozen=True, slots=True)
class Heard:
    """A person who was seen and heard.

    Attributes:
        clip: motion of the person.
        features: FEATURE_RECORDs of the sound, on the same frames of the motion grid.
        lag_frames: frames by which the sound comes after the picture.
    """

    clip: MotionClip
    features: Array
    lag_frames: int


async def encode_style(stages: Stages, method: Method, clip: MotionClip) -> common_pb2.ArtefactRef:
    """Return the speaking style of a person for a method's motion predictor.

    Raises:
        DubstageError: from the motion stage.
    """
    request = motion_client.encode_style.request(
        method=method.motion.name,
        mouth_landmarks=clip.mouth,
        usable=clip.usable,
        frame_rate=MOTION_RATE,
        head_poses=clip.poses if method.motion.moves_head else None,
        pose_landmarks=clip.upper,
    )
    return (await stages.unary(rpcs.motion.ENCODE_STYLE, request)).style


async def personalize_motion(
    stages: Stages, method: Method, heard: Heard, style: common_pb2.ArtefactRef, *, seed: int, on_step: OnProgress
) -> common_pb2.ArtefactRef:
    """Return a style that is adapted to the person, or `style` if the footage is too short to adapt to.

    Args:
        stages: the stages.
        method: method that the person is enrolled for.
        heard: the person.
        style: speaking style of the person.
        seed: random seed.
        on_step: called with every step.

    Raises:
        DubstageError: from the motion stage.
    """
    clip, features, lag_frames = heard.clip, heard.features, heard.lag_frames
    # The sound comes lag_frames frames after the picture: picture frame n shows the speech of sound frame n + lag_frames.
    begin = max(0, -lag_frames)
    count = min(len(clip.mouth) - begin, len(features) - begin - lag_frames)
    if count < 2 * MIN_ENROLMENT_FRAMES:
        return style
    shown = slice(begin, begin + count)
    spoken = features[begin + lag_frames : begin + lag_frames + count]
    request = motion_client.personalize.request(
        method=method.motion.name,
        style=style,
        features=feature_block(spoken, 0, method.motion.features),
        mouth_landmarks=clip.mouth[shown],
        usable=clip.usable[shown],
        head_poses=clip.poses[shown] if method.motion.moves_head else None,
        seed=seed,
    )

    async def adapt() -> common_pb2.ArtefactRef:
        async for progress in stages.download(rpcs.motion.PERSONALIZE, request):
            on_step("motion", progress.step, progress.num_steps)
            if progress.HasField("style"):
                return progress.style
        raise ContractBroken("the motion stage ended its personalisation without an artefact")

    try:
        return await until_done(adapt)
    except NoUsableFootage:
        return style


async def personalize_renderer(
    stages: Stages, request: render_pb2.PersonalizeRequest, on_step: OnProgress
) -> tuple[common_pb2.ArtefactRef, bool]:
    """Return a person's state for the renderer, and whether the state was trained: some footage is too short for training.

    Raises:
        DubstageError: from the render stage.
    """

    async def adapt() -> tuple[common_pb2.ArtefactRef, bool]:
        async for progress in stages.download(rpcs.render.PERSONALIZE, request):
            on_step("renderer", progress.step, progress.num_steps)
            if progress.HasField("actor"):
                return progress.actor, progress.num_steps > 0
        raise ContractBroken("the render stage ended its personalisation without an artefact")

    return await until_done(adapt)
