"""ArtefactRef messages to and from references of the artefact store: one check for every stage."""

from __future__ import annotations

from dubstage.common.v1alpha1 import common_pb2
from services.common.artefacts import ArtefactRef, check_ref
from services.common.errors import InvalidRequest


def ref_from_proto(message: common_pb2.ArtefactRef, field: str) -> ArtefactRef:
    """A reference to an artefact.

    Raises:
        InvalidRequest: it has no uri, its sha256 is no digest, or its size is negative; the message names the field.
    """
    if not message.uri:
        raise InvalidRequest(f"{field}: an artefact's uri and sha256 are needed", field=field)
    ref = ArtefactRef(message.uri, message.sha256, message.size_bytes)
    check_ref(ref, field)
    return ref


def ref_to_proto(ref: ArtefactRef) -> common_pb2.ArtefactRef:
    """The message of a reference."""
    return common_pb2.ArtefactRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)
