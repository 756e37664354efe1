"""Every motion predictor with every renderer: the pairs of docs/methods/README.md."""

import math
import re
from collections.abc import Container
from dataclasses import dataclass, field, replace
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from gateway.dub.choices import EnrolOptions
from gateway.dub.job.dub_job import DubJob
from gateway.dub.job.outcome import DubOutcome
from gateway.dub.learn.enrol import EnrolledActor
from gateway.dub.request.dub_request import DubRequest
from gateway.media.probe import probe
from research.stage_host import StageHost
from services.common.methods import METHODS, RENDERERS, combined, method_named
from services.common.store.artefacts import ArtefactStore
from tests.system.dubbing import ROOT, UNPERSONALIZED, Dubber, cut, decoded, write_wav
from tests.system.test_speech_lengths import demo_speech

Pair = tuple[str, str]

PAIRS = tuple(product(METHODS, RENDERERS))
LEARNED = tuple(zip(METHODS, islice(cycle(RENDERERS), 1, None), strict=False))
"""Pairs that learn the person from the footage: each predictor once, and each renderer. What they learned of the person makes the
actors of the other pairs."""
KEY_PICTURES = EnrolOptions(renderer_steps=1, personalize_motion=False)
"""For renderers that need an actor but no identity: personalisation chooses key pictures. Footage this short trains nothing."""
LONG_S, SPEECH_S = 1.05, 1.5
"""Seconds of footage and of speech for pairs that learn the person."""
SHORT_S = 0.5
"""Seconds of footage and of speech for the other pairs: enough for a window with frames before and after."""

ALWAYS = {LEARNED[0], LEARNED[-1]}
"""Pairs that `make test` dubs."""
STILLS = tuple(
    pair for pair in PAIRS if combined(pair[0], *pair) not in METHODS and method_named(combined(pair[0], *pair)).takes_still
)


def chosen(pairs: tuple[Pair, ...], always: Container[Pair]) -> list[Any]:
    """Parameters of a test: pairs that are not in `always` are `long`."""
    return [pytest.param(*pair, id="+".join(pair), marks=[] if pair in always else pytest.mark.long) for pair in pairs]


@dataclass(frozen=True)
class Clip:
    """Footage and speech of a dub."""

    footage: Path
    speech: Path
    speech_s: float


@dataclass(frozen=True)
class Dubs:
    """Dubs of one short clip, each made once."""

    host: StageHost
    store: ArtefactStore
    folder: Path
    long: Clip
    short: Clip
    outcomes: dict[Pair, DubOutcome] = field(default_factory=dict)
    last_planes: dict[bytes, Pair] = field(default_factory=dict)

    def of(self, pair: Pair) -> DubOutcome:
        if pair not in self.outcomes:
            self.outcomes[pair] = self._dubbed(pair)
        return self.outcomes[pair]

    def output(self, pair: Pair) -> Path:
        return self.folder / f"{'+'.join(pair)}.nut"

    def clip(self, pair: Pair) -> Clip:
        """Files of a pair's dub. Backgrounds of a moving head are chosen from the long footage: fewer frames are refused."""
        if pair in LEARNED:
            return self.long
        return replace(self.short, footage=self.long.footage) if METHODS[pair[0]].own_timeline else self.short

    def actor(self, pair: Pair) -> EnrolledActor | None:
        """The actor of a pair; None: the pair learns the person itself."""
        if pair in LEARNED:
            return None
        (of_motion,) = (self.of(learned).actor for learned in LEARNED if learned[0] == pair[0])
        of_renderer = next(self.of(learned).actor for learned in LEARNED if learned[1] == pair[1])
        assert of_renderer is not None
        return replace(of_renderer, style=of_motion.style)

    def _dubbed(self, pair: Pair) -> DubOutcome:
        motion, renderer = pair
        row = METHODS[renderer].renderer
        request = DubRequest(
            footage=self.clip(pair).footage,
            speech=self.clip(pair).speech,
            output=self.output(pair),
            method=combined(motion, motion, renderer),
            actor=self.actor(pair),
            enrol=KEY_PICTURES if row.needs_actor and not row.needs_identity else UNPERSONALIZED,
        )
        # The jobs stay until the module ends: other pairs use what they learned.
        job = DubJob(request, self.host.stages, self.store, self.folder / "jobs")
        return self.host.run(job.run(lambda *_: None))


@pytest.fixture(scope="module")
def dubs(carphone: Path, host: StageHost, dubber: Dubber, tmp_path_factory: pytest.TempPathFactory) -> Dubs:
    folder = tmp_path_factory.mktemp("pairs")
    speech = demo_speech(16000, SPEECH_S)
    # In the silence at the beginning, all predictors shut the mouth alike.
    spoken = speech[-round(16000 * SHORT_S) :]
    long, short = (
        Clip(cut(carphone, folder / f"{name}.mkv", 0.0, seconds), write_wav(folder / f"{name}.wav", samples, 16000), heard_s)
        for name, seconds, samples, heard_s in (("long", LONG_S, speech, SPEECH_S), ("short", SHORT_S, spoken, SHORT_S))
    )
    return Dubs(host, dubber.store, folder, long, short)


@pytest.mark.parametrize(("motion", "renderer"), chosen(PAIRS, ALWAYS))
def test_a_pair_dubs_every_frame(motion: str, renderer: str, dubs: Dubs) -> None:
    outcome, output = dubs.of((motion, renderer)), dubs.output((motion, renderer))
    clip = dubs.clip((motion, renderer))
    assert outcome.plan.rendered().all()
    footage = probe(clip.footage).video
    expected = math.ceil(clip.speech_s * footage.average_rate) if METHODS[motion].own_timeline else footage.num_frames
    assert probe(output).video.num_frames == outcome.plan.num_frames == expected
    assert (outcome.actor.identity is not None) is METHODS[renderer].renderer.needs_identity
    # The background that was dubbed in place is there until the job's folder is removed: another mouth in the same picture.
    pairs = list(zip(decoded(outcome.video.path), decoded(output), strict=True))
    changed = np.array([np.abs(before[0].astype(int) - after[0]).max() for before, after in pairs])
    touched = np.array([(before[0] != after[0]).mean() for before, after in pairs])
    assert changed.min() > 4
    assert touched.max() < 0.35
    same = dubs.last_planes.setdefault(pairs[-1][1][0].tobytes(), (motion, renderer))
    assert same == (motion, renderer), f"{motion}+{renderer} shows what {'+'.join(same)} shows"


def test_each_part_learned_the_person_once() -> None:
    assert [motion for motion, _ in LEARNED] == list(METHODS)
    assert {renderer for _, renderer in LEARNED} == set(RENDERERS)


@pytest.mark.parametrize(("motion", "renderer"), chosen(STILLS, STILLS[:1]))
def test_picture_speaks_with_every_pair(motion: str, renderer: str, dubs: Dubs, dubber: Dubber, tmp_path: Path) -> None:
    """A picture speaks where the head moves and the face is known."""
    portrait = tmp_path / "astronaut.png"
    assert cv2.imwrite(str(portrait), astronaut()[:300, 60:400, ::-1])
    method = combined(motion, motion, renderer)
    clip = dubs.short
    outcome = dubber(DubRequest(footage=portrait, speech=clip.speech, output=tmp_path / "dub.mp4", method=method))
    assert outcome.plan.rendered().all()
    assert probe(tmp_path / "dub.mp4").video.num_frames == math.ceil(25 * clip.speech_s)


def test_documented_table_has_every_part() -> None:
    """The table of needs has a row for the predictor and the renderer of every method."""
    page = (ROOT / "docs" / "methods" / "README.md").read_text(encoding="utf-8")
    for part in ("motion", "renderer"):
        assert re.findall(rf"^\| {part} `(\w+)` \|", page, re.MULTILINE) == list(METHODS)
    assert all(f"]({name}.md)" in page for name in METHODS)
