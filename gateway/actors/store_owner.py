"""The database that owns an artefact store.

Only the rows of one database say which blobs of a store are in use: a second database would delete what the first one counts. So a
store carries the id of its database, and every other database is refused when it is opened with that store.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import URL

from gateway.actors.receipts import now
from gateway.database.database import Database
from services.common.chassis.caller import DEFAULT_TENANT
from services.common.errors import BackendUnavailable, StorageRefused
from services.common.store.artefacts import ArtefactStore

_TRIES: Final = 5
"""Most looks at a store that another process marks at the same time."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Owner of a store: the one database that counts the blobs of the store.

    Attributes:
        database: id of the database.
        where: URL of the database without its user and password, for people.
        since: time when the database became the owner, RFC 3339, UTC.
    """

    database: str
    where: str
    since: str


def claim_store(artefacts: ArtefactStore, database: Database) -> None:
    """Make a database the owner of a store that has none, or check that the database is the owner.

    Raises:
        StorageRefused: another database is the owner, or the store cannot be used.
        BackendUnavailable: the store does not answer.
    """
    for _ in range(_TRIES):
        if check_owner(artefacts, database) or artefacts.set_owner(_mark(database)):
            return
    raise BackendUnavailable(f"the artefact store {artefacts.url} does not keep {artefacts.owner_url}: see the log of the store")


def check_owner(artefacts: ArtefactStore, database: Database) -> bool:
    """Return whether a database is the owner of a store. False: the store has no owner yet.

    Raises:
        StorageRefused: another database is the owner, or the store cannot be used.
        BackendUnavailable: the store does not answer.
    """
    owner = owner_of(artefacts)
    if owner is not None and owner.database != database.id:
        raise _refused(artefacts, database, owner)
    return owner is not None


def take_store(artefacts: ArtefactStore, database: Database, former: str) -> None:
    """Make a restored database the owner of the store of its backup. The former owner is refused from now on.

    Args:
        artefacts: the store.
        database: the restored database.
        former: id of the database that the backup was written from; empty: the backup does not say.

    Raises:
        StorageRefused: a database that is neither of the two is the owner, or the store cannot be used.
        BackendUnavailable: the store does not answer.
    """
    owner = owner_of(artefacts)
    if owner is None or not former or owner.database != former:
        claim_store(artefacts, database)
    else:
        artefacts.set_owner(_mark(database), replace=True)


def owner_of(artefacts: ArtefactStore) -> Owner | None:
    """Return the owner of a store; None: the store has no owner yet.

    Raises:
        StorageRefused: the object that names the owner is damaged, or the store cannot be used.
        BackendUnavailable: the store does not answer.
    """
    content = artefacts.owner()
    if content is None:
        return None
    try:
        return TypeAdapter(Owner).validate_json(content)
    except ValidationError:
        raise StorageRefused(
            f"{artefacts.owner_url} is damaged: it names the database that counts the artefacts. If no other database than yours "
            "uses the store, remove that file and try again",
            subject=artefacts.url,
        ) from None


def _mark(database: Database) -> bytes:
    url = database.engine.url
    where = URL.create(url.drivername, host=url.host, port=url.port, database=url.database).render_as_string()
    return f"{json.dumps(asdict(Owner(database.id, where, now())), indent=1)}\n".encode()


def _refused(artefacts: ArtefactStore, database: Database, owner: Owner) -> StorageRefused:
    # Callers of a gateway see the errors of their own tenant's store, and need not know other databases.
    named = f" ({owner.where}, since {owner.since})" if database.tenant == DEFAULT_TENANT else ""
    return StorageRefused(
        f"the artefact store {artefacts.url} belongs to another database{named}, and {database.where} would delete what that "
        "database counts: work with that database (DUBSTAGE_DATA_DIR or DUBSTAGE_DATABASE_URL), or give this one a store of its "
        f"own (DUBSTAGE_ARTEFACTS_URL). If the other database is gone for good, remove {artefacts.owner_url} and try again",
        subject=artefacts.url,
    )
