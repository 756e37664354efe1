"""Preview of an analysed shot: `python -m research.bench.preview`.

A clip is looped to footage of 24 s and dubbed once, which keeps the analysis and the person. Then the first seconds are dubbed with
`preview`, by a command that starts anew each time, and in a process whose stages have loaded their networks, as in a gateway.
"""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import Namespace
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from dubstage.gateway.v1.dub_pb2 import DubSpec
from gateway.actors.installation import open_installation
from gateway.dub.request.spec import LocalFiles
from gateway.engine import Engine, finished_dub
from gateway.settings import GatewaySettings
from research.bench.runs import (
    DUBSTAGE,
    HEIGHT,
    CommandFailedError,
    Stopwatch,
    default_clip,
    footage_parser,
    make_footage,
    measure,
    rows_of,
    table,
    tell,
    work_folder,
    write_json,
)
from services.common.server.settings import load_settings
from services.common.stderr import log_lines_on_stderr


@dataclass(frozen=True, slots=True)
class PreviewTime:
    """One preview.

    Attributes:
        where: `command`: the whole command; `gateway`: the dub alone, in a process that has dubbed before.
        wall_s, cpu_s: wall and processor time, seconds.
    """

    where: str
    wall_s: float
    cpu_s: float


def run(options: Namespace, work: Path) -> list[PreviewTime]:
    """Dub once, and measure previews with another speech.

    Args:
        options: options of `main`.
        work: for videos, logs and all that the installation keeps.

    Raises:
        CommandFailedError: a command failed.
        DubstageError: a dub failed.
    """
    os.environ["XDG_DATA_HOME"] = str(work / "data")
    footage, output = work / "footage.mp4", work / "preview.mp4"
    make_footage(options.clip or default_clip(), options.speech, options.seconds, footage, options.height)
    dub = [*DUBSTAGE, "dub", str(footage), "--no-personalize", "-o"]
    tell("dubbing once")
    measure([*dub, str(work / "dub.mp4")], work / "dub.log")
    times = []
    for _ in range(options.rounds):
        command = measure([*dub, str(output), "--preview"], work / "preview.log")
        times.append(PreviewTime("command", command.wall_s, command.cpu_s))
    spec = DubSpec(footage_uri=str(footage), output_uri=str(output), skip_personalization=True, preview=True)
    return times + asyncio.run(_in_gateway(spec, options.rounds))


async def _in_gateway(spec: DubSpec, rounds: int) -> list[PreviewTime]:
    """Preview in this process. The first preview loads the networks and is not counted."""
    times = []
    async with AsyncExitStack() as stack:
        installation = stack.enter_context(open_installation(load_settings(GatewaySettings)))
        engine, stages = Engine.of(installation), await stack.enter_async_context(installation.stages())
        for _ in range(rounds + 1):
            with Stopwatch() as watch:
                request = await asyncio.to_thread(engine.checked_request, spec, LocalFiles())
                async with finished_dub(engine, request, stages, lambda *_: None, lambda *_: None):
                    pass
            times.append(PreviewTime("gateway", watch.wall_s, watch.cpu_s))
    return times[1:]


def main() -> int:
    """Parse the command line, measure, print and write."""
    parser = footage_parser("python -m research.bench.preview", __doc__)
    parser.add_argument("--seconds", type=float, default=24.0, help="length of the footage")
    parser.add_argument("--height", type=int, default=HEIGHT, help="height of the footage, an even number of pixels")
    parser.add_argument("--rounds", type=int, default=3, help="previews of each kind")
    parser.add_argument("--out", type=Path, default=Path("out/preview.json"))
    options = parser.parse_args()
    try:
        with work_folder(None) as work:
            rows = rows_of(run(options, work))
    except (CommandFailedError, ValueError, FileNotFoundError) as problem:
        tell(f"bench failed: {problem}")
        return 1
    print(table(rows))
    write_json(options.out, {"preview": rows})
    return 0


if __name__ == "__main__":
    with log_lines_on_stderr("warning"):
        sys.exit(main())
