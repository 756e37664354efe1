"""Reports of a job's progress."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Called with the name of the pass, the number of finished frames or steps, and the number of all of them."""
