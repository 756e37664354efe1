"""`python -m services.motion`: the motion stage behind a gRPC server."""

from __future__ import annotations

import functools
import sys
from fractions import Fraction

import numpy as np

from dubstage.motion.v1alpha1 import motion_pb2, motion_pb2_grpc
from services.common.artefacts import ArtefactStore
from services.common.errors import DubstageError
from services.common.limits import WorkerPool
from services.common.server import run_stage
from services.common.settings import load_settings
from services.common.stage import StageParts, server_of
from services.common.timeline import Timeline
from services.motion.features import silence
from services.motion.models import MotionModels
from services.motion.predict import MotionStream
from services.motion.predict_expression import ExpressionGrid
from services.motion.predict_head_motion import HeadMotionGrid, encode_head_style
from services.motion.servicer import MotionServicer
from services.motion.settings import MotionSettings
from services.motion.types import NUM_POINTS


def compose(settings: MotionSettings) -> StageParts:
    """The stage's parts, not yet warm."""

    @functools.cache
    def models() -> MotionModels:
        return MotionModels(settings.motion_weights, threads=settings.compute_threads)

    def warm_up() -> None:
        stream = MotionStream(models(), models().neutral_style(), Timeline(rate=Fraction(25)))
        stream.push(0, silence(4))
        ExpressionGrid(models(), models().neutral_style()).push_silence(5)
        still = encode_head_style(np.zeros((1, NUM_POINTS, 3), np.float32), np.ones(1, np.bool_), np.eye(6)[5:], models())
        HeadMotionGrid(models(), still).push_silence(5)

    pools = tuple(
        WorkerPool(num_threads=threads, max_queued=settings.max_queued_computations, name=name)
        for name, threads in (("motion", settings.worker_threads), ("personalize", settings.personalize_threads))
    )
    servicer = MotionServicer(models, ArtefactStore(settings.artefacts_url), *pools)
    return StageParts(
        servicer=servicer,
        register=lambda server: motion_pb2_grpc.add_MotionServiceServicer_to_server(servicer, server),
        services=(motion_pb2.DESCRIPTOR.services_by_name["MotionService"].full_name,),
        warm_up=warm_up,
        workers=pools,
    )


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    try:
        settings = load_settings(MotionSettings)
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return run_stage(settings, "motion", lambda _: server_of("motion", settings, compose(settings)))


if __name__ == "__main__":
    sys.exit(main())
