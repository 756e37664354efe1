"""Prints what one service needs, one requirement a line: the project's own dependencies and those of some extras.

    python charts/images/requirements.py EXTRA[,EXTRA...]

Dependencies have a layer of their own in the images, which stays the same when only code changes; so they are installed
from `pyproject.toml` before the code is there.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def requirements(extras: list[str], root: Path = ROOT) -> list[str]:
    """Requirements of the contracts, of every service, and of the extras; the repository's own distributions left out.

    Raises:
        SystemExit: there is no such extra.
    """
    suite, contracts = (tomllib.loads((root / name).read_text())["project"] for name in ("pyproject.toml", "protos/pyproject.toml"))
    optional = suite["optional-dependencies"]
    lines = [*contracts["dependencies"], *suite["dependencies"]]
    for extra in extras:
        if extra not in optional:
            raise SystemExit(f"pyproject.toml has no extra {extra!r}; it has: {', '.join(sorted(optional))}")
        lines += optional[extra]
    return sorted({line for line in lines if not line.startswith(f"{contracts['name']}==")})


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1].split(","))))
