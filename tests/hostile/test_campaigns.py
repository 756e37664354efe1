"""Campaigns against one set of servers: every case that once went wrong, and two hundred generated ones.

Nothing crashes, hangs, fills memory or disk, writes where it must not, stays behind, or is answered with the wrong code.
"""

from __future__ import annotations

import pytest

from tests.hostile.campaign import Campaign, Finding
from tests.hostile.known import KNOWN, TESTED
from tests.hostile.plan import case, cases
from tests.hostile.world import World

# The first test waits for the start of the servers and for a whole campaign. Each case has its own limit.
pytestmark = pytest.mark.timeout(3600)

SEED = 9
QUICK = 200


@pytest.fixture(scope="module")
def findings(world: World) -> dict[int, list[Finding]]:
    """What was found, by the number of the case; the cases run two at a time."""
    result = Campaign(world, seed=0, workers=2).run([case(number, seed=0) for number in TESTED])
    found: dict[int, list[Finding]] = {number: [] for number in (-1, *TESTED)}
    for finding in result.findings:
        found[finding.number].append(finding)
    return found


def test_known_cases_have_names_of_their_own() -> None:
    names = [(case.surface, case.name) for case in KNOWN]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("number", TESTED, ids=lambda number: f"{KNOWN[number].surface}: {KNOWN[number].name}"[:100])
def test_a_known_case_ends_as_it_should(findings: dict[int, list[Finding]], number: int) -> None:
    assert findings[number] == []


def test_nothing_stays_behind_after_them(findings: dict[int, list[Finding]]) -> None:
    assert findings[-1] == []


def test_the_same_number_is_the_same_case() -> None:
    first, second = cases(50, SEED, first=len(KNOWN)), cases(50, SEED, first=len(KNOWN))
    assert [one.name for one in first] == [one.name for one in second]
    assert case(len(KNOWN) + 7, SEED).name == first[7].name
    assert [one.name for one in cases(50, SEED + 1, first=len(KNOWN))] != [one.name for one in first]


def test_generated_cases_end_in_named_errors(world: World) -> None:
    result = Campaign(world, SEED, workers=2).run(cases(QUICK, SEED, first=len(KNOWN)))
    assert result.cases == QUICK
    assert set(result.by_surface) == {"rpc", "stream", "media", "command", "store"}
    assert result.findings == []
