"""Dubs in this process for `dubstage.dub`: with the stores of the settings, and without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import structlog

from dubstage.gateway.v1 import gateway_pb2 as pb
from dubstage.gateway.v1.dub_pb2 import DubSpec
from gateway.actors.installation import open_installation
from gateway.api.convert import result_message
from gateway.consent.record import use_of
from gateway.dub.progress import OnFootage, OnProgress
from gateway.dub.request.spec import LocalFiles
from gateway.dub.sound.speech_command import SpokenText, spoken_text
from gateway.engine import Engine, finished_dub, remove_old_jobs
from gateway.provenance.binding import media_sha256
from gateway.reports.folder import check_report_folder
from gateway.settings import GatewaySettings
from gateway.tenants.paths import settings_of
from services.common.errors import InvalidRequestError
from services.common.server.settings import load_settings
from services.common.stderr import log_lines_on_stderr

T = TypeVar("T")


def dub(
    spec: DubSpec,
    report: Path | None,
    on_progress: OnProgress,
    on_footage: OnFootage = lambda frames, megapixels: None,
    *,
    say: str | None = None,
    voice: str = "",
) -> tuple[pb.DubResult, Path | None]:
    """Dub as CreateDub does, with paths of this machine in place of names in the media folder. Blocks.

    Works inside a running event loop too, such as that of a notebook.

    Args:
        spec: the dub.
        report: folder of an HTML report; None: no report is written.
        on_progress: called with every frame and step, maybe in another thread.
        on_footage: called with the number of frames of the footage, and the million pixels of a frame, in the same thread.
        say: words that the command of the settings speaks, for a spec without speech; None: none. An empty text is refused.
        voice: voice of `say`, as that command names it; empty: none is named.

    Returns:
        The result, and the page of the report; None: there is none.

    Raises:
        DubstageError: the request was refused, or the dub failed.
    """
    settings = load_settings(GatewaySettings)
    words = None
    if say is not None or voice:
        if spec.speech_uri or spec.lines or spec.audio_channel:
            raise InvalidRequestError(
                "words are given with a speech, lines or an audio channel: leave one of them out", field="say"
            )
        use_of("", spec.language)
        words = spoken_text(settings, say or "", language=spec.language, voice=voice)
    # A program that has configured structlog gets the lines where it wants them; otherwise they would go to its stdout.
    level = settings.log_level if "log_level" in settings.model_fields_set else "warning"
    with nullcontext() if structlog.is_configured() else log_lines_on_stderr(level):
        return _run(lambda: _dub(settings, spec, report, on_progress, on_footage, words))


async def _dub(
    settings: GatewaySettings,
    spec: DubSpec,
    report: Path | None,
    on_progress: OnProgress,
    on_footage: OnFootage,
    words: SpokenText | None,
) -> tuple[pb.DubResult, Path | None]:
    settings = settings_of(settings, settings.tenant)
    with open_installation(settings) as installation:
        engine = Engine.of(installation)
        if words is not None:
            request = await engine.spoken_request(spec, LocalFiles(), {0: words})
        else:
            request = await asyncio.to_thread(engine.checked_request, spec, LocalFiles())
        page = None
        if report is not None:
            request = request.for_report()
            mix = request.mix.file if request.mix is not None else None
            spoken = [part.speech for part in request.parts]
            files = (request.footage, *spoken, mix, request.reference, request.output)
            check_report_folder(report, [file for file in files if file is not None])
        on_progress("start", 0, 1)
        async with installation.stages() as stages, finished_dub(engine, request, stages, on_progress, on_footage) as done:
            result = result_message(spec.output_uri, request, done.outcome)
            result.media_sha256 = await asyncio.to_thread(media_sha256, request.output)
            if report is not None:
                from gateway.reports.dub_report import write_outcome_report

                page = await write_outcome_report(
                    request, done.outcome, done.workspace, stages, installation.artefacts, report, on_progress=on_progress
                )
        await remove_old_jobs(installation, engine)
    return result, page


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, in a thread of its own if this thread's event loop runs. Ctrl-C cancels the coroutine."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    task: asyncio.Task[T] | None = None

    async def main() -> T:
        nonlocal task
        task = asyncio.ensure_future(work())
        return await task

    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(lambda: asyncio.run(main()))
        try:
            return future.result()
        except KeyboardInterrupt:
            if task is not None:
                task.get_loop().call_soon_threadsafe(task.cancel)
            raise
