"""`dubstage evaluate --table`: what each clip is called, and what is not evaluated again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import pytest

from gateway.dub.choices import EnrolOptions
from gateway.settings import GatewaySettings
from research.cli import evaluate_run
from research.cli.evaluate_run import EvaluationRequest, TableChoice, write_table
from research.evaluation.types import METRICS, ClipResult, VariantScores

T = TypeVar("T")


class NoStages:
    """Stands for the stages, which these tests do not ask for anything."""

    stages = None

    def __init__(self, settings: GatewaySettings) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def run(self, job: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(job)


class Evaluations:
    """Evaluations of two clips of one file name, without stages. The figures of a clip are the number in its folder's name."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.clips = [folder / name / "bbaf2n.mp4" for name in ("s1", "s2")]
        for clip in self.clips:
            clip.parent.mkdir()
            clip.write_text(clip.parent.name)
        self.transcript = "bin blue"
        self.evaluated: list[Path] = []

        async def networks_of(*_: object) -> str:
            return "networks"

        def evaluate_on(host: object, request: object, clip: Path, *_: object) -> ClipResult:
            self.evaluated.append(clip)
            figure = float(clip.parent.name[1:])
            full = VariantScores(dict.fromkeys(METRICS, figure), {}, {}, 10, 0, 0)
            return ClipResult(clip.name, cast("Any", 25), 0, (), {"full": full})

        monkeypatch.setattr(evaluate_run, "StageHost", NoStages)
        monkeypatch.setattr(evaluate_run, "networks_of", networks_of)
        monkeypatch.setattr(evaluate_run, "evaluate_on", evaluate_on)
        monkeypatch.setattr(evaluate_run, "check_clips", lambda clips: dict.fromkeys(clips, self.transcript))

    def write(self, networks: dict[str, str] | None = None) -> int:
        """Write the table, and return how many clips were evaluated for it."""
        self.evaluated.clear()
        request = EvaluationRequest(
            clips=self.clips,
            method="ugc",
            variants=("full",),
            wrong_count=10,
            enrol=EnrolOptions(),
            perceptual=None,
            json_file=self.folder / "t.json",
            perceptual_sha256=networks or {},
        )
        choice = TableChoice(all_methods=False, ablation=None, weights=())
        write_table(GatewaySettings(), request, choice, self.folder / "t.md", overwrite=False)
        return len(self.evaluated)


@pytest.fixture
def evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluations:
    return Evaluations(tmp_path, monkeypatch)


def test_clips_of_one_file_name_count_both(evaluations: Evaluations) -> None:
    evaluations.write()
    (row,) = json.loads((evaluations.folder / "t.json").read_text(encoding="utf-8"))["rows"]
    assert row["clips"] == ["s1/bbaf2n.mp4", "s2/bbaf2n.mp4"]
    assert (row["mean"]["mouth_psnr_db"], row["worst"]["mouth_psnr_db"]) == (1.5, 1.0)
    assert "Clips (2): s1/bbaf2n.mp4, s2/bbaf2n.mp4." in (evaluations.folder / "t.md").read_text(encoding="utf-8")


def test_what_is_known_is_not_evaluated_again(evaluations: Evaluations) -> None:
    assert [evaluations.write(), evaluations.write()] == [2, 0]


def test_changed_request_evaluated_again(evaluations: Evaluations) -> None:
    """Other words or other supplied networks are evaluated again."""
    evaluations.write()
    evaluations.transcript = "lay green"
    assert evaluations.write() == 2
    assert [evaluations.write(networks) for networks in ({"lpips": "a"}, {"lpips": "b"}, {"fid": "b"})] == [2, 2, 2]
    assert evaluations.write({"lpips": "a"}) == 0
