"""ArtefactRef messages to and from references of the artefact store."""

from __future__ import annotations

from dubstage.common.v1alpha1 import common_pb2
from services.common.errors import InvalidRequest
from services.common.store.artefacts import ArtefactRef, check_ref


def ref_from_proto(message: common_pb2.ArtefactRef, field: str) -> ArtefactRef:
    """Return a reference to an artefact.

    Raises:
        InvalidRequest: the reference has no uri, its sha256 is no digest, or its size is negative. The message names the field.
    """
    if not message.uri:
        raise InvalidRequest(f"{field}: an artefact's uri and sha256 are needed", field=field)
    ref = ArtefactRef(message.uri, message.sha256, message.size_bytes)
    check_ref(ref, field)
    return ref


def ref_to_proto(ref: ArtefactRef) -> common_pb2.ArtefactRef:
    """Return a reference as a message."""
    return common_pb2.ArtefactRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)
