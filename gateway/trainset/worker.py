"""A process that makes clips: its stages, and what becomes of errors."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
from threadpoolctl import threadpool_limits

from gateway.trainset.clip import ClipMaker, ClipTask, Networks
from gateway.trainset.output_folder import Refusal, in_output
from gateway.trainset.record import ClipRecord
from gateway.trainset.stages import StagesOnDemand
from services.common.errors import DubstageError, NoUsableFootage, RequestError


@contextmanager
def clip_worker(
    networks: Networks, folder: Path, output: Path, working: Path
) -> Iterator[Callable[[ClipTask], ClipRecord | Refusal]]:
    """Open the stages, and yield the function that makes a clip.

    The function returns a refusal for a clip that cannot be used, whatever the reason. It raises DubstageError if no further clip
    could be made either: the disk is full, or a network is missing.
    """
    cv2.setNumThreads(1)
    with threadpool_limits(1), asyncio.Runner() as runner:
        stages = StagesOnDemand()
        maker = ClipMaker(stages, networks, folder, output, working)
        try:
            yield lambda task: runner.run(_made(maker, task, output))
        finally:
            runner.run(stages.aclose())


async def _made(maker: ClipMaker, task: ClipTask, output: Path) -> ClipRecord | Refusal:
    try:
        with in_output(output):
            return await maker.make(task)
    except (RequestError, NoUsableFootage) as problem:
        return Refusal(task.file, problem.message)
    except DubstageError:
        raise
    except OSError as problem:
        return Refusal(task.file, f"it cannot be read or written: {problem}")
    except Exception as problem:
        where = traceback.extract_tb(problem.__traceback__)[-1]
        return Refusal(task.file, f"this should not happen ({where.name}): {type(problem).__name__}: {problem}")
