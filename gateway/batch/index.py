"""Index of a batch: few facts of every shot, so that a list of many shots reads only the records of its page.

    NAME/index.json     facts by the file that they come from, each record with the version of its file

Any process that lists a batch reads the index, compares it with the listing of the folders, and reads the files that are new or
changed. After UNSAVED such files it writes the index again, whole. Records and decisions count, never the index: facts of another
version of a file, and an index that is damaged or of another dubstage, are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.batch.records import unix_time
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.risk import SCALES, risk_of
from gateway.batch.store import BatchStore, shot_of_decision
from gateway.batch.types import ENDED, ShotRecord, ShotState
from services.common.errors import DubstageError

UNSAVED: Final = 200
"""Files that are read before the index is written again."""
_PIECE: Final = 500
"""Files that are read at once, so that few whole records are in memory."""
# An index of other scales has other risks.
_FORMAT: Final = f"1 {hashlib.sha256(repr(SCALES).encode()).hexdigest()[:16]}"


class ShotFacts(NamedTuple):
    """Facts of one record.

    Attributes:
        version: version of the file.
        state: state of the shot.
        risk: risk of the shot (gateway/batch/risk.py).
        look: whether the quality gate marked the shot.
        frames: frames of the video.
        begun_s, ended_s: begin and end of the last attempt, Unix time; 0: not known.
        subject: what a decision about the shot is about (ShotRecord.subject).
    """

    version: str
    state: ShotState
    risk: float
    look: bool
    frames: int
    begun_s: float
    ended_s: float
    subject: str


class DecisionFacts(NamedTuple):
    """Facts of one decision.

    Attributes:
        state: what is decided.
        assignee: person who is to look at the shot.
        subject: what the decision is about.
    """

    state: ReviewState
    assignee: str
    subject: str


class ListedShot(NamedTuple):
    """One shot in a list.

    Attributes:
        id: id of the shot.
        facts: facts of its record.
        decision: name of the file of the decision about the present video; empty: undecided.
        review: state of that decision.
        assignee: person who is to look at the shot.
    """

    id: str
    facts: ShotFacts
    decision: str = ""
    review: ReviewState = ReviewState.UNDECIDED
    assignee: str = ""


class _Saved(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: str
    records: dict[str, ShotFacts]
    decisions: dict[str, DecisionFacts]


_WAITING: Final = ShotFacts("", ShotState.WAITING, 0.0, False, 0, 0.0, 0.0, "")


class BatchIndex:
    """Facts of the shots of one batch. Methods block, and may be called from any thread.

    Args:
        store: store of batches.
        name: name of the batch.
    """

    def __init__(self, store: BatchStore, name: str) -> None:
        self._store, self._name = store, name
        self._records: Mapping[str, ShotFacts] = {}
        self._decisions: Mapping[str, DecisionFacts] = {}
        self._read_saved = False
        self._unsaved = 0
        self._last: tuple[Hashable, list[ListedShot]] | None = None

    def shots(self) -> list[ListedShot]:
        """Return all shots of the batch in the order of the rows. While nothing is written to a folder, nothing is listed again.

        Raises:
            BatchNotFoundError: there is no such batch.
            ArtefactCorruptError: a file of the batch is damaged.
            DubstageError: the store cannot be used.
        """
        ids, stamp = self._store.ids(self._name), self._store.listing_stamp(self._name)
        if self._last is not None and stamp is not None and self._last[0] == stamp:
            return self._last[1]
        versions, files = self._store.record_versions(self._name), self._store.decision_files(self._name)
        if not self._read_saved:
            self._load()
        last = {shot_of_decision(file): file for file in files}
        records = {one: facts for one, facts in self._records.items() if versions.get(one) == facts.version}
        decisions = {file: self._decisions[file] for file in last.values() if file in self._decisions}
        known = len(records) + len(decisions)
        records |= self._new_records([one for one in ids if one in versions and one not in records], versions)
        decisions |= self._new_decisions([file for file in last.values() if file not in decisions])
        self._unsaved += len(records) + len(decisions) - known
        if self._unsaved >= UNSAVED:
            self._unsaved = 0
            self._save(records, decisions)
        # Replaced whole, so that calls at the same time see one state each.
        self._records, self._decisions = records, decisions
        cancelled = self._store.cancelled(self._name)
        shots = [self._listed(one, one in cancelled, records, decisions, last) for one in ids]
        self._last = (stamp, shots)
        return shots

    def _listed(
        self,
        shot_id: str,
        cancelled: bool,
        records: Mapping[str, ShotFacts],
        decisions: Mapping[str, DecisionFacts],
        last: Mapping[str, str],
    ) -> ListedShot:
        facts = records.get(shot_id, _WAITING)
        if cancelled and facts.state is ShotState.WAITING:
            facts = facts._replace(state=ShotState.CANCELLED)
        file = last.get(shot_id, "")
        decision = decisions.get(file)
        if decision is None or facts.state not in ENDED or decision.subject != facts.subject:
            return ListedShot(shot_id, facts)
        return ListedShot(shot_id, facts, file, decision.state, decision.assignee)

    def _new_records(self, ids: Sequence[str], versions: Mapping[str, str]) -> dict[str, ShotFacts]:
        found = {}
        for piece in _pieces(ids):
            for record in self._store.stored_records(self._name, piece):
                found[record.id] = facts_of(record, versions[record.id])
        return found

    def _new_decisions(self, files: Sequence[str]) -> dict[str, DecisionFacts]:
        found = {}
        for piece in _pieces(files):
            for file, decision in self._store.decisions_in(self._name, piece).items():
                found[file] = DecisionFacts(decision.state, decision.assignee, decision.subject)
        return found

    def _load(self) -> None:
        self._read_saved = True
        content = self._store.saved_index(self._name)
        with suppress(ValidationError):
            saved = _Saved.model_validate_json(content or b"")
            if saved.format == _FORMAT:
                self._records, self._decisions = saved.records, saved.decisions

    def _save(self, records: Mapping[str, ShotFacts], decisions: Mapping[str, DecisionFacts]) -> None:
        content = json.dumps({"format": _FORMAT, "records": records, "decisions": decisions}, separators=(",", ":")).encode()
        # A store that takes no further file lists the batch all the same.
        with suppress(DubstageError):
            self._store.save_index(self._name, content)


def facts_of(record: ShotRecord, version: str = "") -> ShotFacts:
    """Return the facts of a record.

    Args:
        record: the record.
        version: version of its file.
    """
    begun_s, ended_s = unix_time(record.begun_at), unix_time(record.ended_at)
    return ShotFacts(version, record.state, risk_of(record), bool(record.look), record.frames, begun_s, ended_s, record.subject)


def decisions_of(store: BatchStore, name: str, shots: Sequence[ListedShot]) -> dict[str, Decision]:
    """Return the decisions about the present videos of shots by id. Shots without a decision are left out.

    Args:
        store: store of batches.
        name: name of the batch.
        shots: shots as `BatchIndex.shots` lists them.
    """
    found = store.decisions_in(name, [shot.decision for shot in shots if shot.decision])
    return {shot.id: found[shot.decision] for shot in shots if shot.decision in found}


def _pieces(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(names), _PIECE):
        yield names[begin : begin + _PIECE]
