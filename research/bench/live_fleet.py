"""Many live streams on many gateways: `python -m research.bench.live_fleet`.

A simulation: the clock and the work are simulated, and the admission is that of every gateway (`LiveAdmission`). Clients come one
after the other, talk for some minutes, and come again after a pause. A load balancer sends each of them to some gateway. A refused
client tries again at the time that the refusal names. The processors of a gateway take frames in the order in which they came.

The numbers of gateways are that of `dubstage plan`, a smaller and a larger one. What the simulation leaves out: stages with too few
replicas, networks, and gateways that die.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import count
from typing import Final

import numpy as np

from gateway.cli.plan import FIGURES, PlannedLoad, needs, read_figures
from gateway.live.admission import LiveAdmission, LiveStream
from gateway.settings import GatewaySettings
from research.bench.runs import tell
from services.common.errors import OverloadedError
from services.common.methods import DEFAULT_METHOD
from services.common.wire.timeline import MOTION_RATE

STREAMS: Final = (100, 1000)
"""Numbers of clients that want to talk."""
SHARES: Final = (0.7, 1.0, 1.3)
"""Numbers of gateways, as parts of the planned number."""
PROCESSORS: Final = 2
"""Processors of a gateway."""
STAGES_S: Final = 0.025
"""Time of a frame in the stages, which other machines compute, seconds."""
ARRIVAL_S: Final = 60.0
"""Time within which all clients come for the first time."""
TALK_S: Final = 180.0
"""Mean length of a stream."""
PAUSE_S: Final = 20.0
"""Mean time between two streams of a client."""
LATE_S: Final = 0.12
"""A frame is in time if its picture is ready at most three frames after its motion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Result of one simulation.

    Attributes:
        streams: clients that want to talk.
        gateways: number of gateways.
        planned: number of gateways that `dubstage plan` gives.
        taken: share of the streams that were taken at the first try.
        waited_p95_s, waited_most_s: time from the wish to talk to the begin of the stream, the 95th percentile and the longest.
        in_time: share of the frames that were ready within LATE_S.
        busy: mean share of the gateways' processors that were busy after ARRIVAL_S.
        refused: refused tries by reason.
        connections: most connections of the gateways to PostgreSQL: their pools, and one each for the claim.
    """

    streams: int
    gateways: int
    planned: int
    taken: float
    waited_p95_s: float
    waited_most_s: float
    in_time: float
    busy: float
    refused: dict[str, int]
    connections: int


class _Clock:
    """The simulated time, seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class _Gateway:
    """A gateway: its admission, and the times at which its processors are free again."""

    def __init__(self, now: _Clock) -> None:
        settings = GatewaySettings()
        self.admission = LiveAdmission(settings.max_live_streams, settings.max_live_frame_ms / 1000, now)
        self._free_at = [0.0] * PROCESSORS

    def ready_at(self, came: float, cost_s: float) -> float:
        """Return when a frame is ready that came at a time and takes `cost_s` of one processor."""
        begin = max(came + STAGES_S, heapq.heappop(self._free_at))
        heapq.heappush(self._free_at, begin + cost_s)
        return begin + cost_s


@dataclass(slots=True)
class _Talk:
    """A stream: who talks, on which gateway, and until when."""

    gateway: _Gateway
    stream: LiveStream
    held: ExitStack
    ends: float


def simulate(streams: int, gateways: int, planned: int, *, cost_s: float, seconds: float, seed: int = 0) -> Fleet:
    """Simulate a fleet.

    Args:
        streams: clients that want to talk.
        gateways: number of gateways.
        planned: number of gateways that `dubstage plan` gives.
        cost_s: processor time of a frame in the gateway.
        seconds: simulated time.
        seed: seed of the times and of the load balancer.
    """
    drawn, clock, order = random.Random(seed), _Clock(), count()
    fleet = [_Gateway(clock) for _ in range(gateways)]
    frame_s = float(1 / MOTION_RATE)
    waited: list[float] = []
    latencies: list[float] = []
    tries, first_tries, busy_s = 0, 0, 0.0
    # What happens at a time: a client (number, time of the wish) tries to begin, or a frame of a stream has come or is ready.
    events: list[tuple[float, int, str, tuple[object, ...]]] = []

    def at(time: float, kind: str, *what: object) -> None:
        heapq.heappush(events, (time, next(order), kind, what))

    for client in range(streams):
        wish = drawn.uniform(0.0, ARRIVAL_S)
        at(wish, "try", client, wish)
    while events and events[0][0] <= seconds:
        clock.now, _, kind, what = heapq.heappop(events)
        match kind, what:
            case "try", (int(client), float(wish)):
                gateway = drawn.choice(fleet)
                held = ExitStack()
                tries += 1
                try:
                    stream = held.enter_context(gateway.admission.stream(""))
                except OverloadedError as refusal:
                    at(clock.now + (refusal.retry_after_s or 1.0) * drawn.uniform(1.0, 1.2), "try", client, wish)
                    continue
                first_tries += clock.now == wish
                waited.append(clock.now - wish)
                ends = clock.now + drawn.expovariate(1 / TALK_S)
                at(clock.now + frame_s, "frame", _Talk(gateway, stream, held, ends), client)
            case "frame", (_Talk() as talk, int(client)):
                if clock.now >= talk.ends:
                    talk.held.close()
                    wish = clock.now + drawn.expovariate(1 / PAUSE_S)
                    at(wish, "try", client, wish)
                    continue
                ready = talk.gateway.ready_at(clock.now, cost_s)
                busy_s += cost_s * (clock.now > ARRIVAL_S)
                at(ready, "ready", talk, clock.now)
                at(clock.now + frame_s, "frame", talk, client)
            case "ready", (_Talk() as talk, float(came)):
                latencies.append(clock.now - came)
                talk.stream.took(came)
    refused: Counter[str] = Counter()
    for gateway in fleet:
        refused.update(gateway.admission.refused)
    return Fleet(
        streams=streams,
        gateways=gateways,
        planned=planned,
        taken=first_tries / (first_tries + sum(time > 0 for time in waited)),
        waited_p95_s=float(np.percentile(waited, 95)),
        waited_most_s=max(waited),
        in_time=float(np.mean(np.asarray(latencies) <= LATE_S)),
        busy=busy_s / (gateways * PROCESSORS * (seconds - ARRIVAL_S)),
        refused=dict(sorted(refused.items())),
        connections=gateways * (GatewaySettings().database_connections + 1),
    )


def planned_gateways(streams: int) -> tuple[int, float]:
    """Return the gateways that `dubstage plan` gives for live streams, and their processor time of a frame, seconds."""
    load = PlannedLoad(
        live_streams=streams, video_hours=0.0, night_hours=10.0, fps=float(MOTION_RATE), method=DEFAULT_METHOD, scale=1
    )
    figures = read_figures(FIGURES)
    need = needs(figures, load, PROCESSORS)[-1]
    return need.replicas, need.live_processors / (streams * float(MOTION_RATE))


def _line(fleet: Fleet) -> str:
    return (
        f"{fleet.streams} streams on {fleet.gateways} gateways ({fleet.planned} planned): {fleet.taken:.0%} taken at once, "
        f"95 % within {fleet.waited_p95_s:.1f} s, all within {fleet.waited_most_s:.0f} s; "
        f"{fleet.in_time:.1%} of the frames in time; processors {fleet.busy:.0%} busy; refused {fleet.refused or 'nobody'}; "
        f"at most {fleet.connections} connections to PostgreSQL"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate all fleets, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.live_fleet", description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0, help="simulated time. Default: %(default)s.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    found: list[Fleet] = []
    for streams in STREAMS:
        planned, cost_s = planned_gateways(streams)
        for share in SHARES:
            found.append(simulate(streams, round(share * planned), planned, cost_s=cost_s, seconds=options.seconds))
            tell(_line(found[-1]))
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
