"""Which actors can be shown live, and what is told of the others."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from gateway.actors.stored import StoredActor
from gateway.live.performance import load_performance
from gateway.methods import METHODS, combined, method_named
from services.common.errors import ActorNotReady

NOTHING: Any = None
METHODS_OF_PAIRS = [combined(motion, renderer=renderer) for motion, renderer in product(METHODS, METHODS)]


@pytest.mark.parametrize("method", [name for name in METHODS_OF_PAIRS if not method_named(name).live])
def test_a_method_for_files_is_refused_with_the_part_in_the_way(method: str) -> None:
    row = method_named(method)
    actor = StoredActor("ann", method, None, "0" * 64, "2026-02-01T00:00:00Z", NOTHING, {})
    with pytest.raises(ActorNotReady) as caught:
        load_performance(actor, NOTHING)
    said = caught.value.message
    assert said.startswith(f"actor ann is enrolled for {method}, which cannot be used live: the ")
    assert said.endswith("enrol the person for one of: ugc, everybody")
    assert ("of speech after a frame" in said) is (not row.streamed.motion.live and not row.motion.moves_head)
    assert ("frames after a frame" in said) is (row.renderer.frames_after > 0)
