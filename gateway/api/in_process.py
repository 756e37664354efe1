"""Dubs in this process for `dubstage.dub`: with the stores of the settings, and without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import structlog

from dubstage.gateway.v1 import gateway_pb2 as pb
from dubstage.gateway.v1.dub_pb2 import DubSpec
from gateway.actors.installation import open_installation
from gateway.api.convert import result_message
from gateway.consent.record import use_of
from gateway.dub.progress import OnFootage, OnProgress, no_footage
from gateway.dub.request.spec import LocalFiles, within
from gateway.dub.sound.speech_command import SpokenText, spoken_text
from gateway.engine import Engine, finished_dub, remove_old_jobs
from gateway.provenance.binding import media_sha256
from gateway.reports.folder import check_report_folder
from gateway.settings import GatewaySettings
from gateway.tenants.paths import settings_of
from services.common.errors import InvalidRequestError
from services.common.server.settings import load_settings
from services.common.stderr import send_log_to_stderr

T = TypeVar("T")
Words = Mapping[int, tuple[str, str]]
"""Words and voice (empty: none is named) by number of the line, from 0."""
_NONE: Final[Words] = MappingProxyType({})


def dub(
    spec: DubSpec,
    report: Path | None,
    on_progress: OnProgress,
    on_footage: OnFootage = no_footage,
    *,
    say: str | None = None,
    voice: str = "",
    line_words: Words = _NONE,
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
        line_words: words of the lines of the spec that have no speech.

    Returns:
        The result, and the page of the report; None: there is none.

    Raises:
        DubstageError: the request was refused, or the dub failed.
    """
    settings = load_settings(GatewaySettings)
    words = _spoken(settings, spec, line_words if say is None and not voice else None, say or "", voice)
    # A program that has configured structlog gets the lines where it wants them.
    if not structlog.is_configured():
        send_log_to_stderr(settings.log_level if "log_level" in settings.model_fields_set else "warning")
    return _run(lambda: _dub(settings, spec, report, on_progress, on_footage, words))


def _spoken(settings: GatewaySettings, spec: DubSpec, lines: Words | None, say: str, voice: str) -> dict[int, SpokenText]:
    """Return the words, and the command that speaks them, by number of the line.

    Args:
        lines: words of lines; None: the dub has the words `say`.

    Raises:
        InvalidRequestError: words are given with something that they exclude, or cannot be spoken.
    """
    if lines is None:
        if spec.speech_uri or spec.lines or spec.audio_channel:
            raise InvalidRequestError(
                "words are given with a speech, lines or an audio channel: leave one of them out", field="say"
            )
        use_of("", spec.language)
        return {0: spoken_text(settings, say, language=spec.language, voice=voice)}
    spoken: dict[int, SpokenText] = {}
    for number, (text, own_voice) in lines.items():
        language = spec.lines[number].language or spec.language
        with within(f"lines[{number}]"):
            use_of("", language)
            spoken[number] = spoken_text(settings, text, language=language, voice=own_voice)
    return spoken


async def _dub(
    settings: GatewaySettings,
    spec: DubSpec,
    report: Path | None,
    on_progress: OnProgress,
    on_footage: OnFootage,
    words: Mapping[int, SpokenText],
) -> tuple[pb.DubResult, Path | None]:
    settings = settings_of(settings, settings.tenant)
    with open_installation(settings) as installation:
        engine = Engine.of(installation)
        if words:
            request = await engine.spoken_request(spec, LocalFiles(), words)
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
