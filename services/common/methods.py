"""The table of methods: which motion predictor and which renderer make a method, what each needs, and what each can do.

A new method is its rows here and its package in each stage. The stages find a package by the row, and list the row in ListModels.
The gateway compares the lists with its own table when it opens the stages, which may be of another version of dubstage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from dubstage.audio.v1 import audio_pb2
from services.common.errors import InvalidRequestError

FeatureKinds = tuple[audio_pb2.FeatureKind.ValueType, ...]

SHARED_FEATURES: Final[FeatureKinds] = (audio_pb2.FEATURE_KIND_MEL, audio_pb2.FEATURE_KIND_POSTERIORGRAM)
"""Features that every motion predictor takes, because the constraints read them. The gateway extracts them for every method."""
LAG_FEATURES: Final[FeatureKinds] = (*SHARED_FEATURES, audio_pb2.FEATURE_KIND_SPEECH_STATES)
"""Features that EstimateLag needs. The gateway extracts these kinds from the sound of footage."""
_FRAME_MS: Final = 40
LIVE_LOOK_AHEAD_CHOICES: Final = (0, 1, 2, 3)
"""Frames of live speech after a frame that the predictor of live speech can use, with a map for each. Each of them delays a stream
by 40 ms."""
LIVE_LOOK_AHEAD: Final = 1
"""Frames of live speech after a frame that the predictor uses if the caller makes no choice."""
LEAST_EXPRESSIVENESS: Final = 0.5
MOST_EXPRESSIVENESS: Final = 1.5
"""Range of the factor of the mouth's movement, as the contracts declare it too."""
_STATES: Final[FeatureKinds] = (*SHARED_FEATURES, audio_pb2.FEATURE_KIND_SPEECH_STATES)
_STATES_LIVE: Final[FeatureKinds] = (*SHARED_FEATURES, audio_pb2.FEATURE_KIND_SPEECH_STATES_LIVE)
_REMOVED: Final[FeatureKinds] = (*SHARED_FEATURES, audio_pb2.FEATURE_KIND_IDENTITY_REMOVED)
DEFAULT_METHOD: Final = "dubstage"
"""Method of requests that name none, where the footage is a video."""
STILL_METHOD: Final = "portrait"
"""Method of requests that name none, where the footage is a single picture."""


class TextureInput(StrEnum):
    """Input that a renderer takes from the texture stage with every frame."""

    NONE = "none"
    """Nothing: the texture stage is not asked."""
    WARPED = "warped"
    """A mouth texture of the actor's bank, warped to the target landmarks."""
    DRAWN = "drawn"
    """The person's face, drawn from the morphable model with the target mouth; black outside. Needs the person's identity."""
    NEURAL = "neural"
    """Features of the actor's neural texture at every pixel of the render box. Needs the person's identity and an actor."""


class Finish(StrEnum):
    """Whose pixels the mouths of a dub show. A renderer that starts from the bank's pictures still starts from them."""

    BANK = "bank"
    """The person's own frames give the mouths their colours, the inside between the lips and the finest detail."""
    RENDERER = "renderer"
    """The mouths are as the renderer drew them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MouthOptions:
    """Options of the prediction of mouths, which gateway and motion stage pass on as a whole.

    DubSpec, LineSpec, LiveConfig and PredictMotionConfig have fields of the same names (`mouth_from_proto`).

    Attributes:
        expressiveness: factor of the mouth's movement about the person's shut mouth, LEAST_EXPRESSIVENESS to MOST_EXPRESSIVENESS;
            1: as the person speaks.
    """

    expressiveness: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorSpec:
    """Row of a motion predictor.

    Attributes:
        name: name of the predictor in the motion stage (PredictMotionConfig.method).
        package: folder of services/motion/predictors that holds the predictor.
        features: kinds of audio features that the predictor takes, besides the speech probability.
        frames_ahead: frames of features (25 per second) after a frame that the predictor needs before it answers the frame.
        moves_head: whether the predictor answers head poses, for which it needs the head poses of the footage. Its videos have a
            timeline and background frames of their own.
        live: whether the predictor can be used in a live stream.
        streamed: name of the predictor of live streams in place of this one, for the same style. Empty: there is no other.
        look_ahead_choices: values in place of `frames_ahead` that a caller may choose (PredictMotionConfig.look_ahead_frames).
            Empty: there is no choice.
    """

    name: str
    package: str
    features: FeatureKinds = SHARED_FEATURES
    frames_ahead: int
    moves_head: bool = False
    live: bool = False
    streamed: str = ""
    look_ahead_choices: tuple[int, ...] = ()

    def check_look_ahead(self, frames: int | None, field: str) -> None:
        """Raise InvalidRequestError if a caller may not choose this look-ahead.

        Args:
            frames: frames of features after a frame. None: the caller makes no choice, which is always allowed.
            field: field of the request that holds the choice.
        """
        if frames is None or frames in self.look_ahead_choices:
            return
        if not self.look_ahead_choices:
            raise InvalidRequestError(
                f"{field}: the predictor {self.name} always needs {self.frames_ahead} frames ahead and has no choice, but {frames} "
                f"was given; remove {field}",
                field=field,
            )
        choices = ", ".join(map(str, self.look_ahead_choices))
        raise InvalidRequestError(
            f"{field}: the predictor {self.name} can use {choices} frames ahead, not {frames}; give one of these numbers, or "
            f"remove {field} for {self.frames_ahead}",
            field=field,
        )

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the features' tensors in AudioFeatureBlock."""
        return tuple(audio_pb2.FeatureKind.Name(kind).removeprefix("FEATURE_KIND_").lower() for kind in self.features)

    @property
    def look_ahead_ms(self) -> int:
        """`frames_ahead` in milliseconds."""
        return self.frames_ahead * _FRAME_MS


@dataclass(frozen=True, kw_only=True, slots=True)
class RendererSpec:
    """Row of a renderer. All renderers take target landmarks, so every motion predictor goes with every renderer.

    Attributes:
        name: name of the renderer in the render stage (RenderConfig.model), of its exported network, and of the renderer's folder
            in services/render/renderers.
        frames_before: frames before a frame that its picture depends on.
        frames_after: frames after a frame that its picture depends on.
        texture: what the renderer takes from the texture stage.
        speech: whether the renderer takes speech features with every frame.
        reference: whether the renderer can take the appearance from a reference picture. Without one, it takes the actor's own.
        needs_actor: whether the renderer shows the person only with the state of an actor.
        needs_identity: whether personalising the renderer, or drawing its texture, needs the person's identity.
        colours_from_bank: whether Finish.BANK gives the mouths the colours of the person's bank, because the renderer does not
            start from the bank's pictures (gateway/compositing/own_colours.py).
        inside_from_bank: whether Finish.BANK also shows the bank between the lips, because the renderer draws teeth that are worse.
        live: whether the renderer can be used in a live stream.

    Raises:
        ValueError: fields contradict each other.
    """

    name: str
    frames_before: int = 0
    frames_after: int = 0
    texture: TextureInput = TextureInput.NONE
    speech: bool = False
    reference: bool = False
    needs_actor: bool = False
    needs_identity: bool = False
    colours_from_bank: bool = False
    inside_from_bank: bool = False
    live: bool = False

    def __post_init__(self) -> None:
        if self.texture is TextureInput.DRAWN and not self.needs_identity:
            raise ValueError(f"renderer {self.name!r} takes a drawn face, which needs the person's identity")
        if self.texture is TextureInput.NEURAL and not (self.needs_identity and self.needs_actor):
            raise ValueError(f"renderer {self.name!r} takes a neural texture, which needs the person's identity and an actor")
        if self.colours_from_bank and self.texture is TextureInput.WARPED:
            raise ValueError(f"renderer {self.name!r} starts from the bank's pictures, which have the colours of the bank")
        if self.inside_from_bank and not self.colours_from_bank:
            raise ValueError(f"renderer {self.name!r} shows the bank between the lips, and needs the colours of the bank around")
        if self.live and self.frames_after:
            raise ValueError(f"renderer {self.name!r} sees frames after a frame, so it cannot be live")
        if self.live and (self.speech or self.texture is TextureInput.NEURAL):
            raise ValueError(f"renderer {self.name!r} takes inputs that a live stream does not make")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Optional fields that the renderer takes: of RenderFrame, each of them required; of RenderConfig `reference`, which may be
        unset."""
        sent = {
            "texture": self.texture in {TextureInput.WARPED, TextureInput.DRAWN},
            "neural_features": self.texture is TextureInput.NEURAL,
            "speech_features": self.speech,
            "reference": self.reference,
        }
        return tuple(name for name, is_sent in sent.items() if is_sent)

    @property
    def picture(self) -> TextureInput:
        """Content of the picture RenderFrame.texture; NONE: no such picture is sent."""
        return TextureInput.NONE if self.texture is TextureInput.NEURAL else self.texture


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One row of the table, or a combination of the parts of two rows.

    Attributes:
        name: name that users write.
        motion: the motion predictor of files.
        finish: whose pixels the mouths show, unless a dub chooses.
    """

    name: str
    motion: PredictorSpec
    renderer: RendererSpec
    finish: Finish = Finish.BANK

    @property
    def features(self) -> FeatureKinds:
        """Kinds of audio features that a dub extracts from the new speech: the shared kinds, then further ones of the predictor."""
        return _union(SHARED_FEATURES, self.motion.features)

    @property
    def footage_features(self) -> FeatureKinds:
        """Kinds of audio features that an enrolment extracts from the footage: `features`, then further ones for the lag."""
        return _union(self.features, LAG_FEATURES)

    @property
    def own_timeline(self) -> bool:
        """Whether every video of this method has a timeline of its own, instead of the footage's."""
        return self.motion.moves_head

    @property
    def needs_identity(self) -> bool:
        """Whether enrolment has to fit the person's identity on the morphable model."""
        return self.renderer.needs_identity

    @property
    def adapts_neural_texture(self) -> bool:
        """Whether the actor has a neural texture, which is adapted with the fitted expressions and the sound of the footage."""
        return self.renderer.texture is TextureInput.NEURAL

    @property
    def takes_still(self) -> bool:
        """Whether a single picture can be the footage: the head is turned by the predicted motion and the fitted identity."""
        return self.motion.moves_head and self.needs_identity

    @property
    def streamed(self) -> Method:
        """The method as live streams use it: with the predictor of live streams."""
        return replace(self, motion=PREDICTORS[self.motion.streamed or self.motion.name])

    @property
    def live(self) -> bool:
        """Whether the method can be used in a live stream: both parts have to be able to."""
        return self.streamed.motion.live and self.renderer.live

    @property
    def why_not_live(self) -> str:
        """Why the method cannot be used in a live stream, with the name of each part in the way. Empty: it can be used."""
        motion, renderer = self.streamed.motion, self.renderer
        reasons: list[str] = []
        if not motion.live:
            moved = "moves the head, so its videos have a timeline of their own"
            reasons.append(f"the predictor {motion.name} {moved if motion.moves_head else _needs(motion)}")
        if not renderer.live:
            after = f"needs {renderer.frames_after} frames after a frame"
            reasons.append(f"the renderer {renderer.name} {after if renderer.frames_after else 'is for files only'}")
        return ", and ".join(reasons)


def _union(first: FeatureKinds, second: FeatureKinds) -> FeatureKinds:
    return (*first, *(kind for kind in second if kind not in first))


def _needs(motion: PredictorSpec) -> str:
    return f"needs {motion.look_ahead_ms} ms of speech after a frame"


PREDICTORS: Final[dict[str, PredictorSpec]] = {
    row.name: row
    for row in (
        PredictorSpec(name="dubstage", package="dubstage", features=_STATES, frames_ahead=4, streamed="dubstage_live"),
        PredictorSpec(
            name="dubstage_live",
            package="dubstage",
            features=_STATES_LIVE,
            frames_ahead=LIVE_LOOK_AHEAD,
            live=True,
            look_ahead_choices=LIVE_LOOK_AHEAD_CHOICES,
        ),
        PredictorSpec(name="portrait", package="portrait", features=_STATES, frames_ahead=4, moves_head=True),
        PredictorSpec(name="ugc", package="ugc", frames_ahead=2, live=True),
        PredictorSpec(name="everybody", package="everybody", features=_REMOVED, frames_ahead=4, live=True),
        PredictorSpec(name="headpose", package="headpose", frames_ahead=2, moves_head=True),
        PredictorSpec(name="hetero", package="hetero", frames_ahead=5),
        PredictorSpec(name="everyone", package="everyone", features=_STATES, frames_ahead=10),
    )
}
"""Rows of the motion predictors by name."""

RENDERERS: Final[dict[str, RendererSpec]] = {
    row.name: row
    for row in (
        RendererSpec(name="ugc", texture=TextureInput.WARPED, live=True),
        RendererSpec(name="everybody", frames_before=6, needs_actor=True, colours_from_bank=True, inside_from_bank=True, live=True),
        RendererSpec(
            name="headpose",
            frames_before=2,
            texture=TextureInput.DRAWN,
            needs_actor=True,
            needs_identity=True,
            colours_from_bank=True,
        ),
        RendererSpec(
            name="hetero",
            frames_before=2,
            frames_after=2,
            reference=True,
            needs_actor=True,
            colours_from_bank=True,
            inside_from_bank=True,
        ),
        RendererSpec(
            name="everyone",
            frames_before=1,
            frames_after=1,
            texture=TextureInput.NEURAL,
            speech=True,
            needs_actor=True,
            needs_identity=True,
            colours_from_bank=True,
            inside_from_bank=True,
        ),
    )
}
"""Rows of the renderers by name."""

METHODS: Final[dict[str, Method]] = {
    name: Method(name=name, motion=PREDICTORS[motion], renderer=RENDERERS[renderer], finish=finish)
    for name, motion, renderer, finish in (
        ("dubstage", "dubstage", "ugc", Finish.BANK),
        ("portrait", "portrait", "headpose", Finish.BANK),
        ("ugc", "ugc", "ugc", Finish.RENDERER),
        ("everybody", "everybody", "everybody", Finish.RENDERER),
        ("headpose", "headpose", "headpose", Finish.RENDERER),
        ("hetero", "hetero", "hetero", Finish.RENDERER),
        ("everyone", "everyone", "everyone", Finish.RENDERER),
    )
}
"""Methods by the name that users write: name, motion predictor, renderer, finish."""
PAPERS: Final = tuple(name for name in METHODS if name not in {DEFAULT_METHOD, STILL_METHOD})
"""Methods of published papers."""


def method_named(name: str) -> Method:
    """Return the row of a method.

    MOTION+RENDERER takes the predictor of the row MOTION and the renderer of the row RENDERER, with Finish.BANK.

    Raises:
        InvalidRequestError: no row has this name.
    """
    if name in METHODS:
        return METHODS[name]
    motion, _, renderer = name.partition("+")
    if motion in METHODS and renderer in METHODS:
        return Method(name=name, motion=METHODS[motion].motion, renderer=METHODS[renderer].renderer)
    names = ", ".join(sorted(METHODS))
    raise InvalidRequestError(f"no method {name!r}; there are: {names}, and MOTION+RENDERER of any two of them", field="method")


def combined(name: str, motion: str | None = None, renderer: str | None = None) -> str:
    """Return the name of a method whose predictor, renderer, or both are those of other methods.

    Args:
        name: the method.
        motion: method whose predictor replaces the method's own; None: the method's own.
        renderer: method whose renderer replaces the method's own; None: the method's own.

    Raises:
        InvalidRequestError: no method has one of the names.
    """
    method = method_named(name)
    for given, field in ((motion, "motion"), (renderer, "renderer")):
        if given is not None and given not in METHODS:
            raise InvalidRequestError(f"no {field} {given!r}; there are: {', '.join(METHODS)}", field=field)
    row_of_motion, _, row_of_renderer = name.partition("+")
    wanted = [motion or row_of_motion, renderer or row_of_renderer or row_of_motion]
    parts = (
        METHODS[motion].motion if motion is not None else method.motion,
        METHODS[renderer].renderer if renderer is not None else method.renderer,
    )
    rows = [row.name for row in METHODS.values() if (row.motion, row.renderer) == parts]
    if rows:
        return rows[0]
    # Several rows have the same renderer. A combination has one name: that of the row that is called like the renderer.
    namesake = METHODS.get(parts[1].name)
    if namesake is not None and namesake.renderer == parts[1]:
        wanted[1] = namesake.name
    return "+".join(wanted)
