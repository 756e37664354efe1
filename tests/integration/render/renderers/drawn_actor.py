"""An actor whom a renderer draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.common.array_types import Float32, UInt8
from services.render.streams import RenderModels, open_stream
from services.render.types import RenderedFrame, RenderFrame
from tests.unit.render.rendering import committed_models


@dataclass(frozen=True)
class DrawnActor:
    """An actor whom one renderer draws.

    Attributes:
        models: the loaded models.
        renderer: name of the renderer.
        state: state of the actor, float32 [n].
    """

    models: RenderModels
    renderer: str
    state: Float32

    def drawn(self, *chunks: list[RenderFrame], reference: UInt8 | None = None) -> list[RenderedFrame]:
        """Return the answers of one stream that gets its frames in these chunks."""
        stream = open_stream(self.models.backend, self.models.files[self.renderer], self.state, reference)
        return [*(made for chunk in chunks for made in stream.render(chunk)), *stream.finish()]


def drawn_by(
    runtimes: Sequence[str], person: Callable[[RenderModels], DrawnActor], frame: RenderFrame
) -> list[npt.NDArray[np.int_]]:
    """Return a frame as each runtime draws the person: int [160, 160, 3]."""
    actors = [person(committed_models(runtime)) for runtime in runtimes]
    return [actor.drawn([frame])[0].box.astype(int) for actor in actors]


def bytes_of(made: list[RenderedFrame]) -> list[tuple[int, bytes]]:
    """Return the index and the pixels of each frame."""
    return [(frame.frame_index, frame.box.tobytes()) for frame in made]
