"""The claim of a video's manifest, made from the request, the models and the plan of the dub."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from gateway.consent.record import Consent, digest_of
from gateway.dub.analyse.frame_plan import FramePlan
from gateway.dub.request.dub_request import DubRequest, has_synthetic_voice, is_synthetic, what_is_synthetic
from gateway.media.types import MediaInfo
from gateway.provenance.claim import Claim, ModelFacts, Role, SourceFile, VideoWatermark
from gateway.provenance.watermark.embedding import Mark
from gateway.stages.opening import ListedModels
from services.common.methods import Method, method_named
from services.common.runs import runs


def video_claim(
    request: DubRequest,
    video: MediaInfo,
    plan: FramePlan,
    models: ListedModels,
    digests: Mapping[Path, str] = MappingProxyType({}),
    job: str = "",
) -> Claim:
    """Return what the manifest of a dub says, without the watermark.

    Args:
        video: video that is dubbed in place.
        plan: what happens to every frame of the video.
        digests: SHA-256 of files of the request, hexadecimal, as far as they are known.
        job: key of the job, SHA-256, hexadecimal.
    """
    method = method_named(request.method)
    rendered = plan.rendered()
    dubbed = bool(rendered.any())
    files: dict[Role, list[Path | None]] = {
        "footage": [request.footage],
        "speech": list(dict.fromkeys(part.speech for part in request.parts)),
        "reference": [request.reference],
        "mix": [request.mix.file if request.mix is not None else None],
    }
    voices = {part.speech: part.voice for part in request.parts}
    return Claim(
        version=version("dubstage-suite"),
        description=f"{what_is_synthetic(request, dubbed=dubbed)}.",
        synthetic=is_synthetic(request, dubbed=dubbed) or has_synthetic_voice(request),
        method=method.name,
        models=model_facts(method, models),
        num_frames=plan.num_frames,
        frame_rate=video.video.average_rate,
        dubbed=tuple(runs(rendered)),
        consents=_consents(request),
        job=job,
        scene=bool(request.lines),
        sources=tuple(
            SourceFile(role, file, digests.get(file, ""), number, voices.get(file) if role == "speech" else None)
            for role, some in files.items()
            for number, file in enumerate(some, 1)
            if file is not None
        ),
    )


def _digest(record: Consent | None) -> str:
    return digest_of(record) if record is not None else ""


def _consents(request: DubRequest) -> dict[str, str]:
    """Return the digests of the consent records of a dub. Those of the second person of a scene are `person-2` and `actor-2`."""
    people: dict[tuple[str, str], None] = {}
    for part in request.parts:
        own = part.own_consent if part.consent is not None else None
        people[_digest(part.named_consent), _digest(own)] = None
    digests: dict[str, str] = {}
    for number, records in enumerate((some for some in people if any(some)), 1):
        names = ("person", "actor") if number == 1 else (f"person-{number}", f"actor-{number}")
        digests |= {name: digest for name, digest in zip(names, records, strict=True) if digest}
    if request.reference_consent is not None:
        digests["reference"] = digest_of(request.reference_consent)
    return digests


def video_watermark(mark: Mark | None, *, dubbed: bool) -> VideoWatermark:
    """Return the watermark of a video.

    Args:
        mark: watermark of dubbed mouths; None: the setting is off.
        dubbed: whether any mouth of the video is dubbed.
    """
    return VideoWatermark(on=mark is not None, payload=str(mark.payload) if mark is not None and dubbed else "")


def model_facts(method: Method, models: ListedModels) -> tuple[ModelFacts, ...]:
    """Return what a manifest says of the models of a method."""
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
    return (*motion, *render)
