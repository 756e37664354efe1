"""The one reader and checker of a DubSpec: from a message that says what a dub is to a checked DubRequest.

Commands, rows of manifests (spec_text.py), RPCs, the Python client and workers of batches make a DubSpec. Errors name the fields of
DubSpec, such as `lines[2].speech_uri`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

from dubstage.gateway.v1 import dub_pb2 as pb
from dubstage.gateway.v1.consent_pb2 import ConsentRecord
from gateway.consent.files import read_consent
from gateway.consent.messages import consent_from, consent_message
from gateway.consent.record import Consent, use_of
from gateway.dub.analyse.face_boxes import FrameBox, checked_boxes
from gateway.dub.analyse.face_choice import AUTOMATIC, FaceChoice
from gateway.dub.choices import MOST_LINES, EnrolOptions, Expression, Fit
from gateway.dub.request.dub_request import (
    DubLine,
    DubRequest,
    check_mix,
    check_reference,
    check_timeline,
    default_method,
)
from gateway.dub.request.sequences import check_sequence_method, check_sequence_options, sequence_settings
from gateway.dub.request.spec_text import actor_of, is_sequence_spec, name_of, sides_of
from gateway.dub.sound.timecode import VideoTime, parse_time
from gateway.media.choices import BUILT_IN, DUCK_DB, OcioSettings
from gateway.media.encoders import check_target, crf_of
from gateway.media.label import Label, label_of
from gateway.media.locations import is_url, local_path
from gateway.media.mix import SoundMix
from gateway.media.output import refuse_input
from gateway.media.sequences import SequenceSettings, check_output_pattern
from services.common.errors import ActorError, ConsentRefusedError, InvalidRequestError, RequestError
from services.common.methods import DEFAULT_METHOD, Finish, MouthOptions, combined, method_named
from services.common.texts import Field, Option, Text
from services.common.wire.convert import mouth_from_proto

_NOT_OF_MOUTHS: Final = (
    *("output_uri", "overwrite", "consent", "consent_uri", "reference_consent", "reference_consent_uri", "project", "language"),
    *("fit", "mix_uri", "mix_level_db", "duck_db", "keep_audio", "codec", "encode_quality", "label", "label_position"),
)
"""Fields that change no mouth. `fit`: `pad` may be `cut`."""

_SEQUENCE_FIELDS: Final = ("footage_sound", "rate", "ocio", "input_colourspace", "display", "view")
"""Fields of image sequences, as checks name them."""
_OF_LINES: Final = ("lines", *asdict(MouthOptions()))
"""Fields of a scene that its lines take over."""

Refusal = RequestError | ActorError | ConsentRefusedError
"""Errors that a spec can be refused with, without its files."""
_REFUSALS: Final = (RequestError, ActorError, ConsentRefusedError)
_FIELDS: Final = frozenset(
    {
        *("face", "start", "preview_at"),
        *_SEQUENCE_FIELDS,
        *pb.DubSpec.DESCRIPTOR.fields_by_name,
        *pb.LineSpec.DESCRIPTOR.fields_by_name,
    }
)


class DubFiles(Protocol):
    """Files of this machine for the names in a spec. Each method raises InvalidRequestError with `field` for a wrong name."""

    def source(self, uri: str, field: str, /) -> Path:
        """Return the file that the dub reads."""

    def output(self, uri: str, field: str, /) -> Path:
        """Return the file that the dub writes."""

    def record(self, uri: str, field: str, /) -> Path:
        """Return the file of a consent record, which is read at once."""


class LocalFiles:
    """Files of this machine for names that are paths, as the caller writes them.

    Args:
        folder: folder that the relative paths of lines begin at; empty: the working folder.
    """

    def __init__(self, folder: str = "") -> None:
        self._folder = folder
        self._named: dict[str, Path] = {}

    def name(self, path: Path | None) -> str | None:
        """Return the name of a path in a spec; None for None. A spec has texts, and a path may have bytes that are no text."""
        if path is None:
            return None
        name = str(path).encode(errors="surrogateescape").decode(errors="replace")
        while self._named.get(name, path) != path:
            # Another file has this text. A mark before the last part keeps the ending, which names the format.
            folder, slash, last = name.rpartition("/")
            name = f"{folder}{slash}\ufffd{last}"
        self._named[name] = path
        return name

    def source(self, uri: str, field: str) -> Path:
        """Return the path of a file that is read."""
        return Path(self._folder, uri) if field.startswith("lines[") else self._named.get(uri, Path(uri))

    def output(self, uri: str, field: str) -> Path:
        """Return the path of a file that is written."""
        return self._named.get(uri, Path(uri))

    def record(self, uri: str, field: str) -> Path:
        """Return the path of a consent record."""
        return self.source(uri, field)


def request_from(
    spec: pb.DubSpec,
    files: DubFiles,
    *,
    threads: int,
    method: str = "",
) -> DubRequest:
    """Return the checked request of a spec, without what the store of actors says. Blocks: reads consent records.

    Args:
        spec: the dub. Its actor, and those of its lines, are looked up by the caller.
        files: finds the files that the spec names.
        threads: threads of decoder and encoder.
        method: method of the actor, which dubs if the spec names none; empty: there is no actor.

    Raises:
        InvalidRequestError: a field cannot be used.
        ArtefactNotFoundError, StorageRefusedError, BackendUnavailableError: from `files`.
    """
    footage = files.source(spec.footage_uri, "footage_uri")
    speech = _source(spec, "speech_uri", files)
    output = files.output(spec.output_uri, "output_uri")
    reference = _source(spec, "reference_uri", files)
    mix = _source(spec, "mix_uri", files)
    dubs_with = method_of(spec, method, footage)
    check_options(spec, dubs_with)
    dub = DubRequest(
        footage=footage,
        speech=speech,
        audio_channel=spec.audio_channel or None,
        output=output,
        method=dubs_with,
        face=face_of(spec),
        consent=_consent(spec, "consent", files, output),
        reference=reference,
        reference_consent=_consent(spec, "reference_consent", files, output),
        use=use_of(spec.project, spec.language),
        mix=_mix(spec, mix),
        keep_audio=spec.keep_audio,
        label=label_from(spec),
        codec=_codec(spec),
        crf=_crf(spec),
        enrol=enrol_options(spec),
        threads=threads,
        fit=_fit(spec),
        expression=_expression(spec),
        finish=_finish(spec),
        mouth=mouth_from_proto(spec, MouthOptions()),
        overwrite=spec.overwrite,
        preview=spec.preview,
        preview_at=_preview_at(spec),
        half_size=spec.preview,
    )
    check_scene(spec, dubs_with)
    return replace(dub, lines=tuple(_line(line, number, dub, files) for number, line in enumerate(spec.lines)))


def problems(spec: pb.DubSpec, method_of_actor: Callable[[pb.LineSpec | None], str]) -> Iterator[tuple[str, Refusal]]:
    """Yield what is wrong with a spec by itself, without its files, each with a field.

    Args:
        spec: the dub.
        method_of_actor: looks up the actor of the dub or of a line, checks the consent, and returns the method that dubs. Raises
            one of Refusal.
    """
    checks: list[tuple[str, Callable[[], object]]] = [
        ("face", lambda: face_of(spec)),
        ("footage_uri", lambda: sequence_of(spec)),
        ("output_uri", lambda: _check_video(spec)),
        ("label", lambda: label_from(spec)),
        ("finish", lambda: _finish(spec)),
        ("encode_quality", lambda: _crf(spec)),
        ("language", lambda: use_of(spec.project, spec.language)),
    ]
    if not spec.lines:
        checks.append(("actor", lambda: _check_method(spec, method_of_actor)))
    for field, check in checks:
        try:
            check()
        except _REFUSALS as error:
            yield field_of(error, field), error
    if spec.lines:
        yield from _problems_of_scene(spec, method_of_actor)


def _check_method(spec: pb.DubSpec, method_of_actor: Callable[[pb.LineSpec | None], str]) -> None:
    if spec.method:
        method_named(spec.method)
    method = method_of_actor(None)
    check_options(spec, method)
    if is_sequence_spec(spec) and not spec.method:  # `sequence_of` checks a method that the spec names
        check_sequence_method(method)


def _problems_of_scene(spec: pb.DubSpec, method_of_actor: Callable[[pb.LineSpec | None], str]) -> Iterator[tuple[str, Refusal]]:
    wanted = spec.method
    for number, line in enumerate(spec.lines):
        try:
            _ = _start(line), _speech(line), face_of_line(line), use_of("", line.language)
            method = method_of_actor(line)
            if line.actor:
                wanted = wanted or method
                if combined(wanted) != method:
                    raise InvalidRequestError(
                        f"actor {actor_of(line)} is enrolled for {method}, and the scene is dubbed with {wanted}", field="actor"
                    )
        except _REFUSALS as error:
            named = field_of(error, "actor")
            yield named if named == "method" else f"lines[{number}].{named}", error
    try:
        check_scene(spec, combined(wanted or DEFAULT_METHOD))
    except RequestError as error:
        yield field_of(error, "lines"), error


def field_of(error: Refusal, field: str) -> str:
    """Return the field of a spec that an error is about; `field`: the error names none."""
    named = error.field if isinstance(error, RequestError) else "consent" if isinstance(error, ConsentRefusedError) else ""
    if named.partition(".")[0] in _FIELDS:
        return named
    return f"{named}_uri" if f"{named}_uri" in _FIELDS else field


def check_options(spec: pb.DubSpec, method: str) -> None:
    """Check the options that a method does not take, or that contradict each other.

    Args:
        method: method that dubs.

    Raises:
        InvalidRequestError: an option contradicts the method or another option.
    """
    row = method_named(method)
    check_timeline(row, fit=_fit(spec), keep_audio=spec.keep_audio, expression=_expression(spec), boxes=bool(spec.boxes))
    check_reference(row, bool(spec.reference_uri))
    check_mix(bool(spec.mix_uri), keep_audio=spec.keep_audio)
    _check_preview(spec)
    if spec.WhichOneof("reference_consent_record") and not spec.reference_uri:
        raise InvalidRequestError(
            Text(
                "{consent} is given without {reference}",
                consent=Option("reference_consent"),
                reference=Option("reference_uri", "FILE"),
            ),
            field="reference_consent",
        )


def _check_preview(spec: pb.DubSpec) -> None:
    _preview_at(spec)
    if spec.WhichOneof("preview_at") and not spec.preview:
        raise InvalidRequestError(
            Text("{at} is given without {preview}", at=Option("preview_at"), preview=Option("preview")), field="preview_at"
        )
    wrong = {
        "fit": _fit(spec) in ("retime", "slow"),
        "keep_audio": spec.keep_audio,
        "footage_uri": is_sequence_spec(spec),
    }
    for field, given in wrong.items():
        if given and spec.preview:
            raise InvalidRequestError(
                Text(
                    "{preview} shows some seconds of a video with its new sound, and takes no {what}",
                    preview=Option("preview"),
                    what={"fit": f"fit {_fit(spec)}", "footage_uri": "image sequence"}.get(field, Option(field)),
                ),
                field=field,
            )


def check_scene(spec: pb.DubSpec, method: str) -> None:
    """Check that a spec with lines has no option that only a dub of one person takes.

    Args:
        method: method that dubs.

    Raises:
        InvalidRequestError: an option contradicts the lines, or there are too many lines.
    """
    if len(spec.lines) > MOST_LINES:
        raise InvalidRequestError(f"{len(spec.lines)} lines, and a scene has at most {MOST_LINES}", field="lines")
    wrong = {
        "speech_uri": bool(spec.speech_uri),
        "face": face_of(spec) != AUTOMATIC,
        "actor": bool(spec.actor),
        "reference_uri": bool(spec.reference_uri),
        "fit": _fit(spec) != "cut",
        "preview": spec.preview,
        "method": method_named(method).own_timeline,
    }
    for field, given in wrong.items():
        if given and spec.lines:
            word = field.removesuffix("_uri")
            what = f"method {method}" if field == "method" else word
            why = "each line names its own" if word in {"speech", "face", "actor"} else "a scene has the frames of its footage"
            raise InvalidRequestError(f"a dub with lines takes no {what}: {why}", field=field)


def method_of(spec: pb.DubSpec, method: str = "", footage: Path | None = None) -> str:
    """Return the method that dubs a spec.

    Args:
        method: method of the actor; empty: there is no actor.
        footage: as `default_method` takes it.

    Raises:
        InvalidRequestError: there is no such method.
    """
    named = spec.method or method or (DEFAULT_METHOD if spec.lines else default_method(spec.footage_uri, footage))
    return combined(named)


def face_of(message: Any) -> FaceChoice:
    """Return the face of a DubSpec or a CreateActorRequest; without a choice, AUTOMATIC.

    Raises:
        InvalidRequestError: the message names a rule that chooses no face, or boxes that cannot be used.
    """
    return _face(message) or AUTOMATIC


def face_of_line(line: pb.LineSpec) -> FaceChoice:
    """Return the face of a line.

    Raises:
        InvalidRequestError: the line names neither a face nor an actor, or boxes that cannot be used.
    """
    face = _face(line)
    if face is None and not line.actor:
        raise InvalidRequestError(
            "give face_id, point, box, face_rule, boxes or actor: who speaks the line", field="face", named=True
        )
    return face or FaceChoice("actor")


def _face(message: Any) -> FaceChoice | None:
    named = message.WhichOneof("face")
    if "boxes" in message.DESCRIPTOR.fields_by_name and message.boxes:
        if named:
            raise InvalidRequestError(f"give {named} or boxes, not both", field="boxes", named=True)
        return FaceChoice("boxes", boxes=checked_boxes([FrameBox(each.frame_index, *sides_of(each.box)) for each in message.boxes]))
    match named:
        case "face_id":
            return FaceChoice("id", face_id=message.face_id)
        case "point":
            return FaceChoice("point", point=(message.point.x, message.point.y))
        case "box":
            return FaceChoice("box", box=sides_of(message.box))
        case "face_rule":
            if not message.face_rule:
                raise InvalidRequestError(
                    "give FACE_RULE_LARGEST, FACE_RULE_SPEAKER or FACE_RULE_AUTO", field="face_rule", named=True
                )
            return FaceChoice(name_of(message, "face_rule"))
        case _:
            return None


def label_from(message: Any) -> Label | None:
    """Return the visible label of a DubSpec or a LiveConfig; None: there is none. Blocks: reads the font.

    Raises:
        InvalidRequestError: the label cannot be drawn.
    """
    return label_of(message.label, name_of(message, "label_position"))


def enrol_options(message: Any) -> EnrolOptions:
    """Return which parts of an enrolment a DubSpec or a CreateActorRequest asks for.

    Raises:
        InvalidRequestError: the seed is negative.
    """
    if message.seed < 0:
        raise InvalidRequestError(f"{message.seed} is negative", field="seed", named=True)
    trains = not message.skip_personalization
    return EnrolOptions(personalize_renderer=trains, personalize_motion=trains, seed=message.seed)


def sequence_of(spec: pb.DubSpec) -> SequenceSettings | None:
    """Return what a spec says about its image sequence; None: the footage is a video.

    Raises:
        InvalidRequestError: a field is wrong, or is not for such footage.
    """
    given = spec.sequence
    footage = Path(local_path(spec.footage_uri) or spec.footage_uri)
    settings = sequence_settings(
        footage,
        rate=given.rate,
        sound=Path(local_path(given.sound_uri) or given.sound_uri) if given.sound_uri else None,
        colour=colour_of(spec),
    )
    if settings is None:
        return None
    uris = {"footage_uri": spec.footage_uri, "output_uri": spec.output_uri, "footage_sound": given.sound_uri}
    if not given.ocio.startswith(BUILT_IN):
        uris["ocio"] = given.ocio
    for field, uri in uris.items():
        if is_url(uri):
            raise InvalidRequestError(
                f"{uri[:200]!r} is a URL, and image sequences, their sound and their colour configurations are read "
                "from folders: give a path",
                field=field,
            )
    check_sequence_options(fit=_fit(spec), method=spec.method or None, codec=_codec(spec), encode_quality=spec.encode_quality)
    check_output_pattern(Path(local_path(spec.output_uri) or spec.output_uri), footage)
    return settings


def colour_of(spec: pb.DubSpec) -> OcioSettings:
    """Return the colour of the image sequence of a spec."""
    given = spec.sequence
    config = given.ocio if given.ocio.startswith(BUILT_IN) else local_path(given.ocio) or given.ocio
    return OcioSettings(config=config, colourspace=given.input_colourspace, display=given.display, view=given.view)


def mouths_of(spec: pb.DubSpec, *, of_lines: bool = True) -> pb.DubSpec:
    """Return a spec with the fields alone that change the mouths of a dub. Dubs with equal mouths share a job folder.

    Args:
        of_lines: whether the lines of a scene count. False: scenes of one footage share a folder, whatever their lines.
    """
    copy = deepcopy(spec)
    for field in _NOT_OF_MOUTHS if of_lines or not spec.lines else (*_NOT_OF_MOUTHS, *_OF_LINES):
        copy.ClearField(field)  # type: ignore[arg-type]  # a field of DubSpec
    return copy


def without_records(spec: pb.DubSpec) -> pb.DubSpec:
    """Return a spec without consent records."""
    copy = deepcopy(spec)
    for holder in (copy, *copy.lines):
        holder.ClearField("consent_record")
    copy.ClearField("reference_consent_record")
    return copy


def with_records(spec: pb.DubSpec, files: DubFiles) -> pb.DubSpec:
    """Return a spec with the consent records themselves in place of the names of their files. Blocks.

    Raises:
        InvalidRequestError: a file holds no consent record.
    """
    copy = deepcopy(spec)
    holders: Sequence[tuple[Any, str, str]] = [
        (copy, "consent", "consent_uri"),
        (copy, "reference_consent", "reference_consent_uri"),
        *((line, "consent", f"lines[{number}].consent_uri") for number, line in enumerate(copy.lines)),
    ]
    for holder, name, field in holders:
        if uri := getattr(holder, f"{name}_uri"):
            getattr(holder, name).CopyFrom(consent_message(read_consent(files.record(uri, field))))
    return copy


def records_of(spec: pb.DubSpec) -> list[ConsentRecord]:
    """Return the consent records of a spec that must allow the dub: of the reference, and of each line or of the dub."""
    records = [spec.reference_consent] if spec.HasField("reference_consent") else []
    holders = [line if line.HasField("consent") else spec for line in spec.lines] or [spec]
    return [*records, *(holder.consent for holder in holders if holder.HasField("consent"))]


def actors_of(spec: pb.DubSpec) -> tuple[str, ...]:
    """Return the ids of the enrolled actors of a dub, each once.

    Raises:
        InvalidRequestError: a text is no name of an actor.
    """
    return tuple(dict.fromkeys(actor_id for part in spec.lines or [spec] if (actor_id := actor_of(part))))


@contextmanager
def within(path: str) -> Iterator[None]:
    """Let errors name the path of a field, where a check is shared with requests that have the same field elsewhere."""
    try:
        yield
    except InvalidRequestError as error:
        error.blame(f"{path}.{error.field}")
        raise


def _line(line: pb.LineSpec, number: int, dub: DubRequest, files: DubFiles) -> DubLine:
    here = f"lines[{number}]"
    with within(here):
        _speech(line)
    speech = files.source(line.speech_uri, f"{here}.speech_uri")
    consent = _consent(line, "consent", files, dub.output, here) or dub.consent
    with within(here):
        start = _start(line)
        face = face_of_line(line)
        actor_id = actor_of(line)
        use = use_of(dub.use.project, line.language) if line.language else dub.use
        own = replace(
            dub,
            speech=speech,
            face=face,
            consent=consent,
            use=use,
            mouth=mouth_from_proto(line, dub.mouth),
            lines=(),
        )
    return DubLine(name=Field(here), start=start, actor_id=actor_id, dub=own)


def _start(line: pb.LineSpec) -> VideoTime:
    if not line.WhichOneof("start"):
        raise InvalidRequestError("give start_time or start_timecode", field="start_time", named=True)
    return _time(line, "start")


def _preview_at(spec: pb.DubSpec) -> VideoTime | None:
    """Return where a preview begins; None: with the first frame, or the spec does not say."""
    if not spec.WhichOneof("preview_at"):
        return None
    try:
        at = _time(spec, "preview")
    except InvalidRequestError as error:
        error.blame("preview_at")
        raise
    return at if at.seconds or at.frames else None


def _time(message: Any, prefix: str) -> VideoTime:
    """Return the time in the field `<prefix>_timecode` or `<prefix>_time` of a message.

    Raises:
        InvalidRequestError: the text is no time, or the time is negative.
    """
    if message.HasField(f"{prefix}_timecode"):
        return parse_time(getattr(message, f"{prefix}_timecode"))
    time = getattr(message, f"{prefix}_time")
    seconds = time.seconds + Fraction(time.nanos, 1_000_000_000)
    if seconds < 0:
        raise InvalidRequestError(f"{float(seconds):g} s is before the first frame", field=f"{prefix}_time", named=True)
    return VideoTime(seconds)


def _speech(line: pb.LineSpec) -> str:
    if not line.speech_uri:
        raise InvalidRequestError("is missing: every line has start and speech", field="speech_uri", named=True)
    return line.speech_uri


def _source(spec: pb.DubSpec, field: str, files: DubFiles) -> Path | None:
    uri = getattr(spec, field)
    return files.source(uri, field) if uri else None


def files_read(spec: pb.DubSpec, files: DubFiles) -> list[Path]:
    """Return the files that a dub reads beside its footage."""
    names = ("speech_uri", "mix_uri", "reference_uri")
    read = [file for name in names if (file := _source(spec, name, files)) is not None]
    read += [files.source(line.speech_uri, f"lines[{number}]") for number, line in enumerate(spec.lines) if line.speech_uri]
    records = [("consent_uri", spec.consent_uri), ("reference_consent_uri", spec.reference_consent_uri)]
    records += [(f"lines[{number}].consent_uri", line.consent_uri) for number, line in enumerate(spec.lines)]
    return [*read, *(files.record(uri, field) for field, uri in records if uri)]


def _consent(holder: Any, name: str, files: DubFiles, output: Path, path: str = "") -> Consent | None:
    """Return a consent record of a spec or, with its path, of a line; None: there is none."""
    naming = within(path) if path else nullcontext()
    if holder.HasField(name):
        with naming:
            return consent_from(getattr(holder, name))
    uri = getattr(holder, f"{name}_uri")
    if not uri:
        return None
    file = files.record(uri, f"{path}.{name}_uri" if path else f"{name}_uri")
    refuse_input(output, file, "a consent record")
    with naming:
        return read_consent(file)


def _mix(spec: pb.DubSpec, file: Path | None) -> SoundMix | None:
    if file is None:
        return None
    duck_db = spec.duck_db if spec.HasField("duck_db") else DUCK_DB
    return SoundMix(file=file, level_db=spec.mix_level_db, duck_db=duck_db)


def _fit(spec: pb.DubSpec) -> Fit:
    return name_of(spec, "fit") or "cut"  # type: ignore[return-value]


def _expression(spec: pb.DubSpec) -> Expression | None:
    return name_of(spec, "expression") or None  # type: ignore[return-value]


def _finish(spec: pb.DubSpec) -> Finish | None:
    name = name_of(spec, "finish")
    return Finish(name) if name else None


def _codec(spec: pb.DubSpec) -> str | None:
    return name_of(spec, "codec") or None


def _crf(spec: pb.DubSpec) -> int | None:
    return crf_of(spec.encode_quality, _codec(spec))


def _check_video(spec: pb.DubSpec) -> None:
    if not is_sequence_spec(spec):
        check_target(Path(spec.output_uri), _codec(spec))
