"""The stages that a training set needs, in this process; the others may have no weights yet."""

from __future__ import annotations

from gateway.stages.local import LocalStages, compose_stages


def local_stages(*, with_lags: bool) -> LocalStages:
    """Face and audio, and motion where its sync network is asked for lags; not warm yet."""
    return LocalStages(compose_stages(names=("audio", "face", "motion") if with_lags else ("audio", "face")))
