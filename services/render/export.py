"""Export the networks: `python -m services.render.export`, or one of them: `python -m services.render.export --model NAME`.

Writes `MODEL.onnx` (weights in half precision, arithmetic in the backend's precision), `MODEL.export.json` (the export sheet:
inputs, outputs, digests and the parity report) and, with --int8, `MODEL.int8.onnx`. An export that does not agree with PyTorch
fails and writes no file.

`python -m services.render.export --triton DIR` writes Triton's model repository from exported networks, and exports no network.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from services.common.errors import DubstageError
from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.renderer import ExportJob
from services.render.renderers.registry import RENDERERS, renderer_named
from services.render.triton.repository import add_arguments, spec_of, write_repository


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help=f"model to export: {', '.join(sorted(RENDERERS))}. Default: all models")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="weights (.safetensors). Default: those that come with dubstage"
    )
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS_FOLDER, metavar="FOLDER", help="folder for the files. Default: %(default)s"
    )
    parser.add_argument(
        "--int8", type=Path, metavar="PICTURES.npy", help="write the int8 variant too, calibrated with uint8 [N, H, W, C] pictures"
    )
    parser.add_argument("--triton", type=Path, metavar="DIR", help="write Triton's model repository from the models in --out")
    add_arguments(parser)
    given = parser.parse_args()
    if given.model is None and (given.weights or given.int8):
        parser.error("--weights and --int8 belong to one model: name the model with --model")
    try:
        if given.triton is not None:
            print(*write_repository(given.triton, given.out, spec_of(given)), sep="\n")
            return
        calibration = None if given.int8 is None else np.load(given.int8)
        for name in sorted(RENDERERS) if given.model is None else [given.model]:
            print(renderer_named(name).export(ExportJob(weights=given.weights, folder=given.out, calibration=calibration)))
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
