"""Protocol between the local engine and its worker processes: one JSON document a line, over pipes.

The engine sends a `WorkerSetup`, and then the row of one shot after the other, as a number. The end of the pipe ends the worker.
The worker sends `WorkerAnswer`s: ALIVE every few seconds, READY once its stages are warm, and ENDED after each shot. A worker that
cannot work at all sends UNUSABLE and ends.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from gateway.batch.types import ShotRecord
from gateway.settings import GatewaySettings
from services.common.errors import DubstageError, Unexpected, leaves


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def line(self) -> bytes:
        """Return the document as one line."""
        return f"{self.model_dump_json()}\n".encode()

    @classmethod
    def parsed(cls, line: bytes) -> Self:
        """Return the document of a line.

        Raises:
            ValueError: the line holds something else.
        """
        return cls.model_validate_json(line)


class WorkerSetup(_Line):
    """Settings that a worker process gets first.

    Attributes:
        settings: settings of the command that started the worker, as JSON values.
        store: URL of the store of batches.
        name: name of the batch.
        beat_s: seconds between two signs of life.
    """

    settings: dict[str, Any]
    store: str
    name: str
    beat_s: float

    def gateway_settings(self) -> GatewaySettings:
        """Return the settings."""
        return GatewaySettings(**self.settings)


class AnswerKind(StrEnum):
    """Kind of an answer."""

    READY = "ready"
    ALIVE = "alive"
    ENDED = "ended"
    UNUSABLE = "unusable"


class WorkerAnswer(_Line):
    """A line of a worker.

    Attributes:
        kind: what the line says.
        record: new record of the shot, of ENDED.
        reason: reason of the error, of UNUSABLE.
        message: message of the error, of UNUSABLE.
    """

    kind: AnswerKind
    record: ShotRecord | None = None
    reason: str = ""
    message: str = ""

    @classmethod
    def unusable(cls, problem: DubstageError) -> Self:
        """Return the answer of a worker that cannot work."""
        return cls(kind=AnswerKind.UNUSABLE, reason=problem.reason, message=problem.message)

    def error(self) -> DubstageError:
        """Return the error of an UNUSABLE worker."""
        kinds = {leaf.reason: leaf for leaf in leaves()}
        return kinds.get(self.reason, Unexpected)(self.message)
