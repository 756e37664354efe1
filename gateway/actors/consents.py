"""The rules of consent of one installation: which records it asks for, which it trusts, and which were withdrawn."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.actors.stored import consent_of, find_holders
from gateway.audit.entries import AuditEvent, EventKind
from gateway.audit.log import AuditLog
from gateway.consent.keys import SETTING, Keys, check_signature, read_keys
from gateway.consent.record import Consent, ConsentUse, check_scope, check_time, digest_of
from gateway.consent.subject import check_actor, check_names_subject
from gateway.database.session import Database
from gateway.database.tables import ActorRow, WithdrawalRow
from gateway.settings import GatewaySettings, RequireConsent
from gateway.times import now
from services.common.errors import (
    ConsentMissingError,
    ConsentRefusedError,
    ConsentUnsignedError,
    ConsentWithdrawnError,
    InvalidRequestError,
    StorageRefusedError,
)
from services.common.texts import Command, Option, Text

if TYPE_CHECKING:
    from gateway.dub.request.dub_request import DubRequest

_AT_ONCE: Final = 500
"""Most digests of one query: databases limit the length of a list."""
_REFERENCE: Final = Text(
    "this installation requires a consent record of the person in the reference picture too: give one with {option}. If the "
    "reference shows the person who is dubbed, give that person's record again",
    option=Option("reference_consent", "FILE"),
)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Withdrawal of a consent record.

    Attributes:
        record_sha256: digest of the record (`digest_of`).
        withdrawn_at: time of the withdrawal, RFC 3339, UTC.
        actor_ids: actors whose record it is.
    """

    record_sha256: str
    withdrawn_at: str
    actor_ids: tuple[str, ...]


class Consents:
    """Rules of consent of one installation. All methods block.

    Args:
        database: database of the actors.
        settings: whether records are required, and the trusted keys.
    """

    def __init__(self, database: Database, settings: GatewaySettings) -> None:
        self._database = database
        self._audit = AuditLog(database)
        self._required = settings.require_consent
        self._keys_path = settings.consent_keys

    def check_settings(self) -> None:
        """Check the settings before any request comes.

        Raises:
            InvalidRequestError: the trusted keys cannot be read, or signatures are required and there are no trusted keys.
        """
        if self._keys_path is None and self._required is RequireConsent.SIGNED:
            raise InvalidRequestError(
                f"DUBSTAGE_REQUIRE_CONSENT=signed needs trusted keys: set {SETTING} to a PEM file or a folder of PEM files with "
                "public keys",
                field=SETTING,
            )
        if self._keys_path is not None:
            read_keys(self._keys_path)

    @property
    def required(self) -> bool:
        """Whether the installation requires records."""
        return self._required is not RequireConsent.NO

    def check(
        self, consent: Consent | None, use: ConsentUse, subject: str, *, actor_id: str = "", enrols: bool = False, what: str = ""
    ) -> None:
        """Check that a record that comes with a request allows a use now, as far as no picture has to be looked at for this.

        Whether the footage shows the person of the record is checked when the footage is read (`gateway.consent.subject`).

        Args:
            consent: the record; None: there is none.
            use: what is done with the person.
            subject: whom or what an error is about.
            actor_id: the actor that the work uses or makes; empty: none.
            enrols: whether the work makes the actor.
            what: text of the error for a missing record; empty: as for a person who is dubbed.

        Raises:
            ConsentMissingError: there is no record, and the installation requires one.
            ConsentUnsignedError: the record is not signed, and the installation requires signatures.
            ConsentSignerUnknownError, ConsentAlteredError: the record is signed, and the signature cannot be trusted.
            ConsentWithdrawnError, ConsentNotYetValidError, ConsentExpiredError: the consent does not hold now.
            ConsentOutOfScopeError: the record does not cover the use.
            ConsentWithoutSubjectError: the record does not say whose face it is about, and the installation requires records.
            ConsentOtherSubjectError: the record is about another actor.
            StorageRefusedError: the trusted keys cannot be read.
        """
        if consent is None:
            self._check_not_required(subject, what)
            return
        self._check_allows(consent, use, subject, signed=True)
        if self.required:
            check_names_subject(consent, subject, enrols=enrols)
        check_actor(consent, actor_id, subject)

    def check_enrolment(self, consent: Consent | None, use: ConsentUse, actor_id: str) -> None:
        """Check that a record allows an enrolment, as `check`."""
        self.check(consent, use, actor_id, actor_id=actor_id, enrols=True)

    def check_enrolled(self, own: Consent | None, given: Consent | None, use: ConsentUse, subject: str, *, actor_id: str) -> None:
        """Check that the records of an enrolled actor allow a use now: the actor's own, and that of a request. Both must.

        What the installation requires (a record, a signature, a subject), the record of the request has to bring, or the own record
        if there is no other. The own record needs no subject: the actor's row in the database binds it to the actor.

        Args:
            own: the actor's own record; None: there is none.
            given: record that comes with the request; None: there is none.
            use: what is done with the person.
            subject: whom or what an error is about.
            actor_id: the actor.

        Raises:
            ConsentRefusedError: as `check`.
        """
        if own is not None:
            try:
                self._check_allows(own, use, subject, signed=given is None)
                check_actor(own, actor_id, subject)
            except ConsentRefusedError as problem:
                if given is None:
                    raise
                raise type(problem)(
                    Text(
                        "the actor {actor} has a consent record of its own, which a record of the request narrows and does not "
                        "replace: {problem}",
                        actor=actor_id,
                        problem=problem,
                    ),
                    subject=subject,
                ) from None
        if given is not None or own is None:
            self.check(given, use, subject, actor_id=actor_id)

    def checked_dub(self, request: DubRequest, *, subject: str, reference: str) -> DubRequest:
        """Check that the records of a dub allow the dub now: of the person who is dubbed, and of the person in a reference picture.

        Args:
            request: the dub request.
            subject: whom or what an error is about.
            reference: name of the reference picture in errors.

        Returns:
            The request, which says whether this installation requires records.

        Raises:
            ConsentRefusedError: as `check`.
        """
        actor_id = request.actor_record.actor_id if request.actor_record is not None else ""
        self.check_enrolled(request.own_consent, request.consent, request.use, subject, actor_id=actor_id)
        if request.reference is not None:
            self.check(request.reference_consent, request.use, reference, actor_id=actor_id, what=_REFERENCE)
        return replace(request, consent_required=self.required)

    def check_lasting(self, records: Collection[Consent | None], *, actor_id: str = "", subject: str = "") -> None:
        """Check that work which has begun may go on: no record was withdrawn, and the time of none is over.

        Args:
            records: records that allowed the work.
            actor_id: actor that the work uses, whose own record must still hold too; empty: none.
            subject: whom or what an error is about, if no actor is used.

        Raises:
            ConsentWithdrawnError, ConsentNotYetValidError, ConsentExpiredError: the consent does not hold any more.
        """
        if actor_id or any(record is not None for record in records):
            with self._database.reading() as session:
                self.check_within(session, records, actor_id=actor_id, subject=subject)

    def check_within(self, session: Session, records: Collection[Consent | None], *, actor_id: str = "", subject: str = "") -> None:
        """Check as `check_lasting`, in a transaction of the caller."""
        consents = [record for record in records if record is not None]
        row = session.get(ActorRow, actor_id) if actor_id else None
        own = consent_of(row, self._database.where) if row is not None else None
        consents += [own] if own is not None else []
        withdrawn = _withdrawn(session, {digest_of(record) for record in consents})
        for record in consents:
            self._check_holds(record, withdrawn, actor_id or subject)

    def problems(self, records: Sequence[Consent | None]) -> list[str]:
        """Return for each record why all work with it is refused now; empty: work within the scope of the record is allowed."""
        withdrawn = self.withdrawn({digest_of(record) for record in records if record is not None})
        return [self._problem(record, withdrawn) for record in records]

    def withdrawn(self, digests: AbstractSet[str]) -> Mapping[str, str]:
        """Return the time of the withdrawal, RFC 3339, UTC, of the records among `digests` that were withdrawn."""
        if not digests:
            return {}
        with self._database.reading() as session:
            return _withdrawn(session, digests)

    def withdraw(self, digest: str) -> Withdrawal:
        """Withdraw a record. A record that was withdrawn before keeps its first time.

        Work with the record ends in all processes at their next look at the database.

        Args:
            digest: digest of the record (`digest_of`).
        """
        with self._database.writing() as session:
            self._database.one_by_one(session)
            row = session.get(WithdrawalRow, digest)
            if row is None:
                row = WithdrawalRow(record_sha256=digest, withdrawn_at=now())
                session.add(row)
            holders = find_holders(session, digest)
            self._audit.append(session, AuditEvent(event=EventKind.CONSENT_WITHDRAWN, consents=(digest,)))
            return Withdrawal(digest, row.withdrawn_at, holders)

    def withdraw_of(self, actor_id: str, consent: Consent | None) -> Withdrawal:
        """Withdraw the record of an actor.

        Raises:
            ConsentMissingError: the actor has no record.
        """
        if consent is None:
            raise ConsentMissingError(
                Text(
                    "actor {actor!r} has no consent record that could be withdrawn: {erase} erases the person",
                    actor=actor_id,
                    erase=Command("actor erase", actor_id),
                ),
                subject=actor_id,
            )
        return self.withdraw(digest_of(consent))

    def _check_not_required(self, subject: str, what: str) -> None:
        if self.required:
            raise ConsentMissingError(
                what
                or Text(
                    "this installation requires a consent record: give one with {consent}, or use an actor that has one",
                    consent=Option("consent", "FILE"),
                ),
                subject=subject,
            )

    def _check_allows(self, consent: Consent, use: ConsentUse, subject: str, *, signed: bool) -> None:
        """Check signature, withdrawal, time and scope.

        An unsigned record is refused only if `signed` says that the record must bring the signature that the installation requires.
        """
        if signed or consent.signature is not None:
            self._check_signed(consent, subject)
        self._check_holds(consent, self.withdrawn({digest_of(consent)}), subject)
        check_scope(consent, use, subject)

    def _check_signed(self, consent: Consent, subject: str) -> None:
        if consent.signature is not None:
            check_signature(consent, self._keys(), subject)
        elif self._required is RequireConsent.SIGNED:
            raise ConsentUnsignedError(
                "this installation takes signed consent records only: `dubstage consent sign` signs a record", subject=subject
            )

    def _check_holds(self, consent: Consent, withdrawn: Mapping[str, str], subject: str) -> None:
        _check_not_withdrawn(consent, withdrawn, subject)
        check_time(consent, datetime.datetime.now(datetime.UTC), subject)

    def _problem(self, consent: Consent | None, withdrawn: Mapping[str, str]) -> str:
        try:
            if consent is None:
                self._check_not_required(subject="", what="")
            else:
                self._check_signed(consent, "")
                self._check_holds(consent, withdrawn, "")
        except (ConsentRefusedError, StorageRefusedError) as problem:
            return Text("{problem}", problem=problem)
        return ""

    def _keys(self) -> Keys:
        # Read again for every record, so that keys change without a restart.
        try:
            return read_keys(self._keys_path) if self._keys_path is not None else {}
        except InvalidRequestError as problem:
            # The keys could be read when the process began: the fault is not the caller's.
            raise StorageRefusedError(Text("{problem}", problem=problem), subject=SETTING) from problem


def check_digest(text: str) -> str:
    """Return the digest of a record.

    Raises:
        InvalidRequestError: the text is no SHA-256.
    """
    if not _DIGEST.fullmatch(text):
        raise InvalidRequestError(
            f"{text[:80]!r} is no SHA-256: give the 64 hexadecimal digits that `dubstage consent show` prints",
            field="record_sha256",
            named=True,
        )
    return text


def _withdrawn(session: Session, digests: AbstractSet[str]) -> dict[str, str]:
    wanted, times = sorted(digests), {}
    for begin in range(0, len(wanted), _AT_ONCE):
        mine = select(WithdrawalRow).where(WithdrawalRow.record_sha256.in_(wanted[begin : begin + _AT_ONCE]))
        times.update({row.record_sha256: row.withdrawn_at for row in session.scalars(mine)})
    return times


def _check_not_withdrawn(consent: Consent, withdrawn: Mapping[str, str], subject: str) -> None:
    at = withdrawn.get(digest_of(consent))
    if at is not None:
        raise ConsentWithdrawnError(
            f"the consent was withdrawn at {at}: no work with the person begins or goes on", subject=subject
        )
