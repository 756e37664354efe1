"""Colour of image sequences: from the values in the files to the picture that a viewer sees, and back.

The networks of dubstage know pictures as a display shows them. Values of a scene-linear or logarithmic file are changed into such a
picture, and the pixels that the dub has drawn are changed back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from typing import Any, Final, Protocol

import numpy as np

from gateway.media.choices import OcioSettings
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError


class SceneColour(Protocol):
    """A transform between the values of files and displayed pictures."""

    def to_display(self, scene: Float32) -> Float32:
        """Return the displayed picture, float32 [..., 3] in 0 to 1, of values of the files, float32 [..., 3] RGB."""

    def to_scene(self, display: Float32) -> Float32:
        """Return the values of the files, float32 [..., 3] RGB, of a displayed picture, float32 [..., 3] in 0 to 1."""


_LINEAR_END: Final = 0.0031308
_SLOPE: Final = 12.92


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
    """

    def __init__(self, settings: OcioSettings) -> None:
        """Read the configuration and prepare both directions.

        Raises:
            InvalidRequestError: OpenColorIO is not installed, the configuration cannot be read, a name is not in it, or the view
                has no inverse.
        """
        ocio = _opencolorio()
        try:
            config = ocio.Config.CreateFromFile(settings.config)
            config.validate()
        except (ocio.Exception, ocio.ExceptionMissingFile) as problem:
            raise InvalidRequestError(
                f"--ocio {settings.config}: {_sentence(problem)}; give the path of a configuration, or a built-in one such as "
                "ocio://studio-config-latest",
                field="ocio",
            ) from problem
        source = settings.colourspace or "scene_linear"
        if config.getColorSpace(source) is None:  # roles and aliases are found too
            raise _unknown(source, "--input-colourspace", config.getColorSpaceNames())
        display = settings.display or config.getDefaultDisplay()
        if display not in config.getDisplays():
            raise _unknown(display, "--display", config.getDisplays())
        view = settings.view or config.getDefaultView(display, source)
        if view not in config.getViews(display):
            raise _unknown(view, "--view", config.getViews(display))
        shown = {"src": source, "display": display, "view": view}
        try:
            self._forward = config.getProcessor(ocio.DisplayViewTransform(**shown)).getDefaultCPUProcessor()
            inverse = ocio.DisplayViewTransform(**shown, direction=ocio.TRANSFORM_DIR_INVERSE)
            self._inverse = config.getProcessor(inverse).getDefaultCPUProcessor()
        except (ocio.Exception, ocio.ExceptionMissingFile) as problem:
            raise InvalidRequestError(
                f"--view {view!r} of --display {display!r} cannot be used both ways: {_sentence(problem)}", field="view"
            ) from problem
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
    return PyOpenColorIO


def not_installed(package: str) -> InvalidRequestError:
    """Return the error that a package for image sequences is missing."""
    return InvalidRequestError(
        f"image sequences need the package {package}, which is not installed here: pip install 'dubstage-suite[sequences]'",
        field="footage",
    )


def _unknown(name: str, option: str, names: Iterable[str]) -> InvalidRequestError:
    near = get_close_matches(name, names := list(names), n=5, cutoff=0.3) or names[:5]
    return InvalidRequestError(
        f"{option} {name[:80]!r} is not in the configuration; near to it are: {', '.join(near)}",
        field=option.removeprefix("--").replace("-", "_"),
    )


def _sentence(problem: Exception) -> str:
    return " ".join(str(problem).split()).rstrip(".")


def _applied(processor: Any, values: Float32) -> Float32:
    """Return values after a processor of OpenColorIO, which lets other threads run meanwhile."""
    changed = np.array(values, np.float32, order="C")
    rows = changed.reshape(-1, 3)
    count = min(os.cpu_count() or 1, 8)
    shares = [share for share in np.array_split(rows, count) if len(share)]
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(processor.applyRGB, shares))
    return changed
