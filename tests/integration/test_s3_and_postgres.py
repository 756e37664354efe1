"""A person enrolled, dubbed and erased where every blob lies in S3 and every row in PostgreSQL, over real stages."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dubstage.client import gateway as gateway_client
from services.common.store.artefacts import OWNER
from tests.contract.stores.postgres_servers import postgres, postgres_url
from tests.contract.stores.s3_servers import BUCKET, S3Server, aws, s3
from tests.integration.client_calls import dubbing, enrolment
from tests.integration.servers import LoopThread, serving_at
from tests.integration.videos import NUM_FRAMES

__all__ = ["aws", "postgres", "postgres_url", "s3"]


@pytest.fixture
def endpoints_on_s3(s3: S3Server, aws: Callable[..., None], loop_thread: LoopThread) -> Iterator[dict[str, str]]:
    """Five servers whose artefacts lie in the bucket."""
    aws(s3.endpoint)
    url = f"s3://{BUCKET}/whole"
    with serving_at(loop_thread, url) as ports:
        yield {"artefacts_url": url, **{f"{name}_endpoint": f"127.0.0.1:{port}" for name, port in ports.items()}}


def blobs(s3: S3Server) -> set[str]:
    """Keys of all objects in the bucket but the one that names the store's database."""
    return {key for key in s3.all_keys() if not key.endswith(f"/{OWNER}")}


@pytest.mark.long
def test_enrol_dub_and_erase_through_s3_and_postgresql(
    endpoints_on_s3, s3, postgres, postgres_url, start_gateway, stop_gateway, media
) -> None:
    running = start_gateway(database_url=postgres_url, **endpoints_on_s3)
    database = postgres_url.rpartition("/")[2]
    with running.connect() as connection:
        gateway_client.enrol(connection, **enrolment("driver")).wait(timeout_s=300)
        held = blobs(s3)
        assert len(held) >= 4
        assert postgres.execute("SELECT actor_id FROM actors", database) == [("driver",)]
        result = gateway_client.dub(connection, **dubbing("on_s3.mp4", actor_id="driver")).wait(timeout_s=300)
        assert result.num_frames >= NUM_FRAMES - 8
        assert os.path.getsize(media.root / "on_s3.mp4") > 1000
        # The job's artefacts are removed with the job; the person's own artefacts stay.
        assert blobs(s3) == held
        receipt = gateway_client.erase_actor(connection, "driver")
    assert {key.rpartition("/")[2] for key in held} == set(receipt.erased_sha256)
    assert blobs(s3) == set()
    assert postgres.execute("SELECT count(*) FROM lineage", database) == [(0,)]
    assert postgres.execute("SELECT count(*) FROM job_blobs", database) == [(0,)]
    assert not list(Path(running.data).rglob("*.sqlite"))
    stop_gateway(running)
