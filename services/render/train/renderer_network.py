"""What the trainings of all renderers share: their entry in the list of networks, and how they are opened."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from services.render.backends.registry import WEIGHTS_FOLDER
from services.render.networks.perceptual import PerceptualNetwork, load_perceptual
from services.render.train.check import HeldOutClips, check_rows
from services.render.train.footage import Source
from services.render.train.held_out import Clip, HeldOut
from services.render.train.people import People, person_clips
from services.render.train.recipe import Recipe
from services.render.train.run_export import export_renderer
from services.render.train.trainer import TrainerInputs
from services.render.train.vgg import load_vgg
from services.training.networks import Opening, TrainableNetwork
from services.training.training import Training

PERCEPTUAL: Final = "perceptual"
"""Name of the perceptual network."""
STAGE: Final = "render"


def renderer_network(
    name: str,
    *,
    summary: str,
    configs: Mapping[str, Recipe],
    open_training: Callable[[Opening], Training[Any]],
    more_needs: tuple[str, ...] = (),
    more_files: Callable[[Path], Sequence[str]] = lambda _run: (),
) -> TrainableNetwork:
    """Return a renderer's network as `dubstage train` lists it, under the name NAME_renderer.

    Args:
        name: name of the renderer.
        summary: one sentence: what the network does.
        configs: presets by name.
        open_training: opens a training.
        more_needs: networks that the training builds on beside the perceptual network.
        more_files: returns names of further files of a run that the stage serves beside NAME.safetensors.
    """
    return TrainableNetwork(
        name=f"{name}_renderer",
        stage=STAGE,
        summary=summary,
        configs=configs,
        needs=(PERCEPTUAL, *more_needs),
        open=open_training,
        export=partial(export_renderer, name, more_files),
    )


def open_perceptual(opening: Opening) -> PerceptualNetwork:
    """Return the perceptual network of the given run, or the one that comes with dubstage, on the training's device.

    Raises:
        InvalidRequest: the folder that is given holds no run of the perceptual network.
        ModelNotFound: the run's file is missing or damaged.
    """
    network = load_perceptual((opening.run_of(PERCEPTUAL) or WEIGHTS_FOLDER) / f"{PERCEPTUAL}.safetensors")
    return network.to(opening.device.torch_device)


def trainer_inputs(
    opening: Opening,
    source: Source[Any],
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
        InvalidRequest: the set has no clip to check with, or the VGG file cannot be used.
    """
    recipe: Recipe = opening.config
    features: Any = load_vgg(Path(recipe.vgg)).to(opening.device.torch_device) if recipe.vgg else perceptual.features
    known = {person.name for person in source.people.clips}
    rows = check_rows(opening.data, recipe.check_clips, without=without)
    return TrainerInputs(opening.device, source, HeldOutClips(rows, opening.data, known, read), features)


def training_people(opening: Opening) -> People:
    """Return the people of the training set that a recipe trains on."""
    recipe: Recipe = opening.config
    clips = person_clips(opening.data.of("train", pixels=True))
    return People(opening.data, clips, recipe.people, seed=recipe.loop.seed)
