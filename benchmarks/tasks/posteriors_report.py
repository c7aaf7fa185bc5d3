"""What the comparison of posteriors found: a table per problem."""

from __future__ import annotations

from typing import Any

from benchmarks._records import Rows
from benchmarks._tables import cell, of
from benchmarks.tasks.posteriors import DRAWS, MEMBERS, METHODS, NUTS, RANK, Config
from benchmarks.tasks.posteriors_problems import DROPOUT, MOONS, NOISE, YACHT

CAPTION = """\
Distance to NUTS and test scores over {seeds} seeds (which examples, and all randomness), mean ± standard error. Total
variation is that of one example's predictive distribution, in [0, 1]; agreement is how often both prefer the same
class. The last column is the paired difference in NLL to NUTS. "NUTS, another run" shows what distance Monte-Carlo
error alone makes. Where a method has a learning rate or step size, three were tried and the one with the lowest
validation NLL taken. {steps} steps of each method that trains, {chain_steps} of each sampler, at batches of 20;
{draws} draws; low-rank VI and SWAG have rank {rank}, ensembles {members} members, dropout the rate {dropout}; NUTS
{nuts_chains} chains of {nuts_samples} draws after {nuts_warmup} of warm-up, whose seconds are not comparable with the
others' (it is compiled each time)."""

TITLES = {
    YACHT: "Yachts of other hull forms: regression, 40 examples, 257 parameters, noise fixed at {noise}",
    MOONS: "Turned moons: two classes, 30 examples, 354 parameters",
}
FIELDS = {
    YACHT: ("total_variation", "nll", "rmse", "interval_coverage"),
    MOONS: ("total_variation", "agreement", "nll", "ece"),
}


def report(config: Config, rows: Rows) -> str:
    """Tables in Markdown."""
    words = {**config._asdict(), "draws": DRAWS, "rank": RANK, "members": MEMBERS, "dropout": DROPOUT}
    parts = [CAPTION.format(**words)]
    for name in config.problems:
        parts += ["### " + TITLES[name].format(noise=NOISE), table(rows, name)]
    return "\n\n".join(parts) + "\n"


def table(rows: Rows, problem: str) -> str:
    """A line for each method."""
    fields = FIELDS[problem]
    lines = [
        "| method | " + " | ".join(name.replace("_", " ") for name in fields) + " | nll minus NUTS | seconds |",
        "|---|" + "---|" * (len(fields) + 2),
    ]
    reference = of(rows.rows, "nll", problem=problem, method=NUTS)
    for method in (NUTS, *METHODS):
        key: dict[str, Any] = {"problem": problem, "method": method}
        nll = of(rows.rows, "nll", **key)
        if not len(nll):
            continue
        cells = [cell(of(rows.rows, field, **key)) for field in fields]
        paired = cell(nll - reference, sign=True) if method != NUTS and len(nll) == len(reference) else ""
        lines.append(
            f"| {method} | " + " | ".join([*cells, paired, f"{of(rows.rows, 'seconds', **key).mean():.1f}"]) + " |"
        )
    return "\n".join(lines)
