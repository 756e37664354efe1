"""Hostile files as footage and as speech: through the command line, and through the gateway's operations."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import grpc

from tests.hostile.bases import ACTOR, dubbing
from tests.hostile.case import ANSWERED, TOLD, Case, Fault, Outcome
from tests.hostile.commands import run
from tests.hostile.media import hostile_file, odd_sound
from tests.hostile.rpcs import OUR_BUGS, judged, told_by
from tests.hostile.world import SETTLE_S, World

VIDEOS = {"dubbed.mkv", "dubbed.mkv.c2pa"}
"""Files that an operation writes: a video, and its manifest in a file of its own, which containers without room for one need."""


def media_case(rng: Random) -> Case:
    """A hostile file as footage or as speech of a command."""
    seed = rng.getrandbits(64)
    role = rng.choice(("footage", "footage", "footage", "speech", "speech", "actor", "live", "api", "api speech"))
    recipe = odd_sound if role in ("speech", "live", "api speech") and rng.random() < 0.5 else hostile_file

    def act(world: World) -> Outcome:
        own = Random(seed)
        if role.startswith("api"):
            return over_the_api(world, own, recipe, speech="speech" in role)
        folder = world.sandbox()
        file = recipe(world.shelf, folder / "cwd", own)
        name = os.fsdecode(os.path.join(".", file.name) if own.random() < 0.8 else file.name)
        good = world.shelf.folder
        output = folder / "out" / own.choice(("video.mp4", "video.mov", "video.mkv"))
        line = {
            "footage": ["dub", f"--output={output}", f"--audio={good / 'speech.wav'}", "--no-personalize", "--", name],
            "speech": ["dub", f"--output={output}", f"--audio={name}", "--no-personalize", str(good / "clip.mp4")],
            "actor": ["actor", "create", "--no-personalize", "--", "ann", name],
            "live": [
                "live",
                ACTOR,
                f"--audio={name}",
                f"--output={output}",
                "--fast",
                "--gateway",
                world.servers.addresses["gateway"],
            ],
        }[role]
        return run(world, folder, line, output=output if role != "actor" else None)

    return Case(
        "media",
        f"{role} by {recipe.__name__} seed {seed}",
        act,
        allowed=TOLD | ANSWERED | ({"exit 20"} if role == "live" else set()),
    )


def over_the_api(world: World, rng: Random, recipe: Callable[..., Path], *, speech: bool) -> Outcome:
    """A hostile file of the media folder as footage or speech of CreateDub, to the operation's end."""
    folder = world.servers.media / f"case-{rng.getrandbits(48):012x}"
    folder.mkdir()
    try:
        file = recipe(world.shelf, folder, rng)
        name = os.fsencode(f"{folder.name}/{file.name}").decode(errors="replace")
        given = {
            ("speech_uri" if speech else "footage_uri"): name,
            "output_uri": f"{folder.name}/dubbed.mkv",
            "skip_personalization": True,
        }
        if speech:
            given["footage_uri"] = f"{folder.name}/{world.shelf.copy('clip.mkv', folder, 'good.mkv').name}"
        before = {path.name for path in folder.iterdir()}
        try:
            request = dubbing(**given, actor="")
            (operation,) = world.call("gateway", "/dubstage.gateway.v1.DubService/CreateDub", [request])
        except grpc.RpcError as error:
            return judged(world, error, request.SerializeToString())
        ended = world.ended(operation.name)  # type: ignore[attr-defined]
        if not ended.done:
            world.settle(operation.name)  # type: ignore[attr-defined]
            return Outcome("DEADLINE_EXCEEDED", str(ended), (Fault("hang", f"the operation had not ended after {SETTLE_S:.0f} s"),))
        after = {path.name for path in folder.iterdir()} - before
        return _ended(world, ended, after)
    finally:
        shutil.rmtree(folder)


def _ended(world: World, operation: object, written: set[str]) -> Outcome:
    """The outcome of an operation that has ended."""
    error = operation.error  # type: ignore[attr-defined]
    if not error.code:
        return Outcome("OK", "", tuple(Fault("leftover", f"in the media folder: {name}") for name in written - VIDEOS))
    code = next(known.name for known in grpc.StatusCode if known.value[0] == error.code)
    reason, field = told_by(error.details)
    faults = [Fault("leftover", f"in the media folder after {code}: {name}") for name in written]
    if not reason or reason in OUR_BUGS:
        faults.append(Fault("unnamed", f"{reason}: {error.message}"))
    if str(world.folder) in error.message:
        faults.append(Fault("path", error.message[:300]))
    return Outcome(code, f"{reason} {field} {error.message}", tuple(faults))
