"""Times of the parts of dubstage, one after the other: `python -m research.bench.components ACTOR VIDEO OUT`."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gateway.actors.store import ActorStore
from gateway.media.sound import SoundReader
from gateway.settings import GatewaySettings
from gateway.stages.opening import open_stages
from gateway.stages.timing import StageTime
from research.bench.actors import ActorTimes, measure_actors
from research.bench.fitting import FittingTimes, measure_fitting
from research.bench.frame_choice import FrameChoiceTime, measure_frame_choice
from research.bench.live import LiveTimes, measure_live
from research.bench.rasteriser import RasteriserTime, measure_rasteriser
from research.bench.renderer import ModelTime, NetworkTime, measure_models, measure_renderer
from research.bench.stages import measure_stages


@dataclass(frozen=True, slots=True)
class ComponentTimes:
    """Times of the parts.

    Attributes:
        stages: each stage of a dub, one after the other.
        live: a live stream.
        renderer: the network of one renderer on all backends.
        models: every renderer with its features.
        actors: batches with frames of many actors.
        fitting: fitting of the face model.
        frame_choice: choice of footage frames for ten minutes of speech.
        rasteriser: the rasteriser.
    """

    stages: tuple[StageTime, ...]
    live: LiveTimes
    renderer: tuple[NetworkTime, ...]
    models: tuple[ModelTime, ...]
    actors: tuple[ActorTimes, ...]
    fitting: FittingTimes
    frame_choice: tuple[FrameChoiceTime, ...]
    rasteriser: tuple[RasteriserTime, ...]


def read_components(path: Path) -> ComponentTimes:
    """Return the times that `main` wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return ComponentTimes(
        stages=tuple(StageTime(**row) for row in document["stages"]),
        live=LiveTimes(**document["live"]),
        renderer=tuple(NetworkTime(**row) for row in document["renderer"]),
        models=tuple(ModelTime(**row) for row in document["models"]),
        actors=tuple(ActorTimes(**row) for row in document["actors"]),
        fitting=FittingTimes(**document["fitting"]),
        frame_choice=tuple(FrameChoiceTime(**row) for row in document["frame_choice"]),
        rasteriser=tuple(RasteriserTime(**row) for row in document["rasteriser"]),
    )


async def measure_components(actor_id: str, video: Path) -> ComponentTimes:
    """Measure all parts, with an enrolled actor and the video that the actor was enrolled from."""
    settings = GatewaySettings()
    speech = SoundReader(video).speech()
    samples = np.concatenate(list(speech.chunks))
    with ActorStore(settings) as actors, tempfile.TemporaryDirectory() as folder:
        actor = actors.get(actor_id)
        async with open_stages(settings) as stages:
            times = await measure_stages(stages, actor, video, Path(folder), settings.compute_threads)
            live = await measure_live(stages, actors, actor_id, samples, speech.sample_rate_hz, settings)
    return ComponentTimes(
        stages=times,
        live=live,
        renderer=measure_renderer(),
        models=measure_models(),
        actors=measure_actors(),
        fitting=measure_fitting(video),
        frame_choice=measure_frame_choice(),
        rasteriser=measure_rasteriser(),
    )


def main() -> None:
    """Measure all parts, and write the times as JSON."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.components", description=__doc__)
    parser.add_argument("actor")
    parser.add_argument("video", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    result = asyncio.run(measure_components(options.actor, options.video))
    options.out.write_text(json.dumps(asdict(result)), encoding="utf-8")


if __name__ == "__main__":
    main()
