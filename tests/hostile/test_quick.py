"""Two hundred generated cases over all surfaces: nothing crashes, hangs, grows, or stays behind."""

from __future__ import annotations

from tests.hostile.campaign import Campaign
from tests.hostile.known import KNOWN
from tests.hostile.plan import case, cases
from tests.hostile.world import World

SEED = 9
QUICK = 200


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
