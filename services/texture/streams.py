"""Streams of textures by warp mode: retrieved and warped textures, or drawn faces."""

from __future__ import annotations

from services.common.chassis.calls import set_model_version
from services.texture.draw_identity import IdentityStream
from services.texture.models import TemporalWarpModel
from services.texture.retrieve_warp import WarpStream
from services.texture.stored import StoredFaces
from services.texture.types import WarpConfig


def open_stream(config: WarpConfig, stored: StoredFaces, model: TemporalWarpModel) -> WarpStream | IdentityStream:
    """Return the stream of a configuration.

    Args:
        config: mode, and the bank or the identity.
        stored: banks and identities.
        model: the loaded network.

    Raises:
        InvalidRequest, ArtefactNotFound, ArtefactCorrupt, ModelNotFound: the bank or the identity cannot be used.
    """
    if config.identity is not None:
        return IdentityStream(stored.drawing(config.identity), config.mode)
    assert config.bank is not None
    set_model_version(model.version)
    return WarpStream(stored.bank(config.bank), config.mode, model, config.detail_scale)
