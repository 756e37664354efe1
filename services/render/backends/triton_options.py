"""Options of the Triton backend: apart, so that settings are read without its client library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonOptions:
    """How to use a server.

    Attributes:
        url: HOST:PORT of its gRPC.
        shared_memory: pass arrays through /dev/shm; the server must be on the same host and see the same /dev/shm.
        max_in_flight: inferences that are sent at once; more wait here, since the server's own queue limits stall requests.
        max_frames: frames in one inference, for which shared memory is laid out.
        timeout_s: of one inference.
        start_timeout_s: until the server must answer when the stage starts.
        load_timeout_s: of loading a model, building TensorRT engines included.
        probe_interval_s: how often an idle model is tried with one frame.
        heal_attempts: in a row, before the stage says that it does not serve.
        heal_wait_s: in each attempt, for a server that restarts.
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
