"""A large installation on the real stores: what grows, and which limit is met first. `python -m research.bench.scale`.

Three parts, each without a dub:

- actors: the database of actors (SQLite, or `--database-url` for an empty PostgreSQL) with 10,000 to 1,000,000 people. The rows are
  written in bulk, as enrolments write them. Blobs lie in the artefact store of only the people whose blobs a measured function
  reads.
- shots: batches of 1,000 to 100,000 shots in a folder, and a smaller one on an S3 that is moto, where requests are counted. Records
  of shots that have ended are written in bulk. Workers do to the store what they do about a dub, and dub nothing.
- video: two hours of 3840 x 2160, by the functions of `dubstage plan` and the limits of settings and code.

Times are medians, and say something as ratios within one run: other work of the machine changes them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, insert, select

from dubstage.common.v1 import common_pb2
from dubstage.gateway.v1.dub_pb2 import DubSpec
from gateway.actors.store import ActorStore
from gateway.actors.stored import ENROLMENT, PICTURE
from gateway.api.progress import enrolment_steps
from gateway.audit.entries import START, AuditEvent, EventKind, digest_of_line, line_of
from gateway.audit.log import AuditPersonRow, AuditRow
from gateway.batch.changes import expire_batches
from gateway.batch.index import BatchIndex
from gateway.batch.local import RowQueue
from gateway.batch.locks import shot_lock
from gateway.batch.records import begun
from gateway.batch.report import write_report
from gateway.batch.reviews import Decision, ReviewState, present
from gateway.batch.store import BatchStore, decision_path, facts_path, json_of, record_path
from gateway.batch.types import ShotAppearance, ShotFinish, ShotMotion, ShotRecord, ShotSpec, ShotState, manifest_of
from gateway.cli.plan import FIGURES, VIDEO_USE, PlannedLoad, needs, read_figures
from gateway.consent.record import Consent, digest_of
from gateway.database.tables import ActorRow, EnrolmentRow, LineageRow
from gateway.dub.choices import MOST_BOXES
from gateway.dub.costs import DubWork
from gateway.dub.disk_needs import records_need, video_need, windows_need
from gateway.dub.enrol import EnrolledActor
from gateway.dub.windows import WINDOW_FRAMES
from gateway.media.background import own_timeline
from gateway.media.opening import MAX_FRAMES, MAX_SIDE, MAX_VIDEO_S
from gateway.media.pixels import ColourTags, pixel_format
from gateway.media.signed_urls import MOST_BYTES
from gateway.media.types import AudioInfo, MediaInfo, Orientation, VideoInfo
from gateway.settings import GatewaySettings
from gateway.stages.calls import NEARLY_OVER
from gateway.tenants.register import stored_bytes
from research.bench.runs import tell
from services.common.face.actor_geometry import ANCHORS, ActorGeometry
from services.common.face.landmarks import JAW, NUM_MOUTH_AREA
from services.common.methods import DEFAULT_METHOD, method_named
from services.common.server.settings import load_settings
from services.common.store.artefacts import ArtefactStore
from services.common.wire.timeline import MOTION_RATE
from services.texture import backgrounds, select_frames

ACTORS: Final = (10_000, 100_000, 1_000_000)
"""Numbers of actors."""
SHOTS: Final = (1_000, 10_000, 100_000)
"""Numbers of shots of a batch in a folder."""
BUCKET_SHOTS: Final = (200, 1_200)
"""Numbers of shots of a batch on S3."""
BATCHES: Final = (200, 500)
"""Number of batches side by side, and shots of each."""
WORKERS: Final = 64
QUIET_S: Final = 4.0
"""Seconds after which a folder counts as unchanged (`Folder.stamp`)."""
PAGE: Final = 48
"""Shots of a page of the grid."""
MACHINES: Final = (1, 8, 32)
"""Numbers of machines that dub shots of one video."""
PROCESSORS: Final = 2.0
"""Processors of a machine."""
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
        size: number of actors, shots or batches.
        ms: time in the median, milliseconds; of a step with many equal pieces, of one piece.
        ratio: time divided by that with the smallest number; 1: this is the smallest one.
        note: requests to S3, and what else the time does not say.
    """

    part: str
    step: str
    size: int
    ms: float
    ratio: float
    note: str = ""


class Steps:
    """Measured steps of one part, in order.

    Args:
        part: name of the part.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._first: dict[str, float] = {}
        self.found: list[Step] = []

    def add(self, step: str, size: int, seconds: float, note: str = "") -> None:
        """Add a step, and print the step on the error stream."""
        ms = 1000.0 * seconds
        first = self._first.setdefault(step, ms)
        self.found.append(Step(self._part, step, size, ms, ms / first if first else 1.0, note))
        tell(line_of_step(self.found[-1]))

    def time(self, step: str, size: int, work: Callable[[], object], *, tries: int = _TRIES, note: str = "") -> None:
        """Do a step several times, and add the median."""
        seconds = []
        for _ in range(tries):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        self.add(step, size, statistics.median(seconds), note)


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
    actors, lineage, people, log = [], [], [], []
    sequence, previous = head
    for number in numbers:
        actor_id, consent = _ACTOR.format(number), consent_of(number)
        digests = [hashlib.sha256(f"{kind} {number}".encode()).hexdigest() for kind in _KINDS]
        digest = digest_of(consent)
        actors.append((actor_id, "ugc", consent.fields(), digests[0], _TIME, digests[0], digest))
        lineage += [(actor_id, blob, kind, f"/bench/{blob}", 4_000_000) for kind, blob in zip(_KINDS, digests, strict=True)]
        alias, sequence = digests[1][:32], sequence + 1
        event = AuditEvent(event=EventKind.ACTOR_CREATED, actor_id=actor_id, consents=(digest,), details={"method": "ugc"})
        by = {"tenant": "default", "token": ""}
        line = line_of(event, sequence=sequence, previous=previous, time=_TIME, by=by, face=alias)
        previous = digest_of_line(line.encode("ascii"))
        people.append((actor_id, alias))
        log.append((sequence, line, previous, "", alias))
    _insert(
        connection,
        ActorRow,
        ("actor_id", "method", "consent", "footage_sha256", "created_at", "enrolment_sha256", "consent_sha256"),
        actors,
    )
    _insert(connection, EnrolmentRow, ("actor_id", "num_frames", "lag_frames"), [(row[0], 250, 0) for row in actors])
    _insert(connection, LineageRow, ("actor_id", "sha256", "kind", "uri", "size_bytes"), lineage)
    _insert(connection, AuditPersonRow, ("actor_id", "alias"), people)
    _insert(connection, AuditRow, ("sequence", "line", "digest", "work", "face"), log)
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
    store.create(actor_id, method="ugc", enrolled=enrolled, footage_sha256="0" * 64, consent=consent)
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
            began = time.perf_counter()
            fill_actors(store, before, size)
            tell(f"{size} actors in the database after {time.perf_counter() - began:.0f} s more")
            _measure_actors(store, blobs, steps, before, size)
            before = size
    return steps.found


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
    event = AuditEvent(event=EventKind.DUB_BEGUN, work="operations/1", actor_id=_any(drawn, size))
    steps.time("write an entry of the audit log", size, lambda: store.audit.record(event))
    steps.time("newest 50 entries", size, lambda: store.audit.newest(50))
    oldest = _ACTOR.format(0)
    steps.time("newest 50 entries of one person", size, lambda: store.audit.newest(50, actor_id=oldest), tries=1)
    numbers = iter(drawn.sample(range(before, size), _TRIES))
    steps.time("withdraw one consent", size, lambda: store.consents.withdraw(digest_of(consent_of(next(numbers)))))
    left = iter(added)
    steps.time("erase one person", size, lambda: store.erase(next(left)), note="few blobs in the store")


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
                method="ugc",
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
        method="ugc",
        r_opening=share,
        motion=ShotMotion(silence_opening=0.1, opening_spread=0.9, width_spread=0.8, fastest_step=1.0),
        appearance=ShotAppearance(tint_alarms=share, nostril_alarms=0.0, low_contrast=0.0, popping=1.0, face_distance=0.2),
        finish=ShotFinish(lateness_ms=8.0, sync_confidence=2.0, still_share=0.0, seam=0.001, flicker=0.001),
        frame_rate="25/1",
    )


def write_files(place: str, contents: Mapping[str, bytes]) -> None:
    """Write files of a store of batches in bulk, without waiting for the disk.

    Args:
        place: folder or URL of the store.
        contents: contents by path.
    """
    if place.startswith("s3://"):
        from s3fs import S3FileSystem

        files, paths = S3FileSystem(), list(contents)
        for piece in _pieces(0, len(paths), 100):
            files.pipe({f"{place}/{paths[index]}": contents[paths[index]] for index in piece})
        return
    for folder in {os.path.dirname(path) for path in contents}:
        os.makedirs(f"{place}/{folder}", exist_ok=True)
    for path, content in contents.items():
        Path(place, path).write_bytes(content)


def fill_records(place: str, name: str, shots: Sequence[ShotSpec]) -> None:
    """Write the records of ended shots in bulk."""
    write_files(place, {record_path(name, shot.id): json_of(ended_record(shot, row)) for row, shot in enumerate(shots)})


def fill_decisions(place: str, name: str, shots: Sequence[ShotSpec]) -> None:
    """Write a decision about each shot in bulk."""
    made = [_approval(shot) for shot in shots]
    write_files(place, {decision_path(name, decision): json_of(decision) for decision in made})


def _approval(shot: ShotSpec) -> Decision:
    return Decision(id=shot.id, state=ReviewState.APPROVED, decided_at=_TIME, output_sha256=ended_record(shot, 0).output_sha256)


class Requests:
    """Requests to S3 since the last look, by kind."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def taken(self) -> str:
        """Return the requests since the last call as a text; empty: none."""
        found, self._seen = self._seen, Counter()
        return ", ".join(f"{number} {kind}" for kind, number in sorted(found.items()))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the requests that this process sends to S3."""
        from aiobotocore.httpsession import AIOHTTPSession

        plain = AIOHTTPSession.send

        async def counted(session: Any, request: Any) -> Any:
            self._seen["LIST" if "list-type" in request.url else request.method] += 1
            return await plain(session, request)

        AIOHTTPSession.send = counted
        try:
            yield
        finally:
            AIOHTTPSession.send = plain


async def claims(store: BatchStore, name: str, data_dir: Path, rows: Sequence[int], workers: int) -> float:
    """Let workers draw rows and do to the store what `run_shot` does about a dub. Return the seconds of all rows together."""
    queue = RowQueue(rows)

    def shot(row: int) -> None:
        spec = store.shot(name, row)
        record = store.record(name, spec.id)
        store.is_cancelled(name, spec.id)
        store.options(name, row)
        store.put(name, begun(record, "bench:1", spec.result, _TIME))
        store.put(name, ended_record(spec, row))

    async def work() -> None:
        while (row := await queue.next()) is not None:
            async with shot_lock(data_dir, f"{store.url}/{name}/{row}"):
                await asyncio.to_thread(shot, row)
            await queue.ended(row, again_in_s=None)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return time.perf_counter() - began


def measure_batch(
    steps: Steps, place: str, size: int, folder: Path, *, workers: int = WORKERS, requests: Requests | None = None
) -> None:
    """Measure one batch, of which nearly all shots have ended.

    Args:
        steps: gets the steps.
        place: folder or URL of the store of batches.
        size: number of shots.
        folder: folder for locks and reports.
        workers: workers that draw shots at once.
        requests: counts requests to S3; None: the store is a folder.
    """
    name, shots = f"night{size}", rows_of_batch(size)

    def step(what: str, work: Callable[[], object], *, tries: int = 3) -> None:
        if requests is None:
            steps.time(what, size, work, tries=tries)
            return
        requests.taken()
        began = time.perf_counter()
        work()
        steps.add(what, size, time.perf_counter() - began, requests.taken())

    manifest = manifest_of(name, shots)
    store = BatchStore(place)
    step("submit (rows checked before)", lambda: store.create(manifest, "gateway"), tries=1)
    waiting = min(size // 2, 4 * workers)
    fill_records(place, name, shots[waiting:])
    step("a new worker process finds its shot", lambda: BatchStore(place).shot(name, size - 1))
    seconds = asyncio.run(claims(store, name, folder, range(waiting), workers))
    steps.add(f"claim and end one shot, {workers} workers", size, seconds / waiting, requests.taken() if requests else "")
    index = BatchIndex(store, name)
    step("first look of the first gateway", index.shots, tries=1)
    step("first look of a further gateway, or of `batch status`", BatchIndex(BatchStore(place), name).shots, tries=1)

    def changed_look() -> None:
        store.put(name, ended_record(shots[-1], size - 1))
        index.shots()

    step("look of a gateway after a shot has ended (GetBatch)", changed_look)
    if requests is None:
        # A folder that was changed just now is listed again.
        time.sleep(QUIET_S)
        index.shots()
    step("look of a gateway while nothing is written (GetBatch)", index.shots)

    def page() -> None:
        listed = index.shots()[:PAGE]
        store.records_of(name, [shot.id for shot in listed])
        store.shots(name, range(PAGE))
        store.thumbnails(name, [shot.id for shot in listed])

    step(f"page of {PAGE} shots (ListShots)", page)
    fill_decisions(place, name, shots[: size // 10])
    decided = iter(shots[waiting:])
    step("review one shot, a tenth of the shots decided before", lambda: store.decide(name, _approval(next(decided))))

    def report() -> None:
        whole = BatchStore(place)
        records = whole.records(name)
        decisions = present(records, whole.last_decisions(name))
        target = folder / f"report{size}"
        write_report(whole.facts(name), whole.manifest(name), records, decisions, lambda _: None, target)
        shutil.rmtree(target)

    step("report, without pictures", report, tries=1)
    # The batch is old enough to expire, so that its records are looked at.
    old = store.facts(name).model_copy(update={"created_at": "2020-01-01T00:00:00Z"})
    write_files(place, {facts_path(name): json_of(old)})
    settings = load_settings(GatewaySettings, data_dir=folder / "data", batches_url=place)
    step("hourly look at an old batch", lambda: expire_batches(settings, lambda _: True), tries=1)
    step("remove", lambda: BatchStore(place).remove(name), tries=1)


def measure_shots(
    sizes: Sequence[int], bucket_sizes: Sequence[int], batches: tuple[int, int], folder: Path, workers: int = WORKERS
) -> list[Step]:
    """Measure batches in a folder and on S3.

    Args:
        sizes: numbers of shots of a batch in a folder, ascending.
        bucket_sizes: numbers of shots of a batch on S3, ascending; none: S3 is left out.
        batches: number of batches side by side, and shots of each.
        folder: empty folder.
        workers: workers that draw shots at once.
    """
    steps = Steps("shots, folder")
    for size in sizes:
        measure_batch(steps, str(folder / "batches"), size, folder, workers=workers)
    found = steps.found + _measure_batches(str(folder / "many"), *batches, folder)
    if bucket_sizes:
        steps, requests = Steps("shots, S3"), Requests()
        with _bucket() as url, requests.counting():
            for size in bucket_sizes:
                measure_batch(steps, url, size, folder, workers=workers, requests=requests)
        found += steps.found
    return found


def _measure_batches(place: str, number: int, rows: int, folder: Path) -> list[Step]:
    """Measure looks at many batches side by side, against looks at a tenth of them."""
    steps, store, shots = Steps(f"batches of {rows} shots, folder"), BatchStore(place), rows_of_batch(rows)
    settings = load_settings(GatewaySettings, data_dir=folder / "data", batches_url=place)
    before = 0
    for most in (max(1, number // 10), number):
        for one in range(before, most):
            store.create(manifest_of(f"night{one}", shots), "gateway")
            fill_records(place, f"night{one}", shots)
        before = most
        steps.time("list of the batches (ListBatches)", most, store.batches)
        steps.time("whether a batch has written a video (`has_written`)", most, lambda: store.has_written("/out/none.mov"), tries=3)
        steps.time("hourly look for old batches, none is old", most, lambda: expire_batches(settings, lambda _: True), tries=3)
    return steps.found


@contextmanager
def _bucket() -> Iterator[str]:
    """Give the URL of a folder in a bucket of moto, which runs in a process of its own as for the tests."""
    from tests.contract.stores.s3_servers import BUCKET, KEY, SECRET, running_s3

    with running_s3() as server:
        given = {"AWS_ENDPOINT_URL": server.endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        before = {name: os.environ.get(name) for name in given}
        os.environ.update(given)
        try:
            yield f"s3://{BUCKET}/batches"
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


# Video


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that a long video comes near.

    Attributes:
        subject: what is limited.
        needed, most: what the video needs and what is allowed, in `unit`.
        unit: unit of both.
        remedy: setting that raises the limit, or what to do.
    """

    subject: str
    needed: float
    most: float
    unit: str
    remedy: str

    @property
    def share(self) -> float:
        """Part of the limit that the video takes; more than 1: the video does not fit."""
        return self.needed / self.most


@dataclass(frozen=True, kw_only=True, slots=True)
class LongVideo:
    """Time, memory and bytes that a long video takes, and the limits that the video meets.

    Attributes:
        frames, width, height, length_hours: the video.
        processor_hours: processor hours of one dub.
        hours: hours of one dub, which runs on one machine of two processors.
        memory_bytes: largest memory of a process that runs the stages too.
        tracking_calls: calls of the face stage, each up to near the deadline of a call.
        windows: rendered windows, and entries of the journal.
        hours_of_machines: hours of the same video as shots of a batch, by number of machines of two processors that each dub shots.
        planned_replicas: replicas that `dubstage plan` gives for the video in ten hours. Its figures are of 1280 x 720.
        scratch_bytes: records of the job; with a timeline of the dub's own the background video too.
        store_bytes: rendered mouths in the artefact store, by pixels of the footage per pixel of the render box.
        video_bytes: the least bytes of the dubbed video, by codec.
        limits: limits, the one that is met first at the top.
    """

    frames: int
    width: int
    height: int
    length_hours: float
    processor_hours: float
    hours: float
    memory_bytes: int
    tracking_calls: int
    windows: int
    hours_of_machines: dict[int, float]
    planned_replicas: dict[str, int]
    scratch_bytes: dict[str, int]
    store_bytes: dict[int, int]
    video_bytes: dict[str, int]
    limits: tuple[Limit, ...]


def described(width: int, height: int, frames: int, rate: Fraction) -> MediaInfo:
    """Return the description that an inspection of such footage gives: 10 bits, 4:2:0, stereo."""
    times = np.arange(frames, dtype=np.int64)
    video = VideoInfo(
        index=0,
        codec="hevc",
        stored_format="yuv420p10le",
        pixel=pixel_format("yuv420p10le"),
        orientation=Orientation(width, height),
        colour=ColourTags(),
        time_base=1 / rate,
        average_rate=rate,
        pts=times,
        last_duration=1,
        field_order="progressive",
        metadata={},
    )
    sound = AudioInfo(1, "aac", 48_000, 2, "stereo", Fraction(0), {})
    return MediaInfo(path=Path("video.mp4"), container="mp4", video=video, audio=(sound,), others=(), metadata={})


def plan_video(info: MediaInfo, settings: GatewaySettings, *, scale: int, mbit_s: float) -> LongVideo:
    """Return what a video takes, by the functions of `dubstage plan`.

    Args:
        info: the video. Every frame shows one face.
        settings: limits.
        scale: pixels of the footage per pixel of the render box, 1 to 4.
        mbit_s: rate of the footage's file, Mbit/s.
    """
    video, folder = info.video, Path("/")
    frames, seconds = video.num_frames, float(video.duration)
    work = DubWork(
        method=DEFAULT_METHOD,
        pixels=video.width * video.height,
        footage_frames=frames,
        frames=frames,
        rendered=frames,
        scale=scale,
        own_timeline=False,
        personalized=1,
    )
    motion = int(video.duration * MOTION_RATE)
    records = {
        name: records_need(folder, frames, motion, own_sound=True, keeps_expression=True, background=background, used=0).num_bytes
        for name, background in (("in place", None), ("own timeline", own_timeline(info, frames).video))
    }
    mouths = {factor: windows_need(folder, frames, factor, 0).num_bytes for factor in (1, 2, 3, 4)}
    codecs = ("h264", "hevc", "av1", "prores", "dnxhr", "ffv1")
    written = {codec: video_need(folder / "video.mp4", codec, video).num_bytes for codec in codecs}
    load = PlannedLoad(
        live_streams=0,
        video_hours=seconds / 3600,
        night_hours=10.0,
        fps=float(video.average_rate),
        method=DEFAULT_METHOD,
        scale=scale,
        megapixels=work.pixels / 1e6,
    )
    (track,) = (step for step in enrolment_steps(method_named(DEFAULT_METHOD), skip=True) if step.name == "track")
    tracking_s = track.seconds(frames, work.pixels / 1e6)
    file_bytes = mbit_s * 1e6 / 8 * seconds
    limits = [
        Limit("one PUT to a signed URL", file_bytes, MOST_BYTES, "bytes", "UploadFile, or name a file of the bucket"),
        Limit("uploads of a tenant", file_bytes, settings.uploads_max_bytes, "bytes", "DUBSTAGE_UPLOADS_MAX_BYTES"),
        Limit("file that a worker fetches from a URL", file_bytes, settings.max_job_bytes, "bytes", "DUBSTAGE_MAX_JOB_BYTES"),
        Limit("records of a job", records["in place"], settings.max_job_bytes, "bytes", "DUBSTAGE_MAX_JOB_BYTES"),
        Limit("records and background video", records["own timeline"], settings.max_job_bytes, "bytes", "DUBSTAGE_MAX_JOB_BYTES"),
        Limit("backgrounds of predicted head motion", max(frames, motion), backgrounds.MAX_FRAMES, "frames", "cut into shots"),
        Limit("retiming (--fit retime)", frames * motion, select_frames.MAX_STATES, "pairs of frames", "cut into shots"),
        Limit("boxes of a face, one per frame", frames, MOST_BOXES, "boxes", "a box for every 20th frame"),
        Limit("length", seconds, MAX_VIDEO_S, "s", "cut into shots"),
        Limit("frames", frames, MAX_FRAMES, "frames", "cut into shots"),
        Limit("side of the picture", max(video.width, video.height), MAX_SIDE, "pixels", "smaller footage"),
    ]
    return LongVideo(
        frames=frames,
        width=video.width,
        height=video.height,
        length_hours=seconds / 3600,
        processor_hours=work.processor_s / 3600,
        hours=work.wall_s / 3600,
        memory_bytes=work.memory_bytes,
        tracking_calls=math.ceil(tracking_s / (NEARLY_OVER * settings.stage_deadline_s)),
        windows=math.ceil(frames / WINDOW_FRAMES),
        hours_of_machines={number: work.processor_s / 3600 / (number * PROCESSORS * VIDEO_USE) for number in MACHINES},
        planned_replicas={need.stage: need.replicas for need in needs(read_figures(FIGURES), load, PROCESSORS)},
        scratch_bytes=records,
        store_bytes=mouths,
        video_bytes=written,
        limits=tuple(sorted(limits, key=lambda one: -one.share)),
    )


# Output


def line_of_step(step: Step) -> str:
    """Return one line about a step."""
    note = f"; {step.note}" if step.note else ""
    return f"{step.part}: {step.step}, {step.size}: {step.ms:.2f} ms ({step.ratio:.1f} times the first){note}"


def table_of_steps(steps: Sequence[Step]) -> Table:
    """Return a table with a row for each step, and a column for each size in order."""
    table = Table("part", "step", "sizes", "ms", "times the smallest", "note")
    rows: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        rows.setdefault((step.part, step.step), []).append(step)
    for (part, name), found in rows.items():
        sizes, times, ratios = ([form(step) for step in found] for form in _CELLS)
        table.add_row(part, name, "\n".join(sizes), "\n".join(times), "\n".join(ratios), "\n".join(step.note for step in found))
    return table


_CELLS: Final[tuple[Callable[[Step], str], ...]] = (
    lambda step: f"{step.size:,}",
    lambda step: f"{step.ms:,.2f}",
    lambda step: f"{step.ratio:.1f}",
)


def table_of_limits(video: LongVideo) -> Table:
    """Return a table of the limits of a video, the one that is met first at the top."""
    table = Table("limit", "needed", "allowed", "unit", "part of the limit", "remedy")
    for limit in video.limits:
        table.add_row(limit.subject, f"{limit.needed:.4g}", f"{limit.most:.4g}", limit.unit, f"{limit.share:.2f}", limit.remedy)
    return table


def lines_of_video(video: LongVideo) -> list[str]:
    """Return lines about a video for the terminal."""
    machines = ", ".join(f"{number}: {hours:.1f} h" for number, hours in video.hours_of_machines.items())
    written = ", ".join(f"{codec} {size / 1e9:.0f} GB" for codec, size in video.video_bytes.items())
    return [
        f"{video.length_hours:.2f} h of {video.width} x {video.height}, {video.frames} frames: one dub {video.hours:.1f} h, "
        f"{video.processor_hours:.1f} h of processor, {video.memory_bytes / 1e9:.1f} GB of memory; {video.tracking_calls} calls of "
        f"the face stage, {video.windows} windows",
        f"as shots of a batch, by machines of two processors: {machines}; `dubstage plan` (1280 x 720): {video.planned_replicas}",
        ", ".join(f"records {name} {size / 1e9:.1f} GB" for name, size in video.scratch_bytes.items())
        + "; mouths in the artefact store "
        + ", ".join(f"scale {scale} {size / 1e9:.0f} GB" for scale, size in video.store_bytes.items()),
        f"video, at least, with the encoded pictures beside it: {written}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all parts, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.scale", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=("actors", "shots", "video"), default=("actors", "shots", "video"))
    parser.add_argument("--actors", type=int, nargs="+", default=ACTORS, help="numbers of actors. Default: %(default)s.")
    parser.add_argument("--shots", type=int, nargs="*", default=SHOTS, help="numbers of shots in a folder. Default: %(default)s.")
    parser.add_argument(
        "--bucket-shots", type=int, nargs="*", default=BUCKET_SHOTS, help="as --shots, on S3. Default: %(default)s."
    )
    parser.add_argument("--batches", type=int, nargs=2, default=BATCHES, help="batches, and shots of each. Default: %(default)s.")
    parser.add_argument("--workers", type=int, default=WORKERS, help="workers of a batch. Default: %(default)s.")
    parser.add_argument("--mbit", type=float, default=100.0, help="rate of the footage of the video, Mbit/s. Default: %(default)s.")
    parser.add_argument("--scale", type=int, default=3, choices=(1, 2, 3, 4), help="width of the face, as `dubstage plan --scale`")
    parser.add_argument("--database-url", default="", help="an empty PostgreSQL. Default: SQLite in a temporary folder.")
    parser.add_argument("--json", type=Path, help="file for all results")
    options = parser.parse_args(arguments)
    steps: list[Step] = []
    video: LongVideo | None = None
    with tempfile.TemporaryDirectory(prefix="dubstage-scale-") as folder:
        if "actors" in options.parts:
            steps += measure_actors(options.actors, Path(folder, "actors"), options.database_url)
        if "shots" in options.parts:
            steps += measure_shots(options.shots, options.bucket_shots, (*options.batches,), Path(folder, "shots"), options.workers)
    if "video" in options.parts:
        info = described(3840, 2160, 172_800, Fraction(24))
        video = plan_video(info, load_settings(GatewaySettings), scale=options.scale, mbit_s=options.mbit)
    console = Console(width=180)
    if steps:
        console.print(table_of_steps(steps))
    if video is not None:
        for line in lines_of_video(video):
            console.print(line)
        console.print(table_of_limits(video))
    if options.json is not None:
        found = {"steps": [asdict(step) for step in steps], "video": asdict(video) if video is not None else None}
        options.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
