"""Media of shots on this machine, by HTTP and in a bucket."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.media.locations import copy_name, is_url, local_path
from gateway.provenance.binding import sidecar_of
from gateway.transfer import (
    digest_of,
    fetched,
    fetched_in_thread,
    input_problem,
    output_file,
    output_problem,
    remove_uploaded,
    upload,
)
from services.common.errors import ArtefactNotFoundError, BackendUnavailableError, InvalidRequestError, StorageFullError
from tests.contract.stores.s3_servers import BUCKET, S3Server, aws, s3
from tests.file_limit import files_of_at_most

__all__ = ["aws", "s3"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


class Held(Quiet):
    """Sends 10 MB of a file, and the rest when `released` is set. The file can only be read from its beginning."""

    released = threading.Event()

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "none")
        super().end_headers()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        outputfile.write(source.read(10_000_000))
        self.released.wait(60)
        super().copyfile(source, outputfile)


@contextmanager
def serving(handler: type[Quiet], folder: Path) -> Iterator[str]:
    """Serve the files of a folder, and give the URL of the folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server with one video of 3 MB."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "plate.mov").write_bytes(bytes(3_000_000))
    with serving(Quiet, tmp_path / "site") as url:
        yield url


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("/plates/a.mov", "/plates/a.mov"),
        ("plates/s3:a.mov", "plates/s3:a.mov"),
        ("file:///plates/a.mov", "/plates/a.mov"),
        ("s3://bucket/a.mov", None),
        ("https://host/a.mov", None),
        ("simplecache::s3://bucket/a.mov", None),
    ],
)
def test_a_place_is_a_path_or_a_url(place: str, path: str | None) -> None:
    assert local_path(place) == path
    assert is_url(place) is (path is None)


def test_local_file_used_in_place(tmp_path: Path) -> None:
    """A file of this machine is used where it lies."""
    plate = tmp_path / "plate.mov"
    plate.write_bytes(b"video")
    assert fetched(str(plate), tmp_path / "aside", field="footage", max_bytes=1) == plate
    assert digest_of(str(plate)) == hashlib.sha256(b"video").hexdigest()
    assert digest_of(str(tmp_path / "none.mov")) is None


def test_copy_keeps_video_extension(site: str, tmp_path: Path) -> None:
    """A copy has the file extension of its URL if that is an extension of a video."""
    copy = fetched(f"{site}/plate.mov?signature=x.y", tmp_path, field="footage", max_bytes=1 << 30)
    assert copy.name == "footage.mov"
    assert copy_name("speech", f"s3://bucket/take.{'b' * 300}") == "speech"


def test_server_without_ranges(site: str, tmp_path: Path) -> None:
    """A large file comes whole from a web server that neither sends parts nor says so."""
    content = os.urandom(20_000_000)
    (tmp_path / "site" / "large.mov").write_bytes(content)
    assert fetched(f"{site}/large.mov", tmp_path, field="footage", max_bytes=1 << 30).read_bytes() == content


def test_nameless_url_is_row_problem() -> None:
    """URLs that can name no file are a problem of the row."""
    for place in ("s3://bucket/a\nb.mov", f"s3://bucket/{'a' * 1025}"):
        assert "cannot be used" in input_problem(place)
        assert "cannot be used" in output_problem(place)


def test_local_video_and_folder_written(tmp_path: Path) -> None:
    """A video of this machine is written at its place and its folder is made."""
    place = tmp_path / "films" / "day 1" / "a.mp4"
    assert output_file(str(place), tmp_path / "aside") == place
    place.write_bytes(b"video")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequestError, match="file cannot be made"):
        output_file(f"{tmp_path}/file/a.mp4", tmp_path)


def test_replaced_upload_stays(s3: S3Server, aws: Callable[..., None], tmp_path: Path) -> None:
    """What an upload wrote is removed, unless another upload has replaced it meanwhile."""
    aws(s3.endpoint)
    video, place, uploaded = tmp_path / "output.mkv", f"s3://{BUCKET}/{tmp_path.name}/a.mkv", dict[str, str]()
    video.write_bytes(b"video")
    sidecar_of(video).write_bytes(b"manifest")
    upload(video, place, uploaded.__setitem__)
    assert uploaded == {f"{place}.c2pa": hashlib.sha256(b"manifest").hexdigest(), place: digest_of(place)}
    video.write_bytes(b"another video")
    upload(video, place)
    remove_uploaded(uploaded)
    assert (digest_of(f"{place}.c2pa"), digest_of(place)) == (None, hashlib.sha256(b"another video").hexdigest())
    remove_uploaded(uploaded)


def test_problems_of_files_are_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "empty.mov").write_bytes(b"")
    (tmp_path / "plate.mov").write_bytes(b"video")
    os.mkfifo(tmp_path / "pipe.mov")
    assert input_problem(f"{tmp_path}/plate.mov") == ""
    assert input_problem(f"{tmp_path}/none.mov") == f"no such file {tmp_path}/none.mov"
    assert input_problem(f"{tmp_path}/empty.mov").endswith("is empty")
    assert input_problem(f"{tmp_path}/pipe.mov").endswith("is no regular file")
    assert "cannot be read" in input_problem("/a\0b")
    assert "cannot be read" in input_problem(f"/{'a' * 300}.mov")
    assert output_problem(f"{tmp_path}/new/folder/a.mp4") == output_problem(f"{tmp_path}/plate.mov") == ""
    assert output_problem(str(tmp_path)).endswith("give another name")
    assert output_problem(f"{tmp_path}/plate.mov/a.mp4").endswith("plate.mov is no folder")
    assert "NUL byte" in output_problem("/a\0b")
    assert "at most" in output_problem(f"/{'a' * 300}.mov")


def test_web_footage_size_limit(site: str, tmp_path: Path) -> None:
    """Footage of a web server is copied up to a limit."""
    copy = fetched(f"{site}/plate.mov?take=2", tmp_path, field="footage", max_bytes=3_000_000)
    assert (copy.name, copy.stat().st_size) == ("footage.mov", 3_000_000)
    with pytest.raises(InvalidRequestError, match=r"larger than 0\.003 GB, the most that is copied"):
        fetched(f"{site}/plate.mov", tmp_path, field="speech", max_bytes=2_999_999)
    assert input_problem(f"{site}/plate.mov") == ""
    assert input_problem(f"{site}/none.mov") == f"no such file {site}/none.mov"
    with pytest.raises(ArtefactNotFoundError, match=r"none\.mov"):
        fetched(f"{site}/none.mov", tmp_path, field="speech", max_bytes=1 << 30)


def test_full_disk_leaves_no_copy(site: str, tmp_path: Path) -> None:
    """A full disk leaves no part of a copy."""
    folder = tmp_path / "aside"
    folder.mkdir()
    with files_of_at_most(100_000), pytest.raises(StorageFullError, match=r"no space left in .*aside: free some"):
        fetched(f"{site}/plate.mov", folder, field="footage", max_bytes=1 << 30)
    assert list(folder.iterdir()) == []


async def test_cancelled_copy_ends(tmp_path: Path) -> None:
    """A copy that is cancelled ends before the end of the file, and leaves nothing."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "plate.mov").write_bytes(bytes(40_000_000))
    folder = tmp_path / "aside"
    folder.mkdir()
    with serving(Held, tmp_path / "site") as url:
        copy = asyncio.create_task(fetched_in_thread(f"{url}/plate.mov", folder, field="footage", max_bytes=1 << 30))
        while not any(path.stat().st_size for path in folder.iterdir()):
            assert not copy.done()
            await asyncio.sleep(0.01)
        copy.cancel()
        asyncio.get_running_loop().call_soon(Held.released.set)
        with pytest.raises(asyncio.CancelledError):
            await copy
    assert list(folder.iterdir()) == []


async def test_manifest_beside_file_is_copied(site: str, tmp_path: Path) -> None:
    """The manifest of a file that cannot hold it lies beside the copy, but for a URL with a query."""
    for name in ("a.mkv", "a.mkv.c2pa", "b.mxf"):
        (tmp_path / "site" / name).write_bytes(name.encode())
    for location, beside in (("a.mkv", b"a.mkv.c2pa"), ("b.mxf", None), ("a.mkv?signature=1", None)):
        folder = tmp_path / location
        folder.mkdir()
        copy = await fetched_in_thread(f"{site}/{location}", folder, field="footage", max_bytes=1 << 20)
        sidecar = sidecar_of(copy)
        assert (sidecar.read_bytes() if sidecar.exists() else None) == beside
        assert set(folder.iterdir()) == {copy} | ({sidecar} if beside else set())


def test_silent_server_is_retryable(tmp_path: Path) -> None:
    """A server that does not answer may answer later."""
    with pytest.raises(BackendUnavailableError, match=r"the store of the footage http://127\.0\.0\.1:9/a\.mov does not answer"):
        fetched("http://127.0.0.1:9/a.mov", tmp_path, field="footage", max_bytes=1 << 30)


@pytest.mark.parametrize("place", ["https://host/a.mp4", "s3://bucket", "s3:///key", "ftp://host/a.mp4", "simplecache::s3://b/k"])
def test_a_video_cannot_go_everywhere(place: str, tmp_path: Path) -> None:
    assert output_problem(place).endswith("give a path or s3://BUCKET/KEY")
    with pytest.raises(InvalidRequestError, match="give a path or s3://BUCKET/KEY") as caught:
        output_file(place, tmp_path)
    assert caught.value.field == "output"


def test_sequences_in_many_threads(tmp_path: Path) -> None:
    """The first patterns of a process may come in several threads at once."""
    script = (
        "import sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom gateway.transfer import footage_problem\n"
        "names = [f'{sys.argv[1]}/{number}.%04d.exr' for number in range(64)]\n"
        "with ThreadPoolExecutor(32) as threads:\n    print(*threads.map(footage_problem, names), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if "has no file of this sequence" not in line] == []
