"""The table of methods: a method is a composition of stages, not a program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dubstage.audio.v1alpha1 import audio_pb2
from services.common.errors import InvalidRequest

FeatureKinds = tuple[audio_pb2.FeatureKind.ValueType, ...]

FEATURES: Final[dict[str, FeatureKinds]] = {
    "ugc": (audio_pb2.FEATURE_KIND_MEL, audio_pb2.FEATURE_KIND_POSTERIORGRAM),
    "everybody": (
        audio_pb2.FEATURE_KIND_MEL,
        audio_pb2.FEATURE_KIND_POSTERIORGRAM,
        audio_pb2.FEATURE_KIND_IDENTITY_REMOVED,
    ),
    "headpose": (audio_pb2.FEATURE_KIND_MEL, audio_pb2.FEATURE_KIND_POSTERIORGRAM),
}
"""What each motion predictor hears. Mel spectrogram and posteriorgram are in all: the footage's lag is found by them."""


MOVES_HEAD: Final = frozenset({"headpose"})
"""Motion predictors that answer head poses: their films have a timeline and backgrounds of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Renderer:
    """What a model of the render stage wants to see.

    Attributes:
        context_frames: frames before the first one wanted.
        warped_texture: the texture stage's warped mouths.
        drawn_face: the person's face as the morphable model has it, drawn by the texture stage; needs the person's identity.
        needs_state: pictures of the person are in its actor's state: without one it draws nobody.
    """

    context_frames: int = 0
    warped_texture: bool = False
    drawn_face: bool = False
    needs_state: bool = False


RENDERERS: Final[dict[str, Renderer]] = {
    "ugc": Renderer(warped_texture=True),
    "everybody": Renderer(context_frames=6, needs_state=True),
    "headpose": Renderer(context_frames=2, drawn_face=True, needs_state=True),
}
"""Models of the render stage by name. All take wanted landmarks: any motion predictor goes with any of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One row of the table.

    Attributes:
        name: as users write it.
        motion: method name of the motion predictor (PredictMotionConfig.method).
        renderer: model name of the renderer (RenderConfig.model).
    """

    name: str
    motion: str
    renderer: str

    @property
    def features(self) -> FeatureKinds:
        """What the motion predictor hears."""
        return FEATURES[self.motion]

    @property
    def moves_head(self) -> bool:
        """Whether the film gets an output timeline of its own instead of being dubbed in place."""
        return self.motion in MOVES_HEAD

    @property
    def needs_identity(self) -> bool:
        """Whether an actor needs the person's identity on the morphable model."""
        return RENDERERS[self.renderer].drawn_face

    @property
    def takes_still(self) -> bool:
        """Whether a single picture can be its footage: the head moves, and nothing is needed that one frame does not show."""
        return self.moves_head and self.needs_identity


DEFAULT_METHOD: Final = "ugc"
METHODS: Final[dict[str, Method]] = {name: Method(name=name, motion=name, renderer=name) for name in RENDERERS}


def combined(name: str, motion: str | None = None, renderer: str | None = None) -> str:
    """Name of a method with another motion predictor, another renderer, or both; None leaves the method's own.

    Raises:
        InvalidRequest: there is none of this name.
    """
    method = method_named(name)
    for given, known, field in ((motion, tuple(FEATURES), "motion"), (renderer, tuple(RENDERERS), "renderer")):
        if given is not None and given not in known:
            raise InvalidRequest(f"no {field} {given!r}; there are: {', '.join(known)}", field=field)
    wanted = (motion or method.motion, renderer or method.renderer)
    rows = [row.name for row in METHODS.values() if (row.motion, row.renderer) == wanted]
    return rows[0] if rows else "+".join(wanted)


def method_named(name: str) -> Method:
    """The row of a method; MOTION+RENDERER is a combination of any two.

    Raises:
        InvalidRequest: there is none of this name.
    """
    if name in METHODS:
        return METHODS[name]
    motion, _, renderer = name.partition("+")
    if motion in FEATURES and renderer in RENDERERS:
        return Method(name=name, motion=motion, renderer=renderer)
    known = ", ".join(sorted(METHODS))
    raise InvalidRequest(
        f"no method {name!r}; there are: {known}, and MOTION+RENDERER of {', '.join(FEATURES)} with {', '.join(RENDERERS)}",
        field="method",
    )
