"""Dubs of the beginning of clips, with their own sound, by the stages and the signing key of this installation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gateway.dub.enrol import EnrolOptions
from gateway.dub.job import DubJob
from gateway.dub.outcome import DubOutcome
from gateway.dub.request import DubRequest
from gateway.provenance.installation import open_sealer
from gateway.provenance.seal import Sealer
from gateway.settings import GatewaySettings
from gateway.stages.interface import Stages
from gateway.stages.opening import open_stages
from services.common.store.artefacts import ArtefactStore


@dataclass(frozen=True, slots=True)
class Studio:
    """Stages, folders and settings that dubs are made with.

    Attributes:
        folder: for jobs, artefacts and films.
        sealer: signs films and marks mouths, with the key of this installation.
        threads: threads of decoder and encoder.
    """

    stages: Stages
    folder: Path
    sealer: Sealer
    threads: int

    def job(self, footage: Path, output: Path, method: str, *, personalize: bool, watermark: bool = True) -> DubJob:
        """Return a dub of footage with its own sound."""
        enrol = EnrolOptions(personalize_renderer=personalize, personalize_motion=personalize)
        request = DubRequest(
            footage=footage, speech=None, output=output, method=method, enrol=enrol, threads=self.threads, overwrite=True
        )
        sealer = self.sealer if watermark else replace(self.sealer, watermark_key=None)
        return DubJob(request, self.stages, ArtefactStore(str(self.folder / "artefacts")), self.folder / "jobs", sealer=sealer)

    async def dub(self, footage: Path, output: Path, method: str, *, personalize: bool) -> DubOutcome:
        """Dub footage with its own sound, and keep the film alone.

        Raises:
            DubstageError: the footage cannot be dubbed.
        """
        job = self.job(footage, output, method, personalize=personalize)
        try:
            return await job.run(lambda *_: None)
        finally:
            job.discard()


@asynccontextmanager
async def open_studio(settings: GatewaySettings) -> AsyncIterator[Studio]:
    """Open the stages, with a folder that is removed in the end.

    Raises:
        DubstageError: the stages cannot be opened, or the key cannot be read.
    """
    with TemporaryDirectory(prefix="dubstage-bench-") as folder:
        own = settings.model_copy(update={"artefacts_url": str(Path(folder) / "artefacts"), "watermark": True})
        async with open_stages(own) as stages:
            yield Studio(stages, Path(folder), open_sealer(own), own.compute_threads)
