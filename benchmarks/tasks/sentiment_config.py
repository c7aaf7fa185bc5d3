"""What is run in the task with sentences, and what its methods are called."""

from __future__ import annotations

from typing import NamedTuple

VECTORS = "vectors/glove.6B.50d.top60k.txt.gz"
SOURCE = "text/rt-polarity.all"
TARGETS = {"custrev": ("text/custrev.all", 2), "TREC": ("text/TREC.train.all", 6)}
ENCODING = "latin-1"
# Percent of their sentences that are rt-polarity's, from the README of the data.
LEAKS = {"SST": 82, "SUBJ": 42}

SCRATCH, AS_IS, TRANSFER = "from scratch", "rt-polarity, as it is", "rt-polarity, transfer"
FROZEN, INITIALISATION, L2_SP, ROW_WISE = "frozen", "initialisation only", "L2-SP", "row-wise"
HOWS = (FROZEN, INITIALISATION, L2_SP, ROW_WISE)
SOURCES = ("GloVe", "rt-polarity")
TUNED = (SCRATCH, *(f"{source}, {how}" for source in SOURCES for how in HOWS))
METHODS = (*TUNED, AS_IS, TRANSFER)
DIMENSION, LENGTH, MIN_COUNT = 50, 48, 2
TEST, VALIDATION = 1000, 200
SPLIT_SEED, INIT_KEY, TRANSFER_KEY, WORDS_KEY = 7, 4, 5, 6
HEAD_SCALE, FLAT, ZERO = 1.0, 1e3, 1e-6
# A word that comes so often has the scale itself in row-wise priors, rarer ones have a wider one.
TYPICAL_COUNT = 10


class Config(NamedTuple):
    """What is run.

    Attributes:
        targets: names of the targets.
        num_labels: labels in all.
        seeds: number of seeds.
        steps: steps of every target run.
        scales: standard deviations among which the scale of a prior is chosen.
        learning_rate: of every method with a prior, falling to zero.
        rates: learning rates among which that without a prior chooses; as many as ``scales``.
        transfer_at: numbers of labels at which ``btl.transfer`` runs, by far the dearest; none by default.
        source_steps: steps of the source network.
    """

    targets: tuple[str, ...] = tuple(TARGETS)
    num_labels: tuple[int, ...] = (20, 100, 500)
    seeds: int = 5
    steps: int = 100
    scales: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    learning_rate: float = 0.5
    rates: tuple[float, ...] = (0.03, 0.06, 0.125, 0.25, 0.5, 1.0)
    transfer_at: tuple[int, ...] = ()
    source_steps: int = 600


# What may differ between a run and an earlier one whose rows it takes up.
MAY_GROW = ("targets", "num_labels", "transfer_at")


def checked(config: Config) -> Config:
    """The configuration, when it can be run.

    Raises:
        SystemExit: an unknown target, or one that the source has seen.
    """
    for name in config.targets:
        if name in LEAKS:
            raise SystemExit(
                f"--targets has {name}, which shares {LEAKS[name]}% of its sentences with rt-polarity: a source that "
                f"was trained on them cannot be judged there; there are {', '.join(TARGETS)}"
            )
        if name not in TARGETS:
            raise SystemExit(f"--targets has {name!r}; there are {', '.join(TARGETS)}")
    if config.seeds < 1 or config.steps < 2 or min(config.num_labels) < 2:
        raise SystemExit("--seeds must be at least 1, --steps and --n at least 2")
    return config
