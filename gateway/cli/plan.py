"""`dubstage plan`: what a dub takes before it runs, and how many replicas of each stage a load needs.

Replicas follow from processor time per frame, by arithmetic: nothing is measured.
"""

from __future__ import annotations

import asyncio
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.table import Table

from gateway.cli import options
from gateway.cli.app import app, run_async
from gateway.cli.console import say, say_json, say_table, wants_json
from gateway.dub.choices import FITS
from services.common.errors import InvalidRequestError
from services.common.methods import DEFAULT_METHOD, combined, method_named

if TYPE_CHECKING:
    from dubstage.gateway.v1.dub_pb2 import DubSpec
    from gateway.dub.request.spec import LocalFiles
    from gateway.settings import GatewaySettings

FIGURES: Final = Path(__file__).with_name("figures.toml")
"""Figures of the machine that dubstage was measured on."""
LIVE_USE: Final = 0.6
"""Share of a replica's processors that live streams may use in the mean. The rest keeps queues short when streams come at once."""
VIDEO_USE: Final = 0.85
"""Share of a replica's processors that a batch may use in the mean. Videos can wait, so less is kept free."""
NUM_SCALES: Final = 4
_MS: Final = 1000.0
_MEASURED_MEGAPIXELS: Final = 1280 * 720 / 1e6
"""Million pixels of the frames that the figures were measured on."""

_MOST_MS: Final = 1e6
"""Most processor time of a frame: a larger figure is a mistake."""
_Cost = Annotated[float, Field(gt=0, le=_MOST_MS)]
_Extra = Annotated[float, Field(ge=0, le=_MOST_MS)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StageFigures(_Strict):
    """Processor time of the stages that cost the same for every method, ms per frame."""

    audio: _Cost
    face: _Cost
    motion: _Cost
    texture: _Cost


class GatewayFigures(_Strict):
    """Processor time of the gateway, ms per frame of a video and of a live stream of 1280 x 720, and per further million pixels."""

    video: _Cost
    megapixel: _Extra
    live: _Cost


class DetailFigures(_Strict):
    """Processor time that the fine detail adds at 1 to 4 footage pixels per box pixel, ms per frame."""

    texture: tuple[_Extra, _Extra, _Extra, _Extra]
    gateway: tuple[_Extra, _Extra, _Extra, _Extra]


class Figures(_Strict):
    """Processor time per frame on one kind of machine (figures.toml).

    Attributes:
        stages: stages that cost the same for every method.
        render: ms per frame by renderer.
        detail: what the fine detail adds.
    """

    stages: StageFigures
    gateway: GatewayFigures
    render: dict[str, _Cost]
    detail: DetailFigures


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedLoad:
    """Load of a deployment.

    Attributes:
        live_streams: live streams at once.
        video_hours: hours of video to dub in one night.
        night_hours: length of the night, hours.
        fps: frames a second of streams and videos.
        method: method that dubs.
        scale: footage pixels per box pixel, 1 to 4: 1 for faces up to 220 px wide, 2 up to 405, 3 up to 590.
        megapixels: million pixels of a frame of the videos.
    """

    live_streams: int
    video_hours: float
    night_hours: float
    fps: float
    method: str
    scale: int
    megapixels: float = _MEASURED_MEGAPIXELS


@dataclass(frozen=True, slots=True)
class StageNeed:
    """Resources that one stage needs.

    Attributes:
        stage: name of the stage, or `gateway`.
        ms_per_frame: processor time of one frame of a video, ms.
        live_processors: processors that the live streams keep busy in the mean.
        video_processors: processors that the videos keep busy in the mean, all night.
        replicas: replicas for both, with room to spare (LIVE_USE, VIDEO_USE).
    """

    stage: str
    ms_per_frame: float
    live_processors: float
    video_processors: float
    replicas: int


def needs(figures: Figures, load: PlannedLoad, processors: float) -> list[StageNeed]:
    """Return what each stage needs, in the order of the pipeline, the gateway last.

    Args:
        figures: processor time per frame.
        load: what the deployment shall do.
        processors: processors of one replica.

    Raises:
        InvalidRequestError: there is no such method, or the figures lack its renderer.
    """
    renderer = method_named(load.method).renderer.name
    if renderer not in figures.render:
        raise InvalidRequestError(
            f"the figures have no renderer {renderer} of method {load.method[:80]!r}; there are: {', '.join(figures.render)}",
            field="method",
        )
    index = load.scale - 1
    stages, detail = figures.stages, figures.detail
    pixels_ms = figures.gateway.megapixel * (load.megapixels - _MEASURED_MEGAPIXELS)
    video = {
        "audio": stages.audio,
        "face": stages.face,
        "motion": stages.motion,
        "texture": stages.texture + detail.texture[index],
        "render": figures.render[renderer],
        "gateway": max(0.0, figures.gateway.video + pixels_ms) + detail.gateway[index],
    }
    live = {**video, "gateway": figures.gateway.live + detail.gateway[index]}
    live_frames = load.live_streams * load.fps
    video_frames = load.video_hours / load.night_hours * load.fps
    stage_needs = []
    for stage, ms in video.items():
        busy_live, busy_video = live[stage] * live_frames / _MS, ms * video_frames / _MS
        wanted = busy_live / LIVE_USE + busy_video / VIDEO_USE
        stage_needs.append(StageNeed(stage, ms, busy_live, busy_video, max(1, math.ceil(wanted / processors - 1e-9))))
    return stage_needs


def _facts(need: StageNeed) -> dict[str, object]:
    return {
        "stage": need.stage,
        "msPerFrame": need.ms_per_frame,
        "liveProcessors": need.live_processors,
        "videoProcessors": need.video_processors,
        "replicas": need.replicas,
    }


def read_figures(file: Path) -> Figures:
    """Return the figures of a TOML file.

    Raises:
        InvalidRequestError: the file cannot be read, or a figure is missing, unknown or wrong. The message names the figure.
    """
    try:
        return Figures.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequestError(f"{file}: {where}: {first['msg']}", field="figures") from problem
    except (OSError, ValueError) as problem:
        raise InvalidRequestError(f"{file} is no readable TOML file: {problem}", field="figures") from problem


async def _say_estimate(settings: GatewaySettings, spec: DubSpec, files: LocalFiles, lines: Path | None) -> None:
    """Estimate a dub and print the estimate.

    Args:
        spec: the dub.
        files: files of the names in the spec.
        lines: file of the lines of a scene, for messages; None: there is none.

    Raises:
        DubstageError: the dub would be refused, or a file cannot be read.
    """
    # Modules of dubs are imported for estimates of dubs: a plan of replicas needs none of them.
    from gateway.actors.installation import open_installation
    from gateway.dub.job.estimate import estimate_dub
    from gateway.dub.request.spec_text import naming_file
    from gateway.dub.state.disk import shown_bytes
    from gateway.engine import Engine

    with open_installation(settings) as installation:
        engine = Engine.of(installation)
        with naming_file(lines):
            request = await asyncio.to_thread(engine.checked_request, spec, files)
        async with installation.stages() as stages:
            estimate = await estimate_dub(request, stages, engine.jobs)
    if wants_json():
        from gateway.cli.documents import estimate_document

        say_json(estimate_document(estimate))
        return
    table = Table("what", "estimate")
    table.add_row("frames", f"{estimate.num_frames}, {estimate.num_rendered} with a usable face")
    table.add_row("processor time", f"{estimate.processor_s:.0f} s")
    table.add_row("time on two processors", f"{estimate.wall_s:.0f} s")
    table.add_row("memory", shown_bytes(estimate.memory_bytes))
    table.add_row("disk", shown_bytes(estimate.disk_bytes))
    say_table(table)
    if estimate.num_dubs:
        say(f"times by the last {estimate.num_dubs} dubs of this machine")
    else:
        say("times of another machine (docs/performance.md): no dub of this machine has been measured yet")


@app.command("plan")
def plan(
    video: Annotated[
        Path | None,
        typer.Argument(metavar="[VIDEO]", help="Footage to estimate a dub of. Default: plan replicas.", show_default=False),
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With VIDEO: sound file with the new speech. Default: the sound of VIDEO.")
    ] = None,
    lines: Annotated[Path | None, typer.Option(metavar="FILE", help="With VIDEO: JSON file with the lines of a scene.")] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="With VIDEO: video that the dub would write.")
    ] = Path("dubbed.mp4"),
    actor: Annotated[
        str | None, typer.Option(metavar="ID", help="With VIDEO: actor to dub. Default: learn the person from VIDEO.")
    ] = None,
    fit: Annotated[str, typer.Option(metavar="|".join(FITS), help="With VIDEO: length of the video. Default: cut.")] = "",
    personalize: options.Personalize = True,
    stages: options.Stages = None,
    live: Annotated[int, typer.Option(min=0, max=100_000, metavar="NUMBER", help="Live streams at once.")] = 0,
    video_hours: Annotated[float, typer.Option(min=0, max=1e6, metavar="HOURS", help="Hours of video to dub in one night.")] = 0.0,
    night_hours: Annotated[float, typer.Option(min=0.1, max=24, metavar="HOURS", help="Length of the night.")] = 10.0,
    fps: Annotated[float, typer.Option(min=1, max=240, metavar="FPS", help="Frames a second of streams and videos.")] = 25.0,
    method: Annotated[
        str | None,
        typer.Option(
            metavar=options.METHOD_VALUES, help=f"Method that dubs. Default: as for `dubstage dub`; {DEFAULT_METHOD} for a load."
        ),
    ] = None,
    scale: Annotated[
        int,
        typer.Option(
            min=1,
            max=NUM_SCALES,
            metavar="1|2|3|4",
            help="Close-ups: 1 for faces up to 220 pixels wide, 2 up to 405, 3 up to 590, 4 for larger ones.",
        ),
    ] = 1,
    megapixels: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=100,
            metavar="NUMBER",
            help="Size of the videos' frames, million pixels: 0.92 for 1280 x 720, 2.1 for 1920 x 1080, 8.3 for 4K.",
        ),
    ] = round(_MEASURED_MEGAPIXELS, 2),
    processors: Annotated[float, typer.Option(min=0.1, max=1024, metavar="NUMBER", help="Processors of one replica.")] = 2.0,
    figures: Annotated[
        Path, typer.Option(metavar="FILE.toml", help="Processor time per frame on your machines.", show_default=False)
    ] = FIGURES,
    _: options.AsJson = False,
) -> None:
    """Say what a dub of VIDEO takes. Without VIDEO, say how many replicas of each stage a load needs.

    A dub: frames, time, memory and disk, by a few pictures of VIDEO and the earlier dubs of this machine. A load: live streams, and
    hours of video a night, by processor time per frame on one kind of machine without a GPU (docs/operations/load.md).
    """
    if video is not None:
        from gateway.dub.request.spec import LocalFiles
        from gateway.dub.request.spec_text import read_lines, spec_from

        files = LocalFiles(str(lines.parent) if lines is not None else "")
        spec = spec_from(
            {
                "footage": files.name(video),
                "speech": files.name(audio),
                "output": files.name(output),
                "actor": actor,
                "method": combined(method) if method is not None else None,
                "lines": read_lines(lines) if lines is not None else None,
                "fit": fit or None,
                "personalize": personalize,
                "overwrite": True,
            }
        )
        run_async(_say_estimate(options.gateway_settings(stages), spec, files, lines))
        return
    load = PlannedLoad(
        live_streams=live,
        video_hours=video_hours,
        night_hours=night_hours,
        fps=fps,
        method=method or DEFAULT_METHOD,
        scale=scale,
        megapixels=megapixels,
    )
    stage_needs = needs(read_figures(figures), load, processors)
    if wants_json():
        say_json({"stages": [_facts(need) for need in stage_needs]})
        return
    table = Table("stage", "ms per frame", "processors, live", "processors, video", "replicas")
    for need in stage_needs:
        table.add_row(
            need.stage,
            f"{need.ms_per_frame:.1f}",
            f"{need.live_processors:.2f}",
            f"{need.video_processors:.2f}",
            str(need.replicas),
        )
    say_table(table)
    total = sum(need.replicas for need in stage_needs)
    say(f"{total} replicas of {processors:g} processors: {total * processors:g} processors")
