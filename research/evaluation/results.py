"""Results of many evaluations in one JSON file, so that a clip that was evaluated is not evaluated again.

The file is a list of evaluations, each with a key. The key is a digest of all that the figures depend on: the clip, the
configuration, the request with the words of the clip, and the networks. The file is replaced as a whole after each evaluation.

The place of the file is checked before the work begins.

An evaluation is written as JSON: {"clips": [{"clip", "lag_frames", "variants": {NAME: {metric: number}}}]}.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from gateway.dub.job_key import PIPELINE_VERSION
from gateway.dub.request import sha256_of
from gateway.stages.interface import Stages
from gateway.stages.method_check import models_for
from gateway.stages.opening import weights_of
from research.evaluation.cases import Configuration
from research.evaluation.targets import check_targets, cost_means, head_means, variant_means
from research.evaluation.types import METRICS, VARIANTS, ClipResult, VariantScores
from services.common.errors import InvalidRequest
from services.common.files import PARTIAL, write_whole
from services.common.methods import method_named


def check_writable(path: Path, field: str) -> None:
    """Check that a file can be written. Missing folders are no obstacle: `write_text` creates them.

    Args:
        field: option that names the file.

    Raises:
        InvalidRequest: the file cannot be written.
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
        InvalidRequest: the file cannot be written.
    """
    with file_errors_named(path, field):
        write_whole(path, text.encode(), parents=True)


@contextmanager
def file_errors_named(path: Path, field: str) -> Iterator[None]:
    """Turn an error of the operating system into a message that names the file.

    Raises:
        InvalidRequest: the block raised an OSError.
    """
    try:
        yield
    except OSError as problem:
        raise InvalidRequest(
            f"{path} cannot be written: {problem.strerror or problem}; give another name", field=field
        ) from problem


_DIGITS = 5


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
        InvalidRequest: the file cannot be written.
    """
    write_text(path, json.dumps(to_json(results, method), indent=2, allow_nan=False) + "\n", "json")


def check_json_place(path: Path, inputs: Sequence[Path], *, overwrite: bool = False) -> None:
    """Check that the results can be written to a place, and that they replace nothing but older results.

    Args:
        path: the JSON file. `write_json` creates missing folders.
        inputs: files that the evaluation reads.
        overwrite: allow to replace a file of any content.

    Raises:
        InvalidRequest: `path` is one of the inputs, exists and holds no results of an evaluation, or cannot be written.
    """
    with file_errors_named(path, "json"):
        for file in inputs:
            if path.exists() and file.exists() and path.samefile(file):
                raise InvalidRequest(f"{path} is read by this command ({file}); give the results another name", field="json")
        if path.exists() and not path.is_file():
            raise InvalidRequest(f"{path} is not a file; give the name of a JSON file", field="json")
        if path.exists() and not overwrite and not _holds_results(path):
            raise InvalidRequest(
                f"{path} exists and holds no results of an evaluation; give another name, or replace it with --overwrite",
                field="json",
            )
    check_writable(path, "json")


def _holds_results(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and {"method", "clips"} <= set(document)


SHARED_STAGES: Final = ("audio", "texture")
"""Stages whose networks all methods use."""


async def networks_of(stages: Stages, name: str) -> str:
    """Return a digest of the networks that a method uses: its two models, and the files of the shared stages on this machine.

    Raises:
        InvalidRequest: there is no such method.
        ModelNotFound: a stage does not have its part of the method.
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
    for stage in SHARED_STAGES:
        for path in sorted(weights_of(stage).iterdir()):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def evaluation_key(clip: Path, of: Configuration, asked: dict[str, Any], networks: str) -> str:
    """Return the key of the evaluation of one clip.

    Args:
        of: the configuration.
        asked: further things that the metrics depend on, as JSON values: variants, seed, number of foreign speeches, transcript,
            digests of the networks for LPIPS and FID.
        networks: digest of the networks.
    """
    content = {"version": PIPELINE_VERSION, "metrics": METRICS, "clip": sha256_of(clip), "of": asdict(of)}
    content |= {"asked": asked, "networks": networks}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class KeptResults:
    """The file of results.

    Args:
        path: the JSON file; it need not exist.
        overwrite: whether a file of other content may be replaced.

    Raises:
        InvalidRequest: the file is of other content, or cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        check_json_place(path, (), overwrite=overwrite)
        self._path = path
        self._documents: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._documents = {row["key"]: row for row in self._read(overwrite)}

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the document of one clip (result_json.clip_document); None: it was not evaluated."""
        row = self._documents.get(key)
        return None if row is None else row["result"]

    def add(self, key: str, of: Configuration, document: dict[str, Any]) -> None:
        """Keep the document of one clip."""
        self._documents[key] = {"key": key, "of": asdict(of), "result": document}

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write the rows of the table and all results.

        Raises:
            InvalidRequest: the file cannot be written.
        """
        content = {"method": "", "clips": list(self._documents.values()), "rows": list(rows)}
        write_text(self._path, json.dumps(content, indent=2, allow_nan=False) + "\n", "json")

    def _read(self, overwrite: bool) -> list[dict[str, Any]]:
        try:
            clips = json.loads(self._path.read_text(encoding="utf-8"))["clips"]
            return [row for row in clips if {"key", "of", "result"} <= set(row)]
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            if overwrite:
                return []
            raise InvalidRequest(f"{self._path} holds no results of a table: {problem}", field="table") from problem
