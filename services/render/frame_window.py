"""Window over consecutive frames of a stream: each frame with its neighbours before and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from services.render.types import RenderFrame

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Window(Generic[T]):
    """One frame and what its neighbours were prepared to.

    Attributes:
        frame: the frame.
        now: what the frame was prepared to.
        items: of frames t - frames_before to t + frames_after, oldest first; `now` stands at place frames_before.
    """

    frame: RenderFrame
    now: T
    items: tuple[T, ...]


class FrameWindow(Generic[T]):
    """The last frames of a run of consecutive frames.

    A run ends at a gap of frame indices and at the end of the stream. The first frame of a run stands in for the frames before the
    run, the last frame for the frames after the run.

    Args:
        before: frames before each frame.
        after: frames after each frame.
    """

    def __init__(self, before: int, after: int) -> None:
        self._before, self._after = before, after
        self._run: list[tuple[RenderFrame, T]] = []
        self._done = 0

    def push(self, frame: RenderFrame, item: T) -> list[Window[T]]:
        """Add the next frame; return the windows that are complete now, in order.

        Args:
            frame: the frame; its index is above those before.
            item: what the frame was prepared to.
        """
        follows = bool(self._run) and frame.frame_index == self._run[-1][0].frame_index + 1
        complete = [] if follows else self.finish()
        self._run.append((frame, item))
        if self._done + self._after < len(self._run):
            complete.append(self._next())
        # What no later window needs is let go; at the beginning of a run, the first frame must stay for its stand-ins.
        while self._done > self._before:
            del self._run[0]
            self._done -= 1
        return complete

    def finish(self) -> list[Window[T]]:
        """End the run; return the windows of the frames whose frames after are missing, in order."""
        rest = [self._next() for _ in range(len(self._run) - self._done)]
        self._run, self._done = [], 0
        return rest

    def _next(self) -> Window[T]:
        at, last = self._done, len(self._run) - 1
        self._done += 1
        places = range(at - self._before, at + self._after + 1)
        frame, now = self._run[at]
        return Window(frame, now, tuple(self._run[min(max(place, 0), last)][1] for place in places))
