"""Options of a dub, the same for `dubstage.dub`, `gateway.dub` and rows of batches, and the DubSpec that is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypedDict, TypeVar, Unpack

from google.protobuf.message import Message

from dubstage.client.arrays import number_of
from dubstage.client.names import advice, face_fields, resource_name
from dubstage.gateway.v1 import consent_pb2
from dubstage.gateway.v1 import dub_pb2 as pb

M = TypeVar("M", bound=Message)

Consent = consent_pb2.ConsentRecord | Mapping[str, Any]
"""A consent record, or its fields as in its JSON file: subject, granted_by, scope, date (ISO 8601), reference and, if the record
has them, projects, languages, valid_from, valid_until, actor, footage_sha256, face (network, embedding) and signature.
"""
Line = pb.LineSpec | Mapping[str, Any]
"""A line of a scene, or its fields: speech, start_time (a timedelta) or start_timecode, face, boxes or actor_id, language, consent
and expressiveness, as in DubOptions, or the fields of LineSpec; for `dubstage.dub` in this process also say and voice, in place of
speech.
"""


class LiveOptions(TypedDict, total=False):
    """Options that dubs and live streams have. Options that are not given have no effect.

    project: project of the video; a consent record that names projects must name this one.
    language: language of the new speech, such as de or pt-BR; a consent record that names languages must cover this one.
    expressiveness: factor of the mouth's movement about the person's shut mouth, 0.5 to 1.5; None: 1, as the person speaks. Lips
        that p, b, m or silence shut stay shut.
    label: text that every frame shows, such as "AI dubbed", 60 characters at most; empty: none.
    label_position: corner of the label: "top-left", "top-right", "bottom-left" or "bottom-right", or its number; 0 or empty:
        bottom-right.
    """

    project: str
    language: str
    expressiveness: float | None
    label: str
    label_position: str | int


class DubOptions(LiveOptions, total=False):
    """Options of a dub, besides LiveOptions. Options that are not given have no effect.

    speech: file with the new speech, named like the footage; empty: the footage's own sound.
    audio_channel: channel of the speech that is the voice, from 1; 0: the sound decides.
    method: name of the method; empty: the actor's, otherwise dubstage, or portrait for a single picture.
    actor_id: an enrolled person; empty: an actor that ends with the dub.
    face: "largest", "speaker", a face id, "X,Y" in pixels of the first frame, or a box in the same frame; empty: the speaker
        where the sound tells for certain, otherwise the largest.
    boxes: the face from frame to frame, in place of `face`: each box counts until the next one.
    lines: lines of a scene, each with its own speech and face, in place of `speech`, `actor_id` and `face`.
    consent: that the person agreed to be dubbed: a record, or the name of its JSON file; with an actor who has a record, both
        must allow the video. None: the actor's record.
    fit: length of the video where the speech is longer or shorter than the footage: name of a Fit without its prefix, in lower
        case, such as "loop", or its number; 0 or empty: cut.
    expression: "keep" or "neutral": whether the video keeps the slow expression (a smile, tension) of the person in the footage;
        empty: keep, and neutral for videos with a timeline of their own.
    finish: "bank" or "renderer": whose pixels the mouth shows: "bank" gives it the colours, the inside and the finest detail of the
        person's own frames, "renderer" shows what the network drew; empty: bank, and renderer for the methods of papers.
    reference: picture or video, named like the footage, whose first usable face gives the video its lip colour, make-up and
        beard, for methods whose renderer takes a reference; empty: the person's own appearance.
    reference_consent: that the person in `reference` agreed, as `consent`.
    mix: sound file, named like the footage, with the music and effects of the footage and no dialogue, which lies under the new
        speech; empty: the speech alone.
    mix_level_db: gain of the music and effects, decibels, -60 to 12.
    duck_db: further decibels by which music and effects are quieter under speech, 0 to 60; None: 6.
    keep_audio: keep the footage's sound.
    codec: "h264", "hevc", "ffv1", "prores", "mpeg2video", "dnxhr" or "av1"; empty: container and footage decide.
    encode_quality: quality of the pictures in H.264, HEVC and AV1: "visually-lossless", "high", "small", or a crf of H.264 from 0
        (best) to 51; empty: high.
    personalize: if no actor is given: adapt the networks to the person, which is the default. False: leave them as they are.
    seed: random seed for personalisation.
    overwrite: replace any file at the output; without this, only a video that dubstage wrote is replaced.
    preview: dub only four seconds, without training networks on the person, and at half size if the shorter side has 480 pixels
        or more, both sides halve evenly, and there is no report.
    preview_time: where the preview begins: time from the first frame. None: with the first frame.
    preview_timecode: the same as a timecode, HH:MM:SS:FF, counted from the first frame.
    """

    speech: str
    audio_channel: int
    method: str
    actor_id: str
    face: str | int | pb.FaceBox
    boxes: Sequence[pb.FrameBox]
    lines: Sequence[Line]
    consent: Consent | str | None
    fit: str | int
    expression: str | int
    finish: str | int
    reference: str
    reference_consent: Consent | str | None
    mix: str
    mix_level_db: float
    duck_db: float | None
    keep_audio: bool
    codec: str | int
    encode_quality: str | int
    personalize: bool
    seed: int
    overwrite: bool
    preview: bool
    preview_time: timedelta | None
    preview_timecode: str | None


def consent_record(consent: Consent | None) -> consent_pb2.ConsentRecord | None:
    """Return a consent record as a message; None for None.

    Raises:
        ValueError: the record has no such field, or a value of another kind.
    """
    if not isinstance(consent, Mapping):
        return consent
    _check_names("a consent record", consent, list(consent_pb2.ConsentRecord.DESCRIPTOR.fields_by_name))
    return _message(consent_pb2.ConsentRecord, consent)


def line_message(line: Line) -> pb.LineSpec:
    """Return a line of a scene as a message.

    Raises:
        ValueError: a line has no such field, or a value of another kind.
    """
    if not isinstance(line, Mapping):
        return line
    _check_names("a line", line, ["speech", "face", "actor_id", *pb.LineSpec.DESCRIPTOR.fields_by_name])
    return _message(pb.LineSpec, _fields_of(pb.LineSpec, line))


def _check_names(what: str, given: Iterable[str], fields: Sequence[str]) -> None:
    for name in given:
        if name not in fields:
            raise ValueError(f"{what} has no field {name!r}: {advice(name, fields)}")


def _message(kind: type[M], fields: Mapping[str, Any]) -> M:
    """Return a message with these fields.

    Raises:
        ValueError: a field takes no such value; protobuf's own message does not name the field.
    """
    for name, given in fields.items():
        try:
            kind(**{name: given})
        except (AttributeError, TypeError, ValueError) as problem:
            raise ValueError(f"{name.removesuffix('_uri')}={given!r:.80}: {problem}") from problem
    return kind(**fields)


def _record(name: str) -> Callable[[Any], dict[str, Any]]:
    return lambda given: {f"{name}_uri": given} if isinstance(given, str) else {name: consent_record(given)}


_FIELDS: Final[Mapping[str, Callable[[Any], dict[str, Any]]]] = {
    **{name: _record(name) for name in ("consent", "reference_consent")},
    "actor_id": lambda given: {"actor": resource_name("actors", given)},
    "face": face_fields,
    "encode_quality": lambda given: {"encode_quality": str(given)},
    "personalize": lambda given: {"skip_personalization": not given},
    "lines": lambda given: {"lines": [line_message(line) for line in given]},
}
"""Options -> fields of DubSpec, where an option is not the field of its name, or of its name and `_uri`."""


def option_fields(**options: Any) -> dict[str, Any]:
    """Return the fields of a message of dub.proto that options stand for. None stands for an option that is not given.

    Raises:
        ValueError: an option has a name that its enum does not have, or a wrong face.
    """
    return _fields_of(pb.DubSpec, options)


def _fields_of(message: type[Message], options: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    message_fields = message.DESCRIPTOR.fields_by_name
    for name, given in options.items():
        if given is None:
            continue
        if name in _FIELDS:
            fields |= _FIELDS[name](given)
        elif name in message_fields and (kind := message_fields[name].enum_type) is not None:
            fields[name] = number_of(getattr(pb, kind.name), kind.values[0].name.removesuffix("UNSPECIFIED"), given or 0)
        else:
            field = f"{name}_uri" if f"{name}_uri" in message_fields else name
            if field in fields:
                raise ValueError(f"{field.removesuffix('_uri')} and {field} are one field: give one of them")
            fields[field] = given
    return fields


def dub_spec(*, footage: str, output: str, **options: Unpack[DubOptions]) -> pb.DubSpec:
    """Return a dub.

    Args:
        footage: file below the gateway's media folder: a relative path, or a file:// url.
        output: file to write, named like `footage`; the suffix chooses the container. The file appears whole, or not at all.
        options: see DubOptions.

    Raises:
        ValueError: an option has a name that its enum does not have, or a wrong face.
    """
    return _message(pb.DubSpec, option_fields(footage=footage, output=output, **options))
