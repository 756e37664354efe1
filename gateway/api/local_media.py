"""Files of this machine for the places that CreateDub and CreateActor name.

Files of the media folder are used where they are. Objects of a bucket are copied to this machine before the work, and a film that
goes to a bucket is uploaded whole after the work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Self

from gateway.ahead import in_thread
from gateway.api.media_folder import MediaFolder
from gateway.api.media_places import MediaPlaces
from gateway.batch.media import check_replaceable, copy_name, fetched, input_problem, is_url, upload
from gateway.pipeline.aside import Aside
from gateway.pipeline.progress import OnProgress
from gateway.settings import GatewaySettings
from services.common.errors import DubstageError, InvalidRequest

_TEXTS: Final = ("message", "subject", "resource")


class Media:
    """What callers of a gateway may name, and the folders for copies.

    Attributes:
        places: files and objects that callers may name.

    Args:
        places: see the attribute.
        aside: folders for copies.
    """

    def __init__(self, places: MediaPlaces, aside: Aside) -> None:
        self.places = places
        self._aside = aside

    @classmethod
    def of(cls, settings: GatewaySettings) -> Self:
        """Return the media of the settings.

        Raises:
            InvalidRequest: the media folder cannot be used.
        """
        return cls(MediaPlaces(MediaFolder(settings.media_dir), settings.media_url), Aside(settings.data_dir))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[LocalMedia]:
        """Give the files of one request. Copies are removed at the end. Errors of the block name the URL in place of the copy."""
        with ExitStack() as stack:
            media = LocalMedia(self.places, lambda: stack.enter_context(self._aside.folder()))
            try:
                yield media
            except DubstageError as error:
                raise media.rewrite(error) from error.__cause__
            finally:
                await in_thread(stack.close)

    def close(self) -> None:
        """Remove all folders for copies. All work has ended. Blocks."""
        self._aside.close()


class LocalMedia:
    """Files of this machine for the places of one request.

    Args:
        places: files and objects that callers may name.
        make_folder: makes the folder for copies; called for the first URL.
    """

    def __init__(self, places: MediaPlaces, make_folder: Callable[[], Path]) -> None:
        self._places = places
        self._make_folder = make_folder
        self._folder: Path | None = None
        self._sources: dict[Path, tuple[str, str]] = {}
        self._outputs: dict[Path, str] = {}

    def source(self, uri: str, field: str) -> Path:
        """Return the file that a request reads. The copy of an object exists after `fetch`.

        Raises:
            InvalidRequest: as `MediaPlaces.source`.
        """
        place = self._places.source(uri, field)
        if not is_url(place):
            return Path(place)
        copy = self._copy(place, field)
        self._sources[copy] = (place, field)
        return copy

    def output(self, uri: str, field: str) -> Path:
        """Return the file that a request writes. `deliver` uploads the file if the request names a URL.

        Raises:
            InvalidRequest: as `MediaPlaces.output`.
        """
        place = self._places.output(uri, field, new_folder=False)
        if not is_url(place):
            return Path(place)
        copy = self._copy(place, field)
        self._outputs[copy] = place
        return copy

    def place_of(self, output: Path) -> str:
        """Return the URL that a file is uploaded to, or the path of a file that stays."""
        return self._outputs.get(output) or str(output)

    def check(self, *, overwrite: bool) -> None:
        """Check that all objects can be read, and that outputs may be written. Blocks.

        Args:
            overwrite: whether an object may be replaced that dubstage did not write.

        Raises:
            InvalidRequest: there is no such object, the object is empty, or an object may not be replaced.
            StorageRefused, BackendUnavailable: the store of a URL refuses, or does not answer.
        """
        for place, field in self._sources.values():
            if problem := input_problem(place):
                raise InvalidRequest(f"{field}: {problem}", field=field)
        for place in self._outputs.values():
            if not overwrite:
                check_replaceable(place)

    async def fetch(self, report: OnProgress, *, max_bytes: int, confirm: Callable[[], None]) -> None:
        """Copy all objects to this machine.

        Args:
            report: called before and after each copy.
            max_bytes: size of the largest object that is copied.
            confirm: called after each piece; raises an error if the work has ended.

        Raises:
            DubstageError: as `gateway.batch.media.fetched`.
        """
        for done, (copy, (place, field)) in enumerate(self._sources.items()):
            report("fetch", done, len(self._sources))
            await in_thread(fetched, place, copy.parent, field=field, max_bytes=max_bytes, confirm=confirm)
            report("fetch", done + 1, len(self._sources))

    async def deliver(self, report: OnProgress, *, overwrite: bool, confirm: Callable[[], None]) -> None:
        """Upload the finished outputs that belong to a URL.

        Args:
            report: called before and after each upload.
            overwrite: as in `check`.
            confirm: called before the upload; raises an error if the work has ended.

        Raises:
            DubstageError: as `gateway.batch.media.upload`.
        """
        for file, place in self._outputs.items():
            report("upload", 0, 1)
            await in_thread(_uploaded, file, place, overwrite, confirm)
            report("upload", 1, 1)

    def rewrite(self, error: DubstageError) -> DubstageError:
        """Name the places of the request in the texts of an error, and return the same error."""
        for name in _TEXTS:
            if text := getattr(error, name, ""):
                setattr(error, name, self.told(text))
        error.args = (error.message,)
        return error

    def told(self, text: str) -> str:
        """Return a text that names the places of the request in place of copies."""
        for copy, place in {**{copy: place for copy, (place, _) in self._sources.items()}, **self._outputs}.items():
            text = text.replace(str(copy), place)
        return text

    def _copy(self, place: str, field: str) -> Path:
        if self._folder is None:
            self._folder = self._make_folder()
        return self._folder / copy_name(field, place)


def _uploaded(file: Path, place: str, overwrite: bool, confirm: Callable[[], None]) -> None:
    if not overwrite:
        check_replaceable(place)
    confirm()
    upload(file, place)
