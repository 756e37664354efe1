"""Receipts of erasures: anybody who has the public key can check them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.actors.receipts import ErasureReceipt, ReceiptRefusedError, SweptPlace, signed, verified
from gateway.signatures import InstallationKey, installation_key

BANK, STATE = "b" * 64, "5" * 64


@pytest.fixture
def key(tmp_path: Path) -> InstallationKey:
    return installation_key(tmp_path / "data")


@pytest.fixture
def receipt(key: InstallationKey) -> ErasureReceipt:
    erased = {"bank": [BANK], "renderer": [STATE], "job": ()}
    return signed(key, "ann", erased=erased, kept={}, looked_at=[SweptPlace("artefact store", 2)], out_of_reach=["backups"])


def checked(content: bytes, key: InstallationKey) -> ErasureReceipt:
    return verified(content, lambda _: key.public)


def test_receipt_lists_kinds_and_verifies(receipt: ErasureReceipt, key: InstallationKey) -> None:
    """A receipt says what was erased by kind and verifies."""
    assert receipt.document["erased"] == {"bank": [BANK], "renderer": [STATE]}
    assert receipt.erased_sha256 == (STATE, BANK)
    assert checked(receipt.to_json().encode(), key) == receipt
    assert checked(json.dumps(receipt.document, indent=2).encode(), key) == receipt, "the layout of the JSON does not count"
    assert ErasureReceipt.from_json(receipt.to_json()) == receipt


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("actor_id", "bob"),
        ("erased_at", "2020-01-01T00:00:00+00:00"),
        ("erased", {"bank": [BANK]}),
        ("kept", {"bank": [BANK]}),
        ("looked_at", []),
        ("out_of_reach", []),
        ("signature", "AAAA"),
        ("signature", 7),
        ("signature", "ü"),
    ],
)
def test_an_altered_receipt_does_not_verify(receipt: ErasureReceipt, key: InstallationKey, field: str, value: Any) -> None:
    with pytest.raises(ReceiptRefusedError, match="the receipt was changed or forged"):
        checked(json.dumps({**receipt.document, field: value}).encode(), key)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"format":"dubstage erasure receipt 2"}'])
def test_what_is_no_receipt_does_not_verify(content: bytes, key: InstallationKey) -> None:
    with pytest.raises(ReceiptRefusedError):
        checked(content, key)


def test_altered_receipts_do_not_verify(receipt: ErasureReceipt, key: InstallationKey) -> None:
    """A cut receipt and one with a field twice do not verify."""
    content = receipt.to_json().encode()
    with pytest.raises(ReceiptRefusedError, match="cut or changed"):
        checked(content[:-10], key)
    with pytest.raises(ReceiptRefusedError, match="cut or changed"):
        checked(content[:-1] + b',"actor_id":"ann"}', key)
    with pytest.raises(ReceiptRefusedError, match="fields are missing, or too many"):
        checked(content[:-1] + b',"more":1}', key)


def test_a_forged_receipt_names_another_key(receipt: ErasureReceipt, key: InstallationKey, tmp_path: Path) -> None:
    forger = installation_key(tmp_path / "forger")
    forged = signed(forger, "ann", erased={}, kept={}, looked_at=(), out_of_reach=())
    with pytest.raises(ReceiptRefusedError, match=f"names the key {forger.id}"):
        checked(forged.to_json().encode(), key)
    lie = {**forged.document, "key": key.id}
    with pytest.raises(ReceiptRefusedError, match="changed or forged"):
        checked(json.dumps(lie).encode(), key)
