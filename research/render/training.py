"""Trainings of the renderers, found by the renderers' names; their entries in the list of networks, and how they are opened.

The registry of renderers is part of serving, which never reaches training code. So the training part of a renderer is found by
its path: the module `research.methods.NAME.render`, with an object TRAINING.

A user may give features of VGG-19 (Simonyan and Zisserman 2014) as a weights file, in place of
services/render/networks/perceptual.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from research.render.export import RendererExportSpec, export_renderer
from research.render.held_out import Clip, DrawnClip, Faces, HeldOut
from research.render.people import BatchSource, People, person_clips
from research.render.trainer import HeldOutClips, Recipe, TrainerInputs, check_rows
from research.training.networks import Opening, TrainableNetwork
from research.training.training import Training
from services.common.array_types import Float32
from services.common.errors import InvalidRequestError
from services.common.methods import RENDERERS
from services.render.backends.base import Backend
from services.render.backends.model_files import INPUT_PICTURES, INPUT_STATE, OUTPUT_RESIDUAL, WEIGHTS_FOLDER, ModelFile
from services.render.networks.perceptual import PerceptualNetwork, load_perceptual
from services.render.pairs import BASE, Pair
from services.render.renderers.registry import renderer_named
from services.render.types import PersonalizeProgress

_PLAN: Final = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512))
_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)
PERCEPTUAL: Final = "perceptual"
"""Name of the perceptual network."""
STAGE: Final = "render"
PERSONALISED: Final = "personalised"
"""Title of the row that shows a renderer as served to its actor."""
Rows = Mapping[str, Callable[[], DrawnClip]]
"""Ways to draw a clip by title. Each is drawn when called."""


class VggFeatures(nn.Module):
    """Layers relu1_2, relu2_2, relu3_4 and relu4_4 of VGG-19, each normalised over its channels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self._taps: list[int] = []
        before = 3
        for level, widths in enumerate(_PLAN):
            if level:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            self._taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return the features of four layers, float [B, C, h, w] each: at each pixel a vector of length sqrt C.

        Args:
            pictures: float [B, 3, H, W] in [0, 1].
        """
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        x = (pictures - self.mean) / self.std
        features: list[Tensor] = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._taps:
                features.append(F.normalize(x, dim=1) * x.shape[1] ** 0.5)
        return features


def load_vgg(path: Path) -> VggFeatures:
    """Return VGG-19 features from a state dict in torchvision's layout (`features.0.weight`, ...), .safetensors or .pth.

    Layers beyond relu4_4 and the classifier are ignored.

    Raises:
        InvalidRequestError: the file is missing, holds no state dict, or a state dict of another layout. The message says which.
    """
    if not path.is_file():
        raise InvalidRequestError(f"there is no VGG weights file at {path}", field="vgg_file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        raise InvalidRequestError(f"{path} cannot be read as a state dict: {error}", field="vgg_file") from error
    except Exception as error:  # pickle's own errors have no common base below Exception
        raise InvalidRequestError(f"{path} is not a state dict of weights alone: {error}", field="vgg_file") from error
    network = VggFeatures()
    expected = network.state_dict()
    if not isinstance(state, dict) or any(name not in state for name in expected):
        missing = sorted(name for name in expected if not isinstance(state, dict) or name not in state)
        raise InvalidRequestError(f"{path} is not VGG-19 in torchvision's layout: no {missing[0]}", field="vgg_file")
    wrong = [name for name in expected if tuple(state[name].shape) != tuple(expected[name].shape)]
    if wrong:
        shape = list(state[wrong[0]].shape)
        raise InvalidRequestError(f"{path} is not VGG-19: {wrong[0]} has shape {shape}", field="vgg_file")
    network.load_state_dict({name: state[name] for name in expected})
    return network.eval().requires_grad_(False)


def renderer_network(
    spec: RendererExportSpec,
    *,
    summary: str,
    configs: Mapping[str, Recipe],
    open_training: Callable[[Opening], Training[Any]],
    more_needs: tuple[str, ...] = (),
    more_files: Callable[[Path], Sequence[str]] = lambda _run: (),
) -> TrainableNetwork:
    """Return a renderer's network as `dubstage train` lists it, under the name NAME_renderer.

    Args:
        summary: one sentence: what the network does.
        configs: presets by name.
        open_training: opens a training.
        more_needs: networks that the training builds on beside the perceptual network.
        more_files: returns names of further files of a run that the stage serves beside NAME.safetensors.
    """
    return TrainableNetwork(
        name=f"{spec.name}_renderer",
        stage=STAGE,
        summary=summary,
        configs=configs,
        needs=(PERCEPTUAL, *more_needs),
        open=open_training,
        export=partial(export_renderer, spec, more_files),
    )


def open_perceptual(opening: Opening) -> PerceptualNetwork:
    """Return the perceptual network of the given run, or the one that comes with dubstage, on the training's device.

    Raises:
        InvalidRequestError: the folder that is given holds no run of the perceptual network.
        ModelNotFoundError: the run's file is missing or damaged.
    """
    network = load_perceptual((opening.run_of(PERCEPTUAL) or WEIGHTS_FOLDER) / f"{PERCEPTUAL}.safetensors")
    return network.to(opening.device.torch_device)


def trainer_inputs(
    opening: Opening,
    source: BatchSource[Any],
    perceptual: PerceptualNetwork,
    read: Callable[[Clip, int], HeldOut],
    *,
    without: Collection[str] = (),
) -> TrainerInputs:
    """Return what a trainer works with beside its recipe.

    Args:
        opening: what the training is opened with; its configuration is a Recipe.
        source: source of batches.
        perceptual: the perceptual network. The user's VGG-19 takes its place in the loss if the recipe names one.
        read: returns a held-out clip with a number of pairs, evenly spread.
        without: speakers whose held-out clips cannot be read.

    Raises:
        InvalidRequestError: the set has no clip to check with, or the VGG file cannot be used.
    """
    recipe: Recipe = opening.config
    features: Any = load_vgg(Path(recipe.vgg)).to(opening.device.torch_device) if recipe.vgg else perceptual.features
    learned = {person.name for person in source.people.clips}
    rows = check_rows(opening.data, recipe.check_clips, without=without)
    return TrainerInputs(opening.device, source, HeldOutClips(rows, opening.data, learned, read), features)


def training_people(opening: Opening) -> People:
    """Return the people of the training set that a recipe trains on."""
    recipe: Recipe = opening.config
    clips = person_clips(opening.data.of("train", pixels=True))
    return People(opening.data, clips, recipe.people, seed=recipe.loop.seed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reenactment:
    """Clip to re-enact, and the tools.

    Attributes:
        frames: number of frames to draw, consecutive; 0: all frames.
        backend: runtime with the models loaded.
        files: exported models by name.
        threads: threads of a personalisation.
        folder: folder for contact sheets.
    """

    clip: Clip
    frames: int
    weights: Path
    backend: Backend
    files: Mapping[str, ModelFile]
    threads: int
    folder: Path

    def draw(self, model: str, film: Float32, pairs: Sequence[Pair]) -> Faces:
        """Return the faces of pairs by an exported model, computed one at a time.

        Args:
            model: name of the model.
            film: float32 [S], the part of an actor's state that the network takes.
        """
        faces = []
        for pair in pairs:
            residual = self.backend.infer(model, {INPUT_PICTURES: pair.picture[None], INPUT_STATE: film[None]})[OUTPUT_RESIDUAL][0]
            faces.append(np.clip(np.rint(pair.picture[..., BASE] + residual), 0, 255).astype(np.uint8))
        return faces

    def last_state(self, reports: Iterable[PersonalizeProgress]) -> Float32:
        """Run a personalisation, print its time and losses, and return the actor's state."""
        started = time.monotonic()
        done = list(reports)
        losses = ", ".join(f"{report.loss:.2f}" for report in done)
        seconds = time.monotonic() - started
        print(f"{self.clip.row.name}: personalised in {seconds:.0f} s; error in grey levels {losses}", flush=True)
        return done[-1].state


@dataclass(frozen=True, kw_only=True, slots=True)
class RendererTraining:
    """Training of one renderer: its networks, and how held-out clips are read and drawn.

    Attributes:
        networks: networks of the renderer that are trained.
        held_out: returns a clip with a number of pairs, evenly spread, for an actor of the prior.
        reenact: returns the ways to draw a clip by title, one of them PERSONALISED (research.render.training).
    """

    networks: tuple[TrainableNetwork, ...]
    held_out: Callable[[Clip, int], HeldOut]
    reenact: Callable[[Reenactment], Rows]


def model_names() -> list[str]:
    """Return the names of all renderers, in the order of the alphabet."""
    return sorted(RENDERERS)


def training_named(name: str) -> RendererTraining:
    """Return the training part of a renderer.

    Raises:
        ModelNotFoundError: there is no renderer of this name; the message lists the names.
    """
    module: Any = import_module(f"research.methods.{renderer_named(name).spec.name}.render")
    training: RendererTraining = module.TRAINING
    return training
