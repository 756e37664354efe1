# ruff: noqa: N818 - the names say what is wrong, as in errors.py
"""The errors of consent records: the branch ConsentRefused of the tree in errors.py."""

from __future__ import annotations

from services.common.errors import PreconditionError


class ConsentRefused(PreconditionError):
    """The consent record of the person does not allow the work. `subject` names the actor, the footage or the reference picture."""


class ConsentMissing(ConsentRefused):
    """There is no consent record of the person, and the settings require one."""

    reason = "CONSENT_MISSING"


class ConsentUnsigned(ConsentRefused):
    """The consent record is not signed, and the settings require a signature."""

    reason = "CONSENT_UNSIGNED"


class ConsentSignerUnknown(ConsentRefused):
    """The consent record is signed with a key that the settings do not trust."""

    reason = "CONSENT_SIGNER_UNKNOWN"


class ConsentAltered(ConsentRefused):
    """The signature does not fit the consent record: record or signature was altered."""

    reason = "CONSENT_ALTERED"


class ConsentWithdrawn(ConsentRefused):
    """The consent was withdrawn."""

    reason = "CONSENT_WITHDRAWN"


class ConsentNotYetValid(ConsentRefused):
    """The time of the consent has not begun."""

    reason = "CONSENT_NOT_YET_VALID"


class ConsentExpired(ConsentRefused):
    """The time of the consent is over."""

    reason = "CONSENT_EXPIRED"


class ConsentOutOfScope(ConsentRefused):
    """The consent record does not cover the project or the language of the work."""

    reason = "CONSENT_OUT_OF_SCOPE"


class ConsentWithoutSubject(ConsentRefused):
    """Nothing in the consent record says whose face the record is about, and the settings require a record."""

    reason = "CONSENT_WITHOUT_SUBJECT"


class ConsentOtherSubject(ConsentRefused):
    """The consent record is about another person, actor or footage than the work."""

    reason = "CONSENT_OTHER_SUBJECT"


class ConsentFaceUncertain(ConsentRefused):
    """Whether the footage shows the person of the consent record cannot be told. A person has to decide."""

    reason = "CONSENT_FACE_UNCERTAIN"
