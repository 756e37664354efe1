"""`python -m services.audio`: the audio stage behind a gRPC server."""

from __future__ import annotations

import sys
from fractions import Fraction

import numpy as np

from dubstage.audio.v1 import audio_pb2, audio_pb2_grpc
from services.audio.extract import extract_features
from services.audio.models import AudioModels
from services.audio.servicer import AudioServicer
from services.audio.settings import AudioSettings
from services.audio.types import SAMPLE_RATE_HZ
from services.common.server.limits import WorkerPool
from services.common.server.process import Once, StageParts, main_of
from services.common.wire.timeline import Timeline


def compose(settings: AudioSettings) -> StageParts:
    """Return the stage's parts, not yet warm."""

    @Once
    def models() -> AudioModels:
        return AudioModels(settings.audio_weights, settings.compute_threads)

    def warm_up() -> None:
        second = np.zeros(SAMPLE_RATE_HZ, np.float32)
        second[::80] = 0.1  # clicks: digital silence would not reach the voice activity detector
        extract_features(second, SAMPLE_RATE_HZ, Timeline(rate=Fraction(25)), models=models())

    workers = WorkerPool(num_threads=settings.worker_threads, max_queued=settings.max_queued_computations, name="audio")
    servicer = AudioServicer(models, workers)
    return StageParts(
        servicer=servicer,
        register=lambda server: audio_pb2_grpc.add_AudioServiceServicer_to_server(servicer, server),
        services=(audio_pb2.DESCRIPTOR.services_by_name["AudioService"].full_name,),
        warm_up=warm_up,
        workers=(workers,),
        check=models,
    )


def main() -> int:
    """Serve until a signal ends the process; return the exit code."""
    return main_of("audio", AudioSettings, compose)


if __name__ == "__main__":
    sys.exit(main())
