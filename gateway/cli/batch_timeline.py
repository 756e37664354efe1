"""The commands `dubstage batch from-timeline` and `dubstage batch conform`, behind their options (batch.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from gateway.batch.changes import ask_cluster
from gateway.batch.manifest import batch_name, shots_by_line
from gateway.batch.store import BatchStore
from gateway.cli.console import say, say_output, say_to_quiet, say_warning
from gateway.cli.progress import StepProgress
from gateway.media.locations import is_url
from gateway.studio.conform import ConformRequest, conform, write_conformed
from gateway.studio.dubbing_script import check_language, read_script
from gateway.studio.timeline import clips_of, exact_rate, track_of
from gateway.studio.timeline_files import check_output, read_timeline
from gateway.studio.turnover import CLIPS, TurnoverRequest, plan_turnover, read_clips, write_turnover
from services.common.errors import InvalidRequestError
from services.common.texts import Option, Text

_SHOWN: Final = 50
"""Most refused clips, and most overlapping lines, that are printed."""


def rate_option(text: str | None) -> Fraction | None:
    """Return the frame rate of the option --rate; None: the option is not given.

    Raises:
        InvalidRequestError: the text is no usual frame rate.
    """
    if text is None:
        return None
    try:
        rate = exact_rate(Fraction(text))
    except (ValueError, ZeroDivisionError):
        rate = None
    if rate is None:
        raise InvalidRequestError(f"--rate {text[:40]!r}: give a frame rate, such as 25, 23.976 or 30000/1001", field="rate")
    return rate


def _pairs(texts: Sequence[str], option: str, expected: str) -> dict[str, str]:
    """Return the pairs of an option such as --actor ADA=ada."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise InvalidRequestError(f"{option} {text[:80]!r}: give {expected}", field=option[2:])
        pairs[name.strip()] = value.strip()
    return pairs


def make_manifest(
    path: Path,
    *,
    output: Path,
    rate: str | None,
    track: str | None,
    scripts: Sequence[str],
    languages: Sequence[str],
    media: Sequence[Path],
    speech: str | None,
    handles: int,
    face: str,
    actors: Sequence[str],
    defaults: Mapping[str, Any],
    leave_out: bool,
) -> None:
    """Write a manifest from a timeline, and print its path.

    Args:
        path: file of the timeline.
        output: folder to write to. The batch gets the folder's name.
        rate, track, media, speech, handles, face, defaults: as `TurnoverRequest`, as the user writes them.
        scripts: files of scripts, or LANGUAGE=FILE.
        languages: languages to dub without a script.
        actors: SPEAKER=ACTOR each.
        leave_out: whether refused clips are left out. Otherwise nothing is written if one is refused.

    Raises:
        InvalidRequestError: an option or a file is wrong, or clips are refused.
        DubstageError: media cannot be read or parts cannot be written.
    """
    if not scripts and (speech is None or not languages):
        raise InvalidRequestError("give --script FILE, or --speech PATTERN with --language LANGUAGE", field="script")
    if scripts and languages:
        raise InvalidRequestError("--language goes without --script: write --script LANGUAGE=FILE", field="language")
    for tag in languages:
        check_language(tag, where=f"--language {tag[:40]}", field="language")
    _check_defaults(defaults)
    timeline = read_timeline(path, rate_option(rate))
    lines = []
    for script in scripts:
        language, equals, name = script.partition("=")
        lines += read_script(Path(name if equals else script), language.strip() if equals else None, timeline)
    request = TurnoverRequest(
        timeline=timeline,
        clips=clips_of(timeline, track_of(timeline, track)),
        lines=lines,
        languages=languages,
        media=media,
        speech=speech,
        handles=handles,
        face=face,
        actors=_pairs(actors, "--actor", "SPEAKER=ACTOR, such as ADA=ada"),
        defaults=defaults,
        folder=output,
        name=batch_name(output.absolute().name, given=False),
    )
    with StepProgress() as progress:
        turnover = plan_turnover(request, on_clip=lambda done: progress("clips", done, len(request.clips)))
        _tell_refused(turnover.problems, leave_out=leave_out)
        for overlap in turnover.overlaps[:_SHOWN]:
            say_warning(overlap)
        if not turnover.rows:
            raise InvalidRequestError(f"{path}: no clip has a line: nothing was written", field="timeline")
        manifest = write_turnover(turnover, on_clip=lambda done: progress("parts", done, turnover.clips))
    say(f"{turnover.rows} rows of {turnover.clips} clips; {turnover.silent} clips have no line")
    if lines:
        say(f"seconds in scripts count from {timeline.label(0)}, the first frame of the timeline")
    say(f"dub them with: dubstage batch submit {manifest}")
    say_output(manifest)


def _check_defaults(defaults: Mapping[str, Any]) -> None:
    """Raise InvalidRequestError if options of all rows are wrong."""
    if not defaults:
        return
    owned = {"language", "lines", "speech", "say", "voice", "face", "actor"} & set(defaults)
    if owned:
        raise InvalidRequestError(f"--set {min(owned)}: the script and other options say it for each row", field="set")
    content = f"{json.dumps({'defaults': dict(defaults)})}\n".encode()
    _, mistakes = shots_by_line(content, shown_name="--set", read=lambda _: [])
    if mistakes:
        first = mistakes[0]
        raise InvalidRequestError(f"--set {first.field.removeprefix('defaults.')}: {first.text}", field="set")


def _tell_refused(problems: Sequence[str], *, leave_out: bool) -> None:
    """Print what is refused.

    Raises:
        InvalidRequestError: something is refused, and the user did not ask to leave such clips out.
    """
    if len(problems) == 1 and not leave_out:
        raise InvalidRequestError(
            Text(
                "{problem}; nothing was written: {leave_out} goes on without it", problem=problems[0], leave_out=Option("leave_out")
            ),
            field="timeline",
        )
    for problem in problems[:_SHOWN]:
        (say_warning if leave_out else say_to_quiet)(Text("left out: {problem}", problem=problem) if leave_out else problem)
    if len(problems) > _SHOWN:
        (say if leave_out else say_to_quiet)(f"{len(problems) - _SHOWN} more are not shown")
    if problems and not leave_out:
        raise InvalidRequestError(
            f"{len(problems)} clips and lines are refused; nothing was written: --leave-out goes on without them", field="timeline"
        )


def conform_batch(
    store: BatchStore,
    name: str,
    path: Path,
    *,
    output: Path,
    rate: str | None,
    track: str | None,
    languages: Sequence[str],
    approved: bool,
    delivered: Path | None,
    clips: Path | None,
    leave_out: bool,
) -> None:
    """Write a timeline with the dubbed videos of a batch, and print its path.

    Args:
        store: store of batches.
        name: name of the batch.
        path: file of the timeline.
        output: file to write, in place of an older one.
        rate, track: as for `make_manifest`.
        languages: languages of the new tracks; empty: all of the batch.
        approved: whether only approved videos are taken.
        delivered: folder of `dubstage batch deliver`, whose videos are taken; None: the videos of the batch.
        clips: the file `clips.json` of the manifest; None: it lies two folders above the videos.
        leave_out: whether clips without a usable video are left out. Otherwise nothing is written if one is missing.

    Raises:
        BatchNotFoundError: there is no such batch.
        InvalidRequestError: an option or a file is wrong, or videos are missing.
    """
    check_output(output)
    ask_cluster(store, store.facts(name))
    shots = store.shots(name)
    clips_file = clips
    if clips_file is None:
        video = shots[0].shot.output
        if is_url(video):
            raise InvalidRequestError(
                f"the videos of batch {name} are no files of this machine: give --clips {CLIPS}", field="clips"
            )
        clips_file = Path(video).parents[2] / CLIPS if len(Path(video).parents) > 2 else Path(CLIPS)
    dubbed = read_clips(clips_file)
    timeline = read_timeline(path, rate_option(rate))
    chosen = list(dict.fromkeys(languages))
    dubbed_languages = {language for clip in dubbed.clips for language in clip.rows}
    is_edl = output.suffix.lower() == ".edl"
    if is_edl and len(chosen or dubbed_languages) != 1:
        raise InvalidRequestError(
            f"an EDL holds one track: give --language with one of {', '.join(sorted(dubbed_languages))}", field="language"
        )
    conformed = conform(
        ConformRequest(
            timeline=timeline,
            track=track_of(timeline, track),
            dubbed=dubbed,
            records={shot.record.id: shot.record for shot in shots},
            decisions={shot.record.id: shot.decision for shot in shots if shot.decision is not None},
            languages=chosen,
            approved=approved,
            delivered=delivered,
            whole_track=is_edl,
        )
    )
    _tell_refused(conformed.problems, leave_out=leave_out)
    if not conformed.clips:
        raise InvalidRequestError(f"{path}: no clip has a video of batch {name}: nothing was written", field="timeline")
    write_conformed(conformed, output)
    say(f"{conformed.clips} clips on {len(conformed.tracks)} new tracks")
    say_output(output)
