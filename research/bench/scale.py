"""A large installation on the real stores: which step grows with its size. `python -m research.bench.scale`.

Two parts, each without a dub:

- actors: the database of actors (SQLite, or `--database-url` for an empty PostgreSQL) with 10,000 to 1,000,000 people. The rows are
  written in bulk, as enrolments write them. Blobs lie in the artefact store of only the people whose blobs a measured function
  reads.
- shots: batches of 1,000 to 100,000 shots in the database. Records of ended shots are written in bulk. Workers do to the store
  what they do about a dub, and dub nothing.

Times are medians, and say something as ratios within one run: other work of the machine changes them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, insert, select, update

from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1.dub_pb2 import DubSpec
from gateway.actors.store import ActorStore
from gateway.actors.stored import ENROLMENT, PICTURE
from gateway.audit.entries import START, AuditEvent, EventKind, digest_of_line, line_of
from gateway.audit.log import AuditFaceRow, AuditPersonRow, AuditRow
from gateway.batch.erasure import other_stores
from gateway.batch.leases import shot_lease
from gateway.batch.lists import ShotQuery
from gateway.batch.records import begun, progress_from
from gateway.batch.report import write_report
from gateway.batch.row_queue import RowQueue
from gateway.batch.store import BatchStore, columns_of
from gateway.batch.types import ShotAppearance, ShotFinish, ShotMotion, ShotRecord, ShotSpec, ShotState, manifest_of
from gateway.consent.record import Consent, digest_of
from gateway.database.session import Database
from gateway.database.tables import ActorRow, BatchShotRow, EnrolmentRow, LineageRow
from gateway.dub.learn.enrol import EnrolledActor
from gateway.settings import GatewaySettings
from gateway.tenants.register import stored_bytes
from research.bench.runs import Stopwatch, rows_of, table, tell, write_json
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.landmarks import JAW, NUM_MOUTH_AREA
from services.common.server.settings import load_settings
from services.common.store.artefacts import ArtefactStore

ACTORS: Final = (10_000, 100_000, 1_000_000)
"""Numbers of actors."""
SHOTS: Final = (1_000, 10_000, 100_000)
"""Numbers of shots of a batch."""
WORKERS: Final = 8
PAGE: Final = 48
"""Shots of a page of the grid."""
_TRIES: Final = 7
_AT_ONCE: Final = 10_000
_KINDS: Final = (ENROLMENT, "style", "bank", "renderer", PICTURE)
_TIME: Final = "2026-11-20T10:00:00.000Z"
_ACTOR: Final = "actor-{:07d}"


@dataclass(frozen=True, slots=True)
class Step:
    """One measured step.

    Attributes:
        part: part of the measurement, such as `actors`.
        step: what is done.
        size: number of actors or shots.
        ms: time in the median, milliseconds; of a step with many equal pieces, of one piece.
        ratio: time divided by that with the smallest number; 1: this is the smallest one.
        processor_ms: processor time of one piece, milliseconds, which other work of the machine changes less; None: not measured.
    """

    part: str
    step: str
    size: int
    ms: float
    ratio: float
    processor_ms: float | None


class Steps:
    """Measured steps of one part, in order.

    Args:
        part: name of the part.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._first: dict[str, float] = {}
        self.rows: list[Step] = []

    def add(self, step: str, size: int, seconds: float, processor_ms: float | None = None) -> None:
        """Add a step, and print the step on the error stream."""
        ms = 1000.0 * seconds
        self.rows.append(Step(self._part, step, size, ms, ms / self._first.setdefault(step, ms), processor_ms))
        tell(f"{self.rows[-1]}")

    def time(self, step: str, size: int, work: Callable[[], object], *, tries: int = _TRIES) -> None:
        """Do a step several times, and add the median."""
        watches = [Stopwatch() for _ in range(tries)]
        for watch in watches:
            with watch:
                work()
        processor_ms = 1000.0 * statistics.median(watch.cpu_s for watch in watches)
        self.add(step, size, statistics.median(watch.wall_s for watch in watches), processor_ms)


def _pieces(begin: int, end: int, most: int = _AT_ONCE) -> Iterator[range]:
    return (range(first, min(end, first + most)) for first in range(begin, end, most))


# Actors


def consent_of(number: int) -> Consent:
    """Return the consent record of an actor."""
    return Consent.model_validate(
        {"subject": f"Person {number}", "granted_by": f"Person {number}", "scope": "film", "date": "2026-02-01", "reference": "1"}
    )


def fill_actors(store: ActorStore, begin: int, end: int) -> None:
    """Add the rows of actors in bulk: actor, enrolment, five blobs, name in the audit log, and the entry of the enrolment.

    Args:
        store: the store.
        begin: number of the first actor.
        end: number behind the last actor. All earlier actors are in the store.
    """
    with store.database.reading() as session:
        last = session.scalar(select(AuditRow).order_by(AuditRow.sequence.desc()).limit(1))
        head = (last.sequence, last.digest) if last is not None else (0, START)
    for numbers in _pieces(begin, end):
        with store.database.writing() as session:
            head = _add_rows(session.connection(), numbers, head)


def _add_rows(connection: Connection, numbers: range, head: tuple[int, str]) -> tuple[int, str]:
    actors, lineage, people, log, faces = [], [], [], [], []
    sequence, previous = head
    for number in numbers:
        actor_id, consent = _ACTOR.format(number), consent_of(number)
        digests = [hashlib.sha256(f"{kind} {number}".encode()).hexdigest() for kind in _KINDS]
        digest = digest_of(consent)
        actors.append((actor_id, "dubstage", consent.fields(), digests[0], _TIME, digests[0], digest))
        lineage += [(actor_id, blob, kind, f"/bench/{blob}", 4_000_000) for kind, blob in zip(_KINDS, digests, strict=True)]
        alias, sequence = digests[1][:32], sequence + 1
        event = AuditEvent(event=EventKind.ACTOR_CREATED, actor_ids=(actor_id,), consents=(digest,), details={"method": "dubstage"})
        by = {"tenant": "default", "token": ""}
        line = line_of(event, sequence=sequence, previous=previous, time=_TIME, by=by, faces=[alias])
        previous = digest_of_line(line.encode("ascii"))
        people.append((actor_id, alias))
        log.append((sequence, line, previous, ""))
        faces.append((alias, sequence))
    _insert(
        connection,
        ActorRow,
        ("actor_id", "method", "consent", "footage_sha256", "created_at", "enrolment_sha256", "consent_sha256"),
        actors,
    )
    _insert(connection, EnrolmentRow, ("actor_id", "num_frames", "lag_frames"), [(row[0], 250, 0) for row in actors])
    _insert(connection, LineageRow, ("actor_id", "sha256", "kind", "uri", "size_bytes"), lineage)
    _insert(connection, AuditPersonRow, ("actor_id", "alias"), people)
    _insert(connection, AuditRow, ("sequence", "line", "digest", "work"), log)
    _insert(connection, AuditFaceRow, ("face", "sequence"), faces)
    return sequence, previous


def _insert(connection: Connection, table: Any, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    connection.execute(insert(table), [dict(zip(columns, row, strict=True)) for row in rows])


def _enrol(store: ActorStore, blobs: ArtefactStore, number: int) -> str:
    """Enrol a person as an enrolment ends, with small blobs, and return the id."""
    generator = np.random.default_rng(number)
    rows = {"mean_mouth": NUM_MOUTH_AREA, "closed_mouth": NUM_MOUTH_AREA, "jaw_envelope": len(JAW), "anchors": len(ANCHORS)}
    geometry = ActorGeometry(**{name: generator.normal(size=(count, 3)).astype(np.float32) for name, count in rows.items()})
    refs = [blobs.put_bytes(f"{kind} of new {number}".encode()) for kind in ("style", "bank", "renderer")]
    style, bank, renderer = (common_pb2.ArtefactRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes) for ref in refs)
    actor_id, pose = f"new-{number}", np.array([0.1, 0.0, 0.0, 320.0, 240.0, 1.5])
    enrolled = EnrolledActor(style, bank, renderer, geometry, 250, pose, lag_frames=0)
    consent = consent_of(-number - 1)
    store.create(actor_id, method="dubstage", enrolled=enrolled, footage_sha256="0" * 64, consent=consent)
    return actor_id


def measure_actors(sizes: Sequence[int], folder: Path, database_url: str = "") -> list[Step]:
    """Measure the store of actors with each number of people.

    Args:
        sizes: numbers of people, ascending.
        folder: empty folder for the installation.
        database_url: an empty PostgreSQL; empty: SQLite in the folder.
    """
    settings = load_settings(
        GatewaySettings, data_dir=folder / "data", artefacts_url=str(folder / "data" / "artefacts"), database_url=database_url
    )
    steps, before = Steps("actors"), 0
    with ActorStore(settings) as store:
        blobs = ArtefactStore(settings.artefacts_url)
        for size in sizes:
            fill_actors(store, before, size)
            tell(f"{size} actors in the database")
            _measure_actors(store, blobs, steps, before, size)
            before = size
    return steps.rows


def _measure_actors(store: ActorStore, blobs: ArtefactStore, steps: Steps, before: int, size: int) -> None:
    drawn = random.Random(size)
    database, fresh = store.database, iter(range(size * 1000, size * 1000 + 1000))
    added: list[str] = []
    steps.time("enrol one (rows, blobs, entry in the log)", size, lambda: added.append(_enrol(store, blobs, next(fresh))))
    steps.time("look one up, with its blob", size, lambda: store.show(added[0]))
    steps.time("check consent of running work", size, lambda: store.consents.check_lasting([], actor_id=_any(drawn, size)))
    steps.time("first page of 100", size, lambda: store.list(limit=100))
    steps.time("page of 100 in the middle", size, lambda: store.list(after=_any(drawn, size), limit=100))
    steps.time("storage of the tenant (limit storage_bytes)", size, lambda: stored_bytes(database), tries=3)
    event = AuditEvent(event=EventKind.DUB_BEGUN, work="operations/1", actor_ids=(_any(drawn, size),))
    steps.time("write an entry of the audit log", size, lambda: store.audit.record(event))
    steps.time("newest 50 entries", size, lambda: store.audit.newest(50))
    oldest = _ACTOR.format(0)
    steps.time("newest 50 entries of one person", size, lambda: store.audit.newest(50, actor_id=oldest), tries=1)
    numbers = iter(drawn.sample(range(before, size), _TRIES))
    steps.time("withdraw one consent", size, lambda: store.consents.withdraw(digest_of(consent_of(next(numbers)))))
    left = iter(added)
    steps.time("erase one person", size, lambda: store.erasures.erase_or_ask(next(left), other_stores(database)))


def _any(drawn: random.Random, size: int) -> str:
    return _ACTOR.format(drawn.randrange(size))


# Shots


def rows_of_batch(size: int) -> list[ShotSpec]:
    """Return rows as a timeline gives."""
    return [
        ShotSpec(
            f"sc{row // 50:04d}_sh{row:06d}",
            DubSpec(
                footage_uri=f"/plates/reel_{row % 7}/sh{row:06d}.mov",
                speech_uri=f"/de/sh{row:06d}.wav",
                output_uri=f"/out/sh{row:06d}.mov",
                actor=f"actors/actor-{row % 40}",
                method="dubstage",
            ),
        )
        for row in range(size)
    ]


def ended_record(shot: ShotSpec, row: int) -> ShotRecord:
    """Return the record of a shot that was dubbed, with all figures that a dub measures."""
    share = (row % 100) / 100
    return ShotRecord(
        id=shot.id,
        state=ShotState.DONE,
        attempts=1,
        worker="dubstage-batch-night-0-x7k2p",
        begun_at=_TIME,
        ended_at="2026-11-20T10:01:00.000Z",
        seconds=60.0,
        frames=125,
        frames_dubbed=118,
        frames_by_reason={"dubbed": 118, "no_face": 7},
        output=shot.output,
        output_sha256=hashlib.sha256(shot.id.encode()).hexdigest(),
        method="dubstage",
        r_opening=share,
        motion=ShotMotion(silence_opening=0.1, opening_spread=0.9, width_spread=0.8, fastest_step=1.0),
        appearance=ShotAppearance(tint_alarms=share, nostril_alarms=0.0, low_contrast=0.0, popping=1.0, face_distance=0.2),
        finish=ShotFinish(lateness_ms=8.0, sync_confidence=2.0, still_share=0.0, seam=0.001, flicker=0.001),
        frame_rate="25/1",
    )


def fill_records(store: BatchStore, name: str, shots: Sequence[ShotSpec], begin: int) -> None:
    """Store the records of ended shots, from a row on, in one transaction."""
    rows = [{"batch": name, "number": row, **columns_of(ended_record(shots[row], row))} for row in range(begin, len(shots))]
    with store.database.writing() as session:
        session.execute(update(BatchShotRow), rows)


async def claims(store: BatchStore, name: str, rows: Sequence[int], workers: int) -> float:
    """Let workers draw rows and do to the store what `run_shot` does about a dub. Return the seconds of all rows together."""
    queue = RowQueue(rows)

    def shot(row: int, holder: str) -> None:
        spec = store.shot(name, row)
        store.record(name, spec.id)
        store.is_cancelled(name, spec.id)
        store.options(name, spec.id)
        store.put(name, begun(ShotRecord(id=spec.id), "bench:1", spec.result, _TIME), holder=holder)
        store.put(name, ended_record(spec, row), holder=holder)

    async def work() -> None:
        while (row := await queue.next()) is not None:
            async with shot_lease(store, name, row) as holder:
                await asyncio.to_thread(shot, row, holder)
            await queue.ended(row, again_in_s=None)

    with Stopwatch() as watch:
        await asyncio.gather(*(work() for _ in range(workers)))
    return watch.wall_s


def measure_shots(sizes: Sequence[int], folder: Path, workers: int = WORKERS, database_url: str = "") -> list[Step]:
    """Measure batches of which nearly all shots have ended.

    Args:
        sizes: numbers of shots of a batch, ascending.
        folder: empty folder for the database and reports.
        workers: workers that draw shots at once.
        database_url: an empty PostgreSQL; empty: SQLite in the folder.
    """
    steps = Steps("shots")
    folder.mkdir(exist_ok=True)
    with closing(Database(database_url, folder)) as database:
        for size in sizes:
            _measure_batch(steps, BatchStore(database), size, folder, workers)
    return steps.rows


def _measure_batch(steps: Steps, store: BatchStore, size: int, folder: Path, workers: int) -> None:
    name, shots = f"night{size}", rows_of_batch(size)
    manifest = manifest_of(name, shots)
    steps.time("submit (rows checked before)", size, lambda: store.create(manifest, "gateway"), tries=1)
    waiting = min(size // 2, 4 * workers)
    fill_records(store, name, shots, waiting)
    steps.time("a worker finds its shot", size, lambda: store.shot(name, size - 1))
    seconds = asyncio.run(claims(store, name, range(waiting), workers))
    steps.add(f"claim and end one shot, {workers} workers", size, seconds / waiting)
    steps.time("progress (GetBatch, `batch status`)", size, lambda: progress_from(store.work(name)), tries=3)
    steps.time("store the record of a shot", size, lambda: store.put(name, ended_record(shots[-1], size - 1)), tries=3)
    steps.time(f"page of {PAGE} shots (ListShots)", size, lambda: store.shots(name, limit=PAGE))
    riskiest = ShotQuery(order="risk", behind=(size // 2, 5000))
    steps.time(f"page of {PAGE} shots in the middle of the order of risk", size, lambda: store.shots(name, riskiest, PAGE))
    report_folder = folder / f"report{size}"

    def report() -> None:
        write_report(store.facts(name), store.each_shot(name), partial(store.thumbnails, name), report_folder)

    steps.time("report, without pictures", size, report, tries=1)
    steps.time("remove", size, lambda: store.remove(name), tries=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all parts, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.scale", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=("actors", "shots"), default=("actors", "shots"))
    parser.add_argument("--actors", type=int, nargs="+", default=ACTORS, help="numbers of actors. Default: %(default)s.")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS, help="numbers of shots. Default: %(default)s.")
    parser.add_argument("--workers", type=int, default=WORKERS, help="workers of a batch. Default: %(default)s.")
    parser.add_argument("--database-url", default="", help="an empty PostgreSQL. Default: SQLite in a temporary folder.")
    parser.add_argument("--json", type=Path, help="file for all results")
    options = parser.parse_args(arguments)
    steps: list[Step] = []
    with tempfile.TemporaryDirectory(prefix="dubstage-scale-") as folder:
        if "actors" in options.parts:
            steps += measure_actors(options.actors, Path(folder, "actors"), options.database_url)
        if "shots" in options.parts:
            steps += measure_shots(options.shots, Path(folder, "shots"), options.workers, options.database_url)
    print(table(rows_of(steps)))
    if options.json is not None:
        write_json(options.json, rows_of(steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
