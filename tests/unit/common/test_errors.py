from __future__ import annotations

import copy
import inspect
import pickle
import re

import grpc
import pytest

from services.common import errors
from services.common.server.error_status import TABLE, domain_error, from_status, log_fields, opaque, to_status


def refined(kind: type[Exception]) -> list[type[Exception]]:
    """Classes of the tree below a class. Other modules may refine a leaf for their own code, with the same reason."""
    return [below for below in kind.__subclasses__() if below.__module__ == errors.__name__]


@pytest.mark.parametrize("leaf", errors.leaves())
def test_every_leaf_says_what_a_caller_must_know(leaf: type[errors.DubstageError]) -> None:
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", leaf.reason)
    assert leaf.code in grpc.StatusCode.__members__
    assert leaf.exit_code in {10, 11, 12, 20, 130}
    assert leaf.retryable == (leaf.exit_code == 20)
    assert leaf.__name__ in (errors.__doc__ or "")
    assert refined(leaf) == []


def test_reasons_unique_and_leaves_raised() -> None:
    """Reasons are unique and the leaves are all classes that are raised."""
    reasons = [leaf.reason for leaf in errors.leaves()]
    assert len(set(reasons)) == len(reasons)
    classes = [
        item
        for module in (errors, errors, errors)
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, Exception)
    ]
    assert {item for item in classes if not refined(item)} == set(errors.leaves()) == set(TABLE)


@pytest.mark.parametrize("leaf", errors.leaves())
def test_errors_survive_a_process_boundary(leaf: type[errors.DubstageError]) -> None:
    error = leaf("what and how to help")
    error.stage = "render"
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is leaf
        assert vars(again) == vars(error)
        assert str(again) == "what and how to help"


def test_a_status_of_another_domain_is_not_ours() -> None:
    status = to_status(errors.InvalidRequestError("x"), stage="render")
    assert isinstance(from_status(status), errors.InvalidRequestError)
    info = status.details[0]
    info.value = info.value.replace(b"dubstage", b"dubstagf")
    assert from_status(status) is None


def test_foreign_exception_becomes_opaque() -> None:
    """An exception outside of the tree becomes opaque and keeps its cause."""
    cause = RuntimeError("inside")
    error = domain_error(cause)
    assert isinstance(error, errors.UnexpectedError)
    assert error.__cause__ is cause
    assert "inside" not in error.message
    assert error.error_id != opaque(cause).error_id


def test_log_links_id_to_cause() -> None:
    """The log of an unexpected error leads from its id to its cause."""
    cause = RuntimeError("inside")
    error = opaque(cause)
    fields = log_fields(error)
    assert fields == {"reason": "UNEXPECTED", "message": error.message, "error_id": error.error_id, "exc_info": cause}
    assert log_fields(errors.InvalidRequestError("x" * 5000))["message"].endswith("x…")


def test_the_tree_knows_no_grpc() -> None:
    assert "import grpc" not in inspect.getsource(errors)
