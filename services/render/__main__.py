"""`python -m services.render`: the render stage behind a gRPC server."""

from __future__ import annotations

import functools
import sys

import cv2

from dubstage.render.v1alpha1 import render_pb2, render_pb2_grpc
from services.common.array_cache import ArrayCache
from services.common.artefacts import ArtefactStore
from services.common.errors import DubstageError
from services.common.limits import WorkerPool
from services.common.morphable_models import MorphableModels
from services.common.server import run_stage
from services.common.settings import load_settings
from services.common.stage import StageParts, server_of
from services.render.models import RenderModels, load_models, make_backend
from services.render.servicer import RenderServicer
from services.render.settings import RenderSettings


def compose(settings: RenderSettings) -> StageParts:
    """The stage's parts, not yet warm."""

    triton = settings.triton_options()
    monitor = None
    if triton is not None:
        # Its client is imported by those who use it.
        from services.render.backends.triton_healing import TritonMonitor

        monitor = TritonMonitor()

    @functools.cache
    def models() -> RenderModels:
        backend = make_backend(
            device=settings.device,
            backend=settings.backend,
            precision=settings.precision,
            num_threads=settings.compute_threads,
            triton=triton,
            monitor=monitor,
        )
        return load_models(settings.render_weights, backend)

    def warm_up() -> None:
        models()

    # Threads that wait for Triton compute little, and streams must be there at the same time to share its batches.
    num_threads = settings.worker_threads if triton is None else max(settings.worker_threads, triton.max_in_flight)
    workers = WorkerPool(num_threads=num_threads, max_queued=settings.max_queued_computations, name="render")
    trainers = WorkerPool(num_threads=1, max_queued=settings.max_queued_personalizations, name="personalize")
    store = ArtefactStore(settings.artefacts_url)
    servicer = RenderServicer(
        models,
        store,
        ArrayCache(store, max_bytes=settings.artefact_cache_bytes),
        workers=workers,
        trainers=trainers,
        batch_size=settings.batch_size,
        personalize_threads=settings.personalize_threads,
        morphable_models=MorphableModels(settings.morphable_models),
    )
    return StageParts(
        servicer=servicer,
        register=lambda server: render_pb2_grpc.add_RenderServiceServicer_to_server(servicer, server),
        services=(render_pb2.DESCRIPTOR.services_by_name["RenderService"].full_name,),
        warm_up=warm_up,
        workers=(workers, trainers),
        is_serving=monitor.is_serving if monitor is not None else None,
        collectors=monitor.collectors if monitor is not None else (),
        close=monitor.close if monitor is not None else None,
    )


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    try:
        settings = load_settings(RenderSettings)
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    # Pictures here are 160 px a side: OpenCV's own threads cost more than they bring.
    cv2.setNumThreads(1)
    return run_stage(settings, "render", lambda _: server_of("render", settings, compose(settings)))


if __name__ == "__main__":
    sys.exit(main())
