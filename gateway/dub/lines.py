"""Lines of a scene as people write them in a JSON file for `dubstage dub --lines`.

[
  {"start": "00:00:01:12", "speech": "de/ada_1.wav", "face": 0, "language": "de"},
  {"start": 4.2, "speech": "de/ben_1.wav", "actor": "ben"}
]

Modules that dub are imported in functions: lists of a batch read its lines without them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from gateway.consent.files import read_consent
from gateway.consent.record import Consent, use_of
from gateway.dub.choices import LEAST_EXPRESSIVENESS, MOST_BOXES, MOST_EXPRESSIVENESS, MOST_LINES
from gateway.safe_paths import bounded_bytes
from services.common.errors import InvalidRequestError

if TYPE_CHECKING:
    from gateway.dub.face_choice import FaceChoice
    from gateway.dub.request import DubLine, DubRequest
    from gateway.dub.timecode import VideoTime

_MOST_BYTES: Final = 4 << 20
"""Largest file of lines that is read, bytes."""
_Side = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
FACE: Final = (
    "face takes the number of a face (`dubstage faces`), auto, speaker, largest, or X,Y in pixels of the line's first frame"
)
"""Expected form of a line's face, for messages."""


class BoxSpec(BaseModel):
    """Box of a line's face from a frame on.

    Attributes:
        frame: frame of the video, from 0.
        box: left, top, width and height, pixels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    frame: Annotated[int, Field(ge=0, le=999_999_999)]
    box: Annotated[list[_Side], Field(min_length=4, max_length=4)]


class LineSpec(BaseModel):
    """One line of a scene.

    Attributes:
        start: when the line begins: seconds from the first frame, or a timecode.
        speech: sound file with the speech. The line ends with the speech.
        face: number of a face, `auto`, `speaker`, `largest`, or X,Y in pixels of the line's first frame; None: `box`, `boxes` or
            `actor` says it.
        box: left, top, width and height of the face in the line's first frame, pixels.
        boxes: the face from frame to frame: each box counts until the next one.
        actor: enrolled actor who speaks; without `face`, `box` and `boxes`, also the face. None: the person is learned from
            the footage.
        consent: JSON file with the consent record, or the record; None: that of the dub or of the actor.
        language: language of the speech (BCP 47), which the consent record must cover; None: that of the dub.
        expressiveness: factor of the mouth's movement; None: that of the dub.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    start: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | Annotated[str, Field(max_length=40)]
    speech: Annotated[str, Field(min_length=1, max_length=4096)]
    face: Annotated[int, Field(ge=0, le=999_999_999)] | Annotated[str, Field(max_length=80)] | None = None
    box: Annotated[list[_Side], Field(min_length=4, max_length=4)] | None = None
    boxes: Annotated[list[BoxSpec], Field(min_length=1, max_length=MOST_BOXES)] | None = None
    actor: str | None = Field(None, min_length=1, max_length=63)
    consent: Annotated[str, Field(min_length=1, max_length=4096)] | Consent | None = None
    language: str | None = Field(None, max_length=80)
    expressiveness: float | None = Field(None, ge=LEAST_EXPRESSIVENESS, le=MOST_EXPRESSIVENESS)

    @model_validator(mode="after")
    def _names_one_face(self) -> Self:
        given = [name for name in ("face", "box", "boxes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give {given[0]} or {given[1]}, not both")
        if not given and self.actor is None:
            raise ValueError("give face, box, boxes or actor: who speaks the line")
        return self

    @property
    def choice(self) -> FaceChoice:
        """The face of the line.

        Raises:
            InvalidRequestError: the face is written wrongly, or boxes do not ascend or have no area.
        """
        from gateway.dub.face_boxes import FrameBox, checked_boxes
        from gateway.dub.face_choice import FaceChoice, parse_face

        if self.box is not None:
            left, top, width, height = self.box
            return FaceChoice("box", box=(left, top, width, height))
        if self.boxes is not None:
            return FaceChoice("boxes", boxes=checked_boxes([FrameBox(each.frame, *each.box) for each in self.boxes]))
        if self.face is None:
            return FaceChoice("actor")
        try:
            return parse_face(str(self.face))
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{FACE}, not {self.face!r}", field="face") from error

    @property
    def who(self) -> str:
        """Text that names the speaker of the line: the actor, the face as the file writes it, `box` or `boxes`."""
        return self.actor or ("boxes" if self.boxes is not None else "box" if self.face is None else str(self.face))

    @property
    def time(self) -> VideoTime:
        """The time at which the line begins.

        Raises:
            InvalidRequestError: the time is written wrongly.
        """
        from gateway.dub.timecode import parse_time

        return parse_time(self.start if isinstance(self.start, str) else f"{self.start:.6f}")


_LINES: Final = TypeAdapter(list[LineSpec])
_KNOWN: Final = ", ".join(LineSpec.model_fields)


def read_lines(file: Path) -> list[LineSpec]:
    """Read the lines of a JSON file.

    Raises:
        InvalidRequestError: the file cannot be read, is not a JSON list of lines, or has no line. The message names the file, the
            line and the field.
    """
    try:
        found = json.loads(bounded_bytes(file, _MOST_BYTES).decode("utf-8-sig"))
    except OSError as problem:
        raise InvalidRequestError(f"{file}: cannot be read: {problem.strerror or problem}", field="lines") from problem
    except json.JSONDecodeError as problem:
        raise InvalidRequestError(
            f"{file}: not JSON (row {problem.lineno}, column {problem.colno}: {problem.msg}); the file is a list of lines",
            field="lines",
        ) from problem
    except (ValueError, RecursionError) as problem:
        raise InvalidRequestError(f"{file}: no JSON list of lines of at most {_MOST_BYTES >> 20} MiB", field="lines") from problem
    if not isinstance(found, list) or not 0 < len(found) <= MOST_LINES:
        raise InvalidRequestError(
            f"{file}: a JSON list of 1 to {MOST_LINES} lines was expected, such as "
            '[{"start": 1.5, "speech": "a.wav", "face": 0}]',
            field="lines",
        )
    try:
        return _LINES.validate_python(found)
    except ValidationError as problem:
        number, said = mistake_of(problem)
        raise InvalidRequestError(f"{name_of(str(file), number)}: {said}", field="lines") from problem


def name_of(file: str, number: int) -> str:
    """Return what messages call a line.

    Args:
        file: name of the file of the lines; empty: the lines came with a request.
        number: number of the line, from 0.
    """
    return f"{file}: line {number + 1}" if file else f"line {number + 1}"


def mistake_of(problem: ValidationError) -> tuple[int, str]:
    """Return the number of the first wrong line, from 0, and what is wrong with it: the field and what was expected."""
    first = problem.errors(include_url=False)[0]
    number, *where = first["loc"] or (0,)
    field, said = fault_of(first, where)
    return int(number), f"{field}: {said}" if field else said


def fault_of(error: Mapping[str, Any], where: Sequence[int | str]) -> tuple[str, str]:
    """Return the field of a line and what is wrong with it; an empty field: the line as a whole is wrong.

    Args:
        error: error of pydantic.
        where: place of the error inside the line.
    """
    from gateway.dub.timecode import EXPECTED

    field = str(where[0])[:80] if where else ""
    expected = {
        "start": f"takes {EXPECTED}",
        "face": FACE.removeprefix("face "),
        "box": "takes four numbers, [left, top, width, height], in pixels of the line's first frame",
        "boxes": f'takes 1 to {MOST_BOXES} boxes, such as {{"frame": 0, "box": [left, top, width, height]}}',
        "expressiveness": f"takes a number from {LEAST_EXPRESSIVENESS} to {MOST_EXPRESSIVENESS}",
        "consent": "takes the path of a JSON file, or a consent record",
    }
    if not field:
        return "", error["msg"].removeprefix("Value error, ") if error["type"] == "value_error" else "a line is a JSON object"
    if len(where) == 1 and error["type"] == "missing":
        return field, "is missing: every line has start and speech"
    if len(where) == 1 and error["type"] == "extra_forbidden":
        return field, f"is no field of a line; there are: {_KNOWN}"
    expectation = expected.get(field, error["msg"].replace("Input should be", "takes"))
    return field, f"{expectation}, not {json.dumps(error['input'], default=str)[:80]}"


def lines_of(specs: Sequence[LineSpec], dub: DubRequest, *, file: str = "", folder: str = "") -> tuple[DubLine, ...]:
    """Return the lines of a scene, without what the store says of their actors. Consent files are read.

    Args:
        specs: the lines as they are written.
        dub: the scene, whose options the lines take over.
        file: name of the file of the lines, for messages; empty: none.
        folder: folder that relative paths begin at.

    Raises:
        InvalidRequestError: a field is wrong, or a consent file cannot be used. The message names the line and the field.
    """
    return tuple(_line_of(spec, dub, name_of(file, number), folder) for number, spec in enumerate(specs))


def _line_of(spec: LineSpec, dub: DubRequest, name: str, folder: str) -> DubLine:
    from gateway.dub.request import DubLine

    field = "start"
    try:
        start = spec.time
        field = "face"
        face = spec.choice
        field = "consent"
        consent = read_consent(Path(folder, spec.consent)) if isinstance(spec.consent, str) else spec.consent or dub.consent
        field = "language"
        use = dub.use if spec.language is None else use_of(dub.use.project, spec.language)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{name}: {field}: {error.message}", field=f"lines.{field}") from error
    expressiveness = dub.expressiveness if spec.expressiveness is None else spec.expressiveness
    speech = Path(os.path.join(folder, spec.speech))
    own = replace(dub, speech=speech, face=face, consent=consent, use=use, expressiveness=expressiveness, lines=())
    return DubLine(name=name, start=start, actor_id=spec.actor or "", dub=own)
