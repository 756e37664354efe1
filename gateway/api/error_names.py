"""Errors as callers of the API may see them: files by the names that the caller uses, never by the server's folders."""

from __future__ import annotations

import functools
import inspect
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, Final

import services
from gateway.settings import GatewaySettings
from services.common import error_status
from services.common.errors import DubstageError

FIELDS: Final = {
    "output": "output_uri",
    "footage": "footage_uri",
    "video": "footage_uri",
    "audio": "speech_uri",
    "speech": "speech_uri",
    "file": "footage_uri",
    "actor": "actor_id",
}
"""What the pipeline and the command line call a field, and what CreateDub and CreateActor call it."""
_WITH_FIELDS: Final = frozenset({"CreateDub", "CreateActor"})
_TEXTS: Final = ("message", "field", "subject", "resource")


Told = Callable[[DubstageError], DubstageError]


class ErrorNames:
    """Rewrites errors for callers: a file of the media folder gets its name from there on, other folders the name of their setting.

    Args:
        settings: of the gateway.
        database: where the database is, as error texts name it.
        artefacts: url of the artefact store, as error texts name it.
    """

    def __init__(self, settings: GatewaySettings, database: str, artefacts: str) -> None:
        names: dict[str, str] = {database: "DUBSTAGE_DATABASE_URL", artefacts: "DUBSTAGE_ARTEFACTS_URL"}
        if artefacts.startswith("file://"):
            names[artefacts.removeprefix("file://")] = "DUBSTAGE_ARTEFACTS_URL"
        folders = {settings.data_dir: "DUBSTAGE_DATA_DIR", Path(services.__file__).parents[1]: "dubstage"}
        if settings.media_dir is not None:
            folders[settings.media_dir] = ""
        for folder, name in folders.items():
            # As it was given and as it is: errors are made from both.
            for path in {folder, folder.absolute(), folder.resolve()}:
                if path.is_absolute() and path != Path("/"):
                    names[str(path)] = name
        self._names = {path: name for path, name in names.items() if path}
        # The longest first: folders may lie in one another.
        known = "|".join(re.escape(path) for path in sorted(self._names, key=len, reverse=True))
        temporary = re.escape(tempfile.gettempdir())
        self._pattern = re.compile(rf"(?P<known>{known})(?P<slash>/|(?![\w.-]))|{temporary}/tmp\w+/")

    def told(self, text: str) -> str:
        """Return a text without the server's folders."""
        return self._pattern.sub(self._name, text)

    def rewrite(self, error: DubstageError, *, fields: bool = True) -> DubstageError:
        """Rewrite an error; returns the same error.

        Args:
            error: of any kind.
            fields: it is about what CreateDub or CreateActor was asked for: the field gets the name that it has there.
        """
        for name in _TEXTS:
            text = getattr(error, name, "")
            if text:
                setattr(error, name, self.told(text))
        error.args = (error.message,)
        field = getattr(error, "field", "")
        if fields and field in FIELDS:
            error.field = FIELDS[field]  # type: ignore[attr-defined]  # of those that have one
        return error

    def _name(self, match: re.Match[str]) -> str:
        known = match["known"]
        if known is None:
            return ""
        name = self._names[known]
        if not name:
            return "" if match["slash"] else "the media folder"
        return name + match["slash"]


def with_names(servicer: Any, names: ErrorNames) -> Any:
    """Return a servicer with the methods of `servicer`, whose errors are rewritten by `names`."""
    return _Renamed(servicer, names)


class _Renamed:
    """Stands for a servicer: generated code looks for its methods by name."""

    def __init__(self, servicer: Any, names: ErrorNames) -> None:
        self._servicer = servicer
        self._names = names

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._servicer, name)
        told = functools.partial(self._names.rewrite, fields=name in _WITH_FIELDS)
        return _streaming(method, told) if inspect.isasyncgenfunction(method) else _unary(method, told)


@contextmanager
def _rewriting(told: Told) -> Iterator[None]:
    """Around a method's work: rewrite the error with which the work ends."""
    try:
        yield
    except DubstageError as error:
        told(error)
        raise
    except ExceptionGroup as group:
        raise told(error_status.domain_error(group)) from group


def _unary(method: Callable[..., Any], told: Told) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(request: Any, context: Any) -> Any:
        with _rewriting(told):
            return await method(request, context)

    return call


def _streaming(method: Callable[..., Any], told: Told) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        with _rewriting(told):
            async with aclosing(method(request, context)) as replies:
                async for reply in replies:
                    yield reply

    return call
