"""Whose pixels a mouth shows: of two dubs that differ in the finish alone, only the mouths differ."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.dub.choices import EnrolOptions
from gateway.dub.request.dub_request import DubRequest
from gateway.media.probe import probe
from gateway.media.reader import VideoReader
from services.common.methods import Finish
from tests.system.dubbing import SPEECH, Dubber, cut, decoded
from tests.system.test_mask import reach_of

PERSONALIZED = EnrolOptions(personalize_motion=False, renderer_steps=2)


@pytest.mark.long
def test_finish_changes_mouths_only(clips: Any, dubber: Dubber, tmp_path: Path) -> None:
    """Outside the mask, both videos are the footage. Inside, the bank's finish gives other samples than the renderer's."""
    footage = cut(clips.path("video/vr_face5.mp4"), tmp_path / "footage.mp4", 0, 1.08)
    fields = {"footage": footage, "speech": SPEECH, "method": "dubstage+everybody", "codec": "ffv1"}
    requests = {finish: DubRequest(output=tmp_path / f"{finish}.mp4", finish=finish, **fields) for finish in Finish}
    dubs = {finish: dubber.with_faces(request, PERSONALIZED) for finish, request in requests.items()}
    dub, info = dubs[Finish.BANK], probe(footage)
    plan, actor = dub.outcome.plan, dub.outcome.actor
    assert actor is not None
    assert plan.rendered().mean() >= 0.98
    np.testing.assert_array_equal(plan.rendered(), dubs[Finish.RENDERER].outcome.plan.rendered())
    videos = [decoded(tmp_path / f"{finish}.mp4") for finish in Finish]
    with VideoReader(info) as reader:
        for frame, bank, renderer in zip(reader, *videos, strict=True):
            if not plan.rendered()[frame.index]:
                continue
            reach = reach_of(actor.geometry, dub.faces[plan.row[frame.index]], frame, info)
            for inside, *planes in zip(reach, frame.planes, bank, renderer, strict=True):
                for plane in planes[1:]:
                    np.testing.assert_array_equal(plane[~inside], planes[0][~inside])
            assert (bank[0] != renderer[0])[reach[0]].mean() > 0.05
