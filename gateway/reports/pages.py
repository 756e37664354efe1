"""Jinja pages of reports: one HTML file per report with the style inside and pictures beside the file."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from gateway.evaluation.types import Interval
from gateway.reports.folder import PAGE

_TEMPLATES = Path(__file__).with_name("templates")


def number(value: float | None, digits: int = 2) -> str:
    """Return a number as text for a table; a dash if the number is unknown."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def interval(value: Interval | None, digits: int = 2) -> str:
    """Return a 95 % interval as text for a table; empty if there is none."""
    return "" if value is None else f"{number(value.low, digits)} … {number(value.high, digits)}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["interval"] = interval
    return environment


def render_page(template: str, values: dict[str, Any], folder: Path) -> Path:
    """Write `folder`/index.html from a template, and return the path of the page. The folder is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    text = _environment().get_template(template).render(**values)
    page.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name may hold bytes that are not UTF-8
    return page
