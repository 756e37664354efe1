"""A real S3 and a real PostgreSQL for every test of this folder, and an installation on both kinds of database."""

import pytest

from tests.contract.stores.postgres_servers import postgres, postgres_url
from tests.contract.stores.s3_servers import aws, s3
from tests.unit.actors.installation import actors, blobs, geometry, settings

__all__ = ["actors", "aws", "blobs", "geometry", "postgres", "postgres_url", "s3", "settings"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else ""
