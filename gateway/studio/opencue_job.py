"""A batch as a job of OpenCue (opencue.io): one layer with one frame for each row. OpenCue's packages write and submit the job."""

from __future__ import annotations

from gateway.batch.types import MAX_ATTEMPTS
from services.common.errors import BackendUnavailableError, InvalidRequestError


def submit_to_opencue(name: str, rows: int, *, show: str, shot: str, cores: int) -> list[str]:
    """Submit a job that dubs each row of a batch once, and return the names of the jobs.

    `CUEBOT_HOSTS` or OpenCue's configuration names the Cuebot. The hosts of the farm have the settings of the installation in their
    environment, such as `DUBSTAGE_DATABASE_URL`.

    Args:
        name: name of the batch.
        rows: number of rows.
        show, shot: names in OpenCue.
        cores: processor cores of a frame.

    Raises:
        InvalidRequestError: OpenCue's packages are not installed, or Cuebot refuses the job.
        BackendUnavailableError: no Cuebot answers.
    """
    try:
        import opencue
        from outline import Outline
        from outline.cuerun import OutlineLauncher
        from outline.modules.shell import Shell
    except ModuleNotFoundError as problem:
        raise InvalidRequestError(
            f"this command needs the package {problem.name}, which is not installed here: pip install 'dubstage-suite[opencue]'",
            field="installation",
        ) from problem
    job = Outline(name, show=show, shot=shot)
    command = ["dubstage", "batch", "run", name, "--index", "#IFRAME#"]
    layer = Shell("dub", command=command, range=f"0-{rows - 1}", threads=cores)
    job.add_layer(layer)
    opencue.Cuebot.setTimeout(60)
    try:
        return list(opencue.api.launchSpec(OutlineLauncher(job, maxretries=MAX_ATTEMPTS).serialize(use_pycuerun=False)))
    except (opencue.exception.ConnectionException, opencue.exception.DeadlineExceededException) as problem:
        raise BackendUnavailableError(f"no Cuebot answers: {problem}; set CUEBOT_HOSTS") from problem
    except opencue.exception.CueException as problem:
        raise InvalidRequestError(f"Cuebot refuses the job: {problem}", field="show") from problem
