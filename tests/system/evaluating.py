"""Evaluations of several methods on the same clips. What is the same work for every method is done once."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from gateway.dub.choices import EnrolOptions
from gateway.dub.learn.analysis import FootageAnalysis
from gateway.dub.state.workspace import Workspace
from research.evaluation.clip import check_clip
from research.evaluation.protocol import EvaluationSettings, evaluate_clip
from research.evaluation.session import PipelineSession
from research.evaluation.sync import StageRetrack
from research.evaluation.types import ClipResult
from research.stage_host import StageHost
from services.common.array_types import Float32, UInt8
from services.common.methods import METHODS


@dataclass
class ReadOnce:
    """Face tracker for crops that remembers what it read: the crops of the real video are the same for every method."""

    retrack: StageRetrack
    read: dict[bytes, Float32] = field(default_factory=dict)

    def __call__(self, crops: UInt8) -> Float32:
        key = crops.tobytes()
        if key not in self.read:
            self.read[key] = self.retrack(crops)
        return self.read[key].copy()


class Evaluator:
    """Evaluates methods on clips. Each clip is tracked once; every evaluation begins with a copy of the clip's face records."""

    def __init__(self, host: StageHost, folder: Path) -> None:
        self._host, self._folder = host, folder
        self._retrack = ReadOnce(StageRetrack(host))
        self._tracked: dict[Path, Path] = {}

    def __call__(self, method: str, clip: Path, options: EnrolOptions, settings: EvaluationSettings) -> ClipResult:
        folder = self._folder / f"{clip.stem}-{method}"
        shutil.copytree(self._records(clip), folder)
        session = PipelineSession(self._host, clip, clip.name, folder, method, options)
        try:
            return evaluate_clip(session, self._retrack, settings=settings)
        finally:
            session.close()
            shutil.rmtree(folder)

    def _records(self, clip: Path) -> Path:
        """Return a folder with the face records of a clip, as an interrupted evaluation leaves them."""
        if clip not in self._tracked:
            workspace = Workspace(self._folder / clip.stem)
            video, method = check_clip(clip), METHODS["dubstage"]
            shot = self._host.run(FootageAnalysis.open(self._host.stages, method, video, workspace, threads=2))
            self._host.run(shot.track(lambda _: None))
            workspace.close()
            self._tracked[clip] = workspace.folder
        return self._tracked[clip]
