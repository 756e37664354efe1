"""The footage of an enrolment: one file, or several takes that are joined to one film in the enrolment's folder."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

from gateway.ahead import in_thread, stoppable
from gateway.media.takes import TAKES_SUFFIX, Take, join_takes, one_after_the_other
from gateway.media.types import MediaInfo
from gateway.pipeline.disk import job_folder
from gateway.pipeline.dub_files import sha256_of
from gateway.pipeline.progress import OnProgress
from gateway.pipeline.shot import SOUND_SECONDS
from gateway.pipeline.workspace import Workspace
from services.common.errors import Cancelled

_BYTES_PER_PIXEL: Final = 0.1
"""About how much of the disk a pixel of the joined film takes."""


def digests_of_files(files: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each file, hexadecimal.

    Raises:
        MediaUnsupported: a file is missing, no regular file, empty, or may not be read.
    """
    return [sha256_of(file) for file in files]


def joined_digest(digests: Sequence[str]) -> str:
    """Return the SHA-256 of footage from those of its files, hexadecimal: that of the only file, or that of the joined digests."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


async def one_film(infos: Sequence[MediaInfo], workspace: Workspace, threads: int, on_progress: OnProgress) -> MediaInfo:
    """Return the only take, or the film of all takes, which is written into the workspace's folder.

    The first SOUND_SECONDS of all takes together are joined: enrolment hears no more than that.

    Args:
        infos: the takes, at least one.
        workspace: of the enrolment.
        threads: threads of decoder and encoder.
        on_progress: called with every frame.

    Raises:
        InvalidRequest: a take is a single picture, there are too many takes, or the film would be larger than a job may be.
        MediaUnsupported: a take breaks off or cannot be decoded.
        StorageFull: no space is left.
    """
    if len(infos) == 1:
        return infos[0]
    takes = one_after_the_other(infos, Fraction(SOUND_SECONDS))
    await in_thread(workspace.allowance.check, _size(takes), "the joined footage")
    stopped = threading.Event()

    def on_frame(done: int, total: int) -> None:
        if stopped.is_set():
            raise Cancelled("the enrolment is cancelled")
        on_progress("join", done, total)

    def join() -> MediaInfo:
        with job_folder(workspace.folder):
            return join_takes(takes, workspace.folder / f"takes{TAKES_SUFFIX}", threads=threads, on_frame=on_frame)

    return await stoppable(join, stopped.set)


def _size(takes: Sequence[Take]) -> int:
    """Return about how many bytes the joined film takes."""
    sizes = [take.info.video.orientation.upright_size for take in takes]
    pixels = max(width for width, _ in sizes) * max(height for _, height in sizes)
    return int(sum(take.num_frames for take in takes) * pixels * _BYTES_PER_PIXEL)
