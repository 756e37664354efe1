"""A real S3 and a real PostgreSQL for every test of this folder."""

from tests.contract.stores.postgres_servers import postgres, postgres_url
from tests.contract.stores.s3_servers import aws, s3

__all__ = ["aws", "postgres", "postgres_url", "s3"]
