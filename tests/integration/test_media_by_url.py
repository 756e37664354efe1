"""CreateDub and CreateActor with media in a real S3: objects in, videos out, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from dubstage.client import Connection, DubstageCallError
from dubstage.client import gateway as client
from dubstage.gateway.v1 import gateway_pb2 as pb
from gateway.dub.workspace import ASIDE
from gateway.provenance.binding import media_sha256
from gateway.provenance.verdict import ManifestState, verdict_of
from tests.contract.stores.s3_servers import BUCKET, S3Server, aws, s3
from tests.integration.client_calls import dubbing, enrolment, progress, until
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.videos import OTHER, Media

__all__ = ["aws", "s3"]


@pytest.fixture
def url(request: pytest.FixtureRequest, s3: S3Server, aws: Callable[..., None], media: Media) -> str:
    """A folder of the bucket with the footage and the speech."""
    aws(s3.endpoint)
    prefix = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    # The gateways here have databases of their own: what they release must not be what the session's gateway uses.
    for name, file in (("footage.mp4", OTHER), ("speech.wav", "speech.wav")):
        s3.client.put_object(Bucket=BUCKET, Key=f"{prefix}/in/{name}", Body=(media.root / file).read_bytes())
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix}/in/notes.mp4", Body=b"no film at all")
    return f"s3://{BUCKET}/{prefix}"


@pytest.fixture
def running(start_gateway: StartGateway, url: str) -> RunningGateway:
    return start_gateway(media_url=url)


def by_url(url: str, output: str, **fields: object) -> dict[str, object]:
    return dubbing(f"{url}/{output}", footage=f"{url}/in/footage.mp4", speech=f"{url}/in/speech.wav", **fields)


def keys(s3: S3Server, url: str) -> set[str]:
    prefix = url.removeprefix(f"s3://{BUCKET}/")
    return {key.removeprefix(f"{prefix}/") for key in s3.all_keys() if key.startswith(prefix) and "/in/" not in key}


def downloaded(s3: S3Server, url: str, name: str, folder: Path) -> Path:
    key = f"{url.removeprefix(f's3://{BUCKET}/')}/{name}"
    file = folder / Path(name).name
    file.write_bytes(s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    return file


def copies(running: RunningGateway) -> list[Path]:
    """Files that the gateway has copied and not removed."""
    return [path for path in (running.data / ASIDE).rglob("*") if path.is_file() and path.suffix]


def refused(connection: Connection, **fields: object) -> DubstageCallError:
    with pytest.raises(DubstageCallError) as caught:
        client.dub(connection, **fields).wait(timeout_s=300)  # type: ignore[arg-type]
    return caught.value


def test_bucket_to_bucket_dub(running: RunningGateway, s3: S3Server, url: str, tmp_path: Path) -> None:
    """A person is enrolled and dubbed from a bucket into a bucket."""
    with running.connect() as connection:
        client.enrol(connection, **enrolment("driver", footage=f"{url}/in/footage.mp4")).wait(timeout_s=300)
        result = client.dub(connection, **by_url(url, "out/film.mp4", actor_id="driver")).wait(timeout_s=300)
        client.dub(connection, **by_url(url, "out/film.mkv", actor_id="driver")).wait(timeout_s=300)
    assert result.output_uri == f"{url}/out/film.mp4"
    assert keys(s3, url) == {"out/film.mp4", "out/film.mkv", "out/film.mkv.c2pa"}
    video = downloaded(s3, url, "out/film.mp4", tmp_path)
    assert result.media_sha256 == media_sha256(video)
    for name in ("out/film.mkv", "out/film.mkv.c2pa"):
        downloaded(s3, url, name, tmp_path)
    assert {verdict_of(tmp_path / name).state for name in ("film.mp4", "film.mkv")} == {ManifestState.VALID}
    assert copies(running) == []


def test_unusable_objects_refused_at_once(running: RunningGateway, s3: S3Server, url: str) -> None:
    """Objects that cannot be used are refused at the door."""
    s3.client.put_object(Bucket=BUCKET, Key=f"{url.removeprefix(f's3://{BUCKET}/')}/out/theirs.mp4", Body=b"somebody's film")
    good = by_url(url, "out/film.mp4")
    cases = {
        "footage_uri": ({"footage": f"{url}/in/none.mp4"}, "no such file"),
        "speech_uri": ({"speech": f"s3://{BUCKET}/elsewhere/speech.wav"}, f"an object below {url}/"),
        "output_uri": ({"output": f"{url}/out/theirs.mp4"}, "dubstage did not write it"),
    }
    with running.connect() as connection:
        for field, (wrong, said) in cases.items():
            error = refused(connection, **{**good, **wrong})
            assert (error.reason, error.field) == ("INVALID_REQUEST", field)
            assert said in error.message
        assert list(client.list_operations(connection)) == []
        client.dub(connection, **{**good, "output": f"{url}/out/theirs.mp4", "overwrite": True}).wait(timeout_s=300)
        client.dub(connection, **{**good, "output": f"{url}/out/theirs.mp4"}).wait(timeout_s=300)
    assert copies(running) == []


def test_failed_dub_uploads_nothing(running: RunningGateway, s3: S3Server, url: str) -> None:
    """A dub that fails uploads nothing and names the object."""
    with running.connect() as connection:
        error = refused(connection, **{**by_url(url, "out/film.mp4"), "footage": f"{url}/in/notes.mp4"})
    assert f"{url}/in/notes.mp4" in error.message
    assert ASIDE not in error.message
    assert keys(s3, url) == set()
    assert copies(running) == []


def test_a_dub_that_is_cancelled_uploads_nothing(
    running: RunningGateway, s3: S3Server, url: str, long_footage: str, media: Media
) -> None:
    s3.client.upload_file(str(media.root / long_footage), BUCKET, f"{url.removeprefix(f's3://{BUCKET}/')}/in/long.mp4")
    with running.connect() as connection:
        dub = client.dub(connection, **{**by_url(url, "out/film.mp4"), "footage": f"{url}/in/long.mp4"})
        until(lambda: progress(dub.state()).step == pb.OPERATION_STEP_TRACK)
        dub.cancel()
        with pytest.raises(DubstageCallError, match="cancelled"):
            dub.wait(timeout_s=300)
        until(lambda: copies(running) == [])
    assert keys(s3, url) == set()


@pytest.mark.long
def test_other_gateway_uploads_once(
    running: RunningGateway,
    start_gateway: StartGateway,
    stop_gateway: Callable[[RunningGateway], None],
    s3: S3Server,
    url: str,
    tmp_path: Path,
    media: Media,
) -> None:
    """Another gateway goes on with a dub and uploads the video once."""
    with running.connect() as connection:
        dub = client.dub(connection, **by_url(url, "out/film.mp4"))
        until(lambda: progress(dub.state()).step > pb.OPERATION_STEP_FETCH)
        stop_gateway(running)
    assert copies(running) == []
    assert keys(s3, url) == set()
    second = start_gateway(data_dir=running.data, media_url=url)
    with second.connect() as connection:
        result = client.Operation(connection, dub.name, client.DUB).wait(timeout_s=300)
        client.dub(connection, **dubbing("undisturbed.mp4", footage=OTHER)).wait(timeout_s=300)
    assert keys(s3, url) == {"out/film.mp4"}
    assert result.media_sha256 == media_sha256(media.root / "undisturbed.mp4")
    assert media_sha256(downloaded(s3, url, "out/film.mp4", tmp_path)) == result.media_sha256
