"""The packages that only training needs, and the message where they are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.common.errors import InvalidRequest


@contextmanager
def training_packages() -> Iterator[None]:
    """Turn a missing package, in an import inside the block, into an error that says how to install what training needs.

    Raises:
        InvalidRequest: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as problem:
        raise InvalidRequest(
            f"this command needs the package {problem.name}, which is not installed here: pip install 'dubstage-suite[all]' "
            "(see docs/training.md)",
            field="installation",
        ) from problem
