"""A run of `dubstage reproduce`: measures the claims of a paper, and writes the page after each step.

Numbers come from two sources: from dubs of clips, as `dubstage evaluate` measures them, and from a training set. Claims that this
run does not measure keep the numbers of an earlier run with the same output folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.cli.progress import StepProgress
from gateway.dub.choices import EnrolOptions
from gateway.settings import GatewaySettings
from research.cli.evaluate_run import EvaluationRequest, check_clips, fill_table
from research.evaluation.clip import chosen_clips
from research.evaluation.results import Configuration, KeptResults, TableRow, check_writable, write_text
from research.evaluation.table import FilledRow, TableRun
from research.evaluation.types import Variant
from research.motion.clips import Clips, clips_of_rows, shows_the_mouth
from research.reproduce.claims import TITLE, Claim, Figure, LeftOut, Numbers, Outcome, Page
from research.stage_host import StageHost
from research.training.trainset import TrainSet
from services.common.errors import DubstageError, InvalidRequestError
from services.common.methods import PAPERS

_QUICK_CLIPS: Final = 2
_QUICK_SPEECH_CLIPS: Final = 3
_WRONG_COUNT: Final = 10
_Item = TypeVar("_Item")
_NO_CLIPS: Final = "the claim is measured on dubs: give clips"
_NO_DATA: Final = "the claim is measured on a training set: give one with --data SET"


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Training set and settings that a claim is measured with.

    Attributes:
        data: the training set.
        quick: whether a small part is enough.
        scratch: folder for pictures that a measurement writes.
        progress: called with a step, what is done, and all that is to do.
    """

    data: TrainSet
    quick: bool
    scratch: Path
    progress: Callable[[str, int, int], None]

    def each(self, items: Sequence[_Item], step: str = "clips") -> Iterator[_Item]:
        """Yield items, and report the progress of the step."""
        for index, item in enumerate(items):
            self.progress(step, index, len(items))
            yield item
        self.progress(step, len(items), len(items))

    def speech_clips(self) -> Clips:
        """Return the held-out clips of free speech that show the mouth. If there are none, return the clips of the split `val`.

        Clips of narrow corpora are single sentences, too short for a style and a test. A quick run takes three clips, evenly
        spread.
        """
        rows = [row for row in self.data.rows if row.split != "train" and row.has_face and not row.narrow and shows_the_mouth(row)]
        clips = clips_of_rows(self.data, rows or self.data.of("val", face=True))
        return clips.evenly(_QUICK_SPEECH_CLIPS) if self.quick else clips


def selection_note(splits: Iterable[str]) -> str:
    """Return what a page says about clips of these splits, on which trainings chose their best step; "": about none."""
    return "; trainings chose their best step on clips of the split val" if "val" in splits else ""


@dataclass(frozen=True, slots=True)
class Measured:
    """Numbers from a training set, and what they were measured on."""

    numbers: Numbers
    on: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DubRow:
    """Row of a claim that is measured on dubs.

    Attributes:
        row: the claim's row.
        of: what is evaluated.
        variant: variant of the evaluation (research/evaluation/types.py).
        names: figures of the evaluation (table.FIGURES) by figures of the claim, where the names differ.
    """

    row: str
    of: Configuration
    variant: Variant = "full"
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def table_row(self) -> TableRow:
        """The row of the table of evaluations."""
        of = self.of
        parts = (
            of.method,
            f"finish {of.finish}" if of.finish else "",
            self.variant,
            f"{of.enrol_frames} frames" if of.enrol_frames else "",
            f"{of.enrol_seconds:g} s" if of.enrol_seconds else "",
            "" if of.personalize else "not personalised",
        )
        return TableRow(", ".join(part for part in parts if part), of, self.variant)


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How a claim is measured.

    Attributes:
        claim: the claim.
        dubs: rows that are measured on dubs.
        measure: measures the rows that come from a training set; None: none does.
    """

    claim: Claim
    dubs: tuple[DubRow, ...] = ()
    measure: Callable[[Material], Measured] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperProtocol:
    """The protocol of a paper.

    Attributes:
        name: name of the paper's method.
        title: authors and title.
        splits: uses of a catalogue whose clips the paper's dubs are measured on.
        speakers: begin of the speakers' names in the catalogue; empty: all.
        protocols: the claims, in the order of the page.
        left_out: what is not repeated.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    speakers: str = ""
    protocols: tuple[Protocol, ...]
    left_out: tuple[LeftOut, ...]

    def chosen(self, names: Sequence[str]) -> tuple[Protocol, ...]:
        """Return the claims of some names; without names all claims.

        Raises:
            InvalidRequestError: the paper has no claim of a name.
        """
        by_name = {each.claim.name: each for each in self.protocols}
        for name in names:
            if name not in by_name:
                raise InvalidRequestError(f"{self.name} has no claim {name[:80]!r}; there are {', '.join(by_name)}", field="claim")
        return tuple(each for name, each in by_name.items() if not names or name in names)

    def clips(self, paths: Sequence[Path], splits: Sequence[str], *, quick: bool) -> list[Path]:
        """Return the clips of paths.

        Args:
            paths: videos, and folders with a catalogue.csv.
            splits: uses of the catalogue; empty: those of the paper's protocol.
            quick: whether the first and the last clip are enough.

        Raises:
            InvalidRequestError: a folder has no clip of these uses and speakers.
        """
        clips = chosen_clips(paths, splits or self.splits, self.speakers)
        return [clips[0], clips[-1]] if quick and len(clips) > _QUICK_CLIPS else clips


def paper_named(name: str) -> PaperProtocol:
    """Return the protocol of a paper, which is in the module of this name beside this one.

    Raises:
        InvalidRequestError: there is no such paper.
    """
    if name not in PAPERS:
        raise InvalidRequestError(f"there is no paper {name[:80]!r}; there are {', '.join(PAPERS)}", field="PAPER")
    protocol: PaperProtocol = import_module(f"research.reproduce.{name}").PAPER
    return protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class ReproductionRequest:
    """Request of a reproduction.

    Attributes:
        paper: the paper's protocol.
        claims: names of the claims to measure; empty: all.
        clips: clips of the dubs; may be empty.
        splits: uses of the catalogue that the clips come from.
        data: the training set; None: claims on a training set are not measured.
        output: folder of the page and of all numbers.
        quick: whether a small part of the clips and of the training set is enough.
    """

    paper: PaperProtocol
    claims: tuple[str, ...]
    clips: list[Path]
    splits: tuple[str, ...]
    data: TrainSet | None
    output: Path
    quick: bool


def reproduce(settings: GatewaySettings, request: ReproductionRequest) -> Path:
    """Measure the claims of a paper, and return the path of the page.

    Raises:
        InvalidRequestError: neither clips nor data were given, a claim is unknown, or a file of the output folder
            cannot be written or is of another origin.
        DubstageError: a clip cannot be read, or the stages cannot be started.
    """
    run = _Reproduction(settings, request)
    with StepProgress() as progress:
        run.measure_data(progress)
        run.measure_dubs(progress)
    return run.page


class _Reproduction:
    """The outcomes of a paper's claims, and the page.

    Args:
        settings: settings of the gateway, which say where the stages are.
        request: what is measured.
    """

    def __init__(self, settings: GatewaySettings, request: ReproductionRequest) -> None:
        if not request.clips and request.data is None:
            raise InvalidRequestError("give clips, or a training set with --data SET, or both", field="CLIP")
        self._settings, self._request, self._paper = settings, request, request.paper
        self._chosen = request.paper.chosen(request.claims)
        self._rows = tuple(dict.fromkeys(dub.table_row for each in self._chosen for dub in each.dubs))
        self.page = request.output / f"{request.paper.name}.md"
        self._json = self.page.with_suffix(".json")
        _check_page(self.page)
        self._outcomes = _stored_outcomes(self._json, request.paper)

    def measure_data(self, progress: StepProgress) -> None:
        """Measure the claims that come from the training set."""
        for each in self._chosen:
            if each.measure is None:
                continue
            if self._request.data is None:
                self._skip(each.claim, _NO_DATA)
                continue
            progress.begin(f"{each.claim.name} on {self._request.data.folder.name}")
            material = Material(
                data=self._request.data, quick=self._request.quick, scratch=self._request.output / "sheets", progress=progress
            )
            try:
                measured = each.measure(material)
            except DubstageError as problem:
                self._add(each.claim, {}, "", (str(problem),))
                continue
            self._add(each.claim, measured.numbers, measured.on, ())

    def measure_dubs(self, progress: StepProgress) -> None:
        """Measure the claims that come from dubs. What was evaluated before is not evaluated again."""
        protocols = [each for each in self._chosen if each.dubs]
        if not protocols:
            return
        if not self._request.clips:
            for each in protocols:
                self._skip(each.claim, _NO_CLIPS)
            return
        run = self._evaluated(progress)
        filled = {row.row: row for row in run.filled()}
        for each in protocols:
            numbers, clips, missing = dub_numbers(each, {dub.row: filled[dub.table_row] for dub in each.dubs})
            on = f"dubs of {len(clips)} clips ({', '.join(clips)}), each with its own sound" if clips else ""
            self._add(each.claim, numbers, on + selection_note(self._request.splits) if on else "", missing)

    def _evaluated(self, progress: StepProgress) -> TableRun:
        request = self._request
        transcripts = check_clips(request.clips)
        table = request.output / "dubs.md"
        kept = KeptResults(table.with_suffix(".json"))
        each = EvaluationRequest(
            clips=request.clips,
            method=self._paper.name,
            variants=(),
            wrong_count=_WRONG_COUNT,
            enrol=EnrolOptions(),
            perceptual=None,
            json_file=table.with_suffix(".json"),
            only_fold=0 if request.quick else None,
        )
        run = TableRun(f"Dubs of {self._paper.name}", self._rows, (), table, kept)
        progress.begin("starting the stages")
        with StageHost(self._settings) as host:
            fill_table(host, run, "", each, transcripts, kept, progress)
        run.write()
        return run

    def _add(self, claim: Claim, numbers: Numbers, on: str, missing: tuple[str, ...]) -> None:
        """Take the numbers of a claim, and write the page."""
        self._outcomes[claim.name] = Outcome(claim, numbers, on, missing, self._request.quick)
        self._write()

    def _skip(self, claim: Claim, reason: str) -> None:
        """Say why a claim is not measured, unless an earlier run measured it, and write the page."""
        if not self._outcomes[claim.name].ours:
            self._outcomes[claim.name] = Outcome(claim, missing=(reason,))
        self._write()

    def _write(self) -> None:
        page = Page(
            paper=self._paper.name,
            title=self._paper.title,
            outcomes=list(self._outcomes.values()),
            left_out=self._paper.left_out,
        )
        write_text(self._json, json.dumps(page.document(), indent=2, allow_nan=False) + "\n", "output")
        write_text(self.page, page.markdown(), "output")


def dub_numbers(protocol: Protocol, rows: Mapping[str, FilledRow]) -> tuple[Numbers, list[str], tuple[str, ...]]:
    """Return the numbers of a claim's rows, the clips that they are means of, and why others are missing.

    Rows are compared, so every row is a mean over the same clips: the clips that have metrics in every measured row.

    Args:
        rows: rows of the table by rows of the claim.
    """
    measured = [row for row in rows.values() if row.per_clip]
    clips = sorted(set[str].intersection(*(set(row.per_clip) for row in measured))) if measured else []
    missing = [reason for name, row in rows.items() for reason in _reasons(name, row)]
    if measured and not clips:
        missing.append("no clip could be evaluated in every row")
    numbers = {dub.row: _numbers(dub, rows[dub.row].on_clips(clips), protocol.claim.figures) for dub in protocol.dubs}
    return numbers, clips, tuple(missing)


def _numbers(dub: DubRow, row: FilledRow, figures: Sequence[Figure]) -> dict[str, float]:
    return {figure.name: row.mean(dub.names.get(figure.name, figure.name)) for figure in figures}


def _reasons(name: str, row: FilledRow) -> list[str]:
    """Return why a row lacks numbers."""
    if row.missing:
        return [f"{name}: {row.missing}"]
    return [f"{name}, {refused.clip}: {refused.reason}" for refused in row.refused]


def _check_page(page: Path) -> None:
    """Raise InvalidRequestError if a page cannot be written, or would replace a file of another origin."""
    if page.is_file() and not page.read_text(encoding="utf-8", errors="replace").startswith(TITLE):
        raise InvalidRequestError(f"{page} exists and is no page of a reproduction; give another --output folder", field="output")
    check_writable(page, "output")


def _stored_outcomes(path: Path, paper: PaperProtocol) -> dict[str, Outcome]:
    """Return the outcomes of all claims, with the numbers of an earlier run.

    Raises:
        InvalidRequestError: the file of the earlier run is damaged.
    """
    stored: dict[str, dict[str, Any]] = {}
    if path.is_file():
        try:
            stored = {claim["name"]: claim for claim in json.loads(path.read_text(encoding="utf-8"))["claims"]}
        except (ValueError, KeyError, TypeError) as problem:
            raise InvalidRequestError(
                f"{path} holds no numbers of a reproduction: {problem}; delete it", field="output"
            ) from problem
    return {each.claim.name: _outcome(each.claim, stored.get(each.claim.name, {})) for each in paper.protocols}


def _outcome(claim: Claim, document: Mapping[str, Any]) -> Outcome:
    return Outcome(
        claim,
        document.get("ours", {}),
        document.get("measured_on", ""),
        tuple(document.get("missing", ())),
        bool(document.get("quick", False)),
    )
