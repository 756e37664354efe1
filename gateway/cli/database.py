"""`dubstage database`: upgrade the tables of all tenants."""

from __future__ import annotations

from gateway.cli.app import command_group
from gateway.cli.console import say_json, say_result, wants_json
from gateway.cli.options import AsJson
from gateway.database.upgrades import head
from gateway.settings import GatewaySettings
from gateway.tenants.register import open_all
from services.common.errors import InvalidRequestError
from services.common.server.call_context import DEFAULT_TENANT
from services.common.server.settings import load_settings

commands = command_group("database", "Upgrade the tables of actors, operations and jobs.")


@commands.callback()
def _database() -> None:
    """Upgrade the tables of actors, operations and jobs."""


@commands.command("upgrade")
def upgrade(_: AsJson = False) -> None:
    """Upgrade the tables of all tenants to the revision of this version of dubstage.

    Gateways and commands upgrade the tables themselves when they open a database. This command does the same before they start.
    The upgrade of a tenant is done whole or not at all. Copy the database before.
    """
    settings = load_settings(GatewaySettings)
    if settings.tenant != DEFAULT_TENANT:
        settings = settings.model_copy(update={"tenant": DEFAULT_TENANT})
    upgraded = []
    for database in open_all(settings):
        upgraded.append(
            {"place": database.where, "tenant": database.tenant, "before": database.opened_revision or "", "now": head()}
        )
        say_result(f"{database.where} ({database.tenant}): {database.opened_revision or 'new'} -> {head()}")
    if not upgraded:
        raise InvalidRequestError(
            f"there is no database in {settings.data_dir}: set DUBSTAGE_DATA_DIR or DUBSTAGE_DATABASE_URL",
            field="DUBSTAGE_DATA_DIR",
        )
    if wants_json():
        say_json({"databases": upgraded})
