"""`python -m services.texture`: the texture stage behind a gRPC server."""

from __future__ import annotations

import functools
import sys

import cv2
import numpy as np

from dubstage.texture.v1alpha1 import texture_pb2, texture_pb2_grpc
from services.common.array_cache import ArrayCache
from services.common.artefacts import ArtefactStore
from services.common.errors import DubstageError
from services.common.geometry.rasterise import warm_up as warm_up_rasteriser
from services.common.limits import WorkerPool
from services.common.morphable_models import MorphableModels
from services.common.mouth_bank import NUM_CONTROL_POINTS, WINDOW
from services.common.server import run_stage
from services.common.settings import load_settings
from services.common.stage import StageParts, server_of
from services.texture.models import TemporalWarpModel
from services.texture.servicer import TextureServicer
from services.texture.settings import TextureSettings


def compose(settings: TextureSettings) -> StageParts:
    """The stage's parts, not yet warm."""

    @functools.cache
    def model() -> TemporalWarpModel:
        return TemporalWarpModel(settings.texture_weights, settings.compute_threads)

    def warm_up() -> None:
        still = np.zeros((WINDOW, NUM_CONTROL_POINTS, 2), np.float32)
        model().residual(still, still[None])
        warm_up_rasteriser()

    workers = WorkerPool(num_threads=settings.worker_threads, max_queued=settings.max_queued_computations, name="texture")
    store = ArtefactStore(settings.artefacts_url)
    cache = ArrayCache(store, max_bytes=settings.artefact_cache_bytes)
    # One RPC is left to the generated base, which the stubs call abstract: it answers UNIMPLEMENTED.
    servicer = TextureServicer(model, MorphableModels(settings.morphable_models), store, cache, workers)  # type: ignore[abstract]
    return StageParts(
        servicer=servicer,
        register=lambda server: texture_pb2_grpc.add_TextureServiceServicer_to_server(servicer, server),
        services=(texture_pb2.DESCRIPTOR.services_by_name["TextureService"].full_name,),
        warm_up=warm_up,
        workers=(workers,),
    )


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    try:
        settings = load_settings(TextureSettings)
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    # Pictures of 160 x 160 gain nothing from more threads, and waiting ones would take time from the other stages.
    cv2.setNumThreads(1)
    return run_stage(settings, "texture", lambda _: server_of("texture", settings, compose(settings)))


if __name__ == "__main__":
    sys.exit(main())
