"""Training of the recurrent networks of the speech map of live speech (services/motion/speech_map.py) on windows of states.

Each network learns from the frames of all clips of free speech in random order, with dropout of the inputs and of the GRU's answer.
The networks of a map differ by their seed, and their mean is served.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from research.motion.clips import Clips, Draw, frame_weights
from research.motion.ridge import SPEAKER_EXPONENT, mouth_target
from services.common.array_types import Float32, Float64
from services.motion.basis import LandmarkBasis
from services.motion.speech_map import HIDDEN, NUM_NETWORKS, Hearing, RecurrentNetworks
from services.motion.speech_states import NUM_STATES, neighbours, states_of

STEPS: Final = 500
BATCH: Final = 256
"""Windows of a step."""
LEARNING_RATE: Final = 2e-3
WEIGHT_DECAY: Final = 1e-2
_INPUT_SCALE: Final = 0.3
"""Factor of the states, about the inverse of their spread."""
_INPUT_DROPOUT: Final = 0.3
_DROPOUT: Final = 0.5
_WARM_UP: Final = 0.15
"""Share of the steps after which the learning rate is largest."""
_LARGEST_GRADIENT: Final = 1.0


class RecurrentNetwork(nn.Module):
    """One of the networks: from windows of states to coefficients of the predicted frame.

    Args:
        past: frames of a window before the predicted frame.
        num_coefficients: K.
    """

    def __init__(self, past: int, num_coefficients: int) -> None:
        super().__init__()
        self.past = past
        self.heard = nn.Dropout(_INPUT_DROPOUT)
        self.enter = nn.Linear(NUM_STATES, HIDDEN)
        self.gru = nn.GRU(HIDDEN, HIDDEN, batch_first=True, bidirectional=True)
        self.kept = nn.Dropout(_DROPOUT)
        self.answer = nn.Linear(2 * HIDDEN, num_coefficients)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the coefficients: [N, W, 192] -> [N, K]."""
        read, _ = self.gru(torch.relu(self.enter(self.heard(_INPUT_SCALE * windows))))
        answer: Tensor = self.answer(self.kept(read[:, self.past]))
        return answer


def train_networks(clips: Clips, basis: LandmarkBasis, hearing: Hearing, steps: int = STEPS) -> RecurrentNetworks:
    """Train the networks of a map on the frames of clips that belong to no narrow corpus. The same clips give the same bytes.

    Args:
        clips: clips with the states of `hearing`.
        basis: landmark basis of the coefficients.
        hearing: input of the map.
        steps: steps of each network.
    """
    free = clips.only(row for row in clips.rows if not row.narrow)
    windows, targets, weights = _frames_of(free, basis, hearing)
    size = basis.typical_spread / basis.typical_spread[0]
    trained = []
    for seed in range(NUM_NETWORKS):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trained.append(_trained(windows, targets, weights, size, hearing.past, steps, np.random.default_rng(seed)))
    return served(trained)


def _frames_of(clips: Clips, basis: LandmarkBasis, hearing: Hearing) -> tuple[Float32, Float32, Float64]:
    """Return windows float32 [N, width, 192], coefficients float32 [N, K] and weights float64 [N] of all usable frames."""
    windows, targets, weights = [], [], []
    for clip, share in zip(clips, frame_weights(clips.rows, SPEAKER_EXPONENT), strict=True):
        states = states_of(clip.features, hearing.feature)
        windows.append(neighbours(states, hearing.past, hearing.ahead)[clip.usable])
        targets.append(mouth_target(clip, basis)[clip.usable])
        weights.append(np.full(len(targets[-1]), share))
    return np.concatenate(windows), np.concatenate(targets), np.concatenate(weights)


def _trained(
    windows: Float32, targets: Float32, weights: Float64, size: Float32, past: int, steps: int, rng: np.random.Generator
) -> RecurrentNetwork:
    network = RecurrentNetwork(past, targets.shape[1])
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, steps, pct_start=_WARM_UP)
    draw, scale = Draw(weights), torch.from_numpy(size.copy())
    network.train()
    for _ in range(steps):
        rows = np.array([draw(rng) for _ in range(BATCH)])
        missed = (network(torch.from_numpy(windows[rows])) - torch.from_numpy(targets[rows])) * scale
        optimiser.zero_grad()
        (missed**2).sum(dim=1).mean().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def served(networks: list[RecurrentNetwork]) -> RecurrentNetworks:
    """Return the arrays that the motion stage runs, from NUM_NETWORKS networks."""

    def stacked(name: str, *, column: bool = False) -> Float32:
        """Return an array of both directions, transposed: [2, M, ...]."""
        both = [[getattr(each.gru, f"{name}_l0{ending}").numpy().T for each in networks] for ending in ("", "_reverse")]
        found = np.array(both, np.float32)
        return found[:, :, None] if column else found

    enter = [(_INPUT_SCALE * each.enter.weight).numpy().T for each in networks]
    answers = np.array([each.answer.weight.numpy().T.reshape(2, HIDDEN, -1) for each in networks], np.float32)
    return RecurrentNetworks(
        enter_weight=np.concatenate(enter, axis=1),
        enter_bias=np.concatenate([each.enter.bias.numpy() for each in networks]),
        input_weight=stacked("weight_ih"),
        input_bias=stacked("bias_ih", column=True),
        state_weight=stacked("weight_hh"),
        state_bias=stacked("bias_hh", column=True),
        answer_weight=np.ascontiguousarray(answers.transpose(1, 0, 2, 3)),
        answer_bias=np.mean([each.answer.bias.numpy() for each in networks], axis=0, dtype=np.float32),
    )
