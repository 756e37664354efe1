"""What the fork server of the tests imports before the first command: the whole command line, and nothing that starts threads."""

import sqlalchemy.dialects.sqlite  # noqa: F401

import gateway.stages.remote  # noqa: F401
from gateway.cli import app as _app

_app.register_commands([])
