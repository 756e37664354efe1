"""DaVinci Resolve script: dubs the clip under the playhead with a sound file, and puts the video on a new track.

Copy this file to the folder `Fusion/Scripts/Edit` of Resolve. Variables: DUBSTAGE_COMMAND (default: `dubstage`), and
DUBSTAGE_OPTIONS with further options of `dubstage dub`. Resolve itself never ran this script: tests run it with a stand-in.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any


def dub_clip(resolve: Any) -> str:
    """Ask for a sound file, dub the current clip from its first frame on, and return where the video is.

    Raises:
        RuntimeError: the clip cannot be dubbed. The message is for the person.
    """
    project = resolve.GetProjectManager().GetCurrentProject()
    timeline: Any = project.GetCurrentTimeline() if project else None
    clip: Any = timeline.GetCurrentVideoItem() if timeline else None
    media: Any = clip.GetMediaPoolItem() if clip else None
    footage = Path(media.GetClipProperty("File Path") or "") if media else Path()
    if not footage.is_file():
        raise RuntimeError("put the playhead on a clip of a video file")
    rate = float(media.GetClipProperty("FPS"))
    if abs(rate - float(timeline.GetSetting("timelineFrameRate"))) > 0.01:
        raise RuntimeError(f"{footage.name} has {rate:g} frames per second, and the timeline another rate")
    sound = resolve.Fusion().RequestFile(str(footage.parent) + os.sep)
    if not sound:
        raise RuntimeError("no sound file was chosen")
    output = Path(sound).with_name(f"{footage.stem}_{Path(sound).stem}.mov")
    first, frames = clip.GetLeftOffset(), clip.GetDuration()
    _run(footage, [{"start": first / rate, "speech": str(sound), "face": "auto"}], output)
    pool = project.GetMediaPool()
    videos = pool.ImportMedia([str(output)])
    if not videos or not timeline.AddTrack("video"):
        raise RuntimeError(f"{output} is written, and Resolve does not import it")
    clip_info = {"mediaPoolItem": videos[0], "startFrame": first, "mediaType": 1, "recordFrame": clip.GetStart()}
    clip_info["trackIndex"] = timeline.GetTrackCount("video")
    # The last frame belongs to the clip in some versions of Resolve, and not in others.
    for last in (first + frames - 1, first + frames):
        items = pool.AppendToTimeline([{**clip_info, "endFrame": last}])
        if items and items[0].GetDuration() == frames:
            return f"{output.name} is on track V{clip_info['trackIndex']}"
        timeline.DeleteClips(items or [])
    raise RuntimeError(f"{output} is in the media pool, and Resolve does not put it on the timeline")


def _run(footage: Path, lines: list[dict[str, Any]], output: Path) -> None:
    program = os.environ.get("DUBSTAGE_COMMAND", "dubstage")
    # The command must not get Resolve's own Python settings.
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTHONPATH"}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lines.json"
        file.write_text(json.dumps(lines), encoding="utf-8")
        words = ["dub", str(footage), "--lines", str(file), "-o", str(output), *shlex.split(os.environ.get("DUBSTAGE_OPTIONS", ""))]
        try:
            ran = subprocess.run([program, *words], capture_output=True, text=True, check=False, env=environment)
        except OSError as problem:
            raise RuntimeError(f"{program} cannot be started: {problem.strerror}; set DUBSTAGE_COMMAND") from problem
    if ran.returncode:
        raise RuntimeError((ran.stderr.strip().splitlines() or [f"dubstage ended with exit code {ran.returncode}"])[-1])


if __name__ == "__main__":
    try:
        print(dub_clip(globals()["resolve"]))  # Resolve defines this variable.
    except RuntimeError as problem:
        print(problem)
