"""Every case that once crashed, hung, filled memory or disk, wrote where it must not, or was answered with the wrong code."""

from __future__ import annotations

import pytest

from tests.hostile.case import Case
from tests.hostile.known import KNOWN
from tests.hostile.world import World


def test_known_cases_have_names_of_their_own() -> None:
    names = [(case.surface, case.name) for case in KNOWN]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: f"{case.surface}: {case.name}"[:120])
def test_a_known_case_ends_as_it_should(world: World, case: Case) -> None:
    outcome = case.run(world)
    if not world.servers.alive:
        world.restart()
    assert outcome.faults == ()
