"""Options of the Triton backend. This module does not import Triton's client library, so settings can import it anywhere."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonOptions:
    """How to use a server.

    Attributes:
        url: HOST:PORT of the server's gRPC.
        shared_memory: pass arrays through /dev/shm; the server must be on the same host and see the same /dev/shm.
        max_in_flight: most inferences at the server at once; more wait in this process, because limits of the server's queue
            stall requests.
        max_frames: most frames in one inference through shared memory.
        timeout_s: time allowed to one inference, seconds.
        start_timeout_s: time within which the server must answer when the stage starts, seconds.
        load_timeout_s: time allowed to load a model, including building TensorRT engines, seconds.
        probe_interval_s: interval at which an idle model computes one frame as a probe, seconds.
        heal_attempts: failed reloads in a row after which the stage stops serving.
        heal_wait_s: time that each reload waits for a server that restarts, seconds.
    """

    url: str
    shared_memory: bool = False
    max_in_flight: int = 16
    max_frames: int = 4
    timeout_s: float = 10.0
    start_timeout_s: float = 60.0
    load_timeout_s: float = 300.0
    probe_interval_s: float = 5.0
    heal_attempts: int = 5
    heal_wait_s: float = 5.0
