"""Personalisation of `everyone`: the person's neural texture, and an offset of the style vector (Sec. 3.5).

The paper trains a new texture from random numbers and the whole network beside it, and mixes in training data of other people at a
ratio of one to one, so that the network stays general. Here the network stays as it is: one loaded model serves all actors, and
nothing can be forgotten. So no data of other people is needed, and none comes with dubstage. The texture begins with the person's
frames, brought back to the texture (unprojection.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from services.common.errors import InvalidRequest
from services.common.face.neural_texture import NeuralSurface
from services.render.renderer import PersonalizeJob
from services.render.renderers.everyone.actor_footage import actor_windows, bank_texture
from services.render.renderers.everyone.actor_state import packed, reference_row
from services.render.renderers.everyone.network import WEIGHTS, load
from services.render.renderers.everyone.texture_search import TextureRecipe, TextureSearch
from services.render.types import PersonalizeProgress


def personalize_everyone(job: PersonalizeJob, recipe: TextureRecipe = TextureRecipe()) -> Iterator[PersonalizeProgress]:
    """Find the texture and the state of the bank's person; yield progress. The last report holds the result.

    The state is the offset of W and the reference picture (actor_state.py). The result is the same for the same seed and number of
    threads.

    Args:
        job: the bank, what draws the person, the prior's weights and settings. `train=False` skips the search: the only report, of
            step 0 of 0, holds the first texture and no offset. So does a bank of one frame, which has nothing to learn from.
        recipe: settings of the search.

    Raises:
        Cancelled: the call that this is done for is over.
        InvalidRequest: the expressions of the bank are of another model than the identity.
        ModelNotFound: a weights file is missing.
    """
    torch.set_num_threads(job.num_threads)
    assert job.drawing is not None  # the renderer declares needs_identity
    bank = job.bank
    network = load(job.weights / WEIGHTS)
    model = job.drawing.mesh.model
    if bank.expression is not None and bank.expression.shape[1] != model.num_expression:
        raise InvalidRequest(
            f"the bank has {bank.expression.shape[1]} expression coefficients a frame, and the identity's model has "
            f"{model.num_expression}: build the bank with coefficients of the identity's model",
            field="bank",
        )
    surface = NeuralSurface(job.drawing.identity, model)
    reference = bank.boxes[reference_row(bank)]
    texture = bank_texture(bank, surface, job.seed)
    steps = job.num_steps or recipe.num_steps
    if not job.train or bank.num_frames == 1 or not steps:
        yield PersonalizeProgress(0, 0, 0.0, packed(network.default_state().numpy(), reference), texture)
        return
    windows = actor_windows(bank, surface, recipe.num_windows, job.seed)
    search = TextureSearch(network, texture, recipe, steps, job.weights)
    for progress in search.run(windows, job.seed):
        state = packed(progress.style, reference)
        yield PersonalizeProgress(progress.step, steps, progress.loss, state, progress.texture)
