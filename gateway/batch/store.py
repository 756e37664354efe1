"""Store of batches: a folder or bucket with what is known of every batch and every shot.

    NAME/batch.json         facts of the batch (BatchFacts)
    NAME/manifest.jsonl     canonical rows (Manifest.content)
    NAME/shots/ID.json      record of a shot (ShotRecord); no file: the shot waits
    NAME/shots/ID.jpg       picture of the video
    NAME/cancelled/ID       empty file: the shot is cancelled
    NAME/options/ID.json    options of the shot that were changed since the batch was submitted
    NAME/earlier/ID.json    the video that the last retry has replaced, which lies beside the shot's video (EarlierVideo)
    NAME/decisions/ID~NUMBER~TIME~TOKEN.json    decision of a person about the shot (Decision)
    NAME/index.json         facts for lists (gateway/batch/index.py), which may be missing or old

Any number of processes and machines read and write a batch at once. Every file is written whole or not at all. Each shot has
files of its own, so that writers of different shots never meet. Any file system of fsspec serves.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from dubstage.gateway.v1.dub_pb2 import ShotOptions
from gateway.batch.reviews import Decision
from gateway.batch.types import (
    ENDED,
    WRITTEN,
    BatchFacts,
    BatchName,
    EarlierVideo,
    Manifest,
    ShotRecord,
    ShotSpec,
    ShotState,
    options_in,
    shots_of,
)
from gateway.dub.request.spec_text import to_json
from gateway.media.locations import local_path
from gateway.media.sequence_names import LISTING_SUFFIX
from gateway.private_files import data_folder
from gateway.settings import GatewaySettings
from services.common.errors import ArtefactCorruptError, BatchNotFoundError, InvalidRequestError, StorageRefusedError
from services.common.files import BLOB_MODE, PARTIAL, create_whole, write_whole
from services.common.store.backends import open_backend
from services.common.texts import Command, Option, Text

_VERSION: Final = ("ETag", "ino", "mtime", "LastModified", "created", "size")
"""Facts of a file system about a file that change when the file is written again."""

_THREADS: Final = 16
_NAMED: Final = 10
"""Most shots that a message names."""
_RECORDS_AT_ONCE: Final = 500
"""Records of shots that are read at once while one is looked for."""
_KILLED_NS: Final = 24 * 60 * 60 * 1_000_000_000
"""Age from which on a half-written file is the file of a killed process, nanoseconds."""
_SETTLED_NS: Final = 3_000_000_000
"""Age of a change from which on a further change has another time in every file system, nanoseconds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """File of a folder.

    Attributes:
        name: name of the file or folder.
        version: facts that change when the file is written again.
    """

    name: str
    version: tuple[Any, ...]


class Folder:
    """A folder of small files. All methods block, and may be called from any thread.

    Paths are relative to the root, with slashes. Each method raises StorageRefusedError, StorageFullError or
    BackendUnavailableError as `StoreBackend.domain_errors` says.

    Args:
        url: path, or URL of fsspec.
        what: name of the folder in messages, such as `the store of batches`.
        setting: setting that holds the URL, for messages.

    Raises:
        InvalidRequestError: there is no such protocol, its package is not installed, or the URL names no bucket.
    """

    def __init__(self, url: str, *, what: str, setting: str) -> None:
        self._backend = open_backend(url, what=what, setting=setting)
        self._fs, self._local = self._backend.files, self._backend.local
        # s3fs would ask for the size of every file before it reads the file.
        self._reading = {"max_concurrency": 1} if url.startswith("s3://") else {}

    @property
    def url(self) -> str:
        """Root with its protocol."""
        return self._backend.url

    def place(self, path: str) -> str:
        """Return a file's full path or URL, for messages."""
        return self._full(path) if self._local else f"{self.url}/{path}"

    def entries(self, path: str, ending: str = "") -> list[Entry]:
        """Return the files and folders in a folder, in no particular order. Half-written files are left out.

        A missing folder is empty.

        Args:
            path: the folder.
            ending: end of the names that are returned.
        """
        try:
            with self._backend.domain_errors():
                if self._local:
                    return _scanned(self._full(path), ending)
                found: list[dict[str, Any]] = self._fs.ls(self._full(path), detail=True)
        except FileNotFoundError:
            return []
        entries = [Entry(_name(facts), tuple(str(facts.get(key)) for key in _VERSION)) for facts in found]
        return [entry for entry in entries if entry.name and not entry.name.startswith(".") and entry.name.endswith(ending)]

    def names(self, path: str, beginning: str = "") -> list[str]:
        """Return the names of `entries` that begin with a text."""
        try:
            with self._backend.domain_errors():
                if self._local:
                    found = os.listdir(self._full(path))
                elif beginning and self._reading:
                    # S3 lists only the objects whose keys begin so.
                    found = [one.rpartition("/")[2] for one in self._fs.find(self._full(path), prefix=beginning)]
                else:
                    found = [entry.name for entry in self.entries(path)]
        except FileNotFoundError:
            return []
        return [name for name in found if name.startswith(beginning) and not name.startswith(".")]

    def stamp(self, paths: Sequence[str]) -> tuple[tuple[int, int], ...] | None:
        """Return facts about folders that change when a file in a folder is written or removed; None: the store cannot say.

        A file system may give two changes at nearly the same time one time: folders that were changed just now have no stamp.
        """
        if not self._local:
            return None
        found = []
        with self._backend.domain_errors():
            for path in paths:
                try:
                    facts = os.stat(self._full(path))
                    found.append((facts.st_ino, facts.st_mtime_ns))
                except FileNotFoundError:
                    found.append((0, 0))
        return tuple(found) if max(time for _, time in found) < time_ns() - _SETTLED_NS else None

    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None: there is no such file."""
        try:
            with self._backend.domain_errors():
                return bytes(self._fs.cat_file(self._full(path), **self._reading))
        except FileNotFoundError:
            return None

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the contents of files by path, read at once where the file system can. Missing files are left out."""
        if not paths:
            return {}
        if self._local:
            # fsspec takes several times as long for 10,000 files.
            with self._backend.domain_errors():
                read = {path: _content_of(self._full(path)) for path in paths}
            return {path: content for path, content in read.items() if content is not None}
        with self._backend.domain_errors():
            contents = self._fs.cat_ranges([self._full(path) for path in paths], None, None, on_error="return", **self._reading)
        found: dict[str, bytes] = {}
        for path, content in zip(paths, contents, strict=True):
            if isinstance(content, bytes):
                found[path] = content
                continue
            with suppress(FileNotFoundError), self._backend.domain_errors():
                raise content
        return found

    def read_spans(self, path: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of a file, each from its first byte to before its end.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self._backend.domain_errors():
            if not self._local:
                full, (begins, ends) = self._full(path), zip(*spans, strict=True)
                return [bytes(part) for part in self._fs.cat_ranges([full] * len(spans), list(begins), list(ends))]
            with Path(self._full(path)).open("rb") as file:
                return [os.pread(file.fileno(), end - begin, begin) for begin, end in spans]

    def exists(self, path: str) -> bool:
        """Return whether there is such a file."""
        try:
            with self._backend.domain_errors():
                self._fs.info(self._full(path))
        except FileNotFoundError:
            return False
        return True

    def write(self, path: str, content: bytes) -> None:
        """Write a file, in place of an older one."""
        self.write_all({path: content})

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """Write files by path, at once where the file system can. Each file is written whole or not at all."""
        with self._writing(contents):
            if self._local:
                # The disk confirms many files at once in the time of one.
                with ThreadPoolExecutor(min(_THREADS, len(contents)) or 1) as threads:
                    list(threads.map(self._write_locally, contents.items()))
            elif contents:
                self._fs.pipe({self._full(path): content for path, content in contents.items()})

    def create(self, path: str, content: bytes) -> bool:
        """Write a file that does not exist yet. Return whether this call made the file: of several callers, one does."""
        try:
            with self._writing([path]):
                if self._local:
                    return create_whole(Path(self._full(path)), content, mode=BLOB_MODE, parents=True)
                # Some stores do not know the condition "only if there is none" and would replace the file.
                if self._fs.exists(self._full(path)):
                    return False
                try:
                    self._fs.pipe_file(self._full(path), content, mode="create")
                except FileExistsError:
                    return False
        except FileExistsError:
            return False
        return True

    def size_bytes(self, path: str) -> int:
        """Return the bytes of all files in a folder and below. A missing folder has none."""
        try:
            with self._backend.domain_errors():
                return int(self._fs.du(self._full(path)))
        except FileNotFoundError:
            return 0

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove files. Missing files are left out."""
        with self._backend.domain_errors():
            if not self._reading:
                for path in paths:
                    with suppress(FileNotFoundError):
                        self._fs.rm_file(self._full(path))
            elif paths:
                # S3 removes a thousand objects with one request, and does not mind missing ones.
                self._fs.rm([self._full(path) for path in paths])

    def remove_partials(self, path: str) -> None:
        """Remove half-written files of killed processes, older than a day, from a folder of this machine. Buckets have none."""
        if not self._local:
            return
        with suppress(OSError), os.scandir(self._full(path)) as files:
            for file in files:
                if file.name.startswith(PARTIAL) and file.stat().st_mtime_ns < time_ns() - _KILLED_NS:
                    os.unlink(file.path)

    def remove_empty(self, path: str) -> None:
        """Remove a folder that holds no files other than hidden ones. A bucket has no folders."""
        if not self._local:
            return
        folder = Path(self._full(path))
        if self.entries(path):
            return
        with suppress(OSError):
            for left in folder.iterdir():
                left.unlink()
            folder.rmdir()

    def _write_locally(self, file: tuple[str, bytes]) -> None:
        path, content = file
        write_whole(Path(self._full(path)), content, mode=BLOB_MODE, parents=True)

    def _full(self, path: str) -> str:
        return f"{self._backend.root}/{path}" if path else self._backend.root

    @contextmanager
    def _writing(self, paths: Mapping[str, bytes] | Sequence[str]) -> Iterator[None]:
        try:
            with self._backend.domain_errors():
                if self._backend.has_folders and not self._local:
                    for folder in {self._full(path).rpartition("/")[0] for path in paths}:
                        self._fs.makedirs(folder, exist_ok=True)
                yield
        except FileNotFoundError as error:
            raise StorageRefusedError(
                f"{self._backend.what} {self._backend.where} takes nothing: {error}", subject=self.url
            ) from error


def _content_of(path: str) -> bytes | None:
    # pathlib takes as long again for 10,000 files.
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except FileNotFoundError:
        return None


def _scanned(folder: str, ending: str) -> list[Entry]:
    """Return the files and folders in a folder of this machine, whose names do not begin with a dot."""
    found = []
    with os.scandir(folder) as files:
        for file in files:
            if file.name.endswith(ending) and not file.name.startswith("."):
                with suppress(FileNotFoundError):
                    facts = file.stat()
                    found.append(Entry(file.name, (facts.st_ino, facts.st_mtime_ns, facts.st_size)))
    return found


def _name(facts: Mapping[str, Any]) -> str:
    return str(facts["name"]).rstrip("/").rpartition("/")[2]


_Document = TypeVar("_Document", bound=BaseModel)


def facts_path(name: str) -> str:
    """Return the path of the facts of a batch (BatchFacts)."""
    return f"{name}/batch.json"


def manifest_path(name: str) -> str:
    """Return the path of the canonical rows of a batch."""
    return f"{name}/manifest.jsonl"


def record_path(name: str, shot_id: str) -> str:
    """Return the path of the record of a shot (ShotRecord)."""
    return f"{name}/shots/{shot_id}.json"


def thumbnail_path(name: str, shot_id: str) -> str:
    """Return the path of the picture of a shot's video (JPEG)."""
    return f"{name}/shots/{shot_id}.jpg"


def index_path(name: str) -> str:
    """Return the path of the index of a batch."""
    return f"{name}/index.json"


def mark_path(name: str, shot_id: str) -> str:
    """Return the path of the mark of a cancelled shot."""
    return f"{name}/cancelled/{shot_id}"


def options_path(name: str, shot_id: str) -> str:
    """Return the path of the changed options of a shot."""
    return f"{name}/options/{shot_id}.json"


def earlier_path(name: str, shot_id: str) -> str:
    """Return the path of what is known of a shot's earlier video (EarlierVideo)."""
    return f"{name}/earlier/{shot_id}.json"


_EARLIER: Final = ".earlier-"
_MOST_EARLIER_BYTES: Final = 1 << 30
"""Size of the largest video that a retry keeps."""


def place_of_earlier(output: str) -> str:
    """Return the path of the earlier video of a shot, beside the shot's video."""
    folder, slash, name = output.rpartition("/")
    return f"{folder}{slash}{_EARLIER}{name}"


def _is_own(video: EarlierVideo) -> bool:
    return video.place == place_of_earlier(local_path(video.output) or video.output)


def decision_path(name: str, decision: Decision) -> str:
    """Return the path of a decision. Paths of a shot sort in the order of its decisions."""
    time = "".join(filter(str.isdigit, decision.decided_at))
    return f"{name}/decisions/{decision.id}~{decision.number:06d}~{time}~{decision.token}.json"


def json_of(document: BaseModel) -> bytes:
    """Return the content of a document's file."""
    return f"{document.model_dump_json(indent=1)}\n".encode()


def document_of(kind: type[_Document], content: bytes, place: str) -> _Document:
    """Return the document that `json_of` wrote.

    Args:
        kind: class of the document.
        content: content of the file.
        place: path or URL of the file, for the message.

    Raises:
        ArtefactCorruptError: the content is no document of this class.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as problem:
        raise damaged(place, problem) from problem


def damaged(place: str, problem: ValueError) -> ArtefactCorruptError:
    """Return the error for a damaged file.

    Args:
        place: path or URL of the file.
        problem: what is wrong with the content.
    """
    first = problem.errors()[0] if isinstance(problem, ValidationError) else None
    where = "" if first is None else f" ({'.'.join(str(part) for part in first['loc']) or 'file'}: {first['msg']})"
    # A batch without its facts or its rows cannot be used.
    alone = any(f"/{folder}/" in place for folder in ("shots", "decisions", "options", "earlier"))
    remove = "remove the file" if alone else f"remove the folder {place.rpartition('/')[0]}"
    return ArtefactCorruptError(f"{place} is damaged{where}: restore the file from a backup, or {remove}", resource=place)


Engine = Literal["local", "kubernetes", "farm", "gateway"]
SETTING: Final = "DUBSTAGE_BATCHES_URL"


def open_batches(settings: GatewaySettings) -> BatchStore:
    """Return the store that the settings name: `batches_url`, or the folder `batches` of the data folder.

    Raises:
        InvalidRequestError: there is no such protocol, or its package is not installed.
        StorageRefusedError: the data folder cannot be made.
    """
    if settings.batches_url:
        return BatchStore(settings.batches_url)
    data_folder(settings.data_dir)
    return BatchStore(str(settings.data_dir / "batches"))


class BatchStore:
    """Store of batches. All methods block, and may be called from any thread.

    Each method raises StorageRefusedError where the store refuses (credentials, permissions, no such bucket), StorageFullError
    where no space is left, and BackendUnavailableError where the store does not answer. Methods that take the name of a batch raise
    BatchNotFoundError if there is no such batch, and ArtefactCorruptError if a file of the batch is damaged.

    Args:
        url: a folder, or an fsspec URL such as `s3://BUCKET/PREFIX`. S3 takes its credentials, region and endpoint from the
            environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...).

    Raises:
        InvalidRequestError: there is no such protocol, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        self._folder = Folder(url, what="the store of batches", setting=SETTING)
        self._shots: dict[str, tuple[ShotSpec, ...]] = {}
        self._ids: dict[str, _Rows] = {}
        self._read: dict[str, tuple[Entry, ShotRecord]] = {}
        self._decisions: dict[str, Decision] = {}
        self._options: dict[str, tuple[Entry, dict[str, Any]]] = {}

    @property
    def url(self) -> str:
        """Root with its protocol."""
        return self._folder.url

    def create(self, manifest: Manifest, engine: Engine) -> BatchFacts:
        """Create the batch of a manifest. If the batch exists with the same manifest, nothing changes.

        Returns:
            The facts of the batch. If the batch existed, `created_at`, `engine` and `details` are those of the batch.

        Raises:
            InvalidRequestError: the batch exists with another manifest.
        """
        name = manifest.name
        before = self.find(name)
        if before is not None and before.removing:
            # Whoever removed the batch died over the removal.
            self.remove(name)
        # The rows come first and the facts last, so that a batch whose creator died is completed by the next creator. Of several
        # creators at once, one writes each file.
        if not self._folder.create(manifest_path(name), manifest.content) and self._rows(name) != manifest.content:
            raise InvalidRequestError(
                Text(
                    "batch {name} exists in {url} with another manifest: choose another {option}, or submit the manifest of the "
                    "batch with the same ids in the same order. Rows of shots that are not done may be changed",
                    name=name,
                    url=self.url,
                    option=Option("batch_id", "NAME"),
                ),
                field="name",
            )
        facts = BatchFacts(name=name, manifest_sha256=manifest.sha256, rows=len(manifest.shots), created_at=_now(), engine=engine)
        return facts if self._folder.create(facts_path(name), json_of(facts)) else self.facts(name)

    def revise(self, manifest: Manifest, *, is_idle: bool = False) -> list[str]:
        """Take over changed rows of a manifest, and let the changed shots begin anew. Shots of unchanged rows stay as they are.

        A row may differ in its lines alone. The row of a shot that is not done, such as one that failed or has not begun, may
        differ in everything but its id. If there is no such batch, or the ids or their order differ, nothing changes.

        Args:
            manifest: the new rows.
            is_idle: whether it is known that no worker dubs shots of the batch: shots that count as running were abandoned.

        Returns:
            Ids of the changed shots.

        Raises:
            InvalidRequestError: the row of a shot that is done differs, or shots of the batch are running, in a cluster also: wait
                for a pod. If only lines differ: shots have not ended.
        """
        name, before = manifest.name, self.find(manifest.name)
        if before is None or before.removing or before.manifest_sha256 == manifest.sha256:
            return []
        shots = self._all_shots(name)
        if [shot.id for shot in shots] != [shot.id for shot in manifest.shots]:
            return []
        pairs = [(old, new) for old, new in zip(shots, manifest.shots, strict=True) if old != new]
        changed, records = [new.id for _, new in pairs], self.records(name)
        if all(old.revises(new) for old, new in pairs):
            if left := sum(record.state not in ENDED for record in records):
                raise InvalidRequestError(
                    f"batch {name} has other lines, and {left} of its shots have not ended: wait, or cancel the batch first",
                    field="name",
                )
        else:
            states = {record.id: record.state for record in records}
            if done := [new.id for old, new in pairs if states[new.id] is ShotState.DONE and not old.revises(new)]:
                raise InvalidRequestError(
                    Text(
                        "batch {name} has shots that are done and whose rows differ: {done}. Restore these rows, change options by "
                        "{retry}, or submit the manifest under another name",
                        name=name,
                        done=", ".join(done[:_NAMED]),
                        retry=Command("batch retry", f"{name} {done[0]}"),
                    ),
                    field="name",
                )
            # Jobs of a cluster begin waiting shots at any time.
            busy = {ShotState.RUNNING, ShotState.WAITING} if before.engine == "kubernetes" else {ShotState.RUNNING}
            left = sum(state in busy for state in states.values())
            if left and not is_idle:
                raise InvalidRequestError(
                    f"batch {name} has other rows, and {left} of its shots are running: wait, or cancel the batch first",
                    field="name",
                )
        # The facts come last, so that a change that was cut is completed by the next call.
        self.reset(name, changed)
        self._folder.write(manifest_path(name), manifest.content)
        self._folder.write(facts_path(name), json_of(before.model_copy(update={"manifest_sha256": manifest.sha256})))
        self._forget_rows(name)
        return changed

    def names(self) -> list[str]:
        """Return the names of all batches, sorted."""
        return [facts.name for facts in self.batches()]

    def batches(self) -> list[BatchFacts]:
        """Return the facts of all batches, sorted by name."""
        paths = [facts_path(entry.name) for entry in self._folder.entries("") if _is_name(entry.name)]
        found = self._folder.read_all(paths)
        facts = [document_of(BatchFacts, content, self._folder.place(path)) for path, content in found.items()]
        return sorted(facts, key=lambda batch: batch.name)

    def facts(self, name: str) -> BatchFacts:
        """Return the facts of a batch."""
        found = self.find(name)
        if found is None:
            raise self._missing(name)
        return found

    def find(self, name: str) -> BatchFacts | None:
        """Return the facts of a batch; None: there is no batch of this name."""
        content = self._folder.read(facts_path(name)) if _is_name(name) else None
        return None if content is None else document_of(BatchFacts, content, self._folder.place(facts_path(name)))

    def set_details(self, name: str, details: Mapping[str, Any]) -> BatchFacts:
        """Replace the details of a batch, which are the engine's own facts, and return the new facts."""
        facts = self.facts(name).model_copy(update={"details": dict(details)})
        self._folder.write(facts_path(name), json_of(facts))
        return facts

    def manifest(self, name: str) -> list[ShotSpec]:
        """Return the shots of a batch in the order of the rows, with the options that were changed."""
        shots = list(self._all_shots(name))
        entries = {f"{name}/options/{entry.name}": entry for entry in self._folder.entries(f"{name}/options")}
        if entries:
            paths = {path: row for row, shot in enumerate(shots) if (path := options_path(name, shot.id)) in entries}
            changed = [path for path in paths if (known := self._options.get(path)) is None or known[0] != entries[path]]
            for path, content in self._folder.read_all(changed).items():
                self._options[path] = (entries[path], self._changed(shots[paths[path]], path, content))
            for path, row in paths.items():
                if (known := self._options.get(path)) is not None:
                    shots[row] = shots[row].with_options(options_in(known[1]))
        return shots

    def ids(self, name: str) -> tuple[str, ...]:
        """Return the ids of all shots of a batch in the order of the rows."""
        return tuple(self._rows_of(name).row_by_id)

    def row_of(self, name: str, shot_id: str) -> int:
        """Return the row of a shot.

        Raises:
            BatchNotFoundError: the batch has no shot of this id.
        """
        self._check_ids(name, [shot_id])
        return self._rows_of(name).row_by_id[shot_id]

    def shot(self, name: str, row: int) -> ShotSpec:
        """Return the shot of a row, with the options that were changed."""
        shot = self.shots(name, [row])[0]
        return shot.with_options(options_in(self._options_of(name, shot)))

    def options(self, name: str, row: int) -> dict[str, Any]:
        """Return the options of the shot of a row that were changed since the batch was submitted (ShotOptions as JSON)."""
        return self._options_of(name, self.shots(name, [row])[0])

    def set_options(self, name: str, shot_id: str, options: ShotOptions) -> None:
        """Change options of a shot, which hold for its next dub. Options that were changed before and are not given stay.

        Args:
            options: checked options (`gateway.batch.changes.check_options`).

        Raises:
            BatchNotFoundError: the batch has no shot of this id.
        """
        every = options_in(self.options(name, self.row_of(name, shot_id)))
        every.MergeFrom(options)
        self._folder.write(options_path(name, shot_id), f"{json.dumps(to_json(every), indent=1, sort_keys=True)}\n".encode("ascii"))

    def shots(self, name: str, rows: Sequence[int]) -> list[ShotSpec]:
        """Return the shots of rows as they were submitted. Only these rows are read."""
        if name in self._shots:
            return [self._shots[name][row] for row in rows]
        spans = self._rows_of(name).spans
        try:
            texts = self._folder.read_spans(manifest_path(name), [spans[row] for row in rows]) if rows else []
            return [shot for text in texts for shot in shots_of(text)]
        except FileNotFoundError:
            raise self._missing(name) from None
        except ValueError:
            # Another process has revised the manifest, or the file is damaged.
            self._forget_rows(name)
            return [self._all_shots(name)[row] for row in rows]

    def has_written(self, place: str) -> bool:
        """Return whether a shot of a batch has written the video that lies at a path or URL now.

        The rows of all batches are searched as text: a row is read only if it names the place. The earlier video of a shot counts
        too.
        """
        folder, slash, file = place.rpartition("/")
        output = f"{folder}{slash}{file.removeprefix(_EARLIER)}"
        for name, shots in self._shots_that_name(output):
            for shot in shots:
                if shot.output != output:
                    continue
                kept = output != place and self.earlier(name, shot.id) is not None
                if kept or (output == place and self.record(name, shot.id).state in WRITTEN):
                    return True
        return False

    def has_dubbed(self, place: str) -> bool:
        """Return whether a shot of a batch was dubbed from the footage at a path or URL, and has its video or its earlier video.

        The rows are searched as `has_written` says.
        """
        for name, shots in self._shots_that_name(place):
            ids = [shot.id for shot in shots if shot.dub.footage_uri == place]
            for begin in range(0, len(ids), _RECORDS_AT_ONCE):
                part = ids[begin : begin + _RECORDS_AT_ONCE]
                if any(record.state in WRITTEN for record in self.stored_records(name, part)) or self.all_earlier(name, part):
                    return True
        return False

    def _shots_that_name(self, place: str) -> Iterator[tuple[str, tuple[ShotSpec, ...]]]:
        """Yield each batch with rows that hold a path or URL as a text, and the shots of these rows as they were submitted."""
        named = json.dumps(place).encode("ascii")
        for facts in self.batches():
            content = self._folder.read(manifest_path(facts.name)) or b""
            if named in content:
                yield facts.name, shots_of(b"\n".join(line for line in content.splitlines() if named in line))

    def record(self, name: str, shot_id: str) -> ShotRecord:
        """Return the record of a shot. A shot without a file waits. A cancelled shot that waits is CANCELLED.

        Raises:
            BatchNotFoundError: the batch has no shot of this id.
        """
        self._check_ids(name, [shot_id])
        path = record_path(name, shot_id)
        content = self._folder.read(path)
        record = ShotRecord(id=shot_id) if content is None else document_of(ShotRecord, content, self._folder.place(path))
        waits = record.state is ShotState.WAITING
        return _shown(record, cancelled=waits and self.is_cancelled(name, shot_id))

    def records(self, name: str) -> list[ShotRecord]:
        """Return the records of all shots in the order of the rows, each as `record` does.

        Only records that changed since the last call on this object are read again.
        """
        shots = self._all_shots(name)
        entries = {f"{name}/shots/{entry.name}": entry for entry in self._folder.entries(f"{name}/shots")}
        paths = [path for shot in shots if (path := record_path(name, shot.id)) in entries]
        changed = [path for path in paths if (known := self._read.get(path)) is None or known[0] != entries[path]]
        for path, content in self._folder.read_all(changed).items():
            self._read[path] = (entries[path], document_of(ShotRecord, content, self._folder.place(path)))
        cancelled = self.cancelled(name)
        found = {path: self._read[path][1] for path in paths if path in self._read}
        return [
            _shown(found.get(record_path(name, shot.id)) or ShotRecord(id=shot.id), cancelled=shot.id in cancelled)
            for shot in shots
        ]

    def records_of(self, name: str, shot_ids: Sequence[str]) -> list[ShotRecord]:
        """Return the records of some shots in the order of `shot_ids`, each as `record` does.

        Raises:
            BatchNotFoundError: the batch has no shot of one of the ids.
        """
        self._check_ids(name, shot_ids)
        stored = {record.id: record for record in self.stored_records(name, shot_ids)}
        found = [stored.get(one) or ShotRecord(id=one) for one in shot_ids]
        # Only marks of waiting shots count, and a list of many marks takes long.
        cancelled = self.cancelled(name) if any(record.state is ShotState.WAITING for record in found) else frozenset()
        return [_shown(record, cancelled=record.id in cancelled) for record in found]

    def stored_records(self, name: str, shot_ids: Sequence[str]) -> list[ShotRecord]:
        """Return the records of shots that have a file, as they are stored."""
        found = self._folder.read_all([record_path(name, shot_id) for shot_id in shot_ids])
        return [document_of(ShotRecord, content, self._folder.place(path)) for path, content in found.items()]

    def record_versions(self, name: str) -> dict[str, str]:
        """Return the version of the file of each record by the id of the shot. It changes when the record is written again."""
        found = self._folder.entries(f"{name}/shots", ".json")
        return {entry.name.removesuffix(".json"): "/".join(map(str, entry.version)) for entry in found}

    def listing_stamp(self, name: str) -> Hashable | None:
        """Return facts that change when a record, a decision or a mark of a batch is written; None: the store cannot say."""
        return self._folder.stamp([f"{name}/{inside}" for inside in ("shots", "decisions", "cancelled")])

    def saved_index(self, name: str) -> bytes | None:
        """Return the index of a batch; None: there is none."""
        return self._folder.read(index_path(name))

    def save_index(self, name: str, content: bytes) -> None:
        """Store the index of a batch, in place of an older one."""
        self._folder.write(index_path(name), content)

    def put(self, name: str, record: ShotRecord) -> None:
        """Store the record of a shot, in place of an older record."""
        self._folder.write(record_path(name, record.id), json_of(record))

    def put_thumbnail(self, name: str, shot_id: str, jpeg: bytes) -> None:
        """Store the picture of a shot's video (JPEG)."""
        self._folder.write(thumbnail_path(name, shot_id), jpeg)

    def thumbnail(self, name: str, shot_id: str) -> bytes | None:
        """Return the picture of a shot's video (JPEG); None: there is none."""
        return self._folder.read(thumbnail_path(name, shot_id))

    def thumbnails(self, name: str, shot_ids: Iterable[str]) -> dict[str, bytes]:
        """Return the pictures (JPEG) of several shots by id, read at once. Shots without a picture are left out."""
        paths = {thumbnail_path(name, shot_id): shot_id for shot_id in shot_ids}
        return {paths[path]: jpeg for path, jpeg in self._folder.read_all(list(paths)).items()}

    def remove_thumbnails(self, name: str, shot_ids: Sequence[str]) -> int:
        """Remove the pictures of shots, and return the number of pictures that there were."""
        there = {entry.name for entry in self._folder.entries(f"{name}/shots")} if shot_ids else set()
        kept = [shot_id for shot_id in shot_ids if f"{shot_id}.jpg" in there]
        self._folder.remove_all([thumbnail_path(name, shot_id) for shot_id in kept])
        return len(kept)

    def keep_videos(self, name: str, shot_ids: Sequence[str]) -> None:
        """Keep the present videos of shots that are dubbed again, each in place of the shot's earlier video.

        A video is a further name of the same file, so that nothing is copied. Videos in a bucket, on a file system without hard
        links, image sequences, or larger than `_MOST_EARLIER_BYTES` are not kept.

        Raises:
            BatchNotFoundError: the batch has no shot of one of the ids.
        """
        for record in self.records_of(name, shot_ids):
            output = local_path(record.output)
            if record.state not in WRITTEN or output is None or output.endswith(LISTING_SUFFIX):
                continue
            self.remove_earlier(name, [record.id])
            place = place_of_earlier(output)
            try:
                if os.path.islink(output) or os.path.getsize(output) > _MOST_EARLIER_BYTES:
                    continue
                with suppress(FileNotFoundError):
                    os.unlink(place)
                os.link(output, place)
            except OSError:
                # The video is gone, or the file system cannot keep it: the retry is what the user asked for.
                continue
            kept = EarlierVideo(place=place, output=record.output, sha256=record.output_sha256, options=record.options)
            self._folder.write(earlier_path(name, record.id), json_of(kept))

    def earlier(self, name: str, shot_id: str) -> EarlierVideo | None:
        """Return the video that the last retry of a shot has replaced; None: none is kept."""
        return self.all_earlier(name, [shot_id]).get(shot_id)

    def all_earlier(self, name: str, shot_ids: Iterable[str]) -> dict[str, EarlierVideo]:
        """Return the kept earlier videos of shots by id."""
        paths = {earlier_path(name, shot_id): shot_id for shot_id in shot_ids}
        found = self._folder.read_all(list(paths))
        videos = {paths[path]: document_of(EarlierVideo, text, self._folder.place(path)) for path, text in found.items()}
        # `remove_earlier` removes these files: a document that was written by others must not choose another file.
        own = {shot_id: video for shot_id, video in videos.items() if _is_own(video)}
        return {shot_id: video for shot_id, video in own.items() if os.path.isfile(video.place)}

    def remove_earlier(self, name: str, shot_ids: Sequence[str]) -> None:
        """Remove the earlier videos of shots.

        Raises:
            StorageRefusedError: a video cannot be removed. What is known of the video stays.
        """
        for shot_id, video in self.all_earlier(name, shot_ids).items():
            try:
                os.unlink(video.place)
            except FileNotFoundError:
                continue
            except OSError as problem:
                raise StorageRefusedError(
                    f"the earlier video {video.place} of shot {shot_id} cannot be removed: {problem.strerror}", subject=video.place
                ) from problem
        self._folder.remove_all([earlier_path(name, shot_id) for shot_id in shot_ids])

    def cancel(self, name: str, shot_ids: Sequence[str]) -> None:
        """Mark shots as cancelled. Waiting shots do not begin. Workers of running shots see the mark (`is_cancelled`) and stop.

        Raises:
            BatchNotFoundError: the batch has no shot of one of the ids.
        """
        self._check_ids(name, shot_ids)
        self._folder.write_all({mark_path(name, shot_id): b"" for shot_id in shot_ids})

    def is_cancelled(self, name: str, shot_id: str) -> bool:
        """Return whether a shot is marked as cancelled."""
        return self._folder.exists(mark_path(name, shot_id))

    def cancelled(self, name: str) -> frozenset[str]:
        """Return the ids of all shots that are marked as cancelled."""
        return frozenset(entry.name for entry in self._folder.entries(f"{name}/cancelled"))

    def reset(self, name: str, shot_ids: Sequence[str]) -> None:
        """Let shots wait again, whatever became of them: their records begin anew, and their marks as cancelled are removed.

        Raises:
            BatchNotFoundError: the batch has no shot of one of the ids.
        """
        self._check_ids(name, shot_ids)
        self._folder.write_all({record_path(name, shot_id): json_of(ShotRecord(id=shot_id)) for shot_id in shot_ids})
        self.uncancel(name, shot_ids)

    def uncancel(self, name: str, shot_ids: Sequence[str]) -> None:
        """Remove the marks of shots as cancelled. Shots without a mark stay as they are."""
        cancelled = self.cancelled(name)
        self._folder.remove_all([mark_path(name, shot_id) for shot_id in shot_ids if shot_id in cancelled])

    def decide(self, name: str, decision: Decision) -> Decision:
        """Add a decision to the decisions about its shot, and return the decision with its number and its token.

        Decisions of several people at once are all kept. The order is that of `Decision.order`.

        Raises:
            BatchNotFoundError: the batch has no shot of this id.
        """
        self._check_ids(name, [decision.id])
        self._folder.remove_partials(f"{name}/decisions")
        while True:
            number = max((int(path.split("~")[1]) for path in self._decision_paths(name, decision.id)), default=0) + 1
            numbered = decision.model_copy(update={"number": number, "token": secrets.token_hex(4)})
            if self._folder.create(decision_path(name, numbered), json_of(numbered)):
                return numbered

    def decisions(self, name: str, shot_id: str) -> list[Decision]:
        """Return all decisions about a shot, those about its earlier videos too, the last one last.

        Raises:
            BatchNotFoundError: the batch has no shot of this id.
        """
        self._check_ids(name, [shot_id])
        return self._read_decisions(self._decision_paths(name, shot_id))

    def all_decisions(self, name: str) -> dict[str, list[Decision]]:
        """Return what `decisions` returns about each shot that has a decision, by id. The decisions are listed once."""
        found: dict[str, list[Decision]] = {}
        for decision in self._read_decisions(self._decision_paths(name)):
            found.setdefault(decision.id, []).append(decision)
        return found

    def last_decisions(self, name: str) -> dict[str, Decision]:
        """Return the last decision about each shot that has one, by id. It may be about an earlier video (`reviews.present`).

        Only decisions that were added since the last call on this object are read.
        """
        last = {shot_of_decision(path): path for path in self._decision_paths(name)}
        return {decision.id: decision for decision in self._read_decisions(list(last.values()))}

    def decision_files(self, name: str, shot_id: str = "") -> list[str]:
        """Return the names of the files of all decisions, or of those about one shot, in order (`shot_of_decision`)."""
        found = self._folder.names(f"{name}/decisions", f"{shot_id}~" if shot_id else "")
        return sorted(one for one in found if one.endswith(".json") and one.count("~") == 3)

    def decisions_in(self, name: str, files: Sequence[str]) -> dict[str, Decision]:
        """Return decisions by the names of their files. Missing files are left out."""
        paths = {f"{name}/decisions/{file}": file for file in files}
        found = self._folder.read_all(list(paths))
        return {paths[path]: document_of(Decision, content, self._folder.place(path)) for path, content in found.items()}

    def remove(self, name: str) -> None:
        """Remove a batch: rows, records, pictures, marks, decisions and earlier videos. The videos stay.

        The facts are removed last. If the removal is cut, the batch is `removing`, and is removed by the next call, or by `create`.
        """
        facts = self.facts(name)
        if not facts.removing:
            self._folder.write(facts_path(name), json_of(facts.model_copy(update={"removing": True})))
        self.remove_earlier(name, [entry.name.removesuffix(".json") for entry in self._folder.entries(f"{name}/earlier")])
        for inside in ("shots", "cancelled", "decisions", "options", "earlier"):
            self._folder.remove_all([f"{name}/{inside}/{entry.name}" for entry in self._folder.entries(f"{name}/{inside}")])
            self._folder.remove_empty(f"{name}/{inside}")
        self._folder.remove_all([manifest_path(name), index_path(name)])
        self._folder.remove_all([facts_path(name)])
        self._folder.remove_empty(name)
        self._forget_rows(name)

    def size_bytes(self, name: str) -> int:
        """Return the bytes of all files of a batch."""
        return self._folder.size_bytes(name)

    def _decision_paths(self, name: str, shot_id: str = "") -> list[str]:
        """Return the paths of decisions, of all shots or of one, in order."""
        return [f"{name}/decisions/{file}" for file in self.decision_files(name, shot_id)]

    def _read_decisions(self, paths: Sequence[str]) -> list[Decision]:
        unread = [path for path in paths if path not in self._decisions]
        for path, content in self._folder.read_all(unread).items():
            self._decisions[path] = document_of(Decision, content, self._folder.place(path))
        return [self._decisions[path] for path in paths if path in self._decisions]

    def _options_of(self, name: str, shot: ShotSpec) -> dict[str, Any]:
        path = options_path(name, shot.id)
        content = self._folder.read(path)
        return {} if content is None else self._changed(shot, path, content)

    def _changed(self, shot: ShotSpec, path: str, content: bytes) -> dict[str, Any]:
        """Return the changed options of a shot from the content of their file."""
        try:
            found = json.loads(content)
            if not isinstance(found, dict):
                raise ValueError("the file is no object of options")
            options_in(found)
        except ValueError as problem:
            raise damaged(self._folder.place(path), problem) from problem
        return found

    def _all_shots(self, name: str) -> tuple[ShotSpec, ...]:
        """Return the shots as they were submitted."""
        if name not in self._shots:
            self.facts(name)
            content = self._rows(name)
            try:
                self._shots[name] = shots_of(content)
            except ValueError as problem:
                raise damaged(self._folder.place(manifest_path(name)), problem) from problem
        return self._shots[name]

    def _rows_of(self, name: str) -> _Rows:
        if name not in self._ids:
            self.facts(name)
            try:
                self._ids[name] = _rows_in(self._rows(name))
            except (ValueError, KeyError, TypeError) as problem:
                raise damaged(self._folder.place(manifest_path(name)), ValueError(str(problem))) from problem
        return self._ids[name]

    def _forget_rows(self, name: str) -> None:
        self._shots.pop(name, None)
        self._ids.pop(name, None)

    def _rows(self, name: str) -> bytes:
        content = self._folder.read(manifest_path(name))
        if content is None:
            raise self._missing(name)
        return content

    def _check_ids(self, name: str, shot_ids: Collection[str]) -> None:
        known = self._rows_of(name).row_by_id
        if unknown := [shot_id for shot_id in shot_ids if shot_id not in known]:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise BatchNotFoundError(
                Text(
                    "batch {name} has no shot {shot!r}{more} ({status})",
                    name=name,
                    shot=unknown[0][:80],
                    more=more,
                    status=Command("batch status", name),
                ),
                resource=f"{name}/{unknown[0]}",
            )

    def _missing(self, name: str) -> BatchNotFoundError:
        known = self.names()
        there = f"there are: {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}" if known else "there is none"
        return BatchNotFoundError(f"no batch {name[:80]!r} in {self.url}; {there}", resource=name)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a manifest: row by id, in order, and the bytes of each row in the file."""

    row_by_id: Mapping[str, int]
    spans: Sequence[tuple[int, int]]


def _rows_in(content: bytes) -> _Rows:
    rows, spans, begin = {}, [], 0
    for number, line in enumerate(content.splitlines(keepends=True)):
        rows[str(json.loads(line)["shot_id"])] = number
        spans.append((begin, begin + len(line)))
        begin += len(line)
    return _Rows(rows, spans)


def shot_of_decision(file: str) -> str:
    """Return the id of the shot that a decision is about, from the name or the path of the decision's file."""
    return file.rpartition("/")[2].partition("~")[0]


def _shown(record: ShotRecord, *, cancelled: bool) -> ShotRecord:
    if cancelled and record.state is ShotState.WAITING:
        return record.model_copy(update={"state": ShotState.CANCELLED})
    return record


def _is_name(text: str) -> bool:
    try:
        TypeAdapter(BatchName).validate_python(text)
    except ValidationError:
        return False
    return True


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
