"""`python -m services.face`: the face stage behind a gRPC server."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

from dubstage.face.v1 import face_pb2, face_pb2_grpc
from services.common.face.crops import fit_head_pose, head_template
from services.common.face.morphable_models import MorphableModels
from services.common.geometry import rasterise
from services.common.server.limits import WorkerPool
from services.common.server.process import Once, StageParts, main_of
from services.common.store.artefacts import ArrayCache, ArtefactStore
from services.common.store.exported_networks import checked_sha256
from services.face.detection import PATCH_SIZE
from services.face.embedding import WEIGHTS
from services.face.fitting.model import FittableModels
from services.face.servicer import FaceServicer
from services.face.settings import FaceSettings
from services.face.tracking import Networks


def compose(settings: FaceSettings) -> StageParts:
    """Return the stage's parts, not yet warm.

    Raises:
        BackendUnavailableError: the settings name a rasteriser that is not installed.
    """

    @Once
    def networks() -> Networks:
        return Networks()

    def warm_up() -> None:
        gray = np.full((PATCH_SIZE, PATCH_SIZE, 3), 128, np.uint8)
        networks().detector.detect(gray, thorough=True)
        networks().mesh(gray)
        # A damaged file of weights ends the start, not the first stream that needs the network.
        networks().embedding(gray, head_template(), fit_head_pose(head_template()))
        if settings.morphable_models is not None:
            rasterise.warm_up()

    rasterise.check_backend(settings.rasteriser)
    workers = WorkerPool(num_threads=settings.worker_threads, max_queued=settings.max_queued_computations, name="face")
    fitters = WorkerPool(num_threads=1, max_queued=settings.max_queued_computations, name="face-fit")
    store = ArtefactStore(settings.artefacts_url, by_tenant=True)
    cache = ArrayCache(store, max_bytes=settings.artefact_cache_bytes)
    models = FittableModels(MorphableModels(settings.morphable_models))
    servicer = FaceServicer(networks, models, store, cache, workers, fitters, settings.rasteriser)
    return StageParts(
        servicer=servicer,
        register=lambda server: face_pb2_grpc.add_FaceServiceServicer_to_server(servicer, server),
        services=(face_pb2.DESCRIPTOR.services_by_name["FaceService"].full_name,),
        warm_up=warm_up,
        workers=(workers, fitters),
        # The networks themselves import MediaPipe, which takes a second and brings its own files.
        check=partial(checked_sha256, WEIGHTS),
    )


def main() -> int:
    """Serve until a signal ends the process; return the exit code."""
    return main_of("face", FaceSettings, compose)


if __name__ == "__main__":
    sys.exit(main())
