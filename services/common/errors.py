"""Every error that dubstage reports to a caller. dubstage.error_kinds has the base of the tree, and the table of the gRPC statuses.

    DubstageError
        RequestError                       the request cannot be used (names the field)
            InvalidRequestError            a value, shape, order or range is wrong
            RequestIdReusedError           another request had the same id
            MediaUnsupportedError          the file is not media that can be read
            MessageTooLargeError           one message is over the size limit
            CallTooLargeError              one call holds more memory than it may
            UnauthenticatedError           no token, or a wrong one
        ResourceError                      a named thing is missing or damaged (names the resource)
            ArtefactNotFoundError          no blob at this uri
            ArtefactCorruptError           the blob has another sha256 than its reference
            ModelNotFoundError             no model of this name or version
            OperationNotFoundError         no long-running operation of this name
            BatchNotFoundError             no batch of this name, or no shot of this id in the batch
            FileMissingError               no upload, and no file of a dub, has this name
            WebhookNotFoundError           no webhook of this id
        PreconditionError                  the request is fine, the state is not (names the subject)
            ConsentRefusedError            the consent record of the person does not allow the work
                ConsentMissingError        there is no consent record and the settings require one
                ConsentUnsignedError       the record is not signed and the settings require a signature
                ConsentSignerUnknownError  the record is signed with a key that the settings do not trust
                ConsentAlteredError        the signature does not fit the record
                ConsentWithdrawnError      the consent was withdrawn
                ConsentNotYetValidError    the time of the consent has not begun
                ConsentExpiredError        the time of the consent is over
                ConsentOutOfScopeError     the record does not cover the project or the language
                ConsentWithoutSubjectError nothing in the record says whose face it is about, and the settings require a record
                ConsentOtherSubjectError   the record is about another person, actor or footage
                ConsentFaceUncertainError  a person has to decide whether the footage shows the person of the record
            ActorError                     the actor is not there, or cannot be used
                ActorNotReadyError         the actor cannot be used, or not for this work
                ActorNotFoundError         no actor of this id
            NoUsableFootageError           enrolment found no frame with a usable face
            FileInUseError                 work uses the file that would be replaced or removed, or another call uploads it
            StorageFullError               no space left where artefacts or results are written
            StorageRefusedError            the artefact store or the database refuses: credentials, permissions, bucket
            ClusterRefusedError            the Kubernetes API refuses: permissions, quota, namespace
        TransientError                     the same call may succeed later (says when to try again)
            OverloadedError                the queue is full
            TenantLimitReachedError        the tenant uses as much as its limits allow
                TenantDubsReachedError     as many dubs and enrolments run or wait as may
                TenantStreamsReachedError  as many live streams run as may
                TenantFramesReachedError   the last minute has as many frames as it may have
                TenantStorageReachedError  the artefacts take as many bytes as they may
                TenantUploadsReachedError  the uploads would take more bytes than they may
            AcceleratorOutOfMemoryError    the device has no memory for this batch now
            ModelNotReadyError             still loading or warming up
            BackendUnavailableError        a server that this server needs does not answer
        StageDeadlineExceededError         the time allowed ran out
        WorkCancelledError                 the caller gave up
        ContractBrokenError                a message of our own code breaks the contract: our bug
        UnexpectedError                    anything else: our bug too; the log of the stage has the traceback under `error_id`

Exit codes of batch jobs: 10 = wrong input, 11 = a person must change something first, 12 = our bug, 13 = the video is written, but
no frame is dubbed, 20 = try again, 130 = cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from dubstage.error_kinds import KINDS, Error
from services.common.texts import CONTRACTS, Text, Words, in_words

UNDUBBED_EXIT_CODE: Final = 13
"""Exit code of a dub that wrote its video without a dubbed frame: no error, but a person must look."""


class DubstageError(Error):
    """Base of the tree. Only leaves are raised.

    The message is for a person: it names the thing and, where there is one, the remedy. A message that names an option or a command
    is a Text, which every door writes in its own words. `message` has the words of the contracts.
    """

    reason: str = ""
    """Stable UPPER_SNAKE_CASE identifier, unique in the tree; empty on classes that are not leaves."""
    code: str = "INTERNAL"
    """Name of the gRPC status code, from the table KINDS."""
    retryable: bool = False
    """Whether the same call may succeed later without a change by a person, from the table KINDS."""
    exit_code: ClassVar[int] = 12
    """Exit code of a process that ends with this error."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "reason" in vars(cls):
            kind = KINDS[cls.reason]
            cls.code, cls.retryable = kind.code, kind.retryable

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.stage = ""
        """Name of the stage that reported the error; set on errors that came over the wire."""

    @property
    def message(self) -> str:
        """Text in the words of the contracts."""
        return self.in_words(CONTRACTS)

    def in_words(self, words: Words) -> str:
        """Return the text for a reader."""
        return self.said(words)

    def said(self, words: Words = CONTRACTS) -> str:
        """Return the text for a reader, without the name of the field that it is about."""
        return in_words(self.args[0], words)

    def add(self, more: str) -> None:
        """Let the text end with more words."""
        self.args = (Text("{said} {more}", said=self.args[0], more=more),)

    def change_texts(self, change: Callable[[str], str]) -> None:
        """Change the text and the names of things in the error, such as to the names that a caller knows."""
        self.args = (change(self.said()),)
        for name in ("field", "subject", "resource"):
            if text := getattr(self, name, ""):
                setattr(self, name, change(text))

    def __str__(self) -> str:
        return self.message


class RequestError(DubstageError):
    """The request cannot be used. `field` is the proto field path or the command line option, or empty.

    `named` says that the text is about the field alone: then the text begins with the name of the field.
    `violations` are pairs of a field and what is wrong with the field, where several fields are wrong. `reasons` are the reasons of
    the violations, in the same order, where they have other reasons than the error; an empty reason is that of the error.
    """

    exit_code = 10

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        named: bool = False,
        violations: Sequence[tuple[str, str]] = (),
        reasons: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.field = field
        self.named = named
        self.violations = tuple(violations)
        self.reasons = tuple(reasons)

    def in_words(self, words: Words) -> str:
        """Return the text for a reader."""
        return f"{words.field(self.field)}: {self.said(words)}" if self.named else self.said(words)

    def blame(self, field: str) -> None:
        """Let the error be about another field, with whose name the text begins."""
        self.field, self.named = field, True


class InvalidRequestError(RequestError):
    """A value, shape, order or range is wrong."""

    reason = "INVALID_REQUEST"


class RequestIdReusedError(RequestError):
    """Another request had the same `request_id`."""

    reason = "REQUEST_ID_REUSED"


class MediaUnsupportedError(RequestError):
    """The file is not media that can be read: not a video, no video stream, no frame, truncated."""

    reason = "MEDIA_UNSUPPORTED"


class MessageTooLargeError(RequestError):
    """One gRPC message is over the size limit of the sender or the receiver."""

    reason = "MESSAGE_TOO_LARGE"


class CallTooLargeError(RequestError):
    """One call holds more memory than a call may, by collected messages or by computation."""

    reason = "CALL_TOO_LARGE"


class UnauthenticatedError(RequestError):
    """The call carries no bearer token, or a wrong one."""

    reason = "UNAUTHENTICATED"


class ResourceError(DubstageError):
    """A named thing is missing or damaged. `resource` is the uri or name of the thing."""

    exit_code = 10

    def __init__(self, message: str, *, resource: str = "") -> None:
        super().__init__(message)
        self.resource = resource


class ArtefactNotFoundError(ResourceError):
    """No blob lies at this uri."""

    reason = "ARTEFACT_NOT_FOUND"


class ArtefactCorruptError(ResourceError):
    """The blob's bytes do not have the sha256 of the reference."""

    reason = "ARTEFACT_CORRUPT"


class ModelNotFoundError(ResourceError):
    """No model has this name or version."""

    reason = "MODEL_NOT_FOUND"


class OperationNotFoundError(ResourceError):
    """No long-running operation has this name: never started, or deleted."""

    reason = "OPERATION_NOT_FOUND"


class BatchNotFoundError(ResourceError):
    """No batch has this name, or the batch has no shot of this id. `resource` is BATCH or BATCH/SHOT."""

    reason = "BATCH_NOT_FOUND"


class FileMissingError(ResourceError):
    """No upload, and no video of a dub, has this name."""

    reason = "FILE_NOT_FOUND"


class WebhookNotFoundError(ResourceError):
    """No webhook has this id. `resource` is the id."""

    reason = "WEBHOOK_NOT_FOUND"


class PreconditionError(DubstageError):
    """The request is fine, the state is not. `subject` names what must change, such as an actor id or a folder."""

    exit_code = 11

    def __init__(self, message: str, *, subject: str = "") -> None:
        super().__init__(message)
        self.subject = subject


class ActorError(PreconditionError):
    """The actor is not there, or cannot be used."""


class ActorNotReadyError(ActorError):
    """The actor cannot be used, or not for this work."""

    reason = "ACTOR_NOT_READY"


class ActorNotFoundError(ActorError):
    """No actor has this id. `resource` is the id, and `subject` too."""

    reason = "ACTOR_NOT_FOUND"

    def __init__(self, message: str, *, subject: str = "", resource: str = "") -> None:
        super().__init__(message, subject=subject or resource)
        self.resource = self.subject


class NoUsableFootageError(PreconditionError):
    """Enrolment found no frame with a usable face."""

    reason = "NO_USABLE_FOOTAGE"


class FileInUseError(PreconditionError):
    """Work uses the file that would be replaced or removed, or another call uploads the file."""

    reason = "FILE_IN_USE"


class StorageFullError(PreconditionError):
    """No space is left where artefacts or results are written. A person must make space, so the error is not transient."""

    reason = "STORAGE_FULL"


class StorageRefusedError(PreconditionError):
    """The artefact store or the database refuses: wrong credentials, no permission, no such bucket or database."""

    reason = "STORAGE_REFUSED"


class ClusterRefusedError(PreconditionError):
    """The Kubernetes API refuses: no permission, no such namespace, a quota or an admission policy."""

    reason = "CLUSTER_REFUSED"


class TransientError(DubstageError):
    """The same call may succeed later, not before `retry_after_s` seconds."""

    exit_code = 20

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(TransientError):
    """The queue of calls or of computations is full."""

    reason = "OVERLOADED"


class AcceleratorOutOfMemoryError(TransientError):
    """The device has no memory for this batch now."""

    reason = "ACCELERATOR_OUT_OF_MEMORY"


class ModelNotReadyError(TransientError):
    """The model is still loading or warming up."""

    reason = "MODEL_NOT_READY"


class BackendUnavailableError(TransientError):
    """A server that this server needs does not answer, or went away."""

    reason = "BACKEND_UNAVAILABLE"


class StageDeadlineExceededError(DubstageError):
    """The time allowed for the call ran out. Stages are idempotent, so trying again is safe."""

    reason = "STAGE_DEADLINE_EXCEEDED"
    exit_code = 20


class WorkCancelledError(DubstageError):
    """The caller gave up."""

    reason = "CANCELLED"
    exit_code = 130


class ContractBrokenError(DubstageError):
    """A message of our own code breaks the contract: a stage got or sent it."""

    reason = "CONTRACT_BROKEN"


class UnexpectedError(DubstageError):
    """Any other failure. The message is opaque. The stage's log has the traceback under `error_id`."""

    reason = "UNEXPECTED"

    def __init__(self, message: str, *, error_id: str = "") -> None:
        super().__init__(message)
        self.error_id = error_id


def leaves(of: type[DubstageError] = DubstageError) -> tuple[type[DubstageError], ...]:
    """Return all classes under `of` that are raised: the classes with a reason of their own, in the order of definition."""
    classes: list[type[DubstageError]] = []
    for child in of.__subclasses__():
        classes.extend(leaves(child))
        if "reason" in vars(child):
            classes.append(child)
    return tuple(classes)


class ConsentRefusedError(PreconditionError):
    """The consent record of the person does not allow the work. `subject` names the actor, the footage or the reference picture."""


class ConsentMissingError(ConsentRefusedError):
    """There is no consent record of the person, and the settings require one."""

    reason = "CONSENT_MISSING"


class ConsentUnsignedError(ConsentRefusedError):
    """The consent record is not signed, and the settings require a signature."""

    reason = "CONSENT_UNSIGNED"


class ConsentSignerUnknownError(ConsentRefusedError):
    """The consent record is signed with a key that the settings do not trust."""

    reason = "CONSENT_SIGNER_UNKNOWN"


class ConsentAlteredError(ConsentRefusedError):
    """The signature does not fit the consent record: record or signature was altered."""

    reason = "CONSENT_ALTERED"


class ConsentWithdrawnError(ConsentRefusedError):
    """The consent was withdrawn."""

    reason = "CONSENT_WITHDRAWN"


class ConsentNotYetValidError(ConsentRefusedError):
    """The time of the consent has not begun."""

    reason = "CONSENT_NOT_YET_VALID"


class ConsentExpiredError(ConsentRefusedError):
    """The time of the consent is over."""

    reason = "CONSENT_EXPIRED"


class ConsentOutOfScopeError(ConsentRefusedError):
    """The consent record does not cover the project or the language of the work."""

    reason = "CONSENT_OUT_OF_SCOPE"


class ConsentWithoutSubjectError(ConsentRefusedError):
    """Nothing in the consent record says whose face the record is about, and the settings require a record."""

    reason = "CONSENT_WITHOUT_SUBJECT"


class ConsentOtherSubjectError(ConsentRefusedError):
    """The consent record is about another person, actor or footage than the work."""

    reason = "CONSENT_OTHER_SUBJECT"


class ConsentFaceUncertainError(ConsentRefusedError):
    """The comparison cannot decide whether the footage shows the person of the consent record. A person has to decide."""

    reason = "CONSENT_FACE_UNCERTAIN"


class TenantLimitReachedError(TransientError):
    """The tenant uses as much as its limits allow. Other tenants are served."""


class TenantDubsReachedError(TenantLimitReachedError):
    """The largest number of dubs and enrolments of the tenant run or wait."""

    reason = "TENANT_CONCURRENT_DUBS"


class TenantStreamsReachedError(TenantLimitReachedError):
    """The largest number of live streams of the tenant runs."""

    reason = "TENANT_LIVE_STREAMS"


class TenantFramesReachedError(TenantLimitReachedError):
    """The tenant's videos and streams of the last minute have as many frames as they may have."""

    reason = "TENANT_FRAMES_PER_MINUTE"


class TenantStorageReachedError(TenantLimitReachedError):
    """The tenant's artefacts take as many bytes as they may."""

    reason = "TENANT_STORAGE_BYTES"


class TenantUploadsReachedError(TenantLimitReachedError):
    """The tenant's uploads would take more bytes than they may."""

    reason = "TENANT_UPLOAD_BYTES"
