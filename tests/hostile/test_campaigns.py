"""A campaign against one set of servers: more than half of the cases that once went wrong, and a few generated ones.

Nothing crashes, hangs, fills memory or disk, writes where it must not, stays behind, or is answered with the wrong code.
"""

from __future__ import annotations

import pytest

from tests.hostile.campaign import Campaign, Result
from tests.hostile.known import KNOWN, TESTED
from tests.hostile.plan import case, cases
from tests.hostile.world import World

# The first test waits for the start of the servers and for a whole campaign. Each case has its own limit.
pytestmark = pytest.mark.timeout(3600)

SEED = 9
QUICK = 24
SURFACES = {"rpc", "stream", "media", "command", "store"}


@pytest.fixture(scope="module")
def result(world: World) -> Result:
    """One campaign of the named cases and of generated ones, three at a time."""
    return Campaign(world, SEED, workers=3).run([*(case(number, SEED) for number in TESTED), *cases(QUICK, SEED, first=len(KNOWN))])


def test_known_cases_have_names_of_their_own() -> None:
    names = [(case.surface, case.name) for case in KNOWN]
    assert sorted(set(names)) == sorted(names)


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


def test_generated_cases_end_in_named_errors(result: Result) -> None:
    assert result.cases == len(TESTED) + QUICK
    assert set(result.by_surface) == SURFACES
    assert [finding for finding in result.findings if finding.number >= len(KNOWN)] == []
