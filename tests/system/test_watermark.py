"""The watermark of a real dub: read after re-encoding, unreadable with another key, and nowhere outside of the mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from gateway.media.probe import probe
from gateway.pipeline.dub import DubJob
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.watermark_reading import find_watermark
from gateway.provenance.opening import open_sealer, own_watermark_key
from gateway.provenance.verdict import verdict_of
from gateway.provenance.watermark.detection import Finding
from gateway.provenance.watermark.payload import watermark_key
from gateway.settings import GatewaySettings
from gateway.stages.host import StageHost
from tests.system.dubbing import SPEECH, UNPERSONALIZED, Dubber, decoded

OTHER_KEY = watermark_key(b"the key of somebody else")


@pytest.fixture(scope="module")
def footage(carphone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real man talking for three seconds, three times as large as in his file: 528 x 432, without further loss."""
    target = tmp_path_factory.mktemp("footage") / "footage.mkv"
    with av.open(str(carphone)) as source, av.open(str(target), "w") as output:
        old = source.streams.video[0]
        stream = output.add_stream("ffv1", rate=old.average_rate)
        stream.width, stream.height, stream.pix_fmt = 3 * old.width, 3 * old.height, "yuv420p"
        for number, picture in enumerate(islice(source.decode(old), 90)):
            large = picture.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
            large.pts, large.time_base = number, 1 / Fraction(stream.average_rate)
            output.mux(stream.encode(large))
        output.mux(stream.encode())
    return target


@pytest.fixture(scope="module")
def film(footage: Path, dubber: Dubber, settings: GatewaySettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dub of three seconds, without loss, so that its samples can be compared."""
    return _dub(footage, dubber, settings, tmp_path_factory.mktemp("marked") / "film.mp4")


@pytest.fixture(scope="module")
def plain(footage: Path, dubber: Dubber, settings: GatewaySettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same dub without the watermark."""
    off = settings.model_copy(update={"watermark": False})
    return _dub(footage, dubber, off, tmp_path_factory.mktemp("plain") / "film.mp4")


@pytest.fixture(scope="module")
def key(settings: GatewaySettings, film: Path) -> bytes:
    found = own_watermark_key(settings)
    assert found is not None, film
    return found


def _dub(footage: Path, dubber: Dubber, settings: GatewaySettings, output: Path) -> Path:
    request = DubRequest(footage=footage, speech=SPEECH, output=output, method="ugc", codec="ffv1", enrol=UNPERSONALIZED)
    job = DubJob(replace(request), dubber.host.stages, dubber.store, dubber.jobs, sealer=open_sealer(settings))
    dubber.host.run(job.run(lambda *_: None))
    job.discard()
    return output


def _found(host: StageHost, film: Path, key: bytes) -> Finding:
    found = host.run(find_watermark(host.stages, probe(film), key, threads=1, on_frame=lambda _: None))
    assert found is not None
    return found


def _encoded(source: Path, target: Path, codec: str, options: dict[str, str], *, rate: int | None = None, skip: int = 0) -> Path:
    """Encode the pictures of a film again: at another rate, by repeating frames, and without the first `skip` frames."""
    with av.open(str(source)) as film, av.open(str(target), "w") as output:
        old = film.streams.video[0]
        assert old.average_rate is not None
        pictures = list(film.decode(old))[skip:]
        stream = output.add_stream(codec, rate=rate or Fraction(old.average_rate), options=options)
        stream.width, stream.height, stream.pix_fmt = old.width, old.height, "yuv420p"
        times: Iterator[int] = iter(range(len(pictures)))
        if rate is not None:
            count = int(len(pictures) / old.average_rate * rate)
            pictures = [pictures[int(number * old.average_rate / rate)] for number in range(count)]
            times = iter(range(count))
        for number, picture in zip(times, pictures, strict=True):
            again = av.VideoFrame.from_ndarray(picture.to_ndarray(format="yuv420p"), format="yuv420p")
            again.pts, again.time_base = number, 1 / Fraction(rate or old.average_rate)
            output.mux(stream.encode(again))
        output.mux(stream.encode())
    return target


def test_the_mark_of_a_dub_is_read_and_is_the_one_that_the_manifest_names(host: StageHost, film: Path, key: bytes) -> None:
    found = _found(host, film, key)
    assert found.found
    assert found.right
    # Bits before the correction of errors. The payload is another one in each run, and single bits may be read wrongly.
    assert found.agreeing >= 61
    dub = verdict_of(film).dub
    assert dub is not None
    assert str(found.payload) == dub.watermark
    begin, end = found.spans[0][0], found.spans[-1][1]
    assert begin < 0.5
    assert end > 2.5


@pytest.mark.parametrize(
    ("ending", "codec", "options", "rate", "skip"),
    [
        ("mp4", "libx264", {"crf": "28"}, None, 0),
        ("webm", "libvpx-vp9", {"crf": "33", "b": "0", "cpu-used": "6"}, None, 0),
        ("mp4", "libx264", {"crf": "20"}, 25, 17),
    ],
)
def test_the_mark_outlives_re_encoding(
    host: StageHost,
    film: Path,
    key: bytes,
    tmp_path: Path,
    ending: str,
    codec: str,
    options: dict[str, str],
    rate: int | None,
    skip: int,
) -> None:
    again = _encoded(film, tmp_path / f"again.{ending}", codec, options, rate=rate, skip=skip)
    found = _found(host, again, key)
    dub = verdict_of(film).dub
    assert dub is not None
    assert (found.found, found.right, str(found.payload)) == (True, True, dub.watermark)


def test_no_mark_is_found_with_another_key_in_the_footage_or_in_a_dub_without_it(
    host: StageHost, film: Path, plain: Path, footage: Path, key: bytes
) -> None:
    for where, used in ((film, OTHER_KEY), (footage, key), (plain, key)):
        found = _found(host, where, used)
        assert not found.found
        assert found.log10_chance > -3.0
    dub = verdict_of(plain).dub
    assert dub is not None
    assert dub.watermark == ""


def test_the_mark_changes_nothing_but_the_luma_of_the_dubbed_face_and_little_there(film: Path, plain: Path, footage: Path) -> None:
    frames = [
        (with_it.astype(np.int64) - without, without != before)
        for (with_it, *_), (without, *_), (before, *_) in zip(decoded(film), decoded(plain), decoded(footage), strict=True)
    ]
    dubbed = np.any([touched for _, touched in frames], axis=0).astype(np.uint8)
    near = cv2.dilate(dubbed, np.ones((9, 9), np.uint8)) > 0
    assert not any(difference[~near].any() for difference, _ in frames)
    squares = sum(float((difference**2).sum()) for difference, _ in frames)
    assert 0 < squares / (len(frames) * int(dubbed.sum())) < 255**2 / 10**4.5
    for marked, unmarked in zip(decoded(film), decoded(plain), strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(marked[1:], unmarked[1:], strict=True))
