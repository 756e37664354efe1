"""Artefacts in S3 and rows in PostgreSQL, over real stages; a second database on one artefact store is refused."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dubstage.client import gateway as gateway_client
from services.common.errors import StorageRefusedError
from services.common.store.artefacts import OWNER
from tests.contract.stores.s3_servers import BUCKET, S3Server
from tests.forked import run_forked
from tests.integration.client_calls import dubbing, enrolment
from tests.integration.servers import LoopThread, RunningStages, serving_at
from tests.integration.videos import NUM_FRAMES, Media


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


ROOT = Path(__file__).parents[2]


def dubstage(*arguments: object, data: Path, stages: RunningStages, **settings: str) -> subprocess.CompletedProcess[str]:
    chosen = {"data_dir": str(data), "artefacts_url": str(stages.artefacts), **stages.endpoints(), **settings}
    environment = {**os.environ, "COLUMNS": "1000", **{f"DUBSTAGE_{name.upper()}": value for name, value in chosen.items()}}
    return run_forked([str(argument) for argument in arguments], environment, cwd=ROOT, timeout=300)


@pytest.mark.long
def test_other_data_folder_keeps_actors(stages: RunningStages, media: Media, tmp_path: Path) -> None:
    """A dub of the same footage from another data folder destroys no actor."""
    first, second = tmp_path / "first", tmp_path / "second"
    dub = ("dub", media.footage, "--audio", media.speech, "--no-personalize")
    created = dubstage("actor", "create", "ann", media.footage, "--no-personalize", data=first, stages=stages)
    assert created.returncode == 0, created.stderr
    blobs = stages.blobs()

    # The footage is the actor's, so that a dub that learns the person from it makes, counts and deletes the actor's blobs.
    other = dubstage(*dub, "-o", tmp_path / "other.mp4", data=second, stages=stages)
    assert other.returncode == StorageRefusedError.exit_code, other.stderr
    assert f"the artefact store file://{stages.artefacts} belongs to another database" in other.stderr
    assert str(first / "actors.sqlite") in other.stderr
    assert "DUBSTAGE_DATA_DIR or DUBSTAGE_DATABASE_URL" in other.stderr
    assert "DUBSTAGE_ARTEFACTS_URL" in other.stderr
    assert "Traceback" not in other.stderr
    for more in (
        ("jobs", "clean", "--blobs", "--older-than", "1d", "--yes"),
        ("actor", "list"),
        ("backup", tmp_path / "backup.tar"),
    ):
        refused = dubstage(*more, data=second, stages=stages)
        assert refused.returncode == StorageRefusedError.exit_code, (more, refused.stderr)
    assert blobs <= stages.blobs()

    shown = dubstage("doctor", data=second, stages=stages)
    assert shown.returncode == 1
    assert "belongs to another database" in shown.stdout
    video = dubstage(*dub, "-o", tmp_path / "video.mp4", "--actor", "ann", data=first, stages=stages)
    assert video.returncode == 0, video.stderr
    assert dubstage("doctor", data=first, stages=stages).returncode == 0


def test_artefacts_lie_in_data_folder(media: Media, tmp_path: Path) -> None:
    data = tmp_path / "data"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DUBSTAGE_")}
    environment |= {"XDG_DATA_HOME": str(tmp_path / "home"), "DUBSTAGE_DATA_DIR": str(data), "DUBSTAGE_SETTINGS_FILE": os.devnull}
    created = run_forked(["actor", "create", "ann", str(media.footage), "--no-personalize"], environment, cwd=ROOT, timeout=300)
    assert created.returncode == 0, created.stderr
    assert len(list((data / "artefacts").glob("??/*"))) >= 3
    assert not (tmp_path / "home").exists()
