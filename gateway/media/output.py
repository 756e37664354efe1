"""An output file that appears whole or not at all: it grows under a temporary name in its folder, and is renamed when complete.

The path is checked before any work is done. An existing file is replaced only if dubstage wrote it: every video of dubstage carries
a mark in its comment.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from gateway.media.mp4 import PaddedFile
from gateway.safe_paths import descriptor_url, kind_of_file, open_folder
from services.common.errors import DubstageError, InvalidRequestError, MediaUnsupportedError, StorageFullError
from services.common.files import FULL_DISK
from services.common.locks import try_lock, unlock
from services.common.texts import Option, Text

MARK: Final = "made with dubstage"
_LONGEST_NAME: Final = 255
"""Most bytes of a file's name, on every usual file system."""
_PARTIAL: Final = re.compile(r"\.dubstage-([0-9a-f]{16})-[0-9a-f]{16}\.partial")
_OLD_S: Final = 24 * 3600
_PATIENCE_S: Final = 5.0
"""Most seconds to wait for another process that looks through the folder."""


def is_marked(tags: Mapping[str, str]) -> bool:
    """Return whether a file's tags say that dubstage wrote the file."""
    return any(key.lower() == "comment" and MARK in value for key, value in tags.items())


def check_output_file(
    output: Path,
    *,
    inputs: Iterable[tuple[str, Path]] = (),
    overwrite: bool = False,
) -> None:
    """Check that `output` can be written, before any work is done.

    Args:
        inputs: files that are read meanwhile, each behind what it is (`refuse_input`).
        overwrite: whether an existing file of any kind may be replaced. Otherwise only a video that dubstage wrote may be.

    Raises:
        InvalidRequestError: the folder is missing or may not be written, the name is too long or names a folder, a link or a
            device, or the file is an input or may not be replaced.
    """
    before = existing_file(output)
    folder = output.parent
    if not folder.is_dir():
        raise _refused(f"{output}: the folder {folder} does not exist; create it first")
    for what, file in inputs:
        refuse_input(output, file, what)
    check_replaceable(output, before, overwrite=overwrite)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _refused(f"{output}: the folder {folder} may not be written; choose another")


def refuse_input(output: Path, file: Path, what: str) -> None:
    """Raise InvalidRequestError if the output is an input file, also through links.

    Args:
        file: the input file.
        what: what the input file is, for the message: `the footage itself`.
    """
    if _same(output, file):
        raise _refused(f"{output} is {what}; give another name to the output")


def existing_file(output: Path) -> os.stat_result | None:
    """Return the facts of what lies under the output's name; None: nothing. Symbolic links are not followed.

    Raises:
        InvalidRequestError: no file can have such a name.
    """
    try:
        return os.lstat(output)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise InvalidRequestError(
            f"{str(output)!r} has a NUL byte, which no file name can have; give another name", field="output"
        ) from None
    except OSError as problem:
        if problem.errno == errno.ENAMETOOLONG:
            length = len(os.fsencode(output.name))
            raise InvalidRequestError(
                f"{output.name[:40]}...: the name is {length} bytes long, a name has {_LONGEST_NAME} at most, a path 4095; "
                "give a shorter one",
                field="output",
            ) from None
        raise InvalidRequestError(f"{output} cannot be written: {problem.strerror}", field="output") from problem


def check_replaceable(output: Path, there: os.stat_result | None, *, overwrite: bool) -> None:
    """Check that a file may be replaced: it must be a regular file and, without `overwrite`, a video of dubstage.

    Raises:
        InvalidRequestError: the file may not be replaced.
    """
    if there is None:
        return
    if stat.S_ISDIR(there.st_mode):
        raise _refused(f"{output} is a folder; give the name of a video file")
    if stat.S_ISLNK(there.st_mode):
        raise _refused(f"{output} is a symbolic link; give the name of the file itself, or remove the link")
    if not stat.S_ISREG(there.st_mode):
        raise _refused(f"{output} is {kind_of_file(there.st_mode)}; give the name of a video file")
    if not overwrite and not _is_dubstage_video(output):
        raise _refused(
            Text(
                "{output} exists and is no video of dubstage; give another name, or replace the file with {overwrite}",
                output=output,
                overwrite=Option("overwrite"),
            )
        )


def _is_dubstage_video(path: Path) -> bool:
    # Imported here: commands that write no video check and list files too, and FFmpeg takes long to load.
    from gateway.media.inspection import inspect_tags

    try:
        return is_marked(inspect_tags(path))
    except MediaUnsupportedError:
        return False


def _same(output: Path, source: Path) -> bool:
    try:
        if output.exists() and source.exists() and output.samefile(source):
            return True
        return output.resolve() == source.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or an impossible name: refused as such
        return False


def _refused(problem: str) -> InvalidRequestError:
    return InvalidRequestError(problem, field="output")


class OutputFile:
    """The temporary file of one output: created and locked, then renamed or removed.

    Nobody can guess the file's name, and the folder stays open. So no other file is written to, whatever somebody puts in the
    folder meanwhile. FFmpeg writes to `target`, which is the open file itself.
    """

    def __init__(self, output: Path, *, overwrite: bool = False, takes_over: bool = False) -> None:
        """Create and lock the temporary file.

        Files and folders that killed runs left of this output are removed, and those older than a day that killed runs left of
        other outputs.

        Args:
            overwrite: replace any file of this name.
            takes_over: remove the temporary files of this output that other processes hold too. These processes cannot finish.

        Raises:
            InvalidRequestError: another job is writing this output, or the existing file may not be replaced.
            OSError: the file cannot be created.
        """
        self._output, self._overwrite, self._tag = output, overwrite, _tag(output)
        self._padded: PaddedFile | None = None
        before = existing_file(output)
        check_replaceable(output, before, overwrite=overwrite)
        self._before = identity_of(before)
        self._folder = open_folder(output.parent)
        self._handle: int | None = None
        try:
            with _looking_through(self._folder):
                if _sweep(self._folder, self._tag, takes_over=takes_over):
                    raise InvalidRequestError(f"{output} is being written by another job; wait for it", field="output")
                self._name, self._handle = self._created()
        except BaseException:
            os.close(self._folder)
            raise

    def _created(self) -> tuple[str, int]:
        """Create and lock a temporary file, and return its name and its descriptor."""
        name = f".dubstage-{self._tag}-{secrets.token_hex(8)}.partial"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(name, flags, 0o666, dir_fd=self._folder)
        try_lock(handle)
        return name, handle

    def target(self, padding: int = 0) -> str | PaddedFile:
        """Return what FFmpeg writes the file to: the name of the open file, or a file that leaves padding behind its first box.

        Args:
            padding: size of the padding, bytes; 0: none.
        """
        assert self._handle is not None
        if not padding:
            return descriptor_url(self._handle)
        self._padded = PaddedFile(self._handle, padding)
        return self._padded

    def settle(self) -> None:
        """Correct the offsets of the samples of a video that has padding for a manifest. FFmpeg has finished the video.

        Raises:
            OSError: the file cannot be written.
            MediaUnsupportedError: the offsets do not fit any more.
        """
        try:
            if self._padded is not None:
                self._padded.settle()
        except OverflowError as problem:
            raise MediaUnsupportedError(f"{self._output}: {problem}; give the output an .mkv name", field="output") from problem

    @property
    def output(self) -> Path:
        """The output."""
        return self._output

    @contextmanager
    def content(self) -> Iterator[BinaryIO]:
        """Give what was written so far, open for reading and writing, at its beginning."""
        assert self._handle is not None
        with open(self._handle, "r+b", closefd=False) as file:
            file.seek(0)
            yield file

    @contextmanager
    def rewriting(self) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """Give what was written so far, and an empty file, which takes its place when the block ends without an error.

        Raises:
            OSError: the new file cannot be created or written. The old content stays.
        """
        name, handle = self._created()
        try:
            with self.content() as old, open(handle, "w+b", closefd=False) as new:
                yield old, new
        except BaseException:
            self._remove(name, handle)
            raise
        assert self._handle is not None
        self._remove(self._name, self._handle)
        self._name, self._handle = name, handle

    def _remove(self, name: str, handle: int) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._folder)
        os.close(handle)

    def prepare(self) -> None:
        """Wait until the whole file is on the disk, and check that the file may take its name.

        Raises:
            InvalidRequestError: a file that may not be replaced appeared under the output's name, or the temporary file was
                exchanged.
            OSError: the file cannot be finished.
        """
        assert self._handle is not None
        os.fsync(self._handle)
        self._check_name()
        if not os.path.samestat(os.stat(self._name, dir_fd=self._folder, follow_symlinks=False), os.fstat(self._handle)):
            raise InvalidRequestError(f"{self._output}: its temporary file was exchanged while it was written", field="output")

    def take_name(self) -> None:
        """Give the prepared file its name.

        Raises:
            InvalidRequestError: a file that may not be replaced appeared under the output's name since `prepare`.
            OSError: the file cannot be renamed.
        """
        self._check_name()
        os.replace(self._name, self._output.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._close()

    def discard(self) -> None:
        """Remove the file. Does nothing after a commit or an earlier discard."""
        if self._handle is None:
            return
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)
        self._close()

    @contextmanager
    def putting_back(self) -> Iterator[None]:
        """Keep the file that has the output's name, and give that file its name back if the block ends with an error.

        If there is no such file and the block ends with an error, no file has the name.

        Raises:
            InvalidRequestError: the file that has the name may not be replaced.
        """
        self._check_name()
        name, kept = self._output.name, f".dubstage-{self._tag}-{secrets.token_hex(8)}.partial"
        folder = os.dup(self._folder)
        try:
            with suppress(FileNotFoundError):
                os.rename(name, kept, src_dir_fd=folder, dst_dir_fd=folder)
            try:
                yield
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
                with suppress(FileNotFoundError):
                    os.rename(kept, name, src_dir_fd=folder, dst_dir_fd=folder)
                raise
            with suppress(OSError):  # the video is complete; the next run removes what is left here
                os.unlink(kept, dir_fd=folder)
        finally:
            os.close(folder)

    def _check_name(self) -> None:
        there = existing_file(self._output)
        if identity_of(there) != self._before:
            check_replaceable(self._output, there, overwrite=self._overwrite)

    def _close(self) -> None:
        assert self._handle is not None
        os.close(self._handle)
        os.close(self._folder)
        self._handle = None


def commit_with(
    video: OutputFile, seal: Callable[[OutputFile], OutputFile | None] | None, confirm: Callable[[], None] = lambda: None
) -> None:
    """Give a finished video its name. If the video cannot get its name, the files of an earlier video stay as they are.

    Args:
        video: the finished video.
        seal: called with the video before. May return a second file, which gets its name right before the video. None: there is
            nothing to do before.
        confirm: called when all is written and sealed, right before the video gets its name. Raises an error if the video may not
            be shown any more: sealing can take a minute.

    Raises:
        InvalidRequestError, OSError: as `OutputFile.prepare` and `OutputFile.take_name`.
        DubstageError: from `seal` and `confirm`.
    """
    beside = seal(video) if seal is not None else None
    try:
        video.prepare()
        if beside is None:
            confirm()
            video.take_name()
            return
        beside.prepare()
        confirm()
        with beside.putting_back():
            beside.take_name()
            video.take_name()
    finally:
        if beside is not None:
            beside.discard()


@contextmanager
def partial_folder(output: Path) -> Iterator[Path]:
    """Make a folder beside an output for files that get their names with it, and remove the folder at the end. Blocks.

    The caller holds the `OutputFile` of the output, so that no other process takes the folder for one that a killed run left.

    Raises:
        OSError: the folder cannot be made.
    """
    folder = output.parent / f".dubstage-{_tag(output)}-{secrets.token_hex(8)}.partial"
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try_lock(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def left_folders(output: Path) -> list[Path]:
    """Return the folders of an output that `partial_folder` has made and not removed. Killed runs leave such folders."""
    with suppress(OSError), os.scandir(output.parent) as entries:
        folders = [(Path(entry.path), _PARTIAL.fullmatch(entry.name)) for entry in entries if entry.is_dir(follow_symlinks=False)]
        return [path for path, match in folders if match and match[1] == _tag(output)]
    return []


def remove_leftovers(output: Path) -> None:
    """Remove files that killed runs left of an output, and files older than a day that killed runs left of other outputs in the
    folder.

    Raises:
        OSError: the folder is missing or may not be read.
    """
    folder = open_folder(output.parent)
    try:
        with _looking_through(folder):
            _sweep(folder, _tag(output))
    finally:
        os.close(folder)


def _tag(output: Path) -> str:
    """Return the part of a temporary name by which runs with the same output find each other's files."""
    return hashlib.sha256(os.fsencode(output.name)).hexdigest()[:16]


def identity_of(facts: os.stat_result | None) -> tuple[int, ...] | None:
    """Return numbers that differ between a file and another file in its place, and between two contents of one file."""
    return None if facts is None else (facts.st_dev, facts.st_ino, facts.st_mode, facts.st_size, facts.st_mtime_ns)


@contextmanager
def _looking_through(folder: int) -> Iterator[None]:
    """Let one process at a time look for partial files and add its own. On file systems without locks, all processes do."""
    begun = time.monotonic()
    while try_lock(folder) is False and time.monotonic() - begun < _PATIENCE_S:
        time.sleep(0.02)
    try:
        yield
    finally:
        unlock(folder)


def _sweep(folder: int, tag: str, *, takes_over: bool = False) -> bool:
    """Remove partial files and folders that no process holds, of this output and older than a day of other outputs. Return whether
    a process holds one of this output. With `takes_over`, remove all partial files of this output.
    """
    held = False
    with os.scandir(folder) as entries:
        partials = [(entry.name, match[1]) for entry in entries if (match := _PARTIAL.fullmatch(entry.name))]
    for name, its_tag in partials:
        with suppress(OSError):  # gone meanwhile, or another user's
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                facts = os.fstat(handle)
                if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):
                    continue
                remove = shutil.rmtree if stat.S_ISDIR(facts.st_mode) else os.unlink
                old = time.time() - facts.st_mtime > _OLD_S
                free = try_lock(handle)  # None: the file system has no locks
                if takes_over and its_tag == tag:
                    remove(name, dir_fd=folder)
                elif free is False:
                    held |= its_tag == tag
                elif old or (free and its_tag == tag):
                    remove(name, dir_fd=folder)
            finally:
                os.close(handle)
    return held


def output_error(problem: BaseException, output: Path, codec: str) -> DubstageError | None:
    """Return the error to report for a failure while `output` was written; None: `problem` itself says it best."""
    import av

    from gateway.media.opening import reason_of

    if isinstance(problem, DubstageError) or not isinstance(problem, (av.FFmpegError, OSError)):
        return None
    number = getattr(problem, "errno", None)
    if number in FULL_DISK:
        return StorageFullError(
            f"no space left to write {output}; free some space, or choose another folder", subject=str(output.parent)
        )
    if isinstance(problem, OSError):
        return InvalidRequestError(f"{output} cannot be written: {reason_of(problem)}", field="output")
    return MediaUnsupportedError(
        Text(
            "{output}: {codec} in {suffix} cannot hold this video ({reason}); try {option} ffv1 to an .mp4",
            output=output,
            codec=codec,
            suffix=output.suffix,
            reason=reason_of(problem),
            option=Option("codec"),
        ),
        field="codec",
    )
