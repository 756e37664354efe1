"""A whole training set: every clip of a folder, the lags by speaker, and the manifest."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from gateway.stages.interface import Stages
from gateway.trainset.catalogue import ClipEntry, list_clips
from gateway.trainset.clip import FORMAT_VERSION, ClipFacts, ClipFolder, take_in
from services.common.errors import NoUsableFootage, RequestError

MANIFEST: Final = "manifest.json"
LAGS: Final = "lags.json"

OnClip = Callable[[int, int, str, int], None]
"""Called with: clips done, clips in all, name of the present file, frames of this file done."""


@dataclass(frozen=True, slots=True)
class Built:
    """Result of a build: facts of the clips in the training set, and why other clips were left out."""

    taken: dict[ClipEntry, ClipFacts]
    left_out: dict[ClipEntry, str]


async def build(
    stages: Stages, folder: Path, output: Path, *, uses: frozenset[str], with_lags: bool, on_clip: OnClip = lambda *_: None
) -> Built:
    """Build or complete the training set of `folder` in `output`, and return what was built.

    Finished clips are kept, so the build can be stopped at any time. Films that are damaged or show no face are left out and listed
    with the reason.

    Raises:
        InvalidRequest: the folder holds no clips.
        NoUsableFootage: no clip can be used.
        DubstageError: from a stage.
    """
    clips = list_clips(folder, uses)
    into = ClipFolder(output)
    taken: dict[ClipEntry, ClipFacts] = {}
    left_out: dict[ClipEntry, str] = {}
    for number, entry in enumerate(clips):

        def on_frame(frame: int, number: int = number, entry: ClipEntry = entry) -> None:
            on_clip(number, len(clips), entry.file, frame)

        try:
            taken[entry] = await take_in(stages, folder, entry, into, with_lag=with_lags, on_frame=on_frame)
        except (RequestError, NoUsableFootage) as problem:
            left_out[entry] = str(problem)
        on_clip(number + 1, len(clips), entry.file, 0)
    if not taken:
        raise NoUsableFootage(f"{folder}: none of the {len(clips)} films can be used", subject=str(folder))
    built = Built(taken, left_out)
    if with_lags:
        _write_json(output / LAGS, lags_by_speaker(taken))
    _write_json(output / MANIFEST, manifest(built))
    return built


def lags_by_speaker(taken: dict[ClipEntry, ClipFacts]) -> dict[str, int]:
    """Return the lag to take out of each clip, by the clip's name: the median over the speaker's clips.

    One speaker's clips come from one recording chain, and the lag of three seconds alone is uncertain.
    """
    heard: dict[str, list[int]] = {}
    for entry, facts in taken.items():
        if facts.lag_confidence >= 0:
            heard.setdefault(entry.speaker, []).append(facts.lag_frames)
    return {entry.name: statistics.median_low(heard[entry.speaker]) for entry in taken if entry.speaker in heard}


def manifest(built: Built) -> dict[str, object]:
    """Return the manifest: every clip of the training set with its licence, and the clips that were left out."""
    lags = lags_by_speaker(built.taken)
    return {
        "format": FORMAT_VERSION,
        "frame_rate": "25/1",
        "clips": [
            {"name": entry.name, **asdict(entry), **asdict(facts), "lag_taken_out": lags.get(entry.name, 0)}
            for entry, facts in built.taken.items()
        ],
        "left_out": [{"file": entry.file, "why": why} for entry, why in built.left_out.items()],
        "speakers": {use: sorted({e.speaker for e in built.taken if e.use == use}) for use in sorted({e.use for e in built.taken})},
        "licences": sorted({entry.licence for entry in built.taken}),
        "frames": sum(facts.frames for facts in built.taken.values()),
    }


def _write_json(path: Path, content: object) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
