"""`python -m research.face.embedding_distances CLIPS`: how surely mean face embeddings tell people apart.

The folder CLIPS has videos and a catalogue.csv.
Each video is measured as `dubstage consent subject` measures a video. Prints distances of videos of one person and of two people,
and how often single frames would be accepted and refused. Files whose use begins with `test` are a table of their own: nothing may
be chosen by their figures.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from gateway.consent.subject import OTHER_FROM, SAME_BELOW
from gateway.dub.analyse.face_records import FaceMeans, embed_every
from gateway.dub.analyse.footage import tracked_frames
from gateway.media.inspection import inspect_video
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stage
from services.common.array_types import Float32, Float64
from services.common.errors import DubstageError
from services.common.server.settings import load_settings
from services.common.wire.convert import from_tensor

USES: Final = ("dev", "dev_people", "train", "val", "train_motion")
"""Uses of the catalogue by which a threshold may be chosen."""
VIDEOS_A_PERSON: Final = 9
MOST_FRAMES: Final = 500
_SAME_PEOPLE: Final = {"id2_vcd_swwp2s": "s2", "pwij3p": "s2", "lrwp9a": "s23", "s23_priazn": "s23"}
"""Speakers of files whose names hide that they show the same person as other files."""


@dataclass(frozen=True, slots=True)
class MeasuredFaces:
    """One person in one video: the mean embedding, float32 [128], and the embeddings of single frames, float32 [N, 128]."""

    file: str
    person: str
    mean: Float32
    single: Float32


def chosen(clips: Path, uses: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield file and person of the videos of these uses, at most VIDEOS_A_PERSON of a person."""
    counts: Counter[str] = Counter()
    with (clips / "catalogue.csv").open(newline="", encoding="utf-8") as catalogue:
        for row in csv.DictReader(catalogue):
            file = row["file"]
            if row["use"] not in uses or not file.endswith((".mp4", ".mkv", ".mpg")):
                continue
            speaker = row["speaker"].removeprefix("grid-") or (file.split("/")[1] if file.count("/") > 1 else file)
            person = _SAME_PEOPLE.get(Path(file).stem, speaker.removesuffix("_hq"))
            counts[person] += 1
            if counts[person] <= VIDEOS_A_PERSON:
                yield file, person


async def measure(stages: Stages, clips: Path, file: str, person: str) -> MeasuredFaces | None:
    """Return the face that shows most in the first MOST_FRAMES of a video; None: the video shows no face."""
    info = inspect_video(clips / file)
    means = FaceMeans()
    single: dict[int, list[Float32]] = {}
    every = embed_every(min(info.video.num_frames, MOST_FRAMES))
    async with aclosing(tracked_frames(stages, info, 1, embed_every=every)) as frames:
        async for tracked in frames:
            for face in tracked.faces.faces:
                means.add(face)
                if face.HasField("embedding"):
                    vector = from_tensor(face.embedding.vector, "vector", dtype=np.float32, shape=(None,))
                    single.setdefault(face.face_id, []).append(vector)
            if tracked.index + 1 >= MOST_FRAMES:
                break
    if not single:
        return None
    face_id = max(single, key=lambda number: len(single[number]))
    return MeasuredFaces(file, person, means.faces()[face_id].vector, np.stack(single[face_id]))


def report(videos: Sequence[MeasuredFaces]) -> Iterator[str]:
    """Yield the lines of a table."""
    pairs = [(a, b, float(np.linalg.norm(a.mean - b.mean))) for a, b in itertools.combinations(videos, 2)]
    same = sorted(((d, a.file, b.file) for a, b, d in pairs if a.person == b.person), reverse=True)
    other = sorted((d, a.file, b.file) for a, b, d in pairs if a.person != b.person)
    yield f"{len(videos)} videos of {len({one.person for one in videos})} people"
    for name, distances, worst in (("one person", same, "largest"), ("two people", other, "smallest")):
        if not distances:
            continue
        values = np.array([d for d, _, _ in distances])
        shares = [float(np.mean(values < limit)) for limit in (SAME_BELOW, OTHER_FROM)]
        yield (
            f"  {name}: {len(values)} pairs of videos, {worst} {values[0]:.3f}, median {np.median(values):.3f}; "
            f"{shares[0]:.2%} below {SAME_BELOW}, {shares[1] - shares[0]:.2%} up to {OTHER_FROM}, {1 - shares[1]:.2%} above"
        )
        yield f"    {worst}: " + "; ".join(f"{d:.3f} {a} {b}" for d, a, b in distances[:4])
    halves = [
        float(np.linalg.norm(f.mean(0) - s.mean(0)))
        for f, s in (np.array_split(one.single, 2) for one in videos if len(one.single) > 9)
    ]
    yield f"  first and second half of a video: largest {max(halves):.3f}, median {np.median(halves):.3f}"
    for kind, single in (("a mean", False), ("a single frame", True)):
        mine: list[Float64] = []
        theirs: list[Float64] = []
        for a, b in itertools.permutations(videos, 2):
            other_faces = b.single if single else b.mean[None]
            apart = np.linalg.norm(a.single[:, None] - other_faces[None], axis=-1).ravel()
            (mine if a.person == b.person else theirs).append(apart)
        wrong = np.concatenate(theirs)
        line = f"  a single frame against {kind}: two people accepted {np.mean(wrong < SAME_BELOW):.4%}"
        if mine:
            right = np.concatenate(mine)
            limits = np.linspace(0.2, 0.8, 601)
            rates = [(np.mean(right >= limit), np.mean(wrong < limit), limit) for limit in limits]
            equal = min(rates, key=lambda rate: abs(rate[0] - rate[1]))
            line += (
                f"; one person not accepted {np.mean(right >= SAME_BELOW):.2%}, refused {np.mean(right >= OTHER_FROM):.2%}; equal "
                f"error rate {(equal[0] + equal[1]) / 2:.2%} at {equal[2]:.3f}"
            )
        yield line


async def run(clips: Path) -> None:
    """Measure all videos, and print both tables."""
    async with open_stage(load_settings(GatewaySettings), "face") as stages:
        for title, uses in (("to choose by", USES), ("held out", ("test", "test_people"))):
            videos = []
            for file, person in chosen(clips, uses):
                try:
                    one = await measure(stages, clips, file, person)
                except DubstageError as problem:
                    print(f"skipped: {problem}")
                    continue
                videos += [one] if one is not None else []
            print(f"{title}: {next(lines := report(videos))}", *lines, sep="\n", flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, metavar="CLIPS", help="Folder with catalogue.csv.")
    asyncio.run(run(parser.parse_args().clips))


if __name__ == "__main__":
    main()
