"""Which errors of the operating system mean that a disk is full."""

from __future__ import annotations

import errno
from typing import Final

FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers. For the user, a quota or a file size limit is a full disk."""
