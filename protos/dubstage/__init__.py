"""Visual dubbing in one call: new speech for real footage.

    import dubstage

    dubstage.dub("video.mp4", "speech.wav", "out.mp4")

`dub` works in this process if the suite is installed, and at a gateway if an address is given. `dubstage.client` has every RPC.
"""

from __future__ import annotations

import importlib
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dubstage.dubbing import DubbedVideo, DubOptions, dub
    from dubstage.error_kinds import Error

# In a checkout, the generated contracts lie in another folder of the path.
__path__ = extend_path(__path__, __name__)

__all__ = ["DubOptions", "DubbedVideo", "Error", "dub"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import dubstage` and `dubstage.error_kinds` load neither gRPC nor NumPy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("dubstage.error_kinds" if name == "Error" else "dubstage.dubbing"), name)
