"""`python -m services.motion`: the motion stage behind a gRPC server."""

from __future__ import annotations

import sys

import numpy as np

from dubstage.motion.v1 import motion_pb2, motion_pb2_grpc
from services.common.face.crops import POSE_SIZE
from services.common.server.limits import WorkerPool, most_waiting
from services.common.server.process import Once, StageParts, main_of
from services.common.store.artefacts import ArtefactStore
from services.motion.models import MotionModels
from services.motion.predictors.registry import all_predictors
from services.motion.servicer import MotionServicer
from services.motion.settings import MotionSettings
from services.motion.style import MIN_FRAMES
from services.motion.types import NUM_POINTS, Footage


def compose(settings: MotionSettings) -> StageParts:
    """Return the stage's parts before warm-up."""

    @Once
    def models() -> MotionModels:
        return MotionModels(settings.motion_weights, threads=settings.compute_threads)

    def warm_up() -> None:
        still = Footage(
            np.zeros((MIN_FRAMES, NUM_POINTS, 3), np.float32),
            np.ones(MIN_FRAMES, np.bool_),
            np.tile(np.eye(POSE_SIZE)[-1], (MIN_FRAMES, 1)),
        )
        for predictor in all_predictors():
            style = predictor.encode_style(still, models())
            predictor.open(models(), style, None).push_silence(predictor.spec.frames_ahead + 1)
        models().load_sync()

    def check() -> None:
        for predictor in all_predictors():
            predictor.version(models())

    waiting = most_waiting(settings.max_queued_computations, settings.personalize_threads, settings.max_concurrent_rpcs)
    pools = (
        WorkerPool(num_threads=settings.worker_threads, max_queued=settings.max_queued_computations, name="motion"),
        WorkerPool(num_threads=settings.personalize_threads, max_queued=waiting, name="personalize"),
    )
    servicer = MotionServicer(models, ArtefactStore(settings.artefacts_url, by_tenant=True), *pools)
    return StageParts(
        servicer=servicer,
        register=lambda server: motion_pb2_grpc.add_MotionServiceServicer_to_server(servicer, server),
        services=(motion_pb2.DESCRIPTOR.services_by_name["MotionService"].full_name,),
        warm_up=warm_up,
        workers=pools,
        check=check,
    )


def main() -> int:
    """Serve until a signal ends the process; return the exit code."""
    return main_of("motion", MotionSettings, compose)


if __name__ == "__main__":
    sys.exit(main())
