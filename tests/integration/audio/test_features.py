"""The start of a process that makes features."""

import subprocess
import sys

SHOW = """
import sys
import numpy as np
from services.audio.__main__ import compose
from services.audio.settings import AudioSettings
parts = compose(AudioSettings(port=0))
before = {name.partition(".")[0] for name in sys.modules}
parts.warm_up()
print(sorted(before & {"librosa", "scipy", "numba"}), "librosa.filters" in sys.modules)
print(sorted({"librosa.util.utils", "librosa.core.audio", "librosa.core.pitch", "librosa.core.spectrum"} & set(sys.modules)))
"""


def test_warm_up_skips_numba_modules() -> None:
    """Those modules compile functions at import: in a new container that would take from four to seventeen seconds."""
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[] True", "[]"], done.stderr
