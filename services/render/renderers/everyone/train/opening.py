"""How a training of `everyone` is opened."""

from __future__ import annotations

from services.render.renderers.everyone.actor_footage import bank_texture
from services.render.renderers.everyone.train.footage import TexturedPeople, WindowSource
from services.render.renderers.everyone.train.held_out import read_held_out
from services.render.renderers.everyone.train.surfaces import read_surface
from services.render.renderers.everyone.train.trainer import EveryoneTrainer
from services.render.train.identities import identified_rows
from services.render.train.people import People, person_clips
from services.render.train.renderer_network import open_perceptual, trainer_inputs
from services.training.networks import Opening


def open_everyone(opening: Opening) -> EveryoneTrainer:
    """Open a training. People without an identity are left out.

    Raises:
        InvalidRequest: nobody has an identity, the set has no clip to check with, or the VGG file cannot be used.
        ModelNotFound: a weights file is missing.
    """
    recipe, data = opening.config, opening.data
    rows, without = identified_rows(data)
    seed = recipe.loop.seed
    people = People(data, person_clips(rows), recipe.people, seed=seed)
    surfaces = [read_surface(data, clips.name) for clips in people.clips]
    firsts = [bank_texture(people.person(number, 0).bank, surface, seed + 1 + number) for number, surface in enumerate(surfaces)]
    source = WindowSource(people, TexturedPeople(data, surfaces, firsts), seed=seed)
    return EveryoneTrainer(recipe, trainer_inputs(opening, source, open_perceptual(opening), read_held_out, without=without))
