"""The parts of dubstage, one after the other: `python -m research.bench.components ACTOR VIDEO [--out FILE]`.

Each stage of a dub, a live stream, the renderer's network, every renderer with its features, fine detail, and the fitting of the
face model. The actor was enrolled from the video.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gateway.actors.store import ActorStore
from gateway.media.sound import SoundReader
from gateway.settings import GatewaySettings
from gateway.stages.opening import open_stages
from research.bench.fitting import measure_fitting
from research.bench.live import measure_live
from research.bench.renderer import measure_detail, measure_models, measure_renderer
from research.bench.runs import rows_of, table, write_json
from research.bench.stages import measure_stages
from services.common.stderr import log_lines_on_stderr


async def measure_components(actor_id: str, video: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each part by its name."""
    settings = GatewaySettings()
    speech = SoundReader(video).speech()
    samples = np.concatenate(list(speech.chunks))
    with ActorStore(settings) as actors, tempfile.TemporaryDirectory() as folder:
        actor = actors.get(actor_id)
        async with open_stages(settings, warm_up=True) as stages:
            times = await measure_stages(stages, actor, video, Path(folder), settings.compute_threads)
            live = await measure_live(stages, actors, actor_id, samples, speech.sample_rate_hz, settings)
    return {
        "stages": [
            {
                "stage": one.name,
                "frames": one.frames,
                "ms_per_frame": one.ms_per_frame,
                "cpu_ms_per_frame": 1000.0 * one.cpu_s / one.frames,
            }
            for one in times
            if one.frames
        ],
        "live": rows_of(live),
        "renderer_network": rows_of(measure_renderer()),
        "renderer_models": rows_of(measure_models()),
        "detail": rows_of(measure_detail()),
        "fitting": rows_of(measure_fitting(video)),
    }


def main() -> None:
    """Measure all parts and print them, or write them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m research.bench.components", description=__doc__)
    parser.add_argument("actor")
    parser.add_argument("video", type=Path)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    result = asyncio.run(measure_components(options.actor, options.video))
    for name, rows in result.items():
        print(f"{name}\n\n{table(rows)}\n")
    if options.out is not None:
        write_json(options.out, result)


if __name__ == "__main__":
    with log_lines_on_stderr("warning"):
        main()
