"""Results of many evaluations in one JSON file, so that a clip that was evaluated is not evaluated again.

The file is a list of evaluations, each with a key. The key is a digest of all that the figures depend on: the clip, the
configuration, the request with the words of the clip, and the networks. The file is replaced as a whole after each evaluation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from gateway.evaluation.cases import Configuration
from gateway.evaluation.result_file import write_whole
from gateway.evaluation.result_json import check_json_place
from gateway.evaluation.types import METRICS
from gateway.methods import method_named
from gateway.pipeline.dub_files import sha256_of
from gateway.pipeline.job_key import PIPELINE_VERSION
from gateway.stages.interface import Stages
from gateway.stages.method_check import models_for
from gateway.stages.weights import weights_of
from services.common.errors import InvalidRequest

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
        clip: the clip.
        of: the configuration.
        asked: further things that the figures depend on, as JSON values: variants, seed, number of foreign speeches, transcript,
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
        write_whole(self._path, json.dumps(content, indent=2, allow_nan=False) + "\n", "json")

    def _read(self, overwrite: bool) -> list[dict[str, Any]]:
        try:
            clips = json.loads(self._path.read_text(encoding="utf-8"))["clips"]
            return [row for row in clips if {"key", "of", "result"} <= set(row)]
        except (ValueError, KeyError, TypeError, RecursionError) as problem:
            if overwrite:
                return []
            raise InvalidRequest(f"{self._path} holds no results of a table: {problem}", field="table") from problem
