"""The networks of the audio stage that can be trained, and the preparation of their training sets."""

from __future__ import annotations

from typing import Final

from research.audio import posteriorgram
from research.audio.identity_removal import training as id_removal
from research.audio.identity_removal import training as id_removal_export
from research.audio.labelling import prepare_phones
from research.training.networks import Preparation, TrainableNetwork

NETWORKS: Final[tuple[TrainableNetwork, ...]] = (
    TrainableNetwork(
        name="posteriorgram",
        stage="audio",
        summary="tells the phone of each 10 ms of speech",
        configs={"default": posteriorgram.DEFAULT, "large": posteriorgram.LARGE},
        open=posteriorgram.PosteriorgramTraining,
        export=posteriorgram.export,
    ),
    TrainableNetwork(
        name="id_removal",
        stage="audio",
        summary="turns cepstra of any speaker into cepstra of one global speaker",
        configs={"default": id_removal.DEFAULT, "large": id_removal.LARGE},
        open=id_removal.IdRemovalTraining,
        export=id_removal_export.export,
    ),
)
PREPARATIONS: Final[tuple[Preparation, ...]] = (
    Preparation(
        name="phones",
        summary="labels the phone of each 10 ms of speech: by the transcript, else by recognition",
        prepare=prepare_phones,
    ),
)
