import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import logging, sys
import structlog
from services.common.server.telemetry import configure_logging

configure_logging(level="info", log_format=sys.argv[1], stage="render")
log = structlog.stdlib.get_logger("dubstage.rpc")
log.debug("too_fine")
with structlog.contextvars.bound_contextvars(job_id="job-7"):
    log.info("rpc_finished", code="OK")
logging.getLogger("grpc").warning("from %s", "elsewhere")
try:
    token = "secret-value"
    raise ValueError("inside")
except ValueError as error:
    log.error("failed", exc_info=error)
"""


def logged(log_format: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, log_format]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert result.stdout == ""
    return result.stderr


def test_json_log_has_context_and_traceback() -> None:
    """JSON lines hold context stage and traceback of all loggers."""
    lines = [json.loads(line) for line in logged("json").splitlines()]
    wanted = {"rpc_finished": "info", "from elsewhere": "warning", "failed": "error"}
    assert [(line["event"], line["level"]) for line in lines] == list(wanted.items())
    assert all(line["stage"] == "render" and line["timestamp"].endswith("Z") for line in lines)
    assert (lines[0]["job_id"], lines[0]["code"], "job_id" in lines[1]) == ("job-7", "OK", False)
    assert "ValueError: inside" in lines[2]["exception"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_format_shows_the_values_of_local_variables(log_format: str) -> None:
    text = logged(log_format)
    assert "ValueError: inside" in text
    assert text.count("secret-value") == 0
