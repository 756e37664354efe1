"""What the prior earns: quality of an adaptation against frames and steps, with the prior and without.

    python -m services.render.renderers.everyone.train.few_frames --data SET --clip NAME ...

An actor is made from the first N frames of a clip, and frames of the rest of the clip are drawn with the true landmarks. With the
prior, texture and offset of W learn, as in serving. Without the prior, a network of random weights learns beside them, from the
same frames with the same losses. Both begin with the same first texture. The paper claims that the prior needs at least five
times fewer steps for the same quality (Saunders and Namboodiri, Sec. 4 and 5).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import torch

from services.common.errors import DubstageError
from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.renderers.everyone.train.prior_gain import measure
from services.render.train.held_out import clips_named


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set, made by dubstage trainset")
    parser.add_argument("--clip", action="append", required=True, metavar="NAME", help="name of a clip; may be repeated")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER, help="folder of weights. Default: %(default)s")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        for clip in clips_named(given.data, given.clip):
            for reached in measure(clip, given.weights):
                print(reached, flush=True)
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
