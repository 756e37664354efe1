"""Cache of decoded arrays, so that many streams read a bank or an actor once."""

from __future__ import annotations

import threading
from collections import OrderedDict

from services.common.store.artefacts import MAX_ARRAYS_BYTES, ArtefactRef, ArtefactStore
from services.common.store.tensor_bytes import NamedArrays


class ArrayCache:
    """Least-recently-used cache of the arrays of a store, bounded in bytes, safe for several threads.

    Each hit asks the store whether the blob is still there: an erased blob is never served from memory.
    """

    def __init__(self, store: ArtefactStore, *, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._held: OrderedDict[ArtefactRef, NamedArrays] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of the arrays in the cache; never over `max_bytes`."""
        return self._held_bytes

    def get_arrays(self, ref: ArtefactRef) -> NamedArrays:
        """Return what `ArtefactStore.get_arrays` returns, at most MAX_ARRAYS_BYTES. The arrays are shared and read-only."""
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
        """Drop the arrays of one reference from memory."""
        with self._lock:
            arrays = self._held.pop(ref, None)
            if arrays is not None:
                self._held_bytes -= arrays.size_bytes
