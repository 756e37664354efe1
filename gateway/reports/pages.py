"""Jinja pages of reports: one HTML file a report, style inside, pictures beside it by relative names."""

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
    """A number for a table; a dash where it is unknown."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def interval(value: Interval | None, digits: int = 2) -> str:
    """A 95 % interval for a table; empty where there is none."""
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
    """Write `folder`/index.html from a template; the folder is made. Returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    text = _environment().get_template(template).render(**values)
    page.write_text(text, encoding="utf-8", errors="backslashreplace")  # a file's name may hold bytes that are not UTF-8
    return page
