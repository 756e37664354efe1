"""Which rows of a batch go into which Job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.batch.row_ranges import format_rows, parse_rows

MOST_COMPLETIONS: Final = 10_000
"""Most rows of one Job. Kubernetes allows 100,000 indexes without further bounds. With a tenth of that, the longest status of a Job
(every second index completed: 60 kB) stays far below etcd's limit of 1.5 MB, and one update of the status stays small."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """One Job of a batch.

    Attributes:
        batch: name of the batch.
        manifest_sha256: digest of the manifest of the batch.
        round: 0 for the Jobs of the submission, 1, 2, ... for later Jobs of single rows (retry, or a resumed submission).
        shard: number of the Job in its round.
        rows: rows of the manifest, ascending. Index i of the Job is the row `rows[i]`.
        parallelism: most pods at the same time.
    """

    batch: str
    manifest_sha256: str
    round: int
    shard: int
    rows: tuple[int, ...]
    parallelism: int

    @property
    def name(self) -> str:
        """Name of the Job: at most 58 characters, for Kubernetes makes a host name of it and of an index (`-9999`)."""
        return f"dubstage-{self.batch}-{self.round}-{self.shard}"


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What was asked of the cluster for one batch, as it is kept in the details of the batch.

    Attributes:
        namespace: namespace of the Jobs.
        context: context of the kubeconfig; empty: the current one, or the cluster that the command runs in.
        config_map: ConfigMap with the settings.
        profile: profile of the pods.
        workers: pods at the same time; 0: the number of the settings.
        rounds: rows of the Jobs, by round and shard.
    """

    namespace: str
    context: str
    config_map: str
    profile: str
    workers: int
    rounds: tuple[tuple[tuple[int, ...], ...], ...] = ()

    def details(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return {
            "namespace": self.namespace,
            "context": self.context,
            "config_map": self.config_map,
            "profile": self.profile,
            "workers": self.workers,
            "rounds": [[format_rows(rows) for rows in shards] for shards in self.rounds],
        }

    @classmethod
    def of(cls, details: dict[str, Any]) -> BatchPlan:
        """Return the plan that `details` wrote."""
        rounds = tuple(tuple(parse_rows(text) for text in shards) for shards in details["rounds"])
        return cls(**{**details, "rounds": rounds})

    def newest_job(self) -> dict[int, tuple[int, int]]:
        """Return round and shard of the newest Job of each row that has a Job."""
        return {row: (turn, shard) for turn, shards in enumerate(self.rounds) for shard, rows in enumerate(shards) for row in rows}


def shards_of(rows: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return the rows, ascending, in groups of at most MOST_COMPLETIONS."""
    ordered = sorted(set(rows))
    return tuple(tuple(ordered[begin : begin + MOST_COMPLETIONS]) for begin in range(0, len(ordered), MOST_COMPLETIONS))


def jobs_of(batch: str, manifest_sha256: str, turn: int, shards: Sequence[tuple[int, ...]], workers: int) -> list[JobPlan]:
    """Return the Jobs of one round.

    The Jobs share `workers` pods. Each Job has at least one, so a batch with more Jobs than workers has as many pods as Jobs.
    """
    shares = [workers // len(shards) + (number < workers % len(shards)) for number in range(len(shards))]
    return [
        JobPlan(batch, manifest_sha256, turn, number, rows, max(1, min(share, len(rows))))
        for number, (rows, share) in enumerate(zip(shards, shares, strict=True))
    ]
