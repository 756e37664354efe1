"""A batch as a job of OpenCue (opencue.io): one layer with one frame for each row. OpenCue's packages write and submit it."""

from __future__ import annotations

from typing import Any, Final

from gateway.batch.types import MAX_ATTEMPTS
from services.common.errors import BackendUnavailableError, InvalidRequestError

_TIMEOUT_S: Final = 60


def opencue_job(name: str, rows: int, batches_url: str, *, show: str, shot: str, cores: int) -> str:
    """Return the XML of a job that dubs each row of a batch once. No Cuebot is needed.

    Args:
        name: name of the batch.
        rows: number of rows.
        batches_url: store of batches, as the hosts of the farm reach the store.
        show, shot: names in OpenCue.
        cores: processor cores of a frame.

    Raises:
        InvalidRequestError: OpenCue's packages are not installed.
    """
    outline, _ = _packages()
    job = outline.Outline(name, show=show, shot=shot)
    command = ["dubstage", "batch", "run", name, "--index", "#IFRAME#"]
    layer = outline.modules.shell.Shell("dub", command=command, range=f"0-{rows - 1}", threads=cores)
    layer.set_env("DUBSTAGE_BATCHES_URL", batches_url)
    job.add_layer(layer)
    return str(outline.cuerun.OutlineLauncher(job, maxretries=MAX_ATTEMPTS).serialize(use_pycuerun=False))


def submit_to_opencue(job: str) -> list[str]:
    """Submit the XML of a job to the Cuebot of `CUEBOT_HOSTS` or of OpenCue's configuration, and return the names of the jobs.

    Raises:
        InvalidRequestError: OpenCue's packages are not installed, or Cuebot refuses the job.
        BackendUnavailableError: no Cuebot answers.
    """
    _, opencue = _packages()
    opencue.Cuebot.setTimeout(_TIMEOUT_S)
    try:
        return list(opencue.api.launchSpec(job))
    except (opencue.exception.ConnectionException, opencue.exception.DeadlineExceededException) as problem:
        raise BackendUnavailableError(f"no Cuebot answers: {problem}; set CUEBOT_HOSTS, or give --output FILE") from problem
    except opencue.exception.CueException as problem:
        raise InvalidRequestError(f"Cuebot refuses the job: {problem}", field="show") from problem


def _packages() -> tuple[Any, Any]:
    try:
        import opencue
        import outline.cuerun
        import outline.modules.shell
    except ModuleNotFoundError as problem:
        raise InvalidRequestError(
            f"this command needs the package {problem.name}, which is not installed here: pip install 'dubstage-suite[opencue]'",
            field="installation",
        ) from problem
    return outline, opencue
