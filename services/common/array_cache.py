"""Decoded arrays before an artefact store, so that a bank or an actor is read once for many streams."""

from __future__ import annotations

import threading
from collections import OrderedDict

from services.common.artefacts import MAX_ARRAYS_BYTES, ArtefactRef, ArtefactStore
from services.common.tensor_bytes import NamedArrays


class ArrayCache:
    """Least-recently-used cache of decoded arrays before a store, bounded in bytes, safe for several threads.

    Each hit asks the store whether the blob is still there: what was erased is never served from memory.
    """

    def __init__(self, store: ArtefactStore, *, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._held: OrderedDict[ArtefactRef, NamedArrays] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of the arrays that are held now; never over `max_bytes`."""
        return self._held_bytes

    def get_arrays(self, ref: ArtefactRef) -> NamedArrays:
        """As `ArtefactStore.get_arrays`, of at most MAX_ARRAYS_BYTES; the arrays are shared and read-only."""
        with self._lock:
            arrays = self._held.get(ref)
            if arrays is not None:
                self._held.move_to_end(ref)
        if arrays is not None:
            if self._store.exists(ref):
                return arrays
            self.forget(ref)
        arrays = self._store.get_arrays(ref, max_bytes=MAX_ARRAYS_BYTES)
        with self._lock:
            if ref not in self._held and arrays.size_bytes <= self._max_bytes:
                self._held[ref] = arrays
                self._held_bytes += arrays.size_bytes
                while self._held_bytes > self._max_bytes:
                    _, evicted = self._held.popitem(last=False)
                    self._held_bytes -= evicted.size_bytes
        return arrays

    def forget(self, ref: ArtefactRef) -> None:
        """Drop one reference's arrays from memory."""
        with self._lock:
            arrays = self._held.pop(ref, None)
            if arrays is not None:
                self._held_bytes -= arrays.size_bytes
