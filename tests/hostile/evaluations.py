"""Whole evaluations of a short video by the campaign's stages; they take seconds, so the campaign draws few of them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.hostile.case import EXIT_OK, Case, Fault, Outcome
from tests.hostile.commands import run
from tests.hostile.known_evaluate import evaluate_line
from tests.hostile.lines import OK
from tests.hostile.world import World

METHODS = ("dubstage", "portrait", "everybody", "headpose", "portrait+dubstage")
VARIANTS = ("mean_mouth", "retrieval", "tps", "warp_network", "full", "full_kept", "single_frame", "oracle_full")
"""All but wrong_audio and wrong_audio_kept, which render everything ten times."""


def evaluation_case(rng: Random) -> Case:
    """An evaluation of a good video to a report and a file of figures: it succeeds and leaves nothing else."""
    method, variants = rng.choice(METHODS), rng.sample(VARIANTS, rng.choice((1, 2)))
    seed = rng.randrange(1 << 31)

    def act(world: World) -> Outcome:
        folder = world.sandbox()
        video = world.shelf.copy("talking.mp4", folder / "cwd", "clip.mp4")
        data = video.read_bytes()
        report, figures = folder / "out" / "report", folder / "out" / "figures.json"
        places = (f"--report={report}", f"--result={figures}")
        line = evaluate_line(f"--method={method}", f"--variants={','.join(variants)}", f"--seed={seed}", *places)
        outcome = run(world, folder, line, output=report, kept=[figures])
        faults = list(outcome.faults)
        if list((folder / "cwd").iterdir()) != [video] or video.read_bytes() != data:
            faults.append(Fault("outside", "the folder of the video was changed"))
        if outcome.code == EXIT_OK:
            faults += _wrong(figures, variants)
        elif figures.exists():
            faults.append(Fault("leftover", "figures of an evaluation that failed"))
        return Outcome(outcome.code, outcome.said, tuple(faults))

    # Another case may fill a stage meanwhile.
    allowed = OK | {"exit 20"}
    return Case("command", f"evaluate a good video by {method}: {', '.join(variants)}, seed {seed}", act, allowed)


def _wrong(figures: Path, variants: Sequence[str]) -> list[Fault]:
    """Mistakes of a file of figures."""
    faults: list[Fault] = []

    def no_number(name: str) -> Any:
        faults.append(Fault("not finite", f"{name} in {figures.name}"))
        return math.nan

    (clip,) = json.loads(figures.read_text(), parse_constant=no_number)["clips"]
    if set(clip["variants"]) != set(variants):
        faults.append(Fault("message", f"figures of {sorted(clip['variants'])}"))
    for name, scores in clip["variants"].items():
        if scores["face_psnr_db"] is None or scores["frames"] == 0:
            faults.append(Fault("message", f"nothing was measured of {name}: {scores}"))
    return faults
