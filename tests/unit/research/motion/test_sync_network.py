"""The sync network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from research.motion.sync import SyncConfig, SyncNetwork, lag_scores
from services.motion.features import NUM_SYNC
from services.motion.types import MAX_LAG


def test_embeddings_ignore_level() -> None:
    """Sync embeddings are unit vectors and ignore the recording level."""
    torch.manual_seed(2)
    network = SyncNetwork(SyncConfig()).eval()
    heard = torch.rand(1, 40, 4, NUM_SYNC)
    louder = heard.clone()
    louder[..., -4:] += 3.0
    with torch.no_grad():
        embedded, again = network.audio(heard), network.audio(louder)
    np.testing.assert_allclose(embedded.norm(dim=-1).numpy(), 1.0, atol=1e-2)
    torch.testing.assert_close(embedded, again, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lag", [-6, 0, 5])
def test_lag_sign_in_training_and_serving(lag: int) -> None:
    """Scores of training and serving agree on the sign of the lag."""
    base = torch.nn.functional.normalize(torch.randn(1, 120, 8, generator=torch.Generator().manual_seed(3)), dim=-1)
    scores = lag_scores(base[:, 20 - lag : 100 - lag], base[:, 20:100], torch.ones(1, 80), MAX_LAG)
    assert int(scores.argmax()) - MAX_LAG == lag
