"""One clip of a training set: tracking, features, and the files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dubstage.client import audio as audio_client
from dubstage.client import motion as motion_client
from dubstage.client import rpcs
from dubstage.motion.v1alpha1 import motion_pb2
from gateway.media.inspection import inspect_film
from gateway.pipeline.face_index import read_index
from gateway.pipeline.faces import FaceChoice, choose_face
from gateway.pipeline.footage import analyse_footage
from gateway.pipeline.records import FACE_RECORD, RecordFile
from gateway.stages.interface import Stages
from gateway.trainset.catalogue import ClipEntry
from gateway.trainset.grid import GridTrack, on_grid
from gateway.trainset.listen import ClipFeatures, extract_features, read_samples
from services.common.errors import NoUsableFootage
from services.common.store.tensor_bytes import decode_arrays, encode_arrays
from services.common.wire.timeline import MOTION_RATE

FORMAT_VERSION: Final = "1"
LEAST_USABLE: Final = 0.5
"""Least share of frames with a usable mouth. A clip with fewer is left out: it is damaged, or shows another person."""


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """The manifest's facts of one clip.

    Attributes:
        frames: number of frames at 25 frames/s.
        usable_frames: number of these frames that show the mouth well.
        lag_frames, lag_confidence: answer of the sync network for this clip alone; confidence -1: not measured.
        source_sha256: SHA-256 of the film, hexadecimal.
    """

    frames: int
    usable_frames: int
    lag_frames: int
    lag_confidence: float
    source_sha256: str


class ClipFolder:
    """The folders of a training set: `clips/` holds tracks, boxes and sound, `features/` holds features under the same names."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.clips, self.features = output / "clips", output / "features"
        for folder in (self.clips, self.features):
            folder.mkdir(parents=True, exist_ok=True)

    def facts(self, entry: ClipEntry, source_sha256: str, *, with_lag: bool) -> ClipFacts | None:
        """Return the facts of a clip; None: the clip is not finished, or the film has changed since."""
        path = self.features / f"{entry.name}.safetensors"
        if not path.is_file() or not (self.clips / path.name).is_file():
            return None
        noted = decode_arrays(path.read_bytes()).metadata
        if noted.get("format") != FORMAT_VERSION or noted.get("source_sha256") != source_sha256:
            return None
        facts = ClipFacts(
            int(noted["frames"]),
            int(noted["usable_frames"]),
            int(noted["lag_frames"]),
            float(noted["lag_confidence"]),
            source_sha256,
        )
        return facts if facts.lag_confidence >= 0 or not with_lag else None

    def write(self, entry: ClipEntry, track: GridTrack, samples: npt.NDArray[Any], heard: ClipFeatures, facts: ClipFacts) -> None:
        """Write both files of a clip. The features come last: they mark the clip as finished."""
        about = {
            "format": FORMAT_VERSION,
            "clip": entry.file,
            "use": entry.use,
            "speaker": entry.speaker,
            "licence": entry.licence,
            "transcript": entry.transcript,
            "frame_rate_num": str(MOTION_RATE.numerator),
            "frame_rate_den": str(MOTION_RATE.denominator),
            **{name: str(value) for name, value in asdict(facts).items()},
        }
        _replace(self.clips / f"{entry.name}.safetensors", {**_arrays(track), "audio": samples}, about)
        _replace(self.features / f"{entry.name}.safetensors", _arrays(heard), about)


async def take_in(
    stages: Stages, folder: Path, entry: ClipEntry, into: ClipFolder, *, with_lag: bool, on_frame: Callable[[int], None]
) -> ClipFacts:
    """Track the largest face of a clip, extract the features of its sound, find its lag, and write both files.

    A clip that was finished before is not made again. One clip is held in memory: about 100 kB per frame.

    Raises:
        MediaUnsupported: the film cannot be read to its end.
        NoUsableFootage: too few frames show a face well.
        DubstageError: from a stage.
    """
    path = folder / entry.file
    with path.open("rb") as film:
        source = hashlib.file_digest(film, "sha256").hexdigest()
    done = into.facts(entry, source, with_lag=with_lag)
    if done is not None:
        return done
    info = inspect_film(path)
    num_frames = max(1, round(info.video.duration * MOTION_RATE))
    seconds = (info.video.pts - info.video.pts[0]) * float(info.video.time_base)
    working = into.output / f".{entry.name}.faces"
    working.unlink(missing_ok=True)
    try:
        with RecordFile(working, FACE_RECORD) as faces:
            cuts = await analyse_footage(stages, info, faces, threads=1, on_progress=on_frame)
            index = read_index(faces, cuts, info.video.num_frames)
            face_id = await choose_face(index, FaceChoice("largest"), None)
            if face_id is None:
                raise NoUsableFootage("no face in the film", subject=entry.file)
            rows = index.rows_of(face_id)
            track = on_grid(faces.read_rows(rows[rows >= 0].tolist()), np.asarray(seconds), num_frames)
    finally:
        working.unlink(missing_ok=True)
    usable = int(track.usable.sum())
    if usable < LEAST_USABLE * num_frames:
        raise NoUsableFootage(f"only {usable} of {num_frames} frames show a mouth well", subject=entry.file)
    samples = read_samples(info, num_frames)
    heard = await extract_features(stages, samples, num_frames)
    lag, confidence = 0, -1.0
    if with_lag and info.audio:
        reply = await stages.unary(rpcs.motion.ESTIMATE_LAG, _lag_request(track, heard))
        lag, confidence = reply.lag_frames, reply.confidence
    facts = ClipFacts(num_frames, usable, lag, confidence, source)
    into.write(entry, track, samples, heard, facts)
    return facts


def _lag_request(track: GridTrack, heard: ClipFeatures) -> motion_pb2.EstimateLagRequest:
    arrays = {"mel": heard.mel, "posteriorgram": heard.posteriorgram}
    return motion_client.estimate_lag.request(
        features=audio_client.feature_block(arrays, heard.speech_probability),
        mouth_landmarks=track.mouth_landmarks,
        usable=track.usable,
    )


def _arrays(record: GridTrack | ClipFeatures) -> dict[str, npt.NDArray[Any]]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _replace(path: Path, arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, str]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(encode_arrays(arrays, about))
    os.replace(partial, path)
