"""Errors as callers of the API may see them: files have the names that the caller uses, and no folder of the server is named."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import services
from dubstage.gateway.v1.dub_pb2 import DubSpec
from gateway.api.operations import DUB
from gateway.api.resources import ACTORS, BATCHES, WEBHOOKS
from gateway.settings import GatewaySettings
from services.common.errors import ActorNotFoundError, BatchNotFoundError, DubstageError, RequestError, WebhookNotFoundError
from services.common.server import error_status
from services.common.server.settings import PREFIX

FIELDS: Final = {
    "output": "output_uri",
    "footage": "footage_uri",
    "video": "footage_uri",
    "audio": "speech_uri",
    "speech": "speech_uri",
    "file": "footage_uri",
    "reference": "reference_uri",
    "mix": "mix_uri",
}
"""Names of fields in the pipeline and on the command line -> names of the same fields in CreateDub, CreateActor and DetectFaces."""
_OF_BATCHES: Final = {"id": "shot_ids"}
"""Names of fields on the command line `dubstage batch` -> names of the same fields in BatchService."""
_BATCH_RPCS: Final = (
    *("SubmitBatch", "GetBatch", "GetShot", "ListShots", "WatchBatch", "CancelBatch", "RetryBatch", "DeleteBatch"),
    "GetReport",
)
_FIELDS_OF: Final = {
    **dict.fromkeys(("CreateDub", "CreateActor", "DetectFaces", "EstimateDub"), FIELDS),
    **dict.fromkeys(_BATCH_RPCS, _OF_BATCHES),
    "SubmitBatch": {**_OF_BATCHES, "name": "batch_id"},
    "ListShots": {**_OF_BATCHES, "name": "parent"},
}
"""Names of fields by RPC."""
_OF_DUBS: Final = ("CreateDub", "EstimateDub")
"""RPCs whose requests have a DubSpec in their field `dub`."""
_DUB_FIELDS: Final = frozenset({"face", "start", *DubSpec.DESCRIPTOR.fields_by_name})
_COLLECTION_OF: Final[Mapping[type[DubstageError], str]] = {
    ActorNotFoundError: ACTORS,
    BatchNotFoundError: BATCHES,
    WebhookNotFoundError: WEBHOOKS,
}
"""Errors that name a resource by its id."""


def resource_of(collection: str, resource: str) -> str:
    """Return the name of a resource that an error names by its id, or a shot by BATCH/SHOT."""
    if not resource or resource.startswith(f"{collection}/"):
        return resource
    first, slash, shot = resource.partition("/")
    return f"{collection}/{first}/shots/{shot}" if slash else f"{collection}/{first}"


class ErrorRewriter:
    """Rewrites errors for callers. Files of the media folder are named from that folder on, all others by their setting.

    Args:
        settings: settings of the gateway.
        database: name of the database in error texts.
        artefacts: URL of the artefact store in error texts.
    """

    def __init__(self, settings: GatewaySettings, database: str, artefacts: str) -> None:
        names: dict[str, str] = {database: "DUBSTAGE_DATABASE_URL", artefacts: "DUBSTAGE_ARTEFACTS_URL"}
        if artefacts.startswith("file://"):
            names[artefacts.removeprefix("file://")] = "DUBSTAGE_ARTEFACTS_URL"
        folders = {settings.data_dir: "DUBSTAGE_DATA_DIR", Path(services.__file__).parents[1]: "dubstage"}
        for name in type(settings).model_fields:
            setting = getattr(settings, name)
            if isinstance(setting, Path):
                folders.setdefault(setting, f"{PREFIX}{name.upper()}")
        if settings.media_dir is not None:
            folders[settings.media_dir] = ""
        for folder, name in folders.items():
            # Errors name a folder as the setting gives the folder, or by its real path.
            for path in {folder, folder.absolute(), folder.resolve()}:
                if path.is_absolute() and path != Path("/"):
                    names[str(path)] = name
        self._names = {path: name for path, name in names.items() if path}
        # The longest path comes first, because one folder may lie in another.
        paths = "|".join(re.escape(path) for path in sorted(self._names, key=len, reverse=True))
        temporary = re.escape(tempfile.gettempdir())
        self._pattern = re.compile(rf"(?P<path>{paths})(?P<slash>/|(?![\w.-]))|{temporary}/tmp\w+/")

    def for_caller(self, text: str) -> str:
        """Return a text without the server's folders."""
        return self._pattern.sub(self._name, text)

    def rewrite(self, error: DubstageError, *, fields: Mapping[str, str] = FIELDS, in_dub: bool = False) -> DubstageError:
        """Filter the texts of an error, rename its field, and return the same error.

        Args:
            fields: names of fields in the gateway -> names of the same fields for the caller.
            in_dub: whether the fields of a DubSpec stand in the field `dub` of the request.
        """
        error.change_texts(self.for_caller)
        if isinstance(error, RequestError):
            error.field = fields.get(error.field, error.field)
            if in_dub and re.split(r"[.\[]", error.field)[0] in _DUB_FIELDS:
                error.field = f"dub.{error.field}"
        collection = _COLLECTION_OF.get(type(error))
        if collection is not None:
            error.resource = resource_of(collection, error.resource)  # type: ignore[attr-defined]  # errors that have a resource
        return error

    @contextmanager
    def rewriting(self, rpc: str) -> Iterator[None]:
        """Rewrite the error that the work of an RPC ends with.

        Args:
            rpc: name of the RPC, such as CreateDub.
        """
        rewrite = functools.partial(self.rewrite, fields=_FIELDS_OF.get(rpc, {}), in_dub=rpc in _OF_DUBS)
        try:
            yield
        except DubstageError as error:
            rewrite(error)
            raise
        except ExceptionGroup as group:
            raise rewrite(error_status.domain_error(group)) from group

    def rewrite_of_operation(self, error: DubstageError, kind: str) -> DubstageError:
        """Rewrite an operation's error as `rewrite` does. The error of a dub names fields of the DubSpec."""
        return self.rewrite(error, in_dub=kind == DUB)

    def _name(self, match: re.Match[str]) -> str:
        path = match["path"]
        if path is None:
            return ""
        name = self._names[path]
        if not name:
            return "" if match["slash"] else "the media folder"
        return name + match["slash"]
