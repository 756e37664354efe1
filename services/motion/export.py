"""Export trained predictors: `python -m services.motion.export [--predictor NAME] [--run NAME=FOLDER ...]`.

Each export writes ONNX files, constants and a report (configuration, sha256, parity of PyTorch and ONNX Runtime) into the folder of
weights. If the parity fails, the export is refused and writes nothing. Without --predictor, the command exports every predictor
whose training runs are in their default folders.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from services.motion.models import WEIGHTS
from services.motion.predictors.registry import PREDICTORS


def export(name: str, runs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Export one predictor.

    Args:
        name: the predictor's name.
        runs: folders of training runs by name. Runs that are not given are in their default folders.
        out: folder that gets the files.

    Returns:
        The report.

    Raises:
        RuntimeError: the predictor has no such run, a run has no `best.pt`, or an exported network is refused.
    """
    module = importlib.import_module(PREDICTORS[name].export)
    unknown = set(runs) - set(module.RUNS)
    if unknown:
        raise RuntimeError(f"predictor {name} has no training run {sorted(unknown)}, only {sorted(module.RUNS)}")
    folders = {run: runs.get(run, Path(default)) for run, default in module.RUNS.items()}
    missing = [f"{run}={folder}" for run, folder in folders.items() if not (folder / "best.pt").is_file()]
    if missing:
        raise RuntimeError(
            f"predictor {name}: no best.pt of the training runs {', '.join(missing)}; train first (docs/training.md)"
        )
    report: dict[str, Any] = module.export(folders, out)
    return report


def _run(text: str) -> tuple[str, Path]:
    name, found, folder = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)


def main() -> int:
    """Run the command line; return 1 if an export is refused or nothing is exported."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictor", choices=tuple(PREDICTORS), help="Predictor to export. Default: every trained predictor.")
    parser.add_argument(
        "--run", type=_run, action="append", default=[], metavar="NAME=FOLDER", help="Folder of a training run; needs --predictor."
    )
    parser.add_argument("--out", type=Path, default=WEIGHTS, help=f"Folder that gets the files. Default: {WEIGHTS}.")
    arguments = parser.parse_args()
    if arguments.run and not arguments.predictor:
        parser.error("--run needs --predictor")
    names = [arguments.predictor] if arguments.predictor else list(PREDICTORS)
    exported, refused = 0, 0
    for name in names:
        if not arguments.predictor and not _is_trained(name):
            print(f"{name}: not trained, skipped", file=sys.stderr)
            continue
        try:
            report = export(name, dict(arguments.run), arguments.out)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            refused += 1
            continue
        print(json.dumps({"predictor": name, "version": report["version"], "parity": report["parity"]}))
        exported += 1
    if not exported and not refused:
        print("no predictor is trained: train first (docs/training.md)", file=sys.stderr)
    return 0 if exported and not refused else 1


def _is_trained(name: str) -> bool:
    runs: dict[str, str] = importlib.import_module(PREDICTORS[name].export).RUNS
    return all((Path(folder) / "best.pt").is_file() for folder in runs.values())


if __name__ == "__main__":
    sys.exit(main())
