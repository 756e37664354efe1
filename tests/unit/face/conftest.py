"""Networks of the face stage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.face.tracking import Networks


@pytest.fixture(scope="session")
def networks() -> Iterator[Networks]:
    loaded = Networks()
    yield loaded
    loaded.close()
