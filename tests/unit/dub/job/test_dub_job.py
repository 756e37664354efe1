"""Facts of a dub that its request and its footage decide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.dub.choices import EnrolOptions
from gateway.dub.job.dub_job import trains_networks
from gateway.dub.request.dub_request import DubRequest
from gateway.media.probe import probe
from tests.unit.media.made_footage import make_clip


@pytest.mark.parametrize(
    ("options", "trains"),
    [
        ({}, True),
        ({"preview": True}, False),
        ({"enrol": EnrolOptions(personalize_renderer=False)}, True),
        ({"enrol": EnrolOptions(personalize_renderer=False, personalize_motion=False)}, False),
    ],
)
def test_picture_trains_no_network(options: dict[str, object], trains: bool, astronaut: Path, tmp_path: Path) -> None:
    """A single picture trains no network, whatever the options are; footage does unless the options say no."""
    clip = make_clip(tmp_path / "clip.mp4")
    request = replace(DubRequest(footage=clip, speech=None, output=tmp_path / "out.mp4", method="headpose"), **options)  # type: ignore[arg-type]
    assert trains_networks(request, probe(clip)) is trains
    assert not trains_networks(replace(request, footage=astronaut), probe(astronaut))
