"""Choosing a loader."""

import pytest

from services.common.errors import InvalidRequestError
from services.common.face.loaders import load_model
from services.common.geometry.morphable_model import WEIGHTS, default_model


def test_our_own_file_is_read():
    assert load_model(WEIGHTS).digest == default_model().digest


def test_unknown_file_refused(tmp_path):
    """A file that is no model is refused, and the error lists the known formats."""
    (tmp_path / "face.txt").write_text("")
    with pytest.raises(InvalidRequestError, match=r"\.safetensors.*FLAME.*Basel"):
        load_model(tmp_path / "face.txt")
    with pytest.raises(InvalidRequestError, match="no face model"):
        load_model(tmp_path / "none.pkl")
    with pytest.raises(InvalidRequestError, match="holds neither"):
        load_model(tmp_path)
    (tmp_path / "video.safetensors").write_bytes(b"12345678")
    with pytest.raises(InvalidRequestError, match="named arrays"):
        load_model(tmp_path / "video.safetensors")
