"""Checks of a manifest's shots: what contradicts itself, what two rows share, and files that are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.batch.consent_places import consent_at
from gateway.batch.media import input_problem, output_problem
from gateway.batch.same_files import SameFiles, real_files
from gateway.batch.types import Shot
from gateway.media.encoders import check_target
from gateway.methods import DEFAULT_METHOD, method_named
from gateway.pipeline.dub_request import wants_own_timeline
from gateway.pipeline.faces import parse_face
from services.common.consent_errors import ConsentRefused
from services.common.errors import ActorNotReady, ArtefactNotFound, InvalidRequest, RequestError

LOCATIONS: Final = ("footage", "speech", "consent", "output")
"""Fields of a shot that hold a path or a URL."""
_INPUTS: Final = ("footage", "speech", "consent")
_THREADS: Final = 32
"""Files that are looked at at once: with a network drive or a bucket, the time goes by in waiting."""

MethodOf = Callable[[Shot], str]
"""Returns the name of the method that dubs a shot. Raises ActorNotReady, ConsentRefused or InvalidRequest."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a row.

    Attributes:
        line: line of the manifest, from 1.
        field: field of the row; `row` for the row as a whole.
        text: what is wrong and what was expected.
        reason: reason of the refusal, such as CONSENT_WITHDRAWN; empty: the row cannot be used as it is written.
    """

    line: int
    field: str
    text: str
    reason: str = ""


def option_mistakes(shots: Mapping[int, Shot], method_of: MethodOf | None) -> list[Mistake]:
    """Return what is wrong with the rows by themselves, without their files.

    Args:
        shots: shots by line.
        method_of: looks the actors up; None: actors are not looked up.
    """
    return [Mistake(line, *wrong) for line, shot in shots.items() for wrong in _contradictions(shot, method_of or _method)]


def repeat_mistakes(shots: Mapping[int, Shot], *, follow_links: bool) -> list[Mistake]:
    """Return ids and outputs that stand in several rows, and outputs that are the input of a row.

    Args:
        shots: shots by line.
        follow_links: whether two paths of this machine that differ only by symbolic links are the same file.
    """
    files = real_files(shots.values()) if follow_links else SameFiles({}, {})
    mistakes: list[Mistake] = []
    ids: dict[str, tuple[int, str]] = {}
    outputs: dict[str, tuple[int, str]] = {}
    inputs = {
        file: (line, field, place)
        for line, shot in shots.items()
        for field in _INPUTS
        if (place := getattr(shot, field)) is not None
        for file in files.of_input(place)
    }
    for line, shot in shots.items():
        # Files are named by the ids, and some file systems do not tell A from a.
        before, other = ids.setdefault(shot.id.lower(), (line, shot.id))
        if before != line:
            alike = "has this id already" if other == shot.id else f"has the id {other}, which differs only in case"
            mistakes.append(Mistake(line, "id", f"{shot.id}: line {before} {alike}"))
        film = files.of_output(shot.output)
        before, other = outputs.setdefault(film, (line, shot.output))
        if before != line:
            linked = "" if other == shot.output else f" as {other}, through a link"
            mistakes.append(Mistake(line, "output", f"{shot.output}: line {before} writes this film already{linked}"))
        if film in inputs:
            reader, field, place = inputs[film]
            linked = "" if place == shot.output else f" ({place}, through a link)"
            mistakes.append(Mistake(line, "output", f"{shot.output} is the {field} of line {reader}{linked}: give another name"))
    return mistakes


def file_mistakes(shots: Mapping[int, Shot]) -> list[Mistake]:
    """Return files that are missing, cannot be read or cannot be written. Each file is looked at once, however many rows name it.

    Raises:
        StorageRefused, BackendUnavailable: the store of a URL refuses, or does not answer.
    """
    wanted = [
        (line, field, place) for line, shot in shots.items() for field in LOCATIONS if (place := getattr(shot, field)) is not None
    ]
    distinct = list(dict.fromkeys((_check_of(field), place) for _, field, place in wanted))
    with ThreadPoolExecutor(_THREADS) as threads:
        problems = dict(zip(distinct, threads.map(_checked, distinct), strict=True))
    return [Mistake(line, field, text) for line, field, place in wanted if (text := problems[_check_of(field), place])]


_FileCheck = Callable[[str], str]


def _check_of(field: str) -> _FileCheck:
    return {"consent": _consent_problem, "output": output_problem}.get(field, input_problem)


def _checked(wanted: tuple[_FileCheck, str]) -> str:
    check, place = wanted
    return check(place)


def _consent_problem(place: str) -> str:
    try:
        consent_at(place)
    except (InvalidRequest, ArtefactNotFound) as error:
        return error.message
    return ""


def _method(shot: Shot) -> str:
    return shot.method or DEFAULT_METHOD


def _contradictions(shot: Shot, method_of: MethodOf) -> Iterator[tuple[str, str, str]]:
    """Yield field, text and reason of what is wrong with a shot by itself."""
    for field in LOCATIONS:
        # A folder of the manifest's own path may have such a name, and a batch is stored as UTF-8.
        if (place := getattr(shot, field)) is not None and not _is_utf8(place):
            yield field, f"{place!r} has a folder whose name is no text in UTF-8: rename the folder", ""
    checks: tuple[tuple[str, Callable[[], object]], ...] = (
        ("face", lambda: parse_face(shot.face)),
        ("output", lambda: check_target(Path(shot.output), shot.codec)),
        ("actor", lambda: _check_options(shot, method_of)),
    )
    for field, check in checks:
        try:
            check()
        except (RequestError, ActorNotReady, ConsentRefused) as error:
            named = error.field if isinstance(error, RequestError) else "consent" if isinstance(error, ConsentRefused) else ""
            reason = "" if isinstance(error, RequestError) else error.reason
            yield named if named in Shot.model_fields else field, error.message, reason


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_options(shot: Shot, method_of: MethodOf) -> None:
    if shot.method is not None:
        method_named(shot.method)
    wants_own_timeline(method_named(method_of(shot)), retime=shot.retime, keep_audio=shot.keep_audio, expression=shot.expression)
