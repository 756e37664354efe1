"""All named cases: the campaign runs them first, and the tests one by one."""

from __future__ import annotations

from tests.hostile.case import Case
from tests.hostile.known_files import KNOWN_FILES
from tests.hostile.known_rpcs import KNOWN_RPCS

KNOWN: tuple[Case, ...] = (*KNOWN_RPCS, *KNOWN_FILES)
