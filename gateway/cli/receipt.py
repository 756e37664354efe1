"""`dubstage receipt`: check receipts of erasures, and print the public key that checks them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.actors.receipts import ErasureReceipt, ReceiptRefusedError, verified
from gateway.cli import options
from gateway.cli.app import command_group
from gateway.cli.console import say, say_error, say_json, say_result, wants_json, write_new_file
from gateway.cli.options import trusted_key
from gateway.safe_paths import bounded_bytes
from gateway.signatures import signing_key
from services.common.errors import InvalidRequestError

commands = command_group("receipt", "Check receipts of erasures.")

EXIT_REFUSED: Final = 3
"""Exit code if the receipt does not verify."""
_MOST_BYTES: Final = 64 << 20
"""Largest receipt that is read, bytes. A digest takes 67 bytes of a receipt."""


@commands.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The receipt, JSON.")],
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="PUBLIC.pem",
            help="Public key of the installation that erased. Default: the key of this installation.",
            show_default=False,
        ),
    ] = None,
    _: options.AsJson = False,
) -> None:
    """Check the signature of a receipt. The exit code is 3 if the receipt was changed, cut or forged, or another key signed it."""
    content = _content(file)
    try:
        receipt = verified(content, trusted_key(key))
    except ReceiptRefusedError as problem:
        say_error(f"{file}: {problem}")
        raise typer.Exit(EXIT_REFUSED) from None
    for line in lines(receipt):
        say(line)
    say_result(f"{receipt.actor_id} was erased at {receipt.erased_at}")
    if wants_json():
        from gateway.cli.documents import receipt_document

        say_json(receipt_document(receipt, ""))


@commands.command("key")
def public_key(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="PUBLIC.pem", help="New file for the key. Default: print.", show_default=False),
    ] = None,
    _: options.AsJson = False,
) -> None:
    """Print the public key that checks the receipts and the exported audit logs of this installation."""
    settings = options.gateway_settings()
    key = signing_key(settings.data_dir, settings.signing_key_file)
    if output is not None:
        write_new_file(output, key.public_pem.encode())
    say(f"key {key.id}")
    for line in [str(output)] if output is not None else key.public_pem.splitlines():
        say_result(line)
    if wants_json():
        say_json({"keySha256": key.id, "publicKey": key.public_pem, "outputUri": str(output or "")})


def lines(receipt: ErasureReceipt) -> list[str]:
    """Return what a person reads of a receipt, one fact per line."""
    texts = [f"signed with the key {receipt.key}"]
    for field, word in (("erased", "erased"), ("kept", "kept, because other work uses it")):
        kinds = receipt.document[field]
        texts += [f"{word}: {len(digests)} of the kind {kind}" for kind, digests in kinds.items()]
    texts += [f"looked through: {one['place']} ({one['looked_at']}): nothing is left" for one in receipt.document["looked_at"]]
    texts += [f"out of reach: {text}" for text in receipt.document["out_of_reach"]]
    return texts


def _content(file: Path) -> bytes:
    try:
        return bounded_bytes(file, _MOST_BYTES)
    except OSError as problem:
        raise InvalidRequestError(f"{file} cannot be read: {problem.strerror or problem}", field="file") from problem
