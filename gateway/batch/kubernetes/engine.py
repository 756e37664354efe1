"""The engine: batches as Jobs of a cluster, after a check that pods can open every file. All functions block."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final

from gateway.batch.kubernetes.cluster import Cluster, Timing, connect, follow
from gateway.batch.kubernetes.jobs import (
    BATCH_LABEL,
    MANIFEST_ANNOTATION,
    ROWS_ANNOTATION,
    BatchPlan,
    JobState,
    PodEnd,
    job_of,
    job_state,
    jobs_of,
    merged,
    pod_ends,
    shards_of,
    waiting_notes,
)
from gateway.batch.kubernetes.settings import JobSettings, Object, read_settings
from gateway.batch.store import BatchStore
from gateway.batch.types import ENDED, TO_RETRY, BatchFacts, ShotRecord, ShotSpec, ShotState
from gateway.media.locations import is_url
from gateway.times import now_ms
from services.common.errors import ClusterRefusedError, DubstageError, InvalidRequestError
from services.common.texts import Command, Option, Text

DETAILS: Final = "kubernetes"
"""Key of the plan in the details of a batch."""
CONFIG_MAP: Final = "dubstage-batch"
"""ConfigMap of a release with the name dubstage."""
_DATABASE: Final = "DUBSTAGE_DATABASE_URL"
_MOST_PODS: Final = 500
_LEAST_PAUSE_S: Final = 1.0
"""Least time between two snapshots of a watch while nothing has ended, seconds."""


def check_reach(shots: Iterable[ShotSpec], settings: JobSettings) -> None:
    """Check that the workers of a cluster can reach the files that a batch names.

    Raises:
        InvalidRequestError: a file lies outside of the volumes of the pods. The message names the first row and the remedy.
    """
    mounts = [PurePosixPath(mount["mountPath"]) for mount in settings.volume_mounts]
    volumes = f"a file below {', '.join(map(str, mounts))}" if mounts else "mount a volume (batch.extraVolumes of the chart)"
    wrong: list[str] = []
    for row, shot in enumerate(shots):
        for field_name, uri in shot.uris.items():
            if not is_url(uri) and not any(PurePosixPath(uri).is_relative_to(mount) for mount in mounts):
                wrong.append(
                    f"row {row + 1} ({shot.id}): {field_name}: {uri} is a file that pods cannot open: give a URL such as "
                    f"s3://BUCKET/KEY, or {volumes}"
                )
    if wrong:
        more = f" ({len(wrong) - 1} more of the kind)" if len(wrong) > 1 else ""
        raise InvalidRequestError(wrong[0] + more, field="manifest")


def check_database(store: BatchStore, settings: JobSettings, profile: str) -> None:
    """Check that the workers of a cluster can reach the database of a batch.

    Raises:
        InvalidRequestError: the batch lies in a SQLite file, or the workers have no URL of a database.
    """
    if not store.is_shared:
        raise InvalidRequestError(
            f"{_DATABASE}: pods cannot reach the batch in {store.where}: set {_DATABASE} here to the PostgreSQL that "
            "gateway.database of the chart names",
            field="database_url",
        )
    if _DATABASE not in {item["name"] for item in (*settings.env, *settings.profile(profile).env)}:
        raise InvalidRequestError(
            "the workers of the cluster have no database: set gateway.database of the chart", field="config_map"
        )


@dataclass(frozen=True, slots=True)
class Submitted:
    """Request of a submission or a retry to the cluster.

    Attributes:
        jobs: names of the Jobs that now exist for it; empty: there was nothing to do.
        rows: number of shots in these Jobs.
    """

    jobs: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of a batch at one moment.

    Attributes:
        left: records of the shots that have not ended, by row.
        jobs: the Jobs of the batch that the cluster has, the newest last.
        notes: why something waits or is missing, each a line for a person.
    """

    left: Mapping[int, ShotRecord]
    jobs: tuple[JobState, ...]
    notes: tuple[str, ...]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen: every shot has ended, or no Job works on the batch."""
        return not self.left or not any(job.live for job in self.jobs)


def open_engine(namespace: str = "", context: str = "") -> KubernetesEngine:
    """Return the engine for a namespace of a cluster. See `connect` for the arguments and errors."""
    return KubernetesEngine(connect(namespace, context))


def open_engine_of(facts: BatchFacts) -> KubernetesEngine:
    """Return the engine for a batch that was submitted before: in its namespace and context."""
    plan = _plan_of(facts)
    return open_engine(plan.namespace, plan.context)


def was_sent(facts: BatchFacts) -> bool:
    """Return whether a batch was sent to a cluster, so that there may be Jobs."""
    return DETAILS in facts.details


def _plan_of(facts: BatchFacts) -> BatchPlan:
    if not was_sent(facts):
        raise InvalidRequestError(
            Text(
                "batch {name} has not been sent to a cluster: {submit} with {engine} kubernetes sends it",
                name=facts.name,
                submit=Command("batch submit"),
                engine=Option("engine"),
            ),
            field="name",
        )
    return BatchPlan.of(facts.details[DETAILS])


@dataclass(frozen=True, slots=True)
class KubernetesEngine:
    """Batches as Jobs of one namespace."""

    cluster: Cluster
    timing: Timing = field(default_factory=Timing)

    def check(self, shots: Iterable[ShotSpec], store: BatchStore, *, profile: str = "cpu", config_map: str = CONFIG_MAP) -> None:
        """Check that the pods of this cluster can work on shots, before there is a batch of them.

        Raises:
            InvalidRequestError: the profile, the ConfigMap, the namespace or a file of a row is wrong.
            ClusterRefusedError, UnauthenticatedError, BackendUnavailableError, OverloadedError, StageDeadlineExceededError: as
                `submit`.
        """
        self._checked(shots, store, profile, config_map)

    def submit(
        self, store: BatchStore, name: str, *, profile: str = "cpu", workers: int = 0, config_map: str = CONFIG_MAP
    ) -> Submitted:
        """Send a batch of the store to the cluster. Sending it again continues it: only shots that no Job works on get a Job.

        Args:
            store: store of batches that the workers read too.
            name: name of the batch.
            profile: kind of pods, as the settings of the cluster name them.
            workers: pods at the same time; 0: as the settings say.
            config_map: ConfigMap with the settings.

        Raises:
            InvalidRequestError: the profile, the ConfigMap, the namespace or a file of a row is wrong.
            ClusterRefusedError: the cluster refuses, or has a Job of this name from another batch.
            UnauthenticatedError: the cluster does not know the caller.
            BackendUnavailableError, OverloadedError, StageDeadlineExceededError: the cluster does not answer.
        """
        facts = store.facts(name)
        settings = self._checked(store.manifest(name), store, profile, config_map)
        asked = BatchPlan(self.cluster.namespace, self.cluster.context, config_map, profile, workers)
        plan = _plan_of(facts) if was_sent(facts) else asked
        if plan.namespace != self.cluster.namespace:
            raise InvalidRequestError(
                Text(
                    "batch {name} was sent to namespace {namespace}: give {option} {namespace}, or another {batch}",
                    name=name,
                    namespace=plan.namespace,
                    option=Option("namespace"),
                    batch=Option("batch_id"),
                ),
                field="namespace",
            )
        listed = self._listed(name)
        worked_on = {row for job in listed if job.manifest_sha256 == facts.manifest_sha256 for row in job.open_rows()}
        rows = [row for row in store.left(name) if row not in worked_on]
        if not rows:
            return Submitted((), 0)
        return self._start(store, facts, replace(asked, rounds=plan.rounds), settings, rows, listed=listed)

    def snapshot(self, store: BatchStore, name: str) -> Snapshot:
        """Return the state of a batch. Shots that the cluster gave up are marked as failed in the store."""
        return self._snapshot(store, name, self._listed(name))

    def watch(self, store: BatchStore, name: str) -> Iterator[Snapshot]:
        """Yield the state of a batch after each change, and at least every 15 s, until nothing more will happen.

        Lost connections are made again, and a look that gets no answer from the store or from the cluster is repeated. See `follow`
        for the errors.
        """
        shown, answered = 0.0, time.monotonic()
        for jobs in follow(self.cluster, _selector(name), self.timing):
            listed = _states(jobs.values())
            if any(job.live for job in listed) and time.monotonic() - shown < _LEAST_PAUSE_S:
                continue
            try:
                snapshot = self._snapshot(store, name, listed)
            except DubstageError as error:
                if not error.retryable or time.monotonic() - answered > self.timing.patience_s:
                    raise
                continue
            yield snapshot
            if snapshot.ended:
                return
            shown = answered = time.monotonic()

    def cancel(self, store: BatchStore, name: str, ids: Sequence[str] = ()) -> int:
        """Cancel shots, or the whole batch, and return how many shots were marked.

        Single shots are marked in the store: workers see the mark. For the whole batch the Jobs are removed too, after their pods.

        Raises:
            BatchNotFoundError: the batch has no such shot.
        """
        marked = store.cancel(name, ids)
        if not ids:
            for job in self._jobs(store.facts(name)):
                if job.live:
                    self.cluster.delete_job(job.name)
        return marked

    def remove_jobs(self, facts: BatchFacts) -> None:
        """Remove the Jobs of a batch whose shots have all ended.

        Raises:
            ClusterRefusedError, UnauthenticatedError, BackendUnavailableError, OverloadedError, StageDeadlineExceededError: as
                `submit`.
        """
        for job in self._jobs(facts):
            self.cluster.delete_job(job.name)

    def retry(self, store: BatchStore, name: str, ids: Sequence[str] = (), *, workers: int = 0) -> Submitted:
        """Let shots that have ended begin anew, in new Jobs.

        Args:
            store: store of batches.
            name: name of the batch.
            ids: the shots; empty: all in TO_RETRY.
            workers: pods at the same time; 0: as the batch was sent.

        Raises:
            BatchNotFoundError: the batch has no such shot.
            InvalidRequestError: a shot has not ended.
        """
        facts = store.facts(name)
        plan = _plan_of(facts)
        plan = replace(plan, workers=workers or plan.workers)
        settings = read_settings(self.cluster.config_map(plan.config_map), plan.config_map)
        snapshot = self.snapshot(store, name)
        going = {record.id for record in snapshot.left.values()}
        if wrong := [shot for shot in ids if shot in going]:
            state = store.record(name, wrong[0]).state
            raise InvalidRequestError(f"shot {wrong[0]} is {state}: wait until it has ended, or cancel it first", field="id")
        chosen = list(ids or store.ids(name, TO_RETRY))
        rows = store.rows_of(name, chosen)
        worked_on = {row for job in snapshot.jobs for row in job.open_rows()}
        left = [rows[shot] for shot in chosen if rows[shot] not in worked_on]
        if not left:
            store.reset(name, chosen)
            return Submitted((), 0)
        return self._start(store, facts, plan, settings, left, listed=snapshot.jobs, anew=chosen)

    def _checked(self, shots: Iterable[ShotSpec], store: BatchStore, profile: str, config_map: str) -> JobSettings:
        settings = read_settings(self.cluster.config_map(config_map), config_map)
        check_database(store, settings, profile)
        check_reach(shots, settings)
        return settings

    def _start(
        self,
        store: BatchStore,
        facts: BatchFacts,
        plan: BatchPlan,
        settings: JobSettings,
        rows: Sequence[int],
        *,
        listed: Sequence[JobState],
        anew: Sequence[str] = (),
    ) -> Submitted:
        """Create the Jobs of a new round, and let the shots `anew` begin anew.

        The plan is stored first, so that a submission that is cut can be continued. The shots are reset after the plan is stored
        and before the Jobs exist: otherwise a watcher would see them without their new Job and mark them as failed again.

        Args:
            store: store of batches.
            facts: the batch.
            plan: the plan, without the new round.
            settings: settings of the cluster.
            rows: rows of the new Jobs.
            listed: the Jobs that the cluster has.
            anew: ids of shots.
        """
        name, profile, shards = facts.name, settings.profile(plan.profile), shards_of(rows)
        # A batch of this name that was removed may have left Jobs that have ended or end now. Their names are not used again.
        taken = [job.key[0] + 1 for job in listed if job.manifest_sha256 == facts.manifest_sha256 or not job.live]
        turn = max(len(plan.rounds), *taken, 0)
        while True:
            unused = ((),) * (turn - len(plan.rounds))
            plan = replace(plan, rounds=(*plan.rounds, *unused, shards))
            store.set_details(name, {**facts.details, DETAILS: plan.details()})
            if anew:
                store.reset(name, anew)
            wanted = jobs_of(name, facts.manifest_sha256, turn, shards, plan.workers or settings.parallelism)
            names = self._create([job_of(job, settings, profile, self.cluster.namespace) for job in wanted])
            if names:
                return Submitted(names, sum(map(len, shards)))
            # Another retry of the batch was faster, and has taken the round for its rows.
            facts = store.facts(name)
            plan = replace(plan, rounds=_plan_of(facts).rounds)
            turn = max(turn + 1, len(plan.rounds))

    def _create(self, bodies: Sequence[Object]) -> tuple[str, ...]:
        """Create the Jobs of a round, and return their names; empty: another retry of the batch has taken the round."""
        names: list[str] = []
        for body in bodies:
            try:
                if not self.cluster.create_job(body) and not self._is_same(body):
                    return ()
            except DubstageError as error:
                error.add(f"({len(names)} of {len(bodies)} Jobs were created; submit the batch again to continue)")
                raise
            names.append(body["metadata"]["name"])
        return tuple(names)

    def _is_same(self, body: Object) -> bool:
        """Return whether a Job that exists already is the one that was to be created: another submission was faster.

        Raises:
            ClusterRefusedError: the Job is one of another batch.
        """
        name, wanted = body["metadata"]["name"], body["metadata"]["annotations"]
        annotations = self.cluster.job(name)["metadata"].get("annotations") or {}
        if annotations.get(MANIFEST_ANNOTATION) != wanted[MANIFEST_ANNOTATION]:
            raise ClusterRefusedError(
                Text(
                    "namespace {namespace} has a Job {job} of another batch: choose another {batch}, or remove that Job: "
                    "kubectl -n {namespace} delete job {job}",
                    namespace=self.cluster.namespace,
                    job=name,
                    batch=Option("batch_id"),
                ),
                subject=name,
            )
        return bool(annotations.get(ROWS_ANNOTATION) == wanted[ROWS_ANNOTATION])

    def _jobs(self, facts: BatchFacts) -> list[JobState]:
        return [job for job in self._listed(facts.name) if job.manifest_sha256 == facts.manifest_sha256]

    def _listed(self, name: str) -> list[JobState]:
        """Return the Jobs with the label of a batch. A batch of the name that was removed may have left some."""
        return _states(self.cluster.jobs(_selector(name))[0])

    def _snapshot(self, store: BatchStore, name: str, listed: Sequence[JobState]) -> Snapshot:
        # After the Jobs, for a worker writes its record before its pod ends.
        left = store.left(name)
        # After the records, for a retry stores its plan before it resets records.
        facts = store.facts(name)
        newest = _plan_of(facts).newest_job()
        jobs = [job for job in listed if job.manifest_sha256 == facts.manifest_sha256]
        for job in jobs:
            # The plan of one of two retries at once is stored. The Jobs know the rows of the other.
            newest |= {row: max(job.key, newest.get(row, job.key)) for row in job.rows}
        ends = self._ends(name, jobs, left)
        by_key = {job.key: job for job in jobs}
        records = merged(left, by_key, newest, ends, store.cancelled(name), now_ms())
        for row, record in records.items():
            # The cluster took its time to answer: a record that a worker or a retry has written meanwhile stays.
            if record is not left[row]:
                store.put(name, record, before=left[row])
        left = {row: record for row, record in records.items() if record.state not in ENDED}
        notes = [*self._waiting(name, jobs, left), *(f"Job {job.name}: {job.error}" for job in jobs if job.error)]
        worked_on = {row for job in jobs for row in job.open_rows()}
        if lost := len(left.keys() - worked_on):
            notes.append(f"{lost} shots have no Job in the cluster: submit the batch again to continue")
        return Snapshot(left, tuple(jobs), tuple(notes))

    def _ends(self, name: str, jobs: Sequence[JobState], left: Mapping[int, ShotRecord]) -> dict[tuple[str, int], PodEnd]:
        """Return how pods ended, by Job and row. The cluster is asked only if it gave up a row without a record of the reason."""
        if all(row not in left for job in jobs for row in job.failed):
            return {}
        by_name = {job.name: job for job in jobs}
        ends = pod_ends(self.cluster.pods(_selector(name), "Failed", _MOST_PODS))
        return {(job, by_name[job].rows[index]): end for (job, index), end in ends.items() if job in by_name}

    def _waiting(self, name: str, jobs: Sequence[JobState], left: Mapping[int, ShotRecord]) -> list[str]:
        notes = [
            f"Job {job.name} is suspended: its queue has no room yet, or a person stopped it"
            for job in jobs
            if job.suspended and job.live
        ]
        started = sum(record.state is ShotState.RUNNING for record in left.values())
        if sum(job.active for job in jobs) > started:
            notes += waiting_notes(self.cluster.pods(_selector(name), "Pending", _MOST_PODS))
        return notes


def _selector(name: str) -> str:
    return f"{BATCH_LABEL}={name}"


def _states(jobs: Iterable[Object]) -> list[JobState]:
    return sorted((job_state(job) for job in jobs), key=lambda job: job.key)
