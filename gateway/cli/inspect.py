"""`dubstage inspect`: what a film says of its making, whether that holds, and the watermark of this installation."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.cli.app import app
from gateway.cli.console import out, say, say_result
from gateway.cli.inspect_watermark import look_for_watermark, watermark_facts, watermark_lines
from gateway.cli.options import gateway_settings
from gateway.provenance.credential import certificates_in, serial_number_of
from gateway.provenance.facts import DubFacts
from gateway.provenance.opening import trusted_authorities
from gateway.provenance.verdict import State, Verdict, verdict_of

EXIT_INVALID: Final = 3
EXIT_NONE: Final = 4
EXIT_UNKNOWN: Final = 5
_EXITS: Final = {State.TRUSTED: 0, State.INVALID: EXIT_INVALID, State.NONE: EXIT_NONE, State.VALID: EXIT_UNKNOWN}
_HEADS: Final = {
    State.TRUSTED: "valid, and the signer is trusted",
    State.VALID: "valid, but the signer is unknown: neither this installation nor a trusted authority",
    State.INVALID: "NOT VALID",
    State.NONE: "none",
}
_OWN: Final = "valid, signed with a certificate of this installation"


@app.command("inspect")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Film, or a sidecar FILE.c2pa, whose film lies beside it.")],
    trust: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="PEM file with the certificates of trusted authorities. Default: the installation's own certificates.",
        ),
    ] = None,
    watermark: Annotated[
        bool,
        typer.Option(
            help="Look for the watermark of this installation in all faces of the film. This takes about as long as the first pass "
            "of a dub."
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print all as JSON.")] = False,
) -> None:
    """Print the content credentials (C2PA) of FILE, whether they hold, and the watermark of this installation.

    Exit code 0: the credentials are valid, and the signer is trusted. 3: the file or its manifest was changed. 4: the file has no
    manifest. 5: the credentials are valid, but the signer is unknown. The watermark does not change the exit code: without a
    manifest that is valid and fits, a watermark is a clue and no proof.
    """
    settings = gateway_settings()
    anchors = certificates_in(trust) if trust is not None else trusted_authorities(settings)
    verdict = verdict_of(file, anchors=anchors)
    trusted = verdict.state is State.TRUSTED
    own = trusted and trust is None and verdict.signer["cert_serial_number"] == serial_number_of(anchors)
    if as_json:
        dub = verdict.dub.model_dump() if verdict.dub is not None else None
        told = {**asdict(replace(verdict, dub=None)), "file": str(verdict.file), "dub": dub, "signed_here": own}
        if watermark:
            told["watermark"] = watermark_facts(look_for_watermark(verdict, settings))
        out.print_json(json.dumps(told))
    else:
        for line in lines(verdict, own=own):
            say_result(line)
        for reason in verdict.reasons:
            say(reason)
        if watermark:
            for line in watermark_lines(look_for_watermark(verdict, settings)):
                say_result(line)
    raise typer.Exit(_EXITS[verdict.state])


def lines(verdict: Verdict, *, own: bool) -> list[str]:
    """Return what a person reads of a verdict, one fact per line.

    Args:
        verdict: the verdict.
        own: whether the file is as it was signed, with the certificate of this installation.
    """
    head = _OWN if own else _HEADS[verdict.state]
    found = [f"content credentials: {head}"]
    if verdict.place:
        found.append(f"manifest: {verdict.place}")
    if verdict.signer:
        signer = verdict.signer
        how = f"{signer.get('alg', '?')}, {_dated(verdict)}"
        found.append(f"signed by: {signer.get('common_name', '?')}, {signer.get('issuer', '?')} ({how})")
    if verdict.generator:
        found.append(f"made with: {verdict.generator}")
    found += [f"action: {_joined(action, ('action', 'description', 'digital_source_type'))}" for action in verdict.actions]
    found += [f"made of: {_made_of(item, verdict.dub)}" for item in verdict.ingredients]
    if verdict.dub is not None:
        found += _dub_lines(verdict.dub)
    return [*found, f"sha256 without the manifest: {verdict.media_sha256}"]


def _dated(verdict: Verdict) -> str:
    if "time" not in verdict.signer:
        return "without a time stamp"
    trust = "" if verdict.time_is_trusted else ", time stamp of an authority that is not trusted"
    return f"{verdict.signer['time']}{trust}"


def _joined(facts: dict[str, str], keys: tuple[str, ...]) -> str:
    return "; ".join(facts[key] for key in keys if key in facts)


def _made_of(item: dict[str, Any], dub: DubFacts | None) -> str:
    digests = {str(source.role): source.sha256 for source in dub.sources} if dub is not None else {}
    words = [str(item["title"]) or "a file without a title"]
    if item["title"] in digests:
        words.append(f"sha256 {digests[item['title']]}")
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
        *(dubbed or ["dubbed: no frame"]),
        marked,
    ]
