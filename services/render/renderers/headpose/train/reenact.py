"""Ways to draw a clip with `headpose`.

Still mouth, rendered frame alone, prior and personalised with either albedo, an actor from a single still picture, and the paper's
ablations: no memory (the mean identity feature) and no identity feature.
"""

from __future__ import annotations

import numpy as np
import torch

from services.render.renderers.headpose.identity_features import embedding_of
from services.render.renderers.headpose.network import WEIGHTS, load
from services.render.renderers.headpose.train.ablations import attention_of, detailed_as_keys, draw_with
from services.render.renderers.headpose.train.actors import Actors
from services.render.train.contact_sheet import draw_sheet
from services.render.train.reenactment import PERSONALISED, Reenactment, Rows
from services.render.train.shown import Shown, base_faces, spread_places, still_mouth


def reenact(task: Reenactment) -> Rows:
    """Return the ways to draw a clip by title; write a sheet of attention masks.

    Raises:
        InvalidRequest: the training set has no identity of the person.
    """
    network = load(task.weights / WEIGHTS)
    actors = Actors(task)
    actor, clip, detailed, bank = actors.actor, actors.clip, actors.detailed, actors.bank
    prior = np.concatenate([np.zeros(network.film_size, np.float32), actor[network.film_size :]])
    embedding = embedding_of(task.weights / WEIGHTS)
    mean = torch.from_numpy(embedding.of(bank.boxes[:: max(1, bank.num_frames // 24)])).mean(dim=0, keepdim=True)

    pairs = [clip.pairs[at] for at in spread_places(clip)]
    sheet = [[pair.target, attention_of(network, pair, actor)] for pair in pairs]
    draw_sheet(task.folder / f"attention_{clip.name}.png", sheet)

    def ablated(identity: torch.Tensor) -> Shown:
        return detailed_as_keys(Shown(clip, draw_with(network, clip.pairs, prior, identity)))

    return {
        "still mouth": lambda: still_mouth(clip),
        "rendered frame": lambda: base_faces(clip),
        "rendered, detailed": lambda: base_faces(detailed),
        "prior": lambda: actors.served(prior, clip),
        "prior, detailed": lambda: actors.served(prior, detailed),
        PERSONALISED: lambda: actors.served(actor, clip),
        "personalised, detailed": lambda: actors.served(actor, detailed),
        "as the network drew it": lambda: actors.drawn(actor, clip),
        "still picture": actors.still,
        "no actor's items": lambda: actors.served(np.zeros_like(actor), clip),
        "no memory": lambda: ablated(mean),
        "no identity feature": lambda: ablated(torch.zeros_like(mean)),
    }
