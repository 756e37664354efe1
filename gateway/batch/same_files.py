"""Which places of a manifest are the same file, by names that differ through symbolic links."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from gateway.batch.media import local_path
from gateway.batch.types import Shot

_THREADS: Final = 32
"""Folders and files that are looked at at once: with a network drive, the time goes by in waiting."""


@dataclass(frozen=True, slots=True)
class SameFiles:
    """Files of places. Two places with the same file get the same text.

    Attributes:
        paths: paths by place, without links in their folders. A place that is missing, such as a URL, stands for itself.
        targets: paths of the files that are read, by `paths`. They differ from `paths` where the file itself is a link.
    """

    paths: Mapping[str, str]
    targets: Mapping[str, str]

    def of_output(self, place: str) -> str:
        """Return the file that a film at a place replaces or makes. A film would replace a link, not the file behind it."""
        return self.paths.get(place, place)

    def of_input(self, place: str) -> set[str]:
        """Return the files that are read at a place: the file by its name and, if the file is a link, the file behind it."""
        path = self.paths.get(place, place)
        return {path, self.targets.get(path, path)}


def real_files(shots: Iterable[Shot]) -> SameFiles:
    """Return the files of all places that shots name. Each folder and each input is looked at once. Blocks."""
    shots = tuple(shots)
    read = {place for shot in shots for place in (shot.footage, shot.speech, shot.consent) if place is not None}
    local = {place: path for place in read.union(shot.output for shot in shots) if (path := local_path(place)) is not None}
    folders = _looked_at(_real, {os.path.dirname(path) for path in local.values()})
    paths = {place: os.path.join(folders[os.path.dirname(path)], os.path.basename(path)) for place, path in local.items()}
    return SameFiles(paths, _looked_at(_target, {paths[place] for place in read if place in paths}))


def _looked_at(look: Callable[[str], str], paths: Collection[str]) -> dict[str, str]:
    """Return what `look` returns, by path."""
    every = list(paths)
    # One share a thread: to hand 100,000 paths over one by one takes longer than to look at them.
    shares = [every[start::_THREADS] for start in range(_THREADS)]
    with ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(lambda share: [look(path) for path in share], shares)
        return {path: one for share, ones in zip(shares, found, strict=True) for path, one in zip(share, ones, strict=True)}


def _target(path: str) -> str:
    return _real(path) if os.path.islink(path) else path


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        # No file can have this name, which the check of each file tells.
        return path
