"""What the comparison of posteriors found: a table per problem."""

from __future__ import annotations

from benchmarks._records import Rows
from benchmarks._tables import markdown
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
        parts += [
            "### " + TITLES[name].format(noise=NOISE),
            markdown(rows.rows, {"problem": name}, (NUTS, *METHODS), NUTS, FIELDS[name]),
        ]
    return "\n\n".join(parts) + "\n"
