"""Nuke: dubs what a Read node reads, and makes a Read node of the dub. The button of `dubstage.gizmo` calls `dub`.

Copy both files to a folder of NUKE_PATH, such as `~/.nuke`. Variable: DUBSTAGE_COMMAND (default: `dubstage`). Nuke itself never ran
these files: tests run this one with a stand-in.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
from typing import Any

import nuke

_NUMBER = re.compile(r"%0?\d*d|#+")


def dub(node: Any) -> threading.Thread:
    """Dub the Read node at the input of a gizmo in a thread, while Nuke goes on. Mistakes are shown in a message."""
    thread = threading.Thread(target=_dub, args=(node, *_command(node)))
    thread.start()
    return thread


def _command(node: Any) -> tuple[list[str], str]:
    """Return the command, and what is wrong; empty: nothing."""
    read, sound, output = node.input(0), node["audio"].value(), node["output"].value()
    if read is None or read.Class() != "Read":
        return [], "connect a Read node"
    if not sound or not output:
        return [], "choose a sound file and an output"
    footage = read["file"].value()
    sign = _NUMBER.search(footage)
    if sign:
        frames = f"{int(read['first'].value())}-{int(read['last'].value())}"
        footage = f"{footage[: sign.start()]}{frames}{footage[sign.start() :]}"
    rate = ["--rate", f"{nuke.root()['fps'].value():g}"] if sign else []
    words = shlex.split(node["options"].value() or "")
    return [os.environ.get("DUBSTAGE_COMMAND", "dubstage"), "dub", footage, "--audio", sound, "-o", output, *rate, *words], ""


def _dub(node: Any, command: list[str], wrong: str) -> None:
    if not wrong:
        try:
            # The command must not get Nuke's own Python settings.
            environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTHONPATH"}}
            ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            said = ran.stderr.strip().splitlines() or [f"dubstage ended with exit code {ran.returncode}"]
            wrong = said[-1] if ran.returncode else ""
        except OSError as problem:
            wrong = f"{command[0]} cannot be started: {problem.strerror}; set DUBSTAGE_COMMAND"
    if wrong:
        nuke.executeInMainThread(nuke.message, args=(wrong,))
    else:
        nuke.executeInMainThread(_show, args=(node, command[command.index("-o") + 1]))


def _show(node: Any, output: str) -> None:
    """Make a Read node of the dub beside the gizmo, with the frames and the colours of the footage."""
    read, dub = node.input(0), nuke.nodes.Read(file=output)
    for name in ("first", "last", "origfirst", "origlast", "colorspace"):
        dub[name].setValue(read[name].value())
    dub.setXYpos(node.xpos() + 120, node.ypos())
