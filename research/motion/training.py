"""Parts that the trainings of motion share: batches from a sampler, the file of the run, the choice of the best step.

Files that a motion training writes for its export: the network and its constants in one safetensors file.
"""

from __future__ import annotations

import hashlib
import shutil
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from research.motion.clips import Clips, batch_rng
from research.motion.protocol import Groups, Scores, may_choose, named_scores, selected_on, selection_score
from research.training.device import Device
from research.training.run_folder import CARD, read_config
from research.training.training import Check, LoopSettings, OptimiserSettings, Supervised
from services.common.array_types import Array
from services.common.errors import InvalidRequestError
from services.common.files import write_whole
from services.common.store.tensor_bytes import NamedArrays, decode_arrays, encode_arrays

BEST: Final = "best.safetensors"
"""File of a run with the network of the kept step: its parameters as `network.NAME`, beside the constants."""
_PREFIX: Final = "network."
BatchT = TypeVar("BatchT")
DrawnT_co = TypeVar("DrawnT_co", covariant=True)


def write_best(folder: Path, network: nn.Module, arrays: Mapping[str, Array], **metadata: str) -> None:
    """Write the network and its constants. If writing is interrupted, the file before stays.

    Args:
        folder: folder of the run.
        arrays: constants by name.
        metadata: further facts by name.
    """
    state = {f"{_PREFIX}{name}": value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    write_whole(folder / BEST, encode_arrays({**state, **arrays}, metadata))


def read_best(run: Path, name: str) -> NamedArrays:
    """Return the network and the constants of a finished run.

    Raises:
        InvalidRequestError: the folder holds no run of this network, the run is not finished, or its file is missing or damaged.
    """
    read_config(run, name)
    if not (run / CARD).is_file():
        raise InvalidRequestError(
            f"{run} is not finished: it has no {CARD}; go on with the run: `dubstage train {name} --resume`", field="run"
        )
    return read_arrays(run)


def read_arrays(folder: Path) -> NamedArrays:
    """Return the network and the constants in a folder.

    Raises:
        InvalidRequestError: the file is missing or damaged.
    """
    path = folder / BEST
    if not path.is_file():
        raise InvalidRequestError(f"{folder} has no {BEST}; go on with the run: `dubstage train` with --resume", field="run")
    try:
        return decode_arrays(path.read_bytes())
    except InvalidRequestError as problem:
        raise InvalidRequestError(f"{path} is damaged: {problem}; train again", field="run") from problem


def load_network(network: nn.Module, kept: NamedArrays) -> None:
    """Give a network the parameters of a run, and switch dropout off.

    Args:
        network: a network of the run's sizes.
        kept: what `read_best` returned.

    Raises:
        InvalidRequestError: the run's network has other sizes.
    """
    state = {
        name.removeprefix(_PREFIX): torch.from_numpy(np.array(values))
        for name, values in kept.arrays.items()
        if name.startswith(_PREFIX)
    }
    try:
        network.load_state_dict(state)
    except RuntimeError as problem:
        raise InvalidRequestError(f"{BEST} does not fit the configuration of its run: {problem}", field="run") from problem
    network.eval()


def origin_of(run: Path, name: str, card: Path) -> dict[str, Any]:
    """Return where an export comes from, for its sheet, and copy the run's card.

    Args:
        run: folder of a finished run.
        card: path of the copy, beside the exported files.

    Returns:
        The configuration of the run, the name of the card, and the SHA-256 of the run's files.
    """
    config = read_config(run, name)
    shutil.copyfile(run / CARD, card)
    digests = {each: hashlib.sha256((run / each).read_bytes()).hexdigest() for each in (BEST, CARD)}
    return {"config": config, "card": card.name, "run": digests}


class Config(Protocol):
    """Base of the configurations of all trainings of motion."""

    @property
    def loop(self) -> LoopSettings:
        """Length and pace."""

    @property
    def optimiser(self) -> OptimiserSettings:
        """Rates."""


class Sampler(Protocol[DrawnT_co]):
    """Sampler of batches."""

    def draw(self, rng: np.random.Generator) -> DrawnT_co:
        """Draw a batch. The same generator state gives the same batch."""


class MotionTraining(Supervised[BatchT]):
    """Training of one network of motion.

    Args:
        device: where this process computes.
        clips: clips that the network learns from.
        sampler: sampler of batches.
    """

    def __init__(self, config: Config, device: Device, clips: Clips, network: nn.Module, sampler: Sampler[BatchT]) -> None:
        super().__init__(config.loop, device, clips.rows, network, config.optimiser)
        self._sampler = sampler

    @abstractmethod
    def constants(self) -> Mapping[str, Array]:
        """Return the arrays that the run's file holds beside the averaged network."""

    def facts(self) -> Mapping[str, str]:
        """Return the metadata of the run's file."""
        return {}

    def batch(self, step: int, index: int) -> BatchT:
        """Draw a batch."""
        return self._sampler.draw(batch_rng(self.settings.seed, step, index))

    def write(self, folder: Path) -> None:
        """Write the averaged network and its constants."""
        write_best(folder, self.average, self.constants(), **self.facts())

    def take_best(self, folder: Path) -> None:
        """Give the averaged network the weights of the best step, which lie in the folder."""
        load_network(self.average, read_arrays(folder))


class PredictorTraining(MotionTraining[BatchT]):
    """Training of a predictor.

    The step with the best scores on held-out clips is kept; the last step, if all of them are of narrow corpora (may_choose).

    Attributes:
        groups: held-out clips by group.
    """

    groups: Groups

    @abstractmethod
    def scores(self) -> Scores:
        """Return the scores of the averaged network on held-out clips."""

    def selection_score(self, scores: Scores) -> float:
        """Return the number to select on, from the scores of the groups that are selected on."""
        return selection_score(scores)

    def baseline(self) -> Scores:
        """Return the scores of what the network must beat; they are shown at step 0."""
        return {}

    def check(self, step: int, folder: Path) -> Check:
        """Score the averaged network on held-out clips."""
        scores = self.scores()
        shown = named_scores(scores)
        if step == 0:
            shown |= {f"baseline {name}": value for name, value in named_scores(self.baseline()).items()}
        return Check(shown, self.selection_score(selected_on(scores)) if may_choose(self.groups) else None)
