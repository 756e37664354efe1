"""The network, step by step and over whole sequences."""

from __future__ import annotations

import torch

from tests.unit.motion.predictors.headpose.tiny import SMALL, network, zeros


def test_steps_one_by_one_are_the_whole_sequence() -> None:
    net, rows = network(), torch.randn(1, 20, 4, SMALL.num_inputs)
    with torch.inference_mode():
        whole = net(rows, zeros(), zeros())
        h, c = zeros(), zeros()
        for step in range(20 - SMALL.window + 1):
            one = net(rows[:, step : step + SMALL.window], h, c)
            h, c = one.h, one.c
            torch.testing.assert_close(one.expression[:, 0], whole.expression[:, step], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(one.pose[:, 0], whole.pose[:, step], rtol=1e-4, atol=1e-5)
