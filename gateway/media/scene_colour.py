"""Colour of image sequences: from the values in the files to the picture that a viewer sees, and back.

The networks of dubstage know pictures as a display shows them. Values of a scene-linear or logarithmic file are changed into such a
picture, and the pixels that the dub has drawn are changed back.
"""

from __future__ import annotations

import errno
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

import numpy as np

from gateway.media.choices import BUILT_IN, OcioSettings
from gateway.safe_paths import bounded_bytes
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.texts import Option, Text

_LINEAR_END: Final = 0.0031308
_SLOPE: Final = 12.92
_MOST_BYTES: Final = 16 << 20
"""Largest configuration, bytes."""
_MOST_ARCHIVE: Final = 256 << 20
"""Largest LUT, and largest archive of a configuration with its LUTs, bytes."""
_ARCHIVE: Final = b"PK\x03\x04"
"""First bytes of an archive (.ocioz)."""


class SceneColour(Protocol):
    """A transform between the values of files and displayed pictures."""

    def to_display(self, scene: Float32) -> Float32:
        """Return the displayed picture, float32 [..., 3] in 0 to 1, of values of the files, float32 [..., 3] RGB."""

    def to_scene(self, display: Float32) -> Float32:
        """Return the values of the files, float32 [..., 3] RGB, of a displayed picture, float32 [..., 3] in 0 to 1."""


class LinearRec709:
    """Linear light with the primaries of Rec. 709, shown with the curve of sRGB (IEC 61966-2-1). Light above 1 is shown as 1."""

    def to_display(self, scene: Float32) -> Float32:
        """See SceneColour."""
        light = np.clip(np.nan_to_num(scene), 0.0, 1.0)
        return np.where(light <= _LINEAR_END, _SLOPE * light, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)

    def to_scene(self, display: Float32) -> Float32:
        """See SceneColour."""
        dark = display <= _LINEAR_END * _SLOPE
        return np.where(dark, display / _SLOPE, ((display + 0.055) / 1.055) ** 2.4).astype(np.float32)


class OcioColour:
    """A colour space of an OpenColorIO configuration, shown with a view of a display.

    Light that the view cuts off comes back as the brightest light that the view shows.

    A configuration may come from strangers. Its LUTs are regular files of its own folder, its variables have the values that the
    configuration itself states, and messages do not quote its files.
    """

    def __init__(self, settings: OcioSettings) -> None:
        """Read the configuration and prepare both directions.

        Raises:
            InvalidRequestError: OpenColorIO is not installed, the configuration cannot be read, a name is not in it, a LUT is
                missing or outside of its folder, or the view has no inverse.
        """
        ocio = _opencolorio()
        with _opened(ocio, settings.config) as opened:
            self._prepare(ocio, opened, settings)

    def _prepare(self, ocio: Any, opened: _Opened, settings: OcioSettings) -> None:
        config = opened.config
        source = settings.colourspace or "scene_linear"
        if config.getColorSpace(source) is None:  # roles and aliases are found too
            raise _unknown(source, "input_colourspace", config.getColorSpaceNames())
        display = settings.display or config.getDefaultDisplay()
        if display not in config.getDisplays():
            raise _unknown(display, "display", config.getDisplays())
        view = settings.view or config.getDefaultView(display, source)
        if view not in config.getViews(display):
            raise _unknown(view, "view", config.getViews(display))
        shown = {"src": source, "display": display, "view": view}
        try:
            forward, inverse = (
                config.getProcessor(opened.context, ocio.DisplayViewTransform(**shown), direction).getDefaultCPUProcessor()
                for direction in (ocio.TRANSFORM_DIR_FORWARD, ocio.TRANSFORM_DIR_INVERSE)
            )
        except ocio.ExceptionMissingFile as problem:
            name = re.search(r"'([^']*)'", str(problem))
            raise _wrong(settings, f"its LUT {name[1][:200]!r} is not there" if name else "a LUT is not there") from problem
        except (ocio.Exception, UnicodeDecodeError) as problem:
            if opened.refused:
                raise _wrong(settings, opened.refused) from problem
            # The message of OpenColorIO may have lines of the LUT.
            raise InvalidRequestError(
                Text(
                    "{view} {chosen!r} of {display} {shown!r} cannot be used both ways: a LUT is damaged, or has no inverse",
                    view=Option("view"),
                    chosen=view,
                    display=Option("display"),
                    shown=display,
                ),
                field="view",
            ) from problem
        if opened.refused:
            raise _wrong(settings, opened.refused)
        self._forward, self._inverse = forward, inverse
        self.name = f"{source}, shown as {display} / {view}"

    def to_display(self, scene: Float32) -> Float32:
        """See SceneColour."""
        return np.clip(_applied(self._forward, np.nan_to_num(scene, posinf=65504.0, neginf=0.0)), 0.0, 1.0)

    def to_scene(self, display: Float32) -> Float32:
        """See SceneColour."""
        return _applied(self._inverse, display)


def _opencolorio() -> Any:
    try:
        import PyOpenColorIO
    except ModuleNotFoundError as problem:
        raise not_installed("opencolorio") from problem
    # Warnings would print lines of the configuration.
    PyOpenColorIO.SetLoggingLevel(PyOpenColorIO.LOGGING_LEVEL_NONE)
    return PyOpenColorIO


@dataclass(slots=True)
class _Opened:
    """An open configuration.

    Attributes:
        config: the configuration, a `PyOpenColorIO.Config`.
        context: folder, search paths and variables of the configuration, a `PyOpenColorIO.Context`.
        refused: why a LUT was not read; empty: every LUT was.
    """

    config: Any
    context: Any
    refused: str = ""


@contextmanager
def _opened(ocio: Any, location: str) -> Iterator[_Opened]:
    """Give the configuration of a file, or a built-in one, while its LUTs are read.

    Raises:
        InvalidRequestError: the file cannot be read, or is no configuration.
    """
    # A LUT that another configuration has read would come without a question to this configuration's files.
    ocio.ClearAllCaches()
    if location.startswith(BUILT_IN):
        yield _checked(ocio, location, "", lambda: ocio.Config.CreateFromFile(location))
        return
    try:
        content, folder = bounded_bytes(Path(location), _MOST_ARCHIVE), Path(location).resolve().parent
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else None
        raise _wrong_config(location, f"cannot be read: {reason or problem}") from problem
    with TemporaryDirectory(prefix="dubstage-ocio-") as scratch:
        if content.startswith(_ARCHIVE):
            folder = Path(scratch).resolve()
            _extract(location, content, folder)
            content = bounded_bytes(folder / "config.ocio", _MOST_BYTES)
        if len(content) > _MOST_BYTES:
            raise _wrong_config(location, f"larger than {_MOST_BYTES >> 20} MiB, the most that is read")
        opened: list[_Opened] = []

        class Files(ocio.PyConfigIOProxy):  # type: ignore[misc]  # OpenColorIO has no types
            """Answers what OpenColorIO reads: the configuration, and its LUTs."""

            def getConfigData(self) -> str:  # noqa: N802
                return content.decode("utf-8-sig")

            def getLutData(self, path: str) -> Any:  # noqa: N802
                try:
                    data = _lut(Path(path), folder)
                except (OSError, ValueError) as problem:
                    # OpenColorIO swallows errors here.
                    reason = problem.strerror if isinstance(problem, OSError) else None
                    opened[0].refused = f"its LUT {path[:200]!r} is not read: {reason or problem}"
                    # For an empty answer, OpenColorIO opens the file itself.
                    data = b"refused"
                return ocio.vector_of_uint8_t(data or b"empty")

            def getFastLutFileHash(self, path: str) -> str:  # noqa: N802
                return path

        files = Files()
        opened.append(_checked(ocio, location, str(folder), lambda: ocio.Config.CreateFromConfigIOProxy(files)))
        yield opened[0]


def _checked(ocio: Any, location: str, folder: str, read: Callable[[], Any]) -> _Opened:
    """Return a configuration, whose context has nothing of the environment of this process."""
    try:
        config = read()
        config.validate()
    except (ocio.Exception, ocio.ExceptionMissingFile, UnicodeDecodeError) as problem:
        row = re.search(r"line (\d+)", str(problem))
        raise _wrong_config(location, f"no configuration of OpenColorIO{f' (line {row[1]})' if row else ''}") from problem
    variables = {name: config.getEnvironmentVarDefault(name) for name in config.getEnvironmentVarNames()}
    paths = list(config.getSearchPaths())
    return _Opened(config, ocio.Context(folder, paths, variables, ocio.ENV_ENVIRONMENT_LOAD_PREDEFINED))


def _lut(path: Path, folder: Path) -> bytes:
    """Return the content of a LUT.

    Raises:
        OSError: the LUT is outside of the folder, missing, not regular, or too large.
    """
    if not path.resolve().is_relative_to(folder):
        raise OSError(errno.EACCES, f"it lies outside of {folder}, the folder of the configuration: copy it there", str(path))
    return bounded_bytes(path, _MOST_ARCHIVE)


def _extract(location: str, content: bytes, folder: Path) -> None:
    """Write the files of an archive (.ocioz) to a folder. zipfile keeps their names below the folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_ARCHIVE:
                raise _wrong_config(location, f"an archive of more than {_MOST_ARCHIVE >> 20} MiB")
            archive.getinfo("config.ocio")
            archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, RuntimeError, OSError, EOFError) as problem:
        raise _wrong_config(location, "no archive of OpenColorIO (.ocioz) with a file config.ocio") from problem


def _wrong(settings: OcioSettings, problem: str) -> InvalidRequestError:
    return _wrong_config(settings.config, problem)


def _wrong_config(location: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{location}: {problem}; give the path of a configuration, or a built-in one such as ocio://studio-config-latest",
        field="ocio",
        named=True,
    )


def not_installed(package: str) -> InvalidRequestError:
    """Return the error that a package for image sequences is missing."""
    return InvalidRequestError(
        f"image sequences need the package {package}, which is not installed here: pip install 'dubstage-suite[sequences]'",
        field="footage",
    )


def _unknown(name: str, field: str, names: Iterable[str]) -> InvalidRequestError:
    near = get_close_matches(name, names := list(names), n=5, cutoff=0.3) or names[:5]
    return InvalidRequestError(
        f"{name[:80]!r} is not in the configuration; near to it are: {', '.join(near)}", field=field, named=True
    )


def _applied(processor: Any, values: Float32) -> Float32:
    """Return values after a processor of OpenColorIO, which lets other threads run meanwhile."""
    changed = np.array(values, np.float32, order="C")
    rows = changed.reshape(-1, 3)
    count = min(os.cpu_count() or 1, 8)
    shares = [share for share in np.array_split(rows, count) if len(share)]
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(processor.applyRGB, shares))
    return changed
