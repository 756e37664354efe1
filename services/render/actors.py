"""Actors in the artefact store: the states that renderers keep of a person, and the banks that a personalisation reads."""

from __future__ import annotations

from typing import Final

import numpy as np

from services.common.array_types import Float32, UInt8
from services.common.errors import InvalidRequestError
from services.common.face.drawing import IdentityDrawing
from services.common.face.identity import identity_from_arrays, model_of_identity
from services.common.face.morphable_models import MorphableModels
from services.common.face.mouth_bank import MouthBank, bank_from_arrays
from services.common.face.neural_texture import ACTOR_FORMAT, ARRAY_NAME
from services.common.store.artefacts import MAX_ARRAYS_BYTES, ArrayCache, ArtefactRef, ArtefactStore, artefact_field
from services.common.store.tensor_bytes import NamedArrays
from services.render.backends.model_files import ModelFile
from services.render.streams import default_state

_STATE: Final = "actor_state"
_LARGEST_STATE: Final = 1e4
"""Largest magnitude of a number in an actor's state; numbers of real actors stay below 10."""


class ActorStates:
    """Actors' states, banks and identities in an artefact store. Safe for several threads.

    Args:
        cache: cache of actors' states before the store.
        models: morphable models on which faces are drawn, for renderers that need the person's identity.
    """

    def __init__(self, store: ArtefactStore, cache: ArrayCache, models: MorphableModels) -> None:
        self._store, self._cache, self._models = store, cache, models

    def state(self, ref: ArtefactRef | None, model: ModelFile) -> Float32:
        """Load an actor's state, float32 [S]; without a reference, return the prior's own state.

        Args:
            ref: the actor's artefact, field `config.actor` of the request; None: no actor.
            model: the exported network that the state is for.

        Raises:
            InvalidRequestError: the artefact holds no state of this model, or was made for another prior.
            ArtefactNotFoundError, ArtefactCorruptError: from the store.
        """
        if ref is None:
            return default_state(model)
        with artefact_field("config.actor"):
            return self._state_of(self._cache.get_arrays(ref), model)

    def _state_of(self, named: NamedArrays, model: ModelFile) -> Float32:
        form = named.metadata.get("format")
        if form != ACTOR_FORMAT:
            raise InvalidRequestError(f"config.actor: not a renderer's actor: format {form!r}", field="config.actor")
        if named.metadata.get("prior_sha256") != model.prior_sha256:
            raise InvalidRequestError(
                f"config.actor was personalised with another version of model {model.name!r}: personalise it again",
                field="config.actor",
            )
        state: Float32 = named[_STATE]
        if state.shape != (model.state_size,) or state.dtype != "float32":
            raise InvalidRequestError(
                f"config.actor: expected float32 [{model.state_size}], got {state.dtype} {list(state.shape)}",
                field="config.actor",
            )
        if not (np.abs(state) <= _LARGEST_STATE).all():  # written so that NaN fails
            raise InvalidRequestError(
                f"config.actor is damaged: its state holds numbers beyond {_LARGEST_STATE:g} or none: personalise it again",
                field="config.actor",
            )
        return state

    def store_state(self, state: Float32, model: ModelFile, texture: UInt8 | None = None) -> ArtefactRef:
        """Store what a personalisation found; return the reference of the actor's artefact.

        Args:
            state: float32 [S], the actor's state.
            model: the exported network that the state is for.
            texture: uint8 [256, 256, 16], the actor's neural texture; None: the renderer learns none.

        Raises:
            StorageFullError: from the store.
        """
        metadata = {"format": ACTOR_FORMAT, "model": model.name, "prior_sha256": model.prior_sha256}
        textures = {} if texture is None else {ARRAY_NAME: texture}
        return self._store.put_arrays({_STATE: state, **textures}, metadata)

    def bank(self, ref: ArtefactRef) -> MouthBank:
        """Load the bank that a personalisation learns from.

        Raises:
            InvalidRequestError: the artefact holds no bank.
            ArtefactNotFoundError, ArtefactCorruptError: from the store.
        """
        with artefact_field("bank"):
            return bank_from_arrays(self._store.get_arrays(ref, max_bytes=MAX_ARRAYS_BYTES))

    def drawing(self, ref: ArtefactRef | None) -> IdentityDrawing | None:
        """Load the identity that draws the person of a personalisation; None: no identity is needed.

        Raises:
            InvalidRequestError: the artefact holds no identity, or its model's faces cannot be drawn.
            ModelNotFoundError: the identity's morphable model is not installed here.
            ArtefactNotFoundError, ArtefactCorruptError: from the store.
        """
        if ref is None:
            return None
        with artefact_field("identity"):
            stored = self._store.get_arrays(ref, max_bytes=MAX_ARRAYS_BYTES)
            model = self._models.get(model_of_identity(stored))
            return IdentityDrawing(identity_from_arrays(stored, model), model)
