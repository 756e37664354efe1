"""Every motion predictor with every renderer: the table of docs/methods/README.md, pair by pair."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from gateway.media.probe import probe
from gateway.methods import METHODS, combined
from gateway.pipeline.dub import DubJob
from gateway.pipeline.dub_request import DubRequest
from gateway.pipeline.enrol import EnrolOptions
from gateway.settings import GatewaySettings
from gateway.stages.host import StageHost
from services.common.store.artefacts import ArtefactStore
from tests.system.dubbing import ROOT, UNPERSONALIZED, cut, decoded, write_wav
from tests.system.test_speech_lengths import demo_speech

PAIRS = tuple(product(METHODS, METHODS))
KEY_PICTURES = EnrolOptions(renderer_steps=1, personalize_motion=False)
"""For renderers that need an actor but no identity: personalisation chooses key pictures. Footage this short trains nothing."""
FOOTAGE_S = 1.05
SPEECH_S = 1.5


@pytest.fixture(scope="module")
def dubs() -> dict[tuple[str, str], bytes]:
    """The first luma plane of every pair's film, as pairs are dubbed."""
    return {}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("motion", "renderer"), PAIRS, ids=["+".join(pair) for pair in PAIRS])
def test_a_pair_dubs_every_frame(
    motion: str,
    renderer: str,
    carphone: Path,
    host: StageHost,
    settings: GatewaySettings,
    tmp_path: Path,
    dubs: dict[tuple[str, str], bytes],
) -> None:
    footage = cut(carphone, tmp_path / "footage.mkv", 0.0, FOOTAGE_S)
    speech = write_wav(tmp_path / "speech.wav", demo_speech(16000, SPEECH_S), 16000)
    output = tmp_path / "dub.nut"
    row = METHODS[renderer].renderer
    enrol = KEY_PICTURES if row.needs_actor and not row.needs_identity else UNPERSONALIZED
    request = DubRequest(footage=footage, speech=speech, output=output, method=combined(motion, motion, renderer), enrol=enrol)
    job = DubJob(request, host.stages, ArtefactStore(settings.artefacts_url), tmp_path / "jobs")
    outcome = host.run(job.run(lambda *_: None))
    assert outcome.plan.rendered().all()
    rate = probe(footage).video.average_rate
    expected = math.ceil(SPEECH_S * rate) if METHODS[motion].own_timeline else probe(footage).video.num_frames
    assert probe(output).video.num_frames == outcome.plan.num_frames == expected
    assert outcome.actor is not None
    assert (outcome.actor.identity is not None) is row.needs_identity
    # What was dubbed in place is there until the job's folder goes: the mouth is another one, in the same picture.
    pairs = list(zip(decoded(outcome.film.path), decoded(output), strict=True))
    changed = np.array([np.abs(before[0].astype(int) - after[0]).max() for before, after in pairs])
    touched = np.array([(before[0] != after[0]).mean() for before, after in pairs])
    assert changed.min() > 4
    assert touched.max() < 0.35
    job.discard()
    first = pairs[-1][1][0].tobytes()
    assert first not in dubs.values(), f"{motion}+{renderer} shows what another pair shows"
    dubs[motion, renderer] = first


def test_the_documented_table_has_every_pair() -> None:
    page = (ROOT / "docs" / "methods" / "README.md").read_text(encoding="utf-8")
    (head, *rows) = re.findall(r"^\| (?:motion \\ renderer|\*\*`\w+`\*\*) \|.*$", page, re.MULTILINE)
    assert re.findall(r"`(\w+)`", head) == list(METHODS)
    assert [re.findall(r"`(\w+)`", row)[0] for row in rows] == list(METHODS)
    assert all(len(row.strip("|").split("|")) == 1 + len(METHODS) for row in rows)
    assert all(f"]({name}.md)" in page for name in METHODS)
