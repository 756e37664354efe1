"""Enrolment: learn a person from at most five minutes of usable footage.

The texture stage builds the bank, the face stage fits the identity, and the motion and render stages learn the style and the state
of the renderer. The result is an enrolled actor: arrays and metadata for the journal and for the actor store.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

import numpy as np

from dubstage.client import face as face_client
from dubstage.client import motion as motion_client
from dubstage.client import render as render_client
from dubstage.client import rpcs, to_tensor
from dubstage.client import texture as texture_client
from dubstage.common.v1 import common_pb2
from dubstage.face.v1 import face_pb2
from dubstage.render.v1 import render_pb2
from dubstage.texture.v1 import texture_pb2
from gateway.async_utilities import close, in_thread
from gateway.dub.analyse.face_records import numbers_of_shots
from gateway.dub.analyse.motion_clip import MIN_ENROLMENT_FRAMES, MotionClip, SoundLag, moved_later
from gateway.dub.choices import EnrolOptions
from gateway.dub.convert import geometry_from_proto
from gateway.dub.learn.coefficients import BankExtras, TrackedPerson, bank_extras, interpolated
from gateway.dub.progress import OnProgress
from gateway.dub.sound.speech import AlignedSpeech, MotionRequest, feature_block, predict_motion
from gateway.dub.state.journal import MOST_TRIES, artefact_lost_error
from gateway.dub.state.native_boxes import native_boxes, record_frames, scale_of
from gateway.dub.state.records import FEATURE_RECORD, MOTION_RECORD, RecordFile, pose_of
from gateway.dub.state.workspace import Workspace
from gateway.media.reader import VideoReader, to_rgb
from gateway.media.types import MediaInfo
from gateway.stages.calls import until_done
from gateway.stages.interface import Stages
from services.common.array_types import Array, Float32, Float64, UInt8
from services.common.errors import ContractBrokenError, NoUsableFootageError
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.crops import POSE_SIZE
from services.common.face.landmarks import JAW, NUM_MOUTH_AREA, lip_width, mouth_opening
from services.common.methods import Method
from services.common.store.tensor_bytes import NamedArrays
from services.common.wire.convert import pose_to_proto, timeline_to_proto
from services.common.wire.mouth_curves import SPOKEN_FROM, SpeakingMotion, speaking_motion
from services.common.wire.timeline import MOTION_RATE, Timeline

IDENTITY_FRAMES: Final = 48
"""Most frames that an identity is fitted on, evenly spread. More frames cost time and improve nothing."""
_PAIRS_SHARE: Final = 0.2
"""Time in which the stage makes pairs of pictures before the first step, as a share of the time of all steps."""
OnArtefact = Callable[[common_pb2.ArtefactRef], Awaitable[bool]]
"""Awaited with each artefact as enrolment creates it, so that the caller can erase artefacts of an enrolment that later fails."""
_SHAPES: Final = {
    "mean_mouth": (NUM_MOUTH_AREA, 3),
    "closed_mouth": (NUM_MOUTH_AREA, 3),
    "jaw_envelope": (len(JAW), 3),
    "anchors": (len(ANCHORS), 3),
}
"""Shapes of the arrays of the geometry, float32."""


async def build_bank(
    stages: Stages, person: TrackedPerson, on_step: OnProgress, extras: BankExtras = BankExtras()
) -> tuple[common_pb2.ArtefactRef, ActorGeometry]:
    """Return the texture bank and the lower face of a person.

    If the footage shows the face with more pixels than a render box has, the fine detail comes from the luma that tracking has
    kept, or the footage is decoded again.

    Args:
        person: the person in the footage.
        on_step: called with every frame.
        extras: what the bank holds of these frames beside their pictures.

    Raises:
        MediaUnsupportedError: the footage breaks off.
        DubstageError: from the texture stage.
    """
    faces, rows = person.faces, person.rows
    scale = await asyncio.to_thread(scale_of, faces, rows)

    async def requests() -> AsyncIterator[texture_pb2.BuildBankRequest]:
        call = texture_client.build_bank.requests(max_frames=person.max_frames)
        yield call.config
        with VideoReader(person.info) as reader:  # which opens the footage with the first picture that is asked for
            kept = person.luma.boxes(person.info.video, faces, rows, scale) if person.luma is not None else None
            natives = (kept or native_boxes(reader, faces, rows, scale)) if scale > 1 else None
            for done, row in enumerate(rows):
                (record,) = faces.read(row, row + 1)
                on_step("bank", done + 1, len(rows))
                pose = pose_to_proto(pose_of(record))
                number = int(numbers_of_shots(record["frame"], person.shot_cuts))
                pixels, landmarks = record["pixels"], record["landmarks"]
                native = await in_thread(next, natives) if natives is not None else None
                behind = await asyncio.to_thread(person.looks.behind, record) if person.looks is not None else None
                if behind is not None:
                    pixels = behind.over(pixels)
                    native = behind.over(native) if native is not None else None
                yield call.item(texture_client.BankFrame(number, pixels, landmarks, pose, native=native, **extras.of(done)))

    reply = await until_done(lambda: stages.upload(rpcs.texture.BUILD_BANK, requests()))
    return reply.bank, geometry_from_proto(reply.geometry)


async def fit_identity(
    stages: Stages, info: MediaInfo, faces: RecordFile, rows: list[int], on_step: OnProgress, *, three_stage: bool = False
) -> common_pb2.ArtefactRef:
    """Return the identity of the person whom the face records `rows` show, on the face model of this installation.

    Args:
        faces: FACE_RECORDs of the footage.
        rows: record rows of the person.
        on_step: called at the beginning and at the end.
        three_stage: fit albedo and light by the three-stage fit; False: by Gauss-Newton steps.

    Raises:
        MediaUnsupportedError: the footage breaks off.
        InvalidRequestError: the face model lacks what a method needs that draws the person.
        DubstageError: from the face stage.
    """
    count = min(len(rows), IDENTITY_FRAMES)
    chosen = [rows[index] for index in np.linspace(0, len(rows) - 1, count).round().astype(int)]

    async def requests() -> AsyncIterator[face_pb2.FitIdentityRequest]:
        yield face_client.fit_identity.requests(morphable_model=stages.face_model, three_stage=three_stage).config
        with VideoReader(info) as reader:
            frames = record_frames(reader, faces, chosen)
            for _ in range(count):
                record, frame = await in_thread(next, frames)
                yield _message(await in_thread(to_rgb, frame), record)

    # Frames are sent in a moment; the fit takes the time.
    on_step("identity", 0, 1)
    identity = (await until_done(lambda: stages.upload(rpcs.face.FIT_IDENTITY, requests()))).identity
    on_step("identity", 1, 1)
    return identity


def _message(picture: UInt8, record: Any) -> face_pb2.FitIdentityRequest:
    face = face_pb2.FaceTrack(
        face_id=int(record["face_id"]),
        box=record["box"].tolist(),
        landmarks=to_tensor(np.ascontiguousarray(record["landmarks"])),
        pose=pose_to_proto(pose_of(record)),
        mouth_landmarks=to_tensor(np.ascontiguousarray(record["mouth"])),
        confidence=float(record["confidence"]),
        mouth_visibility=float(record["visibility"]),
        blink=float(record["blink"]),
        reason=int(record["reason"]),  # type: ignore[arg-type]
    )
    return face_client.fit_identity.requests().item((picture, face))


@dataclass(frozen=True, slots=True)
class ClipWithSound:
    """Motion of a person, and the features of the sound of the same seconds.

    Attributes:
        clip: motion of the person.
        features: FEATURE_RECORDs of the sound, on the same frames of the motion grid.
        lag_frames: frames by which the sound comes after the picture.
        lag_fraction: part of a frame to add to `lag_frames`, from -1/2 to 1/2.
    """

    clip: MotionClip
    features: Array
    lag_frames: int
    lag_fraction: float = 0.0


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
    stages: Stages, method: Method, footage: ClipWithSound, style: common_pb2.ArtefactRef, on_step: OnProgress
) -> common_pb2.ArtefactRef:
    """Return a style that is adapted to the person, or `style` if the footage is too short to adapt to.

    Args:
        method: method that the person is enrolled for.
        footage: motion and sound that the style is adapted to.
        style: speaking style of the person.
        on_step: called with every step.

    Raises:
        DubstageError: from the motion stage.
    """
    clip, features, lag_frames = moved_later(footage.clip, footage.lag_fraction), footage.features, footage.lag_frames
    # The sound comes lag_frames frames after the picture: picture frame n shows the speech of sound frame n + lag_frames.
    begin = max(0, -lag_frames)
    count = min(len(clip.mouth) - begin, len(features) - begin - lag_frames)
    if count < MIN_ENROLMENT_FRAMES:
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
    )

    async def adapt() -> common_pb2.ArtefactRef:
        replies = stages.download(rpcs.motion.PERSONALIZE, request)
        try:
            async for progress in replies:
                on_step("motion", progress.step, progress.num_steps)
                if progress.HasField("style"):
                    return progress.style
        finally:
            await close(replies)
        raise ContractBrokenError("the motion stage ended its personalisation without an artefact")

    try:
        return await until_done(adapt)
    except NoUsableFootageError:
        return style


async def spoken_mouths(
    stages: Stages, method: Method, style: common_pb2.ArtefactRef, features: Array, workspace: Workspace
) -> Float32:
    """Return the mouths that the method's predictor gives for the sound of the footage, float32 [T, 59, 3], head space.

    Args:
        style: speaking style of the person.
        features: FEATURE_RECORDs [T] of the sound.
        workspace: gets the records while the mouths are predicted.

    Raises:
        InvalidRequestError, StorageFullError: the records would take more disk space than they may.
        DubstageError: from the motion stage.
    """
    request = MotionRequest(
        predictor=method.motion,
        style=style,
        timeline=timeline_to_proto(Timeline(rate=MOTION_RATE)),
        num_frames=len(features),
    )
    with (
        workspace.passing("enrolment_features", FEATURE_RECORD) as speech,
        workspace.passing("enrolment_motion", MOTION_RECORD) as motion,
    ):
        await asyncio.to_thread(speech.append, features)
        await predict_motion(stages, request, speech, motion)
        records = await asyncio.to_thread(motion.read, 0, motion.num_rows)
    return np.asarray(records["mouth"], np.float32)


async def personalize_renderer(
    stages: Stages, request: render_pb2.PersonalizeRequest, on_step: OnProgress
) -> tuple[common_pb2.ArtefactRef, bool]:
    """Return a person's state for the renderer, and whether the state was trained: some footage is too short for training.

    Raises:
        DubstageError: from the render stage.
    """

    async def adapt() -> tuple[common_pb2.ArtefactRef, bool]:
        on_step("renderer", 0, 1)
        replies = stages.download(rpcs.render.PERSONALIZE, request)
        try:
            async for progress in replies:
                pairs = round(_PAIRS_SHARE * progress.num_steps)
                on_step("renderer", pairs + progress.step, pairs + progress.num_steps)
                if progress.HasField("actor"):
                    return progress.actor, progress.num_steps > 0
        finally:
            await close(replies)
        raise ContractBrokenError("the render stage ended its personalisation without an artefact")

    return await until_done(adapt)


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
        lag_fraction: part of a frame to add to `lag_frames`, a multiple of 1/4 from -1/2 to 1/2; 0 if `lag_frames` is None.
        lag_confidence: EstimateLagResponse.confidence.
        sync_distance: EstimateLagResponse.distance.
        lag_doubt: why the lag is not applied (SoundLag.doubt); empty: the lag is applied, or nothing was measured.
        speaking: how the person moves the mouth in the footage, which dubs are compared with; None: the mouth never moves.
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
    lag_fraction: float = 0.0
    lag_confidence: float = 0.0
    sync_distance: float = 0.0
    lag_doubt: str = ""
    speaking: SpeakingMotion | None = None

    @property
    def refs(self) -> dict[str, common_pb2.ArtefactRef]:
        """Every artefact of the actor, by kind."""
        refs = {"style": self.style, "bank": self.bank, "renderer": self.renderer, "identity": self.identity}
        return {kind: ref for kind, ref in refs.items() if ref is not None}


class _ArtefactLostError(Exception):
    """The end of another job that had made the same artefact deleted its blob before the blob was counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Enrolment:
    """One enrolment of one person.

    Attributes:
        method: method that the person is enrolled for.
        bank_person: the frames that the bank is made from. Enrolment decodes the footage again, because face records hold the lower
            face only, at 160 x 160 pixels.
        first: record rows of the first seconds, for the identity, which minutes of footage do not improve.
        num_frames: number of frames that enrolment uses.
        clip: motion of the person.
        features: FEATURE_RECORDs of the footage's sound on the same frames of the motion grid, fewer if the sound was read to
            an earlier end; None: the footage has no sound.
        spoken: the footage's sound at the frames of the footage, without the lag; None: the footage has no sound, or the method's
            renderer is not adapted with speech.
        bank_positions: float64 [N], positions of the frames of `bank_person` in `clip`, frames of the motion grid.
        workspace: record files of the job.
        options: which parts are done.
        on_step: called with every step.
        on_artefact: awaited with every artefact. Returns False if the artefact is gone, so that the enrolment is done again.
    """

    stages: Stages
    method: Method
    bank_person: TrackedPerson
    first: list[int]
    num_frames: int
    clip: MotionClip
    features: Array | None
    bank_positions: Float64
    workspace: Workspace
    options: EnrolOptions
    on_step: OnProgress
    on_artefact: OnArtefact = unnoted
    lag: SoundLag = SoundLag()
    spoken: AlignedSpeech | None = None

    async def run(self) -> EnrolledActor:
        """Return what the stages learned of the person.

        Raises:
            DubstageError: from the stages.
            BackendUnavailableError: artefacts are gone each time they were made.
        """
        for _ in range(MOST_TRIES):
            with suppress(_ArtefactLostError):
                return await self._once()
        raise artefact_lost_error()

    async def _once(self) -> EnrolledActor:
        method, clip = self.method, self.clip
        self.on_step("style", 0, 1)
        style = await encode_style(self.stages, method, clip)
        await self._count(style)
        lag, footage = self.lag, self._footage_with_sound()
        if footage is not None and self.options.personalize_motion:
            style = await self._adapted(style, footage)
        # A bank that holds coefficients comes after the identity that these depend on.
        identity = await self._identity() if method.adapts_neural_texture else None
        extras = await self._extras(identity) if identity is not None else BankExtras()
        if footage is not None:
            extras = replace(extras, spoken_mouth=await self._spoken_mouths(style, footage))
        self.on_step("bank", 0, len(self.bank_person.rows))
        bank, geometry = await build_bank(self.stages, self.bank_person, self.on_step, extras)
        await self._count(bank)
        if method.needs_identity and identity is None:
            identity = await self._identity()
        pose = np.median(clip.poses[clip.usable], axis=0)
        actor = EnrolledActor(
            style,
            bank,
            None,
            geometry,
            self.num_frames,
            pose,
            identity=identity,
            lag_frames=lag.frames,
            lag_fraction=lag.fraction if lag.frames is not None else 0.0,
            lag_confidence=lag.confidence,
            sync_distance=lag.distance,
            lag_doubt=lag.doubt,
            speaking=self._speaking(),
        )
        if self.options.personalize_renderer or method.renderer.needs_actor:
            actor = await self._with_renderer(actor)
        return actor

    def _speaking(self) -> SpeakingMotion | None:
        """Return how the person moves the mouth. Sound without a believed lag may be another person's voice, and is not read."""
        opening, width = (np.where(self.clip.usable, curve(self.clip.mouth), np.nan) for curve in (mouth_opening, lip_width))
        footage = self._footage_with_sound()
        spoken = self.clip.usable
        if footage is not None:
            # The features may end before the clip: after SOUND_SECONDS. Later frames do not count as spoken.
            known = footage.features["speech_probability"] >= SPOKEN_FROM
            spoken = np.pad(known, (0, len(self.clip.usable) - len(known)))
        return speaking_motion(opening, width, spoken)

    def _footage_with_sound(self) -> ClipWithSound | None:
        """Return the footage's motion and sound; None: there is no sound, or the voice is not shown to be the person's."""
        if self.features is None or self.lag.frames is None:
            return None
        return ClipWithSound(self.clip, self.features, self.lag.frames, self.lag.fraction)

    async def _spoken_mouths(self, style: common_pb2.ArtefactRef, footage: ClipWithSound) -> Float32:
        """Return the mouths of the footage's own speech at the frames of the bank, float32 [N, 59, 3]."""
        mouths = await spoken_mouths(self.stages, self.method, style, footage.features, self.workspace)
        # The sound comes after the picture by the lag.
        positions = self.bank_positions + footage.lag_frames + footage.lag_fraction
        flat = interpolated(np.arange(len(mouths)), mouths.reshape(len(mouths), -1), positions)
        return flat.reshape(-1, *mouths.shape[1:])

    async def _identity(self) -> common_pb2.ArtefactRef:
        """Return the person on the morphable model."""
        staged = self.method.adapts_neural_texture
        identity = await fit_identity(
            self.stages, self.bank_person.info, self.bank_person.faces, self.first, self.on_step, three_stage=staged
        )
        await self._count(identity)
        return identity

    async def _extras(self, identity: common_pb2.ArtefactRef) -> BankExtras:
        """Return what the bank holds of the frames beside their pictures. An unknown lag counts as none."""
        spoken = self.spoken
        if spoken is not None and self.lag.frames is not None:
            spoken = replace(spoken, lag_frames=self.lag.frames)
        return await bank_extras(self.stages, self.bank_person, identity, spoken, self.on_step)

    async def _adapted(self, style: common_pb2.ArtefactRef, footage: ClipWithSound) -> common_pb2.ArtefactRef:
        """Return the style with the motion networks adapted to the person."""
        adapted = await personalize_motion(self.stages, self.method, footage, style, self.on_step)
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


def actor_arrays(actor: EnrolledActor) -> tuple[dict[str, Array], dict[str, str]]:
    """Return arrays and metadata from which `actor_from_arrays` makes an equal actor."""
    arrays = {field.name: getattr(actor.geometry, field.name) for field in fields(ActorGeometry)} | {"pose": actor.pose}
    metadata = {
        "style": _ref_text(actor.style),
        "bank": _ref_text(actor.bank),
        "renderer": _ref_text(actor.renderer) if actor.renderer is not None else "",
        "identity": _ref_text(actor.identity) if actor.identity is not None else "",
        "renderer_trained": "yes" if actor.renderer_trained else "",
        "num_frames": str(actor.num_frames),
        "lag_frames": "" if actor.lag_frames is None else str(actor.lag_frames),
        "lag_fraction": repr(actor.lag_fraction),
        "lag_confidence": repr(actor.lag_confidence),
        "sync_distance": repr(actor.sync_distance),
        "lag_doubt": actor.lag_doubt,
        "speaking": "" if actor.speaking is None else json.dumps(asdict(actor.speaking)),
    }
    return arrays, metadata


def actor_from_arrays(stored: NamedArrays) -> EnrolledActor:
    """Return the actor that arrays and metadata of `actor_arrays` describe.

    Raises:
        ValueError: the arrays and the metadata are not those of an actor.
    """
    try:
        return _actor(stored)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not an enrolled actor: {error!r}") from error


def _actor(stored: NamedArrays) -> EnrolledActor:
    metadata = stored.metadata
    return EnrolledActor(
        style=_ref(metadata["style"]),
        bank=_ref(metadata["bank"]),
        renderer=_ref(metadata["renderer"]) if metadata["renderer"] else None,
        geometry=ActorGeometry(**{name: _array(stored, name, np.float32, shape) for name, shape in _SHAPES.items()}),
        num_frames=int(metadata["num_frames"]),
        pose=_array(stored, "pose", np.float64, (POSE_SIZE,)),
        renderer_trained=bool(metadata["renderer_trained"]),
        identity=_ref(metadata["identity"]) if metadata["identity"] else None,
        lag_frames=int(metadata["lag_frames"]) if metadata["lag_frames"] else None,
        lag_fraction=float(metadata["lag_fraction"]),
        lag_confidence=float(metadata["lag_confidence"]),
        sync_distance=float(metadata["sync_distance"]),
        lag_doubt=metadata["lag_doubt"],
        speaking=SpeakingMotion(**json.loads(metadata["speaking"])) if metadata["speaking"] else None,
    )


def _array(stored: NamedArrays, name: str, dtype: type[np.floating[Any]], shape: tuple[int, ...]) -> Array:
    array = stored.arrays[name]
    if array.dtype != dtype or array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite {np.dtype(dtype)} {list(shape)}, not {array.dtype} {list(array.shape)}")
    return array


def _ref_text(ref: common_pb2.ArtefactRef) -> str:
    return json.dumps([ref.uri, ref.sha256, ref.size_bytes])


def _ref(text: str) -> common_pb2.ArtefactRef:
    uri, sha256, size_bytes = json.loads(text)
    return common_pb2.ArtefactRef(uri=uri, sha256=sha256, size_bytes=size_bytes)
