"""Write Triton's model repository from exported networks: `python -m services.render.export --triton DIR`.

The networks themselves are exported by `dubstage export NAME --run RUN --output FOLDER`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from services.common.errors import DubstageError
from services.render.backends.model_files import WEIGHTS_FOLDER
from services.render.triton.repository import add_arguments, spec_of, write_repository


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triton", type=Path, metavar="DIR", required=True, help="folder of the model repository")
    parser.add_argument(
        "--out", type=Path, default=WEIGHTS_FOLDER, metavar="FOLDER", help="folder with exported models. Default: %(default)s"
    )
    add_arguments(parser)
    given = parser.parse_args()
    try:
        print(*write_repository(given.triton, given.out, spec_of(given)), sep="\n")
    except DubstageError as error:
        print(error.message, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
