"""All named cases: the campaign runs them first, and the tests most of them one by one."""

from __future__ import annotations

from tests.hostile.case import Case
from tests.hostile.known_commands import KNOWN_COMMANDS
from tests.hostile.known_evaluate import KNOWN_EVALUATIONS
from tests.hostile.known_gateway import KNOWN_GATEWAY
from tests.hostile.known_inspect import KNOWN_INSPECTIONS
from tests.hostile.known_media import KNOWN_MEDIA
from tests.hostile.known_records import KNOWN_RECORDS
from tests.hostile.known_rpcs import KNOWN_RPCS
from tests.hostile.known_tokens import KNOWN_TOKENS

KNOWN: tuple[Case, ...] = (
    *KNOWN_RPCS,
    *KNOWN_GATEWAY,
    *KNOWN_TOKENS,
    *KNOWN_MEDIA,
    *KNOWN_COMMANDS,
    *KNOWN_EVALUATIONS,
    *KNOWN_RECORDS,
    *KNOWN_INSPECTIONS,
)

_RECORDS = range(KNOWN.index(KNOWN_RECORDS[0]), KNOWN.index(KNOWN_RECORDS[0]) + len(KNOWN_RECORDS))
TESTED: tuple[int, ...] = tuple(number for number in range(len(KNOWN)) if number not in _RECORDS or number % 3 == 0)
"""Numbers of the cases that the tests run: of the many variations of damaged records each third, and all others."""
