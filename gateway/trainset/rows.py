"""Rows of the manifest, from what is listed and what is finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.trainset.catalogue import BY_SPEAKER, ClipEntry
from gateway.trainset.lag import lags_by_clip
from gateway.trainset.record import ClipRecord
from gateway.trainset.splits import split_by_speaker, with_validation
from services.common.wire.timeline import MOTION_RATE
from services.training.trainset.manifest import ClipRow, speaker_hours


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the manifest, and notes on the clips that are held out."""

    rows: list[ClipRow]
    notes: list[str]


def rows_of(entries: Sequence[ClipEntry], records: Mapping[str, ClipRecord], phones: Mapping[str, str], *, with_lags: bool) -> Rows:
    """Return the rows of the finished clips, in the order of the files.

    Args:
        entries: all clips of the folder.
        records: finished clips, by file.
        phones: origin of phone labels, by name of the piece.
        with_lags: whether the rows have the lags of the records. Otherwise all lags are 0 and count as not measured.
    """
    splits = split_by_speaker(entries)
    rows = [
        row
        for entry in entries
        if entry.file in records
        for row in _rows_of_clip(entry, records[entry.file], splits[entry.file], phones)
    ]
    if not with_lags:
        rows = [replace(row, lag_frames=0, lag_confidence=-1.0) for row in rows]
    by_speaker = {entry.file for entry in entries if entry.split == BY_SPEAKER}
    rows, notes = with_validation(rows, lambda row: row.file in by_speaker)
    hours, lags = speaker_hours(rows), lags_by_clip(rows)
    return Rows(
        [replace(row, speaker_hours=hours[row.speaker], lag_frames=lags.get(row.name, 0) if row.has_face else 0) for row in rows],
        notes,
    )


def _rows_of_clip(entry: ClipEntry, record: ClipRecord, split: str, phones: Mapping[str, str]) -> list[ClipRow]:
    return [
        ClipRow(
            name=piece.name,
            shard=record.shard,
            file=entry.file,
            sha256=record.sha256,
            source=entry.source,
            speaker=entry.speaker,
            split=split,
            licence=entry.licence,
            transcript=piece.transcript,
            has_face=record.has_face,
            has_pixels=entry.has_pixels,
            frames=piece.frames,
            usable_frames=piece.usable_frames,
            face_px=piece.face_px,
            seconds=round(float(piece.frames / MOTION_RATE), 3),
            lag_frames=piece.lag_frames,
            lag_confidence=piece.lag_confidence,
            phones=phones.get(piece.name, ""),
            weight=entry.weight,
            narrow=entry.narrow,
            language=entry.language,
            first_frame=piece.first_frame,
        )
        for piece in record.pieces
    ]
