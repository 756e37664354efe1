"""Evaluate the exported predictor `ugc`: `python -m research.methods.ugc.evaluate --data SET`.

The command compares the variants of research.motion.evaluate and one ablation: AdaIN with the mean speaker's modulation.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from research.motion.evaluate import evaluation_parser, run
from services.motion.models import MotionModels
from services.motion.predictors.ugc.predictor import PREDICTOR
from services.motion.style import Style


def _without_adain(style: Style, models: MotionModels) -> Style:
    return replace(style, modulation=models.mean_modulation)


def main() -> int:
    """Run the command line, and return the exit code."""
    return run(PREDICTOR, evaluation_parser(__doc__).parse_args(), [("no_adain", _without_adain)])


if __name__ == "__main__":
    sys.exit(main())
