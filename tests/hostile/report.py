"""The report of a campaign: JSON for machines, HTML for people."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, select_autoescape

from tests.hostile.campaign import KEPT_GROWTH_BYTES, PEAK_GROWTH_BYTES, Result
from tests.hostile.case import DEFAULT_LIMIT_S
from tests.hostile.children import PEAK_BYTES

KINDS = ("crash", "hang", "code", "unnamed", "message", "not finite", "path", "outside", "leftover", "growth", "campaign")
"""Order of the report's table; every kind must be 0."""

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Hostile campaign</title>
<style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{border-bottom:1px solid #ccc;padding:.2rem .8rem;text-align:left;vertical-align:top}
td.n{text-align:right}.bad{color:#a00;font-weight:600}code{font-size:.85em;overflow-wrap:anywhere}</style>
<h1>Hostile campaign</h1>
<p>{{ r.cases }} cases in {{ "%.0f"|format(r.seconds) }} s, seed {{ r.seed }}: {{ r.named_errors }} named errors,
{{ r.by_code["OK"] + r.by_code["exit 0"] }} without harm, <span class="{{ 'bad' if r.findings }}">{{ r.findings|length }} findings</span>.</p>
<table><tr><th>must not happen</th><th>seen</th></tr>
{% for kind in kinds %}<tr><td>{{ kind }}</td><td class="n {{ 'bad' if counts[kind] }}">{{ counts[kind] }}</td></tr>{% endfor %}</table>
<p>Memory of the servers: {{ r.warm_bytes // mib }} MiB warm, {{ r.peak_bytes // mib }} MiB at most, {{ r.end_bytes // mib }} MiB at the end
(bounds: {{ peak // mib }} MiB more at any moment, {{ kept // mib }} MiB more at the end; {{ child // mib }} MiB for a command).
A case hangs after {{ "%.0f"|format(limit) }} s. Restarts of the servers: {{ r.restarts }}.</p>
{% for title, counter in (("Surface", r.by_surface), ("Code", r.by_code)) %}<table><tr><th>{{ title }}</th><th>cases</th></tr>
{% for name, count in counter.most_common() %}<tr><td>{{ name }}</td><td class="n">{{ count }}</td></tr>{% endfor %}</table>{% endfor %}
<h2>Slowest</h2><table>{% for seconds, name in r.slowest %}<tr><td class="n">{{ "%.1f"|format(seconds) }} s</td><td><code>{{ name }}</code></td></tr>{% endfor %}</table>
<h2>Findings</h2><table><tr><th>case</th><th>surface</th><th>kind</th><th>what</th></tr>
{% for f in r.findings %}<tr><td class="n">{{ f.number }}</td><td>{{ f.surface }}</td><td>{{ f.kind }}</td><td><code>{{ f.name }}</code><br><code>{{ f.seen }}</code></td></tr>{% endfor %}
</table></html>"""


def write_report(result: Result, folder: Path) -> Path:
    """Write `report.json` and `report.html`; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = asdict(result) | {"named_errors": result.named_errors, "findings_by_kind": dict(result.kinds())}
    (folder / "report.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    environment = Environment(autoescape=select_autoescape(default_for_string=True))
    page = environment.from_string(_PAGE).render(
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
