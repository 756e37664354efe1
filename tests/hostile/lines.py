"""Parts of named cases of the command line."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.hostile.case import EXIT_OK, EXIT_UNDUBBED, EXIT_WRONG, Case, Outcome
from tests.hostile.commands import run
from tests.hostile.world import World

OK = frozenset({EXIT_OK})
UNDUBBED = frozenset({EXIT_UNDUBBED})
"""A dub of footage without a face, such as drawn clips: the video is written, and the code says that no mouth changed."""
WRONG = frozenset({EXIT_WRONG})
Prepare = Callable[[World, Path], list[str]]
"""Puts files into a sandbox and gives the command line."""


def command_line(
    name: str, prepare: Prepare, allowed: frozenset[str], *says: str, surface: str = "command", **environment: str
) -> Case:
    def act(world: World) -> Outcome:
        folder = world.sandbox()
        line = prepare(world, folder)
        output = next((folder / "cwd" / part.removeprefix("--output=") for part in line if part.startswith("--output=")), None)
        return run(world, folder, line, output=Path(os.path.normpath(output)) if output is not None else None, **environment)

    return Case(surface, name, act, allowed, says)


def dub_line(footage: str, output: str = "../out/video.mp4", *more: str, audio: str = "speech.wav") -> list[str]:
    return ["dub", f"--output={output}", f"--audio={audio}", "--no-personalize", *more, "--", footage]


def good_files(world: World, folder: Path, *names: str) -> Path:
    for name in ("clip.mp4", "speech.wav", *names):
        world.shelf.copy(name, folder / "cwd")
    return folder / "cwd"
