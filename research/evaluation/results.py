"""Results of many evaluations in one JSON file, so that a clip that was evaluated is not evaluated again.

The file is a list of evaluations, each with a key. The key is a digest of all that the figures depend on: the clip, the
configuration, the request with the words of the clip, and the networks. The file is replaced as a whole after each evaluation.

The path of the file is checked before the work begins.

An evaluation is written as JSON: {"clips": [{"clip", "lag_frames", "variants": {NAME: {metric: number}}}]}.

Rows of a table of evaluations: every method, or the ablation of one method.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from gateway.dub.job.key import PIPELINE_VERSION
from gateway.dub.request.dub_request import sha256_of
from gateway.stages.interface import Stages
from gateway.stages.opening import models_for, weights_of
from research.evaluation.targets import check_targets, cost_means, head_means, variant_means
from research.evaluation.types import METRICS, VARIANTS, ClipResult, Variant, VariantScores
from services.common.errors import InvalidRequestError
from services.common.files import PARTIAL, write_whole
from services.common.methods import METHODS, Finish, method_named
from services.face.embedding import WEIGHTS
from services.motion.lag import LAG_FILE

_FOLDER: Final = Path(__file__).parent
_DIGITS = 5
_SHARED: Final = {
    "audio": ("*",),
    "texture": ("*",),
    "motion": (LAG_FILE, "motion_constants.safetensors", "style_encoder.onnx", "sync_*.onnx"),
}
"""Patterns of the files that all methods and all metrics use, by stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One configuration that is evaluated on a clip.

    Attributes:
        method: name of the method.
        finish: whose pixels the mouths show; None: the method decides.
        weights: name of networks that take the place of the installation's own; "": none do.
        enrol_frames: usable frames that the renderer is adapted with; None: all.
        enrol_seconds: seconds of each enrolment part (folds.folds_of); None: as clips are split otherwise.
        steps: optimiser steps of the renderer's adaptation; 0: the renderer's own number.
        personalize: whether the networks are adapted to the person.
    """

    method: str
    finish: Finish | None = None
    weights: str = ""
    enrol_frames: int | None = None
    enrol_seconds: float | None = None
    steps: int = 0
    personalize: bool = True


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Attributes:
        label: name of the row.
        of: the configuration whose metrics it shows.
        variant: the variant whose metrics it shows.
    """

    label: str
    of: Configuration
    variant: Variant = "full"


def method_rows(*, enrol_frames: int | None = None, personalize: bool = True) -> tuple[TableRow, ...]:
    """Return one row for every method of the table of methods."""
    return tuple(TableRow(name, Configuration(method=name, enrol_frames=enrol_frames, personalize=personalize)) for name in METHODS)


def ablation_rows(name: str, *, enrol_frames: int | None = None, personalize: bool = True) -> tuple[TableRow, ...]:
    """Return the rows of a method's ablation (ablations.toml).

    Args:
        name: name of the method.
        enrol_frames: for rows that state no number.
        personalize: False: no row adapts the networks.

    Raises:
        InvalidRequestError: the method has no ablation.
    """
    ablations = _read("ablations.toml")
    if name not in ablations:
        raise InvalidRequestError(f"there is no ablation of {name[:80]!r}; there are {', '.join(ablations)}", field="ablation")
    return tuple(_row(name, row, enrol_frames, personalize) for row in ablations[name]["rows"])


def _row(method: str, row: Mapping[str, Any], enrol_frames: int | None, personalize: bool) -> TableRow:
    of = Configuration(
        method=method,
        weights=row.get("weights", ""),
        enrol_frames=row.get("enrol_frames", enrol_frames),
        steps=row.get("steps", 0),
        personalize=personalize and row.get("personalize", True),
    )
    return TableRow(row["label"], of, row.get("variant", "full"))


def seconds_rows(rows: Sequence[TableRow], seconds: Sequence[float]) -> tuple[TableRow, ...]:
    """Return one row for every row and length of enrolment, seconds; without lengths the rows themselves."""
    if not seconds:
        return tuple(rows)
    return tuple(
        replace(row, label=f"{row.label}, {each:g} s", of=replace(row.of, enrol_seconds=each)) for row in rows for each in seconds
    )


def check_weights(rows: Sequence[TableRow], given: Mapping[str, Path]) -> None:
    """Check that every folder of weights is asked for by a row, and exists.

    Raises:
        InvalidRequestError: no row has such weights, or the folder is missing.
    """
    wanted = dict.fromkeys(row.of.weights for row in rows if row.of.weights)
    for name, folder in given.items():
        if name not in wanted:
            raise InvalidRequestError(
                f"--weights {name}: no row of this table has them; rows have {_listed(wanted)}", field="weights"
            )
        if not folder.is_dir():
            raise InvalidRequestError(f"--weights {name}={folder}: there is no such folder", field="weights")


def reported() -> dict[str, dict[str, str]]:
    """Return what the papers report, by method: paper, data, figures."""
    return {name: dict(row) for name, row in _read("reported.toml").items()}


def _listed(names: Mapping[str, None]) -> str:
    return ", ".join(names) or "none"


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / name).read_text(encoding="utf-8"))


def check_writable(path: Path, field: str) -> None:
    """Check that a file can be written. Missing folders are no obstacle: `write_text` creates them.

    Args:
        field: option that names the file.

    Raises:
        InvalidRequestError: the file cannot be written.
    """
    with file_errors_named(path, field):
        folder = path.parent
        while not folder.exists():
            folder = folder.parent
        # The name may be too long, also if a folder above is still missing.
        with suppress(FileNotFoundError):
            (folder / path.name).lstat()
        with NamedTemporaryFile(dir=folder, prefix=PARTIAL):
            pass


def write_text(path: Path, text: str, field: str) -> None:
    """Write a text file. Missing folders are created. The file is replaced as a whole, or keeps its old content.

    Args:
        field: option that names the file.

    Raises:
        InvalidRequestError: the file cannot be written.
    """
    with file_errors_named(path, field):
        write_whole(path, text.encode(), parents=True)


@contextmanager
def file_errors_named(path: Path, field: str) -> Iterator[None]:
    """Turn an error of the operating system into a message that names the file.

    Raises:
        InvalidRequestError: the block raised an OSError.
    """
    try:
        yield
    except OSError as problem:
        raise InvalidRequestError(
            f"{path} cannot be written: {problem.strerror or problem}; give another name", field=field
        ) from problem


def _number(value: float) -> float | None:
    """Return a rounded number; None for NaN, which JSON does not have: the metric could not be measured."""
    return round(float(value), _DIGITS) if math.isfinite(value) else None


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _variant(scores: VariantScores) -> dict[str, Any]:
    row: dict[str, Any] = {name: _number(scores.metrics[name]) for name in METRICS}
    row["intervals"] = {name: [_number(interval.low), _number(interval.high)] for name, interval in scores.intervals.items()}
    row["paper"] = _numbers(scores.paper)
    row["frames"] = scores.frames
    row["passed_through"] = scores.passed_through
    row["lost_faces"] = scores.lost_faces
    return row


def _head_rows(scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    return {row: _numbers(figures) for row, figures in scores.items()}


def clip_document(result: ClipResult) -> dict[str, Any]:
    """Return the result of one clip as dictionaries, lists, numbers and text."""
    return {
        "clip": result.clip,
        "lag_frames": result.lag_frames,
        "folds": [
            {
                "enrol": [fold.fold.enrol.start, fold.fold.enrol.stop],
                "test": [fold.fold.test.start, fold.fold.test.stop],
                "lag_frames": fold.lag_frames,
                "lag_doubt": fold.lag_doubt,
            }
            for fold in result.folds
        ],
        "variants": {name: _variant(result.variants[name]) for name in VARIANTS if name in result.variants},
        "cost": _numbers(result.cost),
        **({"head_motion": _head_rows(result.head_motion.scores)} if result.head_motion is not None else {}),
    }


def to_json(results: Sequence[ClipResult], method: str) -> dict[str, Any]:
    """Return the results as dictionaries, lists, numbers and text.

    Each variant has METRICS, `intervals` (95 %, [low, high]), `paper` (the metrics of the papers) and counts of frames.
    Every clip and the top level have `cost`. The top level has `means` (over clips) and `targets`. If the method moves
    the head, every clip and the top level have `head_motion`, {row: {metric: number}} (head_motion.py).
    """
    heads = head_means(results)
    return {
        "method": method,
        "clips": [clip_document(result) for result in results],
        "means": {
            name: _numbers(variant_means(results, name)) for name in VARIANTS if any(name in result.variants for result in results)
        },
        "cost": _numbers(cost_means(results)),
        **({"head_motion": _head_rows(heads)} if heads else {}),
        "targets": [
            {"target": check.target.text, "value": _number(check.value), "reached": check.reached}
            for check in check_targets(results)
        ],
    }


def write_json(path: Path, results: Sequence[ClipResult], method: str) -> None:
    """Write the results to a JSON file. Missing folders are created. The file is replaced as a whole, or keeps its old content.

    Raises:
        InvalidRequestError: the file cannot be written.
    """
    write_text(path, json.dumps(to_json(results, method), indent=2, allow_nan=False) + "\n", "result")


def check_json_path(path: Path, inputs: Sequence[Path], *, overwrite: bool = False) -> None:
    """Check that the results can be written to a path, and that they replace nothing but older results.

    Args:
        path: the JSON file. `write_json` creates missing folders.
        inputs: files that the evaluation reads.
        overwrite: allow to replace a file of any content.

    Raises:
        InvalidRequestError: `path` is one of the inputs, exists and holds no results of an evaluation, or cannot be written.
    """
    with file_errors_named(path, "json"):
        for file in inputs:
            if path.exists() and file.exists() and path.samefile(file):
                raise InvalidRequestError(f"{path} is read by this command ({file}); give the results another name", field="result")
        if path.exists() and not path.is_file():
            raise InvalidRequestError(f"{path} is not a file; give the name of a JSON file", field="result")
        if path.exists() and not overwrite and not _holds_results(path):
            raise InvalidRequestError(
                f"{path} exists and holds no results of an evaluation; give another name, or replace it with --overwrite",
                field="result",
            )
    check_writable(path, "result")


def _holds_results(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and {"method", "clips"} <= set(document)


async def networks_of(stages: Stages, name: str) -> str:
    """Return a digest of the networks that a method uses: its two models, and the shared files on this machine.

    Raises:
        InvalidRequestError: there is no such method.
        ModelNotFoundError: a stage does not have its part of the method.
    """
    method = method_named(name)
    models = await models_for(stages, method)
    digest = hashlib.sha256()
    for motion in models.motion.models:
        if motion.name == method.motion.name:
            digest.update(f"{motion.name} {motion.version}".encode())
    for renderer in models.render.models:
        if renderer.name == method.renderer.name:
            digest.update(f"{renderer.name} {renderer.sha256} {renderer.backend} {renderer.precision}".encode())
    for path in shared_files():
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def shared_files() -> list[Path]:
    """Return the files that all methods and all metrics use on this machine, the face embedding among them, in order.

    Raises:
        InvalidRequestError: a stage's settings are wrong.
    """
    of_stages = [sorted(weights_of(stage).glob(pattern)) for stage, patterns in _SHARED.items() for pattern in patterns]
    return [path for paths in of_stages for path in paths] + [WEIGHTS]


def evaluation_key(clip: Path, of: Configuration, asked: dict[str, Any], networks: str) -> str:
    """Return the key of the evaluation of one clip.

    Args:
        of: the configuration.
        asked: further things that the metrics depend on, as JSON values: variants, seed, number of foreign speeches, transcript,
            digests of the networks for LPIPS and FID.
        networks: digest of the networks.
    """
    resolved = replace(of, finish=of.finish or method_named(of.method).finish)
    content = {"version": PIPELINE_VERSION, "metrics": METRICS, "clip": sha256_of(clip), "of": asdict(resolved)}
    content |= {"asked": asked, "networks": networks}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class KeptResults:
    """The file of results.

    Args:
        path: the JSON file; it need not exist.
        overwrite: whether a file of other content may be replaced.

    Raises:
        InvalidRequestError: the file is of other content, or cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        check_json_path(path, (), overwrite=overwrite)
        self._path = path
        self._documents: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._documents = {row["key"]: row for row in self._read(overwrite)}

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the document of one clip (clip_document); None: it was not evaluated."""
        row = self._documents.get(key)
        return None if row is None else row["result"]

    def add(self, key: str, of: Configuration, document: dict[str, Any]) -> None:
        """Keep the document of one clip."""
        self._documents[key] = {"key": key, "of": asdict(of), "result": document}

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write the rows of the table and all results.

        Raises:
            InvalidRequestError: the file cannot be written.
        """
        content = {"method": "", "clips": list(self._documents.values()), "rows": list(rows)}
        write_text(self._path, json.dumps(content, indent=2, allow_nan=False) + "\n", "result")

    def _read(self, overwrite: bool) -> list[dict[str, Any]]:
        try:
            clips = json.loads(self._path.read_text(encoding="utf-8"))["clips"]
            return [row for row in clips if {"key", "of", "result"} <= set(row)]
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            if overwrite:
                return []
            raise InvalidRequestError(f"{self._path} holds no results of a table: {problem}", field="table") from problem
