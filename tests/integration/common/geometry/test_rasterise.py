from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_compiled_code_is_not_written_into_the_installation(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    folder = root / "services/common/geometry/__pycache__"
    before = set(folder.glob("rasterise_numba*.nb*"))
    code = "from services.common.geometry.rasterise import warm_up; warm_up()"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": "", "HOME": str(tmp_path)}, cwd=root)
    assert set(folder.glob("rasterise_numba*.nb*")) == before
    assert not list(tmp_path.rglob("*.nb*"))
