"""Why a film could not be signed, as an error for the user."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.provenance.library import LibraryError
from gateway.provenance.signer_command import SIGNER_SETTING, SignerError
from gateway.provenance.signing import TIME_STAMP_SETTING
from services.common.errors import BackendUnavailable, InvalidRequest

FAULTS: Final = (LibraryError, SignerError, ValueError, OverflowError)
"""What signing raises, besides errors of the system and of dubstage."""


def refused(problem: Exception, film: Path, time_stamp_url: str) -> BackendUnavailable | InvalidRequest:
    """Return the error for a film that was not signed.

    Args:
        problem: one of FAULTS.
        film: name that the film would have got.
        time_stamp_url: the time stamp authority.
    """
    if isinstance(problem, SignerError):
        return BackendUnavailable(f"the command of {SIGNER_SETTING} gave no signature ({problem}); {film} was not written")
    if isinstance(problem, LibraryError) and problem.of_time_stamp:
        return BackendUnavailable(
            f"the time stamp authority {time_stamp_url} gave no time stamp ({problem}); {film} was not "
            f"written. {TIME_STAMP_SETTING} must name an authority that answers as RFC 3161 says"
        )
    return InvalidRequest(f"{film}: its manifest cannot be signed ({problem})", field="output")
