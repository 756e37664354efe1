"""A person who is enrolled from footage of standard range, in HDR footage (PQ and HLG)."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from gateway.actors.store import ActorStore
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.request.dub_request import DubRequest
from gateway.media.pixels import ColourTags, colour_model, pixel_format
from gateway.media.probe import probe
from gateway.media.reader import VideoReader, from_rgb, to_rgb
from gateway.settings import GatewaySettings
from services.common.array_types import UInt8
from tests.system.dubbing import SPEECH, Dubber, cut, enrol

SECONDS = 2.6


def in_hdr(source: Path, target: Path, transfer: int) -> Path:
    """The same pictures in BT.2020 with 10 bits, without sound."""
    info = probe(source)
    pixel, tags = pixel_format("yuv420p10le"), ColourTags(9, 1, 9, transfer)
    colour = colour_model(pixel, tags, info.video.width, info.video.height)
    with VideoReader(info) as reader, av.open(str(target), "w") as output:
        video = output.add_stream("libx265", rate=25, options={"crf": "8", "x265-params": "log-level=error"})
        video.width, video.height, video.pix_fmt = info.video.width, info.video.height, pixel.name
        context = video.codec_context
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = 9, 1, 9, transfer
        for frame in reader:
            picture = from_rgb(to_rgb(frame), pixel, colour)
            picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc = 9, 1, 9, transfer
            picture.pts, picture.time_base = frame.index, Fraction(1, 25)
            output.mux(video.encode(picture))
        output.mux(video.encode(None))
    return target


def pictures(path: Path) -> list[UInt8]:
    with VideoReader(probe(path)) as reader:
        return [to_rgb(frame) for frame in reader]


@dataclass(frozen=True)
class Person:
    """Footage of standard range, its dub, and the person who was enrolled from the footage."""

    footage: Path
    actor: EnrolledActor
    dub: DubOutcome


@pytest.fixture(scope="module")
def person(clips: Any, dubber: Dubber, settings: GatewaySettings, tmp_path_factory: pytest.TempPathFactory) -> Person:
    folder = tmp_path_factory.mktemp("hdr")
    footage = cut(clips.path("video/vr_face5.mp4"), folder / "plain.mkv", 0.0, SECONDS)
    own = settings.model_copy(update={"data_dir": folder / "data"})
    with ActorStore(own) as actors:
        actor = enrol(dubber.host, own, actors, "person", footage).enrolled
    request = DubRequest(footage=footage, speech=SPEECH, output=folder / "dub.mkv", method="dubstage", codec="ffv1", actor=actor)
    return Person(footage, actor, dubber(request))


@pytest.mark.long
@pytest.mark.parametrize("transfer", [16, 18], ids=["PQ", "HLG"])
def test_a_person_of_standard_range_speaks_in_hdr(person: Person, dubber: Dubber, tmp_path: Path, transfer: int) -> None:
    """The drawn mouth looks as it does in footage of standard range, and the tags stay."""
    hdr, first = in_hdr(person.footage, tmp_path / "hdr.mp4", transfer), person.dub
    request = DubRequest(footage=hdr, speech=SPEECH, output=tmp_path / "hdr-dub.mp4", method="dubstage", actor=person.actor)
    outcome = dubber(request)
    tags = probe(outcome.written.path).video.colour
    assert (tags.matrix, tags.primaries, tags.transfer) == (9, 9, transfer)
    filmed, drawn = pictures(hdr), pictures(outcome.written.path)
    plain_filmed, plain_drawn = pictures(person.footage), pictures(first.written.path)
    frames = [index for index in range(len(drawn)) if outcome.plan.rendered()[index] and first.plan.rendered()[index]]
    assert len(frames) > 25
    for index in frames[::4]:
        changed = np.abs(plain_filmed[index].astype(int) - plain_drawn[index]).max(axis=2) > 0
        change, wanted = (
            (after[changed].astype(float) - before[changed]).mean(axis=0)
            for before, after in ((filmed[index], drawn[index]), (plain_filmed[index], plain_drawn[index]))
        )
        # What the dub changes of the face in the mean, red, green and blue, levels of 255.
        assert np.abs(change - wanted).max() < 6.0
