"""The Audio ID-Removing Network: its equation and what a row hears."""

from __future__ import annotations

import torch

from research.audio.identity_removal.training import IdRemovalConfig, IdRemovalNetwork


def test_soft_weights_equation_one() -> None:
    """Soft weights are the sum of matrices that equation one says."""
    network = IdRemovalNetwork(IdRemovalConfig(components=5, hidden=8, projection=8, hard=False)).eval()
    x, weights = torch.randn(2, 8, 20), torch.randn(2, 8, 5)
    matrices = torch.cat([network.linear, network.column[..., None]], dim=-1)
    identity = torch.cat([torch.eye(20), torch.zeros(20, 1)], dim=1)
    padded = torch.cat([x, torch.ones(2, 8, 1)], dim=-1)
    expected = torch.einsum("nrij,nrj->nri", identity + torch.einsum("nrk,kij->nrij", weights, matrices), padded)
    torch.testing.assert_close(network.transform(x, weights), expected, rtol=1e-4, atol=1e-5)


def test_a_choice_leaves_the_column_of_one_component() -> None:
    network = IdRemovalNetwork(IdRemovalConfig(hidden=8, projection=8)).eval()
    removed = network(torch.randn(1, 16, 20))
    assert removed.shape == (1, 12, 20)
    columns = {tuple(column) for column in network.column.tolist()}
    assert all(tuple(row) in columns for row in removed[0].tolist())


def test_row_choice_one_step_ahead() -> None:
    """The choice of a row hears one step ahead and no more."""
    network = IdRemovalNetwork(IdRemovalConfig(hidden=8, projection=8)).eval()
    rows = torch.randn(1, 32, 20)
    changed = rows.clone()
    changed[:, 16:] += 1.0
    before, after = network.scores(rows), network.scores(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:16], after[:, 12:16])
