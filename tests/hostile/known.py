"""All named cases, which the campaign runs first, and the choice of them that the tests run one by one."""

from collections.abc import Sequence

from tests.hostile.case import Case
from tests.hostile.http_cases import KNOWN_HTTP
from tests.hostile.known_commands import KNOWN_COMMANDS
from tests.hostile.known_evaluate import KNOWN_EVALUATIONS
from tests.hostile.known_gateway import KNOWN_GATEWAY
from tests.hostile.known_inspect import KNOWN_INSPECTIONS
from tests.hostile.known_media import KNOWN_MEDIA
from tests.hostile.known_records import KNOWN_RECORDS
from tests.hostile.known_rpcs import KNOWN_RPCS
from tests.hostile.known_tokens import KNOWN_TOKENS
from tests.hostile.timelines import KNOWN_TIMELINES

KNOWN: tuple[Case, ...] = (
    *KNOWN_RPCS,
    *KNOWN_GATEWAY,
    *KNOWN_TOKENS,
    *KNOWN_MEDIA,
    *KNOWN_COMMANDS,
    *KNOWN_EVALUATIONS,
    *KNOWN_RECORDS,
    *KNOWN_INSPECTIONS,
    *KNOWN_HTTP,
    *KNOWN_TIMELINES,
)

_OF_GROUP: dict[str, int] = {
    # Each takes many seconds. The same is claimed by test_idle.py and test_security.py in tests/contract/server, by
    # test_live.py, test_erasure.py and test_serve.py in tests/integration, and by tests/system/test_bad_input.py.
    "audio.ExtractFeatures: silent streams": 0,
    "gateway.Live: silent streams": 0,
    "the emptied token file": 0,
    "serve texture with an empty": 0,
    "serve on a port that is taken": 0,
    "actor erase beside a running gateway": 0,
    "a video without any dubbed frame": 0,
    "yuva420p": 0,
    # Each dubs a video, resumes a dub (tests/system/test_resume.py), or loads the networks of an evaluation.
    "footage named": 1,
    "output named": 1,
    "longer speech at": 1,
    "dub -o": 1,
    "resumed dub": 1,
    "doctor with data folder": 1,
    "doctor: ": 1,
    "speech: ": 1,
    "speech over the API": 1,
    "evaluate ": 2,
    "inspect ": 3,
    # Many variations of one mistake in a file or an argument, each with a process of its own.
    "a consent file": 2,
    "consent sign": 2,
    "receipt verify": 2,
    "receipt key": 2,
    "audit verify": 1,
    "audit export": 2,
    "audit list": 2,
    "gateway.CreateDub: dub.label": 3,
    "gateway.Live: config.label": 6,
    "actor list": 2,
    "actor show": 2,
    "actor erase": 2,
    "jobs list": 2,
    "a report": 1,
    "dub with": 2,
}
"""How many of the cases whose names begin so are tested, spread over the group. The campaign runs all of them."""


def _spread(numbers: Sequence[int], count: int) -> set[int]:
    return {numbers[place * len(numbers) // count] for place in range(count)}


def _tested() -> tuple[int, ...]:
    left: set[int] = set()
    for begin, count in _OF_GROUP.items():
        group = [number for number, case in enumerate(KNOWN) if case.name.startswith(begin)]
        left.update(set(group) - _spread(group, count))
    records = [number for number, case in enumerate(KNOWN) if case in KNOWN_RECORDS and number not in left]
    left.update(set(records) - _spread(records, len(records) // 3))
    return tuple(number for number in range(len(KNOWN)) if number not in left)


TESTED: tuple[int, ...] = _tested()
"""Numbers of the cases that the tests run."""
