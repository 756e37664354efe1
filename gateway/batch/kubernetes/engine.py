"""The engine: batches as Jobs of a cluster. All functions block."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from gateway.batch.kubernetes.cluster import Cluster, connect
from gateway.batch.kubernetes.follow import Timing, follow
from gateway.batch.kubernetes.job_plan import BatchPlan, jobs_of, shards_of
from gateway.batch.kubernetes.job_spec import BATCH_LABEL, MANIFEST_ANNOTATION, ROWS_ANNOTATION, job_of
from gateway.batch.kubernetes.job_state import JobState, job_state, merged
from gateway.batch.kubernetes.locations import check_reach
from gateway.batch.kubernetes.pod_state import PodEnd, pod_ends, waiting_notes
from gateway.batch.kubernetes.settings import JobSettings, Object, read_settings
from gateway.batch.store import BatchStore
from gateway.batch.transitions import present_time
from gateway.batch.types import ENDED, BatchFacts, ShotRecord, ShotState
from services.common.errors import ClusterRefused, DubstageError, InvalidRequest

DETAILS: Final = "kubernetes"
"""Key of the plan in the details of a batch."""
CONFIG_MAP: Final = "dubstage-batch"
"""ConfigMap of a release with the name dubstage."""
_MOST_PODS: Final = 500
_LEAST_PAUSE_S: Final = 1.0
"""Least time between two snapshots of a watch while nothing has ended, seconds."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What a submission or a retry asked of the cluster.

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
        records: records of all shots in row order, with what the cluster knows.
        jobs: the Jobs of the batch that the cluster has, the newest last.
        notes: why something waits or is missing, each a line for a person.
    """

    records: tuple[ShotRecord, ...]
    jobs: tuple[JobState, ...]
    notes: tuple[str, ...]

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen: every shot has ended, or no Job works on the batch."""
        return all(record.state in ENDED for record in self.records) or not any(job.live for job in self.jobs)


def open_engine(namespace: str = "", context: str = "") -> KubernetesEngine:
    """Return the engine for a namespace of a cluster. See `connect` for the arguments and errors."""
    return KubernetesEngine(connect(namespace, context))


def open_engine_of(facts: BatchFacts) -> KubernetesEngine:
    """Return the engine for a batch that was submitted before: in its namespace and context."""
    plan = _plan_of(facts)
    return open_engine(plan.namespace, plan.context)


def _plan_of(facts: BatchFacts) -> BatchPlan:
    if DETAILS not in facts.details:
        raise InvalidRequest(
            f"batch {facts.name} has not been sent to a cluster: `dubstage batch submit ... --engine kubernetes`", field="name"
        )
    return BatchPlan.of(facts.details[DETAILS])


@dataclass(frozen=True, slots=True)
class KubernetesEngine:
    """Batches as Jobs of one namespace."""

    cluster: Cluster
    timing: Timing = field(default_factory=Timing)

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
            InvalidRequest: the profile, the ConfigMap, the namespace or a file of a row is wrong.
            ClusterRefused: the cluster refuses, or has a Job of this name from another batch.
            Unauthenticated: the cluster does not know the caller.
            BackendUnavailable, Overloaded, StageDeadlineExceeded: the cluster does not answer.
        """
        facts = store.facts(name)
        settings = read_settings(self.cluster.config_map(config_map), config_map)
        check_reach(store.manifest(name), settings, profile, store.url)
        asked = BatchPlan(self.cluster.namespace, self.cluster.context, config_map, profile, workers)
        plan = _plan_of(facts) if DETAILS in facts.details else asked
        if plan.namespace != self.cluster.namespace:
            raise InvalidRequest(
                f"batch {name} was sent to namespace {plan.namespace}: give --namespace {plan.namespace}, or another --name",
                field="namespace",
            )
        worked_on = {row for job in self._jobs(name) for row in job.open_rows()}
        records = store.records(name)
        rows = [row for row, record in enumerate(records) if record.state not in ENDED and row not in worked_on]
        if not rows:
            return Submitted((), 0)
        return self._start(store, facts, replace(asked, rounds=plan.rounds), settings, rows)

    def snapshot(self, store: BatchStore, name: str) -> Snapshot:
        """Return the state of a batch. Shots that the cluster gave up are marked as failed in the store."""
        return self._snapshot(store, name, self._jobs(name))

    def watch(self, store: BatchStore, name: str) -> Iterator[Snapshot]:
        """Yield the state of a batch after each change, and at least every 15 s, until nothing more will happen.

        Lost connections are made again. See `follow` for the errors.
        """
        told = 0.0
        for found in follow(self.cluster, _selector(name), self.timing):
            jobs = _states(found.values())
            if any(job.live for job in jobs) and time.monotonic() - told < _LEAST_PAUSE_S:
                continue
            snapshot = self._snapshot(store, name, jobs)
            yield snapshot
            if snapshot.ended:
                return
            told = time.monotonic()

    def cancel(self, store: BatchStore, name: str, ids: Sequence[str] = ()) -> int:
        """Cancel shots, or the whole batch, and return how many shots were marked.

        Single shots are marked in the store: workers see the mark. For the whole batch the Jobs are removed too, after their pods.

        Raises:
            BatchNotFound: the batch has no such shot.
        """
        records = {record.id: record for record in store.records(name)}
        chosen = [shot for shot in ids or records if shot not in records or records[shot].state not in ENDED]
        store.cancel(name, chosen)
        if not ids:
            for job in self._jobs(name):
                if job.live:
                    self.cluster.delete_job(job.name)
        return len(chosen)

    def remove_jobs(self, name: str) -> None:
        """Remove the Jobs of a batch whose shots have all ended.

        Raises:
            ClusterRefused, Unauthenticated, BackendUnavailable, Overloaded, StageDeadlineExceeded: as `submit`.
        """
        for job in self._jobs(name):
            self.cluster.delete_job(job.name)

    def retry(self, store: BatchStore, name: str, ids: Sequence[str] = ()) -> Submitted:
        """Let shots that have ended begin anew, in new Jobs.

        Args:
            store: store of batches.
            name: name of the batch.
            ids: the shots; empty: all that failed or were cancelled.

        Raises:
            BatchNotFound: the batch has no such shot.
            InvalidRequest: a shot has not ended.
        """
        facts = store.facts(name)
        plan = _plan_of(facts)
        settings = read_settings(self.cluster.config_map(plan.config_map), plan.config_map)
        snapshot = self.snapshot(store, name)
        rows = {record.id: row for row, record in enumerate(snapshot.records)}
        over = [record.id for record in snapshot.records if record.state in (ShotState.FAILED, ShotState.CANCELLED)]
        ended = {record.id for record in snapshot.records if record.state in ENDED}
        if wrong := [shot for shot in ids if shot not in ended]:
            state = store.record(name, wrong[0]).state
            raise InvalidRequest(f"shot {wrong[0]} is {state}: wait until it has ended, or cancel it first", field="id")
        chosen = list(ids or over)
        worked_on = {row for job in snapshot.jobs for row in job.open_rows()}
        left = [rows[shot] for shot in chosen if rows[shot] not in worked_on]
        if not left:
            store.reset(name, chosen)
            return Submitted((), 0)
        return self._start(store, facts, plan, settings, left, anew=chosen)

    def _start(
        self,
        store: BatchStore,
        facts: BatchFacts,
        plan: BatchPlan,
        settings: JobSettings,
        rows: Sequence[int],
        anew: Sequence[str] = (),
    ) -> Submitted:
        """Create the Jobs of a new round, and let the shots `anew` begin anew.

        The plan is stored first, so that a submission that is cut can be continued. The shots are reset after the plan is stored
        and before the Jobs exist: otherwise a watcher would see them without their new Job and mark them as failed again.
        """
        profile = settings.profile(plan.profile)
        shards, turn = shards_of(rows), len(plan.rounds)
        plan = replace(plan, rounds=(*plan.rounds, shards))
        store.set_details(facts.name, {**facts.details, DETAILS: plan.details()})
        if anew:
            store.reset(facts.name, anew)
        jobs = jobs_of(facts.name, facts.manifest_sha256, turn, shards, plan.workers or settings.parallelism)
        made: list[str] = []
        for job in jobs:
            body = job_of(job, settings, profile, self.cluster.namespace)
            try:
                if not self.cluster.create_job(body):
                    self._expect_same(body)
            except DubstageError as error:
                error.message += f" ({len(made)} of {len(jobs)} Jobs were created; submit the batch again to continue)"
                raise
            made.append(job.name)
        return Submitted(tuple(made), len(rows))

    def _expect_same(self, body: Object) -> None:
        """Check that a Job that exists already is the one that was to be made: another submission of the batch was faster."""
        name, wanted = body["metadata"]["name"], body["metadata"]["annotations"]
        found = self.cluster.job(name)["metadata"].get("annotations") or {}
        if any(found.get(key) != wanted[key] for key in (MANIFEST_ANNOTATION, ROWS_ANNOTATION)):
            raise ClusterRefused(
                f"namespace {self.cluster.namespace} has a Job {name} of another batch: choose another --name, or remove that Job: "
                f"kubectl --namespace {self.cluster.namespace} delete job {name}",
                subject=name,
            )

    def _jobs(self, name: str) -> list[JobState]:
        return _states(self.cluster.jobs(_selector(name))[0])

    def _snapshot(self, store: BatchStore, name: str, jobs: Sequence[JobState]) -> Snapshot:
        facts = store.facts(name)
        plan = _plan_of(facts)
        # After the Jobs, for a worker writes its record before its pod ends.
        records = store.records(name)
        ends = self._ends(name, jobs, records)
        newest, by_key = plan.newest_job(), {job.key: job for job in jobs}
        found = merged(records, by_key, newest, ends, store.cancelled(name), present_time())
        for before, after in zip(records, found, strict=True):
            if after is not before:
                store.put(name, after)
        notes = [*self._waiting(name, jobs, found), *(f"Job {job.name}: {job.error}" for job in jobs if job.error)]
        worked_on = {row for job in jobs for row in job.open_rows()}
        lost = sum(record.state not in ENDED and row not in worked_on for row, record in enumerate(found))
        if lost:
            notes.append(f"{lost} shots have no Job in the cluster: submit the batch again to continue")
        return Snapshot(tuple(found), tuple(jobs), tuple(notes))

    def _ends(self, name: str, jobs: Sequence[JobState], records: Sequence[ShotRecord]) -> dict[tuple[str, int], PodEnd]:
        """Return how pods ended, by Job and row. The cluster is asked only if it gave up a row without a record of the reason."""
        if all(records[row].state in ENDED for job in jobs for row in job.failed):
            return {}
        by_name = {job.name: job for job in jobs}
        found = pod_ends(self.cluster.pods(_selector(name), "Failed", _MOST_PODS))
        return {(job, by_name[job].rows[index]): end for (job, index), end in found.items() if job in by_name}

    def _waiting(self, name: str, jobs: Sequence[JobState], records: Sequence[ShotRecord]) -> list[str]:
        notes = [
            f"Job {job.name} is suspended: its queue has no room yet, or a person stopped it"
            for job in jobs
            if job.suspended and job.live
        ]
        started = sum(record.state is ShotState.RUNNING for record in records)
        if sum(job.active for job in jobs) > started:
            notes += waiting_notes(self.cluster.pods(_selector(name), "Pending", _MOST_PODS))
        return notes


def _selector(name: str) -> str:
    return f"{BATCH_LABEL}={name}"


def _states(jobs: Iterable[Object]) -> list[JobState]:
    return sorted((job_state(job) for job in jobs), key=lambda job: job.key)
