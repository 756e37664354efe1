"""Command lines in processes of their own, forked from one that has imported the command line already."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.forked import context, redirect
from tests.hostile.case import EXIT_PERSON, EXIT_WRONG, WRITTEN, Fault, Outcome
from tests.hostile.machine import MACHINE

PEAK_BYTES = 1536 << 20
"""Resident memory that a command line with remote stages may take at most, its child processes each too."""
SHARES_THE_STORE = "CAMPAIGN_SHARES_THE_STORE"
"""Variable of command lines that use the store of the campaign's stages."""
LIMIT_S = 225.0
"""Time until a command line counts as hanging, on a free machine."""
LIBRARIES_OWN = ("pymp-", ".ses")
"""Beginnings of names that libraries leave among the temporary files: Python's multiprocessing and ONNX Runtime."""
BAD_TEXT = ("Traceback (most recent call last)", "this should not happen", "During handling of the above", "object at 0x")


def _child(arguments: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
    os.setsid()
    redirect(Path(folder, "stdout"), Path(folder, "stderr"))
    os.environ.update(environment)
    os.chdir(f"{folder}/cwd")
    sys.argv = ["dubstage", *arguments]
    from gateway.actors import store
    from gateway.cli.app import run

    if environment.get(SHARES_THE_STORE):
        # Each case has a database of its own, and all of them the stages' store, which a store refuses.
        setattr(store, "claim_store", lambda *_: None)  # noqa: B010 - mypy sees no such name
    code = 1
    try:
        code = run(list(arguments))
    finally:
        peaks = [resource.getrusage(who).ru_maxrss << 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        Path(folder, "result").write_text(json.dumps({"code": code, "peak": max(peaks)}))
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def dubstage(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    limit_s: float = LIMIT_S,
    stop_when: Callable[[], bool] | None = None,
) -> Outcome:
    """Run one command line in the sandbox `folder`; the outcome has faults of how it ended.

    Args:
        arguments: behind `dubstage`.
        folder: with `cwd`, `home`, `tmp`, `out` and `data`.
        environment: variables besides the sandbox's own.
        limit_s: seconds until the command line hangs, on a free machine.
        stop_when: it is told to end (SIGTERM) when this is true; None: never.
    """
    own = {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "XDG_DATA_HOME": str(folder / "home" / "data"),
        "DUBSTAGE_DATA_DIR": str(folder / "data"),
        "DUBSTAGE_ARTEFACTS_URL": str(folder / "artefacts"),
        "COLUMNS": "200",
        **environment,
    }
    process = context().Process(target=_child, args=(list(arguments), str(folder), own), daemon=True)
    begin = time.monotonic()
    process.start()
    if stop_when is not None:
        while process.exitcode is None and not stop_when() and time.monotonic() < begin + limit_s:
            process.join(0.02)
        process.terminate()
    while process.exitcode is None and time.monotonic() - begin < MACHINE.bound(limit_s, since=begin):
        process.join(5.0)
    if process.exitcode is None:
        process.kill()
        process.join()
        return Outcome("hang", _said(folder), (Fault("hang", f"no end after {time.monotonic() - begin:.0f} s"),))
    seconds, said = time.monotonic() - begin, _said(folder)
    faults = [Fault("crash" if text.startswith("Trace") else "unnamed", said[-500:]) for text in BAD_TEXT if text in said][:1]
    code, result = process.exitcode, folder / "result"
    if result.exists():
        # Written by the process itself: threads that wait for several children at once may be told another code.
        told = json.loads(result.read_text())
        code = told["code"]
        if told["peak"] > PEAK_BYTES:
            faults.append(Fault("growth", f"{told['peak'] >> 20} MiB of resident memory"))
    elif stop_when is None and "serve" not in arguments:  # a server takes the place of the command line
        faults.append(Fault("crash", f"ended with {code} in the middle: {said[-300:]}"))
    return Outcome(f"exit {code}", said, tuple(faults), seconds)


def _said(folder: Path) -> str:
    parts = [
        (folder / name).read_bytes()[-20_000:].decode(errors="replace") for name in ("stdout", "stderr") if (folder / name).exists()
    ]
    return "\n".join(part.strip() for part in parts if part.strip())


def leftovers(folder: Path, outcome: Outcome, *, output: Path | None = None, kept: Sequence[Path] = ()) -> tuple[Fault, ...]:
    """Return the files that a command line wrongly left in its sandbox.

    Args:
        folder: the sandbox.
        outcome: of the command line.
        output: what it was to write; there only where the command wrote a video.
        kept: further files and folders that may be there.
    """
    faults = [Fault("leftover", f"in the folder of temporary files: {name}") for name in _names(folder / "tmp")]
    # Containers that hold no manifest have it in a file beside them.
    written = [output, output.with_name(f"{output.name}.c2pa")] if output is not None and outcome.code in WRITTEN else []
    allowed = {*kept, *written}
    for path in files_below(folder / "out"):
        if not any(path == one or one in path.parents for one in allowed):
            faults.append(Fault("leftover", f"beside the output: {path.name!r}"))
    if outcome.code in {*WRITTEN, EXIT_WRONG, EXIT_PERSON}:
        faults += [Fault("leftover", f"a job folder after {outcome.code}: {name}") for name in _names(folder / "data" / "jobs")]
    return tuple(faults)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(LIBRARIES_OWN)) if folder.is_dir() else []


def files_below(folder: Path) -> Iterator[Path]:
    """All that lies below a folder and is no folder."""
    for root, _, names in os.walk(folder):
        for name in names:
            yield Path(root, name)
