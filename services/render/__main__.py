"""`python -m services.render`: the render stage behind a gRPC server."""

from __future__ import annotations

import sys

import cv2
import structlog

from dubstage.render.v1 import render_pb2, render_pb2_grpc
from services.common.errors import BackendUnavailableError
from services.common.face.morphable_models import MorphableModels
from services.common.server.limits import WorkerPool, most_waiting
from services.common.server.process import Once, StageParts, main_of
from services.common.store.artefacts import ArrayCache, ArtefactStore
from services.render.actors import ActorStates
from services.render.backends.base import Device
from services.render.servicer import RenderServicer
from services.render.settings import RenderSettings
from services.render.streams import RenderModels, make_backend

_log = structlog.stdlib.get_logger("dubstage.render")


def compose(settings: RenderSettings) -> StageParts:
    """Compose the stage's parts. They are not warm yet.

    Raises:
        BackendUnavailableError: personalisations are to run on a GPU, and PyTorch cannot compute there.
    """
    if settings.personalize_device == "cuda":
        # PyTorch takes seconds to import: a stage whose personalisations run on processors imports it with the first one. Here, and
        # not in a thread: SciPy, in another stage of this process, fails while PyTorch is half imported.
        from services.render.personalization import check_device

        check_device(settings.personalize_device)

    triton = settings.triton_options()
    monitor = None
    if triton is not None:
        # Triton's client library is imported only where Triton is used.
        from services.render.backends.triton_healing import TritonMonitor

        monitor = TritonMonitor()

    def loaded_on(device: Device) -> RenderModels:
        backend = make_backend(
            device=device,
            backend=settings.backend,
            precision=settings.precision,
            num_threads=settings.compute_threads,
            triton=triton,
            monitor=monitor,
        )
        models = RenderModels(settings.render_weights, backend)
        if triton is not None or device != "cpu":
            # Only a load tells whether a server or a GPU is there.
            models.load_all()
        return models

    @Once
    def models() -> RenderModels:
        try:
            return loaded_on(settings.network_device())
        except BackendUnavailableError as problem:
            if settings.device != "auto" or settings.network_device() == "cpu":
                raise
            _log.warning("gpu_not_used", reason=problem.message)
            return loaded_on("cpu")

    def warm_up() -> None:
        models().load_all()

    # Threads that wait for Triton compute little, and only streams that wait at the same time share its batches.
    num_threads = settings.worker_threads if triton is None else max(settings.worker_threads, triton.max_in_flight)
    workers = WorkerPool(num_threads=num_threads, max_queued=settings.max_queued_computations, name="render")
    if monitor is not None:
        monitor.on_waited = workers.load.waited_inside
    waiting = most_waiting(settings.max_queued_personalizations, settings.personalizations, settings.max_concurrent_rpcs)
    trainers = WorkerPool(num_threads=settings.personalizations, max_queued=waiting, name="personalize")
    store = ArtefactStore(settings.artefacts_url, by_tenant=True)
    servicer = RenderServicer(
        models,
        ActorStates(store, ArrayCache(store, max_bytes=settings.artefact_cache_bytes), MorphableModels(settings.morphable_models)),
        workers=workers,
        trainers=trainers,
        batch_size=settings.batch_size,
        personalize_threads=settings.personalize_threads,
        personalize_device=settings.personalize_device,
    )
    return StageParts(
        servicer=servicer,
        register=lambda server: render_pb2_grpc.add_RenderServiceServicer_to_server(servicer, server),
        services=(render_pb2.DESCRIPTOR.services_by_name["RenderService"].full_name,),
        warm_up=warm_up,
        workers=(workers, trainers),
        check=models,
        is_serving=monitor.is_serving if monitor is not None else None,
        collectors=monitor.collectors if monitor is not None else (),
        close=monitor.close if monitor is not None else None,
    )


def main() -> int:
    """Serve until a signal ends the process; return the exit code."""
    # Pictures of the render box are small: OpenCV's own threads would cost more than they save.
    cv2.setNumThreads(1)

    def composed(settings: RenderSettings) -> StageParts:
        _log.info("renderers_compute", runtime=settings.runtime())
        return compose(settings)

    return main_of("render", RenderSettings, composed)


if __name__ == "__main__":
    sys.exit(main())
