"""`python -m services.texture`: the texture stage behind a gRPC server."""

from __future__ import annotations

import sys

import cv2
import numpy as np

from dubstage.texture.v1 import texture_pb2, texture_pb2_grpc
from services.common.face.morphable_models import MorphableModels
from services.common.face.mouth_bank import NUM_CONTROL_POINTS, WINDOW
from services.common.geometry import rasterise
from services.common.server.limits import WorkerPool
from services.common.server.process import Once, StageParts, main_of
from services.common.store.artefacts import ArrayCache, ArtefactStore
from services.texture.artefacts import StoredFaces
from services.texture.servicer import TextureServicer
from services.texture.settings import TextureSettings
from services.texture.temporal_warp import TemporalWarpModel


def compose(settings: TextureSettings) -> StageParts:
    """Return the stage's parts, not yet warm.

    Raises:
        BackendUnavailableError: the settings name a rasteriser that is not installed.
    """

    @Once
    def model() -> TemporalWarpModel:
        return TemporalWarpModel(settings.texture_weights, settings.compute_threads)

    def warm_up() -> None:
        # numba takes .2 s to import, and a process without warm-up may draw no face.
        from services.common.geometry import kernels

        still = np.zeros((WINDOW, NUM_CONTROL_POINTS, 2), np.float32)
        model().residual(still, still[None])
        rasterise.warm_up(settings.rasteriser)
        kernels.warm_up()

    rasterise.check_backend(settings.rasteriser)
    workers = WorkerPool(num_threads=settings.worker_threads, max_queued=settings.max_queued_computations, name="texture")
    store = ArtefactStore(settings.artefacts_url, by_tenant=True)
    cache = ArrayCache(store, max_bytes=settings.artefact_cache_bytes)
    stored = StoredFaces(store, cache, MorphableModels(settings.morphable_models), settings.rasteriser)
    servicer = TextureServicer(model, stored, workers)
    return StageParts(
        servicer=servicer,
        register=lambda server: texture_pb2_grpc.add_TextureServiceServicer_to_server(servicer, server),
        services=(texture_pb2.DESCRIPTOR.services_by_name["TextureService"].full_name,),
        warm_up=warm_up,
        workers=(workers,),
        check=model,
    )


def main() -> int:
    """Serve until a signal ends the process; return the exit code."""
    # Pictures of 160 x 160 are too small for more threads, and waiting threads would take time from other stages.
    cv2.setNumThreads(1)
    return main_of("texture", TextureSettings, compose)


if __name__ == "__main__":
    sys.exit(main())
