"""Hostile cases: their parts, their allowed ends, and the ends that count as faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.hostile.machine import MACHINE

if TYPE_CHECKING:
    from tests.hostile.world import World

DEFAULT_LIMIT_S = 240.0
"""A case that has no answer by then counts as a hang, on a free machine. The bound grows on a busy one."""

ANSWERED = frozenset({"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "DATA_LOSS"})
"""Codes with which an RPC may answer a mutated request: the mutation may have done no harm, and the stage chooses which check
meets the value first."""
REFUSED = frozenset({"INVALID_ARGUMENT"})

EXIT_OK, EXIT_USAGE, EXIT_WRONG, EXIT_PERSON, EXIT_UNDUBBED = "exit 0", "exit 2", "exit 10", "exit 11", "exit 13"
WRITTEN = frozenset({EXIT_OK, EXIT_UNDUBBED})
"""Codes of a command that wrote its video: with dubbed mouths, or (13) with those of the footage."""
TOLD = WRITTEN | {EXIT_USAGE, EXIT_WRONG, EXIT_PERSON}
"""How a command line may end where a hostile value may also be harmless."""
NOT_DONE = frozenset({EXIT_USAGE, EXIT_WRONG, EXIT_PERSON})


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that must not happen: its kind (`crash`, `hang`, `code`, `unnamed`, `path`, `not finite`, `outside`, `leftover`,
    `growth`, `message`) and what was seen."""

    kind: str
    seen: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended: a gRPC code's name or `exit N`, the text that was answered, and what must not have happened."""

    code: str
    said: str = ""
    faults: tuple[Fault, ...] = ()
    seconds: float = 0.0

    def adding(self, faults: Iterable[Fault]) -> Outcome:
        """The outcome with more of what must not have happened."""
        return Outcome(self.code, self.said, (*self.faults, *faults))


@dataclass(frozen=True, slots=True)
class Case:
    """One hostile case.

    Attributes:
        surface: `rpc`, `stream`, `http`, `media`, `timeline`, `command`, or `store`.
        name: says what is hostile about it.
        act: does it.
        allowed: codes with which it may end.
        says: texts of which the answer holds each, where it is no success.
        limit_s: time without an answer after which it hangs, on a free machine.
        number: in the campaign.
    """

    surface: str
    name: str
    act: Callable[[World], Outcome] = field(repr=False)
    allowed: frozenset[str] = ANSWERED
    says: tuple[str, ...] = ()
    limit_s: float = DEFAULT_LIMIT_S
    number: int = -1

    def run(self, world: World) -> Outcome:
        """The outcome, judged."""
        begin = time.monotonic()
        outcome = self.act(world)
        outcome = replace(outcome, seconds=time.monotonic() - begin)
        faults = list(outcome.faults)
        if outcome.code not in self.allowed and not any(fault.kind in ("hang", "crash") for fault in faults):
            faults.append(Fault("code", f"{outcome.code}, not {' or '.join(sorted(self.allowed))}: {outcome.said[:300]}"))
        if outcome.code not in {"OK", *WRITTEN}:
            missing = [text for text in self.says if text not in outcome.said]
            faults += [Fault("message", f"{text!r} is not in: {outcome.said[:300]}") for text in missing]
        if outcome.seconds > MACHINE.bound(self.limit_s, since=begin) and not any(fault.kind == "hang" for fault in faults):
            faults.append(Fault("hang", f"{outcome.seconds:.1f} s"))
        return replace(outcome, faults=tuple(faults))
