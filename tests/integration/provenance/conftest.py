"""Fixtures of the tests of signed videos."""

from __future__ import annotations

from tests.unit.provenance.conftest import carphone

__all__ = ["carphone"]
