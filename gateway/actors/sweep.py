"""The look through all stores after an erasure: whether something of what was erased is left."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import String, func, or_, select
from sqlalchemy.orm import Session

from gateway.actors.receipts import SweptPlace
from gateway.audit.log import AuditPersonRow
from gateway.database.tables import Base, ErasureRow
from gateway.dub.state.journal import journalled
from gateway.dub.state.scratch import SCRATCH, remove_left_copies
from gateway.dub.state.workspace import JOBS, JOURNAL
from services.common.errors import StorageRefusedError
from services.common.files import file_sha256
from services.common.store.artefacts import ArtefactRef, ArtefactStore
from services.common.texts import Command, Text

_AT_ONCE: Final = 200
_OTHER_TENANTS: Final = "tenants"
"""Folder of the data folder that holds the places of other tenants."""
_SHOWN: Final = 5
_DIGEST_LENGTH: Final = 64
_DIGESTS: Final = ("sha256", "enrolment_sha256")
"""Columns that hold digests of blobs."""


_GO_LAST: Final = (ErasureRow.__tablename__, AuditPersonRow.__tablename__)
"""Tables whose rows of the person the same transaction deletes when the receipt is written."""


class OtherStore(Protocol):
    """A store beside database, artefacts and jobs that holds something of people, such as the pictures of batches."""

    @property
    def place(self) -> str:
        """Name of the store in receipts."""

    def forget(self, actor_id: str) -> Mapping[str, Collection[str]]:
        """Remove what the store holds of a person, and return the digests of what was removed by kind."""

    def left(self, actor_id: str) -> tuple[int, Sequence[str]]:
        """Return the number of things that were looked at, and what is left of a person."""


@dataclass(slots=True)
class Sweep:
    """Findings of a look through the stores.

    Attributes:
        looked: the places that were looked through.
        left: what is left, and where, as texts.
        in_use: files of other jobs that equal an erased file: SHA-256, hexadecimal.
    """

    looked: list[SweptPlace] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    in_use: set[str] = field(default_factory=set)

    def note(self, place: str, looked_at: int, left: Collection[str] = ()) -> None:
        """Note what one place holds."""
        self.looked.append(SweptPlace(place, looked_at))
        self.left.extend(f"{what} in {place}" for what in left)

    def check(self, actor_id: str) -> None:
        """Check that nothing is left.

        Raises:
            StorageRefusedError: something is left. The message says what and where.
        """
        if self.left:
            more = f", and {len(self.left) - _SHOWN} more" if len(self.left) > _SHOWN else ""
            shown = "; ".join(self.left[:_SHOWN])
            raise StorageRefusedError(
                Text(
                    "actor {actor} is not erased whole. Left: {left}. Remove this, or let the store delete it, then run "
                    "{erase} again",
                    actor=actor_id,
                    left=shown + more,
                    erase=Command("actor erase", actor_id),
                ),
                subject=self.left[0],
            )


def sweep_database(session: Session, actor_id: str, digests: AbstractSet[str], sweep: Sweep) -> None:
    """Look for rows that name a person or an erased blob. The row of the erasure itself and entries of the audit log do not count.

    Args:
        session: the transaction of the erasure.
        actor_id: the erased person.
        digests: SHA-256 of what was erased.
        sweep: takes what was found.
    """
    tables = [table for table in Base.metadata.sorted_tables if table.name not in _GO_LAST]
    wanted, left, number = sorted(digests), [], 0
    for table in tables:
        asked = [table.c.actor_id == actor_id] if "actor_id" in table.c else []
        for column in (table.c[name] for name in _DIGESTS if name in table.c and isinstance(table.c[name].type, String)):
            asked += [column.in_(wanted[begin : begin + 500]) for begin in range(0, len(wanted), 500)]
        if not asked:
            continue
        number += session.scalar(select(func.count()).select_from(table)) or 0
        count = session.scalar(select(func.count()).select_from(table).where(or_(*asked))) or 0
        if count:
            left.append(f"{count} rows of the table {table.name}")
    sweep.note("database", number, left)


def sweep_artefacts(store: ArtefactStore, refs: Collection[ArtefactRef], beat: Callable[[], None], sweep: Sweep) -> None:
    """Look for erased blobs in the artefact store.

    Args:
        refs: blobs that were erased.
        beat: called often: keeps the transaction of the erasure open.
        sweep: takes what was found.
    """
    left = []
    for number, ref in enumerate(refs):
        if number % _AT_ONCE == 0:
            beat()
        if store.exists(ref):
            left.append(f"blob {ref.sha256}")
    sweep.note("artefact store", len(refs), left)


def sweep_folder(
    data_dir: Path,
    store: ArtefactStore,
    folders: Collection[Path],
    digests: AbstractSet[str],
    sizes: AbstractSet[int],
    *,
    beat: Callable[[], None],
    sweep: Sweep,
) -> None:
    """Look for erased files, and for journals that name erased blobs, in the data folder: jobs, copies of uploads, batches.

    Copies of media that killed processes left are removed first, of all people. Files of jobs that are not the person's stay:
    somebody else's work uses equal bytes.

    Args:
        data_dir: the gateway's data folder.
        store: the artefact store. If its folder is in the data folder, its blobs are known by their names, and are not read.
        folders: the person's folders of jobs.
        digests: SHA-256 of what was erased.
        sizes: sizes of what was erased, bytes. Files of other sizes are not read.
        beat: as for `sweep_artefacts`.
        sweep: takes what was found.
    """
    remove_left_copies(data_dir)
    data_dir = data_dir.absolute()
    left = [f"folder {folder}" for folder in folders if folder.exists()]
    number, blobs = 0, store.folder
    # A blob lies in the folder of the first two digits of its digest. People have many blobs of equal sizes.
    beginnings = {digest[:2] for digest in digests}

    def enters(path: Path) -> bool:
        if path.parent == blobs and len(path.name) == 2:
            return path.name in beginnings
        return path != data_dir / _OTHER_TENANTS

    for file, size in regular_files(data_dir, enters):
        number += 1
        if number % _AT_ONCE == 0:
            beat()
        parts = file.relative_to(data_dir).parts
        if not size or size not in sizes:
            continue
        is_blob = file.parent.parent == blobs and file.name.startswith(file.parent.name) and len(file.name) == _DIGEST_LENGTH
        sha256 = file.name if is_blob else digest_of_file(file)
        if sha256 not in digests:
            continue
        if parts[0] in (JOBS, SCRATCH):
            sweep.in_use.add(sha256)
        else:
            left.append(f"file {file}")
    jobs = data_dir / JOBS
    for journal in sorted(jobs.glob(f"*/{JOURNAL}")) if jobs.is_dir() else ():
        beat()
        left += [f"entry of the journal {journal}" for ref in journalled(journal) if ref.sha256 in digests]
    sweep.note("data folder (jobs, journals, uploads)", number, left)


def regular_files(folder: Path, enters: Callable[[Path], bool] = lambda _: True) -> Iterator[tuple[Path, int]]:
    """Yield all regular files below a folder, with their sizes in bytes. Links are not followed. Files that vanish are left out.

    Args:
        folder: the folder.
        enters: whether the files below a folder count.
    """
    for parent, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if enters(Path(parent, name)))
        for name in sorted(files):
            file = Path(parent, name)
            try:
                facts = file.lstat()
            except OSError:
                continue
            if stat.S_ISREG(facts.st_mode):
                yield file, facts.st_size


def digest_of_file(file: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal; empty: the file vanished or cannot be read."""
    try:
        return file_sha256(file)
    except OSError:
        return ""
