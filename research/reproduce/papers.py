"""The papers' protocols by the name of the method."""

from __future__ import annotations

from importlib import import_module

from research.reproduce.run import PaperProtocol
from services.common.errors import InvalidRequestError
from services.common.methods import PAPERS


def paper_named(name: str) -> PaperProtocol:
    """Return the protocol of a paper.

    Raises:
        InvalidRequestError: there is no such paper.
    """
    if name not in PAPERS:
        raise InvalidRequestError(f"there is no paper {name[:80]!r}; there are {', '.join(PAPERS)}", field="PAPER")
    protocol: PaperProtocol = import_module(f"research.reproduce.{name}").PAPER
    return protocol
