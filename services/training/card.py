"""The card of a run: what was trained, on whose footage under which licences, and what the held-out clips say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from services.common.array_types import Array
from services.common.store.exported_network import card_of, write_whole
from services.common.store.tensor_bytes import encode_arrays
from services.training.run_folder import Progress
from services.training.trainset.manifest import ClipRow


def card(network: str, config: Mapping[str, Any], clips: Sequence[ClipRow], progress: Progress) -> str:
    """Return the card as Markdown.

    Args:
        network: name of the network.
        config: network and configuration, as config.json holds them.
        clips: rows that the network learned from.
        progress: how far the run came.
    """
    kept = (
        f"{progress.best_step}, chosen by score {progress.best_score:.4f}" if progress.best_score is not None else "the last step"
    )
    facts = {
        "clips learned from": f"{len(clips)}, {sum(row.seconds for row in clips) / 60:.1f} minutes",
        "speakers": str(len({row.speaker for row in clips})),
        "phone labels": ", ".join(
            f"{origin}: {count} clips" for origin, count in _counts(row.phones for row in clips if row.phones)
        ),
        "steps": str(progress.step),
        "kept step": kept,
        "seed": str(config["config"]["loop"]["seed"]),
    }
    lines = [f"# {network}", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items() if value), ""]
    if progress.figures:
        lines += ["Held-out clips, at the kept step:", "", "| figure | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in progress.figures.items()] + [""]
    lines += licence_table(clips)
    lines += ["Configuration:", "", "```json", json.dumps(config["config"], indent=1), "```", ""]
    return "\n".join(lines)


def licence_table(clips: Sequence[ClipRow]) -> list[str]:
    """Return the lines of a Markdown table: clips, speakers and minutes of each source and licence."""
    groups: dict[tuple[str, str], list[ClipRow]] = {}
    for row in clips:
        groups.setdefault((row.source, row.licence or "unknown"), []).append(row)
    lines = ["| source | licence | clips | speakers | minutes |", "|---|---|---|---|---|"]
    for (source, licence), rows in sorted(groups.items()):
        minutes = sum(row.seconds for row in rows) / 60
        lines.append(f"| {source} | {licence} | {len(rows)} | {len({row.speaker for row in rows})} | {minutes:.1f} |")
    return [*lines, ""]


def write_fitted(
    path: Path, arrays: Mapping[str, Array], settings: Mapping[str, float], clips: Sequence[ClipRow], scores: Mapping[str, Any]
) -> list[Path]:
    """Write what was fitted in closed form, its sheet (.json) and the card with the data, and return the three paths.

    Args:
        path: the file of the arrays, .safetensors.
        arrays: the arrays by name.
        settings: settings of the fit.
        clips: rows that were learned from.
        scores: what the judge says.
    """
    content = encode_arrays(arrays)
    facts = {
        "files": {path.name: {"sha256": hashlib.sha256(content).hexdigest()}},
        **settings,
        "clips": len(clips),
        "speakers": len({row.speaker for row in clips}),
        "minutes": round(sum(row.seconds for row in clips) / 60, 1),
        "scores": scores,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    sheet = json.dumps(facts, indent=1) + "\n"
    text = "\n".join([f"# {path.stem}", "", *licence_table(clips)])
    return [path, write_whole(path.with_suffix(".json"), sheet.encode()), write_whole(card_of(path), text.encode())]


def _counts(values: Iterable[str]) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return sorted(found.items())
