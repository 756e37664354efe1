"""Write network inputs to calibrate an int8 export with.

python -m services.render.train.calibration --model NAME --data FOLDER --out FILE.npy
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from services.render.train.footage import training_people
from services.render.train.rooms import model_names, training_named


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=model_names(), required=True, help="renderer whose inputs are written")
    parser.add_argument("--data", type=Path, required=True, help="training set: a folder of *.safetensors")
    parser.add_argument(
        "--identities", type=Path, help="folder of services.face.train.identities, if the renderer needs identities"
    )
    parser.add_argument("--out", type=Path, default=Path("build/calibration.npy"), help="file to write. Default: %(default)s")
    parser.add_argument("--pictures", type=int, default=64, help="number of inputs. Default: %(default)s")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    training = training_named(given.model)
    source = training.source(training_people(given.data, training.recipe), given.identities)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    np.save(given.out, source.batch(0, given.pictures).pictures)


if __name__ == "__main__":
    main()
