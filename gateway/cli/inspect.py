"""`dubstage inspect`: what a video says of its making, whether that holds, and the watermark of the video."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.cli.app import app, log_on_stderr
from gateway.cli.console import printable, say, say_json, say_result, wants_json
from gateway.cli.options import AsJson, gateway_settings
from gateway.cli.progress import StepProgress
from gateway.dub.analyse.watermark_reading import find_watermark
from gateway.media.inspection import inspect_video
from gateway.media.types import MediaInfo
from gateway.provenance.claim import DubFacts, SourceFacts
from gateway.provenance.credential import certificates_in, serial_number_of
from gateway.provenance.directory import CheckedEntry, SignedEntry, entries_of, read_directories
from gateway.provenance.disclosure import source_type_of
from gateway.provenance.installation import own_watermark_key, trusted_authorities
from gateway.provenance.verdict import ManifestState, Standing, Verdict, standing_of, verdict_of
from gateway.provenance.watermark.detection import FALSE_ALARM_LOG10, Finding
from gateway.provenance.watermark.payload import PUBLIC, WORD_BITS
from gateway.settings import GatewaySettings
from gateway.stages.opening import open_stage
from services.common.errors import MediaUnsupportedError
from services.common.texts import Text

_NO_FACE: Final = "no face is visible for a second or longer"
_STANDINGS: Final = {
    Standing.THIS_VIDEO: "of this video. It fits the signed manifest",
    Standing.FOOTAGE: "of the footage that this video was made from. It fits the footage's own manifest",
    Standing.ANOTHER_VIDEO: "of ANOTHER video of {whose}. It does not fit this manifest: the watermark or the manifest was "
    "copied, or the footage already had the watermark",
    Standing.REFUSED: "REFUSED. It names this installation, but lacks the part that only this installation can write: it was "
    "copied, forged or damaged, or another installation has the same 12 bits",
    Standing.CLUE: "of {whose}. This is a clue, no proof: {reason}",
}
_WHY_A_CLUE: Final = {
    ManifestState.TRUSTED: "the manifest names no watermark",
    ManifestState.VALID: "the signer of the manifest is unknown",
    ManifestState.INVALID: "the manifest is not valid",
    ManifestState.NONE: "no manifest confirms it, and watermarks can be copied from video to video",
}
EXIT_INVALID: Final = 3
EXIT_NONE: Final = 4
EXIT_UNKNOWN: Final = 5
_EXITS: Final = {
    ManifestState.TRUSTED: 0,
    ManifestState.INVALID: EXIT_INVALID,
    ManifestState.NONE: EXIT_NONE,
    ManifestState.VALID: EXIT_UNKNOWN,
}
_HEADS: Final = {
    ManifestState.TRUSTED: "valid, and the signer is trusted",
    ManifestState.VALID: "valid, but the signer is unknown: neither this installation nor a trusted authority",
    ManifestState.INVALID: "NOT VALID",
    ManifestState.NONE: "none",
}
_OWN: Final = "valid, signed with a certificate of this installation"


@dataclass(frozen=True, slots=True)
class WatermarkResult:
    """The likeliest watermark in a video.

    Attributes:
        standing: what the watermark proves beside the video's manifest; None: no watermark was found.
        state: whether the video's manifest holds.
        entries: entries of the given directories about the installation that the watermark names.
        has_key: whether the watermarks of this installation were looked for too.
    """

    finding: Finding
    standing: Standing | None
    state: ManifestState
    entries: tuple[CheckedEntry, ...] = ()
    has_key: bool = True


def search_for_watermark(
    verdict: Verdict, settings: GatewaySettings, *, directory: Sequence[SignedEntry] = (), anchors: bytes = b""
) -> WatermarkResult | str:
    """Return the likeliest watermark in a video, or why there is none to look at. Blocks.

    Without a key of this installation, only public watermarks are looked for.

    Args:
        verdict: what the video's manifest says, and whether it holds.
        settings: settings of the installation.
        directory: entries of installations.
        anchors: certificates, PEM, of the authorities that are trusted; empty: none.

    Raises:
        DubstageError: from the face stage, or the installation's key cannot be read.
    """
    key = own_watermark_key(settings)
    try:
        info = inspect_video(verdict.file)
    except MediaUnsupportedError as problem:
        return Text("{problem}", problem=problem)
    finding = asyncio.run(_search(info, key, settings))
    if finding is None:
        return _NO_FACE
    standing = standing_of(finding, key, verdict) if finding.found else None
    entries = entries_of(directory, finding.payload.name, anchors) if finding.found and finding.version == PUBLIC else []
    return WatermarkResult(finding, standing, verdict.state, tuple(entries), key is not None)


async def _search(info: MediaInfo, key: bytes | None, settings: GatewaySettings) -> Finding | None:
    total = info.video.num_frames
    with StepProgress() as progress:
        progress.begin("start")
        async with open_stage(settings, "face") as stages:
            return await find_watermark(
                stages,
                info,
                key,
                threads=settings.compute_threads,
                on_frame=lambda done: progress("watermark", done, total),
            )


def watermark_lines(answer: WatermarkResult | str) -> list[str]:
    """Return what a person reads of the search for a watermark, one fact per line."""
    if isinstance(answer, str):
        return [f"watermark: not searched, because {answer}"]
    finding = answer.finding
    if answer.standing is None:
        own = "neither a public one nor one of this installation" if answer.has_key else "no public one"
        return [f"watermark: none found, {own}", f"certainty: {_chance(finding)}"]
    spans = [f"watermarked: {begin:.1f} s to {end:.1f} s" for begin, end in finding.spans]
    if not finding.right:
        weak = "watermark: of dubstage, but too weak to be read. This is a clue, no proof"
        return [weak, f"certainty: {_chance(finding)}", *spans]
    whose = "this installation" if finding.own else f"installation {finding.payload.name}"
    words = _STANDINGS[answer.standing].format(whose=whose, reason=_reason(answer))
    certainty = f"certainty: {finding.agreeing} of {WORD_BITS} bits were read without an error; {_chance(finding)}"
    return [f"watermark: {finding.payload}, {words}", certainty, *spans, *_entry_lines(answer)]


def _reason(answer: WatermarkResult) -> str:
    """Return why a mark is no proof."""
    if answer.finding.own or answer.state is not ManifestState.NONE:
        return _WHY_A_CLUE[answer.state]
    return "no manifest confirms it, anybody can write a public watermark, and only that installation can confirm it"


def _entry_lines(answer: WatermarkResult) -> list[str]:
    finding = answer.finding
    if finding.own or finding.version != PUBLIC:
        return []
    if not answer.entries:
        return [f"installation {finding.payload.name}: no directory names it (give directories with --directory)"]
    lines = []
    for checked in answer.entries:
        entry = checked.entry
        words = f"{entry.name}, {entry.contact}; entry signed by {checked.signer or '?'}: {_HEADS[checked.state]}"
        lines.append(f"installation {entry.installation}: {printable(words)}")
    return lines


def watermark_facts(answer: WatermarkResult | str) -> dict[str, Any]:
    """Return the answer for JSON. Bits are given before error correction."""
    if isinstance(answer, str):
        return {"found": False, "standing": None, "reason": answer}
    finding = answer.finding
    readable = finding.found and finding.right
    entries = [{**checked.entry.model_dump(), "state": checked.state, "signer": checked.signer} for checked in answer.entries]
    return {
        "found": finding.found,
        "standing": answer.standing,
        "payload": str(finding.payload) if readable else None,
        "installation": finding.payload.name if readable else None,
        "own": finding.own if readable else None,
        "confirmed": finding.confirmed if readable and finding.own else None,
        "directory": entries,
        "version": finding.version if readable else None,
        "bits": "".join("1" if value > 0 else "0" for value in finding.soft) if finding.found else None,
        "bits_right": finding.agreeing if readable else None,
        "log10_false_alarm": round(finding.log10_chance, 2),
        "log10_limit": FALSE_ALARM_LOG10,
        "spans_s": [list(span) for span in finding.spans] if finding.found else [],
    }


def _chance(finding: Finding) -> str:
    if finding.log10_chance > -1.0:
        return f"{100 * 10**finding.log10_chance:.0f} % of videos without a watermark show as much by chance"
    return f"1 of 10^{-finding.log10_chance:.0f} videos without a watermark shows as much by chance"


@app.command("inspect")
@log_on_stderr()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Video, or a sidecar FILE.c2pa, whose video lies beside it.")],
    trust: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="PEM file with the certificates of trusted authorities. Default: the installation's own certificates.",
        ),
    ] = None,
    directory: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="File with signed entries of installations (`dubstage watermark publish`): names the installation of a watermark. "
            "May be given several times.",
        ),
    ] = None,
    watermark: Annotated[
        bool,
        typer.Option(
            help="Look for watermarks in all faces of the video: public ones, and those of this installation. This takes about as "
            "long as the first pass of a dub."
        ),
    ] = True,
    _: AsJson = False,
) -> None:
    """Print the content credentials (C2PA) of FILE, whether they hold, and the watermark of the video.

    Anybody can check a video: public watermarks of dubstage need no key.

    Exit code 0: the credentials are valid, and the signer is trusted. 3: the file or its manifest was changed. 4: the file has no
    manifest. 5: the credentials are valid, but the signer is unknown. The watermark does not change the exit code: without a
    manifest that is valid and fits, a watermark is a clue and no proof.
    """
    settings = gateway_settings()
    anchors = certificates_in(trust) if trust is not None else trusted_authorities(settings)
    entries = read_directories(directory or ())
    verdict = verdict_of(file, anchors=anchors)
    trusted = verdict.state is ManifestState.TRUSTED
    own = trusted and trust is None and verdict.signer["cert_serial_number"] == serial_number_of(anchors)
    source_type = source_type_of(verdict.file)
    if wants_json():
        dub = verdict.dub.model_dump() if verdict.dub is not None else None
        decision = verdict.decision.model_dump() if verdict.decision is not None else None
        facts = asdict(replace(verdict, dub=None, decision=None))
        document = {**facts, "file": str(verdict.file), "dub": dub, "decision": decision, "signed_here": own}
        document["digital_source_type"] = source_type
        if watermark:
            document["watermark"] = watermark_facts(search_for_watermark(verdict, settings, directory=entries, anchors=anchors))
        say_json(document)
    else:
        for line in lines(verdict, own=own, source_type=source_type):
            say_result(line)
        for reason in verdict.reasons:
            say(reason)
        if watermark:
            for line in watermark_lines(search_for_watermark(verdict, settings, directory=entries, anchors=anchors)):
                say_result(line)
    raise typer.Exit(_EXITS[verdict.state])


def lines(verdict: Verdict, *, own: bool, source_type: str) -> list[str]:
    """Return what a person reads of a verdict, one fact per line.

    Args:
        own: whether the file is as it was signed, with the certificate of this installation.
        source_type: digital source type that the metadata state; empty: none.
    """
    head = _OWN if own else _HEADS[verdict.state]
    texts = [f"content credentials: {head}"]
    if verdict.place:
        texts.append(f"manifest: {verdict.place}")
    if verdict.signer:
        signer = verdict.signer
        how = f"{signer.get('alg', '?')}, {_dated(verdict)}"
        texts.append(f"signed by: {signer.get('common_name', '?')}, {signer.get('issuer', '?')} ({how})")
    if verdict.generator:
        texts.append(f"made with: {verdict.generator}")
    texts += [f"action: {_joined(action, ('action', 'description', 'digital_source_type'))}" for action in verdict.actions]
    texts += [f"made of: {_ingredient_text(item, verdict.dub)}" for item in verdict.ingredients]
    if verdict.decision is not None:
        said = verdict.decision
        by, note = f" by {said.reviewer}" if said.reviewer else "", f": {printable(said.note)}" if said.note else ""
        texts.append(f"decision: {said.state}{printable(by)}, {printable(said.decided_at)}{note}")
        texts.append(f"reviewed video: sha256 {said.video_sha256}")
    if verdict.dub is not None:
        texts += _dub_lines(verdict.dub)
    texts.append(f"digital source type in the metadata: {printable(source_type) or 'none'}")
    return [*texts, f"sha256 without the manifest: {verdict.media_sha256}"]


def _dated(verdict: Verdict) -> str:
    if "time" not in verdict.signer:
        return "without a time stamp"
    trust = "" if verdict.time_is_trusted else ", time stamp of an authority that is not trusted"
    return f"{verdict.signer['time']}{trust}"


def _joined(facts: dict[str, str], keys: tuple[str, ...]) -> str:
    return "; ".join(facts[key] for key in keys if key in facts)


def _ingredient_text(item: dict[str, Any], dub: DubFacts | None) -> str:
    sources: dict[str, SourceFacts] = {}
    for source in dub.sources if dub is not None else ():
        number = 1 + sum(name.partition("-")[0] == source.role for name in sources)
        sources[source.role if number == 1 else f"{source.role}-{number}"] = source
    words = [str(item["title"]) or "a file without a title"]
    if (facts := sources.get(item["title"])) is not None:
        words += [printable(str(facts.voice))] if facts.voice is not None else []
        words.append(f"sha256 {facts.sha256}")
    if item["has_manifest"]:
        words.append("its own credentials were valid" if item["valid"] else "its own credentials were NOT VALID")
    else:
        words.append("no credentials of its own")
    return ", ".join(words)


def _dub_lines(dub: DubFacts) -> list[str]:
    rate = Fraction(dub.frame_rate)
    models = [f"model: {model.stage} {model.name} {model.version}" for model in dub.models]
    consents = [f"consent of the {who}: record with sha256 {digest}" for who, digest in dub.consent_sha256.items()]
    dubbed = [
        f"dubbed: frames {begin} to {end - 1}, {float(begin / rate):.2f} s to {float(end / rate):.2f} s"
        for begin, end in dub.dubbed
    ]
    marked = f"watermark of the dub: {dub.watermark or 'none'}"
    return [
        f"method: {dub.method}",
        *models,
        *(consents or ["consent: none on record"]),
        *(dubbed or ["dubbed: frames of a live stream" if dub.stream and not dub.frames else "dubbed: no frame"]),
        marked,
    ]
