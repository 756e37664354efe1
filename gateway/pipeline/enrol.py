"""Enrolment: what the stages learn of a person from at most five minutes of usable footage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from dubstage.client import render as render_client
from dubstage.common.v1alpha1 import common_pb2
from gateway.methods import Method
from gateway.pipeline.bank import build_bank
from gateway.pipeline.bank_extras import BankExtras, Seen, bank_extras
from gateway.pipeline.identity import fit_identity
from gateway.pipeline.lag import SoundLag
from gateway.pipeline.ledger import MOST_TRIES, lost_again
from gateway.pipeline.motion_clip import MotionClip
from gateway.pipeline.personalize import Heard, encode_style, personalize_motion, personalize_renderer
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.spoken import Spoken
from gateway.stages.interface import Stages
from services.common.array_types import Array, Float64
from services.common.face.actor_geometry import ActorGeometry
from services.common.face.landmarks import lip_width, mouth_opening
from services.common.wire.mouth_curves import SPOKEN_FROM, SpeakingMotion, speaking_motion

OnArtefact = Callable[[common_pb2.ArtefactRef], Awaitable[bool]]
"""Awaited with each artefact as enrolment creates it, so that the caller can erase artefacts of an enrolment that later fails."""


async def unnoted(_: common_pb2.ArtefactRef) -> bool:
    """Do nothing: the `OnArtefact` of callers that keep every artefact."""
    return True


@dataclass(frozen=True, slots=True)
class EnrolledActor:
    """A person who can be dubbed: artefacts of the stages, and the lag of the footage.

    Attributes:
        style: speaking style, from the motion stage.
        bank: texture bank, from the texture stage.
        renderer: state of the person for the renderer; None: the renderer's own.
        geometry: lower face in head space.
        num_frames: number of footage frames that enrolment used.
        pose: float64 [6], median head-pose vector of these frames. Predicted head motion is relative to this pose.
        identity: the person on the morphable model, from the face stage; None: the method needs none.
        renderer_trained: whether `renderer` was trained on the person. False: made from the person's pictures without training.
        lag_frames: frames of 40 ms by which the sound comes after the picture; None: the footage has no sound, or the lag is
            unknown or not applied.
        lag_confidence: EstimateLagResponse.confidence.
        sync_distance: EstimateLagResponse.distance.
        lag_doubt: why the lag is not applied (SoundLag.doubt); empty: the lag is applied, or nothing was measured.
        speaking: how the person moves the mouth in the footage, which dubs are compared with; None: the mouth never moves, or an
            earlier version enrolled the person.
    """

    style: common_pb2.ArtefactRef
    bank: common_pb2.ArtefactRef
    renderer: common_pb2.ArtefactRef | None
    geometry: ActorGeometry
    num_frames: int
    pose: Float64
    identity: common_pb2.ArtefactRef | None = None
    renderer_trained: bool = False
    lag_frames: int | None = None
    lag_confidence: float = 0.0
    sync_distance: float = 0.0
    lag_doubt: str = ""
    speaking: SpeakingMotion | None = None

    @property
    def artefacts(self) -> tuple[common_pb2.ArtefactRef, ...]:
        """All artefacts of the actor."""
        return tuple(ref for ref in (self.style, self.bank, self.renderer, self.identity) if ref is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class EnrolOptions:
    """Which parts of an enrolment are done.

    Attributes:
        personalize_renderer: train the renderer's state on the person.
        renderer_steps: optimisation steps of that training; 0: the renderer's own number.
        personalize_motion: adapt the motion networks to the person, if the footage has sound.
        seed: random seed of both.
    """

    personalize_renderer: bool = True
    renderer_steps: int = 0
    personalize_motion: bool = True
    seed: int = 0


class _ArtefactLostError(Exception):
    """The end of another job that had made the same artefact deleted the artefact before it was counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Enrolment:
    """One enrolment of one person.

    Attributes:
        stages: the stages.
        method: method that the person is enrolled for.
        seen: the frames that the bank is made from. Enrolment decodes the footage again, because face records hold the lower face
            only, at 160 x 160 pixels.
        first: record rows of the first seconds, for the identity, which minutes of footage do not improve.
        num_frames: number of frames that enrolment uses.
        clip: motion of the person.
        features: FEATURE_RECORDs of the footage's sound on the same frames of the motion grid; None: the footage has no sound.
        lag: lag of the footage's sound.
        spoken: the footage's sound at the frames of the footage, without the lag; None: the footage has no sound, or the method's
            renderer is not adapted with speech.
        options: which parts are done.
        on_step: called with every step.
        on_artefact: awaited with every artefact. Returns False if the artefact is gone, so that the enrolment is done again.
    """

    stages: Stages
    method: Method
    seen: Seen
    first: list[int]
    num_frames: int
    clip: MotionClip
    features: Array | None
    options: EnrolOptions
    on_step: OnProgress
    on_artefact: OnArtefact = unnoted
    lag: SoundLag = SoundLag()
    spoken: Spoken | None = None

    async def run(self) -> EnrolledActor:
        """Return what the stages learned of the person.

        Raises:
            DubstageError: from the stages.
            BackendUnavailable: artefacts are gone each time they were made.
        """
        for _ in range(MOST_TRIES):
            with suppress(_ArtefactLostError):
                return await self._once()
        raise lost_again()

    async def _once(self) -> EnrolledActor:
        method, clip = self.method, self.clip
        self.on_step("style", 0, 1)
        style = await encode_style(self.stages, method, clip)
        await self._count(style)
        # A bank that holds coefficients comes after the identity that these depend on.
        identity = await self._identity() if method.adapts_neural_texture else None
        extras = await self._extras(identity) if identity is not None else BankExtras()
        self.on_step("bank", 0, len(self.seen.rows))
        bank, geometry = await build_bank(self.stages, self.seen, self.on_step, extras)
        await self._count(bank)
        if method.needs_identity and identity is None:
            identity = await self._identity()
        pose, lag = np.median(clip.poses[clip.usable], axis=0), self.lag
        actor = EnrolledActor(
            style,
            bank,
            None,
            geometry,
            self.num_frames,
            pose,
            identity=identity,
            lag_frames=lag.frames,
            lag_confidence=lag.confidence,
            sync_distance=lag.distance,
            lag_doubt=lag.doubt,
            speaking=self._speaking(),
        )
        if self.options.personalize_motion and lag.frames is not None and self.features is not None:
            actor = replace(actor, style=await self._adapted(style, Heard(clip, self.features, lag.frames)))
        if self.options.personalize_renderer or method.renderer.needs_actor:
            actor = await self._with_renderer(actor)
        return actor

    def _speaking(self) -> SpeakingMotion | None:
        """Return how the person moves the mouth. Sound without a believed lag may be another person's voice, and is not read."""
        opening, width = (np.where(self.clip.usable, curve(self.clip.mouth), np.nan) for curve in (mouth_opening, lip_width))
        if self.features is None or self.lag.frames is None:
            return speaking_motion(opening, width, self.clip.usable)
        spoken = self.features["speech_probability"] >= SPOKEN_FROM
        return speaking_motion(opening, width, spoken, self.features["posteriorgram"], self.lag.frames)

    async def _identity(self) -> common_pb2.ArtefactRef:
        """Return the person on the morphable model."""
        staged = self.method.adapts_neural_texture
        identity = await fit_identity(self.stages, self.seen.info, self.seen.faces, self.first, self.on_step, three_stage=staged)
        await self._count(identity)
        return identity

    async def _extras(self, identity: common_pb2.ArtefactRef) -> BankExtras:
        """Return what the bank holds of the frames beside their pictures. An unknown lag counts as none."""
        spoken = self.spoken
        if spoken is not None and self.lag.frames is not None:
            spoken = replace(spoken, lag_frames=self.lag.frames)
        return await bank_extras(self.stages, self.seen, identity, spoken, self.on_step)

    async def _adapted(self, style: common_pb2.ArtefactRef, heard: Heard) -> common_pb2.ArtefactRef:
        """Return the style with the motion networks adapted to the person."""
        adapted = await personalize_motion(self.stages, self.method, heard, style, seed=self.options.seed, on_step=self.on_step)
        await self._count(adapted)
        return adapted

    async def _count(self, ref: common_pb2.ArtefactRef) -> None:
        if not await self.on_artefact(ref):
            raise _ArtefactLostError

    async def _with_renderer(self, actor: EnrolledActor) -> EnrolledActor:
        """Return the actor with a state for the renderer."""
        request = render_client.personalize.request(
            model=self.method.renderer.name,
            bank=actor.bank,
            num_steps=self.options.renderer_steps,
            seed=self.options.seed,
            identity=actor.identity,
            skip_training=not self.options.personalize_renderer,
        )
        renderer, trained = await personalize_renderer(self.stages, request, self.on_step)
        await self._count(renderer)
        return replace(actor, renderer=renderer, renderer_trained=trained)
