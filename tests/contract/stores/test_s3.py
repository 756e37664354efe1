"""Artefacts in a real S3, over HTTP."""

import hashlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gateway.actors.store import ActorStore, owner_of
from gateway.cli.doctor import check_store
from gateway.settings import GatewaySettings
from services.common.errors import (
    ArtefactCorruptError,
    ArtefactNotFoundError,
    BackendUnavailableError,
    InvalidRequestError,
    StorageFullError,
    StorageRefusedError,
)
from services.common.store import backends
from services.common.store.artefacts import OWNER, ArrayCache, ArtefactRef, ArtefactStore
from tests.contract.ports import free_port
from tests.contract.stores.programs import begun, said_by
from tests.contract.stores.s3_servers import BUCKET, SECRET, Proxy, S3Server, answering, client_of, running_s3, without_conditions
from tests.refusals import raised

Aws = Callable[..., None]
GIVEN_UP_S = 60.0
"""Most seconds until an operation gives a server up. With the libraries' own patience it would take minutes."""


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own."""
    return f"s3://{BUCKET}/{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}/artefacts"


@pytest.fixture
def store(s3: S3Server, aws: Aws, url: str) -> ArtefactStore:
    aws(s3.endpoint)
    return ArtefactStore(url)


def key_of(ref: ArtefactRef) -> str:
    return ref.uri.removeprefix(f"s3://{BUCKET}/")


def test_one_database_owns_new_store(store: ArtefactStore, tmp_path: Path, url: str) -> None:
    """One of many databases that open a new store at the same time becomes its owner."""
    assert store.owner() is None

    def opened(number: int) -> str:
        try:
            with ActorStore(GatewaySettings(data_dir=tmp_path / str(number), artefacts_url=url)) as actors:
                return actors.database.id
        except StorageRefusedError as problem:
            return problem.message

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(opened, range(8)))
    refused = [text for text in told if f"the artefact store {url} belongs to another database" in text]
    assert len(refused) == 7
    assert all(f"remove {url}/{OWNER}" in text for text in refused)
    assert owner_of(store).database in told
    assert list(store.stored()) == []
    assert not store.set_owner(b"another")
    assert store.set_owner(b"another", replace=True)
    assert store.owner() == b"another"


def test_a_server_without_conditions_takes_the_owner_too(aws: Aws, s3: S3Server, url: str) -> None:
    """Older servers answer If-None-Match of a PUT with 501."""
    with without_conditions(s3.endpoint) as endpoint:
        aws(endpoint)
        store = ArtefactStore(url)
        assert store.set_owner(b"first")
        assert not store.set_owner(b"second")
        assert store.owner() == b"first"


def test_blobs_return_by_reference(store: ArtefactStore, s3: S3Server, url: str, tmp_path: Path) -> None:
    """Bytes files and arrays come back by references that name bucket and digest."""
    ref = store.put_bytes(b"mouth")
    assert ref.uri == f"{url}/{ref.sha256[:2]}/{ref.sha256}"
    assert store.get_bytes(ref) == b"mouth"
    assert store.put_bytes(b"mouth") == ref
    data = np.random.default_rng(0).bytes((9 << 20) + 17)
    (tmp_path / "clip").write_bytes(data)
    video = store.put_file(tmp_path / "clip")
    assert store.get_bytes(video) == data
    assert store.put_bytes(data) == video
    arrays = store.put_arrays({"landmarks": np.arange(12, dtype=np.float32)}, {"clip": "a"})
    assert store.get_arrays(arrays)["landmarks"].tolist() == list(range(12))
    assert store.get_bytes(store.put_bytes(b"")) == b""
    assert {key_of(one) for one in (ref, video, arrays)} <= set(s3.all_keys())


def test_what_lies_there_already_is_not_sent_again(store: ArtefactStore, s3: S3Server) -> None:
    ref = store.put_bytes(b"once")
    first = s3.client.head_object(Bucket=BUCKET, Key=key_of(ref))["LastModified"]
    time.sleep(1.1)
    store.put_bytes(b"once")
    assert s3.client.head_object(Bucket=BUCKET, Key=key_of(ref))["LastModified"] == first


def test_delete_reports_whether_blob_existed(store: ArtefactStore, s3: S3Server) -> None:
    gone, stays = store.put_bytes(b"gone"), store.put_bytes(b"stays")
    assert store.exists(gone)
    assert store.delete(gone)
    assert not store.exists(gone)
    assert not store.delete(gone)
    assert key_of(gone) not in s3.all_keys()
    assert store.get_bytes(stays) == b"stays"
    with raised(ArtefactNotFoundError, match=gone.sha256, resource=gone.uri):
        store.get_bytes(gone)


def test_cache_drops_erased_blob(store: ArtefactStore, s3: S3Server) -> None:
    """The cache does not serve what another process erased."""
    cache = ArrayCache(store, max_bytes=2000)
    ref = store.put_arrays({"a": np.zeros(10, np.uint8)})
    cache.get_arrays(ref)
    s3.client.delete_object(Bucket=BUCKET, Key=key_of(ref))
    with pytest.raises(ArtefactNotFoundError):
        cache.get_arrays(ref)


@pytest.mark.parametrize("damage", [b"moutH", b"mou", b"", b"mouth and more"])
def test_damaged_object_refused_and_repaired(store: ArtefactStore, s3: S3Server, damage: bytes) -> None:
    ref = store.put_bytes(b"mouth")
    s3.client.put_object(Bucket=BUCKET, Key=key_of(ref), Body=damage)
    with raised(ArtefactCorruptError, match=ref.sha256, resource=ref.uri):
        store.get_bytes(ref)
    assert store.put_bytes(b"mouth") == ref
    assert store.get_bytes(ref) == b"mouth"


def test_nothing_outside_of_the_prefix_can_be_named(store: ArtefactStore, s3: S3Server, url: str) -> None:
    ref = store.put_bytes(b"mouth")
    name = f"{ref.sha256[:2]}/{ref.sha256}"
    s3.client.put_object(Bucket=BUCKET, Key=name, Body=b"mouth")
    for uri in (f"s3://{BUCKET}/{name}", f"{url}2/{name}", f"{url}/../{name}", f"s3://other/{name}", f"{url}//{name}", name):
        for use in (store.get_bytes, store.exists, store.delete):
            with pytest.raises(InvalidRequestError, match="does not belong"):
                use(ArtefactRef(uri, ref.sha256, ref.size_bytes))


def test_concurrent_put_of_one_blob(store: ArtefactStore, s3: S3Server, url: str) -> None:
    """Many threads and processes put the same blob at once."""
    data = np.random.default_rng(1).bytes(1 << 20)
    script = f"""
import numpy as np
from services.common.store.artefacts import ArtefactStore
store = ArtefactStore({url!r})
for _ in range(2):
    print(store.put_bytes(np.random.default_rng(1).bytes(1 << 20)).sha256)
"""
    processes = [begun(script) for _ in range(2)]
    with ThreadPoolExecutor(6) as threads:
        refs = set(threads.map(lambda _: store.put_bytes(data), range(8)))
    (ref,) = refs
    for process in processes:
        assert process.communicate(timeout=120)[0].split() == [ref.sha256] * 2
        assert process.returncode == 0
    assert store.get_bytes(ref) == data
    assert [key for key in s3.all_keys() if key.startswith(url.removeprefix(f"s3://{BUCKET}/"))] == [key_of(ref)]


def test_missing_bucket_tells_remedy(s3: S3Server, aws: Aws) -> None:
    """A bucket that is not there is named with what to check."""
    aws(s3.endpoint)
    missing = ArtefactStore("s3://no-such-bucket/artefacts")
    with pytest.raises(StorageRefusedError, match="s3://no-such-bucket/artefacts") as caught:
        missing.put_bytes(b"mouth")
    assert s3.endpoint in caught.value.message
    sha256 = hashlib.sha256(b"mouth").hexdigest()
    with pytest.raises(StorageRefusedError, match="AWS_ENDPOINT_URL"):
        missing.get_bytes(ArtefactRef(f"{missing.url}/{sha256[:2]}/{sha256}", sha256, 5))
    assert "no-such-bucket" not in [bucket["Name"] for bucket in s3.client.list_buckets()["Buckets"]]


def test_wrong_credentials_never_shown(aws: Aws, url: str) -> None:
    """Credentials that are wrong or may only read are reported and never shown."""
    # The server begins to check after the requests that make the bucket, the object and the reader.
    with running_s3(INITIAL_NO_AUTH_ACTION_COUNT="5") as guarded:
        sha256 = hashlib.sha256(b"mouth").hexdigest()
        ref = ArtefactRef(f"{url}/{sha256[:2]}/{sha256}", sha256, 5)
        guarded.client.put_object(Bucket=BUCKET, Key=key_of(ref), Body=b"mouth")
        iam = client_of("iam", guarded.endpoint)
        iam.create_user(UserName="reader")
        may_read = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": may_read})
        iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
        reader = iam.create_access_key(UserName="reader")["AccessKey"]

        aws(guarded.endpoint, key="AKIAWRONG")
        for use in (lambda store: store.put_bytes(b"mouth"), lambda store: store.get_bytes(ref), lambda store: store.delete(ref)):
            with pytest.raises(StorageRefusedError, match="AWS_SECRET_ACCESS_KEY") as caught:
                use(ArtefactStore(url))
            assert url in caught.value.message
            assert SECRET not in caught.value.message

        aws(guarded.endpoint, key=reader["AccessKeyId"], secret=reader["SecretAccessKey"])
        assert ArtefactStore(url).get_bytes(ref) == b"mouth"
        with pytest.raises(StorageRefusedError, match="put"):
            ArtefactStore(url).put_bytes(b"nose")


def test_no_credentials_at_all_are_told(s3: S3Server, aws: Aws, url: str) -> None:
    aws(s3.endpoint, key="", secret="")
    with pytest.raises(StorageRefusedError, match="AWS_ACCESS_KEY_ID"):
        ArtefactStore(url).put_bytes(b"mouth")


@pytest.fixture
def proxy(s3: S3Server, aws: Aws) -> Iterator[Proxy]:
    """The way to the server, which a test cuts."""
    found = Proxy(int(s3.endpoint.rpartition(":")[2]))
    try:
        aws(found.endpoint)
        yield found
    finally:
        found.close()


def test_server_outage_and_return(proxy: Proxy, url: str) -> None:
    """A connection that breaks once is not noticed, and a server that is away is reported and found again."""
    store = ArtefactStore(url)
    ref = store.put_bytes(b"mouth")
    proxy.cut(connections=1)
    assert store.get_bytes(ref) == b"mouth"
    proxy.cut()
    begin = time.monotonic()
    for use in (lambda: store.put_bytes(b"nose"), lambda: store.get_bytes(ref), lambda: store.exists(ref)):
        with pytest.raises(BackendUnavailableError, match=url) as caught:
            use()
        assert proxy.endpoint in caught.value.message
        assert caught.value.retry_after_s > 0
    assert time.monotonic() - begin < 3 * GIVEN_UP_S
    proxy.heal()
    assert store.get_bytes(ref) == b"mouth"


def test_a_server_that_never_answers_is_given_up(aws: Aws, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that nobody listens at, and a server that says nothing."""
    monkeypatch.setattr(backends, "S3_READ_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (free_port(), silent.getsockname()[1]):
            aws(f"http://127.0.0.1:{port}")
            begin = time.monotonic()
            with pytest.raises(BackendUnavailableError, match="does not answer"):
                ArtefactStore(url).put_bytes(b"mouth")
            assert time.monotonic() - begin < GIVEN_UP_S


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "SlowDown", BackendUnavailableError),
        (500, "InternalError", BackendUnavailableError),
        (507, "XMinioStorageFull", StorageFullError),
        (403, "QuotaExceeded", StorageFullError),
        (400, "AuthorizationHeaderMalformed", StorageRefusedError),
        (403, "AccessDenied", StorageRefusedError),
    ],
)
def test_what_the_server_answers_says_who_must_act(aws, url, status, code, kind, tmp_path) -> None:
    """A blob and the owner of a store that the server does not take are told alike."""
    with answering(status, code) as (endpoint, _):
        aws(endpoint)
        with pytest.raises(kind, match=f"s3://{BUCKET}/none" if kind is StorageFullError else code):
            ActorStore(GatewaySettings(data_dir=tmp_path / "data", artefacts_url=f"s3://{BUCKET}/none"))
    with answering(status, code) as (endpoint, seen):
        aws(endpoint)
        with pytest.raises(kind, match=url):
            ArtefactStore(url).put_bytes(b"mouth")
    puts = [request for request in seen if request.startswith("PUT")]
    # Four attempts at most; the HTTP client repeats each that met a broken connection once. The libraries' own default is 25.
    assert 1 <= len(puts) <= 8
    # The bucket is in the path, not a name that a server of one's own would have to be known by.
    assert all(request.startswith(f"PUT /{BUCKET}/") for request in puts)


def test_doctor_tries_the_store(s3: S3Server, aws: Aws) -> None:
    """Doctor tries the store and tells where erased bytes would stay."""
    aws(s3.endpoint)
    for bucket in ("plain", "versioned"):
        s3.client.create_bucket(Bucket=bucket)
    s3.client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    assert check_store("s3://plain/artefacts") == "s3://plain/artefacts: put, read, deleted"
    assert s3.all_keys("plain") == []
    assert "keeps old versions" in check_store("s3://versioned/artefacts")


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "nonsense://bucket"])
def test_an_url_that_names_no_store_is_refused(aws: Aws, url: str) -> None:
    with raised(InvalidRequestError, field="DUBSTAGE_ARTEFACTS_URL"):
        ArtefactStore(url)


def test_without_the_package_the_remedy_is_named() -> None:
    script = """
import sys
sys.modules["s3fs"] = None
from services.common.store.artefacts import ArtefactStore
from services.common.errors import InvalidRequestError
try:
    ArtefactStore("s3://videos/artefacts")
except InvalidRequestError as error:
    print(error)
"""
    assert "pip install 'dubstage-suite[s3]'" in said_by(script)
