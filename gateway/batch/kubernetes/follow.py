"""Watch of the Jobs of a batch that outlives lost connections and expired versions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.batch.kubernetes.cluster import Cluster
from gateway.batch.kubernetes.refusals import VersionExpiredError
from gateway.batch.kubernetes.settings import Object
from services.common.errors import DubstageError


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of a watch, seconds.

    Attributes:
        watch_s: length of one watch; whole seconds. After it the state is told again, changed or not.
        first_s: pause after the first failure. Each further failure doubles the pause.
        longest_s: longest pause.
        patience_s: time without any answer after which the watch gives up.
    """

    watch_s: int = 15
    first_s: float = 0.5
    longest_s: float = 30.0
    patience_s: float = 900.0


def follow(
    cluster: Cluster,
    selector: str,
    timing: Timing,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[dict[str, Object]]:
    """Yield the Jobs with some labels by name: at first, after each change, and at least every `timing.watch_s` seconds.

    The Jobs are listed, then watched from the version of the list. A watch that was cut goes on where it was. If the API does not
    have that version any more, the Jobs are listed again.

    Raises:
        DubstageError: the API refuses, or gave no answer for `timing.patience_s` seconds.
    """
    known: dict[str, Object] = {}
    version = ""
    pause, failing_since = timing.first_s, clock()
    while True:
        begun, events = clock(), 0
        try:
            if not version:
                items, version = cluster.jobs(selector)
                known = {item["metadata"]["name"]: item for item in items}
                failing_since = clock()
                yield dict(known)
            for kind, job in cluster.watch_jobs(selector, version, timing.watch_s):
                events, failing_since, pause = events + 1, clock(), timing.first_s
                version = job["metadata"]["resourceVersion"]
                if _changed(known, kind, job):
                    yield dict(known)
            failing_since = clock()
            yield dict(known)
            quick = not events and clock() - begun < timing.first_s
        except VersionExpiredError:
            version, quick = "", not events
        except DubstageError as error:
            if not error.retryable or clock() - failing_since > timing.patience_s:
                raise
            quick = True
        if quick:
            sleep(pause)
            pause = min(2 * pause, timing.longest_s)
        else:
            pause = timing.first_s


def _changed(known: dict[str, Object], kind: str, job: Object) -> bool:
    """Bring `known` up to date with one event, and return whether it changed. A bookmark tells only a version."""
    name = job["metadata"].get("name", "")
    if kind == "DELETED":
        return known.pop(name, None) is not None
    if kind in ("ADDED", "MODIFIED"):
        known[name] = job
        return True
    return False
