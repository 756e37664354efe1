"""`python -m tests.timing`: the tests that wait for time, processes and connections, ten times beside a busy processor.

A test belongs here if its result could depend on how long a step takes: it sleeps, has a deadline, kills a process, holds a lease,
keeps a connection open or drives a page. A test that fails here even once waits for a time instead of a condition: repair it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

TESTS = (
    "contract/server/test_deadlines.py::test_a_callers_own_deadline_ends_the_work",
    "contract/server/test_deadlines.py::test_cancelled_call_stops_thread",
    "contract/server/test_idle.py::test_idle_stream_ends",
    "contract/server/test_memory.py::test_largest_call_ends_first",
    "contract/server/test_memory.py::test_outliving_computation_logged_once",
    "contract/server/test_metrics.py::test_failed_work_leaves_no_gauge",
    "contract/server/test_metrics.py::test_half_sent_scrapes_take_few_threads",
    "contract/server/test_metrics.py::test_ratio_rises_with_waiting_work",
    "contract/server/test_process.py::test_busy_computation_ends_after_grace",
    "contract/server/test_process.py::test_killed_server_is_retryable",
    "contract/server/test_process.py::test_sigterm_finishes_running_call",
    "contract/server/test_replicas.py::test_dropped_call_succeeds_elsewhere",
    "contract/server/test_replicas.py::test_stream_outlives_connection_age",
    "contract/server/test_unfinished_messages.py::test_address_has_half",
    "contract/server/test_unfinished_messages.py::test_half_sent_checks_without_token",
    "contract/server/test_unfinished_messages.py::test_thousand_half_sent_calls",
    "contract/stores/test_leases.py::test_cancellation_reaches_running_gateway",
    "contract/stores/test_leases.py::test_dead_gateways_operation_ended",
    "contract/stores/test_leases.py::test_unrenewed_lease_expires",
    "contract/stores/test_paused_writer.py::test_paused_gateways_lease_is_taken",
    "integration/batch/test_local.py::test_worker_ends_without_engine",
    "integration/test_http_limits.py::test_client_that_takes_nothing_ends",
    "integration/test_http_limits.py::test_silent_connections_lock_nobody_out",
    "integration/test_live.py::test_continuous_sound_is_not_idle",
    "integration/test_rest.py::test_drain_ends_a_stream",
    "integration/test_serve.py::test_killed_server_ends_others",
    "integration/test_ui.py::test_broken_upload_goes_on",
    "integration/test_ui.py::test_running_dub_is_cancelled",
    "integration/test_ui_live.py::test_sound_and_picture_come_together",
    "unit/actors/test_erasure.py::test_asking_process_erases_instead",
    "unit/actors/test_erasure.py::test_running_gateway_erases",
    "unit/batch/kubernetes/test_jobs.py::test_terminated_worker_exit_code",
    "unit/batch/test_worker_locks.py::test_locks_serialise_and_disappear",
    "unit/gateway/test_async_utilities.py::test_twice_cancelled_close_completes",
    "unit/live/test_session.py::test_returning_reader_gets_new_frame",
    "unit/live/test_session.py::test_unread_frames_are_few",
    "unit/operations/test_runner.py::test_cancelled_operation_leaves_nothing",
    "unit/tenants/test_quota.py::test_dub_holds_up_shot",
)
"""Tests below `tests`, none of them `long`."""
_FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def main(
    rounds: Annotated[int, typer.Option(help="How often each test runs.", min=1)] = 10,
    only: Annotated[str, typer.Option(help="Text in the names of the tests. Default: all.")] = "",
) -> None:
    """Run the tests beside one busy process per core, and name those that failed; exit 1 if any did."""
    chosen = [f"tests/{test}" for test in TESTS if only in test]
    if not chosen:
        raise typer.BadParameter(f"{only!r} is in no name of a test", param_hint="--only")
    failures = Counter[str]()
    with _busy_processor():
        for number in range(1, rounds + 1):
            failed = _failed_tests(chosen)
            failures.update(failed)
            print(f"round {number} of {rounds}: {len(failed)} failed", flush=True)
    for test, count in failures.most_common():
        print(f"{test} failed {count} times in {rounds}")
    sys.exit(1 if failures else 0)


@contextmanager
def _busy_processor() -> Iterator[None]:
    """Compete with a process per core."""
    # None of them outlives this process, however it ends.
    spin = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def _failed_tests(tests: list[str]) -> set[str]:
    """Run tests once, in another order each time, and print what pytest says of those that fail."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
    failed = set(_FAILURE.findall(ended.stdout))
    if ended.returncode:
        print(ended.stdout, flush=True)
    return failed or ({"pytest itself"} if ended.returncode else set())


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
