"""What the manifest of a dub says: from the request, the models and the plan to the claim of the film."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from gateway.consent.record import digest_of
from gateway.media.types import MediaInfo
from gateway.methods import method_named
from gateway.pipeline.dub_request import DubRequest, what_is_synthetic
from gateway.pipeline.plan import Plan
from gateway.provenance.claim import Claim, Source
from gateway.provenance.facts import ModelFacts
from gateway.stages.method_check import Listed
from services.common.array_types import Bool


def film_claim(request: DubRequest, film: MediaInfo, plan: Plan, models: Listed) -> Claim:
    """Return what the manifest of a dub says.

    Args:
        request: the dub request.
        film: film that is dubbed in place.
        plan: what happens to every frame of the film.
        models: models of the stages.
    """
    method = method_named(request.method)
    rendered = plan.rendered()
    dubbed = bool(rendered.any())
    motion = [
        ModelFacts(stage="motion", name=model.name, version=model.version)
        for model in models.motion.models
        if model.name == method.motion.name
    ]
    render = [
        ModelFacts(stage="render", name=model.name, version=model.sha256)
        for model in models.render.models
        if model.name == method.renderer.name
    ]
    sources = [Source("footage", request.footage)]
    if request.speech is not None:
        sources.append(Source("speech", request.speech))
    if request.reference is not None:
        sources.append(Source("reference", request.reference))
    records = {"person": request.consent, "reference": request.reference_consent}
    return Claim(
        version=version("dubstage-suite"),
        description=f"{what_is_synthetic(request, dubbed=dubbed)}.",
        synthetic=dubbed or method.motion.moves_head,
        method=method.name,
        models=(*motion, *render),
        num_frames=plan.num_frames,
        frame_rate=film.video.average_rate,
        dubbed=spans(rendered),
        consents={who: digest_of(record) for who, record in records.items() if record is not None},
        sources=tuple(sources),
    )


def spans(chosen: Bool) -> tuple[range, ...]:
    """Return the unbroken runs of chosen frames, in order.

    Args:
        chosen: bool [T].
    """
    steps = np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8))
    begins, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return tuple(range(int(begin), int(end)) for begin, end in zip(begins, ends, strict=True))
