"""Fixtures of the tests of signed videos."""

from tests.unit.provenance.conftest import carphone

__all__ = ["carphone"]
