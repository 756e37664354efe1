"""Rows of SubmitBatch to checked manifests, with all mistakes of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from dubstage.gateway.v1alpha1 import batch_pb2 as pb
from gateway.api.job_context import JobContext
from gateway.batch.manifest import Manifest, batch_name, in_order, manifest_of, row_mistakes
from gateway.batch.manifest_checks import LOCATIONS, Mistake
from gateway.batch.manifest_rows import shot_of, shots_by_line
from gateway.batch.people import People
from gateway.batch.types import Shot
from services.common.errors import InvalidRequest

_TEXTS: Final = {
    "shot_id": "id",
    "footage_uri": "footage",
    "output_uri": "output",
    "speech_uri": "speech",
    "actor_id": "actor",
    "consent_uri": "consent",
    "method": "method",
    "face": "face",
    "expression": "expression",
    "codec": "codec",
    "project": "project",
    "language": "language",
}
"""Fields of BatchRow -> fields of a shot. An empty text is a field that is not given."""
_FIELDS: Final = {name: field for field, name in _TEXTS.items()}


class RowReader:
    """Checks the rows of requests.

    Args:
        context: what the operations work with.
    """

    def __init__(self, context: JobContext) -> None:
        self._actors = context.actors
        self._places = context.media.places
        self._names = context.names

    def read(self, request: pb.SubmitBatchRequest) -> Manifest | tuple[Mistake, ...]:
        """Return the manifest of a request, or all mistakes of its rows. Blocks.

        Lines and fields of the mistakes are those of RowMistake.

        Raises:
            InvalidRequest: the name of the batch is not allowed, or the request has no rows, or rows of both kinds.
            StorageRefused, BackendUnavailable: the database of actors, or the store of a URL, cannot be used.
        """
        try:
            name = batch_name(request.batch_id)
        except InvalidRequest as error:
            raise InvalidRequest(f"batch_id: {error.message}", field="batch_id") from None
        if bool(request.rows) == bool(request.manifest):
            raise InvalidRequest("rows: give either rows or a manifest, with one shot or more", field="rows")
        shots, mistakes = _of_manifest(request.manifest) if request.manifest else _of_rows(request.rows)
        placed: dict[int, Shot] = {}
        for line, shot in shots.items():
            found, wrong = self._placed(line, shot)
            mistakes += wrong
            if not wrong:
                placed[line] = found
        people = People(self._actors)
        mistakes += row_mistakes(placed, people.method_of, check_files=True)
        if mistakes:
            return tuple(self._told(mistake, of_rows=bool(request.rows)) for mistake in in_order(mistakes))
        if not placed:
            raise InvalidRequest("manifest: there are no rows: write one JSON object a line, one for each shot", field="manifest")
        return manifest_of(name, placed.values())

    def _placed(self, line: int, shot: Shot) -> tuple[Shot, list[Mistake]]:
        """Return a shot whose files are absolute paths and URLs that callers may name, or the mistakes."""
        found: dict[str, str] = {}
        mistakes = []
        for field in LOCATIONS:
            place = getattr(shot, field)
            if place is None:
                continue
            try:
                if field == "output":  # the worker makes the folder
                    found[field] = self._places.output(place, field, new_folder=True)
                else:
                    found[field] = self._places.source(place, field)
            except InvalidRequest as error:
                mistakes.append(Mistake(line, field, error.message.removeprefix(f"{field}: ")))
        return shot.model_copy(update=found), mistakes

    def _told(self, mistake: Mistake, *, of_rows: bool) -> Mistake:
        first, dot, rest = mistake.field.partition(".")
        named = {**_FIELDS, "personalize": "skip_personalization"}.get(first, first) if of_rows else first
        return replace(mistake, field=f"{named}{dot}{rest}", text=self._names.told(mistake.text))


def refusal(mistakes: Sequence[Mistake], *, of_rows: bool) -> InvalidRequest:
    """Return the error for a batch whose rows have mistakes.

    Args:
        mistakes: one mistake or more, as RowMistake tells them.
        of_rows: whether they are mistakes of `rows`; False: of lines of `manifest`.
    """
    fields = [f"rows[{one.line - 1}].{one.field}" if of_rows else f"manifest[{one.line}].{one.field}" for one in mistakes]
    count = f" ({len(mistakes)} mistakes in all, this is the first; nothing was started)" if len(mistakes) > 1 else ""
    kind = "row" if of_rows else "line"
    first = mistakes[0]
    return InvalidRequest(
        f"{kind} {first.line}: {first.field}: {first.text[:300]}{count}",
        field=fields[0],
        violations=[(field, one.text[:300]) for field, one in zip(fields, mistakes, strict=True)],
        reasons=[one.reason for one in mistakes],
    )


def _of_manifest(content: bytes) -> tuple[dict[int, Shot], list[Mistake]]:
    return shots_by_line(content.removeprefix(b"\xef\xbb\xbf"), told_as="manifest")


def _of_rows(rows: Sequence[pb.BatchRow]) -> tuple[dict[int, Shot], list[Mistake]]:
    shots: dict[int, Shot] = {}
    mistakes: list[Mistake] = []
    for line, message in enumerate(rows, 1):
        shot, wrong = shot_of(line, _fields_of(message))
        mistakes += wrong
        if shot is not None:
            shots[line] = shot
    return shots, mistakes


def _fields_of(message: pb.BatchRow) -> dict[str, Any]:
    """Return the fields of a manifest's row that a message stands for."""
    row: dict[str, Any] = {name: text for field, name in _TEXTS.items() if (text := getattr(message, field))}
    row |= {"retime": message.retime, "keep_audio": message.keep_audio, "seed": message.seed}
    row["personalize"] = not message.skip_personalization
    if message.HasField("expressiveness"):
        row["expressiveness"] = message.expressiveness
    if message.HasField("quality"):
        row["quality"] = {field.name: value for field, value in message.quality.ListFields()}
    return row
