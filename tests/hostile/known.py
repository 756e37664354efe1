"""All named cases: the campaign runs them first, and the tests one by one."""

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
