"""View of a long MP4 or MOV file without its sound or without its pictures. Source: ISO/IEC 14496-12, 8.1.2 and 8.4.3.

FFmpeg keeps 40 bytes of memory for each picture and each piece of sound of an open file: 21 MiB for two hours, of which 12 MiB are
sound, and twice as much while FFmpeg opens the file. FFmpeg has no option to leave tracks out, so the view shows the boxes of
tracks that are not read as free space, which readers skip.
"""

from __future__ import annotations

import io
import os
from typing import IO, Final, Literal

from gateway.media.boxes import Box, boxes_of, read_at

Only = Literal["picture", "sound"]
"""What a reader reads of a file."""

_LONG_INDEX: Final = 1 << 20
"""Length of an index from which on tracks are hidden, bytes. Fifteen minutes of picture and sound have as much."""
_FREE: Final = b"free"
_HIDDEN: Final = {"picture": b"soun", "sound": b"vide"}


class TrackView(io.RawIOBase):
    """The bytes of a file, with the kinds of some boxes replaced by `free`. Reads are independent of other readers of the file."""

    def __init__(self, handle: int, hidden: list[int]) -> None:
        """Open a view.

        Args:
            handle: descriptor of the file; the view keeps a descriptor of its own.
            hidden: places of the four letters of the boxes that are shown as free space.
        """
        self._handle, self._place, self._hidden = os.dup(handle), 0, hidden

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place of the file, and return the place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: os.fstat(self._handle).st_size}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """Return the place of the next byte that is read."""
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer with the next bytes, fewer at the end of the file, and return their number."""
        size = os.preadv(self._handle, [buffer], self._place)
        for start in self._hidden:
            first, last = max(start, self._place), min(start + len(_FREE), self._place + size)
            if first < last:
                buffer[first - self._place : last - self._place] = _FREE[first - start : last - start]
        self._place += size
        return size

    def close(self) -> None:
        """Close the view's descriptor."""
        if not self.closed:
            os.close(self._handle)
        super().close()


def track_view(handle: int, only: Only) -> TrackView | None:
    """Return a view of a file; None: the file is short, in another format, has nothing to hide, or has its index in fragments.

    Args:
        handle: descriptor of a regular file.
        only: what is read. Tracks of the other kind are hidden; subtitles and other data are not.
    """
    with open(f"/proc/self/fd/{handle}", "rb") as file:
        index = next((box for box in boxes_of(file) if box.kind == b"moov"), None)
        if index is None or index.end - index.start < _LONG_INDEX:
            return None
        inside = list(boxes_of(file, index))
        # Fragments name their tracks, and FFmpeg refuses fragments of tracks that it does not know.
        if any(box.kind == b"mvex" for box in inside):
            return None
        hidden = [box.start + 4 for box in inside if box.kind == b"trak" and _handler(file, box) == _HIDDEN[only]]
    return TrackView(handle, hidden) if hidden else None


def _handler(file: IO[bytes], track: Box) -> bytes:
    """Return the four letters that say what a track holds; empty: the track does not say."""
    for media in boxes_of(file, track):
        if media.kind == b"mdia":
            for box in boxes_of(file, media):
                if box.kind == b"hdlr" and box.end - box.body >= 12:
                    return read_at(file, box.body + 8, 4)
    return b""
