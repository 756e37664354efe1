"""Entity references of an asset manager in manifests, such as `bal:///shot010/plate`, and the files that they stand for.

OpenAssetIO loads the manager that the variable OPENASSETIO_DEFAULT_CONFIG configures, as in every program with OpenAssetIO.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from gateway.batch.locations import has_unknown_protocol, protocol_of
from services.common.errors import BackendUnavailableError, InvalidRequestError

if TYPE_CHECKING:
    from openassetio.hostApi import Manager
    from openassetio.trait import TraitsData
    from openassetio.utils import FileUrlPathConverter

DEADLINE_S: Final = 120.0
"""Seconds within which an asset manager has to answer."""
_CONFIG: Final = "OPENASSETIO_DEFAULT_CONFIG"
_FRAME: Final = re.compile(r"\{frame(?::0?(\d*)d)?\}")
"""Number of the frame in a location with variables, as OpenAssetIO writes it."""
_VARIABLE: Final = re.compile(r"\{(\w+)[^{}]*\}")


class ResolvedReferences(NamedTuple):
    """Locations of entity references.

    Attributes:
        locations: absolute path or URL by entity reference.
        problems: why an entity reference has no location, in words, by entity reference.
    """

    locations: dict[str, str]
    problems: dict[str, str]


def resolve_references(places: Iterable[str]) -> ResolvedReferences:
    """Return the locations of the places that are entity references. The asset manager is asked once for all. Blocks for at most
    DEADLINE_S.

    Args:
        places: paths, URLs and entity references. Paths and URLs that can be read are in neither part of the result.

    Raises:
        InvalidRequestError: the asset manager cannot be loaded, or does not resolve entity references.
        BackendUnavailableError: the asset manager fails, or gives no answer in time.
    """
    distinct = tuple(dict.fromkeys(places))
    unknown = [place for place in distinct if has_unknown_protocol(place)]
    if not os.environ.get(_CONFIG):
        return ResolvedReferences({}, {place: _without_manager(place) for place in unknown})
    try:
        import openassetio  # noqa: F401
        import openassetio_mediacreation  # noqa: F401  # has the traits
    except ModuleNotFoundError as problem:
        said = f"entity references need the package {problem.name}, which is not installed here"
        remedy = "pip install 'dubstage-suite[assets]'"
        return ResolvedReferences({}, {place: f"{place[:200]!r} cannot be resolved: {said}: {remedy}" for place in unknown})
    answer: Future[ResolvedReferences] = Future()

    def ask() -> None:
        try:
            answer.set_result(_asked(distinct))
        except BaseException as problem:  # which the caller raises
            answer.set_exception(problem)

    # Python cannot end a thread that waits in a plug-in. A program ends without its daemon threads.
    threading.Thread(target=ask, name="asset-manager", daemon=True).start()
    try:
        return answer.result(DEADLINE_S)
    except TimeoutError as problem:
        raise BackendUnavailableError(
            f"the asset manager of {_CONFIG}={os.environ[_CONFIG]} gave no answer in {DEADLINE_S:g} s"
        ) from problem


def _asked(places: Iterable[str]) -> ResolvedReferences:
    """Return what the configured asset manager answers.

    Raises:
        InvalidRequestError: the asset manager cannot be loaded, or does not resolve entity references.
        BackendUnavailableError: the asset manager fails.
    """
    import openassetio

    manager = _manager()
    try:
        return _resolved(manager, places)
    except openassetio.errors.OpenAssetIOException as problem:
        raise InvalidRequestError(f"the asset manager {manager.displayName()}: {_text(problem)}", field="manifest") from problem
    except Exception as problem:
        # A manager is a plug-in, whose errors are of every kind.
        raise BackendUnavailableError(f"the asset manager {manager.displayName()} fails: {_text(problem)}") from problem


def _without_manager(place: str) -> str:
    return (
        f"{place[:200]!r} cannot be used: give a path or s3://BUCKET/KEY, https://HOST/PATH, http://HOST/PATH; for an entity "
        f"reference, set {_CONFIG} to the file that configures the asset manager for OpenAssetIO"
    )


def _manager() -> Manager:
    """Return the asset manager of the configuration.

    Raises:
        InvalidRequestError: the configuration, the plug-in or its settings cannot be used.
    """
    # The package exports these names without saying so to type checkers.
    from openassetio.hostApi import HostInterface, ManagerFactory  # type: ignore[attr-defined]
    from openassetio.log import ConsoleLogger, SeverityFilter
    from openassetio.pluginSystem import (  # type: ignore[attr-defined]
        CppPluginSystemManagerImplementationFactory,
        HybridPluginSystemManagerImplementationFactory,
        PythonPluginSystemManagerImplementationFactory,
    )

    class Host(HostInterface):  # type: ignore[misc]
        def identifier(self) -> str:
            return "io.dubstage"

        def displayName(self) -> str:  # noqa: N802
            return "dubstage"

    logger = SeverityFilter(ConsoleLogger(shouldColorOutput=False))
    kinds = (CppPluginSystemManagerImplementationFactory, PythonPluginSystemManagerImplementationFactory)
    plug_ins = HybridPluginSystemManagerImplementationFactory([kind(logger) for kind in kinds], logger)
    try:
        return ManagerFactory.defaultManagerForInterface(Host(), plug_ins, logger)
    except Exception as problem:
        # A manager is a plug-in, whose errors are of every kind.
        raise InvalidRequestError(
            f"{_CONFIG}={os.environ[_CONFIG]}: the asset manager cannot be loaded: {_text(problem)}", field="manifest"
        ) from problem


def _resolved(manager: Manager, places: Iterable[str]) -> ResolvedReferences:
    from openassetio.access import ResolveAccess
    from openassetio.errors import BatchElementError
    from openassetio.utils import FileUrlPathConverter
    from openassetio_mediacreation.traits.content import LocatableContentTrait_v1

    found = ResolvedReferences({}, {})
    references = {place: one for place in places if (one := manager.createEntityReferenceIfValid(place)) is not None}
    if not references:
        return found
    answers = manager.resolve(
        list(references.values()),
        {LocatableContentTrait_v1.kId},
        ResolveAccess.kRead,
        manager.createContext(),
        manager.BatchElementErrorPolicyTag.kVariant,
    )
    # To make a converter takes a millisecond.
    urls = FileUrlPathConverter()
    for place, answer in zip(references, answers, strict=True):
        try:
            if isinstance(answer, BatchElementError):
                raise ValueError(answer.message or answer.code.name)
            found.locations[place] = _location(answer, urls)
        except ValueError as problem:
            found.problems[place] = f"{place[:200]!r} has no file in the asset manager {manager.displayName()}: {_text(problem)}"
    return found


def _location(asset: TraitsData, urls: FileUrlPathConverter) -> str:
    """Return the path or the URL of an asset. The number of the frame in the location of an image sequence becomes `%04d`.

    Raises:
        ValueError: the asset has no location, or one that names no file. The message says why.
    """
    from openassetio.errors import InputValidationException
    from openassetio_mediacreation.traits.content import LocatableContentTrait_v1

    trait = LocatableContentTrait_v1(asset)
    url = trait.getLocation(defaultValue="")
    if not url:
        raise ValueError(f"the asset has no location (trait {LocatableContentTrait_v1.kId})")
    is_file, protocol = url.startswith("file:"), protocol_of(url)
    if not is_file and not protocol:
        raise ValueError(f"the location {url[:200]!r} is no URL, such as file:///plates/a.mov")
    try:
        # The keys of objects are not encoded; web servers take their URLs as they are.
        place = urls.pathFromUrl(url) if is_file else unquote(url) if protocol == "s3" else url
    except InputValidationException as problem:
        raise ValueError(f"the location cannot be used: {problem}") from problem
    if not trait.getIsTemplated(defaultValue=False):
        return place
    place = _FRAME.sub(lambda digits: f"%0{digits[1]}d" if digits[1] else "%d", place)
    if variable := _VARIABLE.search(place):
        raise ValueError(f"the location {url[:200]!r} has the variable {variable[1]}, and only frame is known")
    return place


def _text(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300] or type(problem).__name__
