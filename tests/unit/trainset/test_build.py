"""A training set from films that are made here: a photograph that moves, with a tone."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from skimage.data import astronaut

from gateway.trainset.build import build
from gateway.trainset.stages import local_stages
from services.common.errors import NoUsableFootage
from services.common.store.tensor_bytes import decode_arrays

TRAIN = frozenset({"train"})


def write_film(path: Path, *, rate: int = 25, frames: int = 12, face: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    photograph = astronaut()[:256, 60:380] if face else np.full((256, 320, 3), 90, np.uint8)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=rate)
        video.width, video.height, video.pix_fmt = 320, 256, "yuv420p"
        video.time_base = Fraction(1, rate)
        sound = container.add_stream("pcm_s16le", rate=16000)
        sound.layout = "mono"
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(photograph, index, axis=1)), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, rate)
            container.mux(video.encode(picture))
        tone = (8000 * np.sin(np.arange(16000 * frames // rate) * 0.2)).astype(np.int16)
        audio = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        audio.sample_rate, audio.pts, audio.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(sound.encode(audio))
        for stream in (video, sound):
            container.mux(stream.encode(None))


async def test_films_become_tracks_features_and_a_manifest(tmp_path: Path) -> None:
    films, output = tmp_path / "films", tmp_path / "set"
    write_film(films / "ann" / "one.mkv")
    write_film(films / "bob" / "fast.mkv", rate=50, frames=20)
    write_film(films / "bob" / "empty.mkv", face=False)
    (films / "bob" / "broken.mp4").write_bytes(b"no film")
    async with local_stages(with_lags=False) as stages:
        built = await build(stages, films, output, uses=TRAIN, with_lags=False)
        first = (output / "clips" / "ann__one.mkv.safetensors").stat().st_mtime_ns
        again = await build(stages, films, output, uses=TRAIN, with_lags=False)

    track = decode_arrays((output / "clips" / "ann__one.mkv.safetensors").read_bytes())
    heard = decode_arrays((output / "features" / "ann__one.mkv.safetensors").read_bytes())
    assert track["landmarks"].shape == (12, 478, 3)
    assert track["boxes"].shape == (12, 160, 160, 3)
    assert track["usable"].all()
    assert track["audio"].shape == (12 * 640,)
    assert heard["posteriorgram"].shape == (12, 4, 40)
    assert heard["identity_removed"].shape == (12, 4, 20)
    assert heard["mfcc"].shape == (12, 4, 40)
    assert track.metadata["speaker"] == "ann"
    assert decode_arrays((output / "clips" / "bob__fast.mkv.safetensors").read_bytes())["usable"].shape == (10,)

    manifest = json.loads((output / "manifest.json").read_text())
    assert [clip["file"] for clip in manifest["clips"]] == ["ann/one.mkv", "bob/fast.mkv"]
    assert [clip["file"] for clip in manifest["left_out"]] == ["bob/broken.mp4", "bob/empty.mkv"]
    assert manifest["speakers"] == {"train": ["ann", "bob"]}
    assert again == built
    assert (output / "clips" / "ann__one.mkv.safetensors").stat().st_mtime_ns == first
    assert not [path for path in output.rglob(".*") if path.is_file()]


async def test_a_folder_without_any_face_is_an_error(tmp_path: Path) -> None:
    write_film(tmp_path / "films" / "empty.mkv", face=False, frames=3)
    async with local_stages(with_lags=False) as stages:
        with pytest.raises(NoUsableFootage, match="none of the 1 films"):
            await build(stages, tmp_path / "films", tmp_path / "set", uses=TRAIN, with_lags=False)
