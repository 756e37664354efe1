"""Request for a dub, and the checks of a request before any computation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from dubstage.texture.v1alpha1 import texture_pb2
from gateway.consent.record import Consent, ConsentUse
from gateway.media.stills import is_still
from gateway.media.types import MediaInfo
from gateway.methods import METHODS, Method, method_named
from gateway.pipeline.enrol import EnrolledActor, EnrolOptions
from gateway.pipeline.faces import FaceChoice
from gateway.pipeline.speech import FEATURE_BLOCK
from services.common.errors import InvalidRequest
from services.common.store.artefacts import ArtefactRef

Expression = Literal["keep", "neutral"]
"""What a dub does with the slow expression of the footage (slow_expression.py): keeps it, or shows the predicted mouths alone."""
EXPRESSIONS: Final[tuple[Expression, ...]] = get_args(Expression)

LEAST_EXPRESSIVENESS: Final = 0.5
MOST_EXPRESSIVENESS: Final = 1.5
"""Range of the factor of the mouth's movement, as the contracts declare it too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorRecord:
    """Facts that the store holds of the actor of a dub, for the consent checks.

    Attributes:
        actor_id: id of the actor.
        consent: the actor's own consent record; None: there is none.
        footage_sha256: digest of the footage that the actor was enrolled from.
        faces: face records of the stored footage; None: the actor was enrolled without.
        footage: the stored footage; None: the actor was enrolled without.
    """

    actor_id: str
    consent: Consent | None
    footage_sha256: str
    faces: ArtefactRef | None
    footage: ArtefactRef | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DubRequest:
    """Request for a dub.

    Attributes:
        footage: video file, or a picture for methods that take one.
        speech: sound file; None: the sound of the footage.
        output: file to write.
        method: name of the method (gateway.methods).
        face: face to dub.
        actor: enrolled actor; None: the person is learned from this footage.
        own: what the store says of the actor; None: the person is learned from this footage.
        consent: consent record that comes with the request. It narrows the actor's own record. None: none comes.
        consent_required: whether the installation requires consent records.
        reference: picture or film of the person whose appearance the film takes; None: the actor's own appearance.
        reference_consent: consent record of the person in `reference`; None: there is none.
        use: project and language, which the consent records must cover.
        keep_audio: the output keeps the sound of the footage.
        codec: video codec of the output; None: chosen by the container.
        enrol: which parts of the enrolment from this footage are done.
        warp: how the texture stage warps.
        threads: threads of decoder and encoder.
        feature_block: feature frames per message to the motion stage; changes no byte of the result.
        retime: the film is as long as the speech and shows the frames of the footage with a fitting head motion.
        expression: what becomes of the person's slow expression; None: `keep`, and `neutral` for films with their own timeline.
        expressiveness: factor of the mouth's movement about the person's shut mouth, LEAST_EXPRESSIVENESS to MOST_EXPRESSIVENESS;
            1: as the person speaks.
        overwrite: replace any file at `output`. False: replace only a film that dubstage wrote.
    """

    footage: Path
    speech: Path | None
    output: Path
    method: str
    face: FaceChoice = FaceChoice("largest")
    actor: EnrolledActor | None = None
    own: ActorRecord | None = None
    consent: Consent | None = None
    consent_required: bool = False
    reference: Path | None = None
    reference_consent: Consent | None = None
    use: ConsentUse = ConsentUse()
    keep_audio: bool = False
    codec: str | None = None
    enrol: EnrolOptions = EnrolOptions()
    warp: texture_pb2.WarpMode.ValueType = texture_pb2.WARP_MODE_TEMPORAL_WARP_NETWORK
    threads: int = 2
    feature_block: int = FEATURE_BLOCK
    retime: bool = False
    expression: Expression | None = None
    expressiveness: float = 1.0
    overwrite: bool = False

    @property
    def consents(self) -> tuple[Consent | None, ...]:
        """The records that must all allow the dub."""
        return self.consent, self.own_consent, self.reference_consent

    @property
    def own_consent(self) -> Consent | None:
        """The actor's own record; None: there is none."""
        return self.own.consent if self.own is not None else None

    @property
    def named_consent(self) -> Consent | None:
        """The record of the person that the film names: that of the request, otherwise the actor's own; None: there is none."""
        return self.consent or self.own_consent

    @property
    def keeps_expression(self) -> bool:
        """Whether the film keeps the slow expression of the footage. Only a film with the frames of the footage can."""
        return self.expression != "neutral" and not (self.retime or method_named(self.method).own_timeline)


def what_is_synthetic(request: DubRequest, *, dubbed: bool) -> str:
    """Return the sentence that says which parts of a film are synthetic, without its full stop.

    Args:
        request: the dub request.
        dubbed: whether the mouth of any frame is rendered.
    """
    if method_named(request.method).motion.moves_head:
        what = "The mouth and the motion of the head in this film are" if dubbed else "The motion of the head in this film is"
        return f"{what} synthetic"
    return "The mouth in this film is synthetic" if dubbed else "No mouth in this film is synthetic"


def check_footage(method: Method, footage: Path, info: MediaInfo) -> None:
    """Raise InvalidRequest if the footage is a single picture and the method needs a video."""
    if is_still(info) and not method.takes_still:
        able = ", ".join(name for name, row in METHODS.items() if row.takes_still)
        raise InvalidRequest(
            f"{footage} is a single picture, and method {method.name} needs a video; methods that take a picture: {able}",
            field="method",
        )


def check_reference(method: Method, reference: Path | None) -> None:
    """Raise InvalidRequest if there is a reference, and the method's renderer takes none."""
    if reference is not None and not method.renderer.reference:
        able = ", ".join(name for name, row in METHODS.items() if row.renderer.reference)
        raise InvalidRequest(
            f"method {method.name} takes no reference picture: its renderer {method.renderer.name} shows the actor as in the "
            f"footage; renderers that take a reference: {able or 'none'}",
            field="reference",
        )


def has_own_timeline(request: DubRequest, info: MediaInfo) -> bool:
    """Return whether the film gets its own timeline, so that its frames are not those of the footage one by one.

    Raises:
        InvalidRequest: parts of the request contradict each other.
    """
    method = method_named(request.method)
    check_footage(method, request.footage, info)
    check_reference(method, request.reference)
    return wants_own_timeline(method, retime=request.retime, keep_audio=request.keep_audio, expression=request.expression)


def expression_named(name: str) -> Expression | None:
    """Return what a dub does with the slow expression of the footage; None: the name is empty, so the method decides.

    Raises:
        InvalidRequest: there is no such choice.
    """
    found = next((expression for expression in EXPRESSIONS if expression == name), None)
    if found is None and name:
        raise InvalidRequest(f"no expression {name[:80]!r}; there are: {', '.join(EXPRESSIONS)}", field="expression")
    return found


def wants_own_timeline(method: Method, *, retime: bool, keep_audio: bool, expression: Expression | None = None) -> bool:
    """Return whether the film gets its own timeline, without reading the footage.

    Raises:
        InvalidRequest: the options contradict each other.
    """
    if retime and method.own_timeline:
        raise InvalidRequest(f"films of method {method.name} are always as long as the speech: leave --retime out", field="retime")
    own = retime or method.own_timeline
    if own and keep_audio:
        raise InvalidRequest(
            "the film gets a timeline of its own, so the sound of the footage does not fit it: leave --keep-audio out",
            field="keep_audio",
        )
    if own and expression == "keep":
        raise InvalidRequest(
            "the film gets a timeline of its own, so the expression of the footage does not fit its frames: leave "
            "--expression keep out",
            field="expression",
        )
    return own
