"""Every case that once crashed, hung, filled memory or disk, wrote where it must not, or was answered with the wrong code."""

from __future__ import annotations

import pytest

from tests.hostile.campaign import Campaign, Finding
from tests.hostile.known import KNOWN
from tests.hostile.plan import cases
from tests.hostile.world import World

# The first test waits for all cases.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def findings(world: World) -> dict[int, list[Finding]]:
    """What was found, by the number of the case; the cases run two at a time."""
    result = Campaign(world, seed=0, workers=2).run(cases(len(KNOWN), seed=0))
    found: dict[int, list[Finding]] = {number: [] for number in range(-1, len(KNOWN))}
    for finding in result.findings:
        found[finding.number].append(finding)
    return found


def test_known_cases_have_names_of_their_own() -> None:
    names = [(case.surface, case.name) for case in KNOWN]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("number", range(len(KNOWN)), ids=lambda number: f"{KNOWN[number].surface}: {KNOWN[number].name}"[:100])
def test_a_known_case_ends_as_it_should(findings: dict[int, list[Finding]], number: int) -> None:
    assert findings[number] == []


def test_nothing_stays_behind_after_them(findings: dict[int, list[Finding]]) -> None:
    assert findings[-1] == []
