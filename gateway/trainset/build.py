"""A whole training set: every clip of a folder, in several processes, and the manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.trainset.catalogue import list_clips
from gateway.trainset.clip import Networks
from gateway.trainset.corpus import read_corpus
from gateway.trainset.made import Made, Say
from gateway.trainset.output_folder import Refusal, in_output, open_output
from gateway.trainset.stages import networks_digest
from gateway.trainset.tasks import Tasks
from gateway.trainset.worker import clip_worker
from gateway.trainset.workers import Died, in_processes
from services.common.errors import NoUsableFootage
from services.training.trainset.manifest import ClipRow

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, and the numbers of clips done and of all clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    """What a training set is made from, and how.

    Attributes:
        folder: folder of the clips.
        output: folder of the training set.
        splits: splits to take in.
        corpus: corpus file; None: there is none.
        processes: processes that make clips; 0: this process.
        with_lags: whether lags are measured.
    """

    folder: Path
    output: Path
    splits: frozenset[str] = frozenset({"train", "val"})
    corpus: Path | None = None
    processes: int = 1
    with_lags: bool = True


def build(order: BuildOrder, progress: Progress, say: Say) -> tuple[list[ClipRow], list[Refusal]]:
    """Build or complete a training set, and return the rows of its manifest and what was left out.

    Finished clips are kept, so the build can be stopped at any time. A clip that cannot be used is left out, with a reason.

    Raises:
        InvalidRequest: the folder holds no clips, the corpus file is wrong, or the set cannot be written.
        NoUsableFootage: no clip can be used.
        ModelNotFound: a stage's folder of weights lacks a network.
        StorageFull: no space is left for the set.
    """
    corpus = None if order.corpus is None else read_corpus(order.corpus, order.folder)
    listing = list_clips(order.folder, order.splits, corpus)
    networks = Networks(audio=networks_digest("audio"), lag=networks_digest("motion") if order.with_lags else "")
    with open_output(order.output) as working, in_output(order.output):
        made = Made(order.output, listing.entries, listing.refused, say, with_lags=order.with_lags)
        tasks = Tasks(order.folder, order.output, listing.entries, made.refuse_unread)
        start = partial(clip_worker, networks, order.folder, order.output, working)
        progress("clips", 0, len(listing.entries))
        try:
            for task, result in in_processes(iter(tasks), order.processes, start):
                made.add(task, Refusal(task.file, str(result)) if isinstance(result, Died) else result)
                progress("clips", made.num_done, len(listing.entries))
        finally:
            # What is finished can be used, even if an error or Ctrl-C ends the build.
            rows = made.write()
        if not rows:
            reason = made.refusals[0]
            raise NoUsableFootage(
                f"{order.folder}: none of the {len(listing.entries)} clips can be used; {reason.file}: {reason.reason}",
                subject=str(order.folder),
            )
        for note in (*made.notes, *tasks.notes()):
            say(note)
        return rows, made.refusals
