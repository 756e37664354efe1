import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
CODE = """
from services.common.geometry.rasterise import warm_up
from services.common.geometry.kernels import rasterise_picture
warm_up()
print(sum(rasterise_picture.stats.cache_hits.values()), end="")
"""


def _loaded_kernels(home: Path, code: str = CODE) -> int:
    """Rasterise in another process and return how often that process loaded a compiled kernel instead of compiling one."""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=True, env={"PATH": "", "HOME": str(home)}, cwd=ROOT, capture_output=True, text=True)
    return int(result.stdout)


def _kernels_beside_the_sources() -> set[Path]:
    return set((ROOT / "services/common/geometry/__pycache__").glob("*.nb*"))


def test_second_process_loads_kernel_cache(tmp_path: Path) -> None:
    """A second process loads what the first has compiled from the user's cache folder."""
    before = _kernels_beside_the_sources()
    assert _loaded_kernels(tmp_path) == 0
    assert list((tmp_path / ".cache/dubstage/kernels").rglob("kernels.rasterise_picture-*.nbc"))
    assert _loaded_kernels(tmp_path) == 1
    assert _kernels_beside_the_sources() == before


def test_a_process_that_cannot_write_any_folder_compiles(tmp_path: Path) -> None:
    code = (
        """
from numba.core import caching
def refuse(*_): raise OSError("read-only")
caching._CacheLocator.ensure_cache_path = refuse
"""
        + CODE
    )
    assert _loaded_kernels(tmp_path, code) == 0
    assert not os.listdir(tmp_path)
