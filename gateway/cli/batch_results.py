"""The commands `dubstage batch decisions`, `deliver` and `kitsu`: what people have decided about a batch leaves dubstage.

batch.py adds the commands to its group. Modules that deliver and export are imported in functions, as there.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from gateway.batch.changes import ask_cluster, record_change
from gateway.batch.reviews import ReviewState
from gateway.batch.store import BatchStore, open_batches
from gateway.batch.types import ENDED, ShotRecord
from gateway.cli import options
from gateway.cli.app import log_on_stderr
from gateway.cli.console import say, say_json, say_output, say_result, say_to_quiet, say_warning, shown_path, wants_json
from gateway.cli.progress import StepProgress
from gateway.settings import GatewaySettings
from services.common.errors import InvalidRequestError
from services.common.files import write_whole

if TYPE_CHECKING:
    from gateway.studio.delivery import Approved, Delivery
    from gateway.studio.kitsu import KitsuTarget


def write_decisions(store: BatchStore, name: str, kind: str, output: Path) -> None:
    """Write the decisions about the shots of a batch to a file, and print the path.

    Args:
        store: store of batches.
        kind: an ExportFormat. CSV has all decisions, EDL and OTIO have those about present videos.
        output: file to write, in place of an older one.

    Raises:
        BatchNotFoundError: there is no such batch.
        InvalidRequestError: the format is unknown, needs a package, or cannot hold the decisions; or the file cannot be written.
    """
    from gateway.studio.review_export import ExportFormat, ReviewedShot, decisions_csv, timeline_text

    if kind not in get_args(ExportFormat):
        raise InvalidRequestError(
            f"--format {kind[:40]!r} is unknown; there are: {', '.join(get_args(ExportFormat))}", field="format"
        )
    ask_cluster(store, store.facts(name))
    decided = [(shot.record, shot.decision) for shot in store.shots(name) if shot.decision is not None]
    if kind == "csv":
        every = [one for of_shot in store.all_decisions(name).values() for one in of_shot]
        content = decisions_csv(every, {record.id: decision for record, decision in decided})
    else:
        reviewed = [ReviewedShot(record, decision, _rate_of(record)) for record, decision in decided]
        content = timeline_text(name, reviewed, "edl" if kind == "edl" else "otio")
    try:
        write_whole(output, content.encode())
    except OSError as problem:
        raise InvalidRequestError(
            f"--output {output} cannot be written: {problem.strerror or problem}", field="output"
        ) from problem
    say_output(output)


def _rate_of(record: ShotRecord) -> Fraction | None:
    """Return the frame rate of a shot's video; None: there is no video."""
    if not record.output_sha256:
        return None
    from gateway.batch.quality import frame_rate_of
    from gateway.media.probe import probe

    return Fraction(record.frame_rate) if record.frame_rate else frame_rate_of(probe(Path(record.output)))


def deliver_approved(
    settings: GatewaySettings, store: BatchStore, name: str, folder: Path, *, complete: bool, overwrite: bool, register: str | None
) -> None:
    """Deliver the approved videos of a batch, write the entry of the audit log, and print files and counts.

    Args:
        store: store of batches.
        folder: folder for the videos.
        complete: whether nothing is delivered unless every shot of the batch is approved.
        overwrite: whether other files are replaced.
        register: entity reference for each file, see `references_of`; None: no file is registered with the asset manager.

    Raises:
        BatchNotFoundError: there is no such batch.
        InvalidRequestError: with `complete`, a shot cannot be delivered; the asset manager refuses a file; or as `deliver`.
        DubstageError: as `deliver` and Registration.
    """
    from gateway.batch.assets import Registration
    from gateway.studio.delivery import approved_of, assets_of, references_of, unregistered

    ask_cluster(store, store.facts(name))
    listed = store.shots(name)
    now = {shot.record.id: shot.decision for shot in listed if shot.decision is not None}
    last = {shot_id: decisions[-1] for shot_id, decisions in store.all_decisions(name).items()}
    shots, left = approved_of([shot.record for shot in listed], now, last)
    if complete:
        _check_complete(shots, left)
    references: dict[str, str] = {}
    registration = None
    if register is not None:
        specs = {spec.id: spec for spec in store.manifest(name)}
        references = unregistered(shots, references_of(shots, specs, register), folder, overwrite=overwrite)
        registration = Registration(references.values())
    done = _deliver(settings, store, name, shots, folder, overwrite=overwrite)
    files = done.files
    left |= done.left
    for file in files.values():
        say_result(str(file))
    for shot_id, why in left.items():
        say_to_quiet(f"{shot_id} is not delivered: {why}")
    say(f"batch {name}: {len(files)} of {len(listed)} videos are delivered")
    if wants_json():
        say_json(
            {"outputUris": {shot_id: shown_path(file) for shot_id, file in files.items()}, "left": left, "warnings": done.warnings}
        )
    if registration is not None:
        registered = registration.register(assets_of(shots, files, references))
        for shot_id, reference in references.items():
            if reference in registered.references:
                say(f"{shot_id} is registered as {registered.references[reference]}")
        if registered.problems:
            (first, why), *more = registered.problems.items()
            others = f", and {len(more)} more files are not registered" if more else ""
            raise InvalidRequestError(f"--register: the asset manager refuses {first}: {why}{others}", field="register")


def _deliver(
    settings: GatewaySettings, store: BatchStore, name: str, shots: Sequence[Approved], folder: Path, *, overwrite: bool
) -> Delivery:
    """Deliver shots, write the entry of the audit log and print warnings, also for the shots before an error."""
    from gateway.provenance.installation import open_sealer
    from gateway.studio.delivery import Delivery, deliver

    done = Delivery()
    try:
        with StepProgress() as progress:
            deliver(
                shots,
                folder,
                open_sealer(settings),
                done,
                overwrite=overwrite,
                on_shot=lambda number: progress("delivery", number, len(shots)),
            )
    finally:
        if done.files:
            record_change(store, "delivered", name, list(done.files))
        for shot_id, warnings in done.warnings.items():
            for warning in warnings:
                say_warning(f"{shot_id}: {warning}")
    return done


def _check_complete(shots: Sequence[Approved], left: Mapping[str, str]) -> None:
    """Check that every shot of a batch can be delivered.

    Args:
        shots: the approved shots, whose videos are looked at.
        left: why each other shot is not approved, by id.
    """
    from gateway.studio.delivery import undeliverable

    if unfit := left or undeliverable(shots):
        (first, why), *more = unfit.items()
        others = f", and {len(more)} more shots cannot be delivered" if more else ""
        raise InvalidRequestError(f"--complete: shot {first}: {why}{others}; nothing was delivered", field="complete")


def post_to_kitsu(store: BatchStore, name: str, target: KitsuTarget) -> None:
    """Post what is new about a batch to Kitsu, write the entry of the audit log, and print the shots and counts.

    Raises:
        BatchNotFoundError: there is no such batch.
        DubstageError: as `post_batch`.
    """
    from gateway.studio.kitsu import BatchShot, post_batch

    ask_cluster(store, store.facts(name))
    decided, specs = store.all_decisions(name), store.manifest(name)
    shots = [BatchShot(specs[one.row], one.record, decided.get(one.shot.id, ())) for one in store.shots(name)]
    posted: Counter[str] = Counter()
    try:
        left_out = post_batch(target, name, shots, partial(store.thumbnail, name), lambda row: posted.update([row]))
    finally:
        if posted:
            record_change(store, "posted", name, list(posted))
    for row, count in posted.items():
        say_result(f"{row}: {count} comments")
    for row, why in left_out.items():
        say_to_quiet(f"{row}: {why}")
    say(f"batch {name}: {posted.total()} new comments in Kitsu, for {len(posted)} of {len(shots)} shots")
    if wants_json():
        say_json({"numComments": posted, "left": left_out})


def statuses_of(texts: Sequence[str]) -> dict[str, str]:
    """Return STATUSES with the changes that texts such as `approved=ok` name: the short name of a status of Kitsu by state.

    Raises:
        InvalidRequestError: a text names no state or no status.
    """
    from gateway.studio.kitsu import STATUSES

    statuses = dict(STATUSES)
    states = sorted({*ENDED, *ReviewState} - {ReviewState.UNDECIDED})
    for text in texts:
        state, _, short = text.partition("=")
        if state not in states or not short:
            raise InvalidRequestError(
                f"--status {text[:80]!r}: give STATE=SHORT-NAME, with a state of {', '.join(states)}", field="status"
            )
        statuses[state] = short
    return statuses


def decisions(
    name: options.BatchName,
    output: Annotated[Path, typer.Option(metavar="FILE", help="File to write.")],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="csv|edl|otio",
            help="csv: all decisions; edl (CMX 3600), otio (OpenTimelineIO): a timeline with markers.",
        ),
    ] = "csv",
    _: options.AsJson = False,
) -> None:
    """Write the decisions about the shots of a batch to a file."""
    with open_batches(options.gateway_settings()) as store:
        write_decisions(store, name, kind, output)


@log_on_stderr()
def deliver_command(
    name: options.BatchName,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the videos.")],
    complete: Annotated[
        bool, typer.Option("--complete", help="Deliver nothing unless every shot of the batch can be delivered.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other files of these names.")] = False,
    register: Annotated[
        str | None,
        typer.Option(
            metavar="REFERENCE",
            help="Register each copy with the asset manager (OpenAssetIO) under this entity reference, such as "
            "bal:///{project}/{id}/dub_{language}. {id}, {project}, {language} and {actor} stand for the fields of the row.",
        ),
    ] = None,
    _: options.AsJson = False,
) -> None:
    """Copy the approved videos of a batch, each with a signed manifest (C2PA) that has the decision."""
    settings = options.gateway_settings()
    with open_batches(settings) as store:
        deliver_approved(settings, store, name, output, complete=complete, overwrite=overwrite, register=register)


def kitsu(
    name: options.BatchName,
    url: Annotated[str, typer.Option(metavar="URL", help="Address of Kitsu's API, such as https://kitsu.example.com/api.")],
    project: Annotated[str, typer.Option(metavar="NAME", help="Project in Kitsu.")],
    task_type: Annotated[
        str, typer.Option(metavar="NAME", help="Task type in Kitsu; {language} stands for the language of a row.")
    ] = "Dubbing",
    status: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATE=SHORT-NAME",
            help="Status in Kitsu for a state. May be given several times. Default: done=wfa, undubbed=wfa, approved=done, "
            "rejected=retake.",
        ),
    ] = None,
    _: options.AsJson = False,
) -> None:
    """Post what is new about a batch to Kitsu: statuses, decisions and pictures. DUBSTAGE_KITSU_TOKEN holds the access token."""
    from gateway.studio.kitsu import KitsuTarget

    token = os.environ.get("DUBSTAGE_KITSU_TOKEN", "")
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise InvalidRequestError("DUBSTAGE_KITSU_TOKEN must hold an access token of Kitsu", field="DUBSTAGE_KITSU_TOKEN")
    target = KitsuTarget(url=url, token=token, project=project, task_type=task_type, statuses=statuses_of(status or []))
    with open_batches(options.gateway_settings()) as store:
        post_to_kitsu(store, name, target)
