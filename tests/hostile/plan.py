"""Which case a number stands for: the named ones first, then seeded ones over all surfaces."""

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from random import Random

from tests.hostile.bases import every_rpc
from tests.hostile.case import Case
from tests.hostile.commands import consent_case, option_case, output_case, setting_case
from tests.hostile.evaluations import evaluation_case
from tests.hostile.http_cases import http_case
from tests.hostile.known import KNOWN
from tests.hostile.records import record_case
from tests.hostile.rpcs import UNCALLED, rpc_case
from tests.hostile.stores import store_case
from tests.hostile.streams import stream_case
from tests.hostile.timelines import timeline_case
from tests.hostile.videos import media_case

_RPCS = tuple(name for name in every_rpc() if name not in UNCALLED)

MAKERS: dict[Callable[[Random], Case], float] = {
    lambda rng: rpc_case(rng, _RPCS): 50.0,
    lambda rng: stream_case(rng, _RPCS): 10.0,
    http_case: 12.0,
    media_case: 10.0,
    timeline_case: 4.0,
    option_case: 4.0,
    setting_case: 3.0,
    consent_case: 2.0,
    output_case: 3.0,
    store_case: 3.0,
    record_case: 3.0,
    evaluation_case: 0.1,
}
"""Makers of cases, with their weights."""
SURFACES = tuple(sorted({known.surface for known in KNOWN}))
"""Surfaces of all cases."""


def case(number: int, seed: int) -> Case:
    """The case of a number: the named ones come first, whatever the seed; the same number and seed give the same case."""
    if number < len(KNOWN):
        return replace(KNOWN[number], number=number)
    rng = Random(f"{seed}-{number}")
    makers = tuple(MAKERS)
    return replace(rng.choices(makers, tuple(MAKERS.values()))[0](rng), number=number)


def cases(count: int, seed: int, *, first: int = 0, only: Collection[str] = ()) -> Sequence[Case]:
    """Cases from number `first` on.

    Args:
        count: number of cases.
        seed: seed of the generated cases.
        first: number of the first case.
        only: surfaces of the cases; cases of other surfaces are left out. Empty: all surfaces.
    """
    numbers = itertools.count(first)
    found = (case(number, seed) for number in numbers)
    return list(itertools.islice((one for one in found if not only or one.surface in only), count))
