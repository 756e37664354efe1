"""A campaign against one set of servers: more than half of the cases that once went wrong, and a few generated ones.

Nothing crashes, hangs, fills memory or disk, writes where it must not, stays behind, or is answered with the wrong code.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.longrunning.operations_pb2 import ListOperationsRequest

from tests.hostile.campaign import Campaign, Result
from tests.hostile.known import KNOWN, TESTED
from tests.hostile.machine import MACHINE
from tests.hostile.plan import case, cases
from tests.hostile.world import World

# The first test waits for the start of the servers and for a whole campaign. Each case has its own limit.
pytestmark = pytest.mark.timeout(3600)

SEED = 9
QUICK = 24
SURFACES = {"rpc", "stream", "http", "media", "timeline", "command", "store"}


@pytest.fixture(scope="module")
def result(world: World) -> Result:
    """One campaign of the named cases and of generated ones, three at a time."""
    return Campaign(world, SEED, workers=3).run([*(case(number, SEED) for number in TESTED), *cases(QUICK, SEED, first=len(KNOWN))])


def test_known_cases_have_names_of_their_own() -> None:
    names = [(case.surface, case.name) for case in KNOWN]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.long
@pytest.mark.parametrize("number", TESTED, ids=lambda number: f"{KNOWN[number].surface}: {KNOWN[number].name}"[:100])
def test_a_known_case_ends_as_it_should(result: Result, number: int) -> None:
    assert [finding for finding in result.findings if finding.number == number] == []


def test_every_surface_has_named_cases() -> None:
    assert {KNOWN[number].surface for number in TESTED} == {case.surface for case in KNOWN} == SURFACES


def test_nothing_stays_behind_after_the_cases(result: Result) -> None:
    assert [finding for finding in result.findings if finding.number == -1] == []


def test_the_same_number_is_the_same_case() -> None:
    first, second = cases(50, SEED, first=len(KNOWN)), cases(50, SEED, first=len(KNOWN))
    assert [one.name for one in first] == [one.name for one in second]
    assert case(len(KNOWN) + 7, SEED).name == first[7].name
    assert [one.name for one in cases(50, SEED + 1, first=len(KNOWN))] != [one.name for one in first]


def test_cases_of_one_surface_keep_their_numbers() -> None:
    chosen = cases(10, SEED, first=len(KNOWN), only=("http", "timeline"))
    assert {one.surface for one in chosen} <= {"http", "timeline"}
    assert [case(one.number, SEED).name for one in chosen] == [one.name for one in chosen]


def test_a_busy_server_is_asked_again(world: World) -> None:
    """Calls that end a case are made again while the server has more calls than it takes."""
    number = 240
    with ThreadPoolExecutor(number) as threads:
        answers = list(threads.map(lambda _: world.operation("ListOperations", ListOperationsRequest()), range(number)))
    assert len(answers) == number


def test_bounds_grow_on_a_busy_machine() -> None:
    """Time bounds follow the machine, so that other work is no finding."""
    begun = time.monotonic()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * (os.cpu_count() or 1))]
    try:
        deadline = begun + 120
        while MACHINE.slowness(since=begun) < 1.5:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert MACHINE.bound(10.0, since=begun) >= 15.0
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_generated_cases_end_in_named_errors(result: Result) -> None:
    assert result.cases == len(TESTED) + QUICK
    assert set(result.by_surface) == SURFACES
    assert [finding for finding in result.findings if finding.number >= len(KNOWN)] == []
