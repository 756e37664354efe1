"""Training of the temporal-warp network. The network is trained alone and then frozen (Song et al., Sec. III-C)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from services.common.face.mouth_bank import WINDOW
from services.common.store.exported_network import write_whole
from services.texture.networks.temporal_warp import TemporalWarp, TemporalWarpConfig
from services.texture.train.losses import Energies, LossWeights, spline_energies
from services.texture.train.pairs import CHAIN, PairConfig, Pairs, PairSource
from services.training.loop_settings import LoopSettings
from services.training.networks import Opening
from services.training.training import Check, OptimiserSettings, Supervised

RUN_FILE: Final = "temporal_warp.safetensors"
"""File of the run with the weights of the best step."""
_HELD_OUT_BATCH: Final = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalWarpTrainingConfig:
    """Configuration of a training.

    Attributes:
        loop: length and pace.
        optimiser: rates.
        network: size of the network.
        pairs: how pairs are drawn.
        loss: weights of the energies.
        batch: pairs of a batch.
        num_held_out: pairs of held-out clips that the best step is selected on.
    """

    loop: LoopSettings
    optimiser: OptimiserSettings
    network: TemporalWarpConfig = field(default_factory=TemporalWarpConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    batch: int = 16
    num_held_out: int = 192


CONFIGS: Final = {
    "default": TemporalWarpTrainingConfig(
        loop=LoopSettings(steps=1000, seed=20240),
        optimiser=OptimiserSettings(learning_rate=1e-3, warm_up_steps=0, last_share=0.5**6, weight_decay=1e-4),
    ),
    # Song et al. give no sizes. Width, batch and rate are those of the perceptron on landmarks of Martinez et al. 2017 (A simple
    # yet effective baseline for 3d human pose estimation, Sec. 3.2 and 3.3).
    "large": TemporalWarpTrainingConfig(
        loop=LoopSettings(steps=20_000, seed=20240, check_every=500, patience=10, workers=8, bfloat16=True),
        optimiser=OptimiserSettings(learning_rate=1e-3, averaging=0.999),
        network=TemporalWarpConfig(hidden=1024),
        batch=64,
        num_held_out=512,
    ),
}


class TemporalWarpTraining(Supervised[Pairs]):
    """Training on pairs of sequences of one speaker: control points of a wanted sequence, and of a retrieved one.

    Args:
        opening: configuration of the type TemporalWarpTrainingConfig, training set, device. No other network is used.

    Raises:
        InvalidRequest: the training set has no clips with a face in `train` or `val`, or the clips are too short.
    """

    def __init__(self, opening: Opening) -> None:
        config: TemporalWarpTrainingConfig = opening.config
        data, seed = opening.data, config.loop.seed
        self._config = config
        self._source = PairSource(data, data.of("train", face=True), config.pairs, seed)
        held_out = PairSource(data, data.of("val", face=True), config.pairs, seed + 1)
        self._held_out = held_out.pairs(config.num_held_out, 0, 0)
        torch.manual_seed(seed)
        super().__init__(config.loop, opening.device, self._source.clips, TemporalWarp(config.network), config.optimiser)

    def batch(self, step: int, index: int) -> Pairs:
        """Return pairs that are drawn for this batch. See PairSource."""
        return self._source.pairs(self._config.batch, step, index)

    def losses(self, batch: Pairs) -> dict[str, Tensor]:
        """Return Ef, Eb, Et and the weighted sum of Eq. 9."""
        return self._parts(self._energies(self.module, batch))

    def check(self, step: int, folder: Path) -> Check:
        """Return the energies of the averaged network on the held-out pairs. At step 0 they are those of the plain spline."""
        sums: dict[str, float] = {}
        count = len(self._held_out.wanted)
        with torch.inference_mode():
            for start in range(0, count, _HELD_OUT_BATCH):
                rows = slice(start, start + _HELD_OUT_BATCH)
                some = Pairs(self._held_out.wanted[rows], self._held_out.source[rows])
                for name, value in self._parts(self._energies(self.average, some)).items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(some.wanted) / count
        return Check({f"held_out_{name}": value for name, value in sums.items()}, score=-sums["total"])

    def write(self, folder: Path) -> None:
        """Write the averaged network."""
        state = {name: value.cpu().contiguous() for name, value in self.average.state_dict().items()}
        write_whole(folder / RUN_FILE, save(state))

    def _energies(self, network: nn.Module, pairs: Pairs) -> Energies:
        place = self.device.torch_device
        return answered(network, torch.from_numpy(pairs.wanted).to(place), torch.from_numpy(pairs.source).to(place))

    def _parts(self, energies: Energies) -> dict[str, Tensor]:
        return {
            "fitting": energies.fitting,
            "bending": energies.bending,
            "temporal": energies.temporal,
            "total": energies.total(self._config.loss),
        }


def answered(network: nn.Module, wanted: Tensor, source: Tensor) -> Energies:
    """Return the energies of the 8 frames with a full window, as a stream answers these frames.

    Args:
        network: the temporal-warp network.
        wanted: float32 [N, 13, 86, 2], box pixels.
        source: float32 [N, 13, 86, 2], box pixels.
    """
    windows = torch.from_numpy(np.arange(CHAIN - WINDOW + 1)[:, None] + np.arange(WINDOW)).to(wanted.device)
    delta = network(wanted[:, windows].flatten(0, 1), source[:, windows].flatten(0, 1)).unflatten(0, (len(wanted), -1))
    last_wanted, last_source = wanted[:, WINDOW - 1 :].double(), source[:, WINDOW - 1 :].double()
    return spline_energies(last_wanted, last_source, last_source + delta.double())
