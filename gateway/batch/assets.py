"""Entity references of an asset manager, such as `bal:///shot010/plate`: the files that they stand for, and the registration of new
files.

OpenAssetIO loads the manager that the variable OPENASSETIO_DEFAULT_CONFIG configures, as in every program with OpenAssetIO.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from fractions import Fraction
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from urllib.parse import unquote

from gateway.media.locations import has_unknown_protocol, protocol_of
from gateway.media.sequence_names import NUMBER, is_sequence
from services.common.errors import BackendUnavailableError, DubstageError, InvalidRequestError
from services.common.texts import Option, Text

if TYPE_CHECKING:
    from openassetio import EntityReference  # type: ignore[attr-defined]
    from openassetio.errors import BatchElementError
    from openassetio.hostApi import Manager
    from openassetio.trait import TraitsData
    from openassetio.utils import FileUrlPathConverter

T = TypeVar("T")

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


def resolve_references(uris: Iterable[str]) -> ResolvedReferences:
    """Return the locations of the URIs that are entity references. The asset manager is asked once for all. Blocks for at most
    DEADLINE_S.

    Args:
        uris: paths, URLs and entity references. Paths and URLs that can be read are in neither part of the result.

    Raises:
        InvalidRequestError: the asset manager cannot be loaded, or does not resolve entity references.
        BackendUnavailableError: the asset manager fails, or gives no answer in time.
    """
    distinct = tuple(dict.fromkeys(uris))
    unknown = [uri for uri in distinct if has_unknown_protocol(uri)]
    if not os.environ.get(_CONFIG):
        return ResolvedReferences({}, {uri: _without_manager(uri) for uri in unknown})
    if missing := _missing_package():
        said = f"entity references need the package {missing}, which is not installed here"
        remedy = "pip install 'dubstage-suite[assets]'"
        return ResolvedReferences({}, {uri: f"{uri[:200]!r} cannot be resolved: {said}: {remedy}" for uri in unknown})

    def ask() -> ResolvedReferences:
        manager = _manager("manifest")
        with _errors_of(manager, "manifest"):
            return _resolved(manager, distinct)

    return _in_time(ask)


class AssetFile(NamedTuple):
    """Video or image sequence to register.

    Attributes:
        path: absolute path of the video; of an image sequence, with `%04d` in place of the frame number.
        name: name for people.
        frames: numbers of the first and of the last frame.
        rate: frames per second; None: not known.
    """

    path: Path
    name: str
    frames: tuple[int, int]
    rate: Fraction | None


class RegisteredFiles(NamedTuple):
    """Outcome of a registration.

    Attributes:
        references: entity reference of the registered version, by the reference that was asked for.
        problems: why a file is not registered, in words, by the reference that was asked for.
    """

    references: dict[str, str]
    problems: dict[str, str]


class Registration:
    """Registration of new files with the configured asset manager, in OpenAssetIO's two steps: preflight before the files are
    written, and register with their locations afterwards. Both block for at most DEADLINE_S.
    """

    def __init__(self, references: Iterable[str]) -> None:
        """Announce the files to the manager (preflight).

        Args:
            references: entity references of the files to write.

        Raises:
            InvalidRequestError: the packages or the configuration are missing; the manager cannot be loaded, registers no videos,
                or refuses a reference.
            BackendUnavailableError: the manager fails, or gives no answer in time.
        """
        _check_installation()
        asked = tuple(references)

        def announce() -> tuple[Manager, dict[str, EntityReference]]:
            manager = _manager("register")
            with _errors_of(manager, "register"):
                return manager, _announced(manager, asked)

        self._manager, self._working = _in_time(announce)

    def register(self, files: Mapping[str, AssetFile]) -> RegisteredFiles:
        """Register files. Each file becomes a version of its entity.

        Args:
            files: files by entity reference. References that were not announced are an error of the caller (KeyError).

        Raises:
            InvalidRequestError: the manager refuses to register at all.
            BackendUnavailableError: the manager fails, or gives no answer in time.
        """

        def publish() -> RegisteredFiles:
            with _errors_of(self._manager, "register"):
                return _registered(self._manager, files, self._working)

        return _in_time(publish) if files else RegisteredFiles({}, {})


def _check_installation() -> None:
    if not os.environ.get(_CONFIG):
        raise InvalidRequestError(
            Text(
                "{register} needs an asset manager: set {setting} to the file that configures the manager for OpenAssetIO",
                register=Option("register"),
                setting=_CONFIG,
            ),
            field="register",
        )
    if missing := _missing_package():
        raise InvalidRequestError(
            Text(
                "{register} needs the package {package}, which is not installed here: pip install 'dubstage-suite[assets]'",
                register=Option("register"),
                package=missing,
            ),
            field="register",
        )


def _missing_package() -> str | None:
    """Return the name of a package of OpenAssetIO that is not installed; None: all are."""
    try:
        import openassetio  # noqa: F401
        import openassetio_mediacreation  # noqa: F401  # has the traits
    except ModuleNotFoundError as problem:
        return problem.name
    return None


def _in_time(work: Callable[[], T]) -> T:
    """Return what a function of the asset manager returns.

    Raises:
        BackendUnavailableError: the function does not end within DEADLINE_S.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(work())
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


@contextmanager
def _errors_of(manager: Manager, field: str) -> Iterator[None]:
    """Raise errors of dubstage in place of the errors that the manager raises in the block.

    Raises:
        InvalidRequestError: the manager refuses.
        BackendUnavailableError: the manager fails.
    """
    import openassetio

    try:
        yield
    except DubstageError:
        raise
    except openassetio.errors.OpenAssetIOException as problem:
        raise InvalidRequestError(f"the asset manager {manager.displayName()}: {_text(problem)}", field=field) from problem
    except Exception as problem:
        # A manager is a plug-in, whose errors are of every kind.
        raise BackendUnavailableError(f"the asset manager {manager.displayName()} fails: {_text(problem)}") from problem


def _without_manager(uri: str) -> str:
    return (
        f"{uri[:200]!r} cannot be used: give a path or s3://BUCKET/KEY, https://HOST/PATH, http://HOST/PATH; for an entity "
        f"reference, set {_CONFIG} to the file that configures the asset manager for OpenAssetIO"
    )


def _manager(field: str) -> Manager:
    """Return the asset manager of the configuration.

    Args:
        field: field of the request that needs the manager.

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
            f"{_CONFIG}={os.environ[_CONFIG]}: the asset manager cannot be loaded: {_text(problem)}", field=field
        ) from problem


def _resolved(manager: Manager, uris: Iterable[str]) -> ResolvedReferences:
    from openassetio.access import ResolveAccess
    from openassetio.errors import BatchElementError
    from openassetio.utils import FileUrlPathConverter
    from openassetio_mediacreation.traits.content import LocatableContentTrait_v1

    resolved = ResolvedReferences({}, {})
    references = {uri: one for uri in uris if (one := manager.createEntityReferenceIfValid(uri)) is not None}
    if not references:
        return resolved
    answers = manager.resolve(
        list(references.values()),
        {LocatableContentTrait_v1.kId},
        ResolveAccess.kRead,
        manager.createContext(),
        manager.BatchElementErrorPolicyTag.kVariant,
    )
    # To make a converter takes a millisecond.
    urls = FileUrlPathConverter()
    for uri, answer in zip(references, answers, strict=True):
        try:
            if isinstance(answer, BatchElementError):
                raise ValueError(_reason(answer))
            resolved.locations[uri] = _location(answer, urls)
        except ValueError as problem:
            resolved.problems[uri] = f"{uri[:200]!r} has no file in the asset manager {manager.displayName()}: {_text(problem)}"
    return resolved


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
        location = urls.pathFromUrl(url) if is_file else unquote(url) if protocol == "s3" else url
    except InputValidationException as problem:
        raise ValueError(f"the location cannot be used: {problem}") from problem
    if not trait.getIsTemplated(defaultValue=False):
        return location
    location = _FRAME.sub(lambda digits: f"%0{digits[1]}d" if digits[1] else "%d", location)
    if variable := _VARIABLE.search(location):
        raise ValueError(f"the location {url[:200]!r} has the variable {variable[1]}, and only frame is known")
    return location


def _announced(manager: Manager, references: Iterable[str]) -> dict[str, EntityReference]:
    """Return the working reference of each entity reference.

    Raises:
        InvalidRequestError: see Registration.
    """
    from openassetio.access import PolicyAccess, PublishingAccess
    from openassetio.errors import BatchElementError
    from openassetio.trait import TraitsData
    from openassetio_mediacreation.traits.managementPolicy import ManagedTrait_v1

    name, context = manager.displayName(), manager.createContext()
    (policy,) = manager.managementPolicy([_traits()], PolicyAccess.kWrite, context)
    if not manager.hasCapability(manager.Capability.kPublishing) or not ManagedTrait_v1.isImbuedTo(policy):
        raise InvalidRequestError(f"the asset manager {name} registers no videos", field="register")
    targets: dict[str, EntityReference] = {}
    for one in references:
        if (target := manager.createEntityReferenceIfValid(one)) is None:
            raise InvalidRequestError(f"{one[:200]!r} is no entity reference of {name}", field="register", named=True)
        targets[one] = target
    if not targets:
        return {}
    answers = manager.preflight(
        list(targets.values()),
        [TraitsData(_traits()) for _ in targets],
        PublishingAccess.kWrite,
        context,
        manager.BatchElementErrorPolicyTag.kVariant,
    )
    working: dict[str, EntityReference] = {}
    for one, answer in zip(targets, answers, strict=True):
        if isinstance(answer, BatchElementError):
            raise InvalidRequestError(f"the asset manager {name} refuses {one[:200]!r}: {_reason(answer)}", field="register")
        working[one] = answer
    return working


def _registered(manager: Manager, files: Mapping[str, AssetFile], working: Mapping[str, EntityReference]) -> RegisteredFiles:
    from openassetio.access import PublishingAccess
    from openassetio.errors import BatchElementError
    from openassetio.utils import FileUrlPathConverter

    urls = FileUrlPathConverter()
    answers = manager.register(
        [working[asked] for asked in files],
        [_described(file, urls) for file in files.values()],
        PublishingAccess.kWrite,
        manager.createContext(),
        manager.BatchElementErrorPolicyTag.kVariant,
    )
    outcome = RegisteredFiles({}, {})
    for asked, answer in zip(files, answers, strict=True):
        if isinstance(answer, BatchElementError):
            outcome.problems[asked] = _reason(answer)
        else:
            outcome.references[asked] = answer.toString()
    return outcome


def _traits() -> set[str]:
    """Return the traits of a registered file. OpenAssetIO-MediaCreation has no specification of a video."""
    from openassetio_mediacreation.traits import content, identity, timeDomain, twoDimensional, usage

    return {
        usage.EntityTrait_v1.kId,
        content.LocatableContentTrait_v1.kId,
        identity.DisplayNameTrait_v1.kId,
        timeDomain.FrameRangedTrait_v1.kId,
        twoDimensional.ImageCollectionTrait_v1.kId,
        twoDimensional.PixelBasedTrait_v1.kId,
    }


def _described(file: AssetFile, urls: FileUrlPathConverter) -> TraitsData:
    """Return the traits of a file with their properties."""
    from openassetio.trait import TraitsData
    from openassetio_mediacreation.traits.content import LocatableContentTrait_v1
    from openassetio_mediacreation.traits.identity import DisplayNameTrait_v1
    from openassetio_mediacreation.traits.timeDomain import FrameRangedTrait_v1

    asset = TraitsData(_traits())
    DisplayNameTrait_v1(asset).setName(file.name)
    path, located = str(file.path), LocatableContentTrait_v1(asset)
    if is_sequence(file.path):
        path = str(file.path.with_name(NUMBER.sub(lambda number: f"{{frame:0{number[1] or 1}d}}", file.path.name)))
        located.setIsTemplated(True)
    located.setLocation(urls.pathToUrl(path))
    if kind := guess_type(file.path.name)[0]:
        located.setMimeType(kind)
    ranged = FrameRangedTrait_v1(asset)
    ranged.setStartFrame(file.frames[0])
    ranged.setEndFrame(file.frames[1])
    if file.rate is not None:
        ranged.setFramesPerSecond(float(file.rate))
    return asset


def _reason(error: BatchElementError) -> str:
    """Return why the manager refuses one of several entity references."""
    return _one_line(error.message) or error.code.name


def _text(problem: Exception) -> str:
    return _one_line(str(problem)) or type(problem).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
