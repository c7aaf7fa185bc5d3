"""Speed rows to a table: ratios with their spread and the target each was held to."""

from __future__ import annotations

import json
from pathlib import Path


def table(rows: Path) -> str:
    """A Markdown table of the rows in a file that compare two times.

    Args:
        rows: a .jsonl file that ``benchmarks.speed`` wrote.
    """
    lines = ["| measured | ratio | spread | target |", "|---|---|---|---|"]
    for row in map(json.loads, rows.read_text().splitlines()):
        if "ratio" not in row:
            continue
        target = "" if row["target"] is None else f"at most {row['target']:.2f}"
        spread = f"{row['low']:.2f} to {row['high']:.2f}"
        lines.append(f"| {row['name']} | {row['ratio']:.2f} | {spread} | {target} |")
    return "\n".join(lines) + "\n"
