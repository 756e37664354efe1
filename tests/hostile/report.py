"""The report of a campaign: JSON for machines, HTML for people."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from tests.hostile.campaign import KEPT_GROWTH_BYTES, PEAK_GROWTH_BYTES, Result
from tests.hostile.case import DEFAULT_LIMIT_S
from tests.hostile.children import PEAK_BYTES

KINDS = ("crash", "hang", "code", "unnamed", "message", "not finite", "path", "outside", "leftover", "growth", "campaign")
"""Order of the report's table; every kind must be 0."""


def write_report(result: Result, folder: Path) -> Path:
    """Write `report.json` and `report.html`; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(result).items()}
    facts |= {
        "findings": [asdict(finding) for finding in result.findings],
        "by_kind": dict(result.kinds()),
        "named_errors": result.named_errors,
    }
    (folder / "report.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("report.html.j2").render(
        r=result,
        counts=result.kinds(),
        kinds=KINDS,
        mib=1 << 20,
        peak=PEAK_GROWTH_BYTES,
        kept=KEPT_GROWTH_BYTES,
        child=PEAK_BYTES,
        limit=DEFAULT_LIMIT_S,
    )
    target = folder / "report.html"
    target.write_text(page, encoding="utf-8", errors="backslashreplace")
    return target
