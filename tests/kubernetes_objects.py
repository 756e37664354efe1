"""Checks of Kubernetes objects: the schemas of the API, and the restricted Pod Security Standard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import kubernetes_validate
import pytest

RESTRICTED: Final = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""Security context of a container under the restricted standard, with a file system that is read-only besides."""


@contextmanager
def schemas_read_once() -> Iterator[None]:
    """Let the library keep the schemas that it has read. Without that, it reads a megabyte of JSON for each object."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("schema_contents", "all_versions", "latest_version"):
            patch.setattr(kubernetes_validate.utils, name, cache(getattr(kubernetes_validate.utils, name)))
        yield
