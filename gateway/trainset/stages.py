"""The stages that a training set needs, in this process. Other stages may have no weights yet."""

from __future__ import annotations

from gateway.stages.local import LocalStages, compose_stages


def local_stages(*, with_lags: bool) -> LocalStages:
    """Return the face and audio stages, and the motion stage if lags are measured. The stages are not warm yet."""
    return LocalStages(compose_stages(names=("audio", "face", "motion") if with_lags else ("audio", "face")))
