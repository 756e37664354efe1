"""Delivers the approved videos of a batch: copies with the same streams, whose manifests repeat the decisions.

An image sequence is delivered as a folder with its files and their signed list. Copies can be registered with an asset manager.

A decision comes after a video was signed. So the copy gets a manifest of its own: the reviewed video with its manifest is the
parent, and an assertion has the decision (`gateway.provenance.claim.DecisionFacts`).
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Final

from gateway.batch.assets import AssetFile, resolve_references
from gateway.batch.reviews import Decision, ReviewState
from gateway.batch.types import WRITTEN, ShotRecord, ShotSpec
from gateway.dub.request.dub_request import sha256_of
from gateway.dub.request.spec_text import actor_of
from gateway.media.locations import is_url, local_path
from gateway.media.mp4 import boxes_of, copy_with_padding
from gateway.media.output import OutputFile, commit_with
from gateway.media.sequence_names import LISTING_SUFFIX
from gateway.media.sequences import copy_sequence, listed_frames, sequence_fault
from gateway.provenance.binding import is_manifest
from gateway.provenance.claim import DecisionFacts, DeliveryClaim, SourceFile
from gateway.provenance.seal import Sealer, VideoSeal
from gateway.provenance.verdict import ManifestState, verdict_of
from gateway.safe_paths import make_folder, open_media_file, path_below
from gateway.transfer import fetched_with_manifest, folder_error
from services.common.errors import ArtefactNotFoundError, InvalidRequestError, MediaUnsupportedError
from services.common.texts import Option, Text

MAX_FETCHED_BYTES: Final = 1 << 40
"""Largest video that is copied from a URL, bytes."""
CHANGED: Final = "its video has changed since the decision: look at the video again"
MISSING: Final = "its video is missing: dub the shot again"


@dataclass(frozen=True, slots=True)
class Approved:
    """A shot that can be delivered."""

    record: ShotRecord
    decision: Decision

    @property
    def name(self) -> str:
        """Name of the delivered file."""
        return delivered_name(self.record)


def delivered_name(record: ShotRecord) -> str:
    """Return the name of the delivered file of a shot: the id of the shot with the ending of its video.

    The list of an image sequence keeps its name, in a folder with the name of the shot.
    """
    video = PurePosixPath(record.output)
    return f"{record.id}/{video.name}" if video.suffix == LISTING_SUFFIX else f"{record.id}{video.suffix}"


def approved_of(
    records: Sequence[ShotRecord], present: Mapping[str, Decision], last: Mapping[str, Decision]
) -> tuple[list[Approved], dict[str, str]]:
    """Return the shots whose present video is approved, and why each other shot is not delivered, by id.

    Args:
        records: records of all shots.
        present: decisions about the present videos, by id of the shot.
        last: last decision about each shot that has one, by id; it may be about an earlier video.
    """
    approved, left = [], {}
    for record in records:
        decision = present.get(record.id)
        if record.state not in WRITTEN:
            left[record.id] = f"it is {record.state}"
        elif decision is not None and decision.state is ReviewState.APPROVED:
            approved.append(Approved(record, decision))
        elif decision is not None:
            left[record.id] = f"it is {decision.state}"
        else:
            left[record.id] = CHANGED if record.id in last else "it is undecided"
    return approved, left


@dataclass(frozen=True, slots=True)
class Delivery:
    """Result of a delivery, also of one that an error ends.

    Attributes:
        files: the delivered files in the order of the shots, by id.
        left: why each other shot was not delivered, by id.
        warnings: warnings about the manifests of the files, by id.
    """

    files: dict[str, Path] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)


def undeliverable(shots: Sequence[Approved]) -> dict[str, str]:
    """Return why approved shots cannot be delivered: their videos are missing or have changed. By id. Blocks.

    Raises:
        BackendUnavailableError: a store does not answer.
        StorageFullError, StorageRefusedError: a file cannot be written.
    """
    reasons = {}
    for shot in shots:
        with tempfile.TemporaryDirectory() as scratch:
            if reason := _problem(_local(shot.record.output, Path(scratch)), shot.decision):
                reasons[shot.record.id] = reason
    return reasons


def deliver(
    shots: Sequence[Approved],
    folder: Path,
    sealer: Sealer,
    done: Delivery,
    *,
    overwrite: bool = False,
    on_shot: Callable[[int], None] = lambda _: None,
) -> None:
    """Copy the videos of approved shots to a folder, each with a manifest about its decision. Blocks.

    Each file gets its name when it is complete. A file that was delivered for the same decision stays as it is.

    Args:
        shots: the shots.
        folder: folder of the copies; it is made.
        sealer: signs the manifests.
        done: result, which is filled shot by shot.
        overwrite: replace other files of these names.
        on_shot: called with the number of shots that are finished.

    Raises:
        InvalidRequestError: another file has the name of a copy, or the folder cannot be made, or a video cannot be signed.
        BackendUnavailableError: the signature or the time stamp cannot be had, or a store does not answer.
        StorageFullError, StorageRefusedError: a file cannot be written.
    """
    try:
        make_folder(folder)
    except (OSError, ValueError) as problem:
        raise InvalidRequestError(f"{folder} cannot be made: {problem}", field="output", named=True) from problem
    for number, shot in enumerate(shots, start=1):
        with tempfile.TemporaryDirectory() as scratch:
            video = _local(shot.record.output, Path(scratch))
            reason = _problem(video, shot.decision)
            if video is None or reason:
                done.left[shot.record.id] = reason
            else:
                target = path_below(folder, shot.name, field="output")
                done.files[shot.record.id], warnings = _delivered(video, shot, target, sealer, overwrite=overwrite)
                if warnings:
                    done.warnings[shot.record.id] = warnings
        on_shot(number)


def references_of(shots: Sequence[Approved], specs: Mapping[str, ShotSpec], pattern: str) -> dict[str, str]:
    """Return the entity reference of each shot, by id.

    Args:
        shots: the shots.
        specs: rows of the manifest by id.
        pattern: entity reference, in which `{id}`, `{project}`, `{language}` and `{actor}` stand for the fields of the row.

    Raises:
        InvalidRequestError: the pattern has another name in braces, a row lacks a field, or two shots have the same reference.
    """
    references: dict[str, str] = {}
    shots_by_reference: dict[str, str] = {}
    for shot in shots:
        spec = specs[shot.record.id]
        fields = {"id": spec.id, "project": spec.dub.project, "language": spec.dub.language, "actor": actor_of(spec.dub)}

        def value(name: re.Match[str], fields: Mapping[str, str | None] = fields, shot_id: str = spec.id) -> str:
            if name[1] not in fields:
                names = ", ".join(f"{{{one}}}" for one in fields)
                raise InvalidRequestError(f"{name[0]} is unknown: the names are {names}", field="register", named=True)
            if not (text := fields[name[1]]):
                raise InvalidRequestError(f"shot {shot_id} has no {name[1]} for {name[0]}", field="register", named=True)
            return text

        reference = re.sub(r"\{([^{}]*)\}", value, pattern)
        if (other := shots_by_reference.setdefault(reference, spec.id)) != spec.id:
            raise InvalidRequestError(
                f"the shots {other} and {spec.id} have the same reference {reference}: write {{id}} in the reference",
                field="register",
                named=True,
            )
        references[spec.id] = reference
    return references


def unregistered(shots: Sequence[Approved], references: Mapping[str, str], folder: Path, *, overwrite: bool) -> dict[str, str]:
    """Return the entity references of the shots whose file in the folder is to be registered, by id. Blocks.

    A file that was delivered before is registered already if its reference has this location.

    Raises:
        InvalidRequestError, BackendUnavailableError: as `resolve_references`.
    """
    locations = resolve_references(references.values()).locations
    to_register = {}
    for shot in shots:
        reference, target = references[shot.record.id], path_below(folder, shot.name, field="output")
        if overwrite or not target.exists() or locations.get(reference) != str(_asset(shot, target).path):
            to_register[shot.record.id] = reference
    return to_register


def assets_of(shots: Sequence[Approved], files: Mapping[str, Path], references: Mapping[str, str]) -> dict[str, AssetFile]:
    """Return the delivered files to register, by entity reference.

    Args:
        shots: the shots.
        files: delivered files by id of the shot.
        references: entity references by id of the shot. Files of other shots are left out.
    """
    return {
        references[shot_id]: _asset(shot, files[shot_id])
        for shot in shots
        if (shot_id := shot.record.id) in files and shot_id in references
    }


def _asset(shot: Approved, file: Path) -> AssetFile:
    record = shot.record
    path, first, last = Path(os.path.abspath(file)), 1, record.frames
    if file.suffix == LISTING_SUFFIX:
        path, first, last = listed_frames(path)
    return AssetFile(path, record.id, (first, last), Fraction(record.frame_rate) if record.frame_rate else None)


def _local(uri: str, scratch: Path) -> Path | None:
    """Return a video as a file of this machine, with its sidecar beside it; None: there is no video at the URI."""
    if not is_url(uri):
        path = Path(local_path(uri) or uri)
        return path if path.is_file() else None
    try:
        return fetched_with_manifest(uri, scratch, field="output", max_bytes=MAX_FETCHED_BYTES)
    except ArtefactNotFoundError:
        return None


def _problem(video: Path | None, decision: Decision) -> str:
    """Return why a video is not the one that was decided about; empty: it is."""
    if video is None:
        return MISSING
    if video.suffix == LISTING_SUFFIX:
        return {"": "", "was gone": MISSING}.get(sequence_fault(video, decision.output_sha256), CHANGED)
    try:
        return "" if sha256_of(video) == decision.output_sha256 else CHANGED
    except MediaUnsupportedError as problem:
        return problem.said()


def _delivered(video: Path, shot: Approved, target: Path, sealer: Sealer, *, overwrite: bool) -> tuple[Path, list[str]]:
    """Return the delivered file, and warnings about its manifest."""
    decision = shot.decision
    facts = DecisionFacts(
        state="approved",
        reviewer=decision.reviewer,
        decided_at=decision.decided_at,
        note=decision.note,
        video_sha256=decision.output_sha256,
    )
    if target.exists() and not overwrite:
        if _is_delivery(target, facts):
            return target, []
        raise InvalidRequestError(
            Text(
                "{target} exists, and is not the delivered video of shot {shot}: give another folder, or {overwrite}",
                target=target,
                shot=decision.id,
                overwrite=Option("overwrite"),
            ),
            field="output",
        )
    source = SourceFile("reviewed", video, decision.output_sha256)
    claim = DeliveryClaim(version=version("dubstage-suite"), decision=facts, sources=(source,))
    sealer.check_sidecar_path(target, overwrite=overwrite)
    seal = sealer.seal(claim, target)
    try:
        if target.suffix == LISTING_SUFFIX:
            make_folder(target.parent)
            copy_sequence(video, target, overwrite=overwrite, seal=seal)
            return target, seal.warnings
        file = OutputFile(target, overwrite=overwrite)
        try:
            _copy(video, file, seal)
            commit_with(file, seal)
        finally:
            file.discard()
    except OSError as problem:
        raise folder_error(target.parent, problem) from problem
    return target, seal.warnings


def _is_delivery(target: Path, facts: DecisionFacts) -> bool:
    if target.suffix == LISTING_SUFFIX and sequence_fault(target, facts.video_sha256):
        return False
    try:
        there = verdict_of(target)
    except (MediaUnsupportedError, InvalidRequestError):
        return False
    return there.state in (ManifestState.VALID, ManifestState.TRUSTED) and there.decision == facts


def _copy(video: Path, file: OutputFile, seal: VideoSeal) -> None:
    """Copy a video. A video with its manifest inside is copied with room for the new manifest in place of the old one."""
    with open_media_file(video, field="output") as handle, open(handle, "rb", closefd=False) as old, file.content() as new:
        if not seal.padding:
            shutil.copyfileobj(old, new, 1 << 20)
            return
        second = next((box for number, box in enumerate(boxes_of(old)) if number == 1), None)
        before = second if second is not None and is_manifest(old, second) else None
        try:
            copy_with_padding(old, new, seal.padding, in_place_of=before)
        except (ValueError, OverflowError) as problem:
            raise InvalidRequestError(f"{video}: its manifest cannot be replaced ({problem})", field="output") from problem
