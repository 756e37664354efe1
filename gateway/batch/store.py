"""Store of batches: facts about every batch and every shot, in tables of the database (gateway/database/tables.py).

Any number of processes and machines read and write a batch at once. Each change is one transaction. The columns that lists, filters
and progress read follow from the record of a shot and from the last decision, and are written with the record.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, CursorResult, Select, and_, case, delete, exists, func, insert, or_, select, true, update
from sqlalchemy.orm import Session, aliased

from dubstage.gateway.v1.dub_pb2 import DubSpec, ShotOptions
from gateway.batch.lists import ORDERS, ListedShot, ShotQuery, conditions_of
from gateway.batch.records import ShotWork, unix_time
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.risk import risk_of
from gateway.batch.types import (
    ENDED,
    LEFT,
    WRITTEN,
    BatchFacts,
    BatchName,
    EarlierVideo,
    Engine,
    Manifest,
    Quality,
    ShotId,
    ShotRecord,
    ShotSpec,
    ShotState,
    Words,
    options_in,
    to_json,
)
from gateway.database.session import Database
from gateway.database.tables import BatchActorRow, BatchDecisionRow, BatchPictureRow, BatchRow, BatchShotRow
from gateway.dub.request.spec_text import drop_records
from gateway.media.locations import local_path
from gateway.media.sequence_names import LISTING_SUFFIX
from gateway.private_files import data_folder
from gateway.settings import GatewaySettings
from gateway.times import now
from services.common.errors import BatchNotFoundError, InvalidRequestError, StorageRefusedError
from services.common.texts import Command, Option, Text

_EARLIER: Final = ".earlier-"
_MOST_EARLIER_BYTES: Final = 1 << 30
"""Size of the largest video that a retry keeps."""
_NAMED: Final = 10
"""Most shots that a message names."""
_IDS_AT_ONCE: Final = 10_000
"""Most ids in one statement. SQLite and PostgreSQL allow 32,766 and 65,535 parameters."""
_SHOTS_AT_ONCE: Final = 1_000
"""Most shots that one statement of a longer work reads or writes."""
_AS_NEW: Final[Mapping[str, Any]] = {
    "state": ShotState.WAITING,
    "cancelled": False,
    "look": False,
    "frames": 0,
    "begun_s": 0.0,
    "ended_s": 0.0,
    "risk": 0,
    "review": ReviewState.UNDECIDED,
    "assignee": "",
    "record": None,
}
"""Columns of a shot that no attempt has begun."""
_IS_LEFT: Final = BatchShotRow.state.in_(sorted(LEFT))

_Document = TypeVar("_Document", bound=BaseModel)
_SPEC: Final = (BatchShotRow.shot_id, BatchShotRow.dub, BatchShotRow.quality, BatchShotRow.words)
_RECORD: Final = (BatchShotRow.shot_id, BatchShotRow.state, BatchShotRow.record)
_DEFAULT: Final = Quality()
_PATTERNS: Final = {kind: re.compile(TypeAdapter(kind).json_schema()["pattern"]) for kind in (BatchName, ShotId)}


@contextmanager
def open_batches(settings: GatewaySettings) -> Iterator[BatchStore]:
    """Open the store of batches in the database that the settings name, and close the database at the end.

    Raises:
        InvalidRequestError: the URL of the database is wrong.
        StorageRefusedError, BackendUnavailableError: the data folder or the database cannot be used.
    """
    data_folder(settings.data_dir)
    database = Database(settings.database_url, settings.data_dir, tenant=settings.tenant, connections=settings.database_connections)
    try:
        yield BatchStore(database)
    finally:
        database.close()


def path_of_earlier(output: str) -> str:
    """Return the path of the earlier video of a shot, beside the shot's video."""
    folder, slash, name = output.rpartition("/")
    return f"{folder}{slash}{_EARLIER}{name}"


def risk_number(record: ShotRecord) -> int:
    """Return the risk of a shot in ten thousandths."""
    return round(1e4 * risk_of(record))


def columns_of(record: ShotRecord) -> dict[str, Any]:
    """Return the columns of a shot that follow from its record alone."""
    return {
        "state": record.state,
        "look": bool(record.look),
        "frames": record.frames,
        "begun_s": unix_time(record.begun_at),
        "ended_s": unix_time(record.ended_at),
        "risk": risk_number(record),
        "record": record.model_dump_json(),
    }


class BatchStore:
    """Store of batches. All methods block, and may be called from any thread.

    Each method raises StorageRefusedError or BackendUnavailableError if the database cannot be used. Methods that take the name of
    a batch or ids of shots raise BatchNotFoundError if there is no such batch or shot.

    Attributes:
        database: database of the installation.

    Args:
        database: see the attribute.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @property
    def where(self) -> str:
        """URL of the database, for messages."""
        return self.database.where

    @property
    def is_shared(self) -> bool:
        """Whether processes of other machines reach the store: the database is PostgreSQL."""
        return self.database.shared

    # Batches

    def create(self, manifest: Manifest, engine: Engine) -> BatchFacts:
        """Create the batch of a manifest. If the batch exists with the same manifest, nothing changes.

        Returns:
            The facts of the batch. If the batch existed, `created_at`, `engine` and `details` are those of the batch.

        Raises:
            InvalidRequestError: the batch exists with another manifest.
        """
        name = manifest.name
        with self.database.writing() as session:
            # Of several creators at once, one creates the batch.
            self.database.one_by_one(session)
            batch = session.get(BatchRow, name)
            if batch is not None and batch.manifest_sha256 != manifest.sha256:
                raise InvalidRequestError(
                    Text(
                        "batch {name} exists with another manifest: choose another {option}, or submit the manifest of the batch "
                        "with the same ids in the same order. Rows of shots that are not done may be changed",
                        name=name,
                        option=Option("batch_id", "NAME"),
                    ),
                    field="name",
                )
            if batch is None:
                batch = BatchRow(
                    name=name,
                    created_at=now(),
                    engine=engine,
                    manifest_sha256=manifest.sha256,
                    num_shots=len(manifest.shots),
                    details={},
                )
                session.add(batch)
                session.flush()
                numbered = enumerate(manifest.shots)
                while some := list(islice(numbered, _SHOTS_AT_ONCE)):
                    # A bulk insert of the session does more for each row.
                    session.connection().execute(insert(BatchShotRow), [_new_row(name, row, shot) for row, shot in some])
                    _add_actors(session, name, some)
            return _facts_of(batch)

    def revise(self, manifest: Manifest, *, is_idle: bool = False) -> list[str]:
        """Take over changed rows of a manifest, and let the changed shots begin anew. Shots of unchanged rows stay as they are.

        A row may differ in its lines alone. The row of a shot that is not done, such as one that failed or has not begun, may
        differ in everything but its id. If there is no such batch, or the ids or their order differ, nothing changes.

        Args:
            manifest: the new rows.
            is_idle: whether it is known that no worker dubs shots of the batch: shots that count as running were abandoned.

        Returns:
            Ids of the changed shots.

        Raises:
            InvalidRequestError: the row of a shot that is done differs, or shots of the batch are running, in a cluster also: wait
                for a pod. If only lines differ: shots have not ended.
        """
        name = manifest.name
        with self.database.writing() as session:
            batch = session.scalar(select(BatchRow).where(BatchRow.name == name).with_for_update())
            if batch is None or batch.manifest_sha256 == manifest.sha256:
                return []
            columns = (*_SPEC, BatchShotRow.state)
            # No worker begins a shot until the transaction ends.
            rows = session.execute(_of_batch(name, *columns).with_for_update()).all()
            if [row.shot_id for row in rows] != [shot.id for shot in manifest.shots]:
                return []
            stored = [(number, row, _spec_of(row)) for number, row in enumerate(rows)]
            changed = [(number, row, shot) for number, row, shot in stored if shot != manifest.shots[number]]
            _check_revision(batch, [row.state for row in rows], changed, manifest, is_idle=is_idle)
            for number, _, _ in changed:
                shot = manifest.shots[number]
                of_shot = and_(BatchShotRow.batch == name, BatchShotRow.number == number)
                session.execute(update(BatchShotRow).where(of_shot).values(**_new_row(name, number, shot)))
                session.execute(delete(BatchActorRow).where(BatchActorRow.batch == name, BatchActorRow.number == number))
            _add_actors(session, name, ((number, manifest.shots[number]) for number, _, _ in changed))
            batch.manifest_sha256 = manifest.sha256
            return [row.shot_id for _, row, _ in changed]

    def batches(self) -> list[BatchFacts]:
        """Return the facts of all batches, sorted by name."""
        with self.database.reading() as session:
            return [_facts_of(row) for row in session.scalars(select(BatchRow).order_by(BatchRow.name))]

    def facts(self, name: str) -> BatchFacts:
        """Return the facts of a batch."""
        facts = self.find(name)
        if facts is None:
            raise self._missing(name)
        return facts

    def find(self, name: str) -> BatchFacts | None:
        """Return the facts of a batch; None: there is no batch of this name."""
        if not _fits(BatchName, name):
            return None
        with self.database.reading() as session:
            row = session.get(BatchRow, name)
            return None if row is None else _facts_of(row)

    def set_details(self, name: str, details: Mapping[str, Any]) -> None:
        """Replace the details of a batch, which are the engine's own facts."""
        with self.database.writing() as session:
            session.execute(update(BatchRow).where(BatchRow.name == name).values(details=dict(details)))

    def remove(self, name: str) -> None:
        """Remove a batch: rows, records, pictures, decisions and earlier videos. The videos stay."""
        self.facts(name)
        self.remove_earlier(name, [shot_id for shot_id, _ in self._earlier(BatchShotRow.batch == name)])
        with self.database.writing() as session:
            session.execute(delete(BatchRow).where(BatchRow.name == name))

    def sizes_bytes(self) -> dict[str, int]:
        """Return about how many bytes each batch takes in the database, by name."""
        texts = func.length(BatchShotRow.dub) + func.length(BatchShotRow.quality)
        texts += func.length(func.coalesce(BatchShotRow.record, "")) + func.length(func.coalesce(BatchShotRow.words, ""))
        with self.database.reading() as session:
            sizes = Counter(dict(_pairs(session, select(BatchShotRow.batch, func.sum(texts)).group_by(BatchShotRow.batch))))
            jpegs = select(BatchPictureRow.batch, func.sum(func.length(BatchPictureRow.jpeg))).group_by(BatchPictureRow.batch)
            return dict(sizes + Counter(dict(_pairs(session, jpegs))))

    def ended_before(self, time_s: float) -> list[BatchFacts]:
        """Return the batches whose shots all ended before a time, Unix time in seconds, the oldest first."""
        late = exists().where(BatchShotRow.batch == BatchRow.name, or_(_IS_LEFT, BatchShotRow.ended_s >= time_s))
        with self.database.reading() as session:
            query = select(BatchRow).where(~late).order_by(BatchRow.created_at, BatchRow.name)
            # The last attempt of a shot that was cancelled before it began has no time.
            return [facts for row in session.scalars(query) if unix_time((facts := _facts_of(row)).created_at) < time_s]

    # Rows

    def manifest(self, name: str) -> list[ShotSpec]:
        """Return the shots of a batch in the order of the rows, with the options that were changed."""
        columns = (*_SPEC, BatchShotRow.options)
        return [self._with_options(row) for row in self._all(name, *columns)]

    def ids(self, name: str, states: Collection[str] = tuple(ShotState)) -> list[str]:
        """Return the ids of the shots of a batch in some states, in the order of the rows."""
        return [row.shot_id for row in self._all(name, BatchShotRow.shot_id, where=BatchShotRow.state.in_(sorted(states)))]

    def row_of(self, name: str, shot_id: str) -> int:
        """Return the row of a shot."""
        return self.rows_of(name, [shot_id])[shot_id]

    def rows_of(self, name: str, shot_ids: Collection[str]) -> dict[str, int]:
        """Return the rows of shots by their ids."""
        return {row.shot_id: row.number for row in self._some(name, shot_ids, BatchShotRow.number)}

    def shot(self, name: str, row: int) -> ShotSpec:
        """Return the shot of a row, with the options that were changed.

        Raises:
            BatchNotFoundError: there is no such row.
        """
        columns = (*_SPEC, BatchShotRow.options)
        with self.database.reading() as session:
            stored = session.execute(_of_batch(name, *columns).where(BatchShotRow.number == row)).one_or_none()
        if stored is None:
            self.facts(name)
            raise BatchNotFoundError(f"batch {name} has no row {row}", resource=name)
        return self._with_options(stored)

    def options(self, name: str, shot_id: str) -> dict[str, Any]:
        """Return the options of a shot that were changed since the batch was submitted (ShotOptions as JSON)."""
        return to_json(self._changed(self._one(name, shot_id, BatchShotRow.shot_id, BatchShotRow.options)))

    def set_options(self, name: str, shot_id: str, options: ShotOptions) -> None:
        """Change options of a shot, which hold for its next dub. Options that were changed before and are not given stay.

        Args:
            options: checked options (`gateway.batch.changes.check_options`).
        """
        with self.database.writing() as session:
            row = self._locked(session, name, shot_id)
            every = self._changed(row)
            every.MergeFrom(options)
            row.options = json.dumps(to_json(every), sort_keys=True)

    def has_written(self, uri: str) -> bool:
        """Return whether a shot of a batch has written the video that lies at a path or URL now. Its earlier video counts too."""
        folder, slash, file = uri.rpartition("/")
        earlier = BatchShotRow.output == f"{folder}{slash}{file.removeprefix(_EARLIER)}"
        written = exists().where(BatchShotRow.output == uri, BatchShotRow.state.in_(sorted(WRITTEN)))
        with self.database.reading() as session:
            if session.scalar(select(written)):
                return True
        return any(video.place == uri for _, video in self._earlier(earlier))

    def has_dubbed(self, uri: str) -> bool:
        """Return whether a shot of a batch was dubbed from the footage at a path or URL, and has its video or its earlier video."""
        dubbed = exists().where(BatchShotRow.footage == uri, BatchShotRow.state.in_(sorted(WRITTEN)))
        with self.database.reading() as session:
            if session.scalar(select(dubbed)):
                return True
        return bool(self._earlier(BatchShotRow.footage == uri))

    def uris_left(self) -> set[str]:
        """Return the paths and URLs that the shots of all batches name which have not ended."""
        query = select(*_SPEC).where(_IS_LEFT)
        with self.database.reading() as session:
            return {uri for row in session.execute(query) for uri in _spec_of(row).uris.values()}

    # Records

    def record(self, name: str, shot_id: str) -> ShotRecord:
        """Return the record of a shot. A cancelled shot that waits is CANCELLED."""
        return self._record_of(self._one(name, shot_id, *_RECORD))

    def records(self, name: str) -> list[ShotRecord]:
        """Return the records of all shots in the order of the rows, each as `record` does."""
        return [self._record_of(row) for row in self._all(name, *_RECORD)]

    def records_of(self, name: str, shot_ids: Sequence[str]) -> list[ShotRecord]:
        """Return the records of some shots in the order of `shot_ids`, each as `record` does."""
        return [self._record_of(row) for row in self._some(name, shot_ids, *_RECORD)]

    def left(self, name: str) -> dict[int, ShotRecord]:
        """Return the records of the shots that have not ended, by row."""
        return {row.number: self._record_of(row) for row in self._all(name, BatchShotRow.number, *_RECORD, where=_IS_LEFT)}

    def work(self, name: str) -> list[ShotWork]:
        """Return what the progress of a batch follows from, of all shots, in no particular order."""
        columns = (
            BatchShotRow.state,
            BatchShotRow.look,
            BatchShotRow.review,
            BatchShotRow.frames,
            BatchShotRow.begun_s,
            BatchShotRow.ended_s,
        )
        return [
            ShotWork(ShotState(state), look, frames, begun_s, ended_s, ReviewState(review))
            for state, look, review, frames, begun_s, ended_s in self._all(name, *columns, in_order=False)
        ]

    def states(self) -> dict[str, Counter[ShotState]]:
        """Return the number of shots of each batch by their states, by name of the batch."""
        columns = (BatchShotRow.batch, BatchShotRow.state)
        counts: dict[str, Counter[ShotState]] = {}
        with self.database.reading() as session:
            for batch, state, number in session.execute(select(*columns, func.count()).group_by(*columns)):
                counts.setdefault(batch, Counter())[ShotState(state)] = number
        return counts

    def shots(self, name: str, query: ShotQuery = ShotQuery(), limit: int | None = None) -> list[ListedShot]:
        """Return the shots of a list with their records and decisions.

        Args:
            name: name of the batch.
            query: shots and their order.
            limit: most shots; None: all.
        """
        return list(self._listed(name, query, limit))

    def _listed(self, name: str, query: ShotQuery, limit: int | None) -> Iterator[ListedShot]:
        every = aliased(BatchDecisionRow)
        last = select(func.max(every.decision)).where(every.batch == BatchShotRow.batch, every.number == BatchShotRow.number)
        columns = (BatchShotRow.number, *_RECORD, *_SPEC[1:], BatchDecisionRow.document)
        decided = and_(
            BatchShotRow.review != ReviewState.UNDECIDED,
            BatchDecisionRow.batch == BatchShotRow.batch,
            BatchDecisionRow.number == BatchShotRow.number,
            BatchDecisionRow.decision == last.scalar_subquery(),
        )
        selected = select(*columns).outerjoin(BatchDecisionRow, decided).where(*conditions_of(name, query))
        selected = selected.order_by(*ORDERS[query.order]).limit(limit)
        with self.database.reading() as session:
            rows = session.execute(selected).all()
        if not rows:
            self.facts(name)
        for row in rows:
            decision = None if row.document is None else self._document(Decision, row.document, row.shot_id)
            yield ListedShot(row.number, _spec_of(row), self._record_of(row), decision)

    def each_shot(self, name: str) -> Iterator[ListedShot]:
        """Yield all shots in the order of the rows, each as `shots` does.

        Some shots are read at a time, so that the memory stays small and no writer waits. A shot is as it was when it was read.
        """
        row, last = -1, None
        while row != last:
            last = row
            for shot in self._listed(name, ShotQuery(behind=(row, 0)), _SHOTS_AT_ONCE):
                row = shot.row
                yield shot

    def shot_in_list(self, name: str, shot_id: str) -> ListedShot:
        """Return a shot as `shots` does."""
        return self.shots(name, ShotQuery(behind=(self.row_of(name, shot_id) - 1, 0)), 1)[0]

    def count(self, name: str, query: ShotQuery) -> int:
        """Return the number of shots that a list has."""
        with self.database.reading() as session:
            return session.scalar(select(func.count()).where(*conditions_of(name, query))) or 0

    def put(self, name: str, record: ShotRecord, *, before: ShotRecord | None = None, holder: str = "") -> bool:
        """Store the record of a shot, in place of an older record. Return whether the record was stored.

        Args:
            name: name of the batch.
            record: the record.
            before: the record is stored only in place of this record; None: of any.
            holder: the record is stored only while this holder has the lease of the shot; empty: no lease is needed.

        The lease of a shot that does not run ends.
        """
        with self.database.writing() as session:
            row = self._locked(session, name, record.id)
            if (holder and row.holder != holder) or (before is not None and self._record_of(row) != before):
                return False
            if record.state is not ShotState.RUNNING:
                row.holder, row.held_until = "", 0.0
            self._set(session, row, record)
            return True

    def put_thumbnail(self, name: str, shot_id: str, jpeg: bytes) -> None:
        """Store the picture of a shot's video (JPEG)."""
        with self.database.writing() as session:
            session.merge(BatchPictureRow(batch=name, number=self._locked(session, name, shot_id).number, jpeg=jpeg))

    def thumbnail(self, name: str, shot_id: str) -> bytes | None:
        """Return the picture of a shot's video (JPEG); None: there is none."""
        return self.thumbnails(name, [shot_id]).get(shot_id)

    def thumbnails(self, name: str, shot_ids: Iterable[str]) -> dict[str, bytes]:
        """Return the pictures (JPEG) of several shots by id. Shots without a picture are left out."""
        pictures: dict[str, bytes] = {}
        joined = and_(BatchPictureRow.batch == BatchShotRow.batch, BatchPictureRow.number == BatchShotRow.number)
        with self.database.reading() as session:
            for part in _parts(name, shot_ids):
                query = select(BatchShotRow.shot_id, BatchPictureRow.jpeg).join(BatchPictureRow, joined).where(part)
                pictures |= {row.shot_id: row.jpeg for row in session.execute(query)}
        return pictures

    def remove_thumbnails(self, name: str, shot_ids: Iterable[str]) -> None:
        """Remove the pictures of shots."""
        with self.database.writing() as session:
            for part in _parts(name, shot_ids):
                numbers = select(BatchShotRow.number).where(part)
                session.execute(delete(BatchPictureRow).where(BatchPictureRow.batch == name, BatchPictureRow.number.in_(numbers)))

    # Retries

    def cancel(self, name: str, shot_ids: Collection[str] = ()) -> int:
        """Cancel shots that have not ended; without ids, all. Return how many there are.

        Waiting shots do not begin. Workers of running shots see the mark (`is_cancelled`) and stop.
        """
        self._check_ids(name, shot_ids)
        state = case((BatchShotRow.state == ShotState.WAITING, ShotState.CANCELLED), else_=BatchShotRow.state)
        parts = _parts(name, shot_ids) if shot_ids else [BatchShotRow.batch == name]
        with self.database.writing() as session:
            marked = [update(BatchShotRow).where(part, _IS_LEFT).values(cancelled=True, state=state) for part in parts]
            return sum(cast("CursorResult[Any]", session.execute(mark)).rowcount for mark in marked)

    def is_cancelled(self, name: str, shot_id: str) -> bool:
        """Return whether a shot is cancelled, or its batch was removed."""
        with self.database.reading() as session:
            query = select(BatchShotRow.cancelled).where(BatchShotRow.batch == name, BatchShotRow.shot_id == shot_id)
            return session.scalar(query) is not False

    def cancelled(self, name: str) -> frozenset[str]:
        """Return the ids of all shots that are marked as cancelled."""
        return frozenset(row.shot_id for row in self._all(name, BatchShotRow.shot_id, where=BatchShotRow.cancelled.is_(True)))

    def reset(self, name: str, shot_ids: Collection[str]) -> None:
        """Let shots wait again, whatever became of them: their records begin anew, and their marks as cancelled are removed."""
        self._check_ids(name, shot_ids)
        with self.database.writing() as session:
            for part in _parts(name, shot_ids):
                session.execute(update(BatchShotRow).where(part).values(**_AS_NEW))

    def keep_videos(self, name: str, shot_ids: Sequence[str]) -> None:
        """Keep the present videos of shots that are dubbed again, each in place of the shot's earlier video.

        A video is a further name of the same file, so that nothing is copied. Videos in a bucket, on a file system without hard
        links, image sequences, or larger than `_MOST_EARLIER_BYTES` are not kept.
        """
        for record in self.records_of(name, shot_ids):
            output = local_path(record.output)
            if record.state not in WRITTEN or output is None or output.endswith(LISTING_SUFFIX):
                continue
            self.remove_earlier(name, [record.id])
            path = path_of_earlier(output)
            try:
                if os.path.islink(output) or os.path.getsize(output) > _MOST_EARLIER_BYTES:
                    continue
                with suppress(FileNotFoundError):
                    os.unlink(path)
                os.link(output, path)
            except OSError:
                # The video is gone, or the file system cannot keep it: the retry is what the user asked for.
                continue
            kept = EarlierVideo(place=path, output=record.output, sha256=record.output_sha256, options=record.options)
            self._set_earlier(name, record.id, kept.model_dump_json())

    def earlier(self, name: str, shot_ids: Iterable[str]) -> dict[str, EarlierVideo]:
        """Return the videos that the last retries of shots have replaced, and that are kept, by id of the shot."""
        return {shot_id: video for part in _parts(name, shot_ids) for shot_id, video in self._earlier(part)}

    def remove_earlier(self, name: str, shot_ids: Iterable[str]) -> None:
        """Remove the earlier videos of shots.

        Raises:
            StorageRefusedError: a video cannot be removed. The facts about the video stay.
        """
        for shot_id, video in self.earlier(name, shot_ids).items():
            try:
                os.unlink(video.place)
            except FileNotFoundError:
                continue
            except OSError as problem:
                raise StorageRefusedError(
                    f"the earlier video {video.place} of shot {shot_id} cannot be removed: {problem.strerror}", subject=video.place
                ) from problem
            self._set_earlier(name, shot_id, None)

    # People

    def decide(self, name: str, decision: Decision) -> Decision:
        """Add a decision to the decisions about its shot, and return the decision with its number.

        Decisions of several people at once are all kept. The last one counts.
        """
        with self.database.writing() as session:
            row = self._locked(session, name, decision.id)
            last = _last_decision(session, row)
            numbered = decision.model_copy(update={"number": 1 if last is None else last.decision + 1})
            session.add(
                BatchDecisionRow(batch=name, number=row.number, decision=numbered.number, document=numbered.model_dump_json())
            )
            session.flush()
            self._set_review(row, self._record_of(row), numbered)
            return numbered

    def decisions(self, name: str, shot_id: str) -> list[Decision]:
        """Return all decisions about a shot, those about its earlier videos too, the last one last."""
        number = self.row_of(name, shot_id)
        return self._decisions(name, BatchDecisionRow.number == number).get(shot_id, [])

    def all_decisions(self, name: str) -> dict[str, list[Decision]]:
        """Return what `decisions` returns about each shot that has a decision, by id."""
        return self._decisions(name, true())

    def shots_of_actor(self, actor_id: str) -> dict[str, list[str]]:
        """Return the ids of the shots that name an actor, by name of the batch."""
        joined = and_(BatchActorRow.batch == BatchShotRow.batch, BatchActorRow.number == BatchShotRow.number)
        query = select(BatchShotRow.batch, BatchShotRow.shot_id).join(BatchActorRow, joined)
        shots: dict[str, list[str]] = {}
        with self.database.reading() as session:
            for batch, shot_id in session.execute(query.where(BatchActorRow.actor == actor_id)):
                shots.setdefault(batch, []).append(shot_id)
        return shots

    def records_given(self, name: str, shot_ids: Iterable[str]) -> list[str]:
        """Return the ids of those shots whose rows hold consent records."""
        given = []
        with self.database.reading() as session:
            for part in _parts(name, shot_ids):
                rows = session.execute(select(BatchShotRow.shot_id, BatchShotRow.dub).where(part))
                given += [row.shot_id for row in rows if drop_records(DubSpec.FromString(row.dub))]
        return given

    def remove_records(self, name: str, shot_ids: Iterable[str]) -> None:
        """Remove the consent records from the rows of shots."""
        with self.database.writing() as session:
            for part in _parts(name, shot_ids):
                for row in session.scalars(select(BatchShotRow).where(part).with_for_update()):
                    spec = DubSpec.FromString(row.dub)
                    if drop_records(spec):
                        row.dub = spec.SerializeToString(deterministic=True)

    # Inside

    def _all(self, name: str, *columns: Any, where: ColumnElement[bool] = true(), in_order: bool = True) -> Sequence[Any]:
        """Return columns of the shots of a batch that meet a condition."""
        query = _of_batch(name, *columns) if in_order else select(*columns).where(BatchShotRow.batch == name)
        with self.database.reading() as session:
            rows = session.execute(query.where(where)).all()
        if not rows:
            self.facts(name)
        return rows

    def _some(self, name: str, shot_ids: Collection[str], *columns: Any) -> list[Any]:
        """Return columns of shots in the order of their ids."""
        rows: dict[str, Any] = {}
        with self.database.reading() as session:
            for part in _parts(name, shot_ids):
                rows |= {row[0]: row for row in session.execute(select(BatchShotRow.shot_id, *columns).where(part))}
        if unknown := [shot_id for shot_id in shot_ids if shot_id not in rows]:
            self.facts(name)
            raise _no_shots(name, unknown)
        return [rows[shot_id] for shot_id in shot_ids]

    def _one(self, name: str, shot_id: str, *columns: Any) -> Any:
        return self._some(name, [shot_id], *columns)[0]

    def _check_ids(self, name: str, shot_ids: Collection[str]) -> None:
        self.facts(name)
        self._some(name, shot_ids)

    def _locked(self, session: Session, name: str, shot_id: str) -> BatchShotRow:
        """Return the row of a shot, which no other transaction changes until this one ends."""
        query = select(BatchShotRow).where(BatchShotRow.batch == name, BatchShotRow.shot_id == shot_id).with_for_update()
        row = session.scalar(query) if _fits(ShotId, shot_id) else None
        if row is None:
            self.facts(name)
            raise _no_shots(name, [shot_id])
        return row

    def _set(self, session: Session, row: BatchShotRow, record: ShotRecord) -> None:
        for column, value in columns_of(record).items():
            setattr(row, column, value)
        if row.cancelled and record.state is ShotState.WAITING:
            row.state = ShotState.CANCELLED
        last = _last_decision(session, row)
        self._set_review(row, record, None if last is None else self._document(Decision, last.document, row.shot_id))

    def _set_review(self, row: BatchShotRow, record: ShotRecord, last: Decision | None) -> None:
        counts = last is not None and last.belongs_to(record)
        row.review = last.state if last is not None and counts else ReviewState.UNDECIDED
        row.assignee = last.assignee if last is not None and counts else ""

    def _set_earlier(self, name: str, shot_id: str, document: str | None) -> None:
        with self.database.writing() as session:
            self._locked(session, name, shot_id).earlier = document

    def _earlier(self, where: ColumnElement[bool]) -> list[tuple[str, EarlierVideo]]:
        """Return the ids and the earlier videos of shots that meet a condition."""
        query = select(BatchShotRow.shot_id, BatchShotRow.earlier).where(where, BatchShotRow.earlier.is_not(None))
        with self.database.reading() as session:
            rows = session.execute(query).all()
        videos = [(row.shot_id, self._document(EarlierVideo, row.earlier, row.shot_id)) for row in rows]
        # `remove_earlier` removes these files: a row that was written by others must not choose another file.
        return [(shot_id, video) for shot_id, video in videos if _is_own(video) and os.path.isfile(video.place)]

    def _decisions(self, name: str, where: ColumnElement[bool]) -> dict[str, list[Decision]]:
        joined = and_(BatchDecisionRow.batch == BatchShotRow.batch, BatchDecisionRow.number == BatchShotRow.number)
        query = select(BatchShotRow.shot_id, BatchDecisionRow.document).join(BatchDecisionRow, joined)
        query = query.where(BatchShotRow.batch == name, where).order_by(BatchDecisionRow.number, BatchDecisionRow.decision)
        decisions: dict[str, list[Decision]] = {}
        with self.database.reading() as session:
            for shot_id, document in session.execute(query):
                decisions.setdefault(shot_id, []).append(self._document(Decision, document, shot_id))
        return decisions

    def _record_of(self, row: Any) -> ShotRecord:
        if row.record is None:
            return ShotRecord(id=row.shot_id, state=ShotState(row.state))
        record = self._document(ShotRecord, row.record, row.shot_id)
        return record if record.state == row.state else record.model_copy(update={"state": ShotState(row.state)})

    def _with_options(self, row: Any) -> ShotSpec:
        shot = _spec_of(row)
        return shot if row.options is None else shot.with_options(self._changed(row))

    def _changed(self, row: Any) -> ShotOptions:
        """Return the changed options of a shot."""
        if row.options is None:
            return ShotOptions()
        try:
            options = json.loads(row.options)
            if not isinstance(options, dict):
                raise ValueError("no object of options")
            return options_in(options)
        except ValueError as problem:
            raise self.database.damaged(f"options of shot {row.shot_id}: {problem}") from problem

    def _document(self, kind: type[_Document], text: str, shot_id: str) -> _Document:
        try:
            return kind.model_validate_json(text)
        except ValidationError as problem:
            raise self.database.damaged(f"{kind.__name__} of shot {shot_id}: {problem.errors()[0]['msg']}") from problem

    def _missing(self, name: str) -> BatchNotFoundError:
        names = [facts.name for facts in self.batches()]
        there = f"there are: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}" if names else "there is none"
        alone = "" if self.is_shared else ". Workers of other machines need the PostgreSQL of the batch (DUBSTAGE_DATABASE_URL)"
        return BatchNotFoundError(f"no batch {name[:80]!r} in {self.where}; {there}{alone}", resource=name)


def _of_batch(name: str, *columns: Any) -> Select[Any]:
    return select(*columns).where(BatchShotRow.batch == name).order_by(BatchShotRow.number)


def _parts(name: str, shot_ids: Iterable[str]) -> Iterator[ColumnElement[bool]]:
    """Yield conditions that shots of a batch have one of the ids. No shot has an id that is no ShotId."""
    ids = (shot_id for shot_id in shot_ids if _fits(ShotId, shot_id))
    while part := list(islice(ids, _IDS_AT_ONCE)):
        yield and_(BatchShotRow.batch == name, BatchShotRow.shot_id.in_(part))


def _pairs(session: Session, query: Select[str, Any]) -> list[tuple[str, int]]:
    return [(name, int(number or 0)) for name, number in session.execute(query)]


def _new_row(name: str, number: int, shot: ShotSpec) -> dict[str, Any]:
    return {
        "batch": name,
        "number": number,
        "shot_id": shot.id,
        "footage": shot.dub.footage_uri,
        "output": shot.output,
        "dub": shot.dub.SerializeToString(deterministic=True),
        "quality": shot.quality.model_dump_json(exclude_defaults=True),
        "words": None if shot.words is None else shot.words.model_dump_json(exclude_defaults=True),
        **_AS_NEW,
    }


def _spec_of(row: Any) -> ShotSpec:
    quality = _DEFAULT if row.quality == "{}" else Quality.model_validate_json(row.quality)
    words = None if row.words is None else Words.model_validate_json(row.words)
    return ShotSpec(row.shot_id, DubSpec.FromString(row.dub), quality, words)


def _add_actors(session: Session, name: str, shots: Iterable[tuple[int, ShotSpec]]) -> None:
    rows = [{"batch": name, "number": number, "actor": actor} for number, shot in shots for actor in shot.actor_ids]
    if rows:
        session.connection().execute(insert(BatchActorRow), rows)


def _check_revision(
    batch: BatchRow,
    states: Sequence[str],
    changed: Sequence[tuple[int, Any, ShotSpec]],
    manifest: Manifest,
    *,
    is_idle: bool,
) -> None:
    """Check that a batch can take over changed rows.

    Args:
        batch: the batch.
        states: states of all shots.
        changed: number, row and former shot of each row that differs.
        manifest: the new rows.
        is_idle: as for `BatchStore.revise`.

    Raises:
        InvalidRequestError: as `BatchStore.revise`.
    """
    name = batch.name
    other = [row for number, row, shot in changed if not shot.revises(manifest.shots[number])]
    if not other:
        if left := sum(state not in ENDED for state in states):
            raise InvalidRequestError(
                f"batch {name} has other lines, and {left} of its shots have not ended: wait, or cancel the batch first",
                field="name",
            )
        return
    if done := [row.shot_id for row in other if row.state == ShotState.DONE]:
        raise InvalidRequestError(
            Text(
                "batch {name} has shots that are done and whose rows differ: {done}. Restore these rows, change options by "
                "{retry}, or submit the manifest under another name",
                name=name,
                done=", ".join(done[:_NAMED]),
                retry=Command("batch retry", f"{name} {done[0]}"),
            ),
            field="name",
        )
    # Jobs of a cluster begin waiting shots at any time.
    busy = {ShotState.RUNNING, ShotState.WAITING} if batch.engine == "kubernetes" else {ShotState.RUNNING}
    left = sum(state in busy for state in states)
    if left and not is_idle:
        raise InvalidRequestError(
            f"batch {name} has other rows, and {left} of its shots are running: wait, or cancel the batch first", field="name"
        )


def _last_decision(session: Session, row: BatchShotRow) -> BatchDecisionRow | None:
    mine = and_(BatchDecisionRow.batch == row.batch, BatchDecisionRow.number == row.number)
    return session.scalar(select(BatchDecisionRow).where(mine).order_by(BatchDecisionRow.decision.desc()).limit(1))


def _facts_of(row: BatchRow) -> BatchFacts:
    return BatchFacts(
        name=row.name,
        manifest_sha256=row.manifest_sha256,
        rows=row.num_shots,
        created_at=row.created_at,
        engine=cast("Engine", row.engine),
        details=row.details,
    )


def _no_shots(name: str, unknown: Sequence[str]) -> BatchNotFoundError:
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return BatchNotFoundError(
        Text(
            "batch {name} has no shot {shot!r}{more} ({status})",
            name=name,
            shot=unknown[0][:80],
            more=more,
            status=Command("batch status", name),
        ),
        resource=f"{name}/{unknown[0]}",
    )


def _is_own(video: EarlierVideo) -> bool:
    return video.place == path_of_earlier(local_path(video.output) or video.output)


def _fits(kind: Any, text: str) -> bool:
    return _PATTERNS[kind].fullmatch(text) is not None
