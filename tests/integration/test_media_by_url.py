"""CreateDub and CreateActor with media in a real S3: objects in, videos out, whole or not at all."""

import hashlib
import os
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from dubstage.client import Connection, DubstageCallError, files
from dubstage.client import gateway as client
from dubstage.gateway.v1 import gateway_pb2 as pb
from dubstage.gateway.v1 import media_pb2
from gateway.actors.store import ActorStore
from gateway.api import dubs
from gateway.dub.state.scratch import SCRATCH
from gateway.provenance.binding import media_sha256
from gateway.provenance.verdict import ManifestState, verdict_of
from tests.contract.stores.s3_servers import BUCKET, S3Server
from tests.integration.client_calls import dubbing, enrolment, progress, until
from tests.integration.servers import RunningGateway, StartGateway
from tests.integration.videos import OTHER, Media
from tests.refusals import refusal
from tests.system.dubbing import write_wav


@pytest.fixture
def url(request: pytest.FixtureRequest, s3: S3Server, aws: Callable[..., None], media: Media) -> str:
    """A folder of the bucket with the footage and the speech."""
    aws(s3.endpoint)
    prefix = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    # The gateways here have databases of their own: what they release must not be what the session's gateway uses.
    for name, file in (("footage.mp4", OTHER), ("speech.wav", "speech.wav")):
        s3.client.put_object(Bucket=BUCKET, Key=f"{prefix}/in/{name}", Body=(media.root / file).read_bytes())
    s3.client.put_object(Bucket=BUCKET, Key=f"{prefix}/in/notes.mp4", Body=b"no video at all")
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
    return [path for path in (running.data / SCRATCH).rglob("*") if path.is_file() and path.suffix]


def test_bucket_to_bucket_dub(running: RunningGateway, s3: S3Server, url: str, tmp_path: Path) -> None:
    """A person is enrolled and dubbed from a bucket into a bucket."""
    with running.connect() as connection:
        client.enrol(connection, **enrolment("driver", footage=f"{url}/in/footage.mp4")).wait(timeout_s=300)
        result = client.dub(connection, **by_url(url, "out/video.mp4", actor_id="driver")).wait(timeout_s=300)
        client.dub(connection, **by_url(url, "out/video.mkv", actor_id="driver")).wait(timeout_s=300)
    assert result.output_uri == f"{url}/out/video.mp4"
    assert keys(s3, url) == {"out/video.mp4", "out/video.mkv", "out/video.mkv.c2pa"}
    video = downloaded(s3, url, "out/video.mp4", tmp_path)
    assert result.media_sha256 == media_sha256(video)
    for name in ("out/video.mkv", "out/video.mkv.c2pa"):
        downloaded(s3, url, name, tmp_path)
    assert {verdict_of(tmp_path / name).state for name in ("video.mp4", "video.mkv")} == {ManifestState.VALID}
    assert copies(running) == []


def dubbed(connection: Connection, **fields: object) -> object:
    return client.dub(connection, **fields).wait(timeout_s=300)  # type: ignore[arg-type]


@pytest.mark.long
def test_unusable_objects_refused_at_once(running: RunningGateway, s3: S3Server, url: str) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=f"{url.removeprefix(f's3://{BUCKET}/')}/out/theirs.mp4", Body=b"somebody's video")
    good = by_url(url, "out/video.mp4")
    cases = {
        "footage_uri": ({"footage": f"{url}/in/none.mp4"}, "no such file"),
        "speech_uri": ({"speech": f"s3://{BUCKET}/elsewhere/speech.wav"}, f"an object below {url}/"),
        "output_uri": ({"output": f"{url}/out/theirs.mp4"}, "dubstage did not write it"),
    }
    with running.connect() as connection:
        for field, (wrong, said) in cases.items():
            error = refusal(dubbed, connection, **{**good, **wrong})
            assert (error.reason, error.field.removeprefix("dub.")) == ("INVALID_REQUEST", field)
            assert said in error.message
        assert list(client.list_operations(connection)) == []
        client.dub(connection, **{**good, "output": f"{url}/out/theirs.mp4", "overwrite": True}).wait(timeout_s=300)
        client.dub(connection, **{**good, "output": f"{url}/out/theirs.mp4"}).wait(timeout_s=300)
    assert copies(running) == []


def test_failed_dub_uploads_nothing(running: RunningGateway, s3: S3Server, url: str) -> None:
    """A dub that fails uploads nothing and names the object."""
    with running.connect() as connection:
        error = refusal(dubbed, connection, **{**by_url(url, "out/video.mp4"), "footage": f"{url}/in/notes.mp4"})
    assert f"{url}/in/notes.mp4" in error.message
    assert SCRATCH not in error.message
    assert keys(s3, url) == set()
    assert copies(running) == []


def test_a_dub_that_is_cancelled_uploads_nothing(running, s3, url, long_footage, media) -> None:
    s3.client.upload_file(str(media.root / long_footage), BUCKET, f"{url.removeprefix(f's3://{BUCKET}/')}/in/long.mp4")
    with running.connect() as connection:
        dub = client.dub(connection, **{**by_url(url, "out/video.mp4"), "footage": f"{url}/in/long.mp4"})
        until(lambda: progress(dub.state()).step == pb.OPERATION_STEP_TRACK)
        dub.cancel()
        with pytest.raises(DubstageCallError, match="cancelled"):
            dub.wait(timeout_s=300)
        until(lambda: copies(running) == [])
    assert keys(s3, url) == set()


def test_erased_actor_uploads_no_scene(running, s3, url, media, samples, monkeypatch) -> None:
    """Another actor of the scene than the first is erased after the last frame and before the upload."""

    def hashed(video: Path) -> str:
        with ActorStore(running.settings) as actors:
            actors.erasures.ask("passing")
        return media_sha256(video)

    monkeypatch.setattr(dubs, "media_sha256", hashed)
    speech, rate = samples
    write_wav(media.root / "half.wav", speech[: rate // 2], rate)
    lines = [
        {"actor_id": actor, "face_id": 0, "start_time": timedelta(seconds=start_s), "speech_uri": "half.wav"}
        for actor, start_s in (("driver", 0.0), ("passing", 0.8))
    ]
    with running.connect() as connection:
        for actor in ("driver", "passing"):
            client.enrol(connection, **enrolment(actor, footage=f"{url}/in/footage.mp4")).wait(timeout_s=300)
        scene = {"footage": f"{url}/in/footage.mp4", "output": f"{url}/out/scene.mp4", "lines": lines, "personalize": False}
        error = refusal(dubbed, connection, **scene)
        assert error.reason == "ACTOR_NOT_READY"
    assert keys(s3, url) == set()
    assert copies(running) == []


@pytest.mark.long
def test_other_gateway_uploads_once(running, start_gateway, stop_gateway, s3, url, tmp_path, media) -> None:
    """Another gateway goes on with a dub and uploads the video once."""
    with running.connect() as connection:
        dub = client.dub(connection, **by_url(url, "out/video.mp4"))
        until(lambda: progress(dub.state()).step > pb.OPERATION_STEP_FETCH)
        stop_gateway(running)
    assert copies(running) == []
    assert keys(s3, url) == set()
    second = start_gateway(data_dir=running.data, media_url=url)
    with second.connect() as connection:
        result = client.Operation(connection, dub.name, client.DUB).wait(timeout_s=300)
        client.dub(connection, **dubbing("undisturbed.mp4", footage=OTHER)).wait(timeout_s=300)
    assert keys(s3, url) == {"out/video.mp4"}
    assert result.media_sha256 == media_sha256(media.root / "undisturbed.mp4")
    assert media_sha256(downloaded(s3, url, "out/video.mp4", tmp_path)) == result.media_sha256


def sent(signed: media_pb2.SignedUrl, data: bytes) -> None:
    """Send a file to a signed URL by plain HTTP."""
    # urllib names a form as the type of the body, and moto then waits for fields of the form.
    headers = {**signed.headers, "Content-Type": "application/octet-stream"}
    call = urllib.request.Request(signed.url, data, headers, method=signed.http_method)
    urllib.request.urlopen(call, timeout=60).close()


def fetched(signed: media_pb2.SignedUrl) -> bytes:
    with urllib.request.urlopen(signed.url, timeout=60) as answer:
        data: bytes = answer.read()
        return data


def uploaded(connection: Connection, name: str, data: bytes) -> media_pb2.Upload:
    sha256 = hashlib.sha256(data).hexdigest()
    signed = files.sign_upload(connection, name, size_bytes=len(data), sha256=sha256)
    sent(signed, data)
    upload = files.finish_upload(connection, name, sha256=sha256)
    assert (upload.received_bytes, upload.complete, upload.sha256, upload.uri) == (len(data), True, sha256, signed.uri)
    return upload


@pytest.mark.long
def test_dub_through_signed_urls(running: RunningGateway, url: str, media: Media, tmp_path: Path) -> None:
    """The caller sends the files to the bucket and gets the video from there; the gateway only signs."""
    with running.connect() as connection:
        footage = uploaded(connection, "shot.mp4", (media.root / OTHER).read_bytes())
        speech = uploaded(connection, "speech.wav", (media.root / "speech.wav").read_bytes())
        assert footage.uri == f"{url}/uploads/shot.mp4"
        output = f"{url}/signed.mp4"
        result = client.dub(connection, **dubbing(output, footage=footage.uri, speech=speech.uri)).wait(timeout_s=300)
        video = fetched(files.sign_download(connection, result.output_uri))
        again = fetched(files.sign_download(connection, footage.uri))
    assert result.num_dubbed > 0
    (tmp_path / "signed.mp4").write_bytes(video)
    assert media_sha256(tmp_path / "signed.mp4") == result.media_sha256
    assert again == (media.root / OTHER).read_bytes()


def test_signed_uploads_are_checked(running: RunningGateway, url: str, s3: S3Server) -> None:
    """The store's signature covers length, SHA-256 and expiry, and the gateway removes what has another SHA-256."""
    with running.connect() as connection:
        signed = files.sign_upload(connection, "one.bin", size_bytes=9, sha256="ab" * 32)
    assert "X-Amz-SignedHeaders=content-length%3Bhost%3Bx-amz-checksum-sha256" in signed.url
    assert "X-Amz-Expires=3600" in signed.url
    assert signed.headers["Content-Length"] == "9"
    assert (signed.http_method, signed.uri) == ("PUT", f"{url}/uploads/one.bin")
    data = os.urandom(1000)
    s3.client.put_object(Bucket=BUCKET, Key=f"{url.removeprefix(f's3://{BUCKET}/')}/uploads/one.bin", Body=data)
    with running.connect() as connection:
        with pytest.raises(DubstageCallError) as caught:
            files.finish_upload(connection, "one.bin", sha256="ab" * 32)
        assert (caught.value.code, caught.value.field) == ("INVALID_ARGUMENT", "sha256")
        assert keys(s3, url) == set()
        with pytest.raises(DubstageCallError) as caught:
            files.finish_upload(connection, "one.bin", sha256="ab" * 32)
        assert caught.value.code == "NOT_FOUND"


def test_signed_urls_take_room(start_gateway: StartGateway, url: str) -> None:
    """A signed URL counts against the limits before its file comes."""
    small = start_gateway(media_url=url, uploads_max_bytes=1000, uploads_max_files=2)
    with small.connect() as connection:
        files.sign_upload(connection, "a.bin", size_bytes=600, sha256="ab" * 32)
        with pytest.raises(DubstageCallError, match="1100 bytes") as caught:
            files.sign_upload(connection, "b.bin", size_bytes=500, sha256="cd" * 32)
        assert caught.value.reason == "TENANT_UPLOAD_BYTES"
        for size_bytes in (400, 1):
            files.sign_upload(connection, "b.bin", size_bytes=size_bytes, sha256="cd" * 32)
        with pytest.raises(DubstageCallError, match="1001 bytes"):
            files.sign_upload(connection, "c.bin", size_bytes=1, sha256="cd" * 32)
    many = start_gateway(media_url=url, uploads_max_files=1)
    with many.connect() as connection:
        files.sign_upload(connection, "a.bin", size_bytes=1, sha256="ab" * 32)
        with pytest.raises(DubstageCallError, match="2 uploads, and may have 1"):
            files.sign_upload(connection, "b.bin", size_bytes=1, sha256="ab" * 32)


def test_only_own_files_are_signed(start_gateway: StartGateway, s3: S3Server, url: str) -> None:
    """Other objects of the bucket, files above the limit and gateways without a bucket get no URL."""
    small = start_gateway(media_url=url, uploads_max_bytes=1000)
    with small.connect() as connection:
        for place in (f"{url}/in/footage.mp4", f"s3://{BUCKET}/elsewhere.mp4", f"{url}/uploads/none.mp4", "footage.mp4"):
            with pytest.raises(DubstageCallError) as caught:
                files.sign_download(connection, place)
            assert caught.value.code == "NOT_FOUND"
        uploaded(connection, "a.bin", os.urandom(600))
        files.sign_upload(connection, "a.bin", size_bytes=900, sha256="ab" * 32)
        for size_bytes, sha256, code in (
            (500, "ab" * 32, "RESOURCE_EXHAUSTED"),
            (5 << 30, "ab" * 32, "RESOURCE_EXHAUSTED"),
            ((5 << 30) + 1, "ab" * 32, "INVALID_ARGUMENT"),
            (0, "ab" * 32, "INVALID_ARGUMENT"),
            (9, "", "INVALID_ARGUMENT"),
            (9, "xy", "INVALID_ARGUMENT"),
        ):
            with pytest.raises(DubstageCallError) as caught:
                files.sign_upload(connection, "b.bin", size_bytes=size_bytes, sha256=sha256)
            assert caught.value.code == code
    with start_gateway().connect() as connection:
        with pytest.raises(DubstageCallError, match="signs no URLs: set its DUBSTAGE_MEDIA_URL") as caught:
            files.sign_upload(connection, "a.bin", size_bytes=9, sha256="ab" * 32)
        assert caught.value.code == "INVALID_ARGUMENT"
