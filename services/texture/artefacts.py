"""Stored artefacts as the stage computes with them: mouth banks, neural textures, and identities with their drawn faces."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from services.common.array_types import UInt8
from services.common.face.drawing import IdentityDrawing
from services.common.face.identity import FaceIdentity, identity_from_arrays, model_of_identity
from services.common.face.morphable_models import MorphableModels
from services.common.face.mouth_bank import FORMAT, MouthBank, bank_arrays, bank_from_arrays
from services.common.face.neural_texture import NeuralSurface, neural_texture_from_arrays
from services.common.geometry.morphable_model import MorphableModel
from services.common.geometry.rasterise import Backend
from services.common.server.call_context import set_model_version
from services.common.store.artefacts import ArrayCache, ArtefactRef, ArtefactStore, artefact_field
from services.common.store.tensor_bytes import NamedArrays
from services.texture.inside_path import InsideCosts


class StoredFaces:
    """Reads and writes what the stage knows of persons. All methods block.

    Args:
        store: where banks are put.
        cache: banks, actors and identities are read through the cache.
        models: the morphable models of identities.
        rasteriser: backend of the rasteriser for drawn faces and UV maps.
    """

    def __init__(self, store: ArtefactStore, cache: ArrayCache, models: MorphableModels, rasteriser: Backend) -> None:
        self._store, self._cache, self._models, self._rasteriser = store, cache, models, rasteriser
        self._costs: WeakKeyDictionary[NamedArrays, InsideCosts] = WeakKeyDictionary()

    @property
    def rasteriser(self) -> Backend:
        """Backend of the rasteriser."""
        return self._rasteriser

    def keep_bank(self, bank: MouthBank) -> ArtefactRef:
        """Store a bank and return its reference."""
        return self._store.put_arrays(bank_arrays(bank), {"format": FORMAT})

    def inside_costs(self, ref: ArtefactRef) -> InsideCosts:
        """Return the costs of a stored bank, with the bank. Streams share them as long as the bank's arrays are in the cache.

        Raises:
            InvalidRequestError, ArtefactNotFoundError, ArtefactCorruptError: the artefact cannot be read, or is no bank.
        """
        with artefact_field("config.bank"):
            arrays = self._cache.get_arrays(ref)
            costs = self._costs.get(arrays)
            bank = bank_from_arrays(arrays) if costs is None else costs.bank
        if costs is None:
            costs = InsideCosts(bank)
            costs.prepare()
            self._costs[arrays] = costs
        return costs

    def texture(self, ref: ArtefactRef) -> UInt8:
        """Return the neural texture of a stored actor, uint8 [256, 256, 16].

        Raises:
            InvalidRequestError, ArtefactNotFoundError, ArtefactCorruptError: the artefact cannot be read, or holds no neural
                texture.
        """
        with artefact_field("config.texture"):
            return neural_texture_from_arrays(self._cache.get_arrays(ref), "config.texture")

    def person(self, ref: ArtefactRef) -> tuple[FaceIdentity, MorphableModel]:
        """Return a stored identity and its morphable model, and name the model in the current call's log line.

        Raises:
            InvalidRequestError, ArtefactNotFoundError, ArtefactCorruptError: the artefact cannot be read, or is no identity of the
                model.
            ModelNotFoundError: the identity's model is not installed here.
        """
        with artefact_field("config.identity"):
            stored = self._cache.get_arrays(ref)
            model = self._models.get(model_of_identity(stored))
            set_model_version(model.digest[:12])
            return identity_from_arrays(stored, model), model

    def drawing(self, ref: ArtefactRef) -> IdentityDrawing:
        """Return the drawing of a stored identity, through the stage's rasteriser.

        Raises:
            InvalidRequestError, ArtefactNotFoundError, ArtefactCorruptError, ModelNotFoundError: as `person`, or the face cannot be
                drawn.
        """
        with artefact_field("config.identity"):
            return IdentityDrawing(*self.person(ref), backend=self._rasteriser)

    def surface(self, ref: ArtefactRef) -> NeuralSurface:
        """Return the textured surface of a stored identity, through the stage's rasteriser.

        Raises:
            InvalidRequestError, ArtefactNotFoundError, ArtefactCorruptError, ModelNotFoundError: as `person`, or the model cannot
                hold a texture.
        """
        with artefact_field("config.identity"):
            return NeuralSurface(*self.person(ref), backend=self._rasteriser)
