"""The short version: what the full run chose is read from its rows, and not searched again.

So every method has one setting, and none was chosen on the target that is shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._records import Rows
from benchmarks.tasks import control as task
from benchmarks.tasks import control_config as names
from benchmarks.tasks import control_sequential as sequential
from benchmarks.tasks.control_report import curves

NOTE = """\
The short version: temperatures, rates, passes and the settings of priors are those that the full run chose, on the
source's own task and on the other targets. Choosing a scale by returns and cloning are left out."""


class Published(Rows):
    """Rows of the full run, which are read alone."""

    def __init__(self, path: Path):
        self.rows = [json.loads(line) for line in path.read_text().splitlines()]


class Choices(NamedTuple):
    """Attributes:
    rows: among which settings were chosen.
    chosen: those of the main table.
    sequential: target and method to share and rate of the critic, where the last posterior is the next prior.
    """

    rows: Published
    chosen: names.Chosen
    sequential: Mapping[tuple[str, str], Any]


def choices(directory: Path) -> Choices:
    """What the full run in a directory of results chose."""
    config, rows = names.Config(), Published(directory / "rows.jsonl")
    later = Published(directory / "sequential_rows.jsonl")
    shared = {kind: task.shared(config, rows, kind) for kind in (names.TUNED_EM, names.TUNED_PPO)}
    settings = {(t, m): curves(config, rows, t, m)[1] for t in config.targets for m in names.RUN}
    pairs = {}
    for target in config.targets:
        for method in (*sequential.PLAIN, *sequential.FIRST):
            share, rate = curves(config, later, target, method)[1].split(", ")
            pairs[target, method] = (float(share), float(rate))
    return Choices(rows, names.Chosen(shared, settings), pairs)
