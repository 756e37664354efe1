"""Dubs as people write them: rows of manifests, lines of scenes and options of commands, read into the messages of dub.proto.

A row is a JSON object with the fields of DubSpec under the words of the command line: `footage` for `footage_uri`, `face` for the
fields that name a face, `personalize` for the contrary of `skip_personalization`. A file of lines is a list of such objects:

[
  {"start": "00:00:01:12", "speech": "de/ada_1.wav", "face": 0, "language": "de"},
  {"start": 4.2, "speech": "de/ben_1.wav", "actor": "ben"}
]
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from pydantic import ValidationError

from dubstage.gateway.v1 import dub_pb2 as pb
from gateway.consent.files import field_and_reason
from gateway.consent.messages import consent_message
from gateway.consent.record import Consent
from gateway.dub.choices import EXPECTED_TIME, MOST_BOXES, MOST_LINES
from gateway.json_texts import read_json
from gateway.media.choices import DUCK_DB
from gateway.media.locations import local_path
from gateway.media.sequence_names import SUFFIXES, is_sequence
from gateway.safe_paths import bounded_bytes
from services.common.errors import InvalidRequestError
from services.common.methods import MouthOptions
from services.common.server.bounds import declared
from services.common.texts import RPCS, Command, Option, Text, Words

if TYPE_CHECKING:
    # At run time this module of messages would load gRPC, which lists do without.
    from dubstage.gateway.v1.gateway_pb2 import LiveConfig
    from gateway.dub.analyse.face_choice import FaceChoice

T = TypeVar("T")

ACTORS: Final = "actors/"
"""Begin of the name of an actor."""
DEFAULTS: Final[Mapping[str, Any]] = {
    "fit": pb.FIT_CUT,
    "face_rule": pb.FACE_RULE_AUTO,
    "duck_db": DUCK_DB,
    **asdict(MouthOptions()),
}
"""Values that mean the same as a field that is not given."""
_MOST_BYTES: Final = 4 << 20
"""Largest file of lines that is read, bytes."""
_MOST_SECONDS: Final = 1e6
_MOST_PIXELS: Final = 100_000
_MOST_NUMBER: Final = 999_999_999
"""Largest number of a face or of a frame."""
_LONGEST_TIME: Final = 40
_LONGEST_FACE: Final = 80

_WORDS: Final = {
    **{f"{word}_uri": word for word in ("footage", "output", "speech", "reference", "mix", "consent", "reference_consent")},
    **dict.fromkeys(("face_id", "point", "face_rule"), "face"),
    **dict.fromkeys(("start_time", "start_timecode"), "start"),
    **dict.fromkeys(("preview_time", "preview_timecode"), "preview_at"),
    "skip_personalization": "personalize",
    "sound_uri": "footage_sound",
}
"""Fields of dub.proto -> words of rows and commands. A field that is not here has its own name."""
_EXPECTED: Final = {
    **dict.fromkeys(("start", "preview_at"), f"takes {EXPECTED_TIME}"),
    "face": Text(
        "takes the number of a face ({faces}), auto, speaker, largest, or X,Y in pixels of the line's first frame",
        faces=Command("faces"),
    ),
    "box": "takes four numbers, [left, top, width, height], in pixels of the line's first frame",
    "boxes": f'takes 1 to {MOST_BOXES} boxes, such as {{"frame": 0, "box": [left, top, width, height]}}',
    "consent": "takes the path of a JSON file, or a consent record",
}
"""Expected form of fields, for messages."""
_enum_names: dict[str, dict[int, str]] = {}
_TEXT_OR_NUMBER: Final = ("encode_quality", "rate")
"""Texts that may be written as whole numbers."""


def actor_of(spec: pb.DubSpec | pb.LineSpec | LiveConfig) -> str:
    """Return the id of the actor of a dub, a line or a live stream; empty: none is named.

    Raises:
        InvalidRequestError: the text is no name of an actor.
    """
    actor_id = spec.actor.removeprefix(ACTORS)
    if spec.actor and (actor_id == spec.actor or not actor_id or "/" in actor_id):
        raise InvalidRequestError(f"{spec.actor[:80]!r} is not the name of a resource: give actors/ID", field="actor", named=True)
    return actor_id


def drop_records(spec: pb.DubSpec) -> bool:
    """Remove the consent records from a spec, and return whether there were any. Names of their files stay."""
    records: list[tuple[Any, str]] = [(spec, "reference_consent"), *((part, "consent") for part in (spec, *spec.lines))]
    held = [(holder, name) for holder, name in records if holder.HasField(name)]
    for holder, name in held:
        holder.ClearField(name)
    return bool(held)


def names_actor(spec: pb.DubSpec, actor_id: str) -> bool:
    """Return whether a dub, or a line of it, names an enrolled actor."""
    return f"{ACTORS}{actor_id}" in (spec.actor, *(line.actor for line in spec.lines))


def sides_of(box: pb.FaceBox) -> tuple[float, float, float, float]:
    """Return left, top, width and height of a box, pixels."""
    return box.left, box.top, box.width, box.height


def name_of(message: Any, field: str) -> str:
    """Return the value of an enum's field as commands write it, such as `top-left`; empty: unspecified.

    Raises:
        InvalidRequestError: the enum has no such number.
    """
    kind, number = message.DESCRIPTOR.fields_by_name[field].enum_type, getattr(message, field)
    name = names_of(kind).get(number)
    if name is None:
        raise InvalidRequestError(f"there is no {kind.name} {number}", field=field, named=True)
    return name


def names_of(kind: EnumDescriptor) -> Mapping[int, str]:
    """Return the names of an enum's values as commands write them, by number. The unspecified value has an empty name."""
    if kind.full_name not in _enum_names:
        prefix = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
        names = {value.number: value.name.removeprefix(prefix).lower().replace("_", "-") for value in kind.values}
        _enum_names[kind.full_name] = names | {0: ""}
    return _enum_names[kind.full_name]


def plain(spec: pb.DubSpec) -> pb.DubSpec:
    """Return a spec without the fields whose values mean the same as no value, so that equal dubs have equal specs."""
    copy = deepcopy(spec)
    for field, value in DEFAULTS.items():
        if getattr(copy, field) == value:
            copy.ClearField(field)  # type: ignore[arg-type]  # a field of DubSpec
    if not copy.sequence.ListFields():
        copy.ClearField("sequence")
    return copy


def with_options(spec: pb.DubSpec, options: pb.ShotOptions) -> pb.DubSpec:
    """Return a spec with other values of the fields that a shot's options name."""
    copy = deepcopy(spec)
    if options.WhichOneof("face"):
        del copy.boxes[:]
    for field, value in options.ListFields():
        if field.message_type is not None:
            getattr(copy, field.name).CopyFrom(value)
        else:
            setattr(copy, field.name, value)
    if options.WhichOneof("face") == "face_rule" and not options.face_rule:
        copy.face_rule = pb.FACE_RULE_AUTO
    return plain(copy)


def options_of(spec: pb.DubSpec) -> pb.ShotOptions:
    """Return the options of a spec that can change between two dubs, all of them given."""
    options = pb.ShotOptions()
    for field in pb.ShotOptions.DESCRIPTOR.fields:
        if field.containing_oneof is not None and field.containing_oneof.name == "face":
            continue
        value = getattr(spec, field.name)
        # A number of DubSpec that is not given is 0 here too.
        setattr(options, field.name, value or DEFAULTS.get(field.name, value))
    if (named := spec.WhichOneof("face")) in pb.ShotOptions.DESCRIPTOR.fields_by_name and named is not None:
        if named == "point":
            options.point.CopyFrom(spec.point)
        else:
            setattr(options, named, getattr(spec, named))
    return options


def is_sequence_spec(spec: pb.DubSpec) -> bool:
    """Return whether the footage of a spec is an image sequence."""
    return spec.footage_uri.lower().endswith(SUFFIXES) and is_sequence(Path(local_path(spec.footage_uri) or spec.footage_uri))


class WrongFieldError(ValueError):
    """A value that a field does not take.

    Attributes:
        text: what was expected.
        field: word of the field; empty: the object as a whole.
    """

    def __init__(self, text: str, field: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.field = field


def word_of(field: str) -> str:
    """Return the field of a row or a command for a field of a spec, such as `lines[0].speech` for `lines[0].speech_uri`."""
    prefix, dot, name = field.rpartition(".")
    first = name.partition(".")[0]
    return f"{'' if prefix == 'sequence' else prefix + dot}{_WORDS.get(first, first)}"


class RowWords(Words):
    """The words of rows, which stand in batches too: users of commands and callers of RPCs read those."""

    def field(self, path: str) -> str:
        """Return the word of a field, such as `line 3: speech` for `lines[2].speech_uri`."""
        prefix, dot, inner = path.partition(".")
        if not prefix.startswith("lines["):
            return word_of(path)
        line = f"line {int(prefix[len('lines[') : -1]) + 1}"
        return f"{line}: {word_of(inner)}" if dot else line

    def option(self, option: Option) -> str:
        """Return the word of a row that says the same as an option."""
        return word_of(option.name)

    def command(self, command: Command) -> str:
        """Return a command, and the RPC that does the same."""
        rpc = RPCS.get(command.name)
        return f"{command.line} or {rpc}" if rpc else command.line


ROWS: Final = RowWords()


def _words(kind: Descriptor) -> dict[str, str]:
    """Return the fields of a message by the words of rows, in the order of the contract."""
    fields: dict[str, str] = {}
    for field in kind.fields:
        if field.name == "sequence":
            fields |= {word: f"sequence.{name}" for word, name in _words(pb.ImageSequence.DESCRIPTOR).items()}
        else:
            fields.setdefault(_WORDS.get(field.name, field.name), field.name)
    return fields


ROW: Final[Mapping[str, str]] = _words(pb.DubSpec.DESCRIPTOR)
"""Words of a row -> fields of DubSpec."""
LINE: Final[Mapping[str, str]] = _words(pb.LineSpec.DESCRIPTOR)
"""Words of a line -> fields of LineSpec."""


def spec_from(row: Mapping[str, Any]) -> pb.DubSpec:
    """Return the spec of a row or of the options of a command. None stands for a field that is not given.

    Raises:
        InvalidRequestError: a field has a wrong value. The message names the field.
    """
    spec = pb.DubSpec()
    for wrong in fill(spec, row):
        raise InvalidRequestError(Text("{field} {said}", field=wrong.field, said=wrong.text), field=wrong.field)
    return plain(spec)


def fill(spec: pb.DubSpec, row: Mapping[str, Any], words: Iterable[str] = ROW) -> list[WrongFieldError]:
    """Set fields of a spec by the words of a row, and return the mistakes.

    Args:
        words: words that the row may have, for the mistakes.
    """
    mistakes = []
    for word, value in row.items():
        field = ROW.get(word)
        try:
            if field is None:
                raise WrongFieldError(f"is no field of a row; there are: {', '.join(words)}", word[:80])
            if value is not None:
                _set(spec, word, field, value)
        except WrongFieldError as wrong:
            mistakes.append(wrong if wrong.field else WrongFieldError(wrong.text, word))
    return mistakes


def options_from(row: Mapping[str, Any]) -> pb.ShotOptions:
    """Return the options of a shot that the words of a row name. None stands for the value of no field.

    Raises:
        InvalidRequestError: an option cannot be changed, or has a wrong value. The message names the option.
    """
    from gateway.dub.analyse.face_choice import parse_face

    for word in row:
        if word not in CHANGEABLE:
            said = f"cannot be changed in a batch; these options can: {', '.join(CHANGEABLE)}"
            raise InvalidRequestError(f"{word[:80]}: {said}", field=f"options.{word[:80]}")
    spec, options = pb.DubSpec(), pb.ShotOptions()
    for wrong in fill(spec, row):
        raise InvalidRequestError(f"{wrong.field}: {wrong.text}", field=f"options.{wrong.field}")
    for word in row:
        if word == "face":
            _choose(options, parse_face(str(row[word])))
        else:
            setattr(options, ROW[word], getattr(spec, ROW[word]))
    return options


CHANGEABLE: Final = tuple(_words(pb.ShotOptions.DESCRIPTOR))
"""Words of the options of a shot that can change before the shot is dubbed again."""


def option_words(options: pb.ShotOptions) -> dict[str, str]:
    """Return the options of a shot as a person reads them, by the words of rows."""
    words = {}
    for field, value in options.ListFields():
        if field.enum_type is not None:
            text = names_of(field.enum_type)[value]
        elif field.name == "point":
            text = f"{value.x:g},{value.y:g}"
        else:
            text = str(not value) if field.name == "skip_personalization" else str(value)
        words[word_of(field.name)] = text
    return words


def _set(message: Any, word: str, field: str, value: Any) -> None:
    """Set the field of a message that a word of a row names."""
    read = _READERS.get(word)
    if read is not None:
        read(message, value)
        return
    if field.startswith("sequence."):
        message, field = message.sequence, field.removeprefix("sequence.")
    setattr(message, field, _scalar(message.DESCRIPTOR.fields_by_name[field], value))


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    """Return the value of a field that is no message."""
    bounds = declared(field)
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return _text(field, value, bounds)
        case FieldDescriptor.CPPTYPE_BOOL:
            if not isinstance(value, bool):
                raise _wrong("takes a valid boolean", value)
            return value
        case FieldDescriptor.CPPTYPE_ENUM:
            assert field.enum_type is not None
            numbers = {name: number for number, name in names_of(field.enum_type).items() if name}
            if not isinstance(value, str) or value not in numbers:
                raise _wrong(f"takes one of {', '.join(numbers)}", value)
            return numbers[value]
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return _number(value, bounds)
        case _:
            if type(value) is not int:
                raise _wrong("takes a valid integer", value)
            return _number(value, bounds)


def _text(field: FieldDescriptor, value: Any, bounds: Any) -> str:
    text = str(value) if field.name in _TEXT_OR_NUMBER and type(value) is int else value
    if not isinstance(text, str):
        raise _wrong("takes a valid string", value)
    if bounds is not None and len(text.encode(errors="replace")) > bounds.max_bytes:
        raise _wrong(f"takes at most {bounds.max_bytes} bytes", value)
    if not text and field.name.endswith("_uri"):
        raise _wrong("takes at least 1 character", value)
    return _utf8(text)


def _utf8(text: str) -> str:
    """Return a text that a message can hold. Names of files that are no UTF-8 are refused."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise WrongFieldError(f"{text!r} has a part that is no text in UTF-8: rename the folder or the file") from None
    return text


def _number(value: Any, bounds: Any) -> Any:
    # math.isfinite takes no integer that is too large for a float.
    if type(value) not in (int, float) or not -math.inf < value < math.inf:
        raise _wrong("takes a valid number", value)
    if bounds is not None and value > bounds.max:
        raise _wrong(
            f"takes less than or equal to {bounds.max:g}" if bounds.max < 1e6 else f"takes at most {bounds.max:.0f}", value
        )
    if bounds is not None and value < bounds.min:
        raise _wrong(f"takes greater than or equal to {bounds.min:g}", value)
    return value


def _wrong(said: str, value: Any) -> WrongFieldError:
    return WrongFieldError(Text("{said}, not {value}", said=said, value=json.dumps(value, default=str)[:80]))


def _read_actor(message: Any, value: Any) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= 63:
        raise _wrong("takes 1 to 63 characters", value)
    message.actor = _utf8(value if value.startswith(ACTORS) else f"{ACTORS}{value}")


def _read_face(message: Any, value: Any) -> None:
    from gateway.dub.analyse.face_choice import parse_face

    if isinstance(value, str) and len(value) > _LONGEST_FACE:
        raise _wrong(f"takes at most {_LONGEST_FACE} characters", value)
    is_line = isinstance(message, pb.LineSpec)
    if not isinstance(value, str) and not (is_line and type(value) is int and 0 <= value <= _MOST_NUMBER):
        raise _wrong(_EXPECTED["face"] if is_line else "takes a valid string", value)
    try:
        _choose(message, parse_face(str(value)))
    except InvalidRequestError as error:
        raise (_wrong(_EXPECTED["face"], value) if is_line else WrongFieldError(error.said())) from None


def _choose(message: Any, choice: FaceChoice) -> None:
    """Set the face of a message to a choice that a text can name."""
    match choice.kind:
        case "id":
            message.face_id = choice.face_id
        case "point":
            message.point.x, message.point.y = choice.point
        case _:
            message.face_rule = pb.FaceRule.Value(f"FACE_RULE_{choice.kind.upper()}")


def _read_sides(box: pb.FaceBox, value: Any) -> None:
    sides = value if isinstance(value, list) else []
    if len(sides) != 4 or not all(type(side) in (int, float) and 0 <= side <= _MOST_PIXELS for side in sides):
        raise _wrong(_EXPECTED["box"], value)
    box.left, box.top, box.width, box.height = sides


def _read_boxes(message: Any, value: Any) -> None:
    expected = _wrong(_EXPECTED["boxes"], value)
    if not isinstance(value, list) or not 0 < len(value) <= MOST_BOXES:
        raise expected
    for each in value:
        if not isinstance(each, dict) or each.keys() != {"frame", "box"}:
            raise expected
        if type(each["frame"]) is not int or not 0 <= each["frame"] <= _MOST_NUMBER:
            raise expected
        box = message.boxes.add(frame_index=each["frame"])
        try:
            _read_sides(box.box, each["box"])
        except WrongFieldError:
            raise expected from None


def _time_reader(prefix: str) -> Callable[[Any, Any], None]:
    """Return what reads a time into the field `<prefix>_time` or `<prefix>_timecode` of a message."""

    def read(message: Any, value: Any) -> None:
        if isinstance(value, str) and len(value) <= _LONGEST_TIME:
            setattr(message, f"{prefix}_timecode", value)
        elif type(value) in (int, float) and 0 <= value <= _MOST_SECONDS:
            time = getattr(message, f"{prefix}_time")
            time.seconds, micros = divmod(round(value * 1e6), 1_000_000)
            time.nanos = 1000 * micros
            time.SetInParent()
        else:
            raise _wrong(_EXPECTED["start"], value)

    return read


def _record_reader(name: str) -> Callable[[Any, Any], None]:
    """Return what reads a consent record, or the path of its file, into a field and into the field with `_uri` behind its name."""

    def read(message: Any, value: Any) -> None:
        if isinstance(value, str) and value:
            setattr(message, f"{name}_uri", _scalar(message.DESCRIPTOR.fields_by_name[f"{name}_uri"], value))
            return
        if not isinstance(value, dict):
            raise _wrong(_EXPECTED["consent"], value)
        try:
            getattr(message, name).CopyFrom(consent_message(Consent.model_validate(value)))
        except ValidationError as problem:
            field, said = field_and_reason(problem)
            raise WrongFieldError(f"{field}: {said}") from None

    return read


def _read_personalize(message: Any, value: Any) -> None:
    message.skip_personalization = not _scalar(message.DESCRIPTOR.fields_by_name["skip_personalization"], value)


def _read_lines(message: Any, value: Any) -> None:
    if not isinstance(value, list):
        raise _wrong("takes a list of lines, or the path of a JSON file with the list", value)
    if len(value) > MOST_LINES:
        raise WrongFieldError(f"takes at most {MOST_LINES} lines, not {len(value)}")
    for number, line in enumerate(value):
        try:
            message.lines.append(line if isinstance(line, pb.LineSpec) else line_from(line))
        except WrongFieldError as wrong:
            path = f"lines[{number}]"
            raise WrongFieldError(wrong.text, f"{path}.{wrong.field}" if wrong.field else path) from None


_READERS: Final[Mapping[str, Callable[[Any, Any], None]]] = {
    "actor": _read_actor,
    "face": _read_face,
    "box": lambda message, value: _read_sides(message.box, value),
    "boxes": _read_boxes,
    "start": _time_reader("start"),
    "preview_at": _time_reader("preview"),
    "consent": _record_reader("consent"),
    "reference_consent": _record_reader("reference_consent"),
    "personalize": _read_personalize,
    "lines": _read_lines,
}
"""Readers of the words whose value is not that of one field."""


def line_from(row: Any) -> pb.LineSpec:
    """Return a line of a scene.

    Raises:
        WrongFieldError: a field is missing, unknown or wrong.
    """
    if not isinstance(row, dict):
        raise WrongFieldError("a line is a JSON object")
    line = pb.LineSpec()
    for word in ("start", "speech"):
        if row.get(word) is None:
            raise WrongFieldError("is missing: every line has start and speech", word)
    for word, value in row.items():
        if word not in LINE:
            raise WrongFieldError(f"is no field of a line; there are: {', '.join(LINE)}", word[:80])
        if value is None:
            continue
        try:
            _set(line, word, LINE[word], value)
        except WrongFieldError as wrong:
            raise WrongFieldError((_wrong(_EXPECTED[word], value) if word in _EXPECTED else wrong).text, word) from None
    given = [word for word in ("face", "box", "boxes") if row.get(word) is not None]
    if len(given) > 1:
        raise WrongFieldError(f"give {given[0]} or {given[1]}, not both")
    if not given and not line.actor:
        raise WrongFieldError("give face, box, boxes or actor: who speaks the line")
    return line


def read_lines(file: Path, shown_name: str = "") -> list[pb.LineSpec]:
    """Read the lines of a JSON file.

    Args:
        shown_name: name of the file in messages; empty: its path.

    Raises:
        InvalidRequestError: the file cannot be read, is not a JSON list of lines, or has no line. The message names the file, the
            line and the field.
    """
    return _lines_in(file, shown_name or str(file), line_from)


def read_spoken_lines(file: Path) -> tuple[list[pb.LineSpec], dict[int, tuple[str, str]]]:
    """Read the lines of a JSON file, which may have words (`say`, `voice`) in place of speech.

    Returns:
        The lines, those with words without speech. Words and voice (empty: none is named) by number of the line, from 0.

    Raises:
        InvalidRequestError: as `read_lines`.
    """
    rows = _lines_in(file, str(file), _spoken_line)
    return [line for line, _ in rows], {number: words for number, (_, words) in enumerate(rows) if words is not None}


def _spoken_line(row: Any) -> tuple[pb.LineSpec, tuple[str, str] | None]:
    if not isinstance(row, dict) or row.get("say") is None:
        return line_from(row), None
    if row.get("speech") is not None:
        raise WrongFieldError("give speech or say, not both")
    say, voice = row["say"], row.get("voice") or ""
    for word, value in (("say", say), ("voice", voice)):
        if not isinstance(value, str):
            raise WrongFieldError(_wrong("takes a valid string", value).text, word)
    # The stand-in is no name of a file: the line has no speech until the words are spoken.
    line = line_from({word: value for word, value in row.items() if word not in ("say", "voice")} | {"speech": "-"})
    line.ClearField("speech_uri")
    return line, (say, voice)


def _lines_in(file: Path, shown_name: str, read: Callable[[Any], T]) -> list[T]:
    """Return what `read` makes of each line of a JSON file."""
    try:
        rows = read_json(bounded_bytes(file, _MOST_BYTES))
    except OSError as problem:
        raise InvalidRequestError(f"{shown_name}: cannot be read: {problem.strerror or problem}", field="lines") from problem
    except json.JSONDecodeError as problem:
        raise InvalidRequestError(
            f"{shown_name}: not JSON (row {problem.lineno}, column {problem.colno}: {problem.msg}); the file is a list of lines",
            field="lines",
        ) from problem
    except ValueError as problem:
        raise InvalidRequestError(
            f"{shown_name}: no JSON list of lines of at most {_MOST_BYTES >> 20} MiB: {problem}", field="lines"
        ) from problem
    if not isinstance(rows, list) or not 0 < len(rows) <= MOST_LINES:
        raise InvalidRequestError(
            f"{shown_name}: a JSON list of 1 to {MOST_LINES} lines was expected, such as "
            '[{"start": 1.5, "speech": "a.wav", "face": 0}]',
            field="lines",
        )
    lines: list[T] = []
    for number, row in enumerate(rows):
        try:
            lines.append(read(row))
        except WrongFieldError as wrong:
            where = f"{shown_name}: line {number + 1}"
            where += f": {wrong.field}" if wrong.field else ""
            raise InvalidRequestError(Text("{where}: {said}", where=where, said=wrong.text), field="lines") from None
    return lines


@contextmanager
def naming_file(file: Path | None) -> Iterator[None]:
    """Let errors about lines name the file that the lines came from.

    Args:
        file: the file; None: there is none.
    """
    try:
        yield
    except InvalidRequestError as error:
        if file is None or not error.field.startswith("lines"):
            raise
        raise InvalidRequestError(Text("{file}: {error}", file=file, error=error), field=error.field) from error.__cause__


def speaker_of(line: pb.LineSpec) -> str:
    """Return a text that names the speaker of a line: the actor, the face as a row names it, `box` or `boxes`."""
    match line.WhichOneof("face"):
        case _ if line.actor:
            return actor_of(line)
        case "face_id":
            return str(line.face_id)
        case "point":
            return f"{line.point.x:g},{line.point.y:g}"
        case "face_rule":
            return name_of(line, "face_rule")
        case _:
            return "boxes" if line.boxes else "box"


def start_text(line: pb.LineSpec) -> str:
    """Return when a line begins: a timecode, or seconds."""
    return line.start_timecode or f"{line.start_time.seconds + line.start_time.nanos / 1e9:g}"
