"""How a training of `everyone` is opened."""

from __future__ import annotations

from services.common.errors import InvalidRequest
from services.render.renderers.everyone.actor_footage import bank_texture
from services.render.renderers.everyone.train.footage import TexturedPeople, WindowSource
from services.render.renderers.everyone.train.held_out import read_held_out
from services.render.renderers.everyone.train.surfaces import HOW_TO_GET_IDENTITIES, has_identity, read_drawing, surface_of
from services.render.renderers.everyone.train.trainer import EveryoneTrainer
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
    without = {row.speaker for row in data.rows if not has_identity(data, row.speaker)}
    rows = [row for row in data.of("train", pixels=True) if row.speaker not in without]
    if not rows:
        raise InvalidRequest(f"{data.folder}/identities: nobody has an identity: {HOW_TO_GET_IDENTITIES}", field="data")
    seed = recipe.loop.seed
    people = People(data, person_clips(rows), recipe.people, seed=seed)
    surfaces = [surface_of(read_drawing(data, clips.name)) for clips in people.clips]
    firsts = [bank_texture(people.person(number, 0).bank, surface, seed + 1 + number) for number, surface in enumerate(surfaces)]
    source = WindowSource(people, TexturedPeople(data, surfaces, firsts), seed=seed)
    return EveryoneTrainer(recipe, trainer_inputs(opening, source, open_perceptual(opening), read_held_out, without=without))
