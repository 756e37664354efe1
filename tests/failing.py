"""Methods that fail once."""

from __future__ import annotations

from typing import Any

import pytest


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, problem: Exception) -> None:
    """Let the first call of a method raise an error. Further calls do what the method does."""
    real, failures = getattr(owner, method), [problem]

    def failing(*args: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*args, **more)

    monkeypatch.setattr(owner, method, failing)
