"""Content credentials of a file, whether they hold, and how a watermark fits them.

Manifests are read in a separate process with bounds on memory and time: a few bytes of a manifest can claim gigabytes. A watermark
alone is a clue, because marks can be copied between videos.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from gateway.provenance.binding import SIDECAR, media_sha256, media_type_of, padding_is_empty, read_sidecar, sidecar_of
from gateway.provenance.c2pa_process import MEMORY_BYTES, limit_s, run_c2pa
from gateway.provenance.claim import DECISION_LABEL, DUB_LABEL, DecisionFacts, DubFacts
from gateway.provenance.library import LibraryError
from gateway.provenance.watermark.detection import Finding
from gateway.provenance.watermark.payload import PUBLIC, Payload
from gateway.safe_paths import open_media_file
from services.common.errors import InvalidRequestError

_BASE_S: Final = 60.0
_UNTRUSTED: Final = "signingCredential.untrusted"
_TIME_TRUSTED: Final = "timeStamp.trusted"
_WORDS: Final = {
    "assertion.bmffHash.mismatch": "the video was changed after it was signed",
    "assertion.dataHash.mismatch": "the file was changed after it was signed",
    "assertion.boxesHash.mismatch": "the file was changed after it was signed",
    "assertion.hashedURI.mismatch": "the manifest was changed after it was signed",
    "claimSignature.mismatch": "the signature does not fit the manifest",
    "signingCredential.expired": "the signer's certificate was not valid at the time of the signature, or no trusted authority "
    "vouches for that time",
}
_Facts = TypeVar("_Facts", DubFacts, DecisionFacts)


@dataclass(frozen=True, slots=True)
class FoundManifest:
    """The manifests of a video.

    Attributes:
        report: answer of c2pa about them, as `gateway.provenance.library.read` returns it; None: the video has none.
        place: `embedded`, `sidecar`, or empty.
    """

    report: dict[str, Any] | None
    place: str


def read_credentials(video: int, media_type: str | None, *, sidecar: bytes = b"", anchors: bytes = b"") -> FoundManifest:
    """Return what c2pa says of the manifest in a video, or of the one beside the video if there is none inside. Blocks.

    Args:
        video: descriptor of the video.
        media_type: type of the video; None: the manifest in the video is not looked for.
        sidecar: manifest that lies beside the video; empty: there is none.
        anchors: certificates, PEM, of the authorities that are trusted; empty: none.

    Raises:
        LibraryError: the manifest cannot be read, or reading it takes too much memory or time.
    """
    request = {"video": video, "media_type": media_type, "anchors": anchors.decode("ascii", "replace")}
    longest_s = limit_s(_BASE_S, [video])
    try:
        done = run_c2pa("read", json.dumps(request).encode() + b"\n" + sidecar, [video], limit_s=longest_s)
    except TimeoutExpired:
        raise LibraryError(f"reading it takes more than {longest_s:.0f} s") from None
    if done.returncode != 0:
        raise LibraryError(
            f"reading it takes more than {MEMORY_BYTES >> 20} MiB of memory, or crashes c2pa; the process that read it ended with "
            f"status {done.returncode}"
        )
    answer = json.loads(done.stdout)
    if "refused" in answer:
        raise LibraryError(answer["refused"])
    return FoundManifest(answer["report"], answer["place"])


class ManifestState(StrEnum):
    """State of content credentials."""

    TRUSTED = "trusted"
    """The file is as it was signed, and a trusted authority vouches for the signer."""
    VALID = "valid"
    """The file is as it was signed. No trusted authority vouches for the signer."""
    INVALID = "invalid"
    """The file or the manifest was changed, or the manifest cannot be read."""
    NONE = "none"
    """The file has no manifest."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Content credentials of a file, and whether they hold. An invalid manifest proves nothing.

    Attributes:
        state: whether the content credentials hold.
        reasons: why not, or why they are not trusted, in words.
        place: where the manifest is: `embedded`, `sidecar`, or empty.
        signer: common name and organisation of the signer's certificate, the algorithm, the serial number, and the time of the time
            stamp, as c2pa names them; empty without a manifest.
        time_is_trusted: whether the manifest has a time, and a trusted authority vouches for the time.
        generator: program that made the manifest, with its version, such as `dubstage 0.1.0`.
        actions: actions of the manifest: `action`, and where given `description` and `digital_source_type`.
        ingredients: files that the file was made of: `title`, `relationship`, `has_manifest`, `valid` where there is a
            manifest, and `dub` where the manifest says what a dub says (fields of DubFacts).
        earlier_dubs: what the valid manifests of the ingredients' own ingredients say of dubs (fields of DubFacts).
        dub: what dubstage says of the dub, for a delivered video what the valid manifest of the reviewed video says; None: nothing
            that dubstage could have written.
        decision: decision about the video that was delivered; None: the video was not delivered.
        media_sha256: SHA-256 of the file without an embedded manifest, hexadecimal.
    """

    file: Path
    state: ManifestState
    reasons: tuple[str, ...]
    place: str
    media_sha256: str
    signer: dict[str, str] = field(default_factory=dict)
    time_is_trusted: bool = False
    generator: str = ""
    actions: tuple[dict[str, str], ...] = ()
    ingredients: tuple[dict[str, Any], ...] = ()
    earlier_dubs: tuple[dict[str, Any], ...] = ()
    dub: DubFacts | None = None
    decision: DecisionFacts | None = None


def verdict_of(file: Path, *, anchors: bytes = b"") -> Verdict:
    """Return what the content credentials of a file say. Blocks while the whole file is read.

    Args:
        file: a video or another file; or a sidecar, whose video lies beside it.
        anchors: certificates, PEM, of the authorities that are trusted; empty: none.

    Raises:
        MediaUnsupportedError: the file is missing, no regular file, empty, or may not be read.
        InvalidRequestError: the file is a sidecar, and there is no video beside it, or the sidecar is no manifest.
    """
    video, sidecar = _video_and_sidecar(file)
    digest = media_sha256(video)
    with open_media_file(video, field="file") as handle:
        try:
            credentials = read_credentials(
                handle, media_type_of(video) if video == file else None, sidecar=sidecar, anchors=anchors
            )
        except LibraryError as problem:
            place = "sidecar" if sidecar else "embedded"
            return Verdict(video, ManifestState.INVALID, (f"the manifest cannot be read: {problem}",), place, digest)
        with open(handle, "rb", closefd=False) as content:
            clean = padding_is_empty(content)
    if credentials.report is None:
        return Verdict(video, ManifestState.NONE, ("the file has no content credentials",), "", digest)
    if credentials.place == "embedded" and not clean:
        return Verdict(
            video,
            ManifestState.INVALID,
            ("the bytes behind the manifest were changed after the video was signed",),
            credentials.place,
            digest,
        )
    return _verdict(video, credentials.report, credentials.place, digest)


def _video_and_sidecar(file: Path) -> tuple[Path, bytes]:
    """Return the video, and the manifest that lies beside it; empty: there is none."""
    if file.suffix != SIDECAR:
        return file, read_sidecar(sidecar_of(file))
    video = file.with_suffix("")
    if not video.is_file():
        raise InvalidRequestError(
            f"{file} is a manifest, and its video {video.name} is not beside it; give the path of the video", field="file"
        )
    manifest = read_sidecar(file)
    if not manifest:
        raise InvalidRequestError(f"{file} is no C2PA manifest, or may not be read", field="file")
    return video, manifest


def state_of(report: dict[str, Any]) -> ManifestState:
    """Return the state of content credentials in an answer of c2pa."""
    states = {"Trusted": ManifestState.TRUSTED, "Valid": ManifestState.VALID}
    return states.get(report.get("validation_state", ""), ManifestState.INVALID)


def _verdict(video: Path, report: dict[str, Any], place: str, digest: str) -> Verdict:
    manifests = report.get("manifests", {})
    active = manifests.get(report.get("active_manifest"), {})
    results = report.get("validation_results", {}).get("activeManifest", {})
    failures = results.get("failure", [])
    failed = [*failures, *_failures_of_ingredients(report)]
    assertions = {assertion["label"]: assertion.get("data") for assertion in active.get("assertions", ())}
    actions = next((data for label, data in assertions.items() if label.startswith("c2pa.actions")), None) or {}
    ingredients = tuple(_ingredient(item, manifests) for item in active.get("ingredients", ()))
    decision = _said(active, DECISION_LABEL, DecisionFacts)
    return Verdict(
        file=video,
        state=state_of(report),
        reasons=tuple(dict.fromkeys(_words(failure) for failure in failed)),
        place=place,
        media_sha256=digest,
        signer={key: str(value) for key, value in active.get("signature_info", {}).items() if value},
        time_is_trusted=any(success.get("code") == _TIME_TRUSTED for success in results.get("success", ())),
        generator=_generator(active),
        actions=tuple(_action(action) for action in actions.get("actions", ())),
        ingredients=ingredients,
        earlier_dubs=tuple(_earlier_dubs(active, manifests)),
        dub=_said(active, DUB_LABEL, DubFacts) if decision is None else _reviewed_dub(ingredients),
        decision=decision,
    )


def _said(manifest: dict[str, Any], label: str, kind: type[_Facts]) -> _Facts | None:
    """Return an assertion of dubstage's own in a manifest; None: nothing that dubstage could have written."""
    data = next((each.get("data") for each in manifest.get("assertions", ()) if each["label"] == label), None)
    try:
        return kind.model_validate(data)
    except ValidationError:
        return None


def _reviewed_dub(ingredients: Sequence[dict[str, Any]]) -> DubFacts | None:
    """Return what the valid manifest of a reviewed video says of the dub."""
    dubs = (item["dub"] for item in ingredients if item["relationship"] == "parentOf" and item.get("valid") and "dub" in item)
    return next(map(DubFacts.model_validate, dubs), None)


def _failures_of_ingredients(report: dict[str, Any]) -> list[dict[str, str]]:
    deltas = report.get("validation_results", {}).get("ingredientDeltas") or []
    return [failure for delta in deltas for failure in delta.get("validationDeltas", {}).get("failure", [])]


def _words(failure: dict[str, str]) -> str:
    code = failure.get("code", "")
    if code == _UNTRUSTED:
        return "no trusted authority vouches for the signer"
    return f"{_WORDS.get(code) or failure.get('explanation') or 'the manifest is invalid'} ({code})"


def _generator(active: dict[str, Any]) -> str:
    infos = active.get("claim_generator_info") or [{}]
    return " ".join(str(infos[0].get(key, "")) for key in ("name", "version")).strip() or str(active.get("claim_generator", ""))


def _action(action: dict[str, Any]) -> dict[str, str]:
    fields = {
        "action": action.get("action"),
        "description": action.get("description"),
        "digital_source_type": str(action.get("digitalSourceType") or "").rpartition("/")[2],
    }
    return {key: str(value) for key, value in fields.items() if value}


def _ingredient(item: dict[str, Any], manifests: dict[str, Any]) -> dict[str, Any]:
    has_manifest = "active_manifest" in item
    facts = {"title": item.get("title", ""), "relationship": item.get("relationship", ""), "has_manifest": has_manifest}
    if has_manifest:
        facts["valid"] = _is_valid(item)
        dub = _said(manifests.get(item["active_manifest"], {}), DUB_LABEL, DubFacts)
        if dub is not None:
            facts["dub"] = dub.model_dump(exclude_unset=True)
    return facts


def _is_valid(item: dict[str, Any]) -> bool:
    failures = item.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    return all(failure.get("code") == _UNTRUSTED for failure in failures)


def _earlier_dubs(active: dict[str, Any], manifests: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the dubs that further manifests describe, beyond the manifests of the ingredients.

    The manifest of a delivered video describes the decision. The manifest of the decided video, one further, describes the dub.
    Manifests behind an invalid one are left out.
    """
    waiting = _valid_manifests(active)
    seen = set(waiting)
    while waiting:
        for label in _valid_manifests(manifests.get(waiting.pop(), {})):
            if label in seen:  # a hostile manifest may name itself
                continue
            seen.add(label)
            waiting.append(label)
            dub = _said(manifests.get(label, {}), DUB_LABEL, DubFacts)
            if dub is not None:
                yield dub.model_dump(exclude_unset=True)


def _valid_manifests(manifest: dict[str, Any]) -> list[str]:
    """Return the labels of the valid manifests of a manifest's ingredients."""
    return [item["active_manifest"] for item in manifest.get("ingredients", ()) if "active_manifest" in item and _is_valid(item)]


class Standing(StrEnum):
    """Relation of a watermark and a manifest."""

    THIS_VIDEO = "this_video"
    """The manifest is valid, its signer is trusted, and the mark belongs to what the manifest says."""
    FOOTAGE = "footage"
    """The manifest is valid and trusted, and the mark belongs to the manifest of a source: a dub was dubbed again or edited."""
    ANOTHER_VIDEO = "another_video"
    """The mark does not belong to what the manifest says: the mark was copied, the manifest was, or the footage had a mark."""
    REFUSED = "refused"
    """The mark names this installation, and the chips that only this installation can write are missing."""
    CLUE = "clue"
    """No manifest that is valid and has a trusted signer speaks of a mark, or the mark is too weak to be read."""


def standing_of(finding: Finding, key: bytes | None, verdict: Verdict) -> Standing:
    """Return how a mark that was found and the manifest of the video fit each other.

    Args:
        finding: mark that was found.
        key: key of the watermarks of this installation, 32 bytes; None: it has none.
        verdict: what the video's manifest says, and whether it holds.
    """
    if finding.version == 0:
        return Standing.CLUE
    of_ingredients = [item["dub"] for item in verdict.ingredients if item.get("valid") and "dub" in item]
    sources = [DubFacts.model_validate(said) for said in (*of_ingredients, *verdict.earlier_dubs)]
    of_video = verdict.dub is not None and _belong(finding, key, verdict.dub)
    of_footage = any(_belong(finding, key, source) for source in sources)
    if (of_video or of_footage) and verdict.state is ManifestState.TRUSTED:
        return Standing.THIS_VIDEO if of_video else Standing.FOOTAGE
    if finding.own and not finding.confirmed:
        return Standing.REFUSED
    if of_video or of_footage:
        return Standing.CLUE
    # A recording of a gateway's live stream does not know the mark of the stream.
    speaks = verdict.dub is not None and (verdict.dub.job or verdict.dub.watermark)
    return Standing.ANOTHER_VIDEO if speaks else Standing.CLUE


def _belong(finding: Finding, key: bytes | None, facts: DubFacts) -> bool:
    """Return whether a mark belongs to what a manifest says.

    Of a mark of another installation, only the digits can be compared.
    """
    if str(finding.payload) != facts.watermark:
        return False
    if key is None or not finding.own:
        return True
    return finding.payload == Payload.of_video(key, facts.statement, public=finding.version == PUBLIC)
