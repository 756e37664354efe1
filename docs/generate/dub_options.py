"""Rows of docs/reference/dub-options.md: what each option of a dub is called on the command line, in the form, in a batch, in the
API and in Python. The names come from the code; the constants say what the code does not know.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import dubstage
from gateway.dub.request.spec_text import ROW

_UI: Final = Path(__file__).parents[2] / "gateway" / "ui"
_WORDS: Final = MappingProxyType(
    {
        "video": "footage",
        "audio": "speech",
        "words": "say",
        "motion": "method",
        "renderer": "method",
        "mix_level": "mix_level_db",
        "duck": "duck_db",
        "quality": "encode_quality",
    }
)
"""Parameters of the command -> words of batch rows. Other parameters have their own name."""
_SPOKEN: Final = ("say", "voice")
"""Words of batch rows that a gateway does not take."""
_REFUSED: Final = ("preview", "preview_at")
"""Fields of a dub that batches refuse."""
_PYTHON: Final = MappingProxyType({"actor": "actor_id", "preview_at": "preview_time"})
"""Words of batch rows -> arguments of `dubstage.dub`. Other words are the arguments."""
_FACE: Final = ("face_id", "point", "face_rule")
"""Fields of a dub that the word `face` stands for."""
_SEQUENCES: Final = "servers dub no image sequences: the command line and its batches do"
NOT_IN_FORM: Final = "not in the form"
REASONS: Final = MappingProxyType(
    {
        "output": "the form makes the name",
        "words": "a gateway calls no program that speaks",
        "voice": "as `--say`",
        "say_file": "command line only: give the words as `say`",
        "motion": "method `A+B`: the motion of A, the renderer of B",
        "renderer": "as `--motion`",
        "stages": "elsewhere the setting `DUBSTAGE_STAGES_HOST`",
        "device": "elsewhere the setting `DUBSTAGE_DEVICE`",
        "report": "batches: `dubstage batch report`; a gateway writes none",
        "personalize": "in API and form the opposite",
        "preview": "a shot of a batch is delivered whole",
        "preview_at": "as `--preview`; a timecode is `preview_timecode`",
        "force": "command line only",
        "_": "command line only: the others return the result",
        "overwrite": "the form makes a new name",
        "box": "on the command line in lines",
        "boxes": "on the command line in lines",
        **dict.fromkeys(("rate", "footage_sound", "ocio", "input_colourspace", "display", "view"), _SEQUENCES),
        **dict.fromkeys(("reference", "reference_consent", "seed"), NOT_IN_FORM),
    }
)
"""Parameter of the command, or word of a batch row -> why a name is missing or has another meaning."""
HEAD: Final = ("option", "value", "form", "batch row", "field of `DubSpec`", "`dubstage.dub`", "remark")
NAMES: Final = slice(2, 6)
"""Cells of a row with a name; `-`: there is none."""


def option_rows(parameters: list[tuple[str, str, str]]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table, by the parameters of `dubstage dub`, then what only others have.

    Args:
        parameters: name in the code, name for the user, and form of the value, of each parameter.
    """
    form, python = _form_fields(), _python_arguments()
    words = []
    for parameter, option, value in parameters:
        word = _WORDS.get(parameter, parameter)
        words.append(word)
        yield _row(f"`{option}`", value, word, form, python, REASONS.get(parameter, ""))
    for word in ROW:
        if word not in words:
            yield _row("-", "-", word, form, python, REASONS.get(word, ""))


def _row(option: str, value: str, word: str, form: set[str], python: set[str], reason: str) -> tuple[str, ...]:
    field = ROW.get(word, "")
    argument = _PYTHON.get(word, word)
    fields = _FACE if word == "face" else (field,) if field else ()
    names = (
        [name for name in map(_camel, fields) if name in form],
        [word] if (field or word in _SPOKEN) and word not in _REFUSED else [],
        fields,
        [argument] if argument in python else [],
    )
    return option, value, *(", ".join(f"`{name}`" for name in each) or "-" for each in names), reason


def _camel(field: str) -> str:
    first, *others = field.split("_")
    return first + "".join(word.capitalize() for word in others)


def _form_fields() -> set[str]:
    """Return the fields of a dub, as JSON has them, that the page of a new dub sends."""
    # Controls of the form, and what the script adds.
    template = (_UI / "templates" / "new.html.j2").read_text(encoding="utf-8")
    script = (_UI / "static" / "new.js").read_text(encoding="utf-8")
    (body,) = re.findall(r"const spec = \{(.*?)\n  \};", script, re.DOTALL)
    sent = set(re.findall(r'\bname="(\w+)"', template)) | set(re.findall(r"^ {4}(\w+): ", body, re.MULTILINE))
    return sent | set(re.findall(r"\bspec\.(\w+) = ", script)) | set(re.findall(r"\{ \.\.\.(?:dub|spec), (\w+): ", script))


def _python_arguments() -> set[str]:
    signature: dict[str, Any] = dict(inspect.signature(dubstage.dub).parameters)
    return {*signature, *dubstage.DubOptions.__annotations__}
